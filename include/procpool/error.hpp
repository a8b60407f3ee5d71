// SPDX-License-Identifier: MIT
// Level 0: vocabulary.
/// @file
/// The exceptions that procpool throws. All derive from procpool::Error, except bad arguments
/// (std::invalid_argument) and calls in a wrong state of a Process or Pool (std::logic_error).
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <optional>
#include <stdexcept>
#include <string>
#include <system_error>
#include <utility>

namespace procpool {

/// Base of all errors of the library (multiprocessing.ProcessError's place in Python).
class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// A wait ended before its result was there, or a task ran longer than its time limit.
class TimeoutError : public Error {
 public:
  using Error::Error;
};

/// The task was cancelled, or its pool was terminated before it had finished.
class CancelledError : public Error {
 public:
  using Error::Error;
};

/// The pool cannot run tasks any more; what() says why.
class BrokenPool : public Error {
 public:
  using Error::Error;
};

/// Work was submitted to a pool that is closed or terminated.
class PoolClosed : public Error {
 public:
  using Error::Error;
};

/// The operating system refused something the library needs: a process, memory, a descriptor.
/// what() names the call and the reason, code() is the errno.
class ProcessError : public Error {
 public:
  explicit ProcessError(const std::string& what) : Error(what) {}
  ProcessError(const std::string& what, std::error_code code)
      : Error(what + ": " + code.message()), code_(code) {}

  /// The reason as the operating system gave it; empty where there was none.
  [[nodiscard]] const std::error_code& code() const noexcept { return code_; }

 private:
  std::error_code code_;
};

/// Received bytes are not an encoding of the expected type.
class DecodeError : public Error {
 public:
  DecodeError(const std::string& what, std::size_t offset)
      : Error(what + " at byte " + std::to_string(offset)), offset_(offset) {}

  /// Where in the message the fault was noticed, in bytes from its start.
  [[nodiscard]] std::size_t offset() const noexcept { return offset_; }

 private:
  std::size_t offset_;
};

/// A task threw an exception of a type that the parent cannot rebuild; type_name() says which.
class RemoteError : public Error {
 public:
  RemoteError(std::string type_name, const std::string& what)
      : Error(type_name + ": " + what), type_name_(std::move(type_name)) {}

  /// The demangled name of the exception's type in the worker.
  [[nodiscard]] const std::string& type_name() const noexcept { return type_name_; }

 private:
  std::string type_name_;
};

/// Nested inside every exception that came out of a worker (std::rethrow_if_nested finds it), as
/// Python sets `__cause__`: says which worker threw, running what, and the chain of causes there.
class RemoteTraceback : public Error {
 public:
  using Error::Error;
};

/// How a worker came to its end, for WorkerDied.
struct worker_death {
  pid_t pid = 0;                    ///< process id of the worker
  int exitcode = 0;                 ///< Python's: the exit status, or minus the signal's number
  std::optional<std::size_t> item;  ///< index of the item that was running, for tasks with items
};

/// A worker ended in the middle of a task: by a signal, by exit or abort, or killed by somebody.
class WorkerDied : public Error {
 public:
  WorkerDied(const std::string& what, const worker_death& death) : Error(what), death_(death) {}

  /// Process id of the worker that died.
  [[nodiscard]] pid_t pid() const noexcept { return death_.pid; }
  /// Python's exit code: the exit status, or minus the number of the signal that killed it.
  [[nodiscard]] int exitcode() const noexcept { return death_.exitcode; }
  /// The signal that killed the worker; empty when it exited by itself.
  [[nodiscard]] std::optional<int> signal() const noexcept {
    return death_.exitcode < 0 ? std::optional(-death_.exitcode) : std::nullopt;
  }
  /// Index in the input of the item that was running: 0 for apply.
  [[nodiscard]] std::optional<std::size_t> item() const noexcept { return death_.item; }

 private:
  worker_death death_;
};

}  // namespace procpool
