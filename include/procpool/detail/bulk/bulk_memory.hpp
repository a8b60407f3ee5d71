// SPDX-License-Identifier: MIT
/// @file
/// The memory of large arrays: one object of the shared heap each, with its extent mapped. A
/// process maps an array once, however many handles of it there are.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include <procpool/codec/decoder.hpp>
#include <procpool/codec/encoder.hpp>
#include <procpool/config.hpp>
#include <procpool/detail/heap/held_object.hpp>

namespace procpool::detail {

/// One array as this process has it.
class bulk_memory {
 public:
  /// @param keep whether the mapping is worth keeping, see the destructor
  bulk_memory(object_ref object, std::shared_ptr<const extent_mapping> mapping,
              bool keep = true) noexcept
      : object_(std::move(object)), mapping_(std::move(mapping)), keep_(keep) {}
  bulk_memory(const bulk_memory&) = delete;
  bulk_memory& operator=(const bulk_memory&) = delete;
  /// Unmaps the memory. But a child, which may be a worker, keeps the mapping for a while if other
  /// processes hold the array: workers get parts of the same array again and again.
  ~bulk_memory();

  [[nodiscard]] const object_ref& object() const noexcept { return object_; }
  [[nodiscard]] std::byte* data() const noexcept { return mapping_->bytes().data(); }
  [[nodiscard]] std::size_t size() const noexcept { return mapping_->bytes().size(); }

 private:
  object_ref object_;
  std::shared_ptr<const extent_mapping> mapping_;
  bool keep_;
};

using bulk_ptr = std::shared_ptr<const bulk_memory>;

/// A new array of @p count elements, all bytes zero, whose pages are reserved.
/// @param count not 0. @param type see type_tag()
/// @throws ProcessError: not enough memory (ENOMEM, what() says how much there is), more than 2 TiB
/// (EFBIG), and others
[[nodiscard]] bulk_ptr make_bulk(std::uint64_t count, std::size_t element_size, std::uint64_t type);

/// Reserves the beginning of an object's extent, so that no later write fails. @param what the
/// object, for the message. @throws ProcessError: not enough memory (ENOMEM)
void reserve_bulk(const held_object& object, std::uint64_t bytes, const char* what);

/// The beginning of the extent of an object of another kind, mapped to be written.
/// @throws ProcessError when it cannot be mapped
[[nodiscard]] bulk_ptr map_bulk(object_ref object, std::uint64_t bytes);

/// A part of an array as it travels, after the handle of the object.
struct bulk_part {
  std::uint64_t offset = 0;  ///< in elements
  std::uint64_t count = 0;   ///< in elements
};

/// @param memory null: the empty array, which has no memory
void put_bulk(encoder& e, const bulk_ptr& memory, bulk_part part);

/// @param part what was put. @returns null for the empty array
/// @throws DecodeError: the handle is of another program or type, its array has ended, or the part
/// is not within it; ProcessError when it cannot be mapped
[[nodiscard]] bulk_ptr get_bulk(decoder& d, bulk_part& part, std::size_t element_size,
                                std::uint64_t type, extent_access access);

/// For indices and ranges. @throws std::out_of_range
[[noreturn]] void not_in_array(std::size_t offset, std::size_t count, std::size_t size);

}  // namespace procpool::detail
