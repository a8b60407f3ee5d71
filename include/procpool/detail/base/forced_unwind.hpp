// SPDX-License-Identifier: MIT
/// @file
/// pthread_exit in user's code: glibc unwinds the stack with something that handlers may catch, but
/// must throw on, or the program is aborted.
#pragma once

#include <cxxabi.h>

#include <version>

namespace procpool::detail {

/// To be called first in a handler for everything: throws on what pthread_exit unwinds with. Not
/// checked for null references, because libstdc++ has no object behind it.
__attribute__((no_sanitize("null"))) inline void pass_on_thread_exit() {
#if !defined(_LIBCPP_VERSION)  // libc++ has no name for it
  try {
    throw;
  } catch (const abi::__forced_unwind&) {
    throw;
  } catch (...) {  // an exception
  }
#endif
}

}  // namespace procpool::detail
