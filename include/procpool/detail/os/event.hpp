// SPDX-License-Identifier: MIT
/// @file
/// Wake-ups through descriptors: eventfd(2) to signal, epoll(7) to wait for many at once.
#pragma once

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <optional>
#include <utility>

#include <procpool/detail/os/fd.hpp>
#include <procpool/detail/os/stdio.hpp>
#include <procpool/detail/os/syscall.hpp>
#include <procpool/detail/os/time.hpp>

namespace procpool::detail::os {

/// An eventfd: any holder of the descriptor signals it, the waiting thread drains it.
class event {
 public:
  event() noexcept = default;
  [[nodiscard]] static event make() {
    event made(off_stdio(fd(check(PROCPOOL_SYSTEM(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)),
                                  "cannot create an event descriptor for the pool (eventfd)"))));
    PROCPOOL_SYSTEM(fcntl(made.get(), F_SETSIG, mark()));
    return made;
  }
  /// A signal number stored in the descriptor (F_SETSIG). All eventfds share one inode, so this
  /// number tells ours from a task's own. It is never sent, because O_ASYNC is not set.
  static int mark() noexcept { return SIGRTMAX - 1; }
  explicit event(fd adopted) noexcept : fd_(std::move(adopted)) {}

  /// Adds @p times to the counter; false when the descriptor is no longer ours. A full counter
  /// (EAGAIN) counts as success, because the event is signalled already.
  bool signal(std::uint64_t times = 1) const noexcept {
    const auto sent =
        retry([&] { return PROCPOOL_SYSTEM(write(fd_.get(), &times, sizeof times)); });
    return sent != -1 || errno == EAGAIN;
  }
  /// Resets the event. @returns how often it was signalled since the last time
  std::uint64_t drain() const noexcept {
    std::uint64_t count = 0;
    // RWF_NOWAIT: never blocks, even if another holder has cleared O_NONBLOCK, which is shared.
    const iovec into{&count, sizeof count};
    const auto got =
        retry([&] { return PROCPOOL_SYSTEM(preadv2(fd_.get(), &into, 1, -1, RWF_NOWAIT)); });
    if (got == static_cast<ssize_t>(sizeof count)) return count;
    return got == -1 && errno != EAGAIN ? drain_by_read() : 0;
  }

  explicit operator bool() const noexcept { return static_cast<bool>(fd_); }
  [[nodiscard]] int get() const noexcept { return fd_.get(); }
  void reset() noexcept { fd_.reset(); }
  /// Gives up the descriptor without closing it, because its number belongs to other code now.
  void forget() noexcept { static_cast<void>(fd_.release()); }

 private:
  // Where preadv2(2) is refused, or does not work on an eventfd: undrained, it would stay readable.
  [[nodiscard]] std::uint64_t drain_by_read() const noexcept {
    std::uint64_t count = 0;
    pollfd interest{fd_.get(), POLLIN, 0};
    if (PROCPOOL_SYSTEM(poll(&interest, 1, 0)) != 1) return 0;
    const auto got = retry([&] { return PROCPOOL_SYSTEM(read(fd_.get(), &count, sizeof count)); });
    return got == static_cast<ssize_t>(sizeof count) ? count : 0;
  }

  fd fd_;
};

/// Which file a descriptor refers to. A task may have closed the descriptor, and its number may be
/// another file's by now.
struct file_identity {
  dev_t device = 0;
  ino_t inode = 0;  ///< 0: no file
  int signal = 0;   ///< event::mark() for our events, 0 for others

  static file_identity of(int descriptor) noexcept {
    struct stat about {};
    if (PROCPOOL_SYSTEM(fstat(descriptor, &about)) != 0) return {};
    return {about.st_dev, about.st_ino, PROCPOOL_SYSTEM(fcntl(descriptor, F_GETSIG))};
  }
  friend bool operator==(const file_identity&, const file_identity&) = default;
};

/// The wake-up of a worker whose task has closed its eventfd: the worker queues a signal, used for
/// nothing else, to its fork server, which tells the pool.
struct signal_waker {
  pid_t server = 0;  ///< process id of the fork server; 0: none, signal() fails

  static int number() noexcept { return SIGRTMIN; }
  [[nodiscard]] bool signal() const noexcept {
    if (server == 0 || PROCPOOL_SYSTEM(getppid()) != server) return false;
    return PROCPOOL_SYSTEM(sigqueue(server, number(), sigval{})) == 0;
  }
};

/// Waits for several descriptors at once. The caller gives each of them a number, its tag.
class poller {
 public:
  [[nodiscard]] static poller make() {
    poller made;
    made.fd_ = off_stdio(fd(check(PROCPOOL_SYSTEM(epoll_create1(EPOLL_CLOEXEC)),
                                  "cannot create a poller for the pool (epoll_create1)")));
    return made;
  }

  void add(int descriptor, std::uint64_t tag) {
    epoll_event interest{.events = EPOLLIN, .data = {.u64 = tag}};
    check(PROCPOOL_SYSTEM(epoll_ctl(fd_.get(), EPOLL_CTL_ADD, descriptor, &interest)),
          "cannot watch a descriptor of the pool (epoll_ctl)");
  }
  void remove(int descriptor) noexcept {
    PROCPOOL_SYSTEM(epoll_ctl(fd_.get(), EPOLL_CTL_DEL, descriptor, nullptr));
  }

  /// Sleeps until a descriptor is readable or until @p until (nullopt: no limit). Calls
  /// @p each(tag) for the readable ones. A signal ends the sleep early.
  template <class Each>
  void wait(std::optional<time_point> until, Each each) {
    std::array<epoll_event, 64> ready;
    const int count = PROCPOOL_SYSTEM(
        epoll_wait(fd_.get(), ready.data(), static_cast<int>(ready.size()), milliseconds(until)));
    for (int i = 0; i < count; ++i) each(ready[static_cast<std::size_t>(i)].data.u64);
  }

  [[nodiscard]] int get() const noexcept { return fd_.get(); }
  void reset() noexcept { fd_.reset(); }

 private:
  // Rounded up: a wait that ended early would make the caller spin until the deadline.
  static int milliseconds(std::optional<time_point> until) {
    if (!until) return -1;
    const auto left =
        std::chrono::ceil<std::chrono::milliseconds>(*until - std::chrono::steady_clock::now());
    if (left.count() <= 0) return 0;
    return static_cast<int>(std::min<std::int64_t>(left.count(), 1'000'000));
  }

  fd fd_;
};

}  // namespace procpool::detail::os
