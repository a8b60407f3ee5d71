// SPDX-License-Identifier: MIT
#include <procpool/detail/fork/fork_registry.hpp>

#include <sys/resource.h>
#include <unistd.h>

#include <atomic>
#include <catch2/catch_test_macros.hpp>
#include <chrono>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "support/child.hpp"

using namespace std::chrono_literals;
using procpool::detail::fork_handler;
using procpool::detail::fork_pause;
using procpool::detail::fork_process;
using procpool::detail::fork_registration;
using procpool::detail::fork_thread;
using procpool::detail::process_generation;

namespace {

/// Writes down what it is asked to do.
class recorder final : public fork_handler {
 public:
  void stop_threads() override { log += "stop "; }
  void restart_threads() override { log += "restart "; }
  void lock_for_fork() override { log += "hold "; }
  void release_locks() noexcept override { log += "release "; }
  void abandon() noexcept override { log += "abandon "; }

  std::string log;
};

/// A participant with a service thread, as a pool has one: it runs the jobs it is given until it
/// is stopped for a fork, and goes on with them afterwards.
class servant final : public fork_handler {
 public:
  servant() {
    const fork_pause none;
    restart_threads();
  }
  ~servant() {
    ask_to_stop(true);
    registration_.wait_for_end();
    const fork_pause none;
    if (thread_.joinable()) thread_.join();
  }

  void stop_threads() override {
    ask_to_stop(false);
    if (registration_.wait_for_threads(patience) && thread_.joinable()) thread_.join();
  }

  void restart_threads() override {
    {
      const std::lock_guard lock(mutex_);
      stopping_ = ending_;
      if (serving_ || stopping_) return;
      serving_ = true;
    }
    if (thread_.joinable()) thread_.join();  // it ended after the wait for it was over
    registration_.expect_thread();
    thread_ = std::thread([this] { serve(); });
  }

  void run(std::function<void()> job) {
    {
      const std::lock_guard lock(mutex_);
      jobs_.push_back(std::move(job));
    }
    changed_.notify_all();
  }

  std::chrono::milliseconds patience = 10s;

 private:
  void ask_to_stop(bool for_ever) {
    {
      const std::lock_guard lock(mutex_);
      stopping_ = true;
      ending_ = ending_ || for_ever;
    }
    changed_.notify_all();
  }

  void serve() {
    const fork_thread mark(registration_);
    std::unique_lock lock(mutex_);
    for (;;) {
      changed_.wait(lock, [this] { return stopping_ || !jobs_.empty(); });
      if (stopping_) {
        serving_ = false;
        return;
      }
      const auto job = std::move(jobs_.front());
      jobs_.erase(jobs_.begin());
      lock.unlock();
      job();
      lock.lock();
    }
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<std::function<void()>> jobs_;
  bool stopping_ = false;
  bool ending_ = false;
  bool serving_ = false;
  std::thread thread_;
  fork_registration registration_{*this};
};

/// Forks and waits for the child, which leaves at once.
void fork_once() {
  const pid_t pid = fork_process();
  if (pid == 0) _exit(0);
  if (support::wait_child(pid) != 0) throw std::runtime_error("the child did not end well");
}

/// A flag that threads wait for.
class signal_flag {
 public:
  void set() {
    set_ = true;
    set_.notify_all();
  }
  void wait() const { set_.wait(false); }
  [[nodiscard]] bool is_set() const { return set_; }

 private:
  std::atomic<bool> set_{false};
};

}  // namespace

TEST_CASE("A fork of ours stops threads, holds locks, and undoes both; the child abandons",
          "[fork]") {
  recorder participant;
  const fork_registration registration(participant);
  const pid_t pid = fork_process();
  if (pid == 0) _exit(participant.log == "stop hold release abandon " ? 0 : 1);
  CHECK(support::wait_child(pid) == 0);
  CHECK(participant.log == "stop hold release restart ");
}

TEST_CASE("A fork of the user's holds locks; the child abandons", "[fork]") {
  recorder participant;
  const fork_registration registration(participant);
  const pid_t pid = fork();
  if (pid == 0) _exit(participant.log == "hold release abandon " ? 0 : 1);
  CHECK(support::wait_child(pid) == 0);
  CHECK(participant.log == "hold release ");
}

TEST_CASE("What a child has abandoned takes no part in the child's own forks", "[fork]") {
  recorder participant;
  std::optional<fork_registration> registration(participant);
  const int code = support::run_child([&] {
    participant.log.clear();
    fork_once();
    registration.reset();
    fork_once();
    CHILD_REQUIRE(participant.log.empty());
    recorder own;
    const fork_registration own_registration(own);
    fork_once();
    CHILD_REQUIRE(own.log == "stop hold release restart ");
    return 0;
  });
  CHECK(code == 0);
}

TEST_CASE("A participant of every process takes part in the forks of children, too", "[fork]") {
  recorder participant;
  const fork_registration registration(participant, fork_registration::scope::every_process);
  const int code = support::run_child([&] {
    participant.log.clear();
    fork_once();
    CHILD_REQUIRE(participant.log == "stop hold release restart ");
    return 0;
  });
  CHECK(code == 0);
}

TEST_CASE("A participant whose registration has ended is left alone", "[fork]") {
  recorder first;
  recorder second;
  recorder third;
  std::optional<fork_registration> a(first);
  std::optional<fork_registration> b(second);
  std::optional<fork_registration> c(third);
  b.reset();
  fork_once();
  CHECK(second.log.empty());
  CHECK(first.log == "stop hold release restart ");
  a.reset();
  c.reset();
  fork_once();
  CHECK(first.log == "stop hold release restart ");
  CHECK(third.log == "stop hold release restart ");
}

TEST_CASE("When fork fails everything is as before, and the error tells why", "[fork]") {
  const int code = support::run_child([] {
    if (geteuid() == 0 && setuid(65534) != 0) return 1;  // root has no such limit
    recorder participant;
    const fork_registration registration(participant);
    const auto generation = process_generation();
    rlimit none{};
    getrlimit(RLIMIT_NPROC, &none);
    none.rlim_cur = 1;
    setrlimit(RLIMIT_NPROC, &none);
    try {
      fork_once();
      return 2;
    } catch (const procpool::ProcessError& error) {
      CHILD_REQUIRE(error.code() == std::errc::resource_unavailable_try_again);
    }
    CHILD_REQUIRE(participant.log == "stop hold release restart ");
    CHILD_REQUIRE(process_generation() == generation);
    return 0;
  });
  CHECK(code == 0);
}

TEST_CASE("Generations differ between a process, its child and its grandchild", "[fork]") {
  const auto mine = process_generation();
  const int code = support::run_child([mine] {
    const auto childs = process_generation();
    CHILD_REQUIRE(childs != mine);
    return support::run_child([=] {
      CHILD_REQUIRE(process_generation() != childs);
      CHILD_REQUIRE(process_generation() != mine);
      return 0;
    });
  });
  CHECK(code == 0);
  CHECK(process_generation() == mine);
}

TEST_CASE("No thread of the library exists at a fork of ours", "[fork]") {
  struct counter final : fork_handler {
    void lock_for_fork() override { alone = procpool::detail::os::only_thread(); }
    bool alone = false;
  } counting;
  const servant first;
  const servant second;
  const fork_registration registration(counting);
  CHECK_FALSE(procpool::detail::os::only_thread());
  fork_once();
  CHECK(counting.alone);
  CHECK_FALSE(procpool::detail::os::only_thread());
}

TEST_CASE("A job of a service thread can fork", "[fork]") {
  servant service;
  for (int i = 0; i < 20; ++i) {
    signal_flag done;
    service.run([&] {
      fork_once();
      done.set();
    });
    done.wait();
  }
}

TEST_CASE("Jobs of several service threads and other threads fork at the same time", "[fork]") {
  constexpr int rounds = 50;
  std::atomic<int> forks{0};
  {
    servant first;
    servant second;
    const auto job = [&] {
      fork_once();
      ++forks;
    };
    const auto work = [&] {
      for (int i = 0; i < rounds; ++i) {
        first.run(job);
        second.run(job);
        job();
      }
    };
    std::thread other(work);
    work();
    other.join();
    while (forks < rounds * 6) std::this_thread::sleep_for(1ms);
  }
  CHECK(forks == rounds * 6);
}

TEST_CASE("A job that makes and destroys participants does not stop a fork", "[fork]") {
  servant service;
  for (int i = 0; i < 50; ++i) {
    signal_flag started;
    signal_flag done;
    service.run([&] {
      started.set();
      { servant temporary; }
      done.set();
    });
    started.wait();
    fork_once();
    done.wait();
  }
}

TEST_CASE("A job that waits for what the forking thread holds delays the fork only for a while",
          "[fork]") {
  servant service;
  service.patience = 50ms;
  std::mutex mutex;
  signal_flag started;
  signal_flag done;
  {
    const std::lock_guard held(mutex);
    service.run([&] {
      started.set();
      const std::lock_guard wanted(mutex);
      done.set();
    });
    started.wait();
    fork_once();
    CHECK_FALSE(done.is_set());
  }
  done.wait();
  signal_flag again;
  service.run([&] { again.set(); });
  again.wait();
  CHECK(again.is_set());
}

TEST_CASE("A child forked while other threads wait for their turn can fork itself", "[fork]") {
  std::atomic<bool> stop{false};
  std::vector<std::thread> threads;
  for (int i = 0; i < 3; ++i) {
    threads.emplace_back([&] {
      while (!stop) fork_once();
    });
  }
  for (int i = 0; i < 50; ++i) {
    const pid_t pid = i % 2 == 0 ? fork() : fork_process();
    if (pid == 0) {
      servant service;
      signal_flag done;
      service.run([&] {
        fork_once();
        done.set();
      });
      done.wait();
      fork_once();
      _exit(0);
    }
    CHECK(support::wait_child(pid) == 0);
  }
  stop = true;
  for (auto& thread : threads) thread.join();
}
