// SPDX-License-Identifier: MIT
/// @file
/// A frame that runs on the thread that submits it, for inline_pool. Arguments and outcomes are
/// encoded and decoded as for a worker process, so that a call that works here works there.
#pragma once

#include <cstddef>
#include <cstdint>
#include <exception>
#include <memory>
#include <span>
#include <utility>

#include <procpool/detail/base/byte_buffer.hpp>
#include <procpool/detail/codec/exception_transport.hpp>
#include <procpool/detail/result/job.hpp>
#include <procpool/detail/ring/layout.hpp>
#include <procpool/detail/task/task.hpp>
#include <procpool/detail/worker/inline_worker.hpp>
#include <procpool/detail/worker/replay.hpp>
#include <procpool/detail/worker/worker_loop.hpp>
#include <procpool/worker.hpp>

namespace procpool::detail {

/// The destination of a frame's outcomes.
struct outcome_target {
  job* owner;
  std::size_t first_index;  ///< index in the job of the frame's first item
};

/// Used by one thread, without a lock.
class inline_frame final : public frame_context {
 public:
  inline_frame(const frame_head& head, const frame_bytes& bytes, inline_worker& worker,
               byte_buffer& scratch, const outcome_target& target)
      : frame_context(head, scratch),
        bytes_(bytes),
        worker_(&worker),
        scratch_(&scratch),
        target_(target) {}

  /// Runs all items. When it returns, the job has their outcomes.
  void run() { worker_->run(*this, head_); }

  [[nodiscard]] frame_bytes bytes() override { return bytes_; }
  void begin_item(std::uint32_t item) override { worker_->begin_item(item, 1); }
  void begin_part(std::uint32_t part) override { begin_item(part); }
  [[nodiscard]] result_window open_window(std::uint32_t /*item*/, std::size_t /*size*/) override {
    return {};
  }
  void close_window(std::uint32_t /*items*/, std::size_t /*size*/) override {}

 private:
  void put_plain(std::uint32_t item, const void* value, std::size_t size) override {
    settle(item, [&](job& owner, std::size_t index) {
      owner.plain(index, 0, {static_cast<const std::byte*>(value), size});
    });
  }

  void put_scratch(record_kind kind, std::uint32_t item, std::span<const std::byte> rest) override {
    scratch_->append(rest.data(), rest.size());
    settle(item, [&](job& owner, std::size_t index) {
      if (kind == record_kind::error) {
        owner.error(index, decode_exception(scratch_->view()));
      } else {
        owner.value(index, scratch_->view());
      }
    });
  }

  void put_exception(std::uint32_t item, const callable_label& callable) override {
    encoder out(empty_scratch());
    encode_current_exception(out, place_of_error(worker_->context(), callable.text()));
    keep_for_replay(item);
    put_scratch(record_kind::error, item, {});
  }

  void keep_for_replay(std::uint32_t item) {
    const std::size_t index = target_.first_index + item;
    if (!target_.owner->wants_replay(index)) return;
    target_.owner->keep_replay(
        index, std::make_shared<replay_record>(head_, bytes_, item, worker_->context().seed()));
  }

  // Gives the item its outcome. If decoding throws, that exception is the outcome.
  template <class Deliver>
  void settle(std::uint32_t item, Deliver deliver) {
    const std::size_t index = target_.first_index + item;
    try {
      deliver(*target_.owner, index);
    } catch (...) {
      keep_for_replay(item);
      target_.owner->error(index, std::current_exception());
    }
    target_.owner->count(1);
  }

  frame_bytes bytes_;
  inline_worker* worker_;
  byte_buffer* scratch_;
  outcome_target target_;
};

}  // namespace procpool::detail
