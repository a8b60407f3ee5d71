// SPDX-License-Identifier: MIT
// The files behind a spawned process: replaced and removed programs, other programs, libraries.
#include <dlfcn.h>
#include <unistd.h>

#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <stdexcept>
#include <string>
#include <vector>

#include <procpool/procpool.hpp>

#include "linked.hpp"
#include "support/child.hpp"
#include "support/processes.hpp"

namespace {

namespace fs = std::filesystem;
using namespace std::chrono_literals;
using Catch::Matchers::ContainsSubstring;
using procpool::start_method;
using function = long (*)(long);

long square(long x) {
  return x * x;
}

procpool::pool_options spawned(int workers) {
  return {.processes = workers, .start_method = start_method::spawn};
}

/// A folder of its own for one test.
class folder {
 public:
  folder() {
    std::string name = (fs::temp_directory_path() / "procpool-spawn-XXXXXX").string();
    if (mkdtemp(name.data()) == nullptr) throw std::runtime_error("mkdtemp");
    path_ = name;
  }
  folder(const folder&) = delete;
  folder& operator=(const folder&) = delete;
  ~folder() { fs::remove_all(path_); }
  [[nodiscard]] fs::path operator/(const char* name) const { return path_ / name; }
  [[nodiscard]] std::string string() const { return path_.string(); }

 private:
  fs::path path_;
};

/// As `mv` and a linker do: another file takes its name.
void replace_file(const fs::path& file, const fs::path& by) {
  const fs::path fresh = file.string() + ".new";
  fs::copy_file(by, fresh);
  fs::rename(fresh, file);
}

int use_spawn() {
  procpool::Pool pool{spawned(2)};
  if (pool.map(square, std::vector<long>{1, 2, 3}) != std::vector<long>{1, 4, 9}) return 1;
  procpool::Process process({.start_method = start_method::spawn}, square, 3L);
  process.start();
  process.join();
  return process.exitcode().value_or(2);
}

/// What making a pool throws.
std::string refusal() {
  try {
    procpool::Pool pool{spawned(2)};
    return "nothing was thrown";
  } catch (const procpool::ProcessError& error) {
    return error.what();
  }
}

template <class F>
std::string invalid(procpool::Pool<>& pool, F task) {
  try {
    static_cast<void>(pool.apply(task, 3L));
    return "nothing was thrown";
  } catch (const std::invalid_argument& error) {
    return error.what();
  }
}

function load() {
  void* library = dlopen(SPAWN_LOADED, RTLD_NOW);
  if (library == nullptr) throw std::runtime_error(dlerror());
  return reinterpret_cast<function>(dlsym(library, "loaded_double"));
}

}  // namespace

NAMED_PROGRAM(removes_itself) {
  fs::remove(fs::read_symlink("/proc/self/exe"));
  return use_spawn();
}

NAMED_PROGRAM(replaces_itself) {
  replace_file(fs::read_symlink("/proc/self/exe"), "/bin/false");
  return use_spawn();
}

TEST_CASE("a program whose file is removed or replaced while it runs is spawned all the same",
          "[spawn][files]") {
  for (const char* name : {"removes_itself", "replaces_itself"}) {
    const folder place;
    const auto copy = place / "program";
    fs::copy_file("/proc/self/exe", copy);
    const auto run = support::run_program({copy.string(), "--run-named-program", name});
    INFO(name << ": " << run.out << run.err);
    CHECK(run.exitcode == 0);
  }
}

TEST_CASE("a program that never calls freeze_support is told so, and nothing is spawned",
          "[spawn][files]") {
  const auto run = support::run_program({SPAWN_PLAIN});
  INFO(run.out << run.err);
  CHECK(run.exitcode == 0);
  CHECK(run.err.empty());
  CHECK_THAT(run.out,
             ContainsSubstring("pool: start_method::spawn needs procpool::freeze_support"));
  CHECK_THAT(run.out,
             ContainsSubstring("process: start_method::spawn needs procpool::freeze_support"));
  CHECK_THAT(run.out, ContainsSubstring("alive: 0, children: 0"));
  CHECK_THAT(run.out, ContainsSubstring("fork: 25"));
  CHECK(run.out.find("main begins") == run.out.rfind("main begins"));
}

TEST_CASE("set_executable: a copy of the program will do", "[spawn][files]") {
  const folder place;
  const auto copy = place / "program";
  fs::copy_file("/proc/self/exe", copy);
  const auto run = support::capture_child([&] {
    procpool::set_executable(copy.string());
    return use_spawn();
  });
  INFO(run.err);
  CHECK(run.exitcode == 0);
}

TEST_CASE("set_executable: a script that runs the program with words of its own will do",
          "[spawn][files]") {
  const folder place;
  const auto script = place / "script";
  std::ofstream(script) << "#!/bin/sh\nexec " << fs::read_symlink("/proc/self/exe").string()
                        << " --before \"$@\" --behind\n";
  fs::permissions(script, fs::perms::owner_all);
  const auto run = support::capture_child([&] {
    procpool::set_executable(script.string());
    return use_spawn();
  });
  INFO(run.err);
  CHECK(run.exitcode == 0);
}

TEST_CASE("set_executable: a missing file, another program and no procpool program are refused",
          "[spawn][files]") {
  const auto run = support::capture_child([] {
    CHILD_REQUIRE(use_spawn() == 0);  // opens what is kept for good
    const auto fds = support::count_fds();
    procpool::set_executable("/there/is/no/such/program");
    CHILD_REQUIRE(refusal().find("start a process") != std::string::npos);
    try {
      procpool::Process process({.start_method = start_method::spawn}, square, 3L);
      process.start();
      return 1;
    } catch (const procpool::ProcessError& error) {
      CHILD_REQUIRE(error.code() == std::errc::no_such_file_or_directory);
    }
    for (const char* stranger : {"/bin/true", "/bin/false"}) {
      procpool::set_executable(stranger);
      CHILD_REQUIRE(refusal().find("freeze_support") != std::string::npos);
    }
    procpool::set_executable(SPAWN_OTHER);
    CHILD_REQUIRE(refusal().find("another build") != std::string::npos);
    procpool::Process process({.start_method = start_method::spawn}, square, 3L);
    process.start();
    process.join();
    CHILD_REQUIRE(process.exitcode() == 1);
    process.close();
    CHILD_REQUIRE(support::count_fds() == fds);
    CHILD_REQUIRE(support::children_of(getpid()).empty());
    procpool::set_executable("/proc/self/exe");
    return use_spawn();
  });
  INFO(run.out << run.err);
  CHECK(run.exitcode == 0);
}

TEST_CASE("a library loaded after the pool was made is refused by name", "[spawn][files]") {
  const auto run = support::capture_child([] {
    for (const auto method : procpool::get_all_start_methods()) {
      procpool::Pool pool{{.processes = 1, .start_method = method}};
      const std::string text = invalid(pool, load());
      if (method == start_method::fork) {
        CHILD_REQUIRE(text.find("procpool_spawn_loaded") != std::string::npos);
        CHILD_REQUIRE(text.find("after the pool was made") != std::string::npos);
      } else {
        CHILD_REQUIRE(text.find("procpool_spawn_loaded") != std::string::npos);
      }
      CHILD_REQUIRE(pool.apply(square, 4L) == 16);
    }
    return 0;
  });
  INFO(run.err);
  CHECK(run.exitcode == 0);
}

TEST_CASE("a library loaded before the pool: forked workers have it, spawned ones do not",
          "[spawn][files]") {
  const auto run = support::capture_child([] {
    const function twice = load();
    procpool::Pool forked{{.processes = 1, .start_method = start_method::fork}};
    CHILD_REQUIRE(forked.apply(twice, 21L) == 42);
    const auto fds = support::count_fds();
    try {
      procpool::Pool begins{
          {.processes = 1, .start_method = start_method::spawn, .initializer = {twice, 1L}}};
      return 3;
    } catch (const std::invalid_argument& error) {
      CHILD_REQUIRE(std::string(error.what()).find("procpool_spawn_loaded") != std::string::npos);
    }
    CHILD_REQUIRE(support::count_fds() == fds);
    procpool::Pool pool{spawned(1)};
    const std::string text = invalid(pool, twice);
    std::fprintf(stderr, "%s\n", text.c_str());
    CHILD_REQUIRE(text.find("procpool_spawn_loaded") != std::string::npos);
    CHILD_REQUIRE(text.find("loaded while the program ran") != std::string::npos);
    CHILD_REQUIRE(pool.apply(linked_cube, 2L) == 8);
    return 0;
  });
  INFO(run.err);
  CHECK(run.exitcode == 0);
}

// The loader gives a library the place of one that was unloaded, if it fits.
TEST_CASE("a library that takes the place of an unloaded one is not taken for it",
          "[spawn][files]") {
  const auto run = support::capture_child([] {
    const auto look_up = [](void* library, const char* name) {
      return reinterpret_cast<function>(dlsym(library, name));
    };
    const auto place = [](function f) { return reinterpret_cast<std::uintptr_t>(f); };
    const procpool::pool_options forked{.processes = 1, .start_method = start_method::fork};

    void* first = dlopen(SPAWN_LINKED_OTHER, RTLD_NOW);
    const function cube = look_up(first, "_Z11linked_cubel");
    procpool::Pool before{forked};
    CHILD_REQUIRE(before.apply(cube, 3L) == 27);
    dlclose(first);
    void* second = dlopen(SPAWN_LOADED, RTLD_NOW);
    const function twice = look_up(second, "loaded_double");
    CHILD_REQUIRE(place(twice) >> 12 == place(cube) >> 12);
    CHILD_REQUIRE(place(twice) <= place(cube));  // the first one had more code

    const std::string text = invalid(before, twice);
    std::fprintf(stderr, "%s\n", text.c_str());
    CHILD_REQUIRE(text.find("procpool_spawn_loaded") != std::string::npos);
    CHILD_REQUIRE(text.find("after the pool was made") != std::string::npos);
    procpool::Pool behind{forked};
    CHILD_REQUIRE(behind.apply(twice, 3L) == 6);
    return 0;
  });
  INFO(run.err);
  CHECK(run.exitcode == 0);
}

NAMED_PROGRAM(replaces_its_library) {
  const fs::path library = fs::path(std::getenv("LD_LIBRARY_PATH")) / "libprocpool_spawn_linked.so";
  replace_file(library, SPAWN_LINKED_OTHER);
  procpool::Pool pool{spawned(1)};
  std::printf("%s\n", invalid(pool, &linked_cube).c_str());
  std::printf("%ld\n", pool.apply(square, 5L));
  procpool::Process process({.start_method = start_method::spawn}, &linked_cube, 3L);
  std::fflush(stdout);
  process.start();
  process.join();
  return process.exitcode() == 1 ? 0 : 1;
}

TEST_CASE("a library that was replaced by another build is refused by name", "[spawn][files]") {
  const folder place;
  fs::copy_file(SPAWN_LINKED, place / "libprocpool_spawn_linked.so");
  const auto run = support::capture_child([&] {
    setenv("LD_LIBRARY_PATH", place.string().c_str(), 1);
    const auto inner = support::run_named("replaces_its_library");
    std::printf("%s%s", inner.out.c_str(), inner.err.c_str());
    return inner.exitcode;
  });
  INFO(run.out << run.err);
  CHECK(run.exitcode == 0);
  CHECK_THAT(run.out, ContainsSubstring("libprocpool_spawn_linked.so") &&
                          ContainsSubstring("its file has been replaced"));
  CHECK_THAT(run.out, ContainsSubstring("25\n"));
}
