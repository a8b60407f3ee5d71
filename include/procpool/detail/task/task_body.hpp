// SPDX-License-Identifier: MIT
/// @file
/// The encoded body of a task, from its submission to the ring.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <utility>

#include <procpool/detail/base/byte_buffer.hpp>
#include <procpool/detail/module/code_ref.hpp>
#include <procpool/detail/ring/layout.hpp>
#include <procpool/detail/task/intrusive_ptr.hpp>

namespace procpool::detail {

/// Keeps the arena block of a shared callable alive for the frames that refer to it.
class frame_keeper : public reference_counted<frame_keeper> {
 public:
  frame_keeper() = default;
  frame_keeper(const frame_keeper&) = delete;
  frame_keeper& operator=(const frame_keeper&) = delete;
  virtual ~frame_keeper() = default;
};

/// The encoded body of a frame, wherever it lies. Kept small: every waiting task has one.
struct task_body {
  body_place place = body_place::in_line;
  std::uint32_t parts = 1;  ///< in a reduction: items that its one outcome stands for
  std::span<const std::byte>
      bytes;  ///< in `owned`, in the arena, or in the submitter's memory (in_line only)
  byte_buffer owned;
  intrusive_ptr<const frame_keeper> callable;

  /// The body is in this block, which must be given back later. @param where arena or large
  void set_block(std::span<std::byte> block, body_place where) noexcept {
    place = where;
    bytes = block;
  }
  /// The body goes through the ring piece by piece, from memory of its own.
  void set_stream(byte_buffer encoded) noexcept {
    place = body_place::stream;
    owned = std::move(encoded);
    bytes = owned.view();
  }
  [[nodiscard]] bool in_block() const noexcept {
    return place == body_place::arena || place == body_place::large;
  }
  /// Its block; empty if the body is elsewhere.
  [[nodiscard]] std::span<std::byte> block() const noexcept {
    if (!in_block()) return {};
    return {const_cast<std::byte*>(bytes.data()), bytes.size()};
  }
  /// The bytes that go through the ring.
  [[nodiscard]] std::span<const std::byte> in_ring() const noexcept {
    return in_block() ? std::span<const std::byte>() : bytes;
  }

  /// Takes over @p other. An in-line body leaves `owned` alone: it is used if the task must wait.
  void take(task_body& other) noexcept {
    place = other.place;
    parts = other.parts;
    bytes = other.bytes;
    if (place != body_place::in_line) owned = std::move(other.owned);
    if (other.callable != nullptr) callable = std::move(other.callable);
  }
  /// Becomes empty, but keeps a buffer of at most @p keep_bytes.
  void clear(std::size_t keep_bytes) noexcept {
    place = body_place::in_line;
    bytes = {};
    owned.clear();
    if (owned.capacity() > keep_bytes) owned = byte_buffer();
    if (callable != nullptr) callable.reset();
  }
};

/// The frame that every worker runs first.
struct initializer_frame {
  code_ref entry;
  code_ref function;                   ///< the function that the body points to, if any
  byte_buffer body;                    ///< callable and arguments
  std::shared_ptr<void> handles = {};  ///< shared objects among them
};

}  // namespace procpool::detail
