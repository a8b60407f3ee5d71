// SPDX-License-Identifier: MIT
/// @file
/// Process: runs a function in a child process. Python: multiprocessing.Process.
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

/// The options of a Process.
struct process_options {
  /// Default: "Process-N" by the position in the tree of processes, for example "Process-1:2" for
  /// the second child of the first child.
  std::string name{};
  /// Whether the process is daemonic: it is terminated when its parent ends, and it cannot start a
  /// Process. It can have a Pool, which ends with it (Python: it cannot). Default: as the process
  /// that makes it.
  std::optional<bool> daemon{};
  /// Default: get_start_method(), read in start().
  std::optional<procpool::start_method> start_method{};
};

class Process;

namespace detail {

/// A type that the constructors of Process take as a target: not a Process and not options.
template <class F>
concept target_argument = !std::same_as<F, process_options> && !std::same_as<F, Process>;

}  // namespace detail

/// A handle of a child process that runs one callable and then ends.
///
/// Copies of a handle refer to the same child. The destructor neither joins nor kills the child.
/// When the program ends (return from main, std::exit), its daemonic children are terminated, with
/// SIGKILL after 3 s, and all children are waited for (Python: the same, without SIGKILL). At the
/// end of a child the same happens to the children of the child. If the parent is killed, its
/// children live on, daemonic ones too, as in Python; for those that a pool's task has started see
/// pool_options::kill_descendants.
///
/// With start_method::fork, the default, the child has a copy of the parent's memory, and the
/// callable and its arguments may be of any type. With start_method::spawn the child is a fresh
/// run of the program: the callable and the arguments must be encodable (codec.hpp), and the
/// program must call freeze_support() first in main.
///
/// The child has one thread. Its stdin is the null device. It has the signal handlers and the mask
/// of the thread that called start(); by spawn, signals that were caught have their default action,
/// as after execve(2). The exit code is 0 when the callable returns, n when it calls std::exit(n),
/// and 1 when it throws: the exception is then written to stderr. At its end the child runs the
/// atexit handlers that were registered in it and destroys the static objects that were made in it
/// (by spawn all of them, by fork not the parent's), then flushes the standard streams.
///
/// Any thread may call any member, but only in the process that made the object. In another process
/// (a child) all members except name(), set_name(), daemon() and pid() throw std::logic_error. A
/// member that is called in a wrong state throws std::logic_error (Python: AssertionError,
/// ValueError). A call that the operating system refuses throws ProcessError.
class [[nodiscard]] Process {
 public:
  /// Makes a process; start() starts it.
  /// @param target function, lambda or other callable; its result is ignored
  /// @param args   copied or moved into the Process and passed as rvalues, as std::thread does
  /// @throws std::invalid_argument for a null function pointer or an empty std::function
  template <detail::target_argument F, class... A>
  explicit Process(F target, A... args)
      : record_(make<F, A...>({}, std::move(target), std::move(args)...)) {}

  /// The same with options: `Process p{{.name = "reader", .daemon = true}, read_all, "a.txt"};`
  template <class F, class... A>
  explicit Process(process_options options, F target, A... args)
      : record_(make<F, A...>(std::move(options), std::move(target), std::move(args)...)) {}

  /// The name. Python: Process.name.
  [[nodiscard]] std::string name() const { return record().name(); }
  /// Sets the name, which need not be unique. The child does not see a name set after start().
  void set_name(std::string name) { record().set_name(std::move(name)); }

  /// Whether the process is daemonic. Python: Process.daemon.
  [[nodiscard]] bool daemon() const { return record().daemon(); }
  /// Makes the process daemonic or not. @throws std::logic_error after start()
  void set_daemon(bool daemon) { record().set_daemon(daemon); }

  /// The process id; empty before start(). @throws std::logic_error after close()
  [[nodiscard]] std::optional<pid_t> pid() const { return record().pid(); }

  /// Forks or spawns the child. Returns when the child exists, perhaps before it runs any code.
  /// Then destroys the parent's copies of the target and its arguments.
  /// @throws ProcessError     no process could be made (EAGAIN, ENOMEM, EMFILE); the caller may try
  ///                          again
  /// @throws std::logic_error start() was called before, or the current process is daemonic; for
  ///                          spawn: the program has not called freeze_support()
  /// @throws std::invalid_argument for spawn: the target or an argument cannot be encoded
  void start() { record().start(); }

  /// Waits for the end of the process. Also returns when other code of this program has reaped the
  /// process (a waitpid for any child, SIGCHLD ignored).
  /// @throws std::logic_error before start(); ProcessError
  void join() { static_cast<void>(record().join(std::nullopt)); }

  /// Waits for the end of the process, for at most @p timeout, also when signals arrive.
  /// @param timeout zero or less: does not wait
  /// @returns false when the process still runs (Python: None, ask is_alive())
  template <class Rep, class Period>
  bool join(std::chrono::duration<Rep, Period> timeout) {
    return record().join(detail::os::deadline_after(timeout));
  }

  /// Waits for the end of the process or for a stop request, which does not stop the process.
  /// @returns false when a stop was requested and the process still runs
  /// @throws ProcessError when no descriptor is free
  bool join(const stop_token& stop) { return record().join(stop); }

  /// Whether the process has been started and has not ended.
  [[nodiscard]] bool is_alive() const { return record().is_alive(); }

  /// The exit status, or minus the number of the signal that killed the process; empty before its
  /// end. If other code of this program has reaped the process: the true status since Linux 6.15,
  /// 255 before.
  [[nodiscard]] std::optional<int> exitcode() const { return record().exitcode(); }

  /// Sends SIGTERM. In a process that it kills no destructor and no atexit handler runs, and the
  /// children of that process live on. Does nothing when the process has ended.
  /// @throws std::logic_error before start()
  void terminate() { record().send_signal(SIGTERM, "terminate()"); }
  /// Sends SIGKILL, which cannot be caught or ignored.
  void kill() { record().send_signal(SIGKILL, "kill()"); }
  /// Sends SIGINT, as Ctrl-C does.
  void interrupt() { record().send_signal(SIGINT, "interrupt()"); }

  /// Closes the descriptor. Afterwards only name(), set_name(), daemon() and close() can be called.
  /// @throws std::logic_error while the process runs
  void close() { record().close(); }

  /// A descriptor that becomes readable when the process has ended, for poll(2), select(2) and
  /// epoll(7). The Process owns it until close() or the end of the last handle. Do not read from
  /// it.
  /// @throws std::logic_error before start()
  [[nodiscard]] int sentinel() const { return record().sentinel(); }

  /// Whether both handles refer to the same child.
  friend bool operator==(const Process&, const Process&) noexcept = default;

 private:
  friend std::vector<Process> active_children();
  explicit Process(std::shared_ptr<detail::child_process> record) noexcept
      : record_(std::move(record)) {}

  // By reference: large arguments are on the stack only once, as the constructor's parameters.
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

/// The current process, see current_process(). A value: any thread may use a copy.
class CurrentProcess {
 public:
  [[nodiscard]] pid_t pid() const noexcept { return pid_; }
  /// "MainProcess" in a program that procpool did not start.
  [[nodiscard]] const std::string& name() const noexcept { return name_; }
  [[nodiscard]] bool daemon() const noexcept { return daemon_; }
  /// Always true, as in Python.
  [[nodiscard]] bool is_alive() const noexcept { return true; }
  /// Always empty, as in Python.
  [[nodiscard]] std::optional<int> exitcode() const noexcept { return std::nullopt; }

 private:
  friend CurrentProcess current_process();
  CurrentProcess(pid_t pid, std::string name, bool daemon)
      : pid_(pid), name_(std::move(name)), daemon_(daemon) {}

  pid_t pid_;
  std::string name_;
  bool daemon_;
};

/// The process that started the current one with procpool, see parent_process(). Holds a descriptor
/// of the parent: a later process with the same number is not mistaken for it. Any thread may use
/// it.
class ParentProcess {
 public:
  [[nodiscard]] pid_t pid() const noexcept { return link_.pid; }
  /// The parent's name when it started this process.
  [[nodiscard]] const std::string& name() const noexcept { return link_.name; }
  /// Whether the parent has not ended. @throws ProcessError as join()
  [[nodiscard]] bool is_alive() const { return !join(std::chrono::seconds(0)); }

  /// Waits for the end of the parent.
  /// @throws ProcessError when other code has closed the descriptor
  void join() const { detail::wait_for_end(link_, std::nullopt); }
  /// Waits at most @p timeout; zero or less: does not wait. @returns false when it still runs
  template <class Rep, class Period>
  bool join(std::chrono::duration<Rep, Period> timeout) const {
    return detail::wait_for_end(link_, detail::os::deadline_after(timeout));
  }
  /// Waits until a stop is requested. @returns false when a stop was requested and it still runs
  /// @throws ProcessError also when no descriptor is free
  bool join(const stop_token& stop) const { return detail::wait_for_end(link_, stop); }

 private:
  friend std::optional<ParentProcess> parent_process();
  explicit ParentProcess(detail::parent_link link) : link_(std::move(link)) {}

  detail::parent_link link_;
};

/// The calling process. Any thread. Python: multiprocessing.current_process.
[[nodiscard]] inline CurrentProcess current_process() {
  const auto& self = detail::own_identity();
  return {PROCPOOL_SYSTEM(getpid()), self.name, self.daemon};
}

/// The process that started this one; empty in a process that procpool did not start. Any thread.
/// In a worker of a pool: the program that made the pool. Python: multiprocessing.parent_process.
[[nodiscard]] inline std::optional<ParentProcess> parent_process() {
  const auto& parent = detail::own_identity().parent;
  return parent ? std::optional(ParentProcess(*parent)) : std::nullopt;
}

/// The running children of this process, in the order of their start. Reaps the children that have
/// ended, so that no zombie stays. Any thread. Python: multiprocessing.active_children.
/// @throws ProcessError when the system refuses a call
[[nodiscard]] inline std::vector<Process> active_children() {
  std::vector<Process> children;
  for (auto& record : detail::running_children()) {
    children.push_back(Process(std::move(record)));
  }
  return children;
}

/// The number of CPUs that this program can keep busy, at least 1: the minimum of the affinity mask
/// of the calling thread, the quota of its control groups (versions 1 and 2), rounded up, and the
/// environment variable PROCPOOL_MAX_CPUS. Any thread. Python: multiprocessing.cpu_count, which
/// counts the CPUs of the machine.
/// @throws std::invalid_argument when PROCPOOL_MAX_CPUS is set and is not a number of at least 1
[[nodiscard]] inline int cpu_count() {
  return detail::os::usable_cpus();
}

}  // namespace procpool

#ifndef PROCPOOL_COMPILED
#include <procpool/detail/machine/cpu.hpp>
#include <procpool/detail/process/process_start.hpp>
#endif
