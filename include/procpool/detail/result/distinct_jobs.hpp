// SPDX-License-Identifier: MIT
/// @file
/// The jobs behind many results, each once.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace procpool::detail {

class job;

/// Jobs in the order in which they were given, without the repetitions: fewer than 2^32. A hash
/// table, so that it takes the same time for each.
class distinct_jobs {
 public:
  /// Whether it was not there yet.
  bool insert(job& what) {
    if (2 * (jobs_.size() + 1) > slots_.size()) grow();
    std::uint32_t& slot = slot_of(what);
    if (slot != 0) return false;
    jobs_.push_back(&what);
    slot = static_cast<std::uint32_t>(jobs_.size());
    return true;
  }

  void reserve(std::size_t jobs) { jobs_.reserve(jobs); }
  [[nodiscard]] const std::vector<job*>& all() const noexcept { return jobs_; }

 private:
  // Where it is, or the free place where it belongs. Jobs that were made one after the other lie
  // side by side here, too: scattered, each would be a miss in the cache.
  [[nodiscard]] std::uint32_t& slot_of(const job& what) noexcept {
    const std::uintptr_t line = reinterpret_cast<std::uintptr_t>(&what) / 64;
    const std::size_t mask = slots_.size() - 1;
    std::size_t at = (line ^ (line >> 20)) & mask;
    while (slots_[at] != 0 && jobs_[slots_[at] - 1] != &what) at = (at + 1) & mask;
    return slots_[at];
  }

  void grow() {
    std::size_t size = 16;
    while (size < 2 * (jobs_.size() + 1) || size < 2 * jobs_.capacity()) size *= 2;
    slots_.assign(size, 0);
    for (std::uint32_t i = 0; i < jobs_.size(); ++i) slot_of(*jobs_[i]) = i + 1;
  }

  std::vector<job*> jobs_;
  std::vector<std::uint32_t> slots_;  ///< 0, or the number of a job, counted from 1
};

}  // namespace procpool::detail
