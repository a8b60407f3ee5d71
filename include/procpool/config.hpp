// SPDX-License-Identifier: MIT
// Level 0: vocabulary.
/// @file
/// Every macro of the library. Each may be defined before the first include to override it.
#pragma once

#if !defined(__linux__) || !defined(__LP64__)
#error "procpool supports Linux on 64 bits only"
#endif

/// Every system call of the library is made through this hook, so that a test can make any of them
/// fail: `#define PROCPOOL_SYSTEM(call) (should_fail(#call) ? (decltype(::call))-1 : ::call)`.
#ifndef PROCPOOL_SYSTEM
#define PROCPOOL_SYSTEM(call) ::call
#endif

/// Before the definition of a function that is no template, where it can be left out: by default
/// the library is all headers; with PROCPOOL_COMPILED, which the CMake target procpool::compiled
/// defines, the program sees declarations only and the definitions come from a static library,
/// compiled once (detail/compiled.hpp, where this is empty). That makes no difference but for the
/// time that compiling takes.
#ifndef PROCPOOL_FUNCTION
#define PROCPOOL_FUNCTION inline
#endif
