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

#include <procpool/detail/pool_core.hpp>
#include <procpool/detail/regions.hpp>
#include <procpool/detail/task.hpp>

namespace bench {

namespace detail = procpool::detail;
namespace os = procpool::detail::os;

/// Both ends of the one worker.
class inline_worker {
 public:
  explicit inline_worker(const detail::outbound_region& outbound)
      : inbound_(outbound.sizes()),
        writable_(os::fd(dup(inbound_.file())), outbound.sizes().inbound_bytes(),
                  PROT_READ | PROT_WRITE),
        results_(new (writable_.data()) detail::result_control{}),
        control_(&outbound.new_control(0)),
        channel_(*control_, outbound.ring(0), inbound_.control(), inbound_.ring()),
        worker_({&outbound.header(), control_, outbound.ring(0), {}, results_, result_ring()},
                os::event::make(), [] {}) {}

  /// Runs all frames that were sent.
  void work() {
    const std::uint64_t end = channel_.tasks().next_ordinal();
    while (done_ < end) {
      const detail::frame_head head = worker_.next();
      done_ = head.ordinal + 1;
      static_cast<void>(detail::run_claimed(worker_, head, equipment_));
    }
  }
  [[nodiscard]] bool idle() { return done_ == channel_.tasks().next_ordinal(); }
  [[nodiscard]] detail::parent_channel& channel() noexcept { return channel_; }

 private:
  [[nodiscard]] std::span<std::byte> result_ring() noexcept {
    return {writable_.data() + detail::region_sizes::results_at(), inbound_.ring().size()};
  }

  detail::inbound_region inbound_;
  os::mapping writable_;
  detail::result_control* results_;
  detail::task_control* control_;
  detail::parent_channel channel_;
  detail::worker_channel worker_;
  detail::worker_equipment equipment_{procpool::WorkerContext("inline", 0, 0, results_->started),
                                      detail::limit_guard({})};
  std::uint64_t done_ = 0;  ///< frames
};

/// The worker of the pool there is; nullptr before and after.
inline inline_worker* the_worker = nullptr;

/// What pool_core asks of a backend. Nobody dies here.
class inline_backend {
 public:
  explicit inline_backend(const detail::region_sizes& sizes) : outbound_(sizes) {}
  inline_backend(const inline_backend&) = delete;
  inline_backend& operator=(const inline_backend&) = delete;
  ~inline_backend() { shut_down(); }

  void start(std::uint32_t /*worker*/, const detail::worker_limits& /*limits*/) {
    worker_ = std::make_unique<inline_worker>(outbound_);
    the_worker = worker_.get();
  }
  void kill(std::uint32_t /*worker*/) noexcept {}
  void vacate(std::uint32_t /*worker*/) noexcept {}

  [[nodiscard]] bool present(std::uint32_t /*worker*/) const noexcept { return worker_ != nullptr; }
  [[nodiscard]] static std::uint32_t workers() noexcept { return 1; }
  [[nodiscard]] detail::parent_channel& channel(std::uint32_t /*worker*/) noexcept {
    return worker_->channel();
  }
  [[nodiscard]] static pid_t pid(std::uint32_t /*worker*/) noexcept { return 0; }
  [[nodiscard]] static std::string name(std::uint32_t /*worker*/) { return "inline"; }
  [[nodiscard]] static detail::crash_report last_words(std::uint32_t /*worker*/, int /*signal*/) {
    return {};
  }
  void set_spin(std::uint32_t /*worker*/, bool /*may_spin*/) noexcept {}
  [[nodiscard]] detail::arena& blocks() noexcept { return outbound_.blocks(); }

  template <class Each>
  bool reports(Each /*each*/) {
    return true;
  }
  template <class Each>
  bool wait_for_report(Each each) {
    each(detail::worker_report{detail::worker_report::kind_type::started, 0, 1, 0, 0});
    return true;
  }
  [[nodiscard]] const std::string& gone() const noexcept { return gone_; }

  void arm() noexcept {}
  void disarm() noexcept {}
  template <class Each>
  void each_flooding(Each /*each*/) {}
  void wait(std::optional<os::time_point> /*until*/) noexcept {}
  void interrupt() const noexcept {}

  void shut_down() noexcept {
    the_worker = nullptr;
    worker_ = nullptr;
  }
  void abandon() noexcept {}

 private:
  detail::outbound_region outbound_;
  std::unique_ptr<inline_worker> worker_;
  std::string gone_;
};

}  // namespace bench
