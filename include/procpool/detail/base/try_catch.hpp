// SPDX-License-Identifier: MIT
/// @file
/// A handler for exceptions of the user's, whose destructors may throw.
#pragma once

#include <cstddef>
#include <exception>
#include <new>
#include <utility>

namespace procpool::detail {

/// The exception is never destroyed.
inline void leave_alive(std::exception_ptr what) noexcept {
  alignas(std::exception_ptr) std::byte place[sizeof(std::exception_ptr)];
  ::new (static_cast<void*>(place)) std::exception_ptr(std::move(what));
}

/// Behind a handler, in the handler of a try block around it: @p handled tells whether all was done
/// there, so that this is what the exception's own destructor has thrown. It ends here. For code
/// that cannot afford what try_catch() costs.
inline void end_handler(bool handled) {
  if (!handled) throw;
  leave_alive(std::current_exception());  // who knows what its own destructor does
}

/// Calls @p work; if that throws, @p handler, as in a catch block. An exception that is no
/// std::exception may have a destructor that throws: it would leave the end of the handler, with
/// all done. It ends here.
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
