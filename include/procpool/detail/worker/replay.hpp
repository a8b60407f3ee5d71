// SPDX-License-Identifier: MIT
/// @file
/// Runs a failed item again in the program itself, where a debugger can follow it: the same code
/// with the same encoded arguments, task number and random numbers.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <stdexcept>
#include <string>
#include <utility>

#include <procpool/config.hpp>
#include <procpool/detail/base/byte_buffer.hpp>
#include <procpool/detail/base/replayable.hpp>
#include <procpool/detail/ring/layout.hpp>
#include <procpool/detail/task/task.hpp>
#include <procpool/detail/worker/inline_worker.hpp>

namespace procpool::detail {

PROCPOOL_FUNCTION void replay(const std::shared_ptr<const replayable>& record) {
  if (record != nullptr) return record->run();
  throw std::logic_error(
      "there is nothing to replay: no item has failed here, or its arguments were larger than "
      "pool_options::replay_bytes");
}

/// A frame of which one item runs. The result is dropped, an exception goes to the caller.
class replay_frame final : public frame_context {
 public:
  replay_frame(const frame_head& head, const frame_bytes& bytes, inline_worker& worker,
               byte_buffer& scratch)
      : frame_context(head, scratch), bytes_(bytes), worker_(&worker) {}

  [[nodiscard]] frame_bytes bytes() override { return bytes_; }
  void begin_item(std::uint32_t item) override { worker_->begin_item(item, head_.attempt); }
  void begin_part(std::uint32_t part) override { begin_item(part); }
  [[nodiscard]] result_window open_window(std::uint32_t /*item*/, std::size_t /*size*/) override {
    return {};
  }
  void close_window(std::uint32_t /*items*/, std::size_t /*size*/) override {}

 private:
  void put_plain(std::uint32_t /*item*/, const void* /*value*/, std::size_t /*size*/) override {}
  void put_scratch(record_kind /*kind*/, std::uint32_t /*item*/,
                   std::span<const std::byte> /*rest*/) override {}
  // Called in the catch blocks of the task's code: rethrows the exception through that code.
  void put_exception(std::uint32_t /*item*/, const callable_label& /*callable*/) override { throw; }

  frame_bytes bytes_;
  inline_worker* worker_;
};

/// A copy of the frame that a worker got. run() may be called by any thread, any number of times.
class replay_record final : public replayable {
 public:
  /// @param item number of the failed item in the frame
  /// @param seed of the pool
  replay_record(const frame_head& head, const frame_bytes& bytes, std::uint32_t item,
                std::uint64_t seed)
      : head_(head), seed_(seed) {
    head_.first_item = item;
    if (head_.item_count > item + 1) head_.item_count = item + 1;
    callable_.append(bytes.callable.data(), bytes.callable.size());
    body_.append(bytes.body.data(), bytes.body.size());
  }

  void run() const override {
    inline_worker worker("Replay", seed_);
    byte_buffer scratch;
    replay_frame frame(head_, {callable_.view(), body_.view()}, worker, scratch);
    worker.run(frame, head_);
  }

 private:
  frame_head head_;
  byte_buffer callable_;
  byte_buffer body_;
  std::uint64_t seed_;
};

}  // namespace procpool::detail
