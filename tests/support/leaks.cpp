// SPDX-License-Identifier: MIT
#include "leaks.hpp"

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <fstream>
#include <thread>

#include "processes.hpp"
#include "watchdog.hpp"

namespace support {

namespace {

using namespace std::chrono_literals;

/// The descendants of this process, and the orphans that the watchdog has adopted. Zombies of the
/// watchdog are left out: it will reap them. A zombie of this process is a missing waitpid.
std::vector<process_info> processes_of_tests() {
  const pid_t self = getpid();
  const pid_t reaper = watchdog_pid();
  auto found = descendants_of(reaper != 0 ? reaper : self);
  std::erase_if(found, [=](const process_info& p) {
    return p.pid == self || (p.parent == reaper && p.zombie());
  });
  return found;
}

std::size_t count_memory_files() {
  std::ifstream maps("/proc/self/maps");
  std::size_t count = 0;
  for (std::string line; std::getline(maps, line);) {
    if (line.find("/memfd:") != std::string::npos) ++count;
  }
  return count;
}

void add_processes(const snapshot& before, std::vector<std::string>& leaks) {
  for (const auto& process : processes_of_tests()) {
    if (!before.processes.contains(process.pid)) leaks.push_back("process " + describe(process));
  }
}

void add_fds(const snapshot& before, const snapshot& now, std::vector<std::string>& leaks) {
  for (const auto& [number, target] : now.fds) {
    if (!before.fds.contains(number)) {
      leaks.push_back("file descriptor " + std::to_string(number) + " -> " + target);
    }
  }
}

/// Memory of a test that another process runs at the same time: that of the guard's own test, which
/// leaves it on purpose, and that of tests/support/named_memory.hpp.
bool of_another_test(const std::string& name) {
  for (const std::string prefix : {"procpool-support-test-", "procpool-test-"}) {
    if (name.starts_with(prefix)) return !name.starts_with(prefix + std::to_string(getpid()));
  }
  return false;
}

void add_count(const char* what, std::size_t before, std::size_t now,
               std::vector<std::string>& leaks) {
  if (now > before) leaks.push_back(std::to_string(now - before) + ' ' + what);
}

std::vector<std::string> differences(const snapshot& before) {
  const snapshot now = take_snapshot();
  std::vector<std::string> leaks;
  add_processes(before, leaks);
  add_fds(before, now, leaks);
  for (const auto& name : now.shared_memory) {
    if (before.shared_memory.contains(name) || of_another_test(name)) continue;
    leaks.push_back("shared memory /dev/shm/" + name);
  }
  add_count("thread(s)", before.threads, now.threads, leaks);
  add_count("mapping(s) of memory files", before.mappings, now.mappings, leaks);
  return leaks;
}

}  // namespace

snapshot take_snapshot() {
  snapshot now;
  now.fds = open_fds();
  for (auto& name : names_in("/dev/shm")) now.shared_memory.insert(std::move(name));
  for (const auto& process : processes_of_tests()) now.processes.insert(process.pid);
  now.threads = names_in("/proc/self/task").size();
  now.mappings = count_memory_files();
  return now;
}

std::vector<std::string> leaks_since(const snapshot& before) {
  const auto end = std::chrono::steady_clock::now() + 2s;
  auto leaks = differences(before);
  while (!leaks.empty() && std::chrono::steady_clock::now() < end) {
    std::this_thread::sleep_for(20ms);
    leaks = differences(before);
  }
  return leaks;
}

void kill_leaked(const snapshot& before) {
  for (const auto& process : processes_of_tests()) {
    if (before.processes.contains(process.pid)) continue;
    kill(process.pid, SIGKILL);
    if (process.parent == getpid()) waitpid(process.pid, nullptr, 0);
  }
}

}  // namespace support
