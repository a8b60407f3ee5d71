// SPDX-License-Identifier: MIT
/// @file
/// The exceptions that procpool throws. All derive from procpool::Error, except bad arguments
/// (std::invalid_argument), calls in a wrong state of a Process or Pool (std::logic_error) and
/// MemoryLimitError, which is a std::bad_alloc.
#pragma once

#include <procpool/config.hpp>  // first, for its errors

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>
#include <optional>
#include <stdexcept>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include <procpool/detail/base/concat.hpp>
#include <procpool/detail/base/replayable.hpp>

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
      : Error(detail::concat({what, ": ", code.message()})), code_(code) {}

  /// The reason as the operating system gave it; empty where there was none.
  [[nodiscard]] const std::error_code& code() const noexcept { return code_; }

 private:
  std::error_code code_;
};

/// Received bytes are not an encoding of the expected type.
class DecodeError : public Error {
 public:
  DecodeError(const std::string& what, std::size_t offset)
      : Error(detail::concat({what, " at byte ", offset})), offset_(offset) {}

  /// Where in the message the fault was noticed, in bytes from its start.
  [[nodiscard]] std::size_t offset() const noexcept { return offset_; }

 private:
  std::size_t offset_;
};

/// A task threw an exception of a type that the parent cannot rebuild; type_name() says which.
class RemoteError : public Error {
 public:
  RemoteError(std::string type_name, const std::string& what)
      : Error(detail::concat({type_name, ": ", what})), type_name_(std::move(type_name)) {}

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

/// A task needed more memory than its worker may have (pool_options::memory_limit). The worker goes
/// on. Python has no such limit; its MemoryError is C++'s std::bad_alloc.
class MemoryLimitError : public std::bad_alloc {
 public:
  explicit MemoryLimitError(const std::string& what)
      : what_(std::make_shared<const std::string>(what)) {}

  [[nodiscard]] const char* what() const noexcept override { return what_->c_str(); }

 private:
  std::shared_ptr<const std::string> what_;  // copies of exceptions cannot throw
};

/// How one attempt at a task ended with the end of its worker.
struct worker_death {
  pid_t pid = 0;     ///< process id of the worker
  int exitcode = 0;  ///< Python's: the exit status, or minus the signal's number
  std::optional<std::size_t> item = {};  ///< index of the item that was running, 0 for apply
  std::string worker = {};               ///< name of the worker
  std::string callable = {};             ///< what it ran
  int attempt = 1;                       ///< counts the attempts at this item
  std::string cause = {};                ///< why the pool killed it; empty when it did not
  std::string reason = {};               ///< what the kernel said of a crash: "address not mapped"
  std::optional<std::uintptr_t> fault_address =
      {};                               ///< of the access that ended it, for some signals
  std::vector<std::string> stack = {};  ///< of the thread that crashed, innermost first
};

/// A worker ended in the middle of a task: by a signal, by exit or abort, or killed by somebody.
/// what() is a report of several lines: who died of what, running what, where the crash was, and
/// what earlier attempts came to.
class WorkerDied : public Error {
 public:
  /// @param attempts at least one; the last is the one that counts
  WorkerDied(const std::string& what, std::vector<worker_death> attempts)
      : Error(what),
        attempts_(std::make_shared<const std::vector<worker_death>>(std::move(attempts))) {}

  /// Process id of the worker that died.
  [[nodiscard]] pid_t pid() const noexcept { return last().pid; }
  /// Its name, as "PoolWorker-3".
  [[nodiscard]] const std::string& worker() const noexcept { return last().worker; }
  /// Python's exit code: the exit status, or minus the number of the signal that killed it.
  [[nodiscard]] int exitcode() const noexcept { return last().exitcode; }
  /// The signal that killed the worker; empty when it exited by itself.
  [[nodiscard]] std::optional<int> signal() const noexcept {
    return exitcode() < 0 ? std::optional(-exitcode()) : std::nullopt;
  }
  /// The name of the function or function object that it ran.
  [[nodiscard]] const std::string& callable() const noexcept { return last().callable; }
  /// Index in the input of the item that was running: 0 for apply.
  [[nodiscard]] std::optional<std::size_t> item() const noexcept { return last().item; }
  /// Which attempt at the item this was, from 1.
  [[nodiscard]] int attempt() const noexcept { return last().attempt; }
  /// The address whose access ended the worker, for SIGSEGV, SIGBUS and the like.
  [[nodiscard]] std::optional<std::uintptr_t> fault_address() const noexcept {
    return last().fault_address;
  }
  /// The stack of the thread that crashed, innermost frame first, as far as it could be read; empty
  /// for deaths that leave no time for it (SIGKILL, exit).
  [[nodiscard]] const std::vector<std::string>& stack() const noexcept { return last().stack; }
  /// Runs the item once more, in the calling thread: the same code with the same arguments, task
  /// number and random numbers, so that a debugger can step through what killed the worker. Its
  /// result is dropped. If it kills the worker it is likely to kill this process, too.
  /// @throws what the item throws; std::logic_error when its arguments were not kept (larger than
  /// pool_options::replay_bytes, or the exception came from another process)
  void replay() const { detail::replay(replay_); }

  /// For the pool: what replay() runs.
  void keep(std::shared_ptr<const detail::replayable> what) noexcept { replay_ = std::move(what); }

  /// All attempts at the item that ended with the death of a worker, this one last.
  [[nodiscard]] const std::vector<worker_death>& attempts() const noexcept { return *attempts_; }

 private:
  [[nodiscard]] const worker_death& last() const noexcept { return attempts_->back(); }

  std::shared_ptr<const std::vector<worker_death>> attempts_;  // copies of exceptions cannot throw
  std::shared_ptr<const detail::replayable> replay_;
};

}  // namespace procpool
