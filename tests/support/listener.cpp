// SPDX-License-Identifier: MIT
// Reports each test to the watchdog when it starts, and checks for leaks when it ends.
#include <catch2/catch_test_case_info.hpp>
#include <catch2/reporters/catch_reporter_event_listener.hpp>
#include <catch2/reporters/catch_reporter_registrars.hpp>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <string>

#include "leaks.hpp"
#include "verdict.hpp"
#include "watchdog.hpp"

namespace support {

namespace {

int failures = 0;

/// The number in a tag like [limit:300], or the default.
std::chrono::seconds limit_of(const Catch::TestCaseInfo& test) {
  const std::string key = "limit:";
  for (const auto& tag : test.tags) {
    const std::string text(tag.original);
    if (text.starts_with(key)) return std::chrono::seconds(std::atol(text.c_str() + key.size()));
  }
  return default_limit;
}

class test_guard : public Catch::EventListenerBase {
 public:
  using EventListenerBase::EventListenerBase;

  void testCaseStarting(const Catch::TestCaseInfo& test) override {
    watch(test.name, limit_of(test));
    before_ = take_snapshot();
  }

  /// Catch2 allows no assertion here, so the failure is counted for main's exit status.
  void testCaseEnded(const Catch::TestCaseStats& stats) override {
    const auto leaks = leaks_since(before_);
    if (leaks.empty()) return;
    ++failures;
    std::fprintf(stderr, "\nLEFT BEHIND by the test case: %s\n", stats.testInfo->name.c_str());
    for (const auto& leak : leaks) std::fprintf(stderr, "  %s\n", leak.c_str());
    kill_leaked(before_);
  }

  void testRunEnded(const Catch::TestRunStats&) override {
    watch("(end of the program)", default_limit);
  }

 private:
  snapshot before_;
};

CATCH_REGISTER_LISTENER(test_guard)

}  // namespace

int leaking_tests() noexcept {
  return failures;
}

}  // namespace support
