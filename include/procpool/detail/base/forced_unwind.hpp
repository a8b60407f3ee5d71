// SPDX-License-Identifier: MIT
/// @file
/// pthread_exit(3) in the user's code. glibc unwinds the stack with an exception-like object. A
/// `catch (...)` that does not rethrow this object aborts the program.
#pragma once

#include <cxxabi.h>

#include <version>

namespace procpool::detail {

/// Call it first in a `catch (...)`: rethrows the object that pthread_exit unwinds with. The null
/// sanitizer is off because libstdc++ binds the reference to no object.
__attribute__((no_sanitize("null"))) inline void pass_on_thread_exit() {
#if !defined(_LIBCPP_VERSION)  // libc++ does not declare the type
  try {
    throw;
  } catch (const abi::__forced_unwind&) {
    throw;
  } catch (...) {  // an ordinary exception: the caller handles it
  }
#endif
}

}  // namespace procpool::detail
