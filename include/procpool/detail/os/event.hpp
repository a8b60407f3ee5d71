// SPDX-License-Identifier: MIT
/// @file
/// Wake-ups through descriptors: eventfd(2) as a doorbell, epoll(7) to wait for many of them.
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

/// A doorbell: rung by any holder of the descriptor, silenced by the one who waits.
class event {
 public:
  event() noexcept = default;
  [[nodiscard]] static event make() {
    event made(off_stdio(fd(check(PROCPOOL_SYSTEM(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)),
                                  "cannot create an event descriptor for the pool (eventfd)"))));
    PROCPOOL_SYSTEM(fcntl(made.get(), F_SETSIG, mark()));
    return made;
  }
  /// Eventfds share one inode. What tells ours from a task's own is the number of the signal that
  /// it would send, which it never does (O_ASYNC).
  static int mark() noexcept { return SIGRTMAX - 1; }
  explicit event(fd adopted) noexcept : fd_(std::move(adopted)) {}

  /// Rings once, or @p times; false when the descriptor is not ours any more. A full counter is a
  /// bell that rings.
  bool signal(std::uint64_t times = 1) const noexcept {
    const auto sent =
        retry([&] { return PROCPOOL_SYSTEM(write(fd_.get(), &times, sizeof times)); });
    return sent != -1 || errno == EAGAIN;
  }
  /// Silences the bell; how often it had been rung.
  std::uint64_t drain() const noexcept {
    std::uint64_t count = 0;
    // Never waits, even when another holder has cleared O_NONBLOCK, which all of them share.
    const iovec into{&count, sizeof count};
    const auto got =
        retry([&] { return PROCPOOL_SYSTEM(preadv2(fd_.get(), &into, 1, -1, RWF_NOWAIT)); });
    if (got == static_cast<ssize_t>(sizeof count)) return count;
    return got == -1 && errno != EAGAIN ? silence_plainly() : 0;
  }

  explicit operator bool() const noexcept { return static_cast<bool>(fd_); }
  [[nodiscard]] int get() const noexcept { return fd_.get(); }
  void reset() noexcept { fd_.reset(); }
  /// The descriptor is somebody else's now: it is not closed.
  void forget() noexcept { static_cast<void>(fd_.release()); }

 private:
  // Where preadv2(2) is refused, or not known for such a descriptor: the bell would ring for ever.
  [[nodiscard]] std::uint64_t silence_plainly() const noexcept {
    std::uint64_t count = 0;
    pollfd interest{fd_.get(), POLLIN, 0};
    if (PROCPOOL_SYSTEM(poll(&interest, 1, 0)) != 1) return 0;
    const auto got = retry([&] { return PROCPOOL_SYSTEM(read(fd_.get(), &count, sizeof count)); });
    return got == static_cast<ssize_t>(sizeof count) ? count : 0;
  }

  fd fd_;
};

/// What a descriptor stands for, as far as it can be told: a task may have closed it, and its
/// number may be another file's by now.
struct file_identity {
  dev_t device = 0;
  ino_t inode = 0;  ///< 0: of no file
  int signal = 0;   ///< see event::mark(); of others 0

  static file_identity of(int descriptor) noexcept {
    struct stat about {};
    if (PROCPOOL_SYSTEM(fstat(descriptor, &about)) != 0) return {};
    return {about.st_dev, about.st_ino, PROCPOOL_SYSTEM(fcntl(descriptor, F_GETSIG))};
  }
  friend bool operator==(const file_identity&, const file_identity&) = default;
};

/// A bell of a worker whose task has closed the other one: a signal that only it sends, queued to
/// its fork server, which tells the pool.
struct signal_waker {
  pid_t server = 0;  ///< 0: there is no such bell

  static int number() noexcept { return SIGRTMIN; }
  [[nodiscard]] bool signal() const noexcept {
    if (server == 0 || PROCPOOL_SYSTEM(getppid()) != server) return false;
    return PROCPOOL_SYSTEM(sigqueue(server, number(), sigval{})) == 0;
  }
};

/// Waits for several descriptors at once; each is known by a number of the caller's choice.
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

  /// Sleeps until a descriptor is readable or @p until has come (never: nullopt); calls
  /// @p each(tag) for those that are. A signal ends the sleep early.
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
  // Rounded up, so that a wait does not end a moment before its time and spin.
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
