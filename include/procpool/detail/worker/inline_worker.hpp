// SPDX-License-Identifier: MIT
/// @file
/// A thread of the program that runs tasks itself.
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

/// What tasks see of it. One thread.
class inline_worker {
 public:
  inline_worker(std::string name, std::uint64_t seed)
      : context_(std::move(name), 0, seed, started_) {}
  inline_worker(const inline_worker&) = delete;
  inline_worker& operator=(const inline_worker&) = delete;
  ~inline_worker() {  // what its values' destructors use is its own, too
    WorkerContext* const before = running_worker.exchange(&context_);
    context_.leave();
    running_worker = before;
  }

  [[nodiscard]] const WorkerContext& context() const noexcept { return context_; }
  void begin_item(std::uint32_t item, int attempt) {
    context_.begin_item(attempt);
    say_started(started_mark(ordinal_, item));
  }

  /// Runs a frame. A task may run others, in the midst of itself.
  void run(frame_context& frame, const frame_head& head) {
    const running_frame now(*this, head.first_number);
    begin_item(head.first_item, head.attempt);
    const code_ref code{head.entry_offset, head.entry_module};
    reinterpret_cast<task_entry>(code_address(code))(frame);
  }

 private:
  // Puts everything back as it was, also when the frame throws.
  class running_frame {
   public:
    running_frame(inline_worker& worker, std::uint64_t first_number)
        : worker_(&worker),
          item_(worker.started_.load(std::memory_order_relaxed)),  // one thread
          ordinal_(std::exchange(worker.ordinal_, ++worker.frames_)),
          number_(std::exchange(worker.first_number_, first_number)),
          before_(running_worker.exchange(&worker.context_)) {
      worker.context_.begin_frame(first_number);
      worker.context_.set_depth(worker.depth_++);
      worker.say_started(started_mark(worker.ordinal_, 0));
    }
    running_frame(const running_frame&) = delete;
    running_frame& operator=(const running_frame&) = delete;
    ~running_frame() {
      worker_->first_number_ = number_;
      worker_->ordinal_ = ordinal_;
      worker_->context_.begin_frame(number_);
      if (--worker_->depth_ > 0) worker_->context_.set_depth(worker_->depth_ - 1);
      worker_->say_started(item_);
      running_worker = before_;
    }

   private:
    inline_worker* worker_;
    std::uint64_t item_;
    std::uint64_t ordinal_;
    std::uint64_t number_;
    WorkerContext* before_;
  };

  void say_started(std::uint64_t item) noexcept {
    started_.store(item, std::memory_order_relaxed);  // read by this thread
  }

  std::atomic<std::uint64_t> started_{0};    ///< as in result_control: tells items apart
  std::uint64_t frames_ = 0;                 ///< that it has begun
  std::uint64_t depth_ = 0;                  ///< frames that run, each in the midst of the last
  std::uint64_t ordinal_ = 0;                ///< of the frame that runs
  std::uint64_t first_number_ = unnumbered;  ///< of the frame that runs
  WorkerContext context_;
};

}  // namespace procpool::detail
