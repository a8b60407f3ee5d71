// SPDX-License-Identifier: MIT
/// @file
/// Memory that a test shares with all processes started from it, forked and spawned ones, at the
/// same address in each.
#pragma once

#include <atomic>
#include <chrono>
#include <cstddef>
#include <new>
#include <thread>
#include <type_traits>

namespace support {

/// Makes the memory. For main, after spawned processes have left it for freeze_support(): these
/// attach to the memory before their main.
/// @param for_spawned whether processes that this program spawns are to find the memory
void create_shared_memory(bool for_spawned);

[[nodiscard]] void* allocate_shared(std::size_t bytes);
void free_shared() noexcept;
[[nodiscard]] std::size_t take_slot();
[[nodiscard]] void* slot_address(std::size_t slot) noexcept;

/// One value, zero-initialised, in shared memory until the end of the scope.
template <class T>
class shared {
 public:
  shared() : value_(new (allocate_shared(sizeof(T))) T{}) {}
  shared(const shared&) = delete;
  shared& operator=(const shared&) = delete;
  ~shared() { free_shared(); }

  [[nodiscard]] T& operator*() const noexcept { return *value_; }
  [[nodiscard]] T* operator->() const noexcept { return value_; }
  [[nodiscard]] T* get() const noexcept { return value_; }

 private:
  T* value_;
};

/// A global variable with one value in all processes, usually a pointer to a shared object. Only at
/// namespace scope, because the order of construction determines its place. Tests set it before
/// they submit tasks that use it.
template <class T>
class common {
  static_assert(std::is_trivially_copyable_v<T> && sizeof(T) <= sizeof(void*));

 public:
  common() : slot_(take_slot()) {}
  common(const common&) = delete;
  common& operator=(const common&) = delete;
  common& operator=(T value) noexcept {
    place().store(value);
    return *this;
  }

  [[nodiscard]] T get() const noexcept { return place().load(); }
  operator T() const noexcept { return get(); }  // NOLINT: it stands for its value
  [[nodiscard]] T operator->() const noexcept { return get(); }

 private:
  [[nodiscard]] std::atomic<T>& place() const noexcept {
    return *static_cast<std::atomic<T>*>(slot_address(slot_));
  }

  std::size_t slot_;
};

/// Waits until @p condition is true, checked every millisecond. @returns false after @p limit
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

/// A gate between processes: tasks wait at it until the test opens it.
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

/// A task that waits at @p door and then returns 1.
inline auto waiting_at(const shared<gate>& door) {
  return [gate = door.get()] {
    gate->pass();
    return 1L;
  };
}

}  // namespace support
