// SPDX-License-Identifier: MIT
/// @file
/// The distinct jobs behind many results.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace procpool::detail {

class job;

/// Jobs in the order of insertion without duplicates, fewer than 2^32. A hash table: constant time
/// for each.
class distinct_jobs {
 public:
  /// @returns whether the job is new
  bool insert(job& target) {
    if (2 * (jobs_.size() + 1) > slots_.size()) grow();
    std::uint32_t& slot = slot_of(target);
    if (slot != 0) return false;
    jobs_.push_back(&target);
    slot = static_cast<std::uint32_t>(jobs_.size());
    return true;
  }

  void reserve(std::size_t jobs) { jobs_.reserve(jobs); }
  [[nodiscard]] const std::vector<job*>& all() const noexcept { return jobs_; }

 private:
  // The job's slot, or the free slot for it. Jobs made one after another are adjacent here too:
  // scattered, each would be a cache miss.
  [[nodiscard]] std::uint32_t& slot_of(const job& target) noexcept {
    const std::uintptr_t line = reinterpret_cast<std::uintptr_t>(&target) / 64;
    const std::size_t mask = slots_.size() - 1;
    std::size_t index = (line ^ (line >> 20)) & mask;
    while (slots_[index] != 0 && jobs_[slots_[index] - 1] != &target) index = (index + 1) & mask;
    return slots_[index];
  }

  void grow() {
    std::size_t size = 16;
    while (size < 2 * (jobs_.size() + 1) || size < 2 * jobs_.capacity()) size *= 2;
    slots_.assign(size, 0);
    for (std::uint32_t i = 0; i < jobs_.size(); ++i) slot_of(*jobs_[i]) = i + 1;
  }

  std::vector<job*> jobs_;
  std::vector<std::uint32_t> slots_;  ///< 0, or the job's number from 1
};

}  // namespace procpool::detail
