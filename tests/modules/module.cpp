// SPDX-License-Identifier: MIT
// What every module of the test has inside; export.cpp gives it the module's own name.
#include "offered.hpp"

#include <optional>

namespace {

int twice(int number) {
  return 2 * number;
}

int worker_index(int) {
  try {
    return procpool::current_worker().index();
  } catch (const std::logic_error&) {
    return -1;
  }
}

int throw_shared(int number) {
  throw shared_problem("shared " + std::to_string(number));
}

/// Of this module alone, with internal linkage.
struct own_problem : std::runtime_error {
  using std::runtime_error::runtime_error;
};

int throw_registered(int number) {
  throw own_problem("own " + std::to_string(number));
}

int async_in_own_pool(task function, int argument) {
  procpool::Pool pool{2};
  return pool.apply_async(function, argument).get();
}

int apply_in_thread_pool(task function, int argument) {
  procpool::ThreadPool pool{2};
  return pool.apply(function, argument);
}

int apply_in_serial_pool(task function, int argument) {
  procpool::Pool<procpool::Serial> pool;
  return pool.apply(function, argument);
}

std::string failure_in_own_pool(task function) {
  procpool::Pool pool{1};
  try {
    pool.apply(function, 7);
    return "";
  } catch (const shared_problem& problem) {
    return problem.what();
  }
}

std::string failure_by_spawn(task function) {
  try {
    procpool::Pool pool{{.processes = 1, .start_method = procpool::start_method::spawn}};
    return pool.apply(function, 4) == 8 ? "" : "a wrong result";
  } catch (const std::exception& error) {
    return error.what();
  }
}

void submit(procpool::Pool<>& pool, int argument,
            std::vector<procpool::AsyncResult<int>>& results) {
  results.push_back(pool.apply_async(&twice, argument));
}

int exitcode_of_process(task function, int argument) {
  procpool::Process process([](task what, int with) { std::exit(what(with)); }, function, argument);
  process.start();
  process.join();
  return process.exitcode().value_or(-1000);
}

procpool::start_method start_method() {
  return procpool::get_start_method();
}

std::size_t children() {
  return procpool::active_children().size();
}

std::optional<procpool::Pool<>>& kept_pool() {
  static std::optional<procpool::Pool<>> pool;
  return pool;
}

void begin_pool() {
  kept_pool().emplace(1);
  kept_pool()->apply_async(&twice, 1).wait();
}

int use_pool(int argument) {
  return kept_pool()->apply_async(&twice, argument).get();
}

void end_pool() {
  kept_pool().reset();
}

}  // namespace

[[gnu::visibility("hidden")]] const offered* offered_here();
const offered* offered_here() {
  static const bool registered = (procpool::register_exception<own_problem>(), true);
  static_cast<void>(registered);
  static const offered all{
      worker_index,
      throw_shared,
      throw_registered,
      async_in_own_pool,
      apply_in_thread_pool,
      apply_in_serial_pool,
      failure_in_own_pool,
      failure_by_spawn,
      submit,
      exitcode_of_process,
      start_method,
      children,
      begin_pool,
      use_pool,
      end_pool,
  };
  return &all;
}
