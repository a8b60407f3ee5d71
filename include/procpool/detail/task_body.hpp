// SPDX-License-Identifier: MIT
// Level 4: channels.
/// @file
/// What is to be run, encoded, on its way to the pool.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <utility>

#include <procpool/detail/byte_buffer.hpp>
#include <procpool/detail/code_ref.hpp>
#include <procpool/detail/layout.hpp>

namespace procpool::detail {

/// The encoded body of a frame, wherever it is.
struct task_body {
  body_place place = body_place::in_line;
  std::uint32_t parts = 1;           ///< items that its one outcome stands for, in a reduction
  std::span<const std::byte> bytes;  ///< in `owned`, in `block`, or the submitter's (in_line only)
  byte_buffer owned;
  std::span<std::byte> block;            ///< of the arena; to be given back
  std::shared_ptr<const void> callable;  ///< keeps the block of a shared callable

  /// Becomes @p other. An in-line body leaves our buffer alone: it is used if the task has to wait.
  void take(task_body& other) noexcept {
    place = other.place;
    parts = other.parts;
    bytes = other.bytes;
    block = other.block;
    if (place != body_place::in_line) owned = std::move(other.owned);
    if (other.callable != nullptr) callable = std::move(other.callable);
  }
  /// Becomes empty, and keeps a buffer of at most @p keep_bytes.
  void clear(std::size_t keep_bytes) noexcept {
    place = body_place::in_line;
    bytes = {};
    block = {};
    owned.clear();
    if (owned.capacity() > keep_bytes) owned = byte_buffer();
    if (callable != nullptr) callable.reset();
  }
};

/// What every worker runs first.
struct initializer_frame {
  code_ref entry;
  byte_buffer body;  ///< callable and arguments
};

}  // namespace procpool::detail
