// SPDX-License-Identifier: MIT
// Errors and outcomes, formatted by fmt.
#include <fmt/format.h>
#include <fmt/std.h>

#include <exception>
#include <stdexcept>
#include <string>

#include <catch2/catch_test_macros.hpp>

#include <procpool/fmt.hpp>
#include <procpool/procpool.hpp>

TEST_CASE("fmt: an error is formatted as its text, also beside fmt/std.h", "[fmt]") {
  CHECK(fmt::format("{}", procpool::TimeoutError("late")) == "late");
  CHECK(fmt::format("{:>6}", procpool::PoolClosed("shut")) == "  shut");
  const procpool::WorkerDied death("a report\nof two lines", {{.pid = 7, .exitcode = -9}});
  CHECK(fmt::format("{}", death) == "a report\nof two lines");
}

TEST_CASE("fmt: an outcome is formatted as its value or as what went wrong", "[fmt]") {
  procpool::Outcome<double> outcome;
  CHECK(fmt::format("{}", outcome) == "[an Outcome without value or exception]");
  outcome.emplace(2.5);
  CHECK(fmt::format("{:.2f}", outcome) == "2.50");
  outcome.fail(std::make_exception_ptr(std::runtime_error("too cold")));
  CHECK(fmt::format("{}", outcome) == "[too cold]");
}
