// SPDX-License-Identifier: MIT
/// @file
/// What is done with procpool while allocations fail: each kind of call, alone.
#pragma once

#include <signal.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <coroutine>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <functional>
#include <numeric>
#include <optional>
#include <procpool/map_reduce.hpp>
#include <procpool/procpool.hpp>
#include <stdexcept>
#include <string>
#include <thread>
#include <tuple>
#include <utility>
#include <vector>

#include "failing_memory.hpp"

namespace allocation {

using namespace std::chrono_literals;

/// What became of a call during which allocations failed.
enum class outcome { fine, bad_alloc, error, other };

/// Lets allocations fail in one call of a scenario.
class injector {
 public:
  injector(long succeed, long fail) : succeed_(succeed), fail_(fail) {}

  /// Calls @p call, which throws std::bad_alloc or one of procpool's errors, or nothing.
  template <class Call>
  void in(Call call) {
    failing_memory::arm(succeed_, fail_);
    try {
      call();
      failing_memory::disarm();
    } catch (const std::bad_alloc&) {
      failing_memory::disarm();
      what_ = outcome::bad_alloc;
    } catch (const procpool::Error& error) {
      failing_memory::disarm();
      what_ = outcome::error;
      text_ = error.what();
    } catch (const std::exception& error) {
      failing_memory::disarm();
      what_ = outcome::other;
      text_ = error.what();
    }
    hit_ = failing_memory::injected > 0;
  }
  [[nodiscard]] outcome what() const { return what_; }
  [[nodiscard]] const std::string& text() const { return text_; }
  /// Whether any allocation has failed.
  [[nodiscard]] bool hit() const { return hit_; }

 private:
  long succeed_;
  long fail_;
  outcome what_ = outcome::fine;
  std::string text_;
  bool hit_ = false;
};

// ---- what workers do ---------------------------------------------------------------------------

inline long square(long x) {
  return x * x;
}
inline long add(long x, long y) {
  return x + y;
}
inline std::string reversed(std::string text) {
  std::ranges::reverse(text);
  return text;
}
inline long refuse(long x) {
  throw std::runtime_error("refused, with a text that is too long for a string itself " +
                           std::to_string(x));
}
inline long nap(long milliseconds) {
  std::this_thread::sleep_for(std::chrono::milliseconds(milliseconds));
  return milliseconds;
}
inline long die(long x) {
  ::kill(::getpid(), SIGKILL);
  return x;
}
inline long crash(long x) {
  ::raise(SIGSEGV);
  return x;
}
inline long die_once(long x) {
  return procpool::current_worker().attempt() == 1 ? die(x) : x;
}
inline long die_at_7(long x) {
  return x == 7 ? die(x) : x;
}
inline void nothing() {}

// ---- scenarios ---------------------------------------------------------------------------------

inline std::vector<long> numbers(long count) {
  std::vector<long> all(static_cast<std::size_t>(count));
  std::iota(all.begin(), all.end(), 0L);
  return all;
}

/// Ends the test's process: what it says is on its stderr, and its status tells.
[[noreturn]] inline void wrong(const char* what) {
  std::fprintf(stderr, "WRONG: %s\n", what);
  ::_exit(3);
}

/// The pool works, or says that it is broken.
template <class Pool>
bool check(Pool& pool) {
  try {
    if (pool.apply_async(square, 3L).get(8s) != 9) wrong("a wrong result");
    const auto texts = pool.map(reversed, std::vector<std::string>{"ab", "cd"});
    if (texts.at(1) != "dc") wrong("wrong results");
    return true;
  } catch (const procpool::BrokenPool&) {
    return false;
  } catch (const procpool::PoolClosed&) {  // by the scenario
    return true;
  } catch (const procpool::TimeoutError&) {
    wrong("stuck: neither does it work nor does it say that it is broken");
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    wrong("it fails though all is well now");
  }
}

template <class T>
void all_end(const std::vector<procpool::AsyncResult<T>>& results) {
  for (const auto& each : results) {
    if (!each.wait(8s)) wrong("a result that never comes");
  }
}

/// With a pool that has begun.
template <class Pool>
using script = void (*)(Pool& pool, injector& fail);

template <class Pool>
struct scenario {
  const char* name;
  bool processes;  ///< of which it needs workers
  script<Pool> play;
};

struct waiting_coroutine {
  struct promise_type {
    waiting_coroutine get_return_object() { return {}; }
    std::suspend_never initial_suspend() noexcept { return {}; }
    std::suspend_never final_suspend() noexcept { return {}; }
    void return_void() {}
    void unhandled_exception() {}
  };
};
inline waiting_coroutine wait_in_coroutine(procpool::AsyncResult<long> result, bool& done) {
  const long value = co_await result;
  done = value == 16;
}

template <class Pool>
void call_back(Pool& pool, injector& fail) {
  static std::atomic<int> called;  // a call that fails leaves those before it under way
  called = 0;
  fail.in([&] {
    auto one = pool.apply_async({.callback = [](long) { ++called; }}, square, 4L);
    auto two = pool.apply_async({.error_callback = [](const std::exception_ptr&) { ++called; }},
                                refuse, 4L);
    auto three =
        pool.apply_async({.callback = [](long) { throw std::runtime_error("no"); }}, square, 4L);
    one.wait(8s), two.wait(8s), three.wait(8s);
    if (!one.ready() || !two.ready() || !three.ready()) wrong("a result that never comes");
    if (called != 2) wrong("a callback was not called");
  });
}

template <class Pool>
void done_callbacks(Pool& pool, injector& fail) {
  static std::atomic<int> called;
  fail.in([&] {
    auto one = pool.apply_async(nap, 2L);
    one.add_done_callback([](procpool::AsyncResult<long>&) { ++called; });
    one.add_done_callback([](procpool::AsyncResult<long>&) { throw std::runtime_error("no"); });
    if (!one.wait(8s)) wrong("a result that never comes");
  });
  pool.close();
  pool.join();  // waits for them
}

template <class Pool>
void cancelling(Pool& pool, injector& fail) {
  std::vector<procpool::AsyncResult<long>> results;
  for (int i = 0; i < 6; ++i) results.push_back(pool.apply_async(nap, 20L));
  auto map = pool.map_async(nap, std::vector<long>(6, 1));
  fail.in([&] {
    results[5].cancel();
    results[3].cancel();
    map.cancel();
  });
  all_end(results);
  if (!map.wait(8s)) wrong("a map that never comes");
}

template <class Pool>
void killing(Pool& pool, injector& fail) {
  std::vector<procpool::AsyncResult<std::string>> texts;
  auto first = pool.apply_async(nap, 60'000L);
  for (int i = 0; i < 4; ++i) texts.push_back(pool.apply_async(reversed, std::string(100, 'x')));
  while (!first.running() && !first.wait(1ms)) continue;
  fail.in([&] { first.cancel({.kill = true}); });
  if (!first.ready() && !first.cancel({.kill = true})) wrong("it cannot be cancelled");
  all_end(texts);
}

template <class Pool>
void killing_map(Pool& pool, injector& fail) {
  // Workers that have done many short tasks get many at a time.
  pool.map(square, std::vector<long>(3000, 1), {.chunksize = 1});
  auto map = pool.map_async(nap, std::vector<long>{300, 1, 1}, {.chunksize = 1});
  auto text = pool.apply_async(reversed, std::string(1000, 'x'));
  while (!map.running() && !map.wait(1ms)) continue;
  fail.in([&] { map.cancel({.kill = true}); });
  if (!map.wait(8s)) wrong("a map that never comes");
  if (!text.wait(8s)) wrong("a result that never comes");
}

template <class Pool>
void leaving(Pool& pool, injector& fail) {
  const auto items = numbers(50);
  fail.in([&] {
    auto lazy = pool.imap(square, items, {.chunksize = 2, .buffersize = 20});
    static_cast<void>(lazy.next());
    auto other = pool.imap_unordered(square, items, {.chunksize = 1, .buffersize = 10});
    static_cast<void>(other.next());
  });
}

template <class Pool>
void ended_with_work(Pool& pool, injector& fail) {
  std::vector<procpool::AsyncResult<long>> results;
  for (int i = 0; i < 6; ++i) {
    results.push_back(pool.apply_async({.callback = [](long) {}}, nap, 5L));
  }
  fail.in([&] { pool.terminate(); });
  pool.terminate();
  all_end(results);
}

template <class Pool>
void completed(Pool& pool, injector& fail) {
  std::vector<procpool::AsyncResult<long>> results;
  for (long i = 0; i < 5; ++i) results.push_back(pool.apply_async(nap, 2 * i));
  fail.in([&] {
    int seen = 0;
    for (auto& each : procpool::as_completed(results)) seen += each.ready();
    if (seen != 5) wrong("not all were completed");
  });
  all_end(results);
}

template <class Pool>
void waiting(Pool& pool, injector& fail) {
  Pool other{1};
  std::vector<procpool::AsyncResult<long>> results{pool.apply_async(nap, 1L),
                                                   other.apply_async(nap, 4L)};
  fail.in([&] {
    static_cast<void>(procpool::wait(results, procpool::FIRST_COMPLETED));
    static_cast<void>(procpool::wait(results));
  });
  all_end(results);
}

template <class Pool>
void replaying(Pool& pool, injector& fail) {
  auto failed = pool.apply_async(refuse, 7L);
  failed.wait();
  fail.in([&] {
    try {
      failed.replay();
    } catch (const std::runtime_error&) {
    }
  });
}

/// All kinds of calls.
template <class Pool>
std::vector<scenario<Pool>> scenarios() {
  // Destructors of what is left in flight run while memory fails, too: so inside the calls.
  return {
      {"apply", false, [](Pool& p, injector& fail) { fail.in([&] { p.apply(square, 2L); }); }},
      {"apply of texts", false,
       [](Pool& p, injector& fail) {
         fail.in([&] { p.apply(reversed, std::string(3000, 'a')); });
       }},
      {"apply of a large text", false,
       [](Pool& p, injector& fail) {
         const std::string large(300'000, 'a');
         fail.in([&] { p.apply(reversed, large); });
       }},
      {"apply that throws", false,
       [](Pool& p, injector& fail) {
         fail.in([&] {
           try {
             p.apply(refuse, 2L);
           } catch (const procpool::Error&) {
             throw;
           } catch (const std::runtime_error&) {  // its own
           }
         });
       }},
      {"apply_async", false,
       [](Pool& p, injector& fail) {
         std::vector<procpool::AsyncResult<long>> results;
         results.reserve(40);
         fail.in([&] {
           for (long i = 0; i < 40; ++i) results.push_back(p.apply_async(square, i));
         });
         all_end(results);
       }},
      {"map", false,
       [](Pool& p, injector& fail) {
         const auto items = numbers(60);
         fail.in([&] { p.map(square, items, {.chunksize = 7}); });
       }},
      {"map of texts", false,
       [](Pool& p, injector& fail) {
         const std::vector<std::string> items(12, std::string(40, 'x'));
         fail.in([&] { p.map(reversed, items); });
       }},
      {"map_async", false,
       [](Pool& p, injector& fail) {
         const auto items = numbers(30);
         fail.in([&] {
           auto all = p.map_async(square, items, {.callback = [](std::vector<long>&) {}});
           if (!all.wait(8s)) wrong("a map that never comes");
           auto none = p.map_async(square, std::vector<long>{}, {.callback = [](auto&) {}});
           if (!none.wait(8s)) wrong("an empty map that never comes");
         });
       }},
      {"starmap", false,
       [](Pool& p, injector& fail) {
         const std::vector<std::tuple<long, long>> pairs{{1, 2}, {3, 4}, {5, 6}};
         fail.in([&] { p.starmap(add, pairs); });
       }},
      {"map_outcomes", false,
       [](Pool& p, injector& fail) {
         const auto items = numbers(20);
         fail.in([&] { static_cast<void>(p.map_outcomes(refuse, items)); });
       }},
      {"map_reduce", false,
       [](Pool& p, injector& fail) {
         const auto items = numbers(40);
         fail.in([&] { p.map_reduce(square, items, std::plus<>(), {.chunksize = 5}); });
       }},
      {"imap", false,
       [](Pool& p, injector& fail) {
         const auto items = numbers(30);
         fail.in([&] {
           for (const long each : p.imap(square, items, {.chunksize = 4, .buffersize = 8})) {
             if (each < 0) wrong("imap");
           }
         });
       }},
      {"imap_unordered", false,
       [](Pool& p, injector& fail) {
         const auto items = numbers(30);
         fail.in([&] {
           for (const long each : p.imap_unordered(square, items, {.buffersize = 5})) {
             if (each < 0) wrong("imap_unordered");
           }
         });
       }},
      {"imap left early", false, leaving<Pool>},
      {"callbacks", false, call_back<Pool>},
      {"done callbacks", false, done_callbacks<Pool>},
      {"a coroutine", false,
       [](Pool& p, injector& fail) {
         bool done = false;
         fail.in([&] {
           auto result = p.apply_async(square, 4L);
           wait_in_coroutine(result, done);
           result.wait();
         });
         p.close();
         p.join();
       }},
      {"fileno", false,
       [](Pool& p, injector& fail) {
         fail.in([&] {
           static_cast<void>(p.fileno());
           p.apply_async(square, 4L).wait();
         });
       }},
      {"cancel", false, cancelling<Pool>},
      {"cancel with kill", true, killing<Pool>},
      {"cancel a map with kill", true, killing_map<Pool>},
      {"stop", true,
       [](Pool& p, injector& fail) {
         std::stop_source source;
         std::jthread stopper([&] {
           std::this_thread::sleep_for(2ms);
           source.request_stop();
         });
         fail.in([&] { p.apply({.stop = source.get_token()}, nap, 300L); });
       }},
      {"a death", true, [](Pool& p, injector& fail) { fail.in([&] { p.apply(die, 1L); }); }},
      {"a crash", true, [](Pool& p, injector& fail) { fail.in([&] { p.apply(crash, 1L); }); }},
      {"a death in a map", true,
       [](Pool& p, injector& fail) {
         const auto items = numbers(40);
         fail.in([&] { static_cast<void>(p.map_outcomes(die_at_7, items, {.chunksize = 3})); });
       }},
      {"a death before others", true,
       [](Pool& p, injector& fail) {
         std::vector<procpool::AsyncResult<std::string>> texts;
         auto first = p.apply_async(die, 1L);
         for (int i = 0; i < 8; ++i) texts.push_back(p.apply_async(reversed, std::string(99, 'x')));
         fail.in([&] { static_cast<void>(first.wait(8s)); });
         if (!first.wait(8s)) wrong("a result that never comes");
         all_end(texts);
       }},
      {"a time limit", true,
       [](Pool& p, injector& fail) { fail.in([&] { p.apply({.timeout = 5ms}, nap, 60'000L); }); }},
      {"retries", true,
       [](Pool& p, injector& fail) { fail.in([&] { p.apply({.retries = 2}, die_once, 1L); }); }},
      {"terminate", false, ended_with_work<Pool>},
      {"close and join", false,
       [](Pool& p, injector& fail) {
         auto left = p.map_async(square, numbers(20));
         fail.in([&] {
           p.close();
           p.join();
         });
         p.terminate();
         if (!left.wait(8s)) wrong("a map that never comes");
       }},
      {"resize", false,
       [](Pool& p, injector& fail) {
         fail.in([&] {
           p.resize(3);
           p.map(square, numbers(20));
           p.resize(1);
           p.map(square, numbers(20));
         });
       }},
      {"as_completed", false, completed<Pool>},
      {"wait", false, waiting<Pool>},
      {"replay", false, replaying<Pool>},
  };
}

}  // namespace allocation
