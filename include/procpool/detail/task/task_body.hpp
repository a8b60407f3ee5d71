// SPDX-License-Identifier: MIT
/// @file
/// What is to be run, encoded, on its way to the pool.
#pragma once

#include <boost/smart_ptr/intrusive_ptr.hpp>
#include <boost/smart_ptr/intrusive_ref_counter.hpp>

#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>

#include <procpool/detail/base/byte_buffer.hpp>
#include <procpool/detail/module/code_ref.hpp>
#include <procpool/detail/ring/layout.hpp>

namespace procpool::detail {

/// Keeps something alive for the frames that refer to it: the block of a shared callable.
class frame_keeper : public boost::intrusive_ref_counter<frame_keeper> {
 public:
  frame_keeper() = default;
  frame_keeper(const frame_keeper&) = delete;
  frame_keeper& operator=(const frame_keeper&) = delete;
  virtual ~frame_keeper() = default;
};

/// The encoded body of a frame, wherever it is. Small: there is one for each task that waits.
struct task_body {
  body_place place = body_place::in_line;
  std::uint32_t parts = 1;  ///< items that its one outcome stands for, in a reduction
  std::span<const std::byte>
      bytes;  ///< in `owned`, in the arena, or the submitter's (in_line only)
  byte_buffer owned;
  boost::intrusive_ptr<const frame_keeper> callable;

  /// Is in this block of the arena, which is to be given back.
  void set_block(std::span<std::byte> block) noexcept {
    place = body_place::arena;
    bytes = block;
  }
  /// Goes through the ring piece by piece, from memory of its own.
  void set_stream(byte_buffer encoded) noexcept {
    place = body_place::stream;
    owned = std::move(encoded);
    bytes = owned.view();
  }
  /// Its block of the arena; empty if it is elsewhere.
  [[nodiscard]] std::span<std::byte> block() const noexcept {
    if (place != body_place::arena) return {};
    return {const_cast<std::byte*>(bytes.data()), bytes.size()};
  }
  /// What goes through the ring.
  [[nodiscard]] std::span<const std::byte> in_ring() const noexcept {
    return place == body_place::arena ? std::span<const std::byte>() : bytes;
  }

  /// Becomes @p other. An in-line body leaves our buffer alone: it is used if the task has to wait.
  void take(task_body& other) noexcept {
    place = other.place;
    parts = other.parts;
    bytes = other.bytes;
    if (place != body_place::in_line) owned = std::move(other.owned);
    if (other.callable != nullptr) callable = std::move(other.callable);
  }
  /// Becomes empty, and keeps a buffer of at most @p keep_bytes.
  void clear(std::size_t keep_bytes) noexcept {
    place = body_place::in_line;
    bytes = {};
    owned.clear();
    if (owned.capacity() > keep_bytes) owned = byte_buffer();
    if (callable != nullptr) callable.reset();
  }
};

/// What every worker runs first.
struct initializer_frame {
  code_ref entry;
  code_ref function;  ///< that the body points to, if it does
  byte_buffer body;   ///< callable and arguments
};

}  // namespace procpool::detail
