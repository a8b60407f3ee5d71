// SPDX-License-Identifier: MIT
//
// Types that can be sent to a worker: functions, lambdas whose captures are plain values, function
// objects and structs with members of any encodable type. No macro, no registration.

#include <fmt/ranges.h>

#include <cstddef>
#include <map>
#include <numeric>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include <procpool/procpool.hpp>

/// A function object: its members are sent with it.
struct Scale {
  std::vector<double> weights;
  double operator()(std::size_t i) const { return 2 * weights[i]; }
};

/// A plain struct as a result.
struct Row {
  std::string name;
  std::optional<int> score;
  std::map<std::string, int> tags;
};

Row parse_row(const std::string& line) {
  const auto colon = line.find(':');
  Row row{.name = line.substr(0, colon), .score = std::nullopt, .tags = {}};
  if (colon != std::string::npos) row.score = std::stoi(line.substr(colon + 1));
  row.tags["length"] = static_cast<int>(line.size());
  return row;
}

int main() {
  procpool::Pool pool{2};

  int factor = 3;
  const auto triple = [factor](int x) { return factor * x; };
  fmt::print("{}\n", pool.map(triple, std::vector<int>{1, 2, 3}));

  const Scale scale{{0.5, 1.5, 2.5}};
  fmt::print("{}\n", pool.map(scale, std::vector<std::size_t>{0, 1, 2}));

  for (const Row& row : pool.map(parse_row, std::vector<std::string>{"anna:7", "otto"})) {
    fmt::print("{} {} {}\n", row.name, row.score ? std::to_string(*row.score) : "none", row.tags);
  }

  // A span or string_view parameter refers to the received bytes; nothing is copied.
  const std::vector<double> large(1'000'000, 0.5);
  const auto sum = [](std::span<const double> v) { return std::reduce(v.begin(), v.end()); };
  fmt::print("{}\n", pool.apply(sum, large));
}
