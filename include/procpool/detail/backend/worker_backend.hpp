// SPDX-License-Identifier: MIT
/// @file
/// Where the workers of a pool are: what the pool needs of the processes or threads behind its
/// channels. Carries frames and tells of lives and deaths; decides nothing.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <procpool/detail/backend/worker_event.hpp>
#include <procpool/detail/crash/crash_report.hpp>
#include <procpool/detail/os/event.hpp>
#include <procpool/detail/ring/parent_channel.hpp>
#include <procpool/detail/ring/regions.hpp>
#include <procpool/detail/worker/worker_limits.hpp>

namespace procpool::detail {

/// Used under the lock of its pool, except wait() and interrupt(), which one thread calls without
/// it: the one that drives.
class worker_backend {
 public:
  worker_backend(const worker_backend&) = delete;
  worker_backend& operator=(const worker_backend&) = delete;
  virtual ~worker_backend() = default;

  // ---- workers -------------------------------------------------------------------------------

  /// Asks for a worker in this place, which is vacant. Frames can be sent to it at once; the report
  /// comes later. @throws ProcessError when its memory is not to be had.
  /// @param limits what it may use
  virtual void start(std::uint32_t worker, const worker_limits& limits) = 0;
  /// Whether kill() can be called: a thread cannot be killed.
  [[nodiscard]] virtual bool can_kill() const noexcept = 0;
  /// Has the worker killed; its death is reported like any other.
  virtual void kill(std::uint32_t worker) noexcept = 0;
  /// Whether the calling thread is one of the workers, which cannot wait for themselves.
  [[nodiscard]] virtual bool on_worker() const noexcept { return false; }
  /// The worker's death has been dealt with: gives its memory back.
  virtual void free_slot(std::uint32_t worker) noexcept {
    poller_.remove(places_[worker]->bell.get());
    places_[worker] = nullptr;
  }
  /// What a dead worker could tell of its crash.
  [[nodiscard]] virtual crash_report crash_text(std::uint32_t worker, int signal) = 0;

  [[nodiscard]] bool present(std::uint32_t worker) const noexcept {
    return places_[worker] != nullptr;
  }
  [[nodiscard]] parent_channel& channel(std::uint32_t worker) noexcept {
    return places_[worker]->channel;
  }
  [[nodiscard]] std::string name(std::uint32_t worker) const {
    return worker_name(places_[worker]->incarnation);
  }
  void set_spin(std::uint32_t worker, bool may_spin) noexcept {
    places_[worker]->control->spin.store(may_spin ? 1 : 0, std::memory_order_relaxed);  // a hint
  }
  [[nodiscard]] arena& blocks() noexcept { return outbound_->blocks(); }

  /// The next of what is known of lives and deaths and was not told yet. Reports about workers that
  /// are not in their place any more are dropped.
  [[nodiscard]] virtual std::optional<worker_event> next_event() = 0;
  /// The same, but waits for one; none when there will be none. @throws ProcessError when that
  /// cannot be done
  [[nodiscard]] virtual std::optional<worker_event> await_report() = 0;
  /// Numbers of modules whose code the workers do not have, in order.
  [[nodiscard]] const std::vector<std::uint32_t>& missing_modules() const noexcept {
    return missing_modules_;
  }
  /// Why there are no reports any more; empty while there are.
  [[nodiscard]] const std::string& gone() const noexcept { return gone_; }

  // ---- sleeping ------------------------------------------------------------------------------

  /// From now on workers ring when they have news. The caller looks once more before it sleeps.
  void arm() noexcept {
    count_up(outbound_->header().armed);
    ++sleeps_;
    std::atomic_thread_fence(std::memory_order_seq_cst);  // announce, then look: parking.hpp
  }
  void disarm() noexcept { count_up(outbound_->header().armed); }

  /// Calls @p each(worker) for those that rang more often than there were sleeps to end, since the
  /// last call.
  template <class Each>
  void each_flooding(Each each) {
    for (const std::uint32_t worker : flooding_) each(worker);
    flooding_.clear();
  }

  /// Sleeps until a worker rings, there is a report, interrupt() is called or @p until comes.
  void wait(std::optional<os::time_point> until) {
    poller_.wait(until, [this](std::uint64_t tag) {
      if (tag == interrupt_tag) {
        interrupt_.drain();
      } else if (tag < places_.size() && places_[tag] != nullptr) {
        answer_wake_up(static_cast<std::uint32_t>(tag));
      }
    });
  }
  /// Ends a wait() of another thread, or the next one.
  void interrupt() const noexcept { interrupt_.signal(); }

  // ---- the end -------------------------------------------------------------------------------

  /// Tells workers that cannot be killed to leave, and waits until they have: as long as what they
  /// run takes. Without the lock of the pool, for what they run may need it; nobody else looks
  /// then.
  virtual void await_workers() noexcept {}
  /// Ends what is left and waits until all workers are gone. Idempotent.
  virtual void shut_down() noexcept = 0;
  /// In a forked child: the descriptors are copies that keep others alive; the rest is the
  /// parent's.
  virtual void abandon() noexcept {
    poller_.reset();
    interrupt_.reset();
    for (auto& each : places_) {
      if (each != nullptr) each->abandon();
    }
    if (outbound_) outbound_->abandon();
  }

 protected:
  worker_backend() { gone_.reserve(most_gone_text); }

  /// One worker, as the parent sees it.
  struct place {
    place(const outbound_region& outbound, std::uint32_t worker, std::uint64_t number)
        : incarnation(number),
          inbound(outbound.sizes(), outbound.kind()),
          bell(os::event::make()),
          control(&outbound.new_control(worker)),
          channel(*control, outbound.ring(worker), inbound.control(), inbound.ring()) {}

    void abandon() noexcept {
      bell.reset();
      inbound.abandon();
    }

    std::uint64_t incarnation;
    std::uint64_t rings = 0;
    inbound_region inbound;
    os::event bell;
    task_control* control;
    parent_channel channel;
  };

  /// Makes what is the same for all kinds of workers. @throws ProcessError
  void prepare(const region_sizes& sizes, memory_kind kind) {
    outbound_.emplace(sizes, kind);
    places_.resize(sizes.workers);
    flooding_.reserve(sizes.workers);
    interrupt_ = os::event::make();
    poller_ = os::poller::make();
    poller_.add(interrupt_.get(), interrupt_tag);
  }
  /// A place for a new worker, not taken yet.
  [[nodiscard]] std::unique_ptr<place> make_place(std::uint32_t worker) {
    auto fresh = std::make_unique<place>(*outbound_, worker, ++incarnations_);
    poller_.add(fresh->bell.get(), worker);
    return fresh;
  }
  /// All workers are gone: gives back what is left. A result that outlives its pool keeps the rest.
  void close_descriptors() noexcept {
    places_.clear();
    poller_.reset();
    interrupt_.reset();
  }
  /// Whether a report is about the worker that is in its place now.
  [[nodiscard]] bool in_place(const worker_event& report) const noexcept {
    return report.worker < places_.size() && places_[report.worker] != nullptr &&
           places_[report.worker]->incarnation == report.incarnation;
  }

  /// There are no reports any more.
  void note_gone(std::string_view why) noexcept {
    gone_.assign(why.substr(0, most_gone_text));  // has room for it
  }

  // A worker rings once for each sleep at the most, see parent_waker.
  void count_wake_ups(std::uint32_t worker, std::uint64_t count) noexcept {
    place& at = *places_[worker];
    if (count > sleeps_ - at.rings) {
      const bool known = std::ranges::find(flooding_, worker) != flooding_.end();
      if (!known) flooding_.push_back(worker);  // has room for all
      return;
    }
    at.rings += count;
  }

  std::optional<outbound_region> outbound_;
  std::vector<std::unique_ptr<place>> places_;
  os::poller poller_;
  std::string gone_;  ///< see gone()
  std::vector<std::uint32_t> missing_modules_;

 private:
  // The parent alone writes it.
  static void count_up(std::atomic<std::uint32_t>& armed) noexcept {
    armed.store(armed.load(std::memory_order_relaxed) + 1,
                std::memory_order_relaxed);  // ours alone
  }

  void answer_wake_up(std::uint32_t worker) {
    count_wake_ups(worker, places_[worker]->bell.drain());
  }

  static constexpr std::uint64_t interrupt_tag = ~std::uint64_t{0};
  static constexpr std::size_t most_gone_text = 250;

  os::event interrupt_;
  std::vector<std::uint32_t> flooding_;
  std::uint64_t incarnations_ = 0;
  std::uint64_t sleeps_ = 0;
};

}  // namespace procpool::detail
