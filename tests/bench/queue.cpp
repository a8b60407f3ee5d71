// SPDX-License-Identifier: MIT
/// @file
/// Queues between two processes. Contenders that a measure compares run by turns: each figure is
/// the median of its runs.
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#if __has_include(<boost/interprocess/ipc/message_queue.hpp>)
#include <boost/interprocess/ipc/message_queue.hpp>
#define HAS_MESSAGE_QUEUE
#endif

#include <procpool/procpool.hpp>

#include "bench.hpp"

namespace {

/// Runs @p body in a child and waits for it.
class child {
 public:
  explicit child(const std::function<void()>& body) : pid_(::fork()) {
    if (pid_ != 0) return;
    body();
    ::_exit(0);
  }
  child(const child&) = delete;
  child& operator=(const child&) = delete;
  ~child() {
    int status = 0;
    ::waitpid(pid_, &status, 0);
    bench::require(status == 0, "child");
  }

 private:
  pid_t pid_;
};

struct two_lines {
  alignas(128) std::atomic<std::uint64_t> there;
  alignas(128) std::atomic<std::uint64_t> back;
};

/// Nanoseconds of a round trip of two cache lines, the floor of everything below.
double ping_pong(long rounds) {
  void* const at =
      ::mmap(nullptr, sizeof(two_lines), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  auto& lines = *static_cast<two_lines*>(at);
  double took = 0;
  {
    const child other([&] {
      for (long i = 1; i <= rounds; ++i) {
        while (lines.there.load(std::memory_order_acquire) != static_cast<std::uint64_t>(i)) {
        }
        lines.back.store(static_cast<std::uint64_t>(i), std::memory_order_release);
      }
    });
    took = bench::nanoseconds([&] {
      for (long i = 1; i <= rounds; ++i) {
        lines.there.store(static_cast<std::uint64_t>(i), std::memory_order_release);
        while (lines.back.load(std::memory_order_acquire) != static_cast<std::uint64_t>(i)) {
        }
      }
    });
  }
  ::munmap(at, sizeof(two_lines));
  return took / static_cast<double>(rounds);
}

/// Nanoseconds of an item: a child puts, this process gets. The clock starts with the first item.
double stream(long items) {
  const procpool::Queue<long> queue;
  const child producer([&] {
    for (long i = 0; i < items; ++i) queue.put(i);
  });
  queue.get();
  return bench::nanoseconds([&] {
           for (long i = 1; i < items; ++i) bench::require(queue.get() == i, "stream");
         }) /
         static_cast<double>(items);
}

double batches(long items) {
  const procpool::Queue<long> queue;
  const child producer([&] {
    std::vector<long> batch(64);
    for (long i = 0; i < items; i += 64) {
      for (long j = 0; j < 64; ++j) batch[static_cast<std::size_t>(j)] = i + j;
      queue.put_many(batch);
    }
  });
  long next = 0;
  next = queue.get() + 1;
  return bench::nanoseconds([&] {
           while (next < items) {
             for (const long got : queue.get_many(64)) bench::require(got == next++, "batches");
           }
         }) /
         static_cast<double>(items);
}

/// Bytes in a nanosecond.
constexpr std::size_t text_size = 64 << 10;
double texts(long items, std::uint64_t max_bytes) {
  const procpool::Queue<std::string> queue{{.max_bytes = max_bytes}};
  const child producer([&] {
    const std::string text(text_size, 'x');
    for (long i = 0; i < items; ++i) queue.put(text);
  });
  queue.get();
  const double took = bench::nanoseconds([&] {
    for (long i = 1; i < items; ++i) bench::require(queue.get().size() == text_size, "texts");
  });
  return static_cast<double>(text_size) * static_cast<double>(items) / took;
}
double copies(long items) {
  const std::string from(text_size, 'x');
  std::string to(text_size, 'y');
  const double took = bench::nanoseconds([&] {
    for (long i = 0; i < items; ++i) {
      std::memcpy(to.data(), from.data(), text_size);
      asm volatile("" : : "r"(to.data()) : "memory");
    }
  });
  return static_cast<double>(text_size) * static_cast<double>(items) / took;
}

/// A round trip of one item through two queues.
double round_trip(long rounds) {
  const procpool::Queue<long> there;
  const procpool::Queue<long> back;
  const child other([&] {
    for (const long& each : there) back.put(each);
  });
  there.put(0);
  back.get();
  const double took = bench::nanoseconds([&] {
    for (long i = 0; i < rounds; ++i) {
      there.put(i);
      bench::require(back.get() == i, "round trip");
    }
  });
  there.close();
  return took / static_cast<double>(rounds);
}

#ifdef HAS_MESSAGE_QUEUE
double boost_stream(long items) {
  namespace ipc = boost::interprocess;
  const std::string name = "procpool-bench-" + std::to_string(::getpid());
  ipc::message_queue::remove(name.c_str());
  ipc::message_queue queue(ipc::create_only, name.c_str(), 1024, sizeof(long));
  double took = 0;
  {
    const child producer([&] {
      for (long i = 0; i < items; ++i) queue.send(&i, sizeof i, 0);
    });
    long got = 0;
    std::size_t size = 0;
    unsigned priority = 0;
    queue.receive(&got, sizeof got, size, priority);
    took = bench::nanoseconds([&] {
      for (long i = 1; i < items; ++i) {
        queue.receive(&got, sizeof got, size, priority);
        bench::require(got == i, "message_queue");
      }
    });
  }
  ipc::message_queue::remove(name.c_str());
  return took / static_cast<double>(items);
}
#endif

/// Python's Queue, if there is a python3.
double python_stream(long items) {
  const std::string program =
      "import multiprocessing as m, time\n"
      "def produce(q, n):\n"
      "    for i in range(n): q.put(i)\n"
      "m.set_start_method('fork')\n"
      "q = m.Queue(); n = " +
      std::to_string(items) +
      "\n"
      "p = m.Process(target=produce, args=(q, n)); p.start()\n"
      "q.get(); begin = time.perf_counter()\n"
      "for i in range(n - 1): q.get()\n"
      "print((time.perf_counter() - begin) / n * 1e9); p.join()\n";
  const std::string command = "python3 -c \"" + program + "\" 2>/dev/null";
  std::FILE* const pipe = ::popen(command.c_str(), "r");
  double took = 0;
  if (pipe == nullptr || std::fscanf(pipe, "%lf", &took) != 1) took = 0;
  if (pipe != nullptr) ::pclose(pipe);
  return took;
}

struct contender {
  const char* who;
  std::function<double()> run;
};

/// By turns, so that all see the same machine.
void compare(const char* measure, const char* unit, const std::vector<contender>& contenders) {
  const int times = bench::scaled(9, 2);
  std::vector<std::vector<double>> values(contenders.size());
  for (int i = 0; i < times; ++i) {
    for (std::size_t c = 0; c < contenders.size(); ++c) values[c].push_back(contenders[c].run());
  }
  for (std::size_t c = 0; c < contenders.size(); ++c) {
    const double value = bench::median(values[c]);
    if (value != 0) bench::report(measure, contenders[c].who, value, unit);
  }
}

void queue_stream() {
  const long items = bench::scaled(1'000'000L, 10'000L);
  compare("queue_stream", "ns",
          {{"two lines", [=] { return ping_pong(items / 4); }},
           {"procpool", [=] { return stream(items); }},
#ifdef HAS_MESSAGE_QUEUE
           {"message_queue", [=] { return boost_stream(items / 4); }},
#endif
           {"Python", [=] { return python_stream(items / 50); }}});
}
void queue_batches() {
  const long items = bench::scaled(4'000'000L, 64'000L);
  compare("queue_batches", "ns",
          {{"two lines", [=] { return ping_pong(items / 16); }},
           {"procpool", [=] { return batches(items); }}});
}
void queue_texts() {
  const long items = bench::scaled(20'000L, 200L);
  compare("queue_texts", "GB/s",
          {{"memcpy", [=] { return copies(items); }},
           {"procpool", [=] { return texts(items, 0); }},
           {"procpool, at most 1 MiB", [=] { return texts(items, 1 << 20); }}});
}
void queue_round_trip() {
  const long rounds = bench::scaled(200'000L, 2'000L);
  compare("queue_round_trip", "ns",
          {{"two lines", [=] { return ping_pong(rounds); }},
           {"procpool", [=] { return round_trip(rounds); }}});
}

}  // namespace

BENCH_MAIN({"queue_stream", queue_stream}, {"queue_batches", queue_batches},
           {"queue_texts", queue_texts}, {"queue_round_trip", queue_round_trip})
