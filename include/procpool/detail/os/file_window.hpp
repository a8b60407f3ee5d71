// SPDX-License-Identifier: MIT
/// @file
/// A part of a large sparse file in memory, mapped while it is needed and without a descriptor: by
/// mremap(2) of the file's first page, which is always mapped. With an old size of 0 that call maps
/// the same file once more, with the same rights.
#pragma once

#include <sys/mman.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>

#include <procpool/config.hpp>

namespace procpool::detail::os {

/// Unmapped by the destructor.
class file_window {
 public:
  file_window() noexcept = default;
  /// Maps @p size bytes at @p offset, a multiple of the page size; empty when the address space or
  /// the system does not allow it. @param first_page of the file, mapped
  file_window(std::byte* first_page, std::uint64_t offset, std::uint64_t size) noexcept {
    void* at = PROCPOOL_SYSTEM(mremap(first_page, std::size_t{0}, offset + size, MREMAP_MAYMOVE));
    if (at == MAP_FAILED) return;
    // A failure leaves address space in use, and nothing else.
    if (offset != 0) PROCPOOL_SYSTEM(munmap(at, offset));
    bytes_ = {static_cast<std::byte*>(at) + offset, size};
  }
  file_window(file_window&& other) noexcept : bytes_(std::exchange(other.bytes_, {})) {}
  file_window& operator=(file_window&& other) noexcept {
    if (this != &other) {
      reset();
      bytes_ = std::exchange(other.bytes_, {});
    }
    return *this;
  }
  ~file_window() { reset(); }

  [[nodiscard]] std::span<std::byte> bytes() const noexcept { return bytes_; }

  void reset() noexcept {
    const auto bytes = std::exchange(bytes_, {});
    if (!bytes.empty()) PROCPOOL_SYSTEM(munmap(bytes.data(), bytes.size()));
  }
  /// Gives the pages of the file back to the system. The window stays, and is full of zeros.
  void discard_pages() const noexcept {
    if (!bytes_.empty()) PROCPOOL_SYSTEM(madvise(bytes_.data(), bytes_.size(), MADV_REMOVE));
  }
  /// In a forked child, which has not inherited it.
  void abandon() noexcept { bytes_ = {}; }

 private:
  std::span<std::byte> bytes_;
};

}  // namespace procpool::detail::os
