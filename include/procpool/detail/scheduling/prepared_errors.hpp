// SPDX-License-Identifier: MIT
/// @file
/// Errors that a pool may have to report when there is no memory: allocated together with the pool.
#pragma once

#include <exception>
#include <string>

#include <procpool/error.hpp>

namespace procpool::detail {

/// Shared by all results that end with them; handing one out allocates nothing.
struct prepared_errors {
  std::exception_ptr cancelled = std::make_exception_ptr(CancelledError("the task was cancelled"));
  std::exception_ptr terminated =
      std::make_exception_ptr(CancelledError("the pool was terminated"));
  /// The reason of a broken pool that ran out of memory, and the same as an exception.
  std::string no_memory_text = "the pool is broken: there was no memory to go on with";
  std::exception_ptr no_memory = std::make_exception_ptr(BrokenPool(no_memory_text));
};

}  // namespace procpool::detail
