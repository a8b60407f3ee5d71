// SPDX-License-Identifier: MIT
// The shared regions: who can write what, and the arena in them.
#include <catch2/catch_test_macros.hpp>

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstring>
#include <optional>
#include <random>
#include <span>
#include <string>
#include <vector>

#include <procpool/detail/ring/regions.hpp>

namespace {

using procpool::detail::arena;
using procpool::detail::inbound_region;
using procpool::detail::outbound_region;
using procpool::detail::region_sizes;

constexpr region_sizes sizes{.workers = 3, .ring_bytes = 8192, .arena_bytes = 1 << 20};

void* map(int file, int protection) {
  return mmap(nullptr, 4096, protection, MAP_SHARED, file, 0);
}

TEST_CASE("the parts of the regions do not overlap and rings are aligned", "[regions]") {
  STATIC_CHECK(sizes.control_at(0) >= sizeof(procpool::detail::outbound_header));
  STATIC_CHECK(sizes.control_at(2) + sizeof(procpool::detail::task_control) <= sizes.ring_at(0));
  STATIC_CHECK(sizes.ring_at(1) == sizes.ring_at(0) + sizes.ring_bytes);
  STATIC_CHECK(sizes.arena_at() == sizes.ring_at(2) + sizes.ring_bytes);
  STATIC_CHECK(sizes.arena_at() % 4096 == 0);
  STATIC_CHECK(sizes.inbound_bytes() >=
               sizeof(procpool::detail::result_control) + sizes.ring_bytes);
}

TEST_CASE("nobody but its maker can write to the outbound region", "[regions]") {
  const outbound_region region(sizes);
  CHECK(map(region.file(), PROT_READ | PROT_WRITE) == MAP_FAILED);
  void* readable = map(region.file(), PROT_READ);
  REQUIRE(readable != MAP_FAILED);
  CHECK(mprotect(readable, 4096, PROT_READ | PROT_WRITE) == -1);
  CHECK(errno == EACCES);
  munmap(readable, 4096);
  CHECK(pwrite(region.file(), "x", 1, 0) == -1);
  const std::string again = "/proc/self/fd/" + std::to_string(region.file());
  const int reopened = open(again.c_str(), O_RDWR | O_CLOEXEC);
  if (reopened != -1) {
    CHECK(map(reopened, PROT_READ | PROT_WRITE) == MAP_FAILED);
    CHECK(pwrite(reopened, "x", 1, 0) == -1);
    close(reopened);
  }
  region.ring(0)[0] = std::byte{7};  // its maker can
  CHECK(region.ring(0)[0] == std::byte{7});
}

TEST_CASE("nobody can change the size of a region", "[regions]") {
  const outbound_region out(sizes);
  const inbound_region in(sizes);
  for (const int file : {out.file(), in.file()}) {
    CHECK(ftruncate(file, 0) == -1);
    CHECK(ftruncate(file, 1 << 30) == -1);
  }
}

TEST_CASE("the maker of an inbound region only reads it", "[regions]") {
  const inbound_region region(sizes);
  auto* begin = const_cast<std::byte*>(reinterpret_cast<const std::byte*>(&region.control()));
  std::vector<unsigned char> present(1);
  CHECK(mincore(begin, 4096, present.data()) == 0);
  // A write to it would be SIGSEGV: the kernel refuses to copy into it.
  const int zero = open("/dev/zero", O_RDONLY | O_CLOEXEC);
  CHECK(read(zero, begin, 1) == -1);
  CHECK(errno == EFAULT);
  close(zero);
}

TEST_CASE("arena: blocks are aligned, do not overlap and are all given back", "[regions]") {
  outbound_region region(sizes);
  arena& blocks = region.blocks();
  std::mt19937 random(5);
  std::vector<std::span<std::byte>> live;
  std::vector<std::byte> marks;
  bool was_full = false;
  for (int step = 0; step < 5'000; ++step) {
    if (live.empty() || random() % 2 == 0) {
      const auto block = blocks.allocate(1 + random() % 100'000);
      if (!block) {
        was_full = true;
        continue;
      }
      REQUIRE(reinterpret_cast<std::uintptr_t>(block->data()) % 16 == 0);
      const auto mark = static_cast<std::byte>(step);
      std::memset(block->data(), static_cast<int>(mark), block->size());
      live.push_back(*block);
      marks.push_back(mark);
    } else {
      const std::size_t victim = random() % live.size();
      for (const std::byte byte : live[victim])
        if (byte != marks[victim]) FAIL("a block was overwritten");
      blocks.release(live[victim]);
      live[victim] = live.back();
      marks[victim] = marks.back();
      live.pop_back();
      marks.pop_back();
    }
  }
  for (const auto block : live) blocks.release(block);
  CHECK(was_full);
  CHECK(blocks.all_free());
}

TEST_CASE("sizes are cut down to the address space there is", "[regions]") {
  const region_sizes full{.workers = 256, .ring_bytes = 256 << 10, .arena_bytes = 256 << 20};
  const auto total = [](const region_sizes& of, std::uint64_t workers) {
    return of.outbound_bytes() + workers * of.inbound_bytes();
  };
  for (const std::uint64_t workers : {1U, 8U, 200U, 256U}) {
    const region_sizes all = full.within(total(full, workers), workers);
    CHECK(all.arena_bytes == full.arena_bytes);
    CHECK(all.workers == full.workers);
    for (std::uint64_t most = total(full, workers) - 1; most > 4096; most = most / 3 * 2) {
      const region_sizes less = full.within(most, workers);
      CAPTURE(workers, most, less.workers, less.ring_bytes, less.arena_bytes);
      CHECK(less.workers >= workers);
      CHECK(less.arena_bytes % 4096 == 0);
      CHECK((less.ring_bytes & (less.ring_bytes - 1)) == 0);
      const bool least = less.workers == workers && less.ring_bytes == region_sizes::least_ring &&
                         less.arena_bytes == region_sizes::least_arena;
      CHECK((total(less, workers) <= most || least));
    }
  }
}

}  // namespace
