// SPDX-License-Identifier: MIT
/// @file
/// A program in a terminal of its own: what is typed there reaches it as from a keyboard. It is the
/// foreground process group of a session whose leader, as a shell does, waits for it, so that its
/// family does not owe its end to the session's.
#pragma once

#include <fcntl.h>
#include <poll.h>
#include <pty.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <functional>
#include <string>
#include <system_error>

#include "family.hpp"

namespace fault {

class terminal {
 public:
  /// Runs @p body as the foreground program; support::run_child tells what that means.
  explicit terminal(const std::function<int()>& body) {
    leader_ = forkpty(&keyboard_, nullptr, nullptr, nullptr);
    if (leader_ < 0) throw std::system_error(errno, std::generic_category(), "forkpty");
    if (leader_ == 0) lead(body);
    fcntl(keyboard_, F_SETFD, FD_CLOEXEC);
    family_.close_write();
    report_.close_write();
    stay_.close_read();
  }
  terminal(const terminal&) = delete;
  terminal& operator=(const terminal&) = delete;
  ~terminal() {
    stay_.close_write();
    close(keyboard_);
    (void)support::wait_child(leader_);
  }

  void type(char key) const {
    if (write(keyboard_, &key, 1) != 1) std::perror("terminal");
  }

  /// Reads until the program has written @p word; false when it does not in time.
  [[nodiscard]] bool shows(const std::string& word, milliseconds limit = seconds(20)) {
    const auto end = std::chrono::steady_clock::now() + limit;
    while (screen_.find(word) == std::string::npos) {
      pollfd news{keyboard_, POLLIN, 0};
      if (std::chrono::steady_clock::now() >= end) return false;
      if (poll(&news, 1, static_cast<int>(std::min(limit, milliseconds(100)).count())) != 1)
        continue;
      std::array<char, 256> buffer;
      const ssize_t got = read(keyboard_, buffer.data(), buffer.size());
      if (got <= 0) return false;
      screen_.append(buffer.data(), static_cast<std::size_t>(got));
    }
    return true;
  }

  /// The program's exit code, once it has ended.
  [[nodiscard]] std::optional<int> exitcode(milliseconds limit = seconds(20)) const {
    int code = 0;
    if (!report_.ended_within(limit) || read(report_.reader(), &code, sizeof code) == 0) return {};
    return code;
  }

  /// Whether nobody of the program's family is left in time. The leader is not one of it.
  [[nodiscard]] bool gone(milliseconds limit = one_second) const {
    return family_.ended_within(limit);
  }

  [[nodiscard]] const std::string& screen() const noexcept { return screen_; }

 private:
  [[noreturn]] void lead(const std::function<int()>& body) {
    signal(SIGINT, SIG_IGN);
    signal(SIGTTOU, SIG_IGN);
    report_.close_read();
    stay_.close_write();
    family_.close_read();
    const pid_t program = support::start_child([&] {
      setpgid(0, 0);
      tcsetpgrp(STDIN_FILENO, getpid());
      signal(SIGINT, SIG_DFL);
      signal(SIGTTOU, SIG_DFL);
      report_.close_write();
      stay_.close_read();
      return body();
    });
    family_.close_write();
    const int code = support::wait_child(program);
    if (write(report_.writer(), &code, sizeof code) < 0) _exit(1);
    report_.close_write();
    char nothing = 0;
    (void)!read(stay_.reader(), &nothing, 1);  // until the test is done
    _exit(0);
  }

  pipe_pair family_;
  pipe_pair report_;
  pipe_pair stay_;
  std::string screen_;
  int keyboard_ = -1;
  pid_t leader_ = 0;
};

}  // namespace fault
