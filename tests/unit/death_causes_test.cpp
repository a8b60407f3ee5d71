// SPDX-License-Identifier: MIT
// What WorkerDied says of signals: their names, and whether the out-of-memory killer sent them.
#include <signal.h>
#include <unistd.h>

#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <cstdio>
#include <map>
#include <string>

#include <procpool/detail/crash/out_of_memory.hpp>
#include <procpool/detail/crash/signal_name.hpp>
#include <procpool/procpool.hpp>

using Catch::Matchers::ContainsSubstring;
namespace os = procpool::detail::os;

namespace {

/// The file that counts on a machine with just these.
os::oom_source source_with(const std::map<std::string, std::string>& files) {
  return os::find_oom_source([&](const std::string& path) {
    const auto found = files.find(path);
    return found == files.end() ? std::string() : found->second;
  });
}

const std::string unified =
    "25 18 0:22 / /proc rw,nosuid shared:5 - proc proc rw\n"
    "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n";
const std::string split =
    "31 24 0:27 / /sys/fs/cgroup/memory rw shared:10 - cgroup cgroup rw,memory\n"
    "32 24 0:28 / /sys/fs/cgroup/cpu,cpuacct rw shared:11 - cgroup cgroup rw,cpu,cpuacct\n";
const std::string counted = "low 0\nhigh 3\nmax 8\noom 2\noom_kill 1\noom_group_kill 0\n";

void die_of(int number) {
  raise(number);
}

std::string text_of_death(int number) {
  procpool::Pool pool{{.processes = 1, .start_method = procpool::start_method::fork}};
  try {
    pool.apply(die_of, number);
  } catch (const procpool::WorkerDied& died) {
    return died.what();
  }
  return "alive";
}

}  // namespace

TEST_CASE("Signals have the names that people search for", "[death]") {
  CHECK(procpool::detail::signal_name(SIGKILL) == "SIGKILL");
  CHECK(procpool::detail::signal_name(SIGRTMIN) == "SIGRTMIN");
  CHECK(procpool::detail::signal_name(SIGRTMIN + 3) == "SIGRTMIN+3");
  CHECK(procpool::detail::signal_name(SIGRTMAX) == "SIGRTMAX");
  CHECK(procpool::detail::signal_name(0) == "unknown");
  for (int number = 1; number < 32; ++number) {
    CHECK(procpool::detail::signal_name(number).starts_with("SIG"));
  }
}

TEST_CASE("WorkerDied names the signal", "[death]") {
  CHECK_THAT(text_of_death(SIGSEGV), ContainsSubstring("was killed by signal 11 (SIGSEGV)"));
  CHECK_THAT(text_of_death(SIGABRT), ContainsSubstring("was killed by signal 6 (SIGABRT)"));
  CHECK_THAT(text_of_death(SIGTERM), ContainsSubstring("was killed by signal 15 (SIGTERM)"));
  CHECK_THAT(text_of_death(SIGRTMIN + 1), ContainsSubstring("(SIGRTMIN+1)"));
}

TEST_CASE("WorkerDied tells who often sends SIGKILL", "[death]") {
  CHECK_THAT(text_of_death(SIGKILL),
             ContainsSubstring(
                 "was killed by signal 9 (SIGKILL), often the kernel's out-of-memory killer"));
}

TEST_CASE("The file that counts out-of-memory kills is found", "[death]") {
  CHECK(source_with({{"/proc/self/cgroup", "0::/a/b\n"},
                     {"/proc/self/mountinfo", unified},
                     {"/sys/fs/cgroup/a/b/memory.events", counted}})
            .file == "/sys/fs/cgroup/a/b/memory.events");
  CHECK(source_with({{"/proc/self/cgroup", "0::/\n"},
                     {"/proc/self/mountinfo", unified},
                     {"/sys/fs/cgroup/memory.events", counted}})
            .file == "/sys/fs/cgroup/memory.events");
  const auto old =
      source_with({{"/proc/self/cgroup", "4:cpu,cpuacct:/c\n3:memory:/m\n0::/\n"},
                   {"/proc/self/mountinfo", split},
                   {"/sys/fs/cgroup/memory/m/memory.oom_control", "under_oom 0\noom_kill 7\n"},
                   {"/proc/vmstat", "oom_kill 8\n"}});
  CHECK(old.file == "/sys/fs/cgroup/memory/m/memory.oom_control");
  CHECK_FALSE(old.whole_system);
}

TEST_CASE("Without a count of the control group the system's is taken", "[death]") {
  const auto found = source_with({{"/proc/self/cgroup", "0::/\n"},
                                  {"/proc/self/mountinfo", unified},
                                  {"/proc/vmstat", "pgfault 5\noom_kill 8\n"}});
  CHECK(found.file == "/proc/vmstat");
  CHECK(found.whole_system);
  CHECK(source_with({}).file.empty());
}

TEST_CASE("Each count of the out-of-memory killer explains one death", "[death]") {
  const std::string name = "/tmp/procpool-death-causes-" + std::to_string(getpid());
  const auto write = [&](const char* text) {
    std::FILE* file = std::fopen(name.c_str(), "w");
    REQUIRE(file != nullptr);
    std::fputs(text, file);
    std::fclose(file);
  };
  write("oom_kill 5\n");
  os::oom_counter counter({name, false});
  CHECK_THAT(counter.about_a_kill(), ContainsSubstring("often"));
  write("oom_kill 7\n");
  CHECK_THAT(counter.about_a_kill(), ContainsSubstring("by the kernel's out-of-memory killer"));
  CHECK_THAT(counter.about_a_kill(), ContainsSubstring("by the kernel's out-of-memory killer"));
  CHECK_THAT(counter.about_a_kill(), ContainsSubstring("often"));
  std::remove(name.c_str());
  CHECK_THAT(counter.about_a_kill(), ContainsSubstring("often"));
}
