// SPDX-License-Identifier: MIT
/// @file
/// Every macro of the library. Each may be defined before the first include to override it.
#pragma once

// Each public header includes this one first, so that these errors come before those of the
// standard library. A header that does not exist ends the compilation: nothing hides them either.
#if !defined(__cplusplus)
#error "procpool is a C++ library: compile this file as C++20"
#include <see-the-error-above>
#elif !defined(__linux__) || !defined(__LP64__)
#error "procpool supports Linux on 64 bits only"
#include <see-the-error-above>
#elif (defined(__clang__) && __clang_major__ < 14) || (!defined(__clang__) && __GNUC__ < 11)
#error "procpool needs g++ 11 or clang 14, or a later one"
#include <see-the-error-above>
#elif __cplusplus < 202002L
#error "procpool needs C++20: compile with -std=c++20, in CMake with cxx_std_20"
#include <see-the-error-above>
#elif !defined(__cpp_exceptions)
#error "procpool needs exceptions: compile without -fno-exceptions"
#include <see-the-error-above>
#elif !defined(__cpp_rtti)
#error "procpool needs run-time type information: compile without -fno-rtti"
#include <see-the-error-above>
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
