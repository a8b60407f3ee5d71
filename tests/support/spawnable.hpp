// SPDX-License-Identifier: MIT
#pragma once

namespace support {

/// Called first in main of test programs that spawn processes. Null in programs that are not linked
/// with it.
[[gnu::weak]] void begin_spawnable(int argc, char** argv);

}  // namespace support
