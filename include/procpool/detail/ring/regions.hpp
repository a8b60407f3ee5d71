// SPDX-License-Identifier: MIT
/// @file
/// The regions of layout.hpp as the parent sees them. It makes both kinds: the outbound region,
/// which only the parent writes, and the inbound regions, each of which only its worker writes.
#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <new>
#include <span>
#include <system_error>
#include <utility>

#include <procpool/config.hpp>
#include <procpool/detail/os/memory.hpp>
#include <procpool/detail/ring/arena.hpp>
#include <procpool/detail/ring/large_blocks.hpp>
#include <procpool/detail/ring/layout.hpp>
#include <procpool/error.hpp>

namespace procpool::detail {

/// Sizes from which both sides compute all offsets. Sent to spawned workers byte for byte.
struct region_sizes {
  std::uint64_t workers;
  std::uint64_t ring_bytes;   ///< of each ring, in both directions; a power of two
  std::uint64_t arena_bytes;  ///< a multiple of the page size

  static constexpr std::uint64_t page = 4096;
  static constexpr std::uint64_t least_ring = std::uint64_t{4} << 10;
  static constexpr std::uint64_t least_arena = std::uint64_t{64} << 10;

  /// Number of worker slots for a pool of @p workers, with room to grow unless rings are large. An
  /// unused slot takes no memory, only address space.
  [[nodiscard]] static constexpr std::uint64_t places(std::uint64_t workers,
                                                      std::uint64_t ring_bytes) {
    constexpr std::uint64_t max_places = 256;
    constexpr std::uint64_t spare_bytes = std::uint64_t{64} << 20;
    return std::max(workers, std::min(max_places, spare_bytes / ring_bytes));
  }

  /// These sizes, cut to at most @p max_bytes of address space if possible, for a pool that starts
  /// with @p initial workers. The arena is cut first, then spare slots, then rings.
  [[nodiscard]] constexpr region_sizes within(std::uint64_t max_bytes,
                                              std::uint64_t initial) const {
    region_sizes cut = *this;
    while (cut.outbound_bytes() + initial * cut.inbound_bytes() > max_bytes) {
      const std::uint64_t spare = cut.workers - initial;
      if (cut.arena_bytes > std::max(least_arena, spare * cut.ring_bytes)) {
        cut.arena_bytes = half_arena(cut.arena_bytes);
      } else if (spare > 0) {
        cut.workers = initial + spare / 2;
      } else if (cut.ring_bytes > least_ring) {
        cut.ring_bytes /= 2;
      } else {
        break;
      }
    }
    return cut;
  }
  [[nodiscard]] static constexpr std::uint64_t half_arena(std::uint64_t bytes) {
    return std::max(least_arena, bytes / 2 / page * page);
  }

  [[nodiscard]] constexpr std::uint64_t control_at(std::uint64_t worker) const {
    return sizeof(outbound_header) + worker * sizeof(task_control);
  }
  [[nodiscard]] constexpr std::uint64_t ring_at(std::uint64_t worker) const {
    return round_up(control_at(workers), page) + worker * ring_bytes;
  }
  [[nodiscard]] constexpr std::uint64_t arena_at() const { return ring_at(workers); }
  [[nodiscard]] constexpr std::uint64_t outbound_bytes() const { return arena_at() + arena_bytes; }
  [[nodiscard]] static constexpr std::uint64_t crash_at() { return sizeof(result_control); }
  [[nodiscard]] static constexpr std::uint64_t results_at() {
    return crash_at() + sizeof(crash_note);
  }
  [[nodiscard]] constexpr std::uint64_t inbound_bytes() const {
    return round_up(results_at() + ring_bytes, page);
  }
};

/// Who uses a region: workers in other processes, or threads of this process.
enum class memory_kind { shared, own };

/// The file that both sides map; none when they share an address space.
inline os::fd file_for(memory_kind kind, const char* name, std::uint64_t size) {
  return kind == memory_kind::shared ? os::sealed_memory(name, size) : os::fd();
}
inline os::mapping map(const os::fd& file, std::uint64_t size, int protection) {
  return file ? os::mapping(file, size, protection) : os::mapping(size);
}

/// The parent's view of the region. Memory is committed page by page as it is used.
class outbound_region {
 public:
  /// Takes a smaller arena if there is not enough room; sizes() has the actual sizes.
  /// @throws ProcessError when memory, address space or descriptors run out.
  explicit outbound_region(const region_sizes& sizes, memory_kind kind = memory_kind::shared)
      : outbound_region(reserve(sizes, kind), kind) {}

  [[nodiscard]] const region_sizes& sizes() const noexcept { return sizes_; }
  [[nodiscard]] memory_kind kind() const noexcept { return kind_; }
  [[nodiscard]] int file() const noexcept { return file_.get(); }

  // Blocks for bodies: of the arena, or, for one that does not fit there, of its own pages.
  [[nodiscard]] arena& blocks() noexcept { return arena_; }
  [[nodiscard]] large_blocks& large() noexcept { return large_; }
  void release(std::span<std::byte> block) noexcept {
    if (!large_.release(block)) arena_.release(block);
  }
  /// Gives the memory behind a large block, which its owner does not use any more, back to the
  /// system before the block is released. Needs no lock.
  void discard_pages(std::span<std::byte> block) const noexcept {
    const std::span<const std::byte> arena = arena_.memory();
    if (block.data() >= arena.data() && block.data() < arena.data() + arena.size()) return;
    const std::size_t size = round_up<std::size_t>(block.size(), large_blocks::page);
    PROCPOOL_SYSTEM(madvise(block.data(), size, MADV_REMOVE));
  }
  /// From the begin of the arena, or of the file of large blocks.
  [[nodiscard]] std::uint64_t offset(std::span<const std::byte> block) noexcept {
    const auto in_file = large_.offset(block);
    return in_file ? *in_file : arena_.offset(block);
  }

  [[nodiscard]] outbound_header& header() const noexcept {
    return *std::launder(reinterpret_cast<outbound_header*>(mapping_.data()));
  }
  /// Fresh control words for a new worker in this slot.
  [[nodiscard]] task_control& new_control(std::size_t worker) const noexcept {
    return *new (mapping_.data() + sizes_.control_at(worker)) task_control{};
  }
  [[nodiscard]] std::span<std::byte> ring(std::size_t worker) const noexcept {
    return {mapping_.data() + sizes_.ring_at(worker), sizes_.ring_bytes};
  }

  [[nodiscard]] std::span<std::byte> arena_memory() const noexcept {
    return {mapping_.data() + sizes_.arena_at(), sizes_.arena_bytes};
  }

  void close_file() noexcept {
    file_.reset();
    large_.close_file();
  }
  void abandon() noexcept {
    file_.reset();
    mapping_.abandon();
    large_.abandon();
  }

 private:
  struct reservation {
    region_sizes sizes;
    os::fd file;
    os::mapping memory;
  };

  static reservation reserve(region_sizes sizes, memory_kind kind) {
    while (true) {
      try {
        os::fd file = file_for(kind, "procpool tasks", sizes.outbound_bytes());
        os::mapping memory = map(file, sizes.outbound_bytes(), PROT_READ | PROT_WRITE);
        return {sizes, std::move(file), std::move(memory)};
      } catch (const ProcessError& error) {
        // The errors of a size above the limits of this process or of the system (overcommit).
        const bool too_large = error.code() == std::errc::not_enough_memory ||
                               error.code() == std::errc::file_too_large;
        if (!too_large || sizes.arena_bytes <= region_sizes::least_arena) throw;
        sizes.arena_bytes = region_sizes::half_arena(sizes.arena_bytes);
      }
    }
  }

  outbound_region(reservation reserved, memory_kind kind)
      : sizes_(reserved.sizes),
        kind_(kind),
        file_(std::move(reserved.file)),
        mapping_(std::move(reserved.memory)),
        arena_(std::span(mapping_.data() + sizes_.arena_at(), sizes_.arena_bytes)) {
    // After this process has mapped the file for writing, before another process has the file.
    if (file_) os::seal_against_writing(file_);
    new (mapping_.data()) outbound_header{};
    if (kind == memory_kind::shared) large_ = large_blocks::make();
  }

  region_sizes sizes_;
  memory_kind kind_;
  os::fd file_;  ///< none for threads
  os::mapping mapping_;
  arena arena_;
  large_blocks large_;
};

/// One worker's inbound region as the parent sees it: read-only if the worker is a process.
class inbound_region {
 public:
  /// @throws ProcessError when memory, address space or descriptors run out.
  explicit inbound_region(const region_sizes& sizes, memory_kind kind = memory_kind::shared)
      : ring_bytes_(sizes.ring_bytes),
        file_(file_for(kind, "procpool results", sizes.inbound_bytes())),
        mapping_(map(file_, sizes.inbound_bytes(), PROT_READ | (file_ ? 0 : PROT_WRITE))) {}

  [[nodiscard]] int file() const noexcept { return file_.get(); }
  [[nodiscard]] const result_control& control() const noexcept {
    return *reinterpret_cast<const result_control*>(mapping_.data());  // starts as zeros
  }
  [[nodiscard]] std::span<const std::byte> ring() const noexcept {
    return {mapping_.data() + region_sizes::results_at(), ring_bytes_};
  }
  [[nodiscard]] const crash_note& crash() const noexcept {
    return *reinterpret_cast<const crash_note*>(mapping_.data() + region_sizes::crash_at());
  }

  /// For a worker that is a thread: it uses this same mapping.
  [[nodiscard]] std::byte* memory() const noexcept { return mapping_.data(); }

  /// Call it when the worker has its own copy of the descriptor.
  void close_file() noexcept { file_.reset(); }
  void abandon() noexcept {
    file_.reset();
    mapping_.abandon();
  }

 private:
  std::size_t ring_bytes_;
  os::fd file_;
  os::mapping mapping_;
};

}  // namespace procpool::detail
