// SPDX-License-Identifier: MIT
//
// Objects that all processes use, kept in a process of their own.
//
//     with Manager() as manager:
//         counts = manager.dict()
//         pool.starmap(count, [(counts, text) for text in texts])

#include <fmt/core.h>

#include <sstream>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include <procpool/procpool.hpp>

using Counts = procpool::DictProxy<std::string, long>;

/// A task: counts the words of a text. One call for all of them: nobody else comes in between.
void count(const Counts& counts, const std::string& text) {
  std::vector<std::string> words;
  std::istringstream in(text);
  for (std::string word; in >> word;) words.push_back(word);
  counts.call(
      [](procpool::Dict<std::string, long>& all, const std::vector<std::string>& more) {
        for (const std::string& word : more) all[word] += 1;
      },
      words);
}

/// A type of our own. It stays in the manager's process.
class Account {
 public:
  explicit Account(long balance) : balance_(balance) {}
  long withdraw(long amount) {
    if (amount > balance_) throw std::invalid_argument("not enough money");
    return balance_ -= amount;
  }

 private:
  long balance_;
};

int main() {
  procpool::Pool pool{2};
  procpool::Manager manager;

  const auto counts = manager.dict<std::string, long>();
  std::vector<std::pair<Counts, std::string>> texts;
  for (const char* text : {"a rose is a rose", "is a rose", "a daisy is a daisy"}) {
    texts.emplace_back(counts, text);
  }
  pool.starmap(count, texts);
  for (const char* word : {"a", "rose", "is", "daisy"}) {
    fmt::print("{}: {}\n", word, counts.get(word));
  }

  const auto account = manager.make<Account>(100L);
  fmt::print("left: {}\n", account.call(&Account::withdraw, 30));
  try {
    account.call(&Account::withdraw, 300);
  } catch (const std::invalid_argument& error) {
    fmt::print("{}\n", error.what());
  }

  manager.shutdown();
  try {
    static_cast<void>(counts.size());
  } catch (const procpool::EOFError& error) {
    fmt::print("{}\n", error.what());
  }
}
