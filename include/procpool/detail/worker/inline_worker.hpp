// SPDX-License-Identifier: MIT
/// @file
/// A thread of the program that runs tasks itself: for pools without workers and for replay.
#pragma once

#include <atomic>
#include <cstdint>
#include <string>
#include <utility>

#include <procpool/detail/module/code_ref.hpp>
#include <procpool/detail/ring/layout.hpp>
#include <procpool/detail/task/task.hpp>
#include <procpool/worker.hpp>

namespace procpool::detail {

/// The state that the tasks of this thread see. Used by one thread.
class inline_worker {
 public:
  inline_worker(std::string name, std::uint64_t seed)
      : context_(std::move(name), 0, seed, started_) {}
  inline_worker(const inline_worker&) = delete;
  inline_worker& operator=(const inline_worker&) = delete;
  ~inline_worker() {  // destructors of worker-local values still see this worker
    WorkerContext* const before = running_worker.exchange(&context_);
    context_.leave();
    running_worker = before;
  }

  [[nodiscard]] const WorkerContext& context() const noexcept { return context_; }
  void begin_item(std::uint32_t item, int attempt) {
    context_.begin_item(attempt);
    set_started(started_mark(ordinal_, item));
  }

  /// Runs a frame. A task may run another frame: calls nest.
  void run(frame_context& frame, const frame_head& head) {
    const running_frame scope(*this, head.first_number);
    begin_item(head.first_item, head.attempt);
    const code_ref code{head.entry_offset, head.entry_module};
    reinterpret_cast<task_entry>(code_address(code))(frame);
  }

 private:
  // Restores the state of the outer frame, also when the frame throws.
  class running_frame {
   public:
    running_frame(inline_worker& worker, std::uint64_t first_number)
        : worker_(&worker),
          outer_item_(worker.started_.load(std::memory_order_relaxed)),  // one thread
          outer_ordinal_(std::exchange(worker.ordinal_, ++worker.frames_)),
          outer_number_(std::exchange(worker.first_number_, first_number)),
          outer_worker_(running_worker.exchange(&worker.context_)) {
      worker.context_.begin_frame(first_number);
      worker.context_.set_depth(worker.depth_++);
      worker.set_started(started_mark(worker.ordinal_, 0));
    }
    running_frame(const running_frame&) = delete;
    running_frame& operator=(const running_frame&) = delete;
    ~running_frame() {
      worker_->first_number_ = outer_number_;
      worker_->ordinal_ = outer_ordinal_;
      worker_->context_.begin_frame(outer_number_);
      if (--worker_->depth_ > 0) worker_->context_.set_depth(worker_->depth_ - 1);
      worker_->set_started(outer_item_);
      running_worker = outer_worker_;
    }

   private:
    inline_worker* worker_;
    std::uint64_t outer_item_;
    std::uint64_t outer_ordinal_;
    std::uint64_t outer_number_;
    WorkerContext* outer_worker_;
  };

  void set_started(std::uint64_t item) noexcept {
    started_.store(item, std::memory_order_relaxed);  // only this thread reads it
  }

  std::atomic<std::uint64_t> started_{0};    ///< identifies the running item, as in result_control
  std::uint64_t frames_ = 0;                 ///< frames begun
  std::uint64_t depth_ = 0;                  ///< nested frames that run
  std::uint64_t ordinal_ = 0;                ///< of the innermost running frame
  std::uint64_t first_number_ = unnumbered;  ///< of the innermost running frame
  WorkerContext context_;
};

}  // namespace procpool::detail
