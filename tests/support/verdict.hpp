// SPDX-License-Identifier: MIT
/// @file
/// What the listener found, for main.
#pragma once

namespace support {

/// How many test cases have left something behind.
[[nodiscard]] int leaking_tests() noexcept;

}  // namespace support
