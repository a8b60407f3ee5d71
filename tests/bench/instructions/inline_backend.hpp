// SPDX-License-Identifier: MIT
/// @file
/// A backend of the pool without processes: one worker that shares this thread, and works whenever
/// somebody looks at the clock to wait for it. So the way of a task through the parent and through
/// the worker runs the same instructions each time, and they can be counted.
#pragma once

#include <sys/mman.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include <procpool/detail/backend/worker_backend.hpp>
#include <procpool/detail/ring/regions.hpp>
#include <procpool/detail/submit/pool_interface.hpp>
#include <procpool/detail/worker/worker_loop.hpp>

namespace bench {

namespace detail = procpool::detail;
namespace os = procpool::detail::os;

/// The one worker: runs what it was sent when it is told to.
class inline_worker {
 public:
  explicit inline_worker(const detail::worker_memory& memory, detail::parent_channel& parent)
      : parent_(&parent), results_(memory.results), worker_(memory, os::event::make(), [] {}) {}

  /// Runs all frames that were sent.
  void work() {
    const std::uint64_t end = parent_->tasks.next_ordinal();
    while (done_ < end) {
      const detail::frame_head head = worker_.next();
      done_ = head.ordinal + 1;
      static_cast<void>(detail::run_claimed(worker_, head, equipment_));
    }
  }
  [[nodiscard]] bool idle() { return done_ == parent_->tasks.next_ordinal(); }

 private:
  detail::parent_channel* parent_;
  const detail::result_control* results_;
  detail::worker_channel worker_;
  detail::worker_equipment equipment_{procpool::WorkerContext("inline", 0, 0, results_->started),
                                      detail::limit_guard({})};
  std::uint64_t done_ = 0;  ///< frames
};

/// The worker of the pool there is; nullptr before and after.
inline inline_worker* the_worker = nullptr;

/// Nobody dies here.
class inline_backend final : public detail::worker_backend {
 public:
  explicit inline_backend(const detail::region_sizes& sizes) {
    prepare(sizes, detail::memory_kind::own);
  }
  ~inline_backend() override { shut_down(); }
  static std::unique_ptr<detail::worker_backend> make(const detail::core_settings& settings) {
    return std::make_unique<inline_backend>(settings.sizes);
  }

  void start(std::uint32_t worker, const detail::worker_limits& /*limits*/) override {
    auto fresh = make_place(worker);
    std::byte* own = fresh->inbound.memory();
    const detail::region_sizes& sizes = outbound_->sizes();
    worker_ = std::make_unique<inline_worker>(
        detail::worker_memory{&outbound_->header(),
                              fresh->control,
                              outbound_->ring(worker),
                              {},
                              new (own) detail::result_control{},
                              {own + detail::region_sizes::results_at(), sizes.ring_bytes}},
        fresh->channel);
    the_worker = worker_.get();
    places_[worker] = std::move(fresh);
  }
  [[nodiscard]] bool can_kill() const noexcept override { return false; }
  void kill(std::uint32_t /*worker*/) noexcept override {}
  [[nodiscard]] detail::crash_report crash_report_of(std::uint32_t /*worker*/,
                                                     int /*signal*/) override {
    return {};
  }
  [[nodiscard]] std::optional<detail::worker_event> next_event() override { return {}; }
  [[nodiscard]] std::optional<detail::worker_event> await_report() override {
    return detail::worker_event{detail::worker_event::kind_type::started, 0, 1, 0, 0};
  }
  void shut_down() noexcept override {
    the_worker = nullptr;
    worker_ = nullptr;
  }

 private:
  std::unique_ptr<inline_worker> worker_;
};

}  // namespace bench
