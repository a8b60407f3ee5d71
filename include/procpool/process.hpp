// SPDX-License-Identifier: MIT
/// @file
/// A function running in a process of its own: Python's multiprocessing.Process.
///
///     procpool::Process process{print_number, 10};
///     process.start();
///     process.join();
#pragma once

#include <procpool/config.hpp>  // first, for its errors

#include <signal.h>
#include <sys/types.h>
#include <unistd.h>

#include <chrono>
#include <concepts>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <procpool/detail/base/stop_token.hpp>
#include <procpool/detail/os/time.hpp>
#include <procpool/detail/process/process_handle.hpp>
#include <procpool/detail/process/process_target.hpp>
#include <procpool/error.hpp>
#include <procpool/start_method.hpp>

namespace procpool {

/// What can be said about a Process besides what it runs.
struct process_options {
  /// Empty: "Process-N" by its place in the tree of processes, "Process-1:2" for the second child
  /// of the first one.
  std::string name{};
  /// A daemonic process is terminated when its parent ends and can start no Process; a Pool it can
  /// have, which ends with it. Not given: as the process that makes it.
  std::optional<bool> daemon{};
  /// Not given: get_start_method().
  std::optional<procpool::start_method> start_method{};
};

class Process;

namespace detail {

/// What a Process takes for its target, and not for another Process or for its options.
template <class F>
concept target_argument = !std::same_as<F, process_options> && !std::same_as<F, Process>;

}  // namespace detail

/// A child process that runs one callable, then ends.
///
/// A handle: copies stand for the same child, and destroying one neither joins nor kills. When the
/// program ends (return from main, std::exit), daemonic children are terminated and all others
/// waited for, as in Python. At the end of a child the same happens to its own children.
///
/// With start_method::fork, the default, the child has copies of all that the parent has, and the
/// callable and its arguments may be of any type. With start_method::spawn it has nothing but what
/// it is sent: they have to be encodable (codec.hpp), and the program calls freeze_support() first
/// in main. The child has one thread, the null device as stdin, and the signal handlers and mask of
/// the thread that called start() (by spawn: signals that were caught have their default action, as
/// after execve(2)). Its exit code is 0 when the callable returns, n when it calls std::exit(n), 1
/// when it throws: the exception is then written to stderr. It leaves without touching the parent's
/// static objects and atexit handlers; its own run, which by spawn are all of them. Standard
/// streams are flushed before.
///
/// Every member may be called by any thread, but only in the process that made the object: in
/// another one (a child) all but name(), daemon() and pid() throw std::logic_error. So do calls in
/// a wrong state. ProcessError: the operating system refused something.
class [[nodiscard]] Process {
 public:
  /// @param target function, lambda or any other callable; its result is ignored
  /// @param args   copied or moved here and passed as rvalues, as std::thread does
  /// @throws std::invalid_argument for a null function pointer or an empty std::function
  template <detail::target_argument F, class... A>
  explicit Process(F target, A... args)
      : record_(make<F, A...>({}, std::move(target), std::move(args)...)) {}

  /// `Process p{{.name = "reader", .daemon = true}, read_all, "a.txt"};`
  template <class F, class... A>
  explicit Process(process_options options, F target, A... args)
      : record_(make<F, A...>(std::move(options), std::move(target), std::move(args)...)) {}

  [[nodiscard]] std::string name() const { return record().name(); }
  /// Before start(), or the child will not know of it. Names need not be unique.
  void set_name(std::string name) { record().set_name(std::move(name)); }

  [[nodiscard]] bool daemon() const { return record().daemon(); }
  /// @throws std::logic_error after start()
  void set_daemon(bool daemon) { record().set_daemon(daemon); }

  /// The process id; empty before start().
  [[nodiscard]] std::optional<pid_t> pid() const { return record().pid(); }

  /// Forks or spawns. Returns when the child exists, not when it has done anything. Afterwards the
  /// parent's copies of the target and its arguments are destroyed.
  /// @throws ProcessError     no process could be made (EAGAIN, ENOMEM, EMFILE); may be repeated
  /// @throws std::logic_error called before, or the current process is daemonic; for spawn: the
  ///                          program has not called freeze_support()
  /// @throws std::invalid_argument for spawn: the target or an argument cannot be encoded
  void start() { record().start(); }

  /// Waits for the end of the process. Returns also when something else in this program has reaped
  /// it (a waitpid for any child, SIGCHLD ignored).
  void join() { static_cast<void>(record().join(std::nullopt)); }

  /// Waits at most @p timeout; zero or less: only looks. False: still running. Not shortened by
  /// signals.
  template <class Rep, class Period>
  bool join(std::chrono::duration<Rep, Period> timeout) {
    return record().join(detail::os::deadline_after(timeout));
  }

  /// Waits for the end until a stop is requested. False then: still running, which it goes on
  /// doing.
  /// @throws ProcessError when there is no descriptor left
  bool join(const stop_token& stop) { return record().join(stop); }

  /// True from start() to the end of the process.
  [[nodiscard]] bool is_alive() const { return record().is_alive(); }

  /// Empty before the end; then the exit status, or minus the number of the signal that killed it.
  /// When something else in this program has reaped the process: what the kernel remembers (Linux
  /// 6.15), else 255.
  [[nodiscard]] std::optional<int> exitcode() const { return record().exitcode(); }

  /// Sends SIGTERM; no destructor and no handler at exit runs in a process that dies of it. Its own
  /// children live on. Nothing happens to a process that has ended.
  void terminate() { record().send_signal(SIGTERM, "terminate()"); }
  /// Sends SIGKILL, which cannot be caught or ignored.
  void kill() { record().send_signal(SIGKILL, "kill()"); }
  /// Sends SIGINT, as Ctrl-C does.
  void interrupt() { record().send_signal(SIGINT, "interrupt()"); }

  /// Gives back the descriptor; afterwards only name(), daemon() and close() can be called.
  /// @throws std::logic_error while it is running
  void close() { record().close(); }

  /// A descriptor that is readable once the process has ended, for poll(2) and its relatives. It
  /// belongs to the Process and lives until close() or the last handle is gone. Do not read it.
  [[nodiscard]] int sentinel() const { return record().sentinel(); }

  /// True if both stand for the same child.
  friend bool operator==(const Process&, const Process&) noexcept = default;

 private:
  friend std::vector<Process> active_children();
  explicit Process(std::shared_ptr<detail::child_process> record) noexcept
      : record_(std::move(record)) {}

  // By reference: arguments of megabytes are on the stack once, as parameters.
  template <class F, class... A>
  static std::shared_ptr<detail::child_process> make(process_options&& options, F&& target,
                                                     A&&... args) {
    return detail::make_process<detail::process_record>(
        std::move(options.name), options.daemon, options.start_method,
        detail::make_target<F, A...>(std::forward<F>(target), std::forward<A>(args)...));
  }

  [[nodiscard]] detail::child_process& record() const {
    if (!record_) throw std::logic_error("procpool::Process: this handle was moved from");
    return *record_;
  }

  std::shared_ptr<detail::child_process> record_;
};

/// The running process as current_process() tells it.
class CurrentProcess {
 public:
  [[nodiscard]] pid_t pid() const noexcept { return pid_; }
  /// "MainProcess" in a program that procpool did not start.
  [[nodiscard]] const std::string& name() const noexcept { return name_; }
  [[nodiscard]] bool daemon() const noexcept { return daemon_; }
  [[nodiscard]] bool is_alive() const noexcept { return true; }
  [[nodiscard]] std::optional<int> exitcode() const noexcept { return std::nullopt; }

 private:
  friend CurrentProcess current_process();
  CurrentProcess(pid_t pid, std::string name, bool daemon)
      : pid_(pid), name_(std::move(name)), daemon_(daemon) {}

  pid_t pid_;
  std::string name_;
  bool daemon_;
};

/// The process that has started the current one with procpool. It cannot be mistaken for another
/// process that got its number later.
class ParentProcess {
 public:
  [[nodiscard]] pid_t pid() const noexcept { return link_.pid; }
  [[nodiscard]] const std::string& name() const noexcept { return link_.name; }
  [[nodiscard]] bool is_alive() const { return !join(std::chrono::seconds(0)); }

  /// Waits for the end of the parent.
  void join() const { detail::wait_for_end(link_, std::nullopt); }
  /// Waits at most @p timeout. False: still running.
  template <class Rep, class Period>
  bool join(std::chrono::duration<Rep, Period> timeout) const {
    return detail::wait_for_end(link_, detail::os::deadline_after(timeout));
  }
  /// Waits until a stop is requested. False then: still running.
  bool join(const stop_token& stop) const { return detail::wait_for_end(link_, stop); }

 private:
  friend std::optional<ParentProcess> parent_process();
  explicit ParentProcess(detail::parent_link link) : link_(std::move(link)) {}

  detail::parent_link link_;
};

/// The process that calls.
[[nodiscard]] inline CurrentProcess current_process() {
  const auto& self = detail::own_identity();
  return {PROCPOOL_SYSTEM(getpid()), self.name, self.daemon};
}

/// The process that has started this one; empty in a process that procpool did not start.
[[nodiscard]] inline std::optional<ParentProcess> parent_process() {
  const auto& parent = detail::own_identity().parent;
  return parent ? std::optional(ParentProcess(*parent)) : std::nullopt;
}

/// The children of this process that have been started and have not ended, in the order of their
/// start. Collects those that have ended, so that no zombie stays.
[[nodiscard]] inline std::vector<Process> active_children() {
  std::vector<Process> children;
  for (auto& record : detail::running_children()) {
    children.push_back(Process(std::move(record)));
  }
  return children;
}

/// CPUs that this program can keep busy: as many as the affinity mask of the calling thread, the
/// quota of its control groups (versions 1 and 2), rounded up, and PROCPOOL_MAX_CPUS in the
/// environment allow; at least 1. Python's counts the machine's.
/// @throws std::invalid_argument when PROCPOOL_MAX_CPUS is set to something else than a number from
/// 1
[[nodiscard]] inline int cpu_count() {
  return detail::os::usable_cpus();
}

}  // namespace procpool

#ifndef PROCPOOL_COMPILED
#include <procpool/detail/machine/cpu.hpp>
#include <procpool/detail/process/process_start.hpp>
#endif
