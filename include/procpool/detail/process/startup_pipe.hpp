// SPDX-License-Identifier: MIT
/// @file
/// The pipe through which a new worker sends its startup_status to its fork server. Nothing that
/// the worker does later takes a written status back, so the fork server of a dead worker knows for
/// certain whether it ever came up.
#pragma once

#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <utility>

#include <procpool/detail/os/fd.hpp>
#include <procpool/detail/os/stdio.hpp>
#include <procpool/detail/os/syscall.hpp>
#include <procpool/detail/process/startup_status.hpp>

namespace procpool::detail {

class startup_pipe {
 public:
  /// @throws ProcessError
  [[nodiscard]] static startup_pipe make() {
    std::array<int, 2> ends{};
    os::check(PROCPOOL_SYSTEM(pipe2(ends.data(), O_CLOEXEC | O_NONBLOCK)),
              "cannot create a pipe for a worker (pipe2)");
    os::fd server_end(ends[0]);
    os::fd worker_end(ends[1]);
    startup_pipe pipe;
    pipe.server_end_ = os::off_stdio(std::move(server_end));
    pipe.worker_end_ = os::off_stdio(std::move(worker_end));
    return pipe;
  }

  // ---- in the fork server --------------------------------------------------------------------

  /// Called when the worker has been forked.
  void keep_server_end() noexcept { worker_end_.reset(); }
  /// The status that the worker sent. Does not wait, because the worker is dead.
  [[nodiscard]] startup_status received() const noexcept {
    startup_status status;
    const auto got =
        os::retry([&] { return PROCPOOL_SYSTEM(read(server_end_.get(), &status, sizeof status)); });
    return got == sizeof status ? status : startup_status{};
  }

  // ---- in the worker -------------------------------------------------------------------------

  void keep_worker_end() noexcept { server_end_.reset(); }
  /// The worker has come up. Closes the pipe.
  void send_ready() noexcept {
    startup_status status;
    status.ready = 1;
    send(status);
  }
  /// The exception being handled ends the worker. Does nothing after send_ready().
  void send_exception() noexcept {
    if (worker_end_) send(status_of_exception());
  }
  /// The system call that has just failed ends the worker. Keeps errno.
  void send_errno(const char* attempt) noexcept {
    const int error = errno;
    startup_status status;
    status.fail(attempt, error);
    send(status);
    errno = error;
  }

 private:
  void send(const startup_status& status) noexcept {
    os::retry([&] { return PROCPOOL_SYSTEM(write(worker_end_.get(), &status, sizeof status)); });
    worker_end_.reset();
  }

  os::fd server_end_;
  os::fd worker_end_;
};

}  // namespace procpool::detail
