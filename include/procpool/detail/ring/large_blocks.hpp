// SPDX-License-Identifier: MIT
/// @file
/// Room for bodies that are too large for the arena: each has pages of its own in a sparse file,
/// which both sides map only while the task is there. The program writes, workers map it read-only.
/// Without it such a body is copied twice more, piece by piece through the ring.
///
/// The pages go back to the system with the block. That is why this is a file of its own: in a file
/// that is sealed against writing (regions.hpp) no page can be freed. The fork server gets a
/// read-only descriptor, maps the first page and closes it, so workers have no descriptor at all.
/// A worker that still reads a block after its last result reads zeros, as it would read the next
/// task in the arena.
#pragma once

#include <fcntl.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <new>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <procpool/config.hpp>
#include <procpool/detail/os/fd.hpp>
#include <procpool/detail/os/file_window.hpp>
#include <procpool/detail/os/memory.hpp>
#include <procpool/detail/os/stdio.hpp>
#include <procpool/detail/os/syscall.hpp>
#include <procpool/error.hpp>

namespace procpool::detail {

/// Not thread-safe: used under the lock of its pool.
class large_blocks {
 public:
  /// Blocks begin and end at multiples of this: the largest page size of Linux (arm64, ppc64). The
  /// first page belongs to no block.
  static constexpr std::uint64_t page = std::uint64_t{64} << 10;

  /// None for a pool that cannot have them: /proc is not mounted, or files may not be so large.
  large_blocks() noexcept = default;
  [[nodiscard]] static large_blocks make() noexcept {
    large_blocks made;
    try {
      const os::fd file = os::sealed_memory("procpool large tasks", file_bytes);
      const std::string again = "/proc/self/fd/" + std::to_string(file.get());
      made.read_only_ = os::off_stdio(os::fd(
          os::retry([&] { return PROCPOOL_SYSTEM(open(again.c_str(), O_RDONLY | O_CLOEXEC)); })));
      if (!made.read_only_) return {};
      made.first_page_ = os::mapping(file, page, PROT_READ | PROT_WRITE);
      made.blocks_.reserve(max_blocks);
      return made;
    } catch (const ProcessError&) {
    } catch (const std::bad_alloc&) {
    }
    return {};
  }

  /// The descriptor for the fork server; -1: none.
  [[nodiscard]] int file() const noexcept { return read_only_.get(); }
  void close_file() noexcept { read_only_.reset(); }

  /// A block for a body of @p size bytes. Empty: it is too small to be worth it, there are too
  /// many, or there is no address space.
  [[nodiscard]] std::span<std::byte> allocate(std::size_t size) noexcept {
    if (first_page_.data() == nullptr || size < min_size || size > file_bytes / 2 ||
        blocks_.size() == max_blocks) {
      return {};
    }
    const std::uint64_t pages = (size + page - 1) / page * page;
    std::uint64_t offset = page;
    auto before = blocks_.begin();  // the blocks are sorted by offset
    while (before != blocks_.end() && before->offset - offset < pages) {
      offset = before->offset + before->window.bytes().size();
      ++before;
    }
    if (offset + pages > file_bytes) return {};
    os::file_window window(first_page_.data(), offset, pages);
    if (window.bytes().empty()) return {};
    const auto bytes = window.bytes().first(size);
    blocks_.insert(before, block{offset, std::move(window)});  // has room
    return bytes;
  }

  /// Whether @p bytes are a block of these, which is freed then.
  bool release(std::span<const std::byte> bytes) noexcept {
    const auto found = find(bytes);
    if (found == blocks_.end()) return false;
    if (!keeps_pages_) found->window.discard_pages();
    blocks_.erase(found);
    return true;
  }
  /// Where a block lies in the file; nullopt: it is none of these.
  [[nodiscard]] std::optional<std::uint64_t> offset(std::span<const std::byte> bytes) noexcept {
    const auto found = find(bytes);
    if (found == blocks_.end()) return std::nullopt;
    return found->offset;
  }

  /// From now on the pages of freed blocks stay until the file goes: there will be no more blocks,
  /// and workers that have not ended may read these.
  void keep_pages() noexcept { keeps_pages_ = true; }

  /// All workers have ended: the file goes with its last block. There will be no more of them.
  void end() noexcept { first_page_.reset(); }

  [[nodiscard]] std::size_t count() const noexcept { return blocks_.size(); }

  /// In a forked child, which has inherited none of it.
  void abandon() noexcept {
    read_only_.reset();
    first_page_.abandon();
    for (block& each : blocks_) each.window.abandon();
  }

 private:
  struct block {
    std::uint64_t offset;
    os::file_window window;
  };

  [[nodiscard]] std::vector<block>::iterator find(std::span<const std::byte> bytes) noexcept {
    return std::ranges::find_if(
        blocks_, [&](const block& each) { return each.window.bytes().data() == bytes.data(); });
  }

  static constexpr std::uint64_t file_bytes = std::uint64_t{1} << 40;  // no page of it is there
  static constexpr std::size_t min_size = std::size_t{1} << 20;
  static constexpr std::size_t max_blocks = 1024;

  os::fd read_only_;
  os::mapping first_page_;
  std::vector<block> blocks_;
  bool keeps_pages_ = false;
};

}  // namespace procpool::detail
