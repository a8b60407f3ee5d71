// SPDX-License-Identifier: MIT
// The scheduler alone: its rules one by one, then thousands of simulated workers that die at
// random.
#include <catch2/catch_test_macros.hpp>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <queue>
#include <random>
#include <set>
#include <utility>
#include <vector>

#include <procpool/detail/scheduling/scheduler.hpp>

namespace {

using namespace std::chrono_literals;
using procpool::detail::assignment;
using procpool::detail::no_worker;
using procpool::detail::scheduled_task;
using procpool::detail::scheduler;
using procpool::detail::scheduling_rules;

std::vector<scheduled_task> tasks_of(std::size_t count) {
  return std::vector<scheduled_task>(count);
}

void submit_all(scheduler& s, std::vector<scheduled_task>& tasks) {
  for (auto& task : tasks) s.submit(task);
}

std::vector<std::uint32_t> workers_of(scheduler& s) {
  std::vector<std::uint32_t> workers;
  while (const auto what = s.next()) workers.push_back(what->worker);
  return workers;
}

TEST_CASE("nothing is assigned without workers or without tasks", "[scheduler]") {
  scheduler s({});
  CHECK_FALSE(s.next());
  scheduled_task task;
  s.submit(task);
  CHECK_FALSE(s.next());
  s.add(0);
  const auto what = s.next();
  REQUIRE(what);
  CHECK(what->task == &task);
  CHECK(what->worker == 0);
  CHECK_FALSE(s.next());
}

TEST_CASE("idle workers are served before busy ones, and each only up to its depth",
          "[scheduler]") {
  scheduler s({.min_depth = 2});
  for (std::uint32_t worker = 0; worker < 3; ++worker) s.add(worker);
  auto tasks = tasks_of(10);
  submit_all(s, tasks);
  const auto workers = workers_of(s);
  REQUIRE(workers.size() == 6);
  CHECK(std::set(workers.begin(), workers.begin() + 3).size() == 3);
  CHECK(std::set(workers.begin() + 3, workers.end()).size() == 3);
  CHECK(s.pending() == 4);
}

TEST_CASE("among idle workers the spinning_workers come first", "[scheduler]") {
  scheduler s({.spinning_workers = 2});
  for (std::uint32_t worker = 0; worker < 4; ++worker) s.add(worker);
  auto tasks = tasks_of(2);
  submit_all(s, tasks);
  const auto workers = workers_of(s);
  CHECK(std::set(workers.begin(), workers.end()) == std::set<std::uint32_t>{0, 1});
}

TEST_CASE("tasks leave in the order in which they were submitted", "[scheduler]") {
  scheduler s({.min_depth = 3});
  s.add(0);
  auto tasks = tasks_of(5);
  submit_all(s, tasks);
  for (auto& expected : tasks) {
    auto what = s.next();
    if (!what) {
      s.finished(0);
      what = s.next();
    }
    REQUIRE(what);
    CHECK(what->task == &expected);
  }
}

TEST_CASE("a worker can be kept fuller, up to a limit, until tasks are taken back", "[scheduler]") {
  scheduler s({.min_depth = 2, .max_depth = 5});
  s.add(0);
  auto tasks = tasks_of(20);
  submit_all(s, tasks);
  CHECK(workers_of(s).size() == 2);
  s.measured(0, 100ns, false);
  CHECK(workers_of(s).size() == 2);
  s.measured(0, 100ns, false);
  CHECK(workers_of(s).size() == 1);
  s.measured(0, 100ns, false);
  CHECK(workers_of(s).empty());
  s.taken_back(tasks[4]);
  s.taken_back(tasks[3]);
  s.taken_back(tasks[2]);
  CHECK(workers_of(s).empty());  // two are as many as it may have now
}

TEST_CASE("a sleeper is woken only when those awake have enough to do", "[scheduler]") {
  scheduler s({.min_depth = 4, .spinning_workers = 1, .min_wake_depth = 3});
  s.add(0);
  s.add(1);
  auto tasks = tasks_of(6);
  submit_all(s, tasks);
  CHECK(workers_of(s) == std::vector<std::uint32_t>{0, 0, 0, 1, 0, 1});
}

TEST_CASE("no sleeper is woken for what is done before it would be awake", "[scheduler]") {
  scheduler s({.min_depth = 4, .max_depth = 64, .spinning_workers = 1, .min_wake_depth = 3});
  s.add(0);
  s.add(1);
  s.measured(0, 1us, false);  // may have 8 at a time, and does 50 while another one wakes up
  auto tasks = tasks_of(10);
  submit_all(s, tasks);
  CHECK(workers_of(s) == std::vector<std::uint32_t>{0, 0, 0, 0, 0, 0, 0, 0, 1, 1});
  s.measured(0, 1ms, false);
  for (int i = 0; i < 8; ++i) s.finished(0);
  auto long_tasks = tasks_of(6);
  submit_all(s, long_tasks);
  CHECK(workers_of(s) == std::vector<std::uint32_t>{0, 0, 0, 1, 0, 1});
}

TEST_CASE("a refused task is first in line again and its worker waits", "[scheduler]") {
  scheduler s({.min_depth = 4});
  s.add(0);
  auto tasks = tasks_of(3);
  submit_all(s, tasks);
  static_cast<void>(s.next());
  const auto refused = s.next();
  REQUIRE(refused);
  s.refused(*refused);
  CHECK_FALSE(s.next());
  s.finished(0);
  const auto again = s.next();
  REQUIRE(again);
  CHECK(again->task == refused->task);
}

TEST_CASE("a worker retires after maxtasksperchild frames", "[scheduler]") {
  scheduler s({.min_depth = 8, .maxtasksperchild = 2});
  s.add(0);
  auto tasks = tasks_of(3);
  submit_all(s, tasks);
  CHECK(s.next()->task == &tasks[0]);
  CHECK(s.next()->task == &tasks[1]);
  const auto retire = s.next();
  REQUIRE(retire);
  CHECK(retire->task == nullptr);
  CHECK(retire->worker == 0);
  CHECK(s.retiring(0));
  CHECK_FALSE(s.next());
  s.finished(0);
  s.finished(0);
  CHECK_FALSE(s.next());
  s.died(0, [](scheduled_task&) { FAIL("it had nothing left"); });
  CHECK(s.vacant(0));
  s.add(0);
  CHECK(s.next()->task == &tasks[2]);
}

TEST_CASE("a refused last task of a retiring worker takes the retirement back", "[scheduler]") {
  scheduler s({.maxtasksperchild = 1});
  s.add(0);
  scheduled_task task;
  s.submit(task);
  const auto what = s.next();
  s.refused(*what);
  CHECK_FALSE(s.retiring(0));
  CHECK_FALSE(s.next());
}

TEST_CASE("the tasks of a dead worker come back, oldest first", "[scheduler]") {
  scheduler s({.min_depth = 3});
  s.add(0);
  auto tasks = tasks_of(3);
  submit_all(s, tasks);
  static_cast<void>(workers_of(s));
  std::vector<scheduled_task*> back;
  s.died(0, [&](scheduled_task& task) { back.push_back(&task); });
  CHECK(back == std::vector{&tasks[0], &tasks[1], &tasks[2]});
  CHECK(s.assigned() == 0);
  CHECK(tasks[0].worker == no_worker);
  for (auto task = back.rbegin(); task != back.rend(); ++task) s.resubmit(**task);
  s.add(0);
  CHECK(s.next()->task == &tasks[0]);
}

TEST_CASE("an idle worker is offered the younger half of the fullest queue", "[scheduler]") {
  scheduler s({.min_depth = 4});
  s.add(0);
  auto tasks = tasks_of(4);
  submit_all(s, tasks);
  static_cast<void>(workers_of(s));
  CHECK_FALSE(s.rebalance());  // nobody is idle
  s.add(1);
  const auto what = s.rebalance();
  REQUIRE(what);
  CHECK(what->from == 0);
  CHECK(what->first == &tasks[2]);
  s.taken_back(tasks[3]);
  s.taken_back(tasks[2]);
  const auto moved = s.next();
  REQUIRE(moved);
  CHECK(moved->worker == 1);
  CHECK(moved->task == &tasks[2]);
}

TEST_CASE("with a preference for idle workers a sleeper is woken at once", "[scheduler]") {
  scheduler s({.min_depth = 4, .spinning_workers = 1, .min_wake_depth = 3});
  s.add(0);
  s.add(1);
  auto tasks = tasks_of(3);
  submit_all(s, tasks);
  CHECK(s.next(procpool::detail::preference::idle)->worker == 0);
  CHECK(s.next(procpool::detail::preference::idle)->worker == 1);
  CHECK(s.next(procpool::detail::preference::idle)->worker == 0);
}

TEST_CASE("a worker that gave everything back gets tasks again", "[scheduler]") {
  scheduler s({.min_depth = 2});
  s.add(0);
  auto tasks = tasks_of(2);
  submit_all(s, tasks);
  CHECK(workers_of(s).size() == 2);
  s.taken_back(tasks[1]);
  s.taken_back(tasks[0]);
  CHECK(s.assigned() == 0);
  CHECK(workers_of(s).size() == 2);
}

TEST_CASE("a task can be taken away from between others", "[scheduler]") {
  scheduler s({.min_depth = 3});
  s.add(0);
  auto tasks = tasks_of(4);
  submit_all(s, tasks);
  CHECK(workers_of(s).size() == 3);
  s.taken_away(tasks[1]);
  CHECK(tasks[1].worker == procpool::detail::no_worker);
  CHECK(s.assigned() == 2);
  CHECK(s.front(0) == &tasks[0]);
  CHECK(s.back(0) == &tasks[2]);
  CHECK(s.next()->task == &tasks[3]);  // there is room for another one
  CHECK(s.pending() == 0);
}

TEST_CASE("a pending task can be withdrawn", "[scheduler]") {
  scheduler s({});
  auto tasks = tasks_of(3);
  submit_all(s, tasks);
  s.withdraw(tasks[1]);
  s.add(0);
  CHECK(s.next()->task == &tasks[0]);
  CHECK(s.next()->task == &tasks[2]);
}

// ---- simulation
// ------------------------------------------------------------------------------------

// Workers in simulated time: each works through its frames in order and dies now and then; the
// pool's part (what engine does) is played as simply as possible.
class simulation {
 public:
  simulation(std::uint64_t seed, std::uint32_t workers, std::size_t tasks, double death_rate,
             const scheduling_rules& rules)
      : random_(seed),
        scheduler_(rules),
        tasks_(tasks),
        workers_(workers),
        death_rate_(death_rate) {
    for (std::uint32_t worker = 0; worker < workers; ++worker) scheduler_.add(worker);
  }

  void run() {
    std::size_t submitted = 0;
    while (ended_ < tasks_.size()) {
      for (int burst = 0; burst < 100 && submitted < tasks_.size(); ++burst) {
        scheduler_.submit(tasks_[submitted++]);
      }
      dispatch();
      REQUIRE((!events_.empty() || submitted < tasks_.size()));
      if (!events_.empty()) step();
    }
  }

  [[nodiscard]] bool every_task_ended_once() const {
    return std::ranges::all_of(tasks_, [](const task& each) { return each.outcomes == 1; });
  }
  [[nodiscard]] std::size_t deaths() const { return deaths_; }
  [[nodiscard]] std::size_t moved() const { return moved_; }
  [[nodiscard]] const scheduler& state() const { return scheduler_; }

 private:
  struct task : scheduled_task {
    int outcomes = 0;
  };
  struct event {
    double when;
    std::uint32_t worker;
    std::uint64_t life;  // of the worker: events of earlier lives do not count
    friend bool operator<(const event& a, const event& b) { return a.when > b.when; }
  };
  struct worker_state {
    std::uint64_t life = 0;
    bool running = false;
  };

  void dispatch() {
    send();
    while (const auto what = scheduler_.rebalance()) {
      // The front task is claimed; the scheduler never asks for it.
      REQUIRE(what->first != scheduler_.front(what->from));
      auto* from = what->first;
      while (true) {
        scheduled_task* youngest = scheduler_.back(what->from);
        scheduler_.taken_back(*youngest);
        ++moved_;
        if (youngest == from) break;
      }
      send(procpool::detail::preference::idle);
    }
  }

  void send(procpool::detail::preference who = procpool::detail::preference::awake) {
    while (const auto what = scheduler_.next(who)) {
      if (what->task == nullptr) {
        begin(what->worker);
        continue;
      }
      if (chance(0.01)) {
        scheduler_.refused(*what);
        // Room comes with the next result; a worker without tasks always has room.
        if (scheduler_.front(what->worker) == nullptr) replace(what->worker);
        continue;
      }
      REQUIRE(what->task->worker == what->worker);
      begin(what->worker);
    }
  }

  void begin(std::uint32_t worker) {
    if (std::exchange(workers_[worker].running, true)) return;
    const double length = chance(0.05) ? 100.0 : 1.0;  // mixed lengths
    events_.push({now_ + length * uniform_(random_), worker, workers_[worker].life});
  }

  void step() {
    const event next = events_.top();
    events_.pop();
    now_ = next.when;
    worker_state& worker = workers_[next.worker];
    if (worker.life != next.life) return;
    worker.running = false;
    auto* front = static_cast<task*>(scheduler_.front(next.worker));
    if (front == nullptr) return replace(next.worker);  // it was told to retire
    if (chance(death_rate_)) return die(next.worker);
    scheduler_.finished(next.worker);
    end(*front);
    if (scheduler_.front(next.worker) != nullptr || scheduler_.retiring(next.worker)) {
      begin(next.worker);
    } else if (chance(0.1)) {
      scheduler_.measured(next.worker, 100ns, false);
    }
  }

  void die(std::uint32_t worker) {
    ++deaths_;
    auto* culprit = static_cast<task*>(scheduler_.front(worker));
    std::vector<scheduled_task*> back;
    scheduler_.died(worker, [&](scheduled_task& each) { back.push_back(&each); });
    for (auto each = back.rbegin(); each != back.rend(); ++each) {
      if (*each == culprit) {
        end(*culprit);  // WorkerDied
      } else {
        scheduler_.resubmit(**each);
      }
    }
    revive(worker);
  }

  void replace(std::uint32_t worker) {
    scheduler_.died(worker, [](scheduled_task&) { FAIL("an idle worker has no tasks"); });
    revive(worker);
  }

  void revive(std::uint32_t worker) {
    ++workers_[worker].life;
    workers_[worker].running = false;
    scheduler_.add(worker);
  }

  void end(task& what) {
    ++what.outcomes;
    ++ended_;
  }

  bool chance(double p) { return uniform_(random_) < p; }

  std::mt19937_64 random_;
  std::uniform_real_distribution<double> uniform_{0.0, 1.0};
  scheduler scheduler_;
  std::vector<task> tasks_;
  std::vector<worker_state> workers_;
  std::priority_queue<event> events_;
  double death_rate_;
  double now_ = 0;
  std::size_t ended_ = 0;
  std::size_t deaths_ = 0;
  std::size_t moved_ = 0;
};

TEST_CASE("simulation: with random deaths every task ends exactly once",
          "[scheduler][simulation]") {
  for (std::uint64_t seed = 1; seed <= 20; ++seed) {
    CAPTURE(seed);
    simulation world(seed, 1 + static_cast<std::uint32_t>(seed % 7), 2'000, 0.05,
                     {.spinning_workers = static_cast<std::uint32_t>(seed % 3)});
    world.run();
    CHECK(world.every_task_ended_once());
    CHECK(world.deaths() > 20);
    CHECK(world.state().pending() == 0);
    CHECK(world.state().assigned() == 0);
  }
}

TEST_CASE("simulation: retirement after a few tasks loses none", "[scheduler][simulation]") {
  for (std::uint64_t seed = 1; seed <= 10; ++seed) {
    CAPTURE(seed);
    simulation world(seed, 5, 2'000, 0.02,
                     {.maxtasksperchild = 1 + static_cast<std::uint32_t>(seed % 4)});
    world.run();
    CHECK(world.every_task_ended_once());
  }
}

TEST_CASE("simulation: thousands of workers, tasks of mixed length", "[scheduler][simulation]") {
  simulation world(7, 3'000, 100'000, 0.01, {});
  world.run();
  CHECK(world.every_task_ended_once());
  CHECK(world.deaths() > 500);
  CHECK(world.moved() > 0);
}

}  // namespace
