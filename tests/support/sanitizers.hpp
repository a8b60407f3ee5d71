// SPDX-License-Identifier: MIT
/// @file
/// Which sanitizer a test is compiled with.
#pragma once

#include <procpool/detail/base/sanitizers.hpp>

namespace support {

using procpool::detail::address_sanitizer;
using procpool::detail::thread_sanitizer;

}  // namespace support
