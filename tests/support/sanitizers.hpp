// SPDX-License-Identifier: MIT
/// @file
/// Which sanitizer a test is compiled with. gcc defines a macro, clang has a feature test.
#pragma once

#ifndef __has_feature
#define __has_feature(feature) 0
#endif

namespace support {

#if defined(__SANITIZE_ADDRESS__) || __has_feature(address_sanitizer)
inline constexpr bool address_sanitizer = true;
#else
inline constexpr bool address_sanitizer = false;
#endif

#if defined(__SANITIZE_THREAD__) || __has_feature(thread_sanitizer)
inline constexpr bool thread_sanitizer = true;
#else
inline constexpr bool thread_sanitizer = false;
#endif

}  // namespace support
