// SPDX-License-Identifier: MIT
// Arguments that are larger than the arena have pages of their own.
#include <sys/stat.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <numeric>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <catch2/catch_test_macros.hpp>

#include <procpool/detail/ring/large_blocks.hpp>
#include <procpool/procpool.hpp>

namespace {

using procpool::detail::large_blocks;
constexpr std::size_t mib = std::size_t{1} << 20;
constexpr std::size_t least_arena = std::size_t{64} << 10;

long sum(const std::vector<long>& values) {
  return std::accumulate(values.begin(), values.end(), 0L);
}
std::size_t length(std::string_view text) {
  return text.size() + (text.back() == 'z' ? 0 : 1'000'000'000);
}
int first_byte(std::string text) {
  return text.front();
}
long sum_or_die(const std::vector<long>& values) {
  if (procpool::current_worker().attempt() == 1) std::abort();
  return sum(values);
}

std::vector<long> numbers(std::size_t bytes) {
  std::vector<long> made(bytes / sizeof(long));
  std::iota(made.begin(), made.end(), 1L);
  return made;
}

// Bytes of memory behind the file, which a pool closes.
std::uint64_t allocated(int file) {
  struct stat info {};
  REQUIRE(fstat(file, &info) == 0);
  return static_cast<std::uint64_t>(info.st_blocks) * 512;
}

}  // namespace

TEST_CASE("large blocks: small ones, and too many, are refused", "[large]") {
  auto blocks = large_blocks::make();
  REQUIRE(blocks.file() != -1);
  CHECK(blocks.allocate(mib - 1).empty());
  CHECK(blocks.allocate(~std::size_t{0}).empty());
  CHECK(large_blocks().allocate(4 * mib).empty());
  std::size_t made = 0;
  while (!blocks.allocate(mib).empty()) ++made;
  CHECK(made == 1024);
  CHECK(blocks.count() == 1024);
}

TEST_CASE("large blocks: do not overlap, have zeros, and gaps are used again", "[large]") {
  auto blocks = large_blocks::make();
  const auto first = blocks.allocate(2 * mib + 1);
  const auto second = blocks.allocate(3 * mib);
  const auto third = blocks.allocate(mib);
  REQUIRE(first.size() == 2 * mib + 1);
  CHECK(blocks.offset(first) == 4096U);
  CHECK(blocks.offset(second) == 4096U + 2 * mib + 4096);
  CHECK(blocks.offset(third) == *blocks.offset(second) + 3 * mib);
  std::memset(second.data(), 1, second.size());
  std::memset(third.data(), 2, third.size());
  CHECK(allocated(blocks.file()) == 4 * mib);
  const auto place = blocks.offset(second);
  CHECK(blocks.release(second));
  CHECK(allocated(blocks.file()) == mib);  // the system has its pages back
  const auto again = blocks.allocate(3 * mib - 5);
  CHECK(blocks.offset(again) == place);
  CHECK(again.front() == std::byte{0});
  CHECK(third.front() == std::byte{2});
  std::byte elsewhere{};
  CHECK_FALSE(blocks.release({&elsewhere, 1}));
  CHECK_FALSE(blocks.offset({&elsewhere, 1}).has_value());
}

TEST_CASE("arguments larger than the arena arrive", "[large]") {
  for (const auto method : procpool::get_all_start_methods()) {
    procpool::Pool pool({.processes = 2, .start_method = method, .arena_bytes = least_arena});
    const auto values = numbers(9 * mib);
    CHECK(pool.apply(sum, std::cref(values)) == sum(values));
    std::string text(3 * mib, 'a');
    text.back() = 'z';
    CHECK(pool.apply(length, text) == text.size());  // read in place
    const std::vector<std::string> texts(5, text);
    for (const std::size_t size : pool.map(length, texts)) CHECK(size == text.size());
    std::vector<procpool::AsyncResult<long>> results;
    for (int i = 0; i < 6; ++i) results.push_back(pool.apply_async(sum, std::cref(values)));
    for (auto& each : results) CHECK(each.get() == sum(values));
  }
}

TEST_CASE("an argument larger than the arena is there for a retry", "[large]") {
  procpool::Pool pool({.processes = 1, .arena_bytes = least_arena});
  const auto values = numbers(2 * mib);
  CHECK(pool.apply({.retries = 1}, sum_or_die, std::cref(values)) == sum(values));
  CHECK_THROWS_AS(pool.apply(sum_or_die, std::cref(values)), procpool::WorkerDied);
  CHECK(pool.apply(first_byte, std::string(2 * mib, 'x')) == 'x');
}

TEST_CASE("a cancelled argument larger than the arena gives its pages back", "[large]") {
  procpool::Pool pool({.processes = 1, .arena_bytes = least_arena});
  for (int i = 0; i < 2'000; ++i) {  // more than there can be at a time
    auto result = pool.apply_async(first_byte, std::string(mib, 'x'));
    if (!result.cancel()) CHECK(result.get() == 'x');
  }
  CHECK(pool.apply(first_byte, std::string(mib, 'y')) == 'y');
}
