// SPDX-License-Identifier: MIT
/// @file
/// Which sanitizer the program is compiled with. gcc defines a macro, clang has a feature test.
#pragma once

#if defined(__SANITIZE_ADDRESS__)
#define PROCPOOL_ADDRESS_SANITIZER 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define PROCPOOL_ADDRESS_SANITIZER 1
#endif
#endif
#ifndef PROCPOOL_ADDRESS_SANITIZER
#define PROCPOOL_ADDRESS_SANITIZER 0
#endif

#if defined(__SANITIZE_THREAD__)
#define PROCPOOL_THREAD_SANITIZER 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define PROCPOOL_THREAD_SANITIZER 1
#endif
#endif
#ifndef PROCPOOL_THREAD_SANITIZER
#define PROCPOOL_THREAD_SANITIZER 0
#endif

namespace procpool::detail {

inline constexpr bool address_sanitizer = PROCPOOL_ADDRESS_SANITIZER != 0;
inline constexpr bool thread_sanitizer = PROCPOOL_THREAD_SANITIZER != 0;

}  // namespace procpool::detail
