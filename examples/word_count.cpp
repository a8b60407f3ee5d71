// SPDX-License-Identifier: MIT
//
// The most frequent words of all files under a directory, counted in this process and by a pool.
//
//     word_count [--progress] [directory]        default: /usr/share/doc
//
// Compressed files (.gz) are skipped. A file that cannot be read is reported on stderr; the others
// are counted. A progress line is shown on stderr when that is a terminal or --progress is given.

#include <fmt/core.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <ranges>
#include <string>
#include <system_error>
#include <unordered_map>
#include <utility>
#include <vector>

#include <procpool/procpool.hpp>

namespace fs = std::filesystem;
using batch = std::vector<std::string>;  // names of files that one task counts

/// The result of one task.
struct tally {
  std::unordered_map<std::string, long> words;
  std::vector<std::string> unreadable;
  std::size_t files = 0;
};

void count_words(std::string text, std::unordered_map<std::string, long>& words) {
  std::string word;
  text += '\n';  // ends the last word
  for (const char c : text) {
    if (const auto byte = static_cast<unsigned char>(c); std::isalpha(byte) != 0) {
      word += static_cast<char>(std::tolower(byte));
    } else if (!word.empty()) {
      ++words[std::exchange(word, {})];
    }
  }
}

/// Returns false, with the reason in errno, if the file cannot be opened or read to its end.
bool read_file(const std::string& name, std::string& text) {
  std::ifstream file(name, std::ios::binary);
  std::array<char, 65536> buffer;
  do {
    file.read(buffer.data(), buffer.size());
    text.append(buffer.data(), static_cast<std::size_t>(file.gcount()));
  } while (file);
  return file.eof() && !file.bad();
}

tally count_files(const batch& files) {
  tally result;
  for (const auto& name : files) {
    ++result.files;
    if (std::string text; read_file(name, text)) {
      count_words(std::move(text), result.words);
    } else {
      result.unreadable.push_back(name + ": " + std::strerror(errno));
    }
  }
  return result;
}

void add(tally part, tally& total) {
  for (const auto& [word, count] : part.words) total.words[word] += count;
  std::ranges::move(part.unreadable, std::back_inserter(total.unreadable));
  total.files += part.files;
}

/// Whether to open a file. A broken link is opened too, so that it is reported.
bool is_wanted(const fs::directory_entry& entry) {
  std::error_code error;
  if (entry.path().extension() == ".gz") return false;
  return entry.is_regular_file(error) || (entry.is_symlink(error) && !entry.exists(error));
}

/// All files except compressed ones, 16 to a batch, in the order of their names.
std::vector<batch> find_files(const fs::path& directory) {
  batch names;
  const auto options = fs::directory_options::skip_permission_denied;
  for (const auto& entry : fs::recursive_directory_iterator(directory, options)) {
    if (is_wanted(entry)) names.push_back(entry.path().string());
  }
  std::ranges::sort(names);
  std::vector<batch> batches;
  for (std::size_t i = 0; i < names.size(); ++i) {
    if (i % 16 == 0) batches.emplace_back();
    batches.back().push_back(std::move(names[i]));
  }
  return batches;
}

/// Adds up the results that @p parts yields. Shows the progress and prints the time.
template <class Range>
tally sum_up(const char* name, Range&& parts, bool progress) {
  const auto start = std::chrono::steady_clock::now();
  tally total;
  for (auto&& part : parts) {
    add(std::move(part), total);
    if (progress) fmt::print(stderr, "\r{}: {} files", name, total.files);
  }
  if (progress) fmt::print(stderr, "\n");
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
  fmt::print("{:8} {} files in {:.2f} s\n", name, total.files, seconds.count());
  return total;
}

void print_most_frequent(const tally& total, long how_many) {
  std::vector<std::pair<std::string, long>> words(total.words.begin(), total.words.end());
  std::ranges::sort(words, [](const auto& a, const auto& b) {
    return std::pair(-a.second, a.first) < std::pair(-b.second, b.first);
  });
  for (const auto& [word, count] : words | std::views::take(how_many))
    fmt::print("{:>10} {}\n", count, word);
}

int main(int argc, char** argv) {
  std::vector<std::string> arguments(argv + 1, argv + argc);
  const bool progress = std::erase(arguments, "--progress") > 0 || isatty(STDERR_FILENO) != 0;
  const fs::path directory = arguments.empty() ? "/usr/share/doc" : arguments.front();
  if (!fs::is_directory(directory)) {
    fmt::print(stderr, "{} is not a directory\n", directory.string());
    return 1;
  }
  const auto batches = find_files(directory);
  const tally serial = sum_up("serial", batches | std::views::transform(count_files), progress);
  procpool::Pool pool;  // one worker per CPU
  const tally parallel =
      sum_up("parallel", pool.imap_unordered(count_files, batches, {.buffersize = 64}), progress);

  for (const auto& line : serial.unreadable) fmt::print(stderr, "cannot read {}\n", line);
  fmt::print("{} could not be read\n", serial.unreadable.size());
  print_most_frequent(parallel, 10);
  const bool same = serial.words == parallel.words && serial.files == parallel.files;
  fmt::print("serial and parallel results are {}\n", same ? "the same" : "DIFFERENT");
  return same ? 0 : 1;
}
