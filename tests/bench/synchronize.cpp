// SPDX-License-Identifier: MIT
/// @file
/// Locks, wake-ups and shared values, each beside what the system offers for it.
#include <linux/futex.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <new>
#include <string>
#include <vector>

#include <procpool/procpool.hpp>

#include "bench.hpp"

namespace {

/// A value in memory that children share.
template <class T>
class shared {
 public:
  shared()
      : value_(new (::mmap(nullptr, sizeof(T), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
                           -1, 0)) T{}) {}
  shared(const shared&) = delete;
  shared& operator=(const shared&) = delete;
  ~shared() { ::munmap(value_, sizeof(T)); }
  T* operator->() const { return value_; }
  T& operator*() const { return *value_; }

 private:
  T* value_;
};

class process_shared_mutex {
 public:
  process_shared_mutex() {
    pthread_mutexattr_t attributes{};
    ::pthread_mutexattr_init(&attributes);
    ::pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
    ::pthread_mutex_init(&*mutex_, &attributes);
    ::pthread_mutexattr_destroy(&attributes);
  }
  void lock() { ::pthread_mutex_lock(&*mutex_); }
  void unlock() { ::pthread_mutex_unlock(&*mutex_); }

 private:
  shared<pthread_mutex_t> mutex_;
};

int rounds() {
  return bench::scaled(15, 3);
}

template <class Measure, class Other>
void compare(const char* measure, const char* who, Measure ours, const char* other_name,
             Other theirs) {
  std::vector<double> a;
  std::vector<double> b;
  for (int i = 0; i < rounds(); ++i) {  // in turn: the machine's mood is the same for both
    a.push_back(ours());
    b.push_back(theirs());
  }
  bench::report(measure, who, bench::median(a), "ns");
  bench::report(measure, other_name, bench::median(b), "ns");
}

template <class Work>
double each_of(int count, Work work) {
  return bench::nanoseconds([&] {
           for (int i = 0; i < count; ++i) work();
         }) /
         count;
}

template <class L>
double alone(L& lock) {
  return each_of(bench::scaled(500'000, 1000), [&] {
    lock.lock();
    lock.unlock();
  });
}

void lock_uncontended() {
  procpool::Lock lock;
  process_shared_mutex mutex;
  compare(
      "lock_uncontended", "procpool", [&] { return alone(lock); }, "pthread mutex",
      [&] { return alone(mutex); });
}

struct race {
  std::atomic<int> ready;
  std::atomic<bool> go;
  long count;
};

// Processes that count under one lock, with some work of their own in between.
template <class L>
double contended(L& lock, int processes) {
  const shared<race> track;
  const int each = bench::scaled(400'000, 4000) / processes;
  for (int i = 0; i < processes; ++i) {
    if (::fork() != 0) continue;
    ++track->ready;
    while (!track->go) ::sched_yield();
    for (int turn = 0; turn < each; ++turn) {
      lock.lock();
      ++track->count;
      lock.unlock();
      static_cast<void>(bench::spin_work(20));
    }
    ::_exit(0);
  }
  while (track->ready != processes) ::usleep(50);
  const double time = bench::nanoseconds([&] {
    track->go = true;
    for (int i = 0; i < processes; ++i) ::wait(nullptr);
  });
  bench::require(track->count == static_cast<long>(each) * processes, "count under a lock");
  return time / (static_cast<double>(each) * processes);
}

template <int Processes>
void lock_contended() {
  procpool::Lock lock;
  process_shared_mutex mutex;
  const std::string measure = "lock_contended_" + std::to_string(Processes);
  compare(
      measure.c_str(), "procpool", [&] { return contended(lock, Processes); }, "pthread mutex",
      [&] { return contended(mutex, Processes); });
}

// ---- wake-ups: two processes wake each other in turn ----

class futex_turns {
 public:
  void wait(std::uint32_t number) {
    while (true) {
      const std::uint32_t seen = *word_;
      if (seen >= number) return;
      ::syscall(SYS_futex, &*word_, FUTEX_WAIT, seen, nullptr, nullptr, 0);
    }
  }
  void post(std::uint32_t number) {
    *word_ = number;
    ::syscall(SYS_futex, &*word_, FUTEX_WAKE, 1, nullptr, nullptr, 0);
  }

 private:
  shared<std::atomic<std::uint32_t>> word_;
};

class event_turns {
 public:
  void wait(std::uint32_t) {
    event_.wait();
    event_.clear();
  }
  void post(std::uint32_t) { event_.set(); }

 private:
  procpool::Event event_;
};

class condition_turns {
 public:
  void wait(std::uint32_t number) {
    std::unique_lock held(condition_);
    condition_.wait(held, [&] { return *number_ >= number; });
  }
  void post(std::uint32_t number) {
    const std::scoped_lock held(condition_);
    *number_ = number;
    condition_.notify();
  }

 private:
  procpool::Condition condition_;
  shared<std::uint32_t> number_;
};

template <class Turns>
double ping_pong() {
  Turns there;
  Turns back;
  const auto count = bench::scaled<std::uint32_t>(10'000, 100);
  const pid_t child = ::fork();
  if (child == 0) {
    for (std::uint32_t i = 1; i <= count; ++i) {
      there.wait(i);
      back.post(i);
    }
    ::_exit(0);
  }
  const double time = bench::nanoseconds([&] {
    for (std::uint32_t i = 1; i <= count; ++i) {
      there.post(i);
      back.wait(i);
    }
  });
  ::waitpid(child, nullptr, 0);
  return time / (2.0 * count);
}

void event_wakeup() {
  compare("event_wakeup", "procpool", ping_pong<event_turns>, "futex", ping_pong<futex_turns>);
}
void condition_wakeup() {
  compare("condition_wakeup", "procpool", ping_pong<condition_turns>, "futex",
          ping_pong<futex_turns>);
}

// ---- values ----

struct point {
  double x, y, z;
};

void value_increment() {
  procpool::Value<long> value{0};
  procpool::Value<point> large;
  const int count = bench::scaled(500'000, 1000);
  compare(
      "value_increment", "update",
      [&] { return each_of(count, [&] { value.update([](long& v) { ++v; }); }); }, "get_lock",
      [&] {
        return each_of(count, [&] {
          const std::scoped_lock guard(value.get_lock());
          value.value() += 1;
        });
      });
  compare(
      "value_of_24_bytes", "update",
      [&] { return each_of(count, [&] { large.update([](point& v) { v.x += 1; }); }); }, "get",
      [&] {
        double sum = 0;
        const double time = each_of(count, [&] { sum += large.get().x; });
        bench::require(sum >= 0, "values");
        return time;
      });
}

void semaphores() {
  procpool::Semaphore semaphore{1};
  procpool::BoundedSemaphore bounded{2};
  compare(
      "semaphore_uncontended", "Semaphore",
      [&] {
        return each_of(bench::scaled(500'000, 1000), [&] {
          semaphore.acquire();
          semaphore.release();
        });
      },
      "BoundedSemaphore",
      [&] {
        return each_of(bench::scaled(500'000, 1000), [&] {
          bounded.acquire();
          bounded.release();
        });
      });
}

}  // namespace

BENCH_MAIN({"lock_uncontended", lock_uncontended}, {"lock_contended_2", lock_contended<2>},
           {"lock_contended_8", lock_contended<8>}, {"event_wakeup", event_wakeup},
           {"condition_wakeup", condition_wakeup}, {"value_increment", value_increment},
           {"semaphore_uncontended", semaphores})
