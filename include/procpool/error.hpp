// SPDX-License-Identifier: MIT
/// @file
/// The exceptions that procpool throws. All derive from procpool::Error, except three:
/// std::invalid_argument for bad arguments, std::logic_error for a call that the state of a Process
/// or Pool does not allow, and MemoryLimitError, which is a std::bad_alloc.
///
/// The objects can be copied and passed between threads like any exception of the standard library.
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

/// The base of the library's exceptions. Python: multiprocessing.ProcessError has this role.
class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// A wait ended before the result was ready, and the task continues; or a task exceeded its time
/// limit, and its worker was replaced. Python: multiprocessing.TimeoutError, for waits only.
class TimeoutError : public Error {
 public:
  using Error::Error;
};

/// The task was cancelled, a wait was stopped by a stop token, or the pool was terminated before
/// the task had finished. Python: concurrent.futures.CancelledError; a terminated
/// multiprocessing.Pool leaves results that never become ready.
class CancelledError : public Error {
 public:
  using Error::Error;
};

/// The pool cannot run tasks any more, because its workers repeatedly failed to start or its fork
/// server died; what() gives the reason. All unfinished and all new calls get it.
/// Python: concurrent.futures.process.BrokenProcessPool. One dead worker does not break a pool
/// here.
class BrokenPool : public Error {
 public:
  using Error::Error;
};

/// A task was submitted to a pool that is closed or terminated. Python: ValueError.
class PoolClosed : public Error {
 public:
  using Error::Error;
};

/// A bounded Queue has no room, also not within the time given. Python: queue.Full.
class Full : public Error {
 public:
  using Error::Error;
};

/// A Queue has no item, also not within the time given. Python: queue.Empty.
class Empty : public Error {
 public:
  using Error::Error;
};

/// An item was put into a Queue that is closed, or was to be taken from one that is closed and
/// empty. Python: ValueError in multiprocessing, queue.ShutDown in the queues of threads.
class QueueClosed : public Error {
 public:
  using Error::Error;
};

/// The operating system refused a resource: a process, memory, a descriptor. what() names the
/// system call and the reason; code() holds errno. Python: OSError.
class ProcessError : public Error {
 public:
  explicit ProcessError(const std::string& what) : Error(what) {}
  ProcessError(const std::string& what, std::error_code code)
      : Error(detail::concat({what, ": ", code.message()})), code_(code) {}

  /// @returns errno as a std::error_code of the generic category; no error if there was no errno
  [[nodiscard]] const std::error_code& code() const noexcept { return code_; }

 private:
  std::error_code code_;
};

/// The peer of a Connection has closed its end, or has died, and nothing is left to receive; or it
/// did so in the middle of a message. Python: EOFError; OSError in the middle of a message.
class EOFError : public Error {
 public:
  using Error::Error;
};

/// The peer of a Connection has closed its end, or has died: what was sent may not have arrived.
/// code() is EPIPE or ECONNRESET. There is no signal SIGPIPE. Python: BrokenPipeError,
/// ConnectionResetError.
class BrokenPipeError : public ProcessError {
 public:
  using ProcessError::ProcessError;
};

/// A received message is longer than the memory it was to be received into. Python:
/// multiprocessing.BufferTooShort.
class BufferTooShort : public Error {
 public:
  BufferTooShort(const std::string& what, std::vector<std::byte> message)
      : Error(what), message_(std::make_shared<const std::vector<std::byte>>(std::move(message))) {}

  /// @returns the message; it cannot be received again
  [[nodiscard]] const std::vector<std::byte>& message() const noexcept { return *message_; }

 private:
  std::shared_ptr<const std::vector<std::byte>> message_;  // copies of exceptions cannot throw
};

/// The peer of a Listener or Client has another key, or none, or does not follow the protocol.
/// Python: multiprocessing.AuthenticationError.
class AuthenticationError : public Error {
 public:
  using Error::Error;
};

/// A Barrier is broken: one of those who had to meet there has given up, has died while it waited,
/// or has called abort() or reset(). Python: threading.BrokenBarrierError.
class BrokenBarrier : public Error {
 public:
  using Error::Error;
};

/// Received bytes are not an encoding of the expected type. Python: pickle.UnpicklingError.
class DecodeError : public Error {
 public:
  DecodeError(const std::string& what, std::size_t offset)
      : Error(detail::concat({what, " at byte ", offset})), offset_(offset) {}

  /// @returns where decoding failed, in bytes from the start of the message
  [[nodiscard]] std::size_t offset() const noexcept { return offset_; }

 private:
  std::size_t offset_;
};

/// Stands for a task's exception whose type the parent cannot rebuild; see register_exception().
/// what() is the type's name and its text. Python pickles exceptions and needs no registration.
class RemoteError : public Error {
 public:
  RemoteError(std::string type_name, const std::string& what)
      : Error(detail::concat({type_name, ": ", what})), type_name_(std::move(type_name)) {}

  /// @returns the demangled name of the exception's type in the worker
  [[nodiscard]] const std::string& type_name() const noexcept { return type_name_; }

 private:
  std::string type_name_;
};

/// Nested inside every exception that a worker threw; std::rethrow_if_nested finds it. what() names
/// the worker, its callable and the chain of nested exceptions there. Python sets `__cause__` to a
/// multiprocessing.pool.RemoteTraceback.
class RemoteTraceback : public Error {
 public:
  using Error::Error;
};

/// A task exceeded its worker's memory limit (pool_options::memory_limit). The worker continues.
/// Python has no such limit; its MemoryError is C++'s std::bad_alloc.
class MemoryLimitError : public std::bad_alloc {
 public:
  explicit MemoryLimitError(const std::string& what)
      : what_(std::make_shared<const std::string>(what)) {}

  [[nodiscard]] const char* what() const noexcept override { return what_->c_str(); }

 private:
  std::shared_ptr<const std::string> what_;  // copies of exceptions cannot throw
};

/// One death of a worker while it ran an item.
struct worker_death {
  pid_t pid = 0;     ///< process id of the worker
  int exitcode = 0;  ///< as in Python: the exit status, or minus the signal's number
  std::optional<std::size_t> item = {};  ///< index of the item that was running; 0 for apply
  std::string worker = {};               ///< name of the worker, "PoolWorker-3"
  std::string callable = {};             ///< name of the function or function object
  int attempt = 1;                       ///< number of the attempt at this item, from 1
  std::string cause = {};                ///< why the pool killed the worker; empty if it did not
  std::string reason = {};               ///< the kernel's reason for a crash: "address not mapped"
  std::optional<std::uintptr_t> fault_address =
      {};                               ///< the address whose access ended it, for some signals
  std::vector<std::string> stack = {};  ///< frames of the crashed thread, innermost first
};

/// A worker died while it ran the item: by a signal, by exit or abort, or killed from outside. The
/// pool replaces the worker; other items keep their results. what() is a report of several lines:
/// the worker, the cause of death, the callable, the place of the crash, and earlier attempts.
/// Python: a multiprocessing.Pool does not notice, and the result never becomes ready.
class WorkerDied : public Error {
 public:
  /// @param attempts not empty; the accessors below describe the last one
  WorkerDied(const std::string& what, std::vector<worker_death> attempts)
      : Error(what),
        attempts_(std::make_shared<const std::vector<worker_death>>(std::move(attempts))) {}

  /// @returns the process id of the worker that died
  [[nodiscard]] pid_t pid() const noexcept { return last().pid; }
  /// @returns the worker's name, "PoolWorker-3"
  [[nodiscard]] const std::string& worker() const noexcept { return last().worker; }
  /// @returns the exit code as in Python: the exit status, or minus the number of the signal
  [[nodiscard]] int exitcode() const noexcept { return last().exitcode; }
  /// @returns the number of the signal that killed the worker; empty if it exited by itself
  [[nodiscard]] std::optional<int> signal() const noexcept {
    return exitcode() < 0 ? std::optional(-exitcode()) : std::nullopt;
  }
  /// @returns the name of the function or function object that the worker ran
  [[nodiscard]] const std::string& callable() const noexcept { return last().callable; }
  /// @returns the index in the input of the item that was running; 0 for apply
  [[nodiscard]] std::optional<std::size_t> item() const noexcept { return last().item; }
  /// @returns the number of this attempt at the item, from 1
  [[nodiscard]] int attempt() const noexcept { return last().attempt; }
  /// @returns the address whose access ended the worker, for SIGSEGV, SIGBUS and the like
  [[nodiscard]] std::optional<std::uintptr_t> fault_address() const noexcept {
    return last().fault_address;
  }
  /// @returns the stack of the crashed thread, innermost frame first, as far as it could be read;
  /// empty if the worker could not record it (SIGKILL, exit)
  [[nodiscard]] const std::vector<std::string>& stack() const noexcept { return last().stack; }
  /// Runs the item again in the calling thread, for a debugger: the same code with the same
  /// arguments, task number and random numbers. Drops the result. An item that killed its worker is
  /// likely to kill this process, too. Any thread, any number of times.
  /// @throws whatever the item throws; std::logic_error if its arguments were not kept (larger than
  /// pool_options::replay_bytes, or the exception came from another process)
  void replay() const { detail::replay(replay_); }

  /// For the pool: sets the record that replay() runs.
  void keep(std::shared_ptr<const detail::replayable> record) noexcept {
    replay_ = std::move(record);
  }

  /// @returns all attempts at the item that ended with a worker's death, this one last
  [[nodiscard]] const std::vector<worker_death>& attempts() const noexcept { return *attempts_; }

 private:
  [[nodiscard]] const worker_death& last() const noexcept { return attempts_->back(); }

  std::shared_ptr<const std::vector<worker_death>> attempts_;  // copies of exceptions cannot throw
  std::shared_ptr<const detail::replayable> replay_;
};

}  // namespace procpool
