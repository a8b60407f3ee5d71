// SPDX-License-Identifier: MIT
// A program, two libraries that it is linked with and plugins that it loads, all with the library
// inside: what is one in a process must be one for all of them, whatever their symbols' visibility.
// Usage: program PLUGIN... Ends with 0 when all is right.
#include <dlfcn.h>
#include <fmt/core.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <string_view>

#include "offered.hpp"

namespace {

int faults = 0;

template <class A, class B>
void expect(const std::string& module, std::string_view what, const A& found, const B& expected) {
  if (found == expected) return;
  ++faults;
  fmt::print(stderr, "{}: {}: {} instead of {}\n", module, what, found, expected);
}

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

procpool::worker_local<int> calls{[] { return 0; }};

int count_calls(int) {
  return ++*calls;
}

int throw_shared(int number) {
  throw shared_problem("shared " + std::to_string(number));
}

int is_named_child(int) {
  return procpool::current_process().name().starts_with("Process-") ? 5 : 6;
}

/// What the exception of a task of the module's says, in a pool of the program's.
std::string failure_here(task function) {
  procpool::Pool pool{1};
  try {
    pool.apply(function, 7);
    return "";
  } catch (const shared_problem& problem) {
    return std::string("shared_problem: ") + problem.what();
  } catch (const procpool::RemoteError& error) {
    return std::string("RemoteError: ") + error.what();
  } catch (const std::runtime_error& error) {  // a type of which the program knows nothing
    return std::string("runtime_error: ") + error.what();
  }
}

void check_tasks(const std::string& name, const offered& module) {
  procpool::Pool pool{1};
  expect(name, "current_worker() in the program's pool", pool.apply(module.worker_index, 1), 0);
  expect(name, "current_worker() outside of a task", module.worker_index(1), -1);
  expect(name, "the program's current_worker() in its pool",
         module.async_in_own_pool(worker_index, 1) >= 0, true);
  expect(name, "... in its ThreadPool", module.apply_in_thread_pool(worker_index, 1) >= 0, true);
  expect(name, "... in its serial pool", module.apply_in_serial_pool(worker_index, 1), 0);
  expect(name, "the program's worker_local in its pool", module.async_in_own_pool(count_calls, 1),
         1);
  for (int i = 0; i < 5; ++i) {
    expect(name, "a result of its pool", module.async_in_own_pool(twice, i), 2 * i);
  }
}

void check_exceptions(const std::string& name, const offered& module) {
  expect(name, "its exception in the program's pool", failure_here(module.throw_shared),
         "shared_problem: shared 7");
  expect(name, "the type that it has registered", failure_here(module.throw_registered),
         "runtime_error: own 7");
  expect(name, "the program's exception in its pool", module.failure_in_own_pool(throw_shared),
         "shared 7");
}

void check_results(const std::string& name, const offered& module) {
  procpool::Pool pool{2};
  std::vector<procpool::AsyncResult<int>> results;
  for (int i = 0; i < 20; ++i) {
    module.submit(pool, i, results);
    results.push_back(pool.apply_async(twice, i));
  }
  int sum = 0;
  for (auto& done : procpool::as_completed(results)) sum += done.get();
  expect(name, "results that both have submitted", sum, 2 * 2 * 190);
}

void check_processes(const std::string& name, const offered& module) {
  expect(name, "current_process() in a Process of its",
         module.exitcode_of_process(is_named_child, 1), 5);
  procpool::Process process([] { pause(); });
  process.start();
  expect(name, "active_children()", module.children(), std::size_t{1});
  process.kill();
  process.join();
  expect(name, "get_start_method()", module.start_method() == procpool::start_method::fork, true);
}

/// A fork by anybody stops or abandons what all modules have.
void check_forks(const std::string& name, const offered& module) {
  module.begin_pool();
  for (int i = 0; i < 5; ++i) {
    procpool::Pool pool{1};
    expect(name, "a pool made beside its pool", pool.apply_async(twice, i).get(), 2 * i);
    expect(name, "its pool beside another", module.use_pool(i), 2 * i);
  }
  const pid_t child = fork();
  if (child == 0) {
    alarm(30);
    bool right = false;
    try {
      module.use_pool(1);
    } catch (const std::logic_error&) {  // the pool is its parent's
      right = module.async_in_own_pool(twice, 3) == 6;
    }
    _exit(right ? 0 : 1);
  }
  int status = 0;
  waitpid(child, &status, 0);
  expect(name, "its pools in a child of fork(2)", status, 0);
  expect(name, "its pool after a fork(2)", module.use_pool(4), 8);
  module.end_pool();
}

void check(const std::string& name, const offered& module) {
  check_tasks(name, module);
  check_exceptions(name, module);
  check_results(name, module);
  check_processes(name, module);
  check_forks(name, module);
}

/// A plugin is not in a program that has just been spawned: when the code of the call is only
/// there, a sentence says so.
void check_spawn(const std::string& name, const offered& module, bool loaded_at_start) {
  const std::string failure = module.failure_by_spawn(twice);
  const bool is_missing = failure.find("which the spawned workers do not have") != failure.npos;
  const bool right = failure.empty() || (!loaded_at_start && is_missing);
  expect(name, "start_method::spawn", right ? "" : failure, "");
}

const offered& load(const char* plugin, void*& handle) {
  handle = dlopen(plugin, RTLD_NOW | RTLD_LOCAL);
  void* symbol = handle != nullptr ? dlsym(handle, "module_loaded") : nullptr;
  if (symbol == nullptr) {
    fmt::print(stderr, "{}\n", dlerror());
    std::exit(2);
  }
  return *reinterpret_cast<const offered* (*)()>(symbol)();
}

}  // namespace

int main(int argc, char** argv) {
  procpool::freeze_support(argc, argv);
  procpool::register_exception<shared_problem>();
  check("the first library", *module_one());
  check("the second library", *module_two());
  check_spawn("the first library", *module_one(), true);
  std::vector<void*> handles;
  for (int i = 1; i < argc; ++i) {
    const offered& module = load(argv[i], handles.emplace_back());
    check(argv[i], module);
    check_spawn(argv[i], module, false);
  }
  for (void* handle : handles) dlclose(handle);
  check("after the plugins", *module_one());
  return faults == 0 ? 0 : 1;
}
