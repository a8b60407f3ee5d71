// SPDX-License-Identifier: MIT
/// @file
/// The backend of a pool of processes, in the program: starts and ends the fork server, sends it
/// requests and receives its events. Locks: see worker_backend.hpp.
#pragma once

#include <poll.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdint>
#include <exception>
#include <memory>
#include <new>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <procpool/detail/backend/fork_server.hpp>
#include <procpool/detail/backend/restart_policy.hpp>
#include <procpool/detail/backend/worker_backend.hpp>
#include <procpool/detail/child/descendants.hpp>
#include <procpool/detail/child/pidfd.hpp>
#include <procpool/detail/child/worker_signals.hpp>
#include <procpool/detail/crash/crash_report.hpp>
#include <procpool/detail/crash/out_of_memory.hpp>
#include <procpool/detail/fork/fork_registry.hpp>
#include <procpool/detail/fork/thread_warning.hpp>
#include <procpool/detail/heap/heap.hpp>
#include <procpool/detail/heap/shared_heap.hpp>
#include <procpool/detail/module/module_table.hpp>
#include <procpool/detail/os/random.hpp>
#include <procpool/detail/os/signals.hpp>
#include <procpool/detail/os/socket.hpp>
#include <procpool/detail/os/stdio.hpp>
#include <procpool/detail/process/process_context.hpp>
#include <procpool/detail/process/process_settings.hpp>
#include <procpool/detail/process/spawn_request.hpp>
#include <procpool/start_method.hpp>

namespace procpool::detail {

class process_backend final : public worker_backend {
 public:
  /// Starts the fork server, then makes the outbound region. The threads of the library are stopped
  /// while this process forks. @throws ProcessError when the system refuses; cleans up before
  process_backend(const region_sizes& sizes, const process_settings& settings) {
    const start_method method = settings.start_method;
    if (settings.kill_descendants) mark_ = os::mark_of_pool(os::random_number());
    const os::signal_rules signals =
        os::rules_for_workers(fork_registry::on_library_thread(), settings.ignore_signals);
    make_server(settings);
    try {
      server_process_ = os::find_process_if_possible(server_pid_);
      if (method == start_method::spawn) await_ready();
      send_hello(sizes, signals);
    } catch (...) {
      shut_down();
      throw;
    }
  }
  ~process_backend() override { shut_down(); }

  void start(std::uint32_t worker, const worker_limits& limits) override {
    auto fresh = make_place(worker);
    const int descriptors[] = {fresh->inbound.file(), fresh->wake_event.get()};
    const server_request request{.kind = server_request::kind_type::start,
                                 .worker = worker,
                                 .incarnation = fresh->incarnation,
                                 .limits = limits};
    if (!control_.send(request, descriptors)) note_gone(ended);
    fresh->inbound.close_file();
    places_[worker] = std::move(fresh);
  }

  [[nodiscard]] bool can_kill() const noexcept override { return true; }
  void kill(std::uint32_t worker) noexcept override {
    const server_request request{.kind = server_request::kind_type::kill,
                                 .worker = worker,
                                 .incarnation = places_[worker]->incarnation};
    try {
      if (!control_.send(request)) note_gone(ended);
    } catch (const std::exception& error) {
      note_gone(error.what());
    }
  }

  [[nodiscard]] crash_report crash_report_of(std::uint32_t worker, int signal) override {
    crash_report report = read_crash(places_[worker]->inbound.crash(), signal, moved_);
    if (signal == SIGKILL) report.reason = oom_kills_.about_a_kill();
    return report;
  }

  [[nodiscard]] std::optional<worker_event> next_event() override {
    worker_event report{};
    while (receive(report) == os::transfer::message) {
      if (!in_place(report)) continue;
      if (report.kind != worker_event::kind_type::rang) return report;
      count_wake_ups(report.worker, 1);
    }
    return std::nullopt;
  }
  [[nodiscard]] std::optional<worker_event> await_report() override {
    worker_event report{};
    while (control_.receive(report) == os::transfer::message) {
      if (in_place(report) && report.kind != worker_event::kind_type::rang) return report;
    }
    note_gone(ended);
    return std::nullopt;
  }

  void shut_down() noexcept override {
    if (server_pid_ <= 0) return;
    control_.hang_up();  // then the server kills and reaps the workers and ends
    end_server();
    control_.reset();
    server_pid_ = 0;
    close_descriptors();
    collect_dead_processes();
  }
  void abandon() noexcept override {
    server_pid_ = 0;
    server_process_.reset();
    control_.reset();
    worker_backend::abandon();
  }

 private:
  // While the pool is made it has no fork handler of its own yet. A process that another thread
  // forks would keep copies of both ends of the control socket: the server would not see that the
  // program has closed its end, and the program would not see that the server has ended.
  class early_abandon final : public fork_handler {
   public:
    explicit early_abandon(process_backend& backend) : backend_(&backend) {}
    void abandon() noexcept override { backend_->abandon(); }

   private:
    process_backend* backend_;
    fork_registration registration_{*this};
  };

  void make_server(const process_settings& settings) {
    start_backoff backoff;
    while (true) {
      try {
        return try_to_make_server(settings);
      } catch (const ProcessError& refused) {
        if (!backoff.wait_after(refused.code().value())) throw;
      }
    }
  }

  void try_to_make_server(const process_settings& settings) {
    process_identity workers{.daemon = false,
                             .position = process_context::instance().identity().position,
                             .parent = link_to_this_process()};
    const fork_pause pause;  // until only the server has the server's end
    auto [pool_end, server_end] = os::message_socket::make_pair();
    control_ = std::move(pool_end);
    if (settings.start_method == start_method::spawn) {
      spawn_server(std::move(server_end), std::move(workers), settings);
    } else {
      fork_the_server(std::move(server_end), std::move(workers), settings);
    }
  }

  static constexpr std::uint64_t control_tag = ~std::uint64_t{0} - 1;

  void fork_the_server(os::message_socket server_end, process_identity workers,
                       const process_settings& settings) {
    // Until fork_server::prepare_signals() no handler of the program runs in the fork server, and
    // no Ctrl-C ends it.
    const os::signals_blocked guard;
    static_cast<void>(os::thread_stack());  // found once, also for the server and its workers
    server_pid_ = fork_process();
    if (server_pid_ != 0) {
      if (settings.warn_about_threads) {
        warn_of_threads(os::other_streams::state().threads_at_fork);
      }
      return;
    }
    control_.reset();
    prepare_environment(settings, {server_end.get(), workers.parent->process->get()}, heap_.get());
    fork_server::become(std::move(server_end), std::move(workers));
  }

  // The first step in the fork server. No exception may leave it into the frames of the program.
  static void prepare_environment(const process_settings& settings, std::array<int, 2> needed,
                                  const shared_heap* heap) noexcept {
    try {
      os::change_environment(settings.environment);
      if (!settings.close_fds) return;
      process_context::instance().drop_parent();
      std::vector<int> own(needed.begin(), needed.end());
      if (heap != nullptr) {
        for (const int each : heap->descriptors()) own.push_back(each);
      }
      own.insert(own.end(), settings.pass_fds.begin(), settings.pass_fds.end());
      os::close_all_but(std::move(own));
    } catch (const std::bad_alloc&) {
      os::leave_saying("a fork server has no memory for its environment");
    }
  }

  void spawn_server(os::message_socket server_end, process_identity workers,
                    const process_settings& settings) {
    const spawn_request request =
        request_from_here(spawn_request::purpose_type::fork_server, std::move(workers));
    server_pid_ =
        spawn_process(request, server_end.get(), os::first_mask::all_blocked, settings.environment);
  }

  // A spawned server reports the modules that it does not have, then that it is ready. If its main
  // does not call freeze_support() it reports nothing.
  void await_ready() {
    constexpr std::chrono::seconds time_limit{30};
    const auto until = std::chrono::steady_clock::now() + time_limit;
    worker_event report{};
    do {
      if (!os::wait_readable(control_.get(), until)) {
        if (server_process_) {
          os::send_signal(server_process_.get(), server_pid_, SIGKILL);
        } else {
          PROCPOOL_SYSTEM(kill(server_pid_, SIGKILL));
        }
        throw ProcessError("the spawned process of the pool did not come to freeze_support()");
      }
      if (control_.receive(report) != os::transfer::message) {
        throw ProcessError(
            "the spawned process of the pool ended before it came to freeze_support()");
      }
      if (report.kind == worker_event::kind_type::missing_module) {
        missing_modules_.push_back(report.worker);
      } else if (report.kind == worker_event::kind_type::module_place) {
        note_place(report.worker, report.incarnation);
      }
    } while (report.kind != worker_event::kind_type::ready);
    if (missing_modules_.empty() || missing_modules_.front() != 0) return;
    throw ProcessError("the spawned process runs another build of the program than this one");
  }

  void note_place(std::uint32_t module, std::uintptr_t base) {
    const module_entry* here = module_table::instance().entry(module);
    if (here == nullptr) return;
    moved_.push_back(
        {here->begin - here->base + base, here->end - here->base + base, here->base - base});
  }

  // By descriptor where there is one: if a waitpid for any child in the host program has reaped the
  // server, its number may belong to another child by now, which must not be reaped here.
  void end_server() noexcept {
    bool ended_normally = false;
    if (!server_process_) {
      int status = 0;
      if (os::is_own_child(server_pid_)) PROCPOOL_SYSTEM(kill(server_pid_, SIGCONT));  // as below
      const pid_t reaped =
          os::retry([&] { return PROCPOOL_SYSTEM(waitpid(server_pid_, &status, 0)); });
      ended_normally = reaped == server_pid_ && status == 0;
    } else {
      // A stopped server (SIGSTOP) would not see that the socket has closed.
      PROCPOOL_SYSTEM(syscall(SYS_pidfd_send_signal, server_process_.get(), SIGCONT, nullptr, 0U));
      ended_normally = os::await_end(server_process_.get(), server_pid_) == 0;
      server_process_.reset();
    }
    if (mark_ != 0 && !ended_normally && !reported_its_end()) end_descendants();
  }

  // The exit code of the server may be lost: the host program has reaped it, or ignores SIGCHLD.
  // Then the last event shows whether the server has ended normally.
  bool reported_its_end() noexcept {
    worker_event report{};
    while (receive(report) == os::transfer::message) {
      if (report.kind == worker_event::kind_type::ended) return true;
    }
    return false;
  }

  // Called when the fork server was killed: its workers end with it, their descendants do not.
  void end_descendants() const noexcept {
    constexpr int max_rounds = 20;  // processes that fork faster than that are left to init
    for (int round = 0; round < max_rounds && os::kill_marked(mark_) != 0; ++round) {
      PROCPOOL_SYSTEM(poll(nullptr, 0, 1));
    }
  }

  // Makes the outbound region and sends it to the fork server.
  void send_hello(const region_sizes& sizes, const os::signal_rules& signals) {
    prepare(sizes, memory_kind::shared);
    poller_.add(control_.get(), control_tag);
    const int descriptors[] = {outbound_->file(), outbound_->large().file()};
    const bool large = descriptors[1] != -1;
    const server_request request{.kind = server_request::kind_type::hello,
                                 .large = large ? 1U : 0U,
                                 .sizes = outbound_->sizes(),
                                 .signals = signals,
                                 .mark = mark_};
    if (!control_.send(request, std::span(descriptors).first(large ? 2 : 1))) {
      throw ProcessError("the fork server of the pool ended before it had begun");
    }
    outbound_->close_file();
  }

  // Does not throw, because the service thread calls it too.
  os::transfer receive(worker_event& report) noexcept {
    try {
      const os::transfer got = control_.receive(report, nullptr, true);
      if (got == os::transfer::hang_up) note_gone(ended);
      return got;
    } catch (const std::exception& error) {
      note_gone(error.what());
      return os::transfer::hang_up;
    }
  }

  pid_t server_pid_ = 0;
  std::vector<moved_code> moved_;  ///< modules at other addresses in spawned workers
  os::fd server_process_;          ///< pidfd; may be none
  os::process_mark mark_ = 0;      ///< of the descendants that end with the pool; 0: none do
  os::oom_counter oom_kills_{os::own_oom_source()};
  os::message_socket control_;
  static constexpr const char* ended = "the fork server of the pool has ended unexpectedly";
  early_abandon at_fork_{*this};  // last: registered only while the other members exist
};

}  // namespace procpool::detail
