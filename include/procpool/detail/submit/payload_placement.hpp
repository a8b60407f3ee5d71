// SPDX-License-Identifier: MIT
/// @file
/// Places encoded bodies: small ones in the frame, large ones in the arena or, if that has no room,
/// in pages of their own. A body that gets neither is streamed through the ring. Runs on the
/// submitting thread, without any lock.
#pragma once

#include <cstddef>
#include <cstring>
#include <span>
#include <utility>

#include <procpool/codec.hpp>
#include <procpool/detail/base/byte_buffer.hpp>
#include <procpool/detail/codec/scratch_buffer.hpp>
#include <procpool/detail/result/job.hpp>
#include <procpool/detail/ring/layout.hpp>
#include <procpool/detail/submit/pool_interface.hpp>
#include <procpool/detail/task/intrusive_ptr.hpp>
#include <procpool/detail/task/task_body.hpp>

namespace procpool::detail {

/// A block of the arena, or one of its own pages; empty if there is none: then the body streams.
inline std::pair<std::span<std::byte>, body_place> allocate_block(pool_interface& pool,
                                                                  std::size_t size) {
  if (const auto block = pool.allocate(size); !block.empty()) return {block, body_place::arena};
  return {pool.allocate_large(size), body_place::large};
}

/// Places a body that is too large for a frame, encoded in @p bytes: in a block, or as a stream.
inline task_body place_large(pool_interface& pool, byte_buffer& bytes) {
  task_body body;
  const auto [block, place] = allocate_block(pool, bytes.size());
  if (block.empty()) {
    body.set_stream(std::move(bytes));
  } else {
    body.set_block(block, place);
    std::memcpy(block.data(), bytes.data(), bytes.size());
  }
  return body;
}

/// A body to be streamed, encoded by @p fill(encoder). @param size an estimate
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

/// Encodes into a block; whether it fits. The unused rest is not sent.
template <class Fill>
bool fill_block(std::span<std::byte>& block, Fill fill) {
  encoder out(block);
  try {
    fill(out);
  } catch (...) {  // an encoder may have converted the std::length_error
    if (out.overflowed()) return false;
    throw;  // nested too deeply, or a user's exception
  }
  if (out.overflowed()) return false;  // an encoder ignored the error
  block = block.first(out.size());
  return true;
}

/// Places a body of @p size bytes that @p fill(encoder) encodes in place. An encoder may write more
/// or fewer bytes than when they were counted; the bytes written now count.
template <class Fill>
task_body fill_large(pool_interface& pool, std::size_t size, Fill fill) {
  const auto [whole, place] = allocate_block(pool, size);
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
    body.set_block(block, place);
    return body;
  }
  pool.release(whole);
  if (!fits) return fill_stream(size, fill);
  return body;
}

/// Sets place and size of the body and submits the frame.
inline void submit_body(pool_interface& pool, intrusive_ptr<job> owner, frame_head& head,
                        std::size_t first_index, task_body body) {
  const auto block = body.block();
  head.kind = frame_kind::run;
  head.body_size = body.bytes.size();  // the bytes really written
  if (!block.empty()) head.body_at = pool.offset(block);
  try {
    pool.submit(std::move(owner), head, first_index, std::move(body));
  } catch (...) {
    if (!block.empty()) pool.release(block);
    throw;
  }
}

}  // namespace procpool::detail
