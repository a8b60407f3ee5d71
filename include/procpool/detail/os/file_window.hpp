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
  file_window(std::byte* first_page, std::uint64_t offset, std::uint64_t size) noexcept
      : bytes_(map_from(first_page, offset, size)) {
    if (bytes_.empty()) bytes_ = map_in_steps(first_page, offset, size);
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
  // Maps @p size bytes that begin @p offset bytes after the mapped page at @p page. For a moment
  // this needs address space for what is in between, too.
  static std::span<std::byte> map_from(std::byte* page, std::uint64_t offset,
                                       std::uint64_t size) noexcept {
    void* at = PROCPOOL_SYSTEM(mremap(page, std::size_t{0}, offset + size, MREMAP_MAYMOVE));
    if (at == MAP_FAILED) return {};
    // A failure leaves address space in use, and nothing else.
    if (offset != 0) PROCPOOL_SYSTEM(munmap(at, offset));
    return {static_cast<std::byte*>(at) + offset, size};
  }

  // The same where address space is short (RLIMIT_AS): each step maps one block on the way.
  static std::span<std::byte> map_in_steps(std::byte* page, std::uint64_t offset,
                                           std::uint64_t size) noexcept {
    constexpr std::uint64_t step = std::uint64_t{64} << 20;
    constexpr std::uint64_t block = std::uint64_t{64} << 10;  // a multiple of the page size
    file_window between;
    while (offset > step) {
      file_window next;
      next.bytes_ = map_from(page, step, block);
      if (next.bytes_.empty()) return {};
      between = std::move(next);
      page = between.bytes_.data();
      offset -= step;
    }
    return map_from(page, offset, size);
  }

  std::span<std::byte> bytes_;
};

}  // namespace procpool::detail::os
