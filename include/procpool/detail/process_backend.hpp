// SPDX-License-Identifier: MIT
// Level 5: processes.
/// @file
/// The backend of a pool of processes: regions, channels, the fork server, and how the parent
/// sleeps. Carries frames and tells of lives and deaths; decides nothing.
#pragma once

#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <procpool/detail/crash_report.hpp>
#include <procpool/detail/fork_registry.hpp>
#include <procpool/detail/fork_server.hpp>
#include <procpool/detail/os/event.hpp>
#include <procpool/detail/os/pidfd.hpp>
#include <procpool/detail/os/signals.hpp>
#include <procpool/detail/os/socket.hpp>
#include <procpool/detail/parent_channel.hpp>
#include <procpool/detail/regions.hpp>

namespace procpool::detail {

/// Used under the lock of its pool, except anything(), wait() and interrupt(), which one thread
/// calls without it: the one that drives.
class process_backend {
 public:
  /// Forks the fork server, then makes the outbound region. No thread of the library exists in this
  /// process while it forks. @throws ProcessError when the system refuses; nothing is left then.
  explicit process_backend(const region_sizes& sizes) {
    auto [ours, theirs] = os::message_socket::make_pair();
    process_identity workers{.daemon = false,
                             .position = process_context::instance().identity().position,
                             .parent = link_to_this_process()};
    {
      // No handler of the program's runs in the fork server, and no Ctrl-C ends it, before it has
      // its own way with signals (fork_server::reset_signals, which unblocks them).
      const os::signals_blocked guard;
      server_ = fork_process();
      if (server_ == 0) {
        ours.reset();
        fork_server(std::move(theirs), std::move(workers)).run();
      }
    }
    theirs.reset();
    control_ = std::move(ours);
    try {
      prepare(sizes);
    } catch (...) {
      shut_down();
      throw;
    }
  }
  process_backend(const process_backend&) = delete;
  process_backend& operator=(const process_backend&) = delete;
  ~process_backend() { shut_down(); }

  // ---- workers -------------------------------------------------------------------------------

  /// Asks for a worker in this place, which is vacant. Frames can be sent to it at once; the report
  /// comes later. @throws ProcessError when its region is not to be had.
  /// @param limits what it may use
  void start(std::uint32_t worker, const worker_limits& limits) {
    auto fresh = std::make_unique<place>(*outbound_, worker, ++incarnations_);
    poller_.add(fresh->bell.get(), worker);
    const int descriptors[] = {fresh->inbound.file(), fresh->bell.get()};
    const server_request request{server_request::kind_type::start, worker, fresh->incarnation,
                                 outbound_->sizes(), limits};
    if (!control_.send(request, descriptors)) gone_ = ended;
    fresh->inbound.close_file();
    places_[worker] = std::move(fresh);
  }

  /// Has the worker killed; its death is reported like any other.
  void kill(std::uint32_t worker) {
    const server_request request{
        server_request::kind_type::kill, worker, places_[worker]->incarnation, {}, {}};
    try {
      if (!control_.send(request)) gone_ = ended;
    } catch (const Error& error) {
      gone_ = error.what();
    }
  }

  /// The worker's death has been dealt with: gives its memory back.
  void vacate(std::uint32_t worker) {
    poller_.remove(places_[worker]->bell.get());
    places_[worker] = nullptr;
  }

  [[nodiscard]] bool present(std::uint32_t worker) const noexcept {
    return places_[worker] != nullptr;
  }
  [[nodiscard]] std::uint32_t workers() const noexcept {
    return static_cast<std::uint32_t>(places_.size());
  }
  [[nodiscard]] parent_channel& channel(std::uint32_t worker) noexcept {
    return places_[worker]->channel;
  }
  [[nodiscard]] pid_t pid(std::uint32_t worker) const noexcept { return places_[worker]->pid; }
  [[nodiscard]] std::string name(std::uint32_t worker) const {
    return worker_name(places_[worker]->incarnation);
  }
  /// What a dead worker could tell of its crash.
  [[nodiscard]] crash_report last_words(std::uint32_t worker, int signal) const {
    return read_crash(places_[worker]->inbound.crash(), signal);
  }
  void set_spin(std::uint32_t worker, bool may_spin) noexcept {
    places_[worker]->control->spin.store(may_spin ? 1 : 0, std::memory_order_relaxed);  // a hint
  }
  [[nodiscard]] arena& blocks() noexcept { return outbound_->blocks(); }

  /// Handles what the fork server has reported: each(report). Reports about workers that are not in
  /// their place any more are dropped. False when the fork server is gone() or cannot be heard.
  template <class Each>
  bool reports(Each each) {
    worker_report report{};
    while (receive(report) == os::transfer::message) deliver(report, each);
    return gone_.empty();
  }

  /// Like reports(), but waits for one. @throws ProcessError when that cannot be done
  template <class Each>
  bool wait_for_report(Each each) {
    worker_report report{};
    if (control_.receive(report) != os::transfer::message) {
      gone_ = ended;
    } else {
      deliver(report, each);
    }
    return gone_.empty();
  }

  /// Why there are no reports any more; empty while there are.
  [[nodiscard]] const std::string& gone() const noexcept { return gone_; }

  // ---- sleeping ------------------------------------------------------------------------------

  /// From now on workers ring when they have news. The caller looks once more before it sleeps.
  void arm() noexcept {
    auto& armed = outbound_->header().armed;
    armed.store(armed.load(std::memory_order_relaxed) + 1,
                std::memory_order_relaxed);  // ours alone
    ++sleeps_;
    std::atomic_thread_fence(std::memory_order_seq_cst);  // announce, then look: parking.hpp
  }
  void disarm() noexcept {
    auto& armed = outbound_->header().armed;
    armed.store(armed.load(std::memory_order_relaxed) + 1,
                std::memory_order_relaxed);  // ours alone
  }

  /// Calls @p each(worker) for workers that rang more often than there were sleeps to end.
  template <class Each>
  void each_flooding(Each each) {
    for (const std::uint32_t worker : std::exchange(flooding_, {})) {
      if (present(worker)) each(worker);
    }
  }

  /// Sleeps until a worker rings, the fork server reports, interrupt() is called or @p until comes.
  void wait(std::optional<os::time_point> until) {
    poller_.wait(until, [this](std::uint64_t tag) {
      if (tag == interrupt_tag) {
        interrupt_.silence();
      } else if (tag < places_.size() && places_[tag] != nullptr) {
        answer_bell(static_cast<std::uint32_t>(tag));
      }
    });
  }
  /// Ends a wait() of another thread, or the next one.
  void interrupt() const noexcept { interrupt_.ring(); }

  // ---- the end -------------------------------------------------------------------------------

  /// Kills what is left and waits until all processes are gone. Idempotent.
  void shut_down() noexcept {
    if (server_ <= 0) return;
    control_.reset();  // the server sees it, kills and reaps the workers and ends
    end_server();
    server_ = 0;
    places_.clear();
  }

  /// In a forked child: the descriptors are copies that keep others alive; the rest is the
  /// parent's.
  void abandon() noexcept {
    server_ = 0;
    server_process_.reset();
    control_.reset();
    poller_.reset();
    interrupt_.reset();
    for (auto& each : places_) {
      if (each != nullptr) each->abandon();
    }
    if (outbound_) outbound_->abandon();
  }

 private:
  struct place {
    place(const outbound_region& outbound, std::uint32_t worker, std::uint64_t number)
        : incarnation(number),
          inbound(outbound.sizes()),
          bell(os::event::make()),
          control(&outbound.new_control(worker)),
          channel(*control, outbound.ring(worker), inbound.control(), inbound.ring()) {}

    void abandon() noexcept {
      bell.reset();
      inbound.abandon();
    }

    std::uint64_t incarnation;
    std::uint64_t rings = 0;
    pid_t pid = 0;
    inbound_region inbound;
    os::event bell;
    task_control* control;
    parent_channel channel;
  };

  // A worker rings once for each sleep at the most, see parent_bell.
  void answer_bell(std::uint32_t worker) {
    place& at = *places_[worker];
    const std::uint64_t count = at.bell.silence();
    if (count > sleeps_ - at.rings) return flooding_.push_back(worker);
    at.rings += count;
  }

  static constexpr std::uint64_t control_tag = ~std::uint64_t{0};
  static constexpr std::uint64_t interrupt_tag = control_tag - 1;

  // By descriptor where there is one: when somebody else has reaped the server (a waitpid for any
  // child in the host program) its number may be another child's by now, which is not ours to reap.
  void end_server() noexcept {
    if (!server_process_) {
      os::retry([this] { return PROCPOOL_SYSTEM(waitpid(server_, nullptr, 0)); });
      return;
    }
    // One that was stopped (SIGSTOP) would not see that the socket has closed.
    PROCPOOL_SYSTEM(syscall(SYS_pidfd_send_signal, server_process_.get(), SIGCONT, nullptr, 0U));
    os::await_end(server_process_.get());
    server_process_.reset();
  }

  void prepare(const region_sizes& sizes) {
    server_process_ = os::find_process_if_possible(server_);
    outbound_.emplace(sizes);
    places_.resize(sizes.workers);
    interrupt_ = os::event::make();
    poller_ = os::poller::make();
    poller_.add(control_.get(), control_tag);
    poller_.add(interrupt_.get(), interrupt_tag);
    const int descriptors[] = {outbound_->file()};
    const server_request request{server_request::kind_type::hello, 0, 0, sizes, {}};
    if (!control_.send(request, descriptors)) {
      throw ProcessError("the fork server of the pool ended before it had begun");
    }
    outbound_->close_file();
  }

  // Also on the service thread, so it does not throw.
  os::transfer receive(worker_report& report) {
    try {
      const os::transfer got = control_.receive(report, nullptr, true);
      if (got == os::transfer::hang_up) gone_ = ended;
      return got;
    } catch (const Error& error) {
      gone_ = error.what();
      return os::transfer::hang_up;
    }
  }

  template <class Each>
  void deliver(const worker_report& report, Each& each) {
    if (report.worker >= places_.size()) return;
    place* at = places_[report.worker].get();
    if (at == nullptr || at->incarnation != report.incarnation) return;
    if (report.kind == worker_report::kind_type::started) at->pid = report.pid;
    each(report);
  }

  pid_t server_ = 0;
  os::fd server_process_;
  os::message_socket control_;
  std::optional<outbound_region> outbound_;
  std::vector<std::unique_ptr<place>> places_;
  os::poller poller_;
  os::event interrupt_;
  std::vector<std::uint32_t> flooding_;
  std::uint64_t incarnations_ = 0;
  std::uint64_t sleeps_ = 0;
  static constexpr const char* ended = "the fork server of the pool has ended unexpectedly";
  std::string gone_;  ///< why the server is; empty while it is there
};

}  // namespace procpool::detail
