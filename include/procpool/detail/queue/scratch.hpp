// SPDX-License-Identifier: MIT
/// @file
/// Private memory for one item of a queue.
#pragma once

#include <cstddef>
#include <utility>

#include <procpool/config.hpp>
#include <procpool/detail/base/byte_buffer.hpp>

namespace procpool::detail {

/// A buffer that the thread keeps for its next item. A codec that itself uses a queue gets another
/// one. So does a thread that ends, when the kept buffer has been destroyed.
class queue_scratch {
 public:
  queue_scratch() {
    if (!ended_) buffer_ = std::move(kept());
    buffer_.clear();
  }
  queue_scratch(const queue_scratch&) = delete;
  queue_scratch& operator=(const queue_scratch&) = delete;
  ~queue_scratch() {
    if (!ended_ && buffer_.capacity() <= keep_bytes) kept() = std::move(buffer_);
  }

  [[nodiscard]] byte_buffer& get() noexcept { return buffer_; }

 private:
  struct keeper {
    byte_buffer buffer;
    ~keeper() { ended_ = true; }
  };

  static byte_buffer& kept() {
    thread_local keeper mine;
    return mine.buffer;
  }
  static constexpr std::size_t keep_bytes = std::size_t{1} << 20;
  static inline thread_local constinit bool ended_ = false;

  byte_buffer buffer_;
};

}  // namespace procpool::detail
