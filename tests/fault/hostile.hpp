// SPDX-License-Identifier: MIT
/// @file
/// What a hostile task needs to know: the memory and the descriptors that its worker can reach, and
/// the tools to forge what it says to its parent. Runs in workers.
#pragma once

#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <random>
#include <span>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include <procpool/detail/ring/layout.hpp>
#include <procpool/detail/ring/regions.hpp>

#include "support/processes.hpp"

namespace hostile {

using namespace std::chrono_literals;
using procpool::detail::crash_note;
using procpool::detail::outbound_header;
using procpool::detail::record_head;
using procpool::detail::record_kind;
using procpool::detail::region_sizes;
using procpool::detail::result_control;
using procpool::detail::task_control;

/// The pools of these tests are made with these.
inline constexpr std::size_t ring_bytes = 16384;
inline constexpr std::size_t arena_bytes = std::size_t{1} << 20;
inline constexpr int processes = 3;
inline constexpr region_sizes sizes{region_sizes::places(processes, ring_bytes), ring_bytes,
                                    arena_bytes};

/// One line of /proc/self/maps.
struct area {
  std::byte* begin = nullptr;
  std::size_t size = 0;
  std::string rights;  ///< as "rw-s"
  std::string name;

  [[nodiscard]] bool writable() const { return rights[1] == 'w'; }
  [[nodiscard]] bool shared() const { return rights[3] == 's'; }
};

inline std::vector<area> own_areas() {
  std::vector<area> found;
  std::ifstream maps("/proc/self/maps");
  for (std::string line; std::getline(maps, line);) {
    unsigned long begin = 0;
    unsigned long end = 0;
    char rights[5]{};
    int name = 0;
    if (std::sscanf(line.c_str(), "%lx-%lx %4s %*x %*s %*u %n", &begin, &end, rights, &name) < 3) {
      continue;
    }
    found.push_back({reinterpret_cast<std::byte*>(begin), end - begin, rights,
                     line.substr(static_cast<std::size_t>(name))});
  }
  return found;
}

inline std::vector<area> areas_of(std::string_view name) {
  auto found = own_areas();
  std::erase_if(found, [&](const area& each) { return !each.name.starts_with(name); });
  return found;
}

inline constexpr std::string_view results_name = "/memfd:procpool results";
inline constexpr std::string_view tasks_name = "/memfd:procpool tasks";

/// The worker's own inbound region, to do with as one likes.
struct inbound {
  std::byte* begin;
  std::size_t size;

  static inbound find() {
    const auto areas = areas_of(results_name);
    if (areas.size() != 1) throw std::logic_error("no inbound region, or more than one");
    return {areas[0].begin, areas[0].size};
  }
  [[nodiscard]] result_control& control() const {
    return *reinterpret_cast<result_control*>(begin);
  }
  [[nodiscard]] crash_note& note() const {
    return *reinterpret_cast<crash_note*>(begin + region_sizes::crash_at());
  }
  [[nodiscard]] std::byte* ring() const { return begin + region_sizes::results_at(); }
};

/// Which task ring of the outbound region has these 8 bytes in it: the worker's own place in the
/// pool, when it looks for an argument that nobody else got.
inline const task_control* own_tasks(std::uint64_t cookie) {
  const area out = areas_of(tasks_name).at(0);
  for (std::uint64_t worker = 0; worker < sizes.workers; ++worker) {
    const std::byte* ring = out.begin + sizes.ring_at(worker);
    for (std::size_t at = 0; at + 8 <= ring_bytes; at += 8) {
      if (std::memcmp(ring + at, &cookie, 8) != 0) continue;
      return reinterpret_cast<const task_control*>(out.begin + sizes.control_at(worker));
    }
  }
  throw std::logic_error("the task is in no ring");
}

/// Writes records as it pleases, behind those that the worker has written.
class forger {
 public:
  forger() : in_(inbound::find()) {
    auto& own = in_.control();
    cursor_ = std::max({own.committed.load(), own.finished.load(), own.written.load()});
  }

  [[nodiscard]] result_control& control() const { return in_.control(); }
  [[nodiscard]] std::uint32_t ordinal() const {
    return static_cast<std::uint32_t>(control().started.load() >> 32);
  }
  [[nodiscard]] std::uint32_t item() const {
    return static_cast<std::uint32_t>(control().started.load());
  }

  /// The head of a record that would be right, for a result of @p length bytes.
  [[nodiscard]] record_head head(record_kind kind, std::uint64_t length) const {
    return {ordinal(), item(), kind, 0, length};
  }

  void put(const void* bytes, std::size_t size) {
    const auto* from = static_cast<const std::byte*>(bytes);
    for (; size > 0; --size) in_.ring()[cursor_++ % ring_bytes] = *from++;
  }
  void put(const record_head& head, std::size_t payload, std::byte filler = std::byte{0x5a}) {
    put(&head, sizeof head);
    for (; payload > 0; --payload) put(&filler, 1);
    while (cursor_ % procpool::detail::record_alignment != 0) put(&filler, 1);
  }

  /// Tells the parent of what has been put.
  void commit() const {
    control().written.store(cursor_);
    control().finished.store(cursor_);
    control().committed.store(cursor_);
  }
  /// As a worker does in the middle of a task.
  void commit_part() const { control().committed.store(cursor_); }
  [[nodiscard]] std::uint64_t cursor() const { return cursor_; }
  void advance(std::uint64_t bytes) { cursor_ += bytes; }

 private:
  inbound in_;
  std::uint64_t cursor_;
};

[[noreturn]] inline void die() {
  kill(getpid(), SIGKILL);
  for (;;) pause();
}

/// The last part of an attack that leaves the worker alive: it dies at once, or after a while in
/// which the parent may notice, or it goes on as if nothing had been.
enum class finale { die_now, die_later, go_on };
inline void leave(finale how) {
  if (how == finale::die_now) die();
  std::this_thread::sleep_for(how == finale::go_on ? 20ms : 60ms);
  if (how == finale::die_later) die();
}

inline void fill_randomly(std::byte* begin, std::size_t size, std::mt19937_64& random) {
  for (std::size_t i = 0; i + 8 <= size; i += 8) {
    const std::uint64_t bytes = random();
    std::memcpy(begin + i, &bytes, 8);
  }
}

/// The descriptors of this process that stand for something named like @p kind.
inline std::vector<int> descriptors_of(std::string_view kind) {
  std::vector<int> found;
  for (const auto& [number, target] : support::open_fds()) {
    if (target.find(kind) != std::string::npos) found.push_back(number);
  }
  return found;
}

/// The bell that the worker rings for its parent. The only eventfd, for these tests make none.
inline int own_bell() {
  const auto found = descriptors_of("[eventfd]");
  if (found.size() != 1) throw std::logic_error("no bell, or more than one");
  return found[0];
}

/// Rings as an honest worker does: once for each sleep of the parent.
class honest_bell {
 public:
  honest_bell()
      : parent_(reinterpret_cast<const outbound_header*>(areas_of(tasks_name).at(0).begin)),
        waker_(own_bell()) {}
  void wake_if_armed() {
    const std::uint32_t sleep = parent_->armed.load();
    if (sleep % 2 == 0 || sleep == rung_) return;
    rung_ = sleep;
    const std::uint64_t one = 1;
    static_cast<void>(write(waker_, &one, sizeof one));
  }

 private:
  const outbound_header* parent_;
  int waker_;
  std::uint32_t rung_ = 0;
};

/// Commits what has been put and waits until the parent has taken it, or for a second.
inline void hand_over(const forger& forge, const task_control& tasks) {
  honest_bell bell;
  forge.commit_part();
  const auto end = std::chrono::steady_clock::now() + 1s;
  while (tasks.consumed.load() < forge.cursor() && std::chrono::steady_clock::now() < end) {
    bell.wake_if_armed();
    std::this_thread::yield();
  }
}

/// Keeps the ring full for ever, with room as the parent makes it. @param cookie see own_tasks
template <class Put>
[[noreturn]] void stream(std::uint64_t cookie, Put put_piece) {
  forger forge;
  honest_bell bell;
  const task_control* tasks = own_tasks(cookie);
  put_piece(forge, true);
  for (;;) {
    forge.commit_part();
    while (forge.cursor() - tasks->consumed.load() > ring_bytes - 4096) {
      bell.wake_if_armed();
      std::this_thread::yield();
    }
    put_piece(forge, false);
  }
}

/// A record of @p size bytes and what comes behind it, all of it what was in the ring before.
[[noreturn]] inline void promise(std::uint64_t cookie, record_kind kind, std::uint64_t size) {
  stream(cookie, [=](forger& forge, bool first) {
    const record_head head = forge.head(kind, size);
    if (first) forge.put(&head, sizeof head);
    forge.advance(2048);
  });
}

}  // namespace hostile
