// SPDX-License-Identifier: MIT
//
// An initializer runs once in each worker before its first task: it makes objects that are
// expensive to make and are used by many tasks.
//
//     def load_words(name): global words; words = ...
//
//     with multiprocessing.Pool(2, initializer=load_words, initargs=("numerals",)) as pool:
//         print(pool.map(look_up, ["two", "three", "ten"]))

#include <fmt/ranges.h>

#include <map>
#include <stdexcept>
#include <string>
#include <vector>

#include <procpool/procpool.hpp>

/// Empty in the parent, filled in every worker.
std::map<std::string, int> words;

void load_words(const std::string& name) {
  if (name != "numerals") throw std::invalid_argument("no such dictionary: " + name);
  words = {{"one", 1}, {"two", 2}, {"three", 3}, {"ten", 10}};
}

int look_up(const std::string& word) {
  return words.at(word);
}

int main() {
  procpool::Pool pool{{.processes = 2, .initializer = {load_words, std::string{"numerals"}}}};
  fmt::print("{}\n", pool.map(look_up, std::vector<std::string>{"two", "three", "ten"}));
  fmt::print("in the parent: {} words\n", words.size());

  // If the initializer throws, the pool does not hang: the tasks end with BrokenPool and the
  // reason.
  procpool::Pool broken{{.processes = 2, .initializer = {load_words, std::string{"verbs"}}}};
  try {
    broken.apply(look_up, "go");
  } catch (const procpool::BrokenPool& error) {
    fmt::print("{}\n", error.what());
  }
}
