// SPDX-License-Identifier: MIT
/// @file
/// The fork server: a process with one thread, forked from the program when a pool is made, before
/// the pool has any memory or descriptor. It forks the workers and their replacements, so that all
/// begin with the same snapshot of the program. It also reaps workers and reports to the pool.
///
/// When its control socket closes (the pool ends, the program is killed) it kills its workers and
/// their descendants and ends. If it is killed itself, the kernel kills the workers
/// (PR_SET_PDEATHSIG, which is tied to the forking thread: the fork server has only one).
#pragma once

#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdint>
#include <deque>
#include <new>
#include <string>
#include <utility>
#include <vector>

#include <procpool/detail/backend/orphan_reaper.hpp>
#include <procpool/detail/backend/server_request.hpp>
#include <procpool/detail/backend/worker_event.hpp>
#include <procpool/detail/base/forced_unwind.hpp>
#include <procpool/detail/child/pidfd.hpp>
#include <procpool/detail/child/worker_signals.hpp>
#include <procpool/detail/crash/crash_handler.hpp>
#include <procpool/detail/heap/heap.hpp>
#include <procpool/detail/machine/cpu.hpp>
#include <procpool/detail/machine/stack.hpp>
#include <procpool/detail/os/signals.hpp>
#include <procpool/detail/os/socket.hpp>
#include <procpool/detail/os/stdio.hpp>
#include <procpool/detail/process/process_context.hpp>
#include <procpool/detail/process/process_lifetime.hpp>
#include <procpool/detail/process/process_report.hpp>
#include <procpool/detail/process/startup_pipe.hpp>
#include <procpool/detail/ring/regions.hpp>
#include <procpool/detail/worker/worker_limits.hpp>
#include <procpool/detail/worker/worker_loop.hpp>

namespace procpool::detail {

class fork_server {
 public:
  /// @param workers identity of the workers, without a name; their parent is the program
  fork_server(os::message_socket control, process_identity workers)
      : control_(std::move(control)), identity_(std::move(workers)) {}

  /// The main function of the forked process. No exception leaves it.
  [[noreturn]] static void become(os::message_socket control, process_identity workers) noexcept {
    try {
      fork_server server(std::move(control), std::move(workers));
      os::run_on_process_stack([](void* self) { static_cast<fork_server*>(self)->run(); }, &server);
    } catch (...) {
      uncaught("procpool-server");
    }
    os::leave_now(1);
  }

  /// Runs until the control socket closes, or until an error, which it writes to stderr. Never
  /// returns or throws into the program that it was forked from.
  [[noreturn]] void run() noexcept {
    PROCPOOL_SYSTEM(prctl(PR_SET_NAME, "procpool-server"));
    try {
      prepare_signals();
      while (serve()) {
      }
    } catch (...) {
      uncaught("procpool-server");
    }
    end();
  }

 private:
  struct child {
    pid_t pid;
    std::uint32_t worker;
    std::uint64_t incarnation;
    startup_pipe startup;
  };

  // All signals are blocked already: since before the fork, or before the program was executed.
  void prepare_signals() {
    ignored_ = os::ignore_all_signals();
    sigset_t watched;
    sigemptyset(&watched);
    sigaddset(&watched, SIGCHLD);
    sigaddset(&watched, os::signal_waker::number());
    PROCPOOL_SYSTEM(sigprocmask(SIG_SETMASK, &watched, nullptr));
    const int file = PROCPOOL_SYSTEM(signalfd(-1, &watched, SFD_CLOEXEC | SFD_NONBLOCK));
    if (file == -1 && (errno == ENOSYS || errno == EPERM)) return;  // a sandbox: see serve()
    signal_file_ =
        os::off_stdio(os::fd(os::check(file, "cannot watch for the end of workers (signalfd)")));
  }

  // One round. @returns false when the pool has ended
  bool serve() {
    const short wanted = POLLIN | POLLRDHUP | (unsent_.empty() ? 0 : POLLOUT);
    std::array<pollfd, 2> events{{{control_.get(), wanted, 0}, {signal_file_.get(), POLLIN, 0}}};
    const int timeout = signal_file_ ? -1 : 10;  // in ms; without a signalfd it polls for deaths
    os::check(
        os::retry([&] { return PROCPOOL_SYSTEM(poll(events.data(), events.size(), timeout)); }),
        "cannot wait for requests and ends of workers (poll)");
    if (events[1].revents != 0 || !signal_file_) reap();
    if (!send_reports()) return false;
    if ((events[0].revents & POLLRDHUP) != 0) return false;  // requests that are left do not matter
    return (events[0].revents & ~POLLOUT) == 0 || receive_request();
  }

  bool receive_request() {
    server_request request{};
    std::array<os::fd, os::max_passed_fds> descriptors;
    const os::transfer got = control_.receive(request, &descriptors, true);
    if (got == os::transfer::nothing_yet) return true;
    if (got == os::transfer::hang_up) return false;
    switch (request.kind) {
      case server_request::kind_type::hello:
        sizes_ = request.sizes;
        signals_ = request.signals;
        if (request.mark != 0) orphans_.adopt_orphans(request.mark);
        outbound_ = std::move(descriptors[0]);
        if (request.large != 0) map_large(descriptors[1]);
        return true;
      case server_request::kind_type::start:
        return start(request, descriptors);
      case server_request::kind_type::kill:
        kill(request);
        return true;
    }
    return false;
  }

  // The workers inherit the page.
  void map_large(const os::fd& file) {
    large_ = file ? os::mapping::inherited(file, large_blocks::page) : os::mapping();
    if (large_.data() == nullptr) large_error_ = file ? errno : EMFILE;
  }

  bool start(const server_request& request, std::array<os::fd, os::max_passed_fds>& descriptors) {
    using kind = worker_event::kind_type;
    const int lacking = !outbound_ || !descriptors[1] ? EMFILE : large_error_;  // none was free
    if (lacking != 0)
      return report({kind::not_started, request.worker, request.incarnation, 0, lacking});
    if (request.limits.pinned != 0 && !pin(request.worker)) {
      return report({kind::not_pinned, request.worker, request.incarnation, 0, errno});
    }
    int error = 0;
    const pid_t pid = fork_worker(request, descriptors, error);
    if (request.limits.pinned != 0) os::set_affinity(cpus_);  // a failure costs only some speed
    if (pid == -1) {
      return report({kind::not_started, request.worker, request.incarnation, 0, error});
    }
    return report({kind::started, request.worker, request.incarnation, pid, 0});
  }

  // A worker begins with all signals blocked, until it has set its own handlers.
  // @returns its process id; -1: it could not be forked, @p error is the errno
  pid_t fork_worker(const server_request& request,
                    std::array<os::fd, os::max_passed_fds>& descriptors, int& error) {
    try {
      startup_pipe startup = startup_pipe::make();
      children_.reserve(children_.size() + 1);  // so that push_back() cannot fail after the fork
      const os::signals_blocked guard;
      const pid_t server = PROCPOOL_SYSTEM(getpid());
      const pid_t pid = PROCPOOL_SYSTEM(fork());
      if (pid == 0) become_worker(request, descriptors, std::move(startup), server);
      error = errno;
      if (pid == -1) fork_registry::instance().fork_failed();
      if (pid == -1) return -1;
      startup.keep_server_end();
      children_.push_back({pid, request.worker, request.incarnation, std::move(startup)});
      return pid;
    } catch (const ProcessError& refused) {
      error = refused.code().value();
    } catch (const std::bad_alloc&) {
      error = ENOMEM;
    }
    return -1;
  }

  // Moves this process to the worker's CPU before the fork, so that the worker never runs on
  // another one and its first memory is near.
  bool pin(std::uint32_t worker) {
    if (cpus_.empty()) cpus_ = os::affinity_mask();
    return !cpus_.empty() && os::set_affinity(os::one_cpu_of(cpus_, worker));
  }

  void kill(const server_request& request) {
    for (const child& each : children_) {
      if (each.incarnation != request.incarnation) continue;
      // Not reaped yet, so the number is still this worker's. If kill fails the pool would wait for
      // ever: the error ends this process, and then the kernel tries to kill the worker.
      os::check(PROCPOOL_SYSTEM(kill(each.pid, SIGKILL)), "cannot kill a worker (kill)");
    }
  }

  void reap() {
    signalfd_siginfo signal{};
    while (PROCPOOL_SYSTEM(read(signal_file_.get(), &signal, sizeof signal)) > 0) {
      if (signal.ssi_code == SI_QUEUE) pass_on_wake_up(static_cast<pid_t>(signal.ssi_pid));
    }
    int status = 0;
    while (true) {  // one SIGCHLD may stand for several deaths
      const pid_t pid = os::retry([&] { return PROCPOOL_SYSTEM(waitpid(-1, &status, WNOHANG)); });
      if (pid <= 0) return;
      if (WIFSTOPPED(status)) {  // it made this process its tracer, which also sees its stops
        PROCPOOL_SYSTEM(kill(pid, SIGKILL));
      } else {
        reaped(pid, os::exitcode_of_status(status));
      }
    }
  }

  // A task of this worker has closed its event descriptor (parking.hpp). At most one unsent wake-up
  // of each worker is kept.
  void pass_on_wake_up(pid_t pid) {
    using kind = worker_event::kind_type;
    const auto from = std::ranges::find(children_, pid, &child::pid);
    if (from == children_.end()) return;
    const bool unsent = std::ranges::any_of(unsent_, [&](const worker_event& each) {
      return each.kind == kind::rang && each.incarnation == from->incarnation;
    });
    if (!unsent) report({kind::rang, from->worker, from->incarnation, pid, 0});
  }

  void reaped(pid_t pid, int exitcode) {
    const auto is_worker = [this](pid_t other) {
      return std::ranges::find(children_, other, &child::pid) != children_.end();
    };
    const auto each = std::ranges::find(children_, pid, &child::pid);
    if (each == children_.end()) return orphans_.orphan_reaped(pid, is_worker);
    child worker = std::move(*each);
    children_.erase(each);
    process_was_reaped(pid);  // those that wait for a lock of it look at once
    if (exitcode != 0) orphans_.end_descendants(worker.incarnation, is_worker);
    report({worker_event::kind_type::exited, worker.worker, worker.incarnation, pid, exitcode,
            worker.startup.received()});
  }

  // Never waits for room in the socket: the program may be waiting for this process to read.
  bool report(const worker_event& event) {
    unsent_.push_back(event);
    return send_reports();
  }

  bool send_reports() {
    while (!unsent_.empty()) {
      const os::transfer sent = control_.try_send(unsent_.front());
      if (sent != os::transfer::message) return sent == os::transfer::nothing_yet;
      unsent_.pop_front();
    }
    return true;
  }

  [[noreturn]] void end() {
    // A worker that may not be killed would be waited for without end. The kernel kills it when
    // this process has ended (PR_SET_PDEATHSIG). Only known children are waited for: a worker can
    // make unknown children of this process (CLONE_PARENT).
    std::erase_if(children_, [](const child& each) {
      return PROCPOOL_SYSTEM(kill(each.pid, SIGKILL)) != 0 && errno != ESRCH;
    });
    for (const child& each : children_) os::await_death(each.pid);
    orphans_.end_all(signal_file_.get());
    control_.send_if_possible(worker_event{worker_event::kind_type::ended, ~0U, 0, 0, 0});
    PROCPOOL_SYSTEM(_exit(0));
    __builtin_unreachable();
  }

  // In the new worker, which has a copy of the server's state. No exception leaves it.
  [[noreturn]] void become_worker(const server_request& request,
                                  std::array<os::fd, os::max_passed_fds>& descriptors,
                                  startup_pipe startup, pid_t server) noexcept {
    startup.keep_worker_end();
    children_.clear();  // closes the pipes of the other workers
    if (PROCPOOL_SYSTEM(prctl(PR_SET_PDEATHSIG, SIGKILL)) != 0) {
      constexpr const char* failure =
          "a worker cannot be made to end with its fork server (prctl PR_SET_PDEATHSIG)";
      startup.send_errno(failure);
      os::leave_saying(failure);
    }
    if (PROCPOOL_SYSTEM(getppid()) != server) PROCPOOL_SYSTEM(_exit(1));  // it died before prctl
    PROCPOOL_SYSTEM(prctl(PR_SET_NAME, "procpool-worker"));
    control_.reset();
    signal_file_.reset();
    orphans_.mark_worker(request.incarnation);
    os::set_worker_signals(signals_, ignored_);
    std::string name;
    try {
      name = enter_worker(request.incarnation);
    } catch (...) {  // no memory; exit() would still run the program's handlers
      startup.send_exception();
      os::leave_now(1);
    }
    try {
      work(request, descriptors, startup, name);
    } catch (...) {
      leave_after_thread_exit();
      startup.send_exception();
      uncaught(name);
    }
    leave_child(1);
  }

  // @returns the name of the worker
  std::string enter_worker(std::uint64_t incarnation) {
    std::string name = worker_name(incarnation);
    process_identity identity = identity_;
    identity.name = name;
    identity.position.push_back(static_cast<int>(incarnation));
    enter_child(std::move(identity));
    return name;
  }

  // Ends the process when pthread_exit in a task unwinds it: the frames above are the program's.
  // Does nothing for exceptions.
  static void leave_after_thread_exit() noexcept {
    try {
      pass_on_thread_exit();
    } catch (...) {
      leave_child(1);
    }
  }

  void work(const server_request& request, std::array<os::fd, os::max_passed_fds>& descriptors,
            startup_pipe& startup, const std::string& name) {
    const os::mapping outbound(outbound_, sizes_.outbound_bytes(), PROT_READ);
    const os::mapping inbound(descriptors[0], sizes_.inbound_bytes(), PROT_READ | PROT_WRITE);
    outbound_.reset();
    descriptors[0].reset();
    if (sizes_.ring_bytes <= max_ring_in_core) inbound.include_in_core();
    const worker_memory memory{
        reinterpret_cast<const outbound_header*>(outbound.data()),
        reinterpret_cast<const task_control*>(outbound.data() + sizes_.control_at(request.worker)),
        {outbound.data() + sizes_.ring_at(request.worker), sizes_.ring_bytes},
        {outbound.data() + sizes_.arena_at(), sizes_.arena_bytes},
        new (inbound.data()) result_control{},
        {inbound.data() + region_sizes::results_at(), sizes_.ring_bytes},
        large_.data()};
    // Also when the program ignores SIGXCPU: the limit is the pool's.
    if (request.limits.cpu_ns != 0) os::set_disposition(SIGXCPU, SIG_DFL);
    const crash_handler handler(*new (inbound.data() + region_sizes::crash_at()) crash_note{});
    worker_channel channel(memory, os::event(std::move(descriptors[1])),
                           &os::flush_standard_streams, nullptr, {PROCPOOL_SYSTEM(getppid())});
    const worker_in_children in_children(channel);
    os::unblock_signals();
    worker_equipment equipment{
        WorkerContext(name, request.worker, request.limits.seed, memory.results->started),
        limit_guard(request.limits)};
    startup.send_ready();
    leave_child(run_worker(channel, equipment));
  }

  // Processes that a task forks are not workers, and must not keep the worker's event descriptor.
  class worker_in_children final : public fork_handler {
   public:
    explicit worker_in_children(worker_channel& channel)
        : channel_(&channel), registration_(*this) {}
    void abandon() noexcept override {
      channel_->abandon();
      running_worker = nullptr;
      os::leave_worker_signals();
    }

   private:
    worker_channel* channel_;
    fork_registration registration_;
  };

  static constexpr std::uint64_t max_ring_in_core = std::uint64_t{1} << 20;  ///< bytes

  os::message_socket control_;
  process_identity identity_;  ///< of the workers, without the name
  os::fd signal_file_;         ///< signalfd; none in a sandbox
  os::fd outbound_;
  os::mapping large_;    ///< first page of the file of large blocks; the workers inherit it
  int large_error_ = 0;  ///< why it could not be mapped
  region_sizes sizes_{};
  os::signal_rules signals_{};
  os::signal_bits ignored_ = 0;  ///< signals that the program ignores
  os::cpu_mask cpus_;            ///< CPUs that this process may use; read when first needed
  std::vector<child> children_;
  orphan_reaper orphans_;
  std::deque<worker_event> unsent_;
};

}  // namespace procpool::detail
