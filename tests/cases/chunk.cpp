// SPDX-License-Identifier: MIT
// One bad item in a chunk, in three ways: its exception cannot be encoded, its number is none of
// its enum, its decoder refuses what it has read. 0: that item fails alone. 1: others with it.
#include <fmt/format.h>

#include <cstddef>
#include <stdexcept>
#include <vector>

#include <procpool/procpool.hpp>

namespace {

struct sick : std::runtime_error {
  using std::runtime_error::runtime_error;
};
enum class color : int { red, green, blue };
constexpr bool is_color(color c) {
  return c <= color::blue;
}
struct degrees {
  double value;
};

}  // namespace

template <>
struct procpool::codec<sick> {
  static void encode(encoder& /*out*/, const sick& /*value*/) { throw std::range_error("sick"); }
  static sick decode(decoder& /*in*/) { return sick(""); }
};
template <>
struct procpool::codec<color> : procpool::checked_enum<color, is_color> {};
template <>
struct procpool::codec<degrees> {
  static void encode(encoder& out, const degrees& value) { out.put(value.value); }
  static degrees decode(decoder& in) {
    const auto value = in.get<double>();
    if (value < -273.15) in.fail("colder than possible");
    return {value};
  }
};

namespace {

int throws_sick(int i) {
  if (i == 3) throw sick("x");
  return i;
}
int number_of(color c) {
  return static_cast<int>(c);
}
double value_of(const degrees& d) {
  return d.value;
}

template <class F, class T>
bool one_fails(F function, const std::vector<T>& items) {
  procpool::Pool pool{1};
  std::size_t failed = 0;
  for (const auto& each : pool.map_outcomes(function, items, {.chunksize = 100})) {
    if (!each) ++failed;
  }
  if (failed != 1) fmt::print("{} of {} items failed\n", failed, items.size());
  return failed == 1;
}

}  // namespace

int main() {
  procpool::register_exception<sick>();
  const bool right = one_fails(throws_sick, std::vector<int>{0, 1, 2, 3, 4, 5, 6, 7}) &&
                     one_fails(number_of, std::vector<color>{color::red, color(9), color::blue}) &&
                     one_fails(value_of, std::vector<degrees>{{1}, {-300}, {4}, {5}, {6}});
  return right ? 0 : 1;
}
