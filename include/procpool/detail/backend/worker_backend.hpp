// SPDX-License-Identifier: MIT
/// @file
/// The interface between a pool and its workers, processes or threads. A backend starts and ends
/// workers, reports their starts and ends, and provides their channels. All decisions are made in
/// the scheduling room.
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
#include <procpool/detail/heap/heap.hpp>
#include <procpool/detail/os/event.hpp>
#include <procpool/detail/ring/parent_channel.hpp>
#include <procpool/detail/ring/regions.hpp>
#include <procpool/detail/worker/worker_limits.hpp>

namespace procpool::detail {

/// Called under the pool's lock, except: the thread that drives the pool calls wait() without it,
/// any thread may call interrupt(), and await_workers() is called without it.
class worker_backend {
 public:
  worker_backend(const worker_backend&) = delete;
  worker_backend& operator=(const worker_backend&) = delete;
  virtual ~worker_backend() = default;

  // ---- workers -------------------------------------------------------------------------------

  /// Starts a worker in a vacant place. Frames can be sent to it at once; the event that reports
  /// the start comes later. @throws ProcessError when there is no memory for it
  virtual void start(std::uint32_t worker, const worker_limits& limits) = 0;
  /// Whether kill() can be called: a thread cannot be killed.
  [[nodiscard]] virtual bool can_kill() const noexcept = 0;
  /// Kills the worker. Its end is reported like any other.
  virtual void kill(std::uint32_t worker) noexcept = 0;
  /// Whether the calling thread is one of the workers, which cannot wait for themselves.
  [[nodiscard]] virtual bool on_worker() const noexcept { return false; }
  /// Frees the memory of a worker whose end has been processed.
  virtual void free_slot(std::uint32_t worker) noexcept {
    poller_.remove(places_[worker]->wake_event.get());
    places_[worker] = nullptr;
  }
  /// The crash note that a dead worker left.
  [[nodiscard]] virtual crash_report crash_report_of(std::uint32_t worker, int signal) = 0;

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
    places_[worker]->control->spin.store(may_spin ? 1 : 0, std::memory_order_relaxed);  // hint only
  }
  /// Where large bodies lie.
  [[nodiscard]] outbound_region& region() noexcept { return *outbound_; }

  /// The next event that was not returned yet; none when there is none now. Events of workers that
  /// are not in their place any more are dropped.
  [[nodiscard]] virtual std::optional<worker_event> next_event() = 0;
  /// The same, but waits for an event; none when there will be no more. @throws ProcessError when
  /// the wait fails
  [[nodiscard]] virtual std::optional<worker_event> await_report() = 0;
  /// Numbers of modules whose code the workers do not have, in order.
  [[nodiscard]] const std::vector<std::uint32_t>& missing_modules() const noexcept {
    return missing_modules_;
  }
  /// Why there are no more events; empty while the backend works.
  [[nodiscard]] const std::string& gone() const noexcept { return gone_; }

  // ---- sleeping ------------------------------------------------------------------------------

  /// From now on workers wake the parent when they have committed results. The caller polls once
  /// more before it sleeps.
  void arm() noexcept {
    count_up(outbound_->header().armed);
    ++sleeps_;
    std::atomic_thread_fence(std::memory_order_seq_cst);  // announce, then poll: parking.hpp
  }
  void disarm() noexcept { count_up(outbound_->header().armed); }

  /// Calls @p each(worker) for the workers that, since the last call, have sent more wake-ups than
  /// the parent has slept.
  template <class Each>
  void each_flooding(Each each) {
    for (const std::uint32_t worker : flooding_) each(worker);
    flooding_.clear();
  }

  /// Sleeps until a worker wakes the parent, an event comes, interrupt() is called or @p until.
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

  /// Tells workers that cannot be killed to leave, and waits until they have, which takes as long
  /// as the items that they run. Called without the pool's lock, because these items may need it.
  /// No other thread uses the backend then.
  virtual void await_workers() noexcept {}
  /// Ends all workers and waits until they have ended. Idempotent.
  virtual void shut_down() noexcept = 0;
  /// In a forked child: closes the copied descriptors, which would keep the other ends open. The
  /// rest is the parent's and is left alone.
  virtual void abandon() noexcept {
    poller_.reset();
    interrupt_.reset();
    for (auto& each : places_) {
      if (each != nullptr) each->abandon();
    }
    if (outbound_) outbound_->abandon();
  }

 protected:
  worker_backend() { gone_.reserve(max_gone_text); }

  /// Made before a fork server: all workers have it, also those that start later. Shared objects
  /// on their way to a task or from one are in it. Null when the system refused it.
  const std::shared_ptr<shared_heap> heap_ = use_heap();

  /// One worker, as the parent sees it.
  struct place {
    place(const outbound_region& outbound, std::uint32_t worker, std::uint64_t number)
        : incarnation(number),
          inbound(outbound.sizes(), outbound.kind()),
          wake_event(os::event::make()),
          control(&outbound.new_control(worker)),
          channel(*control, outbound.ring(worker), inbound.control(), inbound.ring()) {}

    void abandon() noexcept {
      wake_event.reset();
      inbound.abandon();
    }

    std::uint64_t incarnation;
    std::uint64_t wake_ups = 0;  ///< sent by the worker
    inbound_region inbound;
    os::event wake_event;
    task_control* control;
    parent_channel channel;
  };

  /// Makes the members that all backends need. @throws ProcessError
  void prepare(const region_sizes& sizes, memory_kind kind) {
    outbound_.emplace(sizes, kind);
    places_.resize(sizes.workers);
    flooding_.reserve(sizes.workers);
    interrupt_ = os::event::make();
    poller_ = os::poller::make();
    poller_.add(interrupt_.get(), interrupt_tag);
  }
  /// A place for a new worker. The caller puts it into places_.
  [[nodiscard]] std::unique_ptr<place> make_place(std::uint32_t worker) {
    auto fresh = std::make_unique<place>(*outbound_, worker, ++incarnations_);
    poller_.add(fresh->wake_event.get(), worker);
    return fresh;
  }
  /// Called when all workers have ended. A result that outlives its pool keeps the outbound region.
  void close_descriptors() noexcept {
    places_.clear();
    poller_.reset();
    interrupt_.reset();
    if (outbound_) outbound_->large().end();
  }
  /// Whether an event is about the worker that is in its place now.
  [[nodiscard]] bool in_place(const worker_event& report) const noexcept {
    return report.worker < places_.size() && places_[report.worker] != nullptr &&
           places_[report.worker]->incarnation == report.incarnation;
  }

  /// There are no more events.
  void note_gone(std::string_view why) noexcept {
    gone_.assign(why.substr(0, max_gone_text));  // reserved: does not allocate
  }

  // A worker sends at most one wake-up for each sleep of the parent, see parent_waker.
  void count_wake_ups(std::uint32_t worker, std::uint64_t count) noexcept {
    place& at = *places_[worker];
    if (count > sleeps_ - at.wake_ups) {
      const bool known = std::ranges::find(flooding_, worker) != flooding_.end();
      if (!known) flooding_.push_back(worker);  // reserved: does not allocate
      return;
    }
    at.wake_ups += count;
  }

  std::optional<outbound_region> outbound_;
  std::vector<std::unique_ptr<place>> places_;
  os::poller poller_;
  std::string gone_;  ///< why there are no more events
  std::vector<std::uint32_t> missing_modules_;

 private:
  static void count_up(std::atomic<std::uint32_t>& armed) noexcept {
    armed.store(armed.load(std::memory_order_relaxed) + 1,
                std::memory_order_relaxed);  // only the parent writes it
  }

  void answer_wake_up(std::uint32_t worker) {
    count_wake_ups(worker, places_[worker]->wake_event.drain());
  }

  static constexpr std::uint64_t interrupt_tag = ~std::uint64_t{0};
  static constexpr std::size_t max_gone_text = 250;

  os::event interrupt_;
  std::vector<std::uint32_t> flooding_;
  std::uint64_t incarnations_ = 0;
  std::uint64_t sleeps_ = 0;
};

}  // namespace procpool::detail
