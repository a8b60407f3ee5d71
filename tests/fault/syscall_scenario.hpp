// SPDX-License-Identifier: MIT
/// @file
/// What a program does with procpool while system calls of the library fail: makes a pool,
/// uses it in every way, ends it, starts processes, and then looks for what is left behind. Runs in
/// a process of its own, forked from a test.
#pragma once

#include "failing_calls.hpp"  // first: it defines the library's hook
#include "syscall_inventory.hpp"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <functional>
#include <memory>
#include <numeric>
#include <procpool/procpool.hpp>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

namespace scenario {

using namespace std::chrono_literals;

/// The ways to run it.
enum class variant : std::uint32_t {
  drained,    ///< with an initializer; ended by close and join
  terminated  ///< stdin and stdout closed, workers limited; ended by terminate, with work left
};
inline constexpr std::array variant_names{"drained", "terminated"};

// ---- what workers do ---------------------------------------------------------------------------

inline int base = 0;
inline void set_base(int value) {
  base = value;
}
inline int add_base(int value) {
  return base + value;
}
inline int twice(int value) {
  return 2 * value;
}
inline int nap(int milliseconds) {
  std::this_thread::sleep_for(std::chrono::milliseconds(milliseconds));
  return milliseconds;
}
inline std::string reversed(std::string text) {
  std::ranges::reverse(text);
  return text;
}
inline int refuse(int value) {
  throw std::runtime_error("refused " + std::to_string(value));
}
inline int die(int value) {
  ::kill(::getpid(), SIGKILL);
  return value;
}
inline int crash(int value) {
  ::raise(SIGFPE);
  return value;
}
/// Its worker takes some time to leave: longer than a start that failed is put off.
inline int leave_slowly(int value) {
  std::atexit([] { std::this_thread::sleep_for(20ms); });
  return nap(value);
}
inline int die_once(int value) {
  if (procpool::current_worker().attempt() == 1) die(value);
  return value;
}

// ---- the scenario ------------------------------------------------------------------------------

/// Whether @p text tells of an error that the plan has.
inline bool names_a_cause(const std::string& text) {
  return std::ranges::any_of(failing::shared->plan, [&](const failing::fault& each) {
    return each.error != 0 && text.find(std::strerror(each.error)) != text.npos;
  });
}

/// One run. Whatever is expected of it holds for any fault.
class run {
 public:
  run(variant how, report& told) : variant_(how), told_(&told) {}

  void play() {
    attempt("making the pool", [this] { make_pool(); });
    enter(failing::phase::run);
    if (pool_ != nullptr) use_pool();
    failing::offspring = failing::role::process;
    use_processes();
    failing::offspring = failing::role::server;
    enter(failing::phase::end);
    if (pool_ != nullptr) end_pool();
    recover();
  }

 private:
  using Pool = procpool::Pool<>;

  static void enter(failing::phase next) { failing::shared->now = next; }

  [[nodiscard]] procpool::pool_options options() const {
    procpool::pool_options options{.processes = 2, .ring_bytes = 4096, .arena_bytes = 65536};
    if (variant_ == variant::drained) {
      options.initializer = {set_base, 1000};
    } else {
      options.maxtasksperchild = 3;
      options.memory_limit = ballast_size / 4;
      options.max_resident = std::size_t{1} << 30;
      options.cpu_limit = 20s;
      options.pin_workers = true;
    }
    return options;
  }
  void make_pool() { pool_ = std::make_unique<Pool>(options()); }

  /// Runs one step. It either does what it should or throws what is documented.
  template <class Step>
  void attempt(const char* name, Step step) {
    const std::string where = std::string(name) + ": ";
    told_->step = name;
    try {
      step();
    } catch (const procpool::ProcessError& error) {
      expected(where + "ProcessError: " + error.what());
    } catch (const procpool::BrokenPool& error) {
      expected(where + "BrokenPool: " + error.what());
    } catch (const procpool::WorkerDied& error) {
      expected(where + "WorkerDied: " + error.what());
    } catch (const std::exception& error) {
      told_->add(&report::wrong, where + typeid(error).name() + ": " + error.what());
    } catch (...) {
      told_->add(&report::wrong, where + "an exception that is no std::exception");
    }
  }

  void expected(const std::string& line) {
    told_->add(&report::errors, line);
    if (!names_a_cause(line)) ++told_->unnamed;
  }

  void require(bool right, const char* what) {
    if (!right) told_->add(&report::wrong, std::string("wrong: ") + what);
  }

  void use_pool() {
    const int start = variant_ == variant::drained ? 1000 : 0;
    attempt("apply", [&] { require(pool_->apply(add_base, 7) == start + 7, "apply"); });
    attempt("a closure", [&] {
      require(pool_->apply([start](int value) { return start + value; }, 1) == start + 1,
              "closure");
    });
    attempt("apply_async", [&] {
      auto first = pool_->apply_async(nap, 1);
      auto second = pool_->apply_async(twice, 21);
      require(second.get() == 42 && first.get() == 1, "apply_async");
    });
    attempt("map", [&] { map(); });
    attempt("large", [&] { large(200'000); });
    attempt("of its own pages", [&] { large(1'200'000); });
    attempt("a task that throws", [&] { throwing(); });
    attempt("a task that dies", [&] { dying(die, SIGKILL); });
    attempt("a task that crashes", [&] { dying(crash, SIGFPE); });
    attempt("a retry", [&] { require(pool_->apply({.retries = 1}, die_once, 6) == 6, "a retry"); });
    attempt("a task that is late", [&] { late(); });
    attempt("a task that is cancelled", [&] { cancelled(); });
    attempt("after a death", [&] { require(pool_->apply(twice, 4) == 8, "after a death"); });
    attempt("callback", [&] { callback(); });
    attempt("imap", [&] { imap(); });
    attempt("after a pause", [&] {
      std::this_thread::sleep_for(1ms);  // all sleep by now
      require(pool_->apply(add_base, 9) == start + 9, "after a pause");
    });
  }

  void map() {
    std::vector<int> items(40);
    std::iota(items.begin(), items.end(), 0);
    const auto results = pool_->map(twice, items, {.chunksize = 7});
    for (const int item : items)
      require(results.at(static_cast<std::size_t>(item)) == 2 * item, "map");
  }

  /// Larger than the arena and than either ring; from 1 MiB on the argument has its own pages.
  void large(std::size_t size) {
    std::string text(size, 'a');
    text.back() = 'z';
    const auto back = pool_->apply(reversed, text);
    require(back.size() == text.size() && back.front() == 'z' && back.back() == 'a', "large");
  }

  void throwing() {
    try {
      pool_->apply(refuse, 5);
      require(false, "no exception came");
    } catch (const procpool::Error&) {
      throw;
    } catch (const std::runtime_error& error) {
      require(error.what() == std::string("refused 5"), "its text");
    }
  }

  void dying(int (*how)(int), int signal) {
    try {
      pool_->apply(how, 5);
      require(false, "no exception came");
    } catch (const procpool::WorkerDied& error) {
      const bool as_meant = error.signal() == signal || error.exitcode() == 128 + signal;
      if (!as_meant) throw;
    }
  }

  void late() {
    try {
      pool_->apply({.timeout = 2ms}, nap, 60'000);
      require(false, "no exception came");
    } catch (const procpool::TimeoutError&) {
    }
  }

  void cancelled() {
    auto result = pool_->apply_async(nap, 60'000);
    static_cast<void>(result.wait(2ms));
    const bool done = !result.cancel({.kill = true});
    try {
      result.get();
      require(false, "no exception came");
    } catch (const procpool::CancelledError&) {
      require(!done, "cancelled by nobody");
    }
  }

  void callback() {
    int seen = 0;
    auto result = pool_->apply_async({.callback = [&](int value) { seen = value; }}, twice, 8);
    require(result.get() == 16 && seen == 16, "callback");
  }

  void imap() {
    int next = 0;
    const std::vector<int> items{0, 1, 2, 3, 4, 5};
    for (const int value : pool_->imap(twice, items, {.chunksize = 2, .buffersize = 4})) {
      require(value == 2 * next++, "imap");
    }
    require(next == 6, "the end of imap");
  }

  void use_processes() {
    attempt("a process", [this] { process(twice, 1, 0); });
    attempt("a process that exits", [this] { process([](int code) { std::exit(code); }, 3, 3); });
    attempt("a process that is terminated", [this] { terminated_process(); });
    attempt("active_children",
            [this] { require(procpool::active_children().empty(), "children"); });
  }

  template <class F>
  void process(F target, int argument, int exitcode) {
    procpool::Process child(target, argument);
    child.start();
    end(child);
    if (child.exitcode() == 1 && exitcode != 1) throw procpool::ProcessError("it exited with 1");
    require(child.exitcode() == exitcode, "the exit code of a process");
  }

  void terminated_process() {
    const std::uint32_t faults = failing::shared->injected;
    procpool::Process child(nap, 60'000);
    child.start();
    try {
      child.terminate();
    } catch (const procpool::ProcessError& error) {
      expected(std::string("terminate: ProcessError: ") + error.what());
      ::kill(*child.pid(), SIGTERM);
    }
    end(child);
    // One that met the fault may have refused to live, saying why, before the signal came.
    const bool faulty = failing::shared->injected != faults;
    if (faulty && child.exitcode() == 1) throw procpool::ProcessError("it exited with 1");
    require(child.exitcode() == -SIGTERM, "the exit code of a process that was terminated");
  }

  /// Joins, though the first attempt may fail. What fails for ever is waited for by other means.
  void end(procpool::Process& child) {
    for (int i = 0; i < 2; ++i) {
      try {
        require(child.join(10s), "join");
        return;
      } catch (const procpool::ProcessError& error) {
        expected(std::string("join: ProcessError: ") + error.what());
      }
    }
    while (child.is_alive()) std::this_thread::sleep_for(1ms);
  }

  void end_pool() {
    if (variant_ == variant::terminated) {
      attempt("work left", [this] { leave_work(); });
    } else {
      attempt("leaving slowly", [this] {
        pool_->map(leave_slowly, std::vector<int>{1, 2}, {.chunksize = 1});
      });
      attempt("a death just before the end", [this] { dying(die, SIGKILL); });
    }
    attempt("the end", [this] {
      pool_->close();
      pool_->join();
    });
    pool_.reset();
  }

  void leave_work() {
    auto first = pool_->apply_async(nap, 60'000);
    auto second = pool_->map_async(twice, std::vector<int>(100, 1), {.chunksize = 1});
    pool_->terminate();
    try {
      first.get();
      require(false, "a result after terminate");
    } catch (const procpool::CancelledError&) {
    }
  }

  /// A fault that is over leaves nothing broken behind.
  void recover() {
    const std::uint32_t faults = failing::shared->injected;
    const int errors = told_->errors;
    attempt("another pool", [this] {
      Pool pool(1);
      require(pool.apply(twice, 3) == 6, "another pool");
    });
    const bool over = failing::shared->injected == faults;
    if (over && told_->errors != errors) told_->add(&report::wrong, "a fault had lasting effects");
  }

  static constexpr std::size_t ballast_size = std::size_t{256} << 20;

  variant variant_;
  report* told_;
  std::unique_ptr<char[]> ballast_{new char[ballast_size]};  // workers are born with it
  std::unique_ptr<Pool> pool_;
};

/// The whole of it, in a fresh child. @p errors takes the place of stderr.
inline int play(variant how, failing::control& control, report& told, int errors) {
  static report* trap;
  trap = &told;
  std::atexit([] { trap->strange_exit = true; });  // this process leaves by _exit
  ::prctl(PR_SET_CHILD_SUBREAPER, 1);
  ::dup2(errors, STDERR_FILENO);
  if (how == variant::terminated) {
    ::close(STDIN_FILENO);
    ::close(STDOUT_FILENO);
  }
  const inventory before;
  failing::shared = &control;
  run(how, told).play();
  failing::shared = nullptr;
  look_for_leaks(before, told);
  if (told.strange_exit) told.add(&report::wrong, "a child ran the handlers at exit of its parent");
  told.finished = true;
  return 0;
}

}  // namespace scenario
