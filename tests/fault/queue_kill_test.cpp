// SPDX-License-Identifier: MIT
// Attacks on queues: a process is killed after every single instruction of put, get, put_many,
// get_many and task_done, while others wait in the queue. Nothing may be stuck, lost or doubled but
// the values of the call that was killed, and those in whole.
#include <signal.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

#include <catch2/catch_test_macros.hpp>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <numeric>
#include <optional>
#include <random>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <procpool/detail/heap/owner_lock.hpp>
#include <procpool/procpool.hpp>

#include "fault/stepper.hpp"
#include "support/child.hpp"
#include "support/shared.hpp"

namespace {

using procpool::JoinableQueue;
using procpool::Queue;
using namespace std::chrono_literals;
using clock_type = std::chrono::steady_clock;

/// How long others may be held up.
constexpr auto allowed = 100ms;
/// On a machine that is shared with others a process may not run for a while. Counted, and more
/// than a few are a failure.
constexpr auto patience = 10s;

/// A child that stops before @p call, and again after it.
class victim {
 public:
  explicit victim(const std::function<void()>& call) : pid_(::fork()) {
    if (pid_ == 0) {
      ::ptrace(PTRACE_TRACEME, 0, nullptr, nullptr);
      static_cast<void>(procpool::detail::this_owner());
      ::raise(SIGSTOP);
      call();
      ::raise(SIGSTOP);
      ::_exit(0);
    }
    static_cast<void>(wait_stop());
  }
  victim(const victim&) = delete;
  victim& operator=(const victim&) = delete;
  ~victim() {
    if (pid_ > 0) kill_it(true);
  }

  /// @returns false: the call has returned
  bool run(std::size_t instructions) {
    for (std::size_t i = 0; i < instructions; ++i) {
      if (::ptrace(PTRACE_SINGLESTEP, pid_, nullptr, nullptr) != 0) return false;
      if (wait_stop() == SIGSTOP) return false;
    }
    return true;
  }

  void kill_it(bool tell) {
    ::kill(pid_, SIGKILL);
    int status = 0;
    while (::waitpid(pid_, &status, __WALL) == pid_ && WIFSTOPPED(status)) continue;
    if (tell) procpool::detail::process_was_reaped(pid_);
    pid_ = 0;
  }

 private:
  int wait_stop() const {
    int status = 0;
    if (::waitpid(pid_, &status, __WALL) != pid_ || !WIFSTOPPED(status)) {
      throw std::runtime_error("the victim ended by itself");
    }
    return WSTOPSIG(status);
  }

  pid_t pid_;
};

struct tally {
  std::size_t kills = 0;
  std::size_t wrong = 0;
  std::size_t late = 0;  ///< somebody was held up for longer than allowed
  std::size_t done = 0;  ///< the call had its effect
  clock_type::duration longest{};
  std::string first_fault;

  void note(clock_type::duration held_up) {
    longest = std::max(longest, held_up);
    if (held_up > allowed) ++late;
  }
  void fault(std::size_t instructions, const std::string& what) {
    ++wrong;
    if (first_fault.empty()) {
      first_fault = "killed after " + std::to_string(instructions) + " instructions: " + what;
    }
  }
};

std::string text_of(const std::vector<long>& values) {
  std::string text;
  for (const long value : values) text += std::to_string(value) + " ";
  return text;
}

/// One attack: prepare, the call of the victim, and what is done and checked afterwards.
struct attack {
  std::function<void()> prepare;
  std::function<void()> call;
  /// Runs on a thread that begins before the kill, so that it may wait for the victim.
  std::function<void()> meanwhile;
  /// After the kill. @returns what is wrong; and whether the call had its effect
  std::function<std::pair<std::string, bool>()> check;
};

/// Kills after 0, 1, 2 ... instructions until the call returns.
tally kill_everywhere(const attack& what, std::size_t stride = 1) {
  tally counts;
  bool returned = false;
  bool done_before = false;
  for (std::size_t n = 0; !returned && n < 100'000; n += stride) {
    what.prepare();
    victim target(what.call);
    returned = !target.run(n);
    std::atomic<bool> finished = false;
    clock_type::time_point end;
    std::thread other([&] {
      what.meanwhile();
      end = clock_type::now();
      finished = true;
    });
    if (n % 4 == 0) {  // it comes to the lock, or sleeps
      for (int i = 0; i < 20 && !finished; ++i) std::this_thread::sleep_for(100us);
    }
    const auto begin = clock_type::now();
    target.kill_it(n % 2 == 0);
    ++counts.kills;
    other.join();
    counts.note(end > begin ? end - begin : clock_type::duration{});
    const auto [fault, done] = what.check();
    if (!fault.empty()) counts.fault(n, fault);
    if (done_before && !done) counts.fault(n, "it was done after fewer instructions");
    if (returned && !done) counts.fault(n, "it returned and was not done");
    done_before = done;
    if (done) ++counts.done;
    procpool::detail::collect_dead_processes();
  }
  return counts;
}

void judge(const char* name, const tally& counts) {
  std::printf("%s: %zu kills, %zu with effect, %zu wrong, %zu late, longest hold-up %.1f ms\n",
              name, counts.kills, counts.done, counts.wrong, counts.late,
              std::chrono::duration<double, std::milli>(counts.longest).count());
  INFO(counts.first_fault);
  CHECK(counts.wrong == 0);
  CHECK(counts.kills > 50);
  CHECK(counts.done > 0);
  CHECK(counts.done < counts.kills);
  CHECK(counts.late * 50 <= counts.kills);
}

std::vector<long> drain(const Queue<long>& queue) {
  std::vector<long> values;
  while (const auto value = queue.try_get()) values.push_back(*value);
  return values;
}

std::string compare(const std::vector<long>& got, const std::vector<long>& wanted) {
  return got == wanted ? "" : "got " + text_of(got) + "instead of " + text_of(wanted);
}

}  // namespace

#define NEEDS_TRACING()                                          \
  if (const auto why = fault::tracing_refused(); !why.empty()) { \
    SKIP("processes cannot be traced here: " << why);            \
  }

TEST_CASE("killed after every instruction of put, while another one puts", "[limit:300]") {
  NEEDS_TRACING();
  std::optional<Queue<long>> queue;
  attack what;
  what.prepare = [&] {
    queue.emplace();
    queue->put(1);
  };
  what.call = [&] { queue->put(2); };
  what.meanwhile = [&] { queue->put(3); };
  what.check = [&]() -> std::pair<std::string, bool> {
    const auto got = drain(*queue);
    const bool done = std::ranges::find(got, 2) != got.end();
    if (!done) return {compare(got, {1, 3}), false};
    const bool order = got.size() == 3 && got[1] == 3;
    return {compare(got, order ? std::vector<long>{1, 3, 2} : std::vector<long>{1, 2, 3}), true};
  };
  judge("put", kill_everywhere(what));
}

TEST_CASE("killed after every instruction of put into the next segment, while another one waits",
          "[limit:300]") {
  NEEDS_TRACING();
  using texts = Queue<std::vector<long>>;
  std::optional<texts> queue;
  std::vector<long> got;
  attack what;
  what.prepare = [&] {
    queue.emplace();
    queue->put(std::vector<long>(8'180, 1));  // nearly fills the first segment
    got.clear();
  };
  what.call = [&] { queue->put(std::vector<long>(10, 2)); };
  what.meanwhile = [&] {
    while (true) {  // it may be asleep when the value comes
      const auto value = queue->try_get(5ms);
      if (!value) break;
      got.push_back(static_cast<long>(value->size()));
    }
  };
  what.check = [&]() -> std::pair<std::string, bool> {
    queue->put(std::vector<long>(3, 3));
    const auto begin = clock_type::now();
    while (true) {
      const auto value = queue->try_get(patience);
      if (!value || clock_type::now() - begin > patience) return {"stuck", false};
      got.push_back(static_cast<long>(value->size()));
      if (value->size() == 3) break;
    }
    const bool done = got.size() > 1 && got[1] == 10;
    return {compare(got, done ? std::vector<long>{8'180, 10, 3} : std::vector<long>{8'180, 3}),
            done};
  };
  judge("put, next segment", kill_everywhere(what, 5));
}

TEST_CASE("killed after every instruction of put, while another one waits for the value",
          "[limit:300]") {
  NEEDS_TRACING();
  std::optional<Queue<long>> queue;
  std::vector<long> got;
  attack what;
  what.prepare = [&] {
    queue.emplace();
    got.clear();
  };
  what.call = [&] { queue->put(2); };
  what.meanwhile = [&] {
    std::thread reader([&] { got.push_back(queue->get()); });
    std::this_thread::sleep_for(3ms);
    queue->put(3);
    reader.join();
  };
  what.check = [&]() -> std::pair<std::string, bool> {
    for (const long each : drain(*queue)) got.push_back(each);
    std::ranges::sort(got);
    const bool done = got.front() == 2;
    return {compare(got, done ? std::vector<long>{2, 3} : std::vector<long>{3}), done};
  };
  judge("put, a consumer waits", kill_everywhere(what, 3));
}

TEST_CASE("killed after every instruction of get, while others get and wait for room",
          "[limit:300]") {
  NEEDS_TRACING();
  std::optional<Queue<long>> queue;
  std::vector<long> got;
  attack what;
  what.prepare = [&] {
    queue.emplace(procpool::queue_options{.maxsize = 2});
    queue->put(1);
    queue->put(2);
    got.clear();
  };
  what.call = [&] { queue->get(); };
  what.meanwhile = [&] {
    std::thread writer([&] { queue->put(3); });  // full at first
    for (int i = 0; i < 2; ++i) got.push_back(queue->get());
    writer.join();
  };
  what.check = [&]() -> std::pair<std::string, bool> {
    for (const long each : drain(*queue)) got.push_back(each);
    const bool done = got.front() == 2;
    if (got.size() == 3) return {compare(got, {1, 2, 3}), false};
    if (got.size() == 2 && got.front() == 1) return {compare(got, {1, 3}), true};
    return {compare(got, {2, 3}), done};
  };
  judge("get", kill_everywhere(what));
}

TEST_CASE("killed after every instruction of put_many: all or none", "[limit:300]") {
  NEEDS_TRACING();
  std::optional<Queue<long>> queue;
  const std::vector<long> values{2, 3, 4, 5};
  attack what;
  what.prepare = [&] {
    queue.emplace();
    queue->put(1);
  };
  what.call = [&] { queue->put_many(values); };
  what.meanwhile = [&] { queue->put(9); };
  what.check = [&]() -> std::pair<std::string, bool> {
    const auto got = drain(*queue);
    const bool done = got.size() > 2;
    if (!done) return {compare(got, {1, 9}), false};
    return {compare(got, got[1] == 9 ? std::vector<long>{1, 9, 2, 3, 4, 5}
                                     : std::vector<long>{1, 2, 3, 4, 5, 9}),
            true};
  };
  judge("put_many", kill_everywhere(what));
}

TEST_CASE("killed after every instruction of get_many: all or none", "[limit:300]") {
  NEEDS_TRACING();
  std::optional<Queue<long>> queue;
  long first = 0;
  attack what;
  what.prepare = [&] {
    queue.emplace();
    queue->put_many(std::vector<long>{1, 2, 3, 4, 5});
  };
  what.call = [&] { queue->get_many(3); };
  what.meanwhile = [&] { first = queue->get(); };
  what.check = [&]() -> std::pair<std::string, bool> {
    auto got = drain(*queue);
    got.insert(got.begin(), first);
    // The other one may have taken the 1 before: then these three were 2, 3, 4.
    if (got.size() == 5) return {compare(got, {1, 2, 3, 4, 5}), false};
    return {compare(got, first == 1 ? std::vector<long>{1, 5} : std::vector<long>{4, 5}), true};
  };
  judge("get_many", kill_everywhere(what));
}

TEST_CASE("killed after every instruction of get and task_done, while another one joins",
          "[limit:300]") {
  NEEDS_TRACING();
  std::optional<JoinableQueue<long>> queue;
  bool joined = false;
  attack what;
  what.prepare = [&] {
    queue.emplace();
    queue->put(1);
  };
  what.call = [&] {
    queue->get();
    queue->task_done();
  };
  what.meanwhile = [&] {
    // The value is taken by the victim, or is still there.
    if (queue->try_get()) queue->task_done();
    joined = queue->join(patience);
  };
  what.check = [&]() -> std::pair<std::string, bool> {
    if (!joined) return {"join() waits for a dead process", false};
    bool too_many = false;
    try {
      queue->task_done();
    } catch (const std::logic_error&) {
      too_many = true;
    }
    return {too_many ? "" : "an item was counted twice", true};
  };
  const tally counts = kill_everywhere(what, 3);
  std::printf("get and task_done: %zu kills, %zu wrong, %zu late, longest hold-up %.1f ms\n",
              counts.kills, counts.wrong, counts.late,
              std::chrono::duration<double, std::milli>(counts.longest).count());
  INFO(counts.first_fault);
  CHECK(counts.wrong == 0);
  CHECK(counts.late * 50 <= counts.kills);
}

TEST_CASE("a storm: producers and consumers are killed at any time", "[limit:300]") {
  // PROCPOOL_QUEUE_KILLS: how many.
  const char* const option = std::getenv("PROCPOOL_QUEUE_KILLS");
  const int wanted = option != nullptr ? std::atoi(option) : 300;
  struct item {
    long producer = 0;
    long number = 0;
  };
  const Queue<item> queue{{.maxsize = 500}};
  const Queue<item> seen;  // what consumers got, in their order
  std::minstd_rand random(5);
  long producers = 0;
  std::vector<std::pair<pid_t, bool>> crowd;  // and whether it produces
  const auto start = [&](bool produces) {
    const long name = ++producers;
    crowd.emplace_back(support::start_child([&, name] {
                         for (long i = 0;; ++i) {
                           if (produces) {
                             if (i % 3 == 0) {
                               queue.put_many(std::vector<item>{{name, 3 * i}, {name, 3 * i + 1}});
                             } else {
                               queue.put({name, 3 * i});
                             }
                           } else {
                             seen.put(queue.get());
                           }
                         }
                         return 0;
                       }),
                       produces);
  };
  for (int i = 0; i < 3; ++i) {
    start(true);
    start(false);
  }
  std::vector<long> last;
  std::size_t got = 0;
  std::size_t disorder = 0;
  std::size_t stuck = 0;
  clock_type::duration longest{};
  for (int kills = 0; kills < wanted; ++kills) {
    std::this_thread::sleep_for(std::chrono::microseconds(random() % 4000));
    const std::size_t index = random() % crowd.size();
    const auto [pid, produces] = crowd[index];
    ::kill(pid, SIGKILL);
    ::waitpid(pid, nullptr, 0);
    if (kills % 2 == 0) procpool::detail::process_was_reaped(pid);
    crowd.erase(crowd.begin() + static_cast<std::ptrdiff_t>(index));
    start(produces);
    const auto begin = clock_type::now();
    const auto next = seen.try_get(patience);
    longest = std::max(longest, clock_type::now() - begin);
    if (!next) {
      ++stuck;
      break;
    }
    ++got;
  }
  for (const auto& [pid, produces] : crowd) {
    ::kill(pid, SIGKILL);
    ::waitpid(pid, nullptr, 0);
    procpool::detail::process_was_reaped(pid);
  }
  // What is left arrives in whole, each producer's values in order and once.
  last.assign(static_cast<std::size_t>(producers) + 1, -1);
  while (const auto next = queue.try_get()) {
    if (next->producer < 1 || next->producer > producers) {
      ++disorder;
      continue;
    }
    long& before = last[static_cast<std::size_t>(next->producer)];
    if (next->number <= before) ++disorder;
    before = next->number;
  }
  while (seen.try_get()) ++got;
  std::printf("storm: %d kills, %zu values seen, %zu out of order, longest wait %.1f ms\n", wanted,
              got, disorder, std::chrono::duration<double, std::milli>(longest).count());
  CHECK(stuck == 0);
  CHECK(disorder == 0);
  queue.put({1, 1});
  CHECK(queue.get().producer == 1);
  procpool::detail::collect_dead_processes();
}
