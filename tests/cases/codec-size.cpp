// SPDX-License-Identifier: MIT
// A codec that writes more, or less, each time it encodes the same value, and a body so large that
// it is encoded twice. 0: the call gets what was really encoded, and the next one is not harmed.
#include <fmt/format.h>

#include <chrono>
#include <cstddef>
#include <exception>
#include <string>

#include <procpool/procpool.hpp>

namespace {

struct note {
  std::string text;
};
int encodings = 0;
int growth = 1;

}  // namespace

template <>
struct procpool::codec<note> {
  static void encode(encoder& out, const note& value) {
    const auto more = static_cast<std::size_t>(growth * ++encodings + 10);
    out.put(value.text + std::string(more, '!'));
  }
  static note decode(decoder& in) { return {in.get<std::string>()}; }
};

namespace {

std::size_t length(const note& value) {
  return value.text.size();
}
long square(long x) {
  return x * x;
}

// Whether it ends, in time.
template <class Result>
bool ends(Result& result, const char* what) {
  if (result.wait(std::chrono::seconds(20))) return true;
  fmt::print("{} does not end\n", what);
  return false;
}

bool right(std::size_t size) {
  encodings = 0;
  procpool::Pool pool{{.processes = 1, .arena_bytes = 65536}};
  auto large = pool.apply_async(length, note{std::string(size, 'x')});
  if (!ends(large, "the call") || large.get() < size) return false;
  auto next = pool.apply_async(square, 3L);
  return ends(next, "the call behind it") && next.get() == 9;
}

}  // namespace

int main() {
  try {
    for (growth = 1; growth >= -1; growth -= 2) {
      for (const std::size_t size : {30'000U, 100'000U, 1'000'000U}) {
        if (!right(size)) return 1;
      }
    }
  } catch (const std::exception& error) {
    fmt::print("{}\n", error.what());
    return 1;
  }
  return 0;
}
