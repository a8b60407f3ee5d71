// SPDX-License-Identifier: MIT
#pragma once

namespace support {

/// What a test program does first to be started again by start_method::spawn. Null in programs that
/// are not linked with it.
[[gnu::weak]] void begin_spawnable(int argc, char** argv);

}  // namespace support
