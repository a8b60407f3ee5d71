// SPDX-License-Identifier: MIT
// A process that scribbles over the memory of a queue, before others use it and meanwhile: they get
// wrong values or errors. They do not crash, hang or end.
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <catch2/catch_test_macros.hpp>

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <random>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

#include <procpool/detail/heap/held_object.hpp>
#include <procpool/detail/heap/owner_lock.hpp>
#include <procpool/detail/queue/segments.hpp>
#include <procpool/procpool.hpp>

#include "support/child.hpp"
#include "support/shared.hpp"

namespace {

using procpool::JoinableQueue;
using namespace std::chrono_literals;
using texts = JoinableQueue<std::vector<std::string>>;
using numbers = JoinableQueue<std::vector<long>>;

/// The memory of a queue, found by its handle as it travels.
class queue_memory {
 public:
  template <class Queue>
  explicit queue_memory(const Queue& queue) {
    procpool::detail::byte_buffer bytes;
    procpool::detail::handle_scope scope(procpool::detail::handle_delivery::repeated);
    procpool::encoder(bytes).put(queue);
    procpool::decoder d(bytes.view());
    object_ = procpool::detail::get_object(d, procpool::detail::object_kind::queue,
                                           procpool::detail::type_tag<Queue>());
    items_ = procpool::detail::extent_mapping(*object_, 0, extent_bytes,
                                              procpool::detail::extent_access::read_write);
  }

  [[nodiscard]] std::span<std::byte> body() const { return object_->record().body; }
  [[nodiscard]] std::span<std::byte> wait_words() const {
    return std::as_writable_bytes(std::span(&object_->record().wait_words[1], 2));
  }
  [[nodiscard]] std::span<std::byte> locks() const {
    return std::as_writable_bytes(std::span(&object_->record().wait_words[0], 1));
  }
  /// Where the first segment and what is before it lie.
  [[nodiscard]] std::span<std::byte> items() const { return items_.bytes(); }

 private:
  static constexpr std::size_t extent_bytes = 2 << 20;
  procpool::detail::object_ref object_;
  procpool::detail::extent_mapping items_;
};

class scribbler {
 public:
  explicit scribbler(unsigned seed) : random_(seed) {}

  /// Some words of @p where: random, small, or a little other than they were.
  void scribble(std::span<std::byte> where, int words) {
    for (int i = 0; i < words; ++i) {
      const std::size_t at = random_() % (where.size() / 4) * 4;
      std::uint32_t word = 0;
      std::memcpy(&word, &where[at], sizeof word);
      switch (random_() % 5) {
        case 0:
          word = static_cast<std::uint32_t>(random_());
          break;
        case 1:
          word = static_cast<std::uint32_t>(random_() % 64);
          break;
        case 2:
          word ^= 1U << random_() % 32;
          break;
        case 3:
          word += static_cast<std::uint32_t>(random_() % 33) - 16;
          break;
        default:
          word = 0xFFFFFFFF;
          break;
      }
      std::memcpy(&where[at], &word, sizeof word);
    }
  }
  void scribble_anywhere(const queue_memory& memory) {
    switch (random_() % 4) {
      case 0:
        scribble(memory.body(), 1 + static_cast<int>(random_() % 4));
        break;
      case 1:
        scribble(memory.wait_words(), 1);
        break;
      case 2:
        scribble(memory.items().subspan(1 << 20, 8 << 10), 20);
        break;
      default:
        scribble(memory.items().first(64 << 10), 20);
        break;
    }
  }
  std::uint32_t number() { return static_cast<std::uint32_t>(random_()); }

 private:
  std::mt19937 random_;
};

struct outcomes {
  long values = 0;
  long errors = 0;
};

/// Uses a queue in all ways, for @p rounds.
template <class Queue, class Value>
outcomes use(const Queue& queue, const Value& value, int rounds) {
  outcomes counts;
  const auto attempt = [&](auto call) {
    try {
      call();
      ++counts.values;
    } catch (const std::exception&) {
      ++counts.errors;
    }
  };
  for (int i = 0; i < rounds; ++i) {
    attempt([&] { static_cast<void>(queue.try_put(value)); });
    attempt([&] { static_cast<void>(queue.try_put(value, 1ms)); });
    attempt([&] { static_cast<void>(queue.try_get()); });
    attempt([&] { static_cast<void>(queue.qsize() + queue.full() + queue.empty()); });
    attempt([&] { queue.get_many(3, 1ms); });
    attempt([&] { queue.task_done(); });
    attempt([&] { static_cast<void>(queue.join(1ms)); });
  }
  return counts;
}

/// In a child with a limit: a crash or a hang shows in its exit code.
int in_time(const std::function<void()>& body) {
  return support::run_child([&] {
    ::alarm(60);
    body();
    return 0;
  });
}

}  // namespace

TEST_CASE("a queue that was scribbled over harms nobody who uses it") {
  int died = 0;
  for (unsigned seed = 0; seed < 150; ++seed) {
    const int code = in_time([seed] {
      scribbler hostile(seed);
      const texts strings{{.maxsize = seed % 2 == 0 ? 0 : 20}};
      const numbers longs;
      const std::vector<std::string> text{"one", std::string(1000, 'x'), ""};
      for (int i = 0; i < 5; ++i) {
        strings.put(text);
        longs.put({1, 2, 3});
      }
      const queue_memory text_memory(strings);
      const queue_memory long_memory(longs);
      hostile.scribble_anywhere(text_memory);
      hostile.scribble_anywhere(long_memory);
      for (int round = 0; round < 3; ++round) {
        use(strings, text, 3);
        use(longs, std::vector<long>(hostile.number() % 5000, 7), 3);
        hostile.scribble_anywhere(text_memory);
        hostile.scribble_anywhere(long_memory);
      }
    });
    if (code == 0) continue;
    ++died;
    UNSCOPED_INFO("seed " << seed << ": exit code " << code);
  }
  CHECK(died == 0);
}

TEST_CASE("a process that scribbles over a queue meanwhile harms nobody who uses it") {
  int died = 0;
  for (unsigned seed = 1000; seed < 1012; ++seed) {
    const int code = in_time([seed] {
      const texts strings{{.maxsize = 50}};
      const queue_memory memory(strings);
      const std::vector<std::string> text{"one", std::string(500, 'x'), ""};
      const pid_t hostile = ::fork();
      if (hostile == 0) {
        scribbler random(seed);
        for (;;) {
          random.scribble_anywhere(memory);
          ::usleep(random.number() % 200);
        }
      }
      const pid_t other = ::fork();
      if (other == 0) {
        use(strings, text, 100);
        ::_exit(0);
      }
      use(strings, text, 100);
      int status = 0;
      ::waitpid(other, &status, 0);
      ::kill(hostile, SIGKILL);
      ::waitpid(hostile, nullptr, 0);
      if (status != 0)
        throw std::runtime_error("the other one ended with " + std::to_string(status));
    });
    if (code == 0) continue;
    ++died;
    UNSCOPED_INFO("seed " << seed << ": exit code " << code);
  }
  CHECK(died == 0);
}

TEST_CASE("a lock that names a process which does not exist is taken over") {
  const numbers queue;
  queue.put({1});
  const queue_memory memory(queue);
  for (const std::uint32_t owner : {12345U * 1024U, 0x7FFFFFFFU, 0xFFFFFFFFU, 1U}) {
    std::memcpy(memory.locks().data(), &owner, sizeof owner);
    queue.put({2});
  }
  CHECK(queue.qsize() == 5);
}
