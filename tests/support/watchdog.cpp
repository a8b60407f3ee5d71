// SPDX-License-Identifier: MIT
#include "watchdog.hpp"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <optional>
#include <sstream>
#include <string>

#include "processes.hpp"

namespace support {

namespace {

using clock = std::chrono::steady_clock;

struct {
  pid_t pid = 0;
  int messages = -1;
} watchdog;

/// The parent's part. Single-threaded; ends by _exit, never returns.
class supervisor {
 public:
  supervisor(pid_t tests, int messages) : tests_(tests), messages_(messages) {
    sigset_t child;
    sigemptyset(&child);
    sigaddset(&child, SIGCHLD);
    sigprocmask(SIG_BLOCK, &child, nullptr);
    signals_ = signalfd(-1, &child, SFD_CLOEXEC | SFD_NONBLOCK);
    signal(SIGINT, SIG_IGN);  // Ctrl-C reaches the tests too, and this process ends after them
  }

  [[noreturn]] void run() {
    for (;;) {
      reap();
      if (deadline_ && clock::now() >= *deadline_) time_is_up();
      wait_for_event();
      read_messages();
    }
  }

 private:
  /// Reaps the test program and the adopted orphans.
  void reap() {
    int status = 0;
    for (pid_t pid = 0; (pid = waitpid(-1, &status, WNOHANG)) > 0;) {
      if (pid == tests_) finish(status);
    }
  }

  void wait_for_event() {
    std::array<pollfd, 2> fds{{{messages_, POLLIN, 0}, {signals_, POLLIN, 0}}};
    poll(fds.data(), fds.size(), milliseconds_left());
    std::array<signalfd_siginfo, 16> ignored;
    while (read(signals_, ignored.data(), sizeof ignored) > 0) continue;
  }

  [[nodiscard]] int milliseconds_left() const {
    if (!deadline_) return -1;
    const auto left =
        std::chrono::ceil<std::chrono::milliseconds>(*deadline_ - clock::now()).count();
    return static_cast<int>(std::clamp<long>(left, 0, std::numeric_limits<int>::max()));
  }

  void read_messages() {
    std::array<char, 4096> buffer;
    ssize_t got = 0;
    while ((got = read(messages_, buffer.data(), buffer.size())) > 0) {
      pending_.append(buffer.data(), static_cast<std::size_t>(got));
    }
    if (got == 0) messages_ = -1;  // poll skips it from now on
    for (auto end = pending_.find('\n'); end != std::string::npos; end = pending_.find('\n')) {
      set_limit(pending_.substr(0, end));
      pending_.erase(0, end + 1);
    }
  }

  /// Sets the limit. @param message "seconds name", or "seconds" for the running test
  void set_limit(const std::string& message) {
    std::istringstream words(message);
    long seconds = 0;
    words >> seconds;
    limit_ = std::chrono::seconds(seconds);
    deadline_ = clock::now() + limit_;
    if (words.get() == ' ') std::getline(words, name_);
  }

  [[noreturn]] void finish(int status) {
    read_messages();
    kill_everything();
    if (WIFEXITED(status)) _exit(WEXITSTATUS(status));
    const int number = WTERMSIG(status);
    std::fprintf(stderr, "\nThe test program was ended by signal %d (%s) in: %s\n", number,
                 strsignal_name(number), name_.c_str());
    _exit(128 + number);
  }

  static const char* strsignal_name(int number) {
    const char* name = sigabbrev_np(number);
    return name != nullptr ? name : "unknown";
  }

  [[noreturn]] void time_is_up() {
    std::fprintf(stderr, "\nTIME LIMIT: more than %ld s in: %s\nKilled:\n",
                 static_cast<long>(limit_.count()), name_.c_str());
    for (const auto& process : descendants_of(getpid())) {
      std::fprintf(stderr, "  process %s\n", describe(process).c_str());
    }
    kill_everything();
    _exit(time_limit_status);
  }

  /// Repeats, because a process may fork just before it is killed.
  static void kill_everything() {
    for (int attempt = 0; attempt < 1000; ++attempt) {
      while (waitpid(-1, nullptr, WNOHANG) > 0) continue;
      const auto rest = descendants_of(getpid());
      if (rest.empty()) return;
      for (const auto& process : rest) kill(process.pid, SIGKILL);
      usleep(5000);
    }
  }

  pid_t tests_;
  int messages_;
  int signals_ = -1;
  std::string pending_;
  std::string name_ = "(start of the program)";
  std::chrono::seconds limit_{};
  std::optional<clock::time_point> deadline_;
};

bool wanted() {
  return std::getenv("PROCPOOL_TEST_NO_WATCHDOG") == nullptr;
}

long scale() {
  const char* text = std::getenv("PROCPOOL_TEST_LIMIT_SCALE");
  return text != nullptr ? std::max(1L, std::atol(text)) : 1;
}

void send(const std::string& message) {
  if (watchdog.messages < 0) return;
  const std::string line = message + '\n';
  if (write(watchdog.messages, line.data(), line.size()) < 0) std::perror("watchdog");
}

std::string on_one_line(std::string_view text) {
  std::string line(text);
  std::replace(line.begin(), line.end(), '\n', ' ');
  return line;
}

}  // namespace

void start_watchdog() {
  std::array<int, 2> ends{};
  if (!wanted() || pipe2(ends.data(), O_CLOEXEC) != 0) return;
  const pid_t parent = getpid();
  prctl(PR_SET_CHILD_SUBREAPER, 1);  // not inherited: the tests themselves adopt no orphans
  const pid_t child = fork();
  if (child < 0) {
    std::perror("watchdog");
    std::_Exit(1);
  }
  if (child > 0) {
    close(ends[1]);
    fcntl(ends[0], F_SETFL, O_NONBLOCK);
    supervisor(child, ends[0]).run();
  }
  close(ends[0]);
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != parent) std::_Exit(1);
  watchdog = {parent, ends[1]};
}

pid_t watchdog_pid() noexcept {
  return watchdog.pid;
}

void watch(std::string_view name, std::chrono::seconds limit) {
  send(std::to_string(limit.count() * scale()) + ' ' + on_one_line(name));
}

void extend_limit(std::chrono::seconds limit) {
  send(std::to_string(limit.count() * scale()));
}

}  // namespace support
