// SPDX-License-Identifier: MIT
#include "shared.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <new>
#include <string>

namespace support {

namespace {

constexpr const char* where = "PROCPOOL_TEST_MEMORY";
constexpr std::size_t arena_bytes = std::size_t{1} << 30;  // pages are allocated when first used
constexpr std::size_t slot_bytes = 4096;
constexpr std::size_t page = 4096;

/// Between the addresses of the sanitizers and those of libraries and stacks.
void* const address = reinterpret_cast<void*>(0x7e90'0000'0000);

struct arena {
  std::atomic<std::size_t> used;  ///< bytes, after this head and the slots
  std::atomic<std::size_t> live;  ///< number of blocks
};

arena& head() {
  return *static_cast<arena*>(address);
}

/// @param file -1: memory that only forked processes share
bool map(int file) {
  const int how = MAP_SHARED | MAP_FIXED | MAP_NORESERVE | (file < 0 ? MAP_ANONYMOUS : 0);
  return mmap(address, arena_bytes, PROT_READ | PROT_WRITE, how, file, 0) != MAP_FAILED;
}

/// A spawned process finds the memory of the program that started it before its main begins.
[[maybe_unused]] const bool attached = [] {
  const char* path = std::getenv(where);
  if (path == nullptr) return false;
  const int file = open(path, O_RDWR | O_CLOEXEC);
  if (file < 0) return false;
  const bool there = map(file);
  close(file);
  return there;
}();

std::size_t slots = 0;

}  // namespace

void create_shared_memory(bool for_spawned) {
  if (!for_spawned) {
    if (!map(-1)) std::abort();
    return;
  }
  const int file = memfd_create("shared memory of tests", MFD_CLOEXEC);
  if (file < 0 || ftruncate(file, arena_bytes) != 0 || !map(file)) std::abort();
  const std::string path = "/proc/" + std::to_string(getpid()) + "/fd/" + std::to_string(file);
  setenv(where, path.c_str(), 1);
}

void* allocate_shared(std::size_t bytes) {
  ++head().live;
  const std::size_t at = head().used.fetch_add((bytes + page - 1) / page * page);
  if (at + bytes > arena_bytes - page - slot_bytes) throw std::bad_alloc();
  return static_cast<std::byte*>(address) + page + slot_bytes + at;
}

void free_shared() noexcept {
  if (--head().live == 0) head().used = 0;
}

std::size_t take_slot() {
  return slots++;
}

void* slot_address(std::size_t slot) noexcept {
  return static_cast<std::byte*>(address) + page + slot * sizeof(void*);
}

}  // namespace support
