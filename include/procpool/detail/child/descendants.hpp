// SPDX-License-Identifier: MIT
/// @file
/// Descendants of a process: finds adopted children, identifies by a mark the pool and worker that
/// a process descends from, and kills them.
///
/// The mark is the soft limit of RLIMIT_RSS, which Linux ignores since 2.4. Fork and exec pass it
/// on, it needs no privileges, and a process keeps it when it leaves its session, its group and its
/// parent, as daemons do. Mark values are larger than any physical memory.
#pragma once

#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include <procpool/config.hpp>
#include <procpool/detail/child/pidfd.hpp>

namespace procpool::detail::os {

using process_mark = std::uint64_t;
inline constexpr process_mark first_mark = process_mark{1} << 62U;
inline constexpr unsigned bits_for_workers = 24;

/// The mark of a pool, made of 38 bits of @p random. Not of process ids: /proc also shows processes
/// of containers, whose ids may repeat ours.
constexpr process_mark mark_of_pool(std::uint64_t random) noexcept {
  return first_mark | random << (2 + bits_for_workers) >> 2U;
}
/// The mark of a worker and its descendants.
constexpr process_mark mark_of_worker(process_mark pool, std::uint64_t incarnation) noexcept {
  return pool | (incarnation & ((process_mark{1} << bits_for_workers) - 1));
}
constexpr bool same_pool(process_mark one, process_mark other) noexcept {
  return one >> bits_for_workers == other >> bits_for_workers;
}

/// Marks this process and all that it starts from now on. Does nothing if the hard limit is lower.
inline void mark_this_process(process_mark mark) noexcept {
  rlimit limit{};
  if (PROCPOOL_SYSTEM(getrlimit(RLIMIT_RSS, &limit)) != 0) return;
  limit.rlim_cur = mark;
  if (mark <= limit.rlim_max) PROCPOOL_SYSTEM(setrlimit(RLIMIT_RSS, &limit));
}

/// Removes the mark that this process has inherited.
inline void unmark_this_process() noexcept {
  rlimit limit{};
  if (PROCPOOL_SYSTEM(getrlimit(RLIMIT_RSS, &limit)) != 0 || limit.rlim_cur < first_mark) return;
  limit.rlim_cur = limit.rlim_max;
  PROCPOOL_SYSTEM(setrlimit(RLIMIT_RSS, &limit));
}

/// The soft limit of @p pid, which is its mark if it has one; 0 if we may not read it.
inline process_mark mark_of(pid_t pid) noexcept {
  rlimit limit{};
  if (PROCPOOL_SYSTEM(prlimit(pid, RLIMIT_RSS, nullptr, &limit)) != 0) return 0;
  return limit.rlim_cur;
}

/// Whether marks can be set and read here. A finite hard limit or a sandbox can prevent both.
inline bool can_mark(process_mark mark) noexcept {
  rlimit before{};
  if (PROCPOOL_SYSTEM(getrlimit(RLIMIT_RSS, &before)) != 0) return false;
  mark_this_process(mark);
  const bool marked = mark_of(PROCPOOL_SYSTEM(getpid())) == mark;
  PROCPOOL_SYSTEM(setrlimit(RLIMIT_RSS, &before));
  return marked;
}

/// Whether @p pid is an unreaped child of ours; only then the number cannot belong to another
/// process. Also correct in a pid namespace other than that of /proc.
inline bool is_own_child(pid_t pid) noexcept {
  siginfo_t info{};
  const int flags = WEXITED | WNOHANG | WNOWAIT | __WALL;
  return PROCPOOL_SYSTEM(waitid(P_PID, static_cast<id_t>(pid), &info, flags)) == 0;
}

/// Parses decimal numbers from characters and calls @p each for every number.
template <class Each>
class number_reader {
 public:
  explicit number_reader(Each& each) noexcept : each_(&each) {}
  void take(char c) {
    if (c >= '0' && c <= '9') {
      number_ = number_ * 10 + (c - '0');
      return;
    }
    if (number_ != 0) (*each_)(number_);
    number_ = 0;
  }

 private:
  Each* each_;
  pid_t number_ = 0;
};

/// Calls @p each(pid) for the children of the calling thread, as the kernel lists them. False if
/// there is no list (no /proc, or no CONFIG_PROC_CHILDREN). Allocates nothing.
template <class Each>
bool for_listed_children(Each each) {
  const int file = PROCPOOL_SYSTEM(open("/proc/thread-self/children", O_RDONLY | O_CLOEXEC));
  if (file == -1) return false;
  number_reader numbers(each);
  std::array<char, 4096> text{};
  while (true) {
    const auto got = PROCPOOL_SYSTEM(read(file, text.data(), text.size()));
    if (got <= 0) break;
    for (std::size_t i = 0; i < static_cast<std::size_t>(got); ++i) numbers.take(text[i]);
  }
  numbers.take(' ');
  PROCPOOL_SYSTEM(close(file));
  return true;
}

/// Calls @p each(pid) for all processes that /proc shows. Allocates nothing.
template <class Each>
void for_all_processes(Each each) {
  const int folder = PROCPOOL_SYSTEM(open("/proc", O_RDONLY | O_CLOEXEC | O_DIRECTORY));
  if (folder == -1) return;
  number_reader numbers(each);
  alignas(std::uint64_t) std::array<char, 4096> entries{};
  while (true) {
    const long got =
        PROCPOOL_SYSTEM(syscall(SYS_getdents64, folder, entries.data(), entries.size()));
    if (got <= 0) break;
    for (long at = 0; at < got;) {  // struct linux_dirent64: length at 16, name from 19 on
      std::uint16_t length = 0;
      std::memcpy(&length, entries.data() + at + 16, sizeof length);
      const char* name = entries.data() + at + 19;
      if (*name >= '1' && *name <= '9') {
        for (; *name != '\0'; ++name) numbers.take(*name);
        numbers.take(' ');
      }
      at += length;
    }
  }
  PROCPOOL_SYSTEM(close(folder));
}

/// Calls @p each(pid) for the children of this process, adopted ones included. The process must
/// have one thread. Without the kernel's list it checks all processes.
template <class Each>
void for_own_children(Each each) {
  const auto if_own = [&](pid_t pid) {
    if (is_own_child(pid)) each(pid);
  };
  if (!for_listed_children(if_own)) for_all_processes(if_own);
}

/// Kills all processes with a mark of @p pool, whose fork server has died and cannot do so. Signals
/// by pidfd, so that no unrelated process is hit. @returns the number of processes killed
inline int kill_marked(process_mark pool) noexcept {
  int killed = 0;
  for_all_processes([&](pid_t pid) {
    if (!same_pool(mark_of(pid), pool)) return;
    const fd process(static_cast<int>(PROCPOOL_SYSTEM(syscall(SYS_pidfd_open, pid, 0U))));
    if (!process || !same_pool(mark_of(pid), pool)) return;
    pollfd ended{process.get(), POLLIN, 0};
    if (PROCPOOL_SYSTEM(poll(&ended, 1, 0)) != 0) return;
    const long sent =
        PROCPOOL_SYSTEM(syscall(SYS_pidfd_send_signal, process.get(), SIGKILL, nullptr, 0U));
    killed += sent == 0 ? 1 : 0;
  });
  return killed;
}

}  // namespace procpool::detail::os
