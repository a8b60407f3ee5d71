// SPDX-License-Identifier: MIT
/// @file
/// Functions and inputs that several conformance tests give to a pool.
#pragma once

#include <sys/types.h>
#include <unistd.h>

#include <chrono>
#include <cstddef>
#include <cstdlib>
#include <iterator>
#include <memory>
#include <numeric>
#include <stdexcept>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

namespace conformance {

inline long square(long x) {
  return x * x;
}

inline long multiply(long x, long y) {
  return x * y;
}

inline long slow_square(long x, std::chrono::milliseconds delay) {
  std::this_thread::sleep_for(delay);
  return x * x;
}

inline void sleep_for(std::chrono::milliseconds time) {
  std::this_thread::sleep_for(time);
}

/// How long a task takes that is to be ended by the end of its pool: a thread cannot be killed, and
/// the pool waits until it has returned.
inline std::chrono::milliseconds until_killed() {
  const char* backend = std::getenv("PROCPOOL_BACKEND");
  const bool threads = backend != nullptr && std::string_view(backend) == "threads";
  return threads ? std::chrono::milliseconds(500) : std::chrono::minutes(1);
}

inline pid_t worker_pid() {
  return getpid();
}

/// Which worker this is: of a process that is its pid, and a thread has one of its own.
inline pid_t worker_id() {
  return gettid();
}

inline pid_t worker_id_for(long) {
  return gettid();
}

/// 0, 1, ... count - 1
inline std::vector<long> numbers(std::size_t count) {
  std::vector<long> all(count);
  std::iota(all.begin(), all.end(), 0L);
  return all;
}

/// The squares of 0, 1, ... count - 1, made here.
inline std::vector<long> squares(std::size_t count) {
  auto all = numbers(count);
  for (long& x : all) x *= x;
  return all;
}

/// (0, 0), (1, 1) ...: what CPython's starmap tests multiply.
inline std::vector<std::pair<long, long>> twins(std::size_t count) {
  std::vector<std::pair<long, long>> all;
  for (long x : numbers(count)) all.emplace_back(x, x);
  return all;
}

/// What a broken input throws; no task throws it.
struct input_failed : std::runtime_error {
  input_failed() : runtime_error("the input broke") {}
};

/// A single-pass range of 0, 1, 2 ... that throws after @p good items; endless when good is
/// negative. Copies share what they have taken, so a test can ask its own copy.
class source {
  struct state {
    long good;
    long taken;
    long take() {
      if (taken == good) throw input_failed();
      return taken++;
    }
  };

 public:
  explicit source(long good = -1) : state_(std::make_shared<state>(state{good, 0})) {}

  class iterator {
   public:
    using value_type = long;
    using difference_type = std::ptrdiff_t;
    using iterator_concept = std::input_iterator_tag;

    explicit iterator(state* from) : from_(from), current_(from->take()) {}
    long operator*() const { return current_; }
    iterator& operator++() {
      current_ = from_->take();
      return *this;
    }
    void operator++(int) { ++*this; }
    bool operator==(std::default_sentinel_t) const { return false; }

   private:
    state* from_;
    long current_;
  };

  [[nodiscard]] iterator begin() const { return iterator(state_.get()); }
  static std::default_sentinel_t end() { return {}; }

  /// How many items have been taken so far.
  [[nodiscard]] long taken() const { return state_->taken; }

 private:
  std::shared_ptr<state> state_;
};

}  // namespace conformance
