// SPDX-License-Identifier: MIT
/// @file
/// The outbound region (layout.hpp): made and written by the parent, mapped read-only by workers.
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

#include <procpool/detail/os/memory.hpp>
#include <procpool/detail/ring/arena.hpp>
#include <procpool/detail/ring/layout.hpp>
#include <procpool/error.hpp>

namespace procpool::detail {

/// Sizes from which both sides compute where everything lies. Sent to spawned workers as it is.
struct region_sizes {
  std::uint64_t workers;
  std::uint64_t ring_bytes;   ///< of each ring, in both directions; a power of two
  std::uint64_t arena_bytes;  ///< a multiple of the page size

  static constexpr std::uint64_t page = 4096;
  static constexpr std::uint64_t least_ring = std::uint64_t{4} << 10;
  static constexpr std::uint64_t least_arena = std::uint64_t{64} << 10;

  /// Places for a pool of so many workers, with room to grow if rings are not too large. Memory is
  /// taken as it is used.
  [[nodiscard]] static constexpr std::uint64_t places(std::uint64_t workers,
                                                      std::uint64_t ring_bytes) {
    constexpr std::uint64_t most = 256;
    constexpr std::uint64_t spare_bytes = std::uint64_t{64} << 20;
    return std::max(workers, std::min(most, spare_bytes / ring_bytes));
  }

  /// The same for a pool that is to begin with so many workers and must not take more than @p most
  /// bytes of address space, if that can be: the arena is cut first, then spare places, then rings.
  [[nodiscard]] constexpr region_sizes within(std::uint64_t most, std::uint64_t begin_with) const {
    region_sizes less = *this;
    while (less.outbound_bytes() + begin_with * less.inbound_bytes() > most) {
      const std::uint64_t spare = less.workers - begin_with;
      if (less.arena_bytes > std::max(least_arena, spare * less.ring_bytes)) {
        less.arena_bytes = half_arena(less.arena_bytes);
      } else if (spare > 0) {
        less.workers = begin_with + spare / 2;
      } else if (less.ring_bytes > least_ring) {
        less.ring_bytes /= 2;
      } else {
        break;
      }
    }
    return less;
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

/// Whom a region is for: workers in other processes, or threads of this one.
enum class memory_kind { shared, own };

/// The file that is mapped by both sides; none when they share their address space.
inline os::fd file_for(memory_kind kind, const char* name, std::uint64_t size) {
  return kind == memory_kind::shared ? os::sealed_memory(name, size) : os::fd();
}
inline os::mapping map(const os::fd& file, std::uint64_t size, int protection) {
  return file ? os::mapping(file, size, protection) : os::mapping(size);
}

/// The parent's view of the region. Memory is committed page by page as it is used.
class outbound_region {
 public:
  /// With a smaller arena, see sizes(), when there is not room enough for that.
  /// @throws ProcessError when memory, address space or descriptors are not to be had.
  explicit outbound_region(const region_sizes& sizes, memory_kind kind = memory_kind::shared)
      : outbound_region(reserve(sizes, kind), kind) {}

  [[nodiscard]] const region_sizes& sizes() const noexcept { return sizes_; }
  [[nodiscard]] memory_kind kind() const noexcept { return kind_; }
  [[nodiscard]] int file() const noexcept { return file_.get(); }
  [[nodiscard]] arena& blocks() noexcept { return arena_; }

  [[nodiscard]] outbound_header& header() const noexcept {
    return *std::launder(reinterpret_cast<outbound_header*>(mapping_.data()));
  }
  /// Fresh control words for a new worker in this place.
  [[nodiscard]] task_control& new_control(std::size_t worker) const noexcept {
    return *new (mapping_.data() + sizes_.control_at(worker)) task_control{};
  }
  [[nodiscard]] std::span<std::byte> ring(std::size_t worker) const noexcept {
    return {mapping_.data() + sizes_.ring_at(worker), sizes_.ring_bytes};
  }

  [[nodiscard]] std::span<std::byte> arena_memory() const noexcept {
    return {mapping_.data() + sizes_.arena_at(), sizes_.arena_bytes};
  }

  void close_file() noexcept { file_.reset(); }
  void abandon() noexcept {
    file_.reset();
    mapping_.abandon();
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
        // What the limits of a process, or of the system (overcommit), answer to the size.
        const bool size = error.code() == std::errc::not_enough_memory ||
                          error.code() == std::errc::file_too_large;
        if (!size || sizes.arena_bytes <= region_sizes::least_arena) throw;
        sizes.arena_bytes = region_sizes::half_arena(sizes.arena_bytes);
      }
    }
  }

  outbound_region(reservation got, memory_kind kind)
      : sizes_(got.sizes),
        kind_(kind),
        file_(std::move(got.file)),
        mapping_(std::move(got.memory)),
        arena_(std::span(mapping_.data() + sizes_.arena_at(), sizes_.arena_bytes)) {
    // After our own mapping, before anybody else has the file.
    if (file_) os::seal_against_writing(file_);
    new (mapping_.data()) outbound_header{};
  }

  region_sizes sizes_;
  memory_kind kind_;
  os::fd file_;  ///< none for threads
  os::mapping mapping_;
  arena arena_;
};

/// One worker's inbound region, as the parent sees it: for reading only, if the worker is a
/// process.
class inbound_region {
 public:
  /// @throws ProcessError when memory, address space or descriptors are not to be had.
  explicit inbound_region(const region_sizes& sizes, memory_kind kind = memory_kind::shared)
      : ring_bytes_(sizes.ring_bytes),
        file_(file_for(kind, "procpool results", sizes.inbound_bytes())),
        mapping_(map(file_, sizes.inbound_bytes(), PROT_READ | (file_ ? 0 : PROT_WRITE))) {}

  [[nodiscard]] int file() const noexcept { return file_.get(); }
  [[nodiscard]] const result_control& control() const noexcept {
    return *reinterpret_cast<const result_control*>(mapping_.data());  // zero-filled is its start
  }
  [[nodiscard]] std::span<const std::byte> ring() const noexcept {
    return {mapping_.data() + region_sizes::results_at(), ring_bytes_};
  }
  [[nodiscard]] const crash_note& crash() const noexcept {
    return *reinterpret_cast<const crash_note*>(mapping_.data() + region_sizes::crash_at());
  }

  /// For a thread, which works on this very mapping.
  [[nodiscard]] std::byte* memory() const noexcept { return mapping_.data(); }

  /// The worker has its copy of the descriptor now.
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
