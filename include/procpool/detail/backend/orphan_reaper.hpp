// SPDX-License-Identifier: MIT
/// @file
/// In a fork server: what becomes of the processes that workers have started (commands, Processes,
/// daemons), however deep. The fork server adopts them when their parents end
/// (PR_SET_CHILD_SUBREAPER) and reaps them. When a worker has been killed or has crashed it kills
/// those that came of that worker; at the end of the pool all.
///
/// Whose they are is told by a mark (os/descendants.hpp). To kill is to look at the children, kill
/// those meant, and look again when they have died: theirs have become our children by then. That
/// goes on until none is left, beside everything else that the fork server does.
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
  /// Before there are workers. A fork server in a worker of another pool is not to be killed when
  /// the other fork server is lost: it ends by itself then, and with it what it has adopted.
  /// @param pool its mark
  void adopt_orphans(os::process_mark pool) {
    os::unmark_this_process();
    pool_ = pool;
    can_mark_ = os::can_mark(pool);
    // A kernel that refuses gives orphans to init, as if nothing had been asked for.
    PROCPOOL_SYSTEM(prctl(PR_SET_CHILD_SUBREAPER, 1UL));
    if (!has_children()) return;
    os::for_own_children([this](pid_t pid) { older_.push_back(pid); });
  }
  [[nodiscard]] bool adopting() const noexcept { return pool_ != 0; }

  /// In a new worker.
  void mark_worker(std::uint64_t incarnation) const noexcept {
    if (adopting()) os::mark_this_process(os::mark_of_worker(pool_, incarnation));
  }

  /// A worker was killed or has crashed, and is reaped: its children are ours now.
  /// @param is_worker whether a process is a worker that lives
  template <class IsWorker>
  void end_descendants(std::uint64_t incarnation, IsWorker is_worker) {
    if (!adopting()) return;
    ending_.push_back(os::mark_of_worker(pool_, incarnation));
    look(is_worker);
  }

  /// A child that was no worker has been reaped.
  template <class IsWorker>
  void orphan_reaped(pid_t pid, IsWorker is_worker) {
    std::erase(older_, pid);
    if (!ending_.empty()) look(is_worker);
  }

  /// Kills what is left when all workers are reaped, and waits for it, for a second at the most:
  /// what forks faster than it can be killed, or may not be killed, is left to init.
  /// @param deaths becomes readable by SIGCHLD
  void end_all(int deaths) const noexcept {
    constexpr std::chrono::seconds patience{1};
    if (!adopting()) return;
    const auto until = std::chrono::steady_clock::now() + patience;
    while (!reap_all() && std::chrono::steady_clock::now() < until) {
      bool any = false;
      os::for_own_children([&](pid_t pid) { any |= PROCPOOL_SYSTEM(kill(pid, SIGKILL)) == 0; });
      if (!any) return;
      pollfd died{deaths, POLLIN, 0};
      PROCPOOL_SYSTEM(poll(&died, 1, 10));
      signalfd_siginfo ignored{};
      while (PROCPOOL_SYSTEM(read(deaths, &ignored, sizeof ignored)) > 0) {
      }
    }
  }

 private:
  // Those of other workers, which live or have left in order, are left alone. A process without a
  // mark of ours is one that a nested pool has lost, or that has set the limit itself; but where no
  // mark can be set it may be anybody's, and is left until the end of the pool.
  template <class IsWorker>
  void look(IsWorker is_worker) {
    bool any = false;
    os::for_own_children([&](pid_t pid) {
      if (is_worker(pid) || std::ranges::find(older_, pid) != older_.end()) return;
      const os::process_mark mark = os::mark_of(pid);
      const bool anybodys = os::same_pool(mark, pool_) || !can_mark_;
      if (anybodys && std::ranges::find(ending_, mark) == ending_.end()) return;
      any |= PROCPOOL_SYSTEM(kill(pid, SIGKILL)) == 0;
    });
    if (!any) ending_.clear();
  }

  static bool has_children() noexcept {
    siginfo_t info{};
    return PROCPOOL_SYSTEM(waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT | __WALL)) == 0;
  }

  // Whether there is no child any more.
  static bool reap_all() noexcept {
    int status = 0;
    while (true) {
      const pid_t pid = PROCPOOL_SYSTEM(waitpid(-1, &status, WNOHANG | __WALL));
      if (pid <= 0) return pid != 0;
    }
  }

  os::process_mark pool_ = 0;  ///< 0: orphans are not its business
  bool can_mark_ = false;
  std::vector<pid_t> older_;              ///< children that static objects of the program made
  std::vector<os::process_mark> ending_;  ///< of workers whose descendants are being ended
};

}  // namespace procpool::detail
