// SPDX-License-Identifier: MIT
/// @file
/// What a Value and an Array have in their records: a lock, and the data, or its length if it is in
/// the extent.
///
/// A Value of up to 8 bytes is one word; update() is one store. A larger one is there twice:
/// update() writes the copy that is not in use and then changes one word, so nobody ever sees half
/// of it.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <utility>

#include <procpool/config.hpp>
#include <procpool/detail/bulk/bulk_memory.hpp>
#include <procpool/detail/heap/held_object.hpp>
#include <procpool/detail/heap/layout.hpp>
#include <procpool/detail/sync/lock_state.hpp>

namespace procpool::detail {

struct value_state {
  lock_state lock;                     ///< unless it was made with another lock
  std::atomic<std::uint64_t> bytes;    ///< of the data; never changes
  std::atomic<std::uint32_t> version;  ///< of a Value: counts updates; bit 0 says which copy it is
  std::uint32_t unused;
  alignas(32) std::array<std::byte, 224> data;
};
static_assert(sizeof(value_state) == object_body_size);

/// Data of at most this size is in the record.
inline constexpr std::size_t data_in_record = 224;

/// The data of one Value or Array in this process.
class object_data {
 public:
  object_data() noexcept = default;
  object_data(const object_data&) noexcept = default;  // as handles, to move is to copy
  object_data& operator=(const object_data&) noexcept = default;
  ~object_data() = default;
  object_data(std::byte* begin, std::uint64_t bytes, bulk_ptr bulk) noexcept
      : begin_(begin), bytes_(bytes), bulk_(std::move(bulk)) {}

  [[nodiscard]] std::byte* begin() const noexcept { return begin_; }
  [[nodiscard]] std::uint64_t bytes() const noexcept { return bytes_; }

 private:
  std::byte* begin_ = nullptr;
  std::uint64_t bytes_ = 0;
  bulk_ptr bulk_;  ///< keeps the mapping
};

/// The data of a new object, all zero. @param what the object, for messages
/// @throws ProcessError: there is not enough memory
[[nodiscard]] object_data make_data(const object_ref& object, std::uint64_t bytes,
                                    const char* what);
/// That of an object that was received. @throws ProcessError when it cannot be mapped
[[nodiscard]] object_data find_data(const object_ref& object);

/// Two copies of one value. Copies are a multiple of 8 bytes long.
class value_copies {
 public:
  value_copies(object_record& record, std::byte* begin, std::size_t size) noexcept
      : version_(&body_as<value_state>(record).version), begin_(begin), size_(size) {}

  /// The one in use.
  [[nodiscard]] std::byte* current() const noexcept {
    return copy(version_->load(std::memory_order_acquire));  // with its bytes
  }
  /// @returns false: it was changed again and again meanwhile
  [[nodiscard]] bool read(std::uint64_t* out) const noexcept {
    constexpr int attempts = 100;
    for (int attempt = 0; attempt < attempts; ++attempt) {
      const std::uint32_t before = version_->load(std::memory_order_acquire);  // with its bytes
      load(out, copy(before));
      std::atomic_thread_fence(std::memory_order_acquire);  // the bytes are read before
      if (version_->load(std::memory_order_relaxed) == before) return true;
    }
    return false;
  }
  /// With the lock of the value.
  void write(const std::uint64_t* in) const noexcept {
    const std::uint32_t now = version_->load(std::memory_order_relaxed);  // the lock orders it
    std::atomic_thread_fence(std::memory_order_release);  // who sees these bytes sees `now`
    store(copy(now + 1), in);
    version_->store(now + 1, std::memory_order_release);  // the bytes are there
  }

 private:
  [[nodiscard]] std::byte* copy(std::uint32_t version) const noexcept {
    return begin_ + (version & 1U) * size_;
  }
  // Relaxed: a reader may meet a writer, and then reads again.
  void load(std::uint64_t* out, const std::byte* from) const noexcept {
    const auto* const words = reinterpret_cast<const std::uint64_t*>(from);
    for (std::size_t i = 0; i < size_ / 8; ++i)
      out[i] = __atomic_load_n(words + i, __ATOMIC_RELAXED);
  }
  void store(std::byte* to, const std::uint64_t* in) const noexcept {
    auto* const words = reinterpret_cast<std::uint64_t*>(to);
    for (std::size_t i = 0; i < size_ / 8; ++i)
      __atomic_store_n(words + i, in[i], __ATOMIC_RELAXED);
  }

  std::atomic<std::uint32_t>* version_;
  std::byte* begin_;
  std::size_t size_;
};

/// The bytes of so many elements; more than there can be if that is too much.
[[nodiscard]] constexpr std::uint64_t bytes_of(std::size_t count, std::size_t size) noexcept {
  constexpr std::uint64_t most = std::uint64_t{1} << 48U;
  return count > most / size ? most : count * size;
}

}  // namespace procpool::detail
