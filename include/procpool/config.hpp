// SPDX-License-Identifier: MIT
/// @file
/// The macros of the library. A program may override each by a definition before the first include.
#pragma once

// Each public header includes this one first, so that these errors precede those of the standard
// library. The include of a file that does not exist ends the compilation, so that none follow.
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

/// The hook around every system call of the library, so that a test can make any of them fail:
/// `#define PROCPOOL_SYSTEM(call) (should_fail(#call) ? (decltype(::call))-1 : ::call)`.
#ifndef PROCPOOL_SYSTEM
#define PROCPOOL_SYSTEM(call) ::call
#endif

/// Precedes definitions of non-template functions that can be compiled separately. By default all
/// code is in headers. With PROCPOOL_COMPILED, which the CMake target procpool::compiled defines,
/// the program sees declarations only, and a static library has the definitions, compiled once
/// (impl.hpp, where this macro is empty). The only difference is the compile time.
#ifndef PROCPOOL_FUNCTION
#define PROCPOOL_FUNCTION inline
#endif
