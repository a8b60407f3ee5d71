// SPDX-License-Identifier: MIT
/// @file
/// The interface for waiting for descriptors and results at once; the implementation is in
/// mixed_wait.hpp.
#pragma once

#include <span>
#include <vector>

#include <procpool/detail/os/time.hpp>
#include <procpool/detail/result/job.hpp>
#include <procpool/detail/task/intrusive_ptr.hpp>

namespace procpool::detail {

/// A descriptor or a job.
struct waited_item {
  int number = -1;
  intrusive_ptr<job> what = nullptr;

  friend bool operator==(const waited_item&, const waited_item&) noexcept = default;
};

/// Waits until at least one is ready. @param ready set for each, when the result is true
/// @throws ProcessError; as driver::watch()
[[nodiscard]] bool wait_for_items(std::span<const waited_item> items, std::vector<bool>& ready,
                                  const os::deadline& until);

}  // namespace procpool::detail
