// SPDX-License-Identifier: MIT
/// @file
/// A growing block of bytes, used by the encoder. New bytes are not zeroed: std::vector<std::byte>
/// would write every byte twice.
#pragma once

#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <new>
#include <span>
#include <utility>

namespace procpool::detail {

/// Storage to append to: `size` of the `capacity` bytes at `data` are in use.
struct byte_area {
  std::byte* data = nullptr;
  std::size_t size = 0;
  std::size_t capacity = 0;
};

/// Owned bytes, aligned for every fundamental type. Move-only; one thread at a time.
class byte_buffer {
 public:
  /// The alignment of data().
  static constexpr std::size_t alignment = 16;

  byte_buffer() noexcept = default;
  byte_buffer(byte_buffer&& other) noexcept : area_(std::exchange(other.area_, {})) {}
  byte_buffer& operator=(byte_buffer&& other) noexcept {
    std::swap(area_, other.area_);
    return *this;
  }
  byte_buffer(const byte_buffer&) = delete;
  byte_buffer& operator=(const byte_buffer&) = delete;
  ~byte_buffer() { std::free(area_.data); }

  [[nodiscard]] std::byte* data() noexcept { return area_.data; }
  [[nodiscard]] const std::byte* data() const noexcept { return area_.data; }
  [[nodiscard]] std::size_t size() const noexcept { return area_.size; }
  [[nodiscard]] std::size_t capacity() const noexcept { return area_.capacity; }
  [[nodiscard]] bool empty() const noexcept { return area_.size == 0; }
  [[nodiscard]] std::span<const std::byte> view() const noexcept {
    return {area_.data, area_.size};
  }

  /// Removes the contents and keeps the memory.
  void clear() noexcept { area_.size = 0; }

  /// Makes room for `n` bytes in total. If it throws std::bad_alloc, nothing has changed.
  void reserve(std::size_t n) {
    if (n > area_.capacity) reallocate(n);
  }

  /// Sets the size to `n`; bytes beyond the old size are indeterminate.
  void resize_uninitialized(std::size_t n) {
    reserve(n);
    area_.size = n;
  }

  /// Copies `n` bytes to the end; `data` must not point into this buffer.
  void append(const void* data, std::size_t n) {
    if (n == 0) return;
    make_room(n);
    std::memcpy(area_.data + area_.size, data, n);
    area_.size += n;
  }

  /// Makes room for `n` more bytes, in amortized constant time per byte.
  void make_room(std::size_t n) {
    if (n > area_.capacity - area_.size) grow(n);
  }

  /// The storage itself, for the encoder, which appends in place.
  [[nodiscard]] byte_area& area() noexcept { return area_; }

 private:
  [[gnu::noinline]] void grow(std::size_t n) {
    const std::size_t needed = area_.size + n;
    if (needed < n) throw std::bad_alloc();
    const std::size_t doubled = area_.capacity < 128 ? 256 : area_.capacity * 2;
    reallocate(needed < doubled ? doubled : needed);
  }

  // realloc(3) grows large blocks by remapping pages instead of copying them.
  void reallocate(std::size_t capacity) {
    static_assert(alignof(std::max_align_t) >= alignment, "malloc must align to 16 bytes");
    void* moved = std::realloc(area_.data, capacity);
    if (moved == nullptr) throw std::bad_alloc();
    area_.data = static_cast<std::byte*>(moved);
    area_.capacity = capacity;
  }

  byte_area area_;
};

}  // namespace procpool::detail
