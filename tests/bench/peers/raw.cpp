// SPDX-License-Identifier: MIT
/// @file
/// What the machine allows: two processes that pass a cache line to and fro, a futex, a copy; and
/// how fast bench::spin_work() is here.
#include <linux/futex.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <new>
#include <numeric>
#include <thread>
#include <vector>

#include "../bench.hpp"

namespace {

struct lines {
  alignas(64) std::atomic<std::uint32_t> there;
  alignas(64) std::atomic<std::uint32_t> back;
};

constexpr std::uint32_t leave = ~std::uint32_t{0};

lines& shared_lines() {
  void* memory =
      mmap(nullptr, sizeof(lines), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  bench::require(memory != MAP_FAILED, "mmap");
  return *new (memory) lines{};
}

// Answers what comes `there` by the same value `back` until it is told to leave.
template <class Wait, class Wake>
pid_t start_echo(lines& shared, Wait wait, Wake wake) {
  const pid_t child = fork();
  bench::require(child >= 0, "fork");
  if (child != 0) return child;
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  std::uint32_t seen = 0;
  while (true) {
    seen = wait(shared.there, seen);
    if (seen == leave) _exit(0);
    shared.back.store(seen, std::memory_order_release);
    wake(shared.back);
  }
}

template <class Wait, class Wake>
void round_trip(lines& shared, std::uint32_t turn, Wait wait, Wake wake) {
  shared.there.store(turn, std::memory_order_release);
  wake(shared.there);
  bench::require(wait(shared.back, turn - 1) == turn, "echo");
}

void ping_pong() {
  const auto wait = [](const std::atomic<std::uint32_t>& word, std::uint32_t old) {
    std::uint32_t now = old;
    while ((now = word.load(std::memory_order_acquire)) == old) __builtin_ia32_pause();
    return now;
  };
  const auto wake = [](const std::atomic<std::uint32_t>&) {};
  lines& shared = shared_lines();
  const pid_t child = start_echo(shared, wait, wake);
  std::uint32_t turn = 0;
  for (int i = 0; i < 1000; ++i) round_trip(shared, ++turn, wait, wake);
  const double cost = bench::median_ns_of_short(bench::scaled(400, 40), 100,
                                                [&] { round_trip(shared, ++turn, wait, wake); });
  shared.there.store(leave);
  waitpid(child, nullptr, 0);
  bench::report("apply_awake", "ping-pong", cost, "ns");
}

void futex_round_trip() {
  const auto futex = [](std::atomic<std::uint32_t>& word, int operation, std::uint32_t value) {
    return syscall(SYS_futex, &word, operation, value, nullptr, nullptr, 0);
  };
  const auto wait = [&](std::atomic<std::uint32_t>& word, std::uint32_t old) {
    while (word.load(std::memory_order_acquire) == old) futex(word, FUTEX_WAIT, old);
    return word.load(std::memory_order_acquire);
  };
  const auto wake = [&](std::atomic<std::uint32_t>& word) { futex(word, FUTEX_WAKE, 1); };
  lines& shared = shared_lines();
  const pid_t child = start_echo(shared, wait, wake);
  std::vector<double> costs;
  for (std::uint32_t turn = 1; turn <= bench::scaled(100U, 10U); ++turn) {
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
    costs.push_back(bench::nanoseconds([&] { round_trip(shared, turn, wait, wake); }));
  }
  shared.there.store(leave);
  wake(shared.there);
  waitpid(child, nullptr, 0);
  bench::report("apply_idle", "futex", bench::median(costs), "ns");
}

// The least that a map by value can cost: parts of the items are copied into shared memory, two
// processes that spin compute, the results are copied out. No queue, no records, nothing that would
// tell what is done when a process dies.
struct square_map {
  static constexpr std::size_t items = 1'000'000;
  static constexpr std::size_t parts = 8;
  static constexpr std::size_t part = items / parts;

  struct flag {
    alignas(64) std::atomic<std::uint32_t> turn;
  };
  flag sent[parts];
  flag done[parts];
  long in[items];
  long out[items];

  static void await(const flag& what, std::uint32_t turn) {
    for (int looks = 0; what.turn.load(std::memory_order_acquire) != turn; ++looks) {
      if (looks % 64 == 63) std::this_thread::yield();
    }
  }

  [[noreturn]] void work(std::size_t first) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    for (std::uint32_t turn = 1;; ++turn) {
      for (std::size_t i = first; i < parts; i += 2) {
        await(sent[i], turn);
        for (std::size_t k = i * part; k < (i + 1) * part; ++k) out[k] = in[k] * in[k];
        done[i].turn.store(turn, std::memory_order_release);
      }
    }
  }

  std::vector<long> run(const std::vector<long>& from, std::uint32_t turn) {
    for (std::size_t i = 0; i < parts; ++i) {
      std::memcpy(in + i * part, from.data() + i * part, part * sizeof(long));
      sent[i].turn.store(turn, std::memory_order_release);
    }
    std::vector<long> results;
    results.reserve(items);
    for (std::size_t i = 0; i < parts; ++i) {
      await(done[i], turn);
      results.insert(results.end(), out + i * part, out + (i + 1) * part);
    }
    return results;
  }
};

void map_longs() {
  void* memory =
      mmap(nullptr, sizeof(square_map), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  bench::require(memory != MAP_FAILED, "mmap");
  auto& shared = *static_cast<square_map*>(memory);  // zero-filled is its start
  pid_t workers[2];
  for (std::size_t i = 0; i < 2; ++i) {
    workers[i] = fork();
    bench::require(workers[i] >= 0, "fork");
    if (workers[i] == 0) shared.work(i);
  }
  std::vector<long> items(square_map::items);
  std::iota(items.begin(), items.end(), 0);
  std::uint32_t turn = 0;
  for (int i = 0; i < 3; ++i) shared.run(items, ++turn);
  const double cost = bench::median_ns(bench::scaled(21, 5), [&] {
    bench::require(shared.run(items, ++turn).back() == items.back() * items.back(), "a square");
  });
  for (const pid_t worker : workers) {
    kill(worker, SIGKILL);
    waitpid(worker, nullptr, 0);
  }
  bench::report("map_longs", "copies", cost / static_cast<double>(items.size()), "ns");
}

void copy() {
  constexpr std::size_t bytes = std::size_t{64} << 20;
  std::vector<char> from(bytes, 1);
  std::vector<char> into(bytes, 2);
  const auto once = [&] { std::memcpy(into.data(), from.data(), bytes); };
  once();
  const double rate = static_cast<double>(bytes) / bench::median_ns(bench::scaled(9, 3), once);
  bench::require(into == from, "copy");
  for (const char* measure : {"large_argument", "large_argument_again", "large_view",
                              "large_result", "large_result_again", "large_kept"}) {
    bench::report(measure, "memcpy", rate, "GB/s");
  }
}

void calibrate() {
  constexpr std::uint64_t turns = 2'000'000;
  std::uint64_t sum = 0;
  const double cost = bench::median_ns(9, [&] { sum += bench::spin_work(turns); });
  bench::require(sum == 9 * bench::spin_work(turns), "spin_work");
  bench::report("calibrate", "raw", static_cast<double>(turns) / cost * 1e3, "1/us");
}

}  // namespace

BENCH_MAIN({"apply_awake", ping_pong}, {"apply_idle", futex_round_trip}, {"map_longs", map_longs},
           {"large_argument", copy}, {"calibrate", calibrate})
