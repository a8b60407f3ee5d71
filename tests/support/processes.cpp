// SPDX-License-Identifier: MIT
#include "processes.hpp"

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <optional>
#include <sstream>
#include <system_error>

namespace support {

namespace {

std::optional<int> to_number(const std::string& text) {
  int number = 0;
  const char* end = text.data() + text.size();
  const auto result = std::from_chars(text.data(), end, number);
  if (result.ec != std::errc{} || result.ptr != end) return std::nullopt;
  return number;
}

/// The name may contain blanks and brackets, so it ends at the last bracket of the line.
std::optional<process_info> parse_stat(const std::string& line) {
  const auto open = line.find('(');
  const auto close = line.rfind(')');
  if (open == std::string::npos || close == std::string::npos) return std::nullopt;
  process_info process;
  process.pid = std::stoi(line);
  process.name = line.substr(open + 1, close - open - 1);
  std::istringstream rest(line.substr(close + 1));
  if (!(rest >> process.state >> process.parent)) return std::nullopt;
  return process;
}

std::optional<process_info> read_process(const std::string& pid) {
  std::ifstream file("/proc/" + pid + "/stat");
  std::string line;
  if (!std::getline(file, line)) return std::nullopt;  // the process has ended meanwhile
  return parse_stat(line);
}

/// Moves everything whose parent is @p pid from @p rest to @p found, then their children.
void collect(pid_t pid, std::vector<process_info>& rest, std::vector<process_info>& found) {
  const auto is_other = [pid](const process_info& p) { return p.parent != pid; };
  const auto middle = std::stable_partition(rest.begin(), rest.end(), is_other);
  const std::vector<process_info> children(middle, rest.end());
  rest.erase(middle, rest.end());
  for (const auto& child : children) {
    found.push_back(child);
    collect(child.pid, rest, found);
  }
}

}  // namespace

std::string describe(const process_info& process) {
  return std::to_string(process.pid) + " (" + process.name + ", state " + process.state +
         ", child of " + std::to_string(process.parent) + ")";
}

std::vector<std::string> names_in(const std::string& directory) {
  std::vector<std::string> names;
  std::error_code error;
  std::filesystem::directory_iterator at(directory, error);
  while (!error && at != std::filesystem::directory_iterator{}) {
    names.push_back(at->path().filename().string());
    at.increment(error);
  }
  return names;
}

std::vector<process_info> all_processes() {
  std::vector<process_info> all;
  for (const auto& name : names_in("/proc")) {
    if (!to_number(name)) continue;
    if (auto process = read_process(name)) all.push_back(*std::move(process));
  }
  return all;
}

std::vector<process_info> children_of(pid_t pid) {
  auto all = all_processes();
  std::erase_if(all, [pid](const process_info& p) { return p.parent != pid; });
  return all;
}

std::vector<process_info> descendants_of(pid_t pid) {
  auto all = all_processes();
  std::vector<process_info> found;
  collect(pid, all, found);
  return found;
}

bool is_running(pid_t pid) {
  const auto process = read_process(std::to_string(pid));
  return process && !process->zombie();
}

std::map<int, std::string> open_fds() {
  std::map<int, std::string> fds;
  for (const auto& name : names_in("/proc/self/fd")) {
    const auto number = to_number(name);
    std::error_code error;
    const auto target = std::filesystem::read_symlink("/proc/self/fd/" + name, error);
    if (number && !error) fds[*number] = target.string();  // skips the one that read the folder
  }
  return fds;
}

std::size_t count_fds() {
  return open_fds().size();
}

}  // namespace support
