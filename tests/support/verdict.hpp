// SPDX-License-Identifier: MIT
/// @file
/// The result of the leak guard, for main.
#pragma once

namespace support {

/// The number of test cases with leaks.
[[nodiscard]] int leaking_tests() noexcept;

}  // namespace support
