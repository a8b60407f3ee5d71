// SPDX-License-Identifier: MIT
// Arguments that are larger than the arena have pages of their own.
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <functional>
#include <iterator>
#include <numeric>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include <catch2/catch_test_macros.hpp>

#include <procpool/detail/ring/large_blocks.hpp>
#include <procpool/procpool.hpp>

#include "support/child.hpp"
#include "support/shared.hpp"

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

// What the tasks of a broken pool and their test share.
struct last_words {
  support::gate door;
  std::atomic<bool> starts_fail{false};
  std::atomic<int> verdict{0};
};
support::common<last_words*> words;
void fail_or_start() {
  if (words->starts_fail) throw std::runtime_error("this worker does not start");
}
void look_after_all(std::string_view text) {
  words->door.pass();
  words->verdict = text.find_first_not_of('x') == std::string_view::npos ? 1 : 2;
}
void die() {
  std::abort();
}

// Of this process, in KiB.
long shared_memory_in_use() {
  std::ifstream status("/proc/self/status");
  for (std::string word; status >> word;) {
    if (word != "RssShmem:") continue;
    long kib = 0;
    status >> kib;
    return kib;
  }
  return -1;
}

bool maps_large_blocks() {
  std::ifstream maps("/proc/self/maps");
  const std::string all((std::istreambuf_iterator<char>(maps)), std::istreambuf_iterator<char>());
  return all.find("procpool large tasks") != std::string::npos;
}

// Its encoder throws when the block is full.
struct half_sent {
  int* calls;
};
int never_called(const half_sent& /*value*/) {
  return 0;
}

// Bytes of memory behind the file, which a pool closes.
std::uint64_t allocated(int file) {
  struct stat info {};
  REQUIRE(fstat(file, &info) == 0);
  return static_cast<std::uint64_t>(info.st_blocks) * 512;
}

}  // namespace

template <>
struct procpool::codec<half_sent> {
  static void encode(encoder& to, const half_sent& value) {
    to.put(std::string(64 * mib, 'x'));
    if (++*value.calls == 2) throw std::runtime_error("not to be sent");
  }
  static half_sent decode(decoder& from) {
    static_cast<void>(from.get<std::string>());
    return {nullptr};
  }
};

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
  CHECK(blocks.offset(first) == large_blocks::page);
  CHECK(blocks.offset(second) == large_blocks::page + 2 * mib + large_blocks::page);
  STATIC_CHECK(large_blocks::page % (std::uint64_t{64} << 10) == 0);  // of some arm64 kernels
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

TEST_CASE("large blocks: a window far inside the file needs little address space", "[large]") {
  namespace os = procpool::detail::os;
  const std::uint64_t far = (std::uint64_t{2} << 30) + large_blocks::page;
  const os::fd file = os::sealed_memory("large blocks test", 2 * far);
  const int exitcode = support::run_child([&] {
    const os::mapping first_page(file, large_blocks::page, PROT_READ | PROT_WRITE);
    std::ifstream statm("/proc/self/statm");
    std::uint64_t pages = 0;
    statm >> pages;
    rlimit limit{};
    getrlimit(RLIMIT_AS, &limit);
    limit.rlim_cur = pages * static_cast<std::uint64_t>(sysconf(_SC_PAGESIZE)) + 256 * mib;
    CHILD_REQUIRE(setrlimit(RLIMIT_AS, &limit) == 0);
    const os::file_window window(first_page.data(), far, 3 * mib);
    CHILD_REQUIRE(window.bytes().size() == 3 * mib);
    window.bytes().front() = std::byte{7};
    window.bytes().back() = std::byte{8};
    char got = 0;
    CHILD_REQUIRE(pread(file.get(), &got, 1, static_cast<off_t>(far)) == 1 && got == 7);
    CHILD_REQUIRE(pread(file.get(), &got, 1, static_cast<off_t>(far + 3 * mib - 1)) == 1 &&
                  got == 8);
    CHILD_REQUIRE(os::file_window(first_page.data(), far, 512 * mib).bytes().empty());
    return 0;
  });
  CHECK(exitcode == 0);
}

TEST_CASE("a large argument stays as it is while a worker of a broken pool reads it", "[large]") {
  const support::shared<last_words> shared;
  words = shared.get();
  procpool::Pool pool({.processes = 2, .initializer = {fail_or_start}, .arena_bytes = least_arena});
  auto result = pool.apply_async(look_after_all, std::string(2 * mib, 'x'));
  REQUIRE(shared->door.wait_for(1));
  shared->starts_fail = true;
  CHECK_THROWS_AS(pool.apply(die), procpool::WorkerDied);
  CHECK_THROWS_AS(result.get(std::chrono::seconds(20)), procpool::BrokenPool);
  shared->door.open();
  REQUIRE(support::eventually([&] { return shared->verdict != 0; }));
  CHECK(shared->verdict == 1);
  CHECK(maps_large_blocks());
  pool.terminate();
  CHECK_FALSE(maps_large_blocks());  // nor does any other process: the pages are free
}

TEST_CASE("an argument that cannot be encoded gives its pages back at once", "[large]") {
  procpool::Pool pool({.processes = 1, .arena_bytes = least_arena});
  const long before = shared_memory_in_use();
  int calls = 0;
  CHECK_THROWS_AS(pool.apply(never_called, half_sent{&calls}), std::runtime_error);
  CHECK(calls == 2);
  CHECK(shared_memory_in_use() - before < 16 * 1024);
}
