// SPDX-License-Identifier: MIT
/// @file
/// Memory that a test and the workers forked after it was made both see. Make it before the pool.
#pragma once

#include <sys/mman.h>

#include <atomic>
#include <chrono>
#include <new>
#include <thread>
#include <utility>

namespace support {

/// One value, zero-initialised, in anonymous shared memory; unmapped at the end of the scope.
template <class T>
class shared {
 public:
  shared() {
    void* memory =
        mmap(nullptr, sizeof(T), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) throw std::bad_alloc();
    value_ = new (memory) T{};
  }
  shared(const shared&) = delete;
  shared& operator=(const shared&) = delete;
  ~shared() { munmap(value_, sizeof(T)); }

  [[nodiscard]] T& operator*() const noexcept { return *value_; }
  [[nodiscard]] T* operator->() const noexcept { return value_; }
  [[nodiscard]] T* get() const noexcept { return value_; }

 private:
  T* value_ = nullptr;
};

/// Waits until @p condition holds, looking every millisecond; false when @p limit is over.
template <class Condition>
[[nodiscard]] bool eventually(Condition condition,
                              std::chrono::milliseconds limit = std::chrono::seconds(20)) {
  const auto end = std::chrono::steady_clock::now() + limit;
  while (!condition()) {
    if (std::chrono::steady_clock::now() >= end) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  return true;
}

/// A door between processes: tasks arrive and wait, the test opens.
struct gate {
  std::atomic<int> arrived{0};
  std::atomic<bool> opened{false};

  void open() noexcept { opened = true; }

  /// For a task: counts itself, then waits for open().
  void pass() noexcept {
    ++arrived;
    while (!opened) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }

  /// For the test: true once @p count tasks have arrived.
  [[nodiscard]] bool wait_for(int count) const {
    return eventually([&] { return arrived >= count; });
  }
};

}  // namespace support
