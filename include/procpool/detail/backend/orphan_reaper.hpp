// SPDX-License-Identifier: MIT
/// @file
/// In a fork server: ends the descendants of workers (commands, Processes, daemons). The fork
/// server adopts them when their parents end (PR_SET_CHILD_SUBREAPER) and reaps them. When a worker
/// was killed or has crashed it kills the descendants of that worker, at the end of the pool all.
///
/// A mark shows from which worker a process descends (child/descendants.hpp). Each round lists the
/// children of the fork server and kills the marked ones. When these have died their own children
/// have become children of the fork server, and the next round follows, until none is left. The
/// fork server does its other work between rounds.
#pragma once

#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <vector>

#include <procpool/detail/child/descendants.hpp>

namespace procpool::detail {

class orphan_reaper {
 public:
  /// Called before there are workers. Takes away the mark of an outer pool, in whose worker this
  /// pool may have been made: when the outer fork server is lost this one must not be killed. It
  /// ends by itself then and ends the processes that it has adopted.
  /// @param pool mark of the pool
  void adopt_orphans(os::process_mark pool) {
    os::unmark_this_process();
    pool_ = pool;
    can_mark_ = os::can_mark(pool);
    // If the kernel refuses, init adopts the orphans, as without this option.
    PROCPOOL_SYSTEM(prctl(PR_SET_CHILD_SUBREAPER, 1UL));
    if (!has_children()) return;
    os::for_own_children([this](pid_t pid) { earlier_children_.push_back(pid); });
  }
  [[nodiscard]] bool adopting() const noexcept { return pool_ != 0; }

  /// In a new worker.
  void mark_worker(std::uint64_t incarnation) const noexcept {
    if (adopting()) os::mark_this_process(os::mark_of_worker(pool_, incarnation));
  }

  /// A worker was killed or has crashed, and was reaped: this process has adopted its children.
  /// @param is_worker whether a process is a live worker
  template <class IsWorker>
  void end_descendants(std::uint64_t incarnation, IsWorker is_worker) {
    if (!adopting()) return;
    ending_.push_back(os::mark_of_worker(pool_, incarnation));
    kill_round(is_worker);
  }

  /// A child that was not a worker has been reaped.
  template <class IsWorker>
  void orphan_reaped(pid_t pid, IsWorker is_worker) {
    std::erase(earlier_children_, pid);
    if (!ending_.empty()) kill_round(is_worker);
  }

  /// Called when all workers are reaped. Kills all adopted processes and waits for them, for 1 s at
  /// most: processes that fork faster than they are killed, or may not be killed, are left to init.
  /// @param signals a signalfd that becomes readable by SIGCHLD
  void end_all(int signals) const noexcept {
    constexpr std::chrono::seconds time_limit{1};
    if (!adopting()) return;
    const auto until = std::chrono::steady_clock::now() + time_limit;
    while (!reap_all() && std::chrono::steady_clock::now() < until) {
      bool any = false;
      os::for_own_children([&](pid_t pid) {
        if (made_earlier(pid)) return;
        any |= PROCPOOL_SYSTEM(kill(pid, SIGKILL)) == 0;
      });
      if (!any) return;
      pollfd died{signals, POLLIN, 0};
      PROCPOOL_SYSTEM(poll(&died, 1, 10));
      signalfd_siginfo ignored{};
      while (PROCPOOL_SYSTEM(read(signals, &ignored, sizeof ignored)) > 0) {
      }
    }
  }

 private:
  // One round. Descendants of other workers, which live or have left normally, are left alone. A
  // process without a mark of this pool is killed: a nested pool has lost it, or it has set the
  // limit itself. Where marks cannot be set its origin is unknown, and it is left until the end of
  // the pool.
  template <class IsWorker>
  void kill_round(IsWorker is_worker) {
    bool any = false;
    os::for_own_children([&](pid_t pid) {
      if (is_worker(pid)) return;
      if (made_earlier(pid)) return;
      const os::process_mark mark = os::mark_of(pid);
      const bool may_belong_to_others = os::same_pool(mark, pool_) || !can_mark_;
      if (may_belong_to_others && std::ranges::find(ending_, mark) == ending_.end()) return;
      any |= PROCPOOL_SYSTEM(kill(pid, SIGKILL)) == 0;
    });
    if (!any) ending_.clear();
  }

  [[nodiscard]] bool made_earlier(pid_t pid) const noexcept {
    return std::ranges::find(earlier_children_, pid) != earlier_children_.end();
  }

  static bool has_children() noexcept {
    siginfo_t info{};
    return PROCPOOL_SYSTEM(waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT | __WALL)) == 0;
  }

  // Whether no child is left.
  static bool reap_all() noexcept {
    int status = 0;
    while (true) {
      const pid_t pid = PROCPOOL_SYSTEM(waitpid(-1, &status, WNOHANG | __WALL));
      if (pid <= 0) return pid != 0;
    }
  }

  os::process_mark pool_ = 0;  ///< 0: does not adopt orphans
  bool can_mark_ = false;
  std::vector<pid_t> earlier_children_;   ///< made by static objects of the program
  std::vector<os::process_mark> ending_;  ///< of workers whose descendants are being killed
};

}  // namespace procpool::detail
