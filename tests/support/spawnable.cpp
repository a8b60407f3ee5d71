// SPDX-License-Identifier: MIT
#include "spawnable.hpp"

#include <cstdlib>
#include <string_view>

#include <procpool/freeze_support.hpp>
#include <procpool/start_method.hpp>

namespace support {

void begin_spawnable(int argc, char** argv) {
  procpool::freeze_support(argc, argv);
  // PROCPOOL_BACKEND affects only pools; this does the same for Process.
  const char* backend = std::getenv("PROCPOOL_BACKEND");
  if (backend == nullptr || std::string_view(backend) != "spawn") return;
  procpool::set_start_method(procpool::start_method::spawn);
}

}  // namespace support
