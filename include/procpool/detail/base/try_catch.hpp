// SPDX-License-Identifier: MIT
/// @file
/// Handling exceptions of the user's types, whose destructors may throw.
#pragma once

#include <cstddef>
#include <exception>
#include <new>
#include <utility>

namespace procpool::detail {

/// Leaks @p exception on purpose, so that its destructor never runs.
inline void leave_alive(std::exception_ptr exception) noexcept {
  alignas(std::exception_ptr) std::byte place[sizeof(std::exception_ptr)];
  ::new (static_cast<void*>(place)) std::exception_ptr(std::move(exception));
}

/// Call it in the `catch (...)` of a try block around the real handler. @p handled: the handler
/// completed, so the current exception comes from the first one's destructor and is swallowed.
/// Otherwise rethrows. For code that cannot afford the cost of try_catch().
inline void end_handler(bool handled) {
  if (!handled) throw;
  leave_alive(std::current_exception());  // its destructor may throw, too
}

/// Calls @p work and, if it throws, @p handler inside the catch block. An exception that is not a
/// std::exception may have a throwing destructor, which runs at the end of the handler: that
/// second exception is swallowed.
template <class Work, class Handler>
void try_catch(Work&& work, Handler&& handler) {
  bool handled = false;
  try {
    try {
      work();
    } catch (...) {
      handler();
      handled = true;
    }
  } catch (...) {
    end_handler(handled);
  }
}

}  // namespace procpool::detail
