// SPDX-License-Identifier: MIT
/// @file
/// Private memory of a thread for what it encodes, before that goes to shared memory.
#pragma once

#include <cstddef>
#include <utility>

#include <procpool/config.hpp>
#include <procpool/detail/base/byte_buffer.hpp>

namespace procpool::detail {

/// An encoding buffer that the thread keeps from use to use. A nested use, by an encoder or an
/// input range that itself submits a task or uses a queue, gets its own buffer. So does a use while
/// the thread ends, when the kept buffer has been destroyed.
class scratch_buffer {
 public:
  scratch_buffer() {
    if (!ended_) buffer_ = std::move(kept());
    buffer_.clear();
  }
  scratch_buffer(const scratch_buffer&) = delete;
  scratch_buffer& operator=(const scratch_buffer&) = delete;
  ~scratch_buffer() {
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
