// SPDX-License-Identifier: MIT
/// @file
/// Where encoded bodies go: small ones with their frame, large ones into the arena or, when that is
/// full, through the ring piece by piece. Runs on the submitting thread, without any lock.
#pragma once

#include <boost/smart_ptr/intrusive_ptr.hpp>

#include <cstddef>
#include <cstring>
#include <span>
#include <utility>

#include <procpool/codec.hpp>
#include <procpool/detail/base/byte_buffer.hpp>
#include <procpool/detail/result/job.hpp>
#include <procpool/detail/ring/layout.hpp>
#include <procpool/detail/submit/pool_interface.hpp>
#include <procpool/detail/task/task_body.hpp>

namespace procpool::detail {

/// A buffer to encode into, kept by the thread between submissions. Nested submissions, from an
/// encoder or an input range that uses a pool itself, get one of their own. So do those that a
/// thread makes while it ends, when what it kept is gone.
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

/// A body that is too large for a frame, encoded in @p bytes: into the arena or, when that is full,
/// kept as it is for streaming.
inline task_body place_large(pool_interface& pool, byte_buffer& bytes) {
  task_body body;
  const auto block = pool.allocate(bytes.size());
  if (block.empty()) {
    body.set_stream(std::move(bytes));
  } else {
    body.set_block(block);
    std::memcpy(block.data(), bytes.data(), bytes.size());
  }
  return body;
}

/// A body that is to be streamed, encoded by @p fill(encoder). @param size likely
template <class Fill>
task_body fill_stream(std::size_t size, Fill fill) {
  byte_buffer bytes;
  bytes.reserve(size);
  encoder out(bytes);
  fill(out);
  task_body body;
  if (!bytes.empty()) body.set_stream(std::move(bytes));
  return body;
}

/// Encodes into a block of the arena; whether it fits. What it did not use is not sent.
template <class Fill>
bool fill_block(std::span<std::byte>& block, Fill fill) {
  encoder out(block);
  try {
    fill(out);
  } catch (...) {  // an encoder may have made something else of the std::length_error
    if (out.overflowed()) return false;
    throw;  // of a value that nests too deeply, or of the user's
  }
  if (out.overflowed()) return false;  // an encoder went on
  block = block.first(out.size());
  return true;
}

/// The same for a body of @p size bytes that is encoded by @p fill(encoder): in place. Encoders may
/// give more or less than they did when they were counted: what they give now counts.
template <class Fill>
task_body fill_large(pool_interface& pool, std::size_t size, Fill fill) {
  const auto whole = pool.allocate(size);
  if (whole.empty()) return fill_stream(size, fill);
  auto block = whole;
  bool fits = false;
  try {
    fits = fill_block(block, fill);
  } catch (...) {
    pool.release(whole);
    throw;
  }
  task_body body;
  if (fits && !block.empty()) {
    body.set_block(block);
    return body;
  }
  pool.release(whole);
  if (!fits) return fill_stream(size, fill);
  return body;
}

/// Fills in where the body is and how long, and hands the frame over.
inline void submit_body(pool_interface& pool, boost::intrusive_ptr<job> owner, frame_head& head,
                        std::size_t first_index, task_body body) {
  const auto block = body.block();
  head.kind = frame_kind::run;
  head.body_size = body.bytes.size();  // as many as really are there
  if (!block.empty()) head.body_at = pool.offset(block);
  try {
    pool.submit(std::move(owner), head, first_index, std::move(body));
  } catch (...) {
    if (!block.empty()) pool.release(block);
    throw;
  }
}

/// Hands over a frame with one item and an in-line body, which is copied.
inline void submit_small(pool_interface& pool, boost::intrusive_ptr<job> owner, frame_head& head,
                         std::span<const std::byte> body) {
  head.kind = frame_kind::run;
  head.body_size = body.size();
  task_body where;
  where.bytes = body;
  pool.submit(std::move(owner), head, 0, std::move(where));
}

}  // namespace procpool::detail
