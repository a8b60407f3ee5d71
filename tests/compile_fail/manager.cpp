// expect: f cannot be called with a T& and these arguments
// expect: T has no such constructor
// expect: the key of a Dict needs std::hash and ==, or <
// expect: returns a view
// expect: does not convert to the parameter's type
// SPDX-License-Identifier: MIT
#include <procpool/procpool.hpp>
#include <string>
#include <string_view>
#include <vector>

struct account {
  explicit account(long start) : balance(start) {}
  long withdraw(long amount) { return balance -= amount; }
  std::string_view name() const { return "account"; }
  long balance;
};
struct no_key {
  int x;
};

int main() {
  procpool::Manager manager;
  const auto mine = manager.make<account>(100L);
  mine.call(&account::withdraw, 30);
  const auto list = manager.list<std::string>();
  list.append("x");
#ifndef PROCPOOL_CONTROL
  list.call(&account::withdraw, 30);
  static_cast<void>(manager.make<account>(std::vector<int>{}));
  static_cast<void>(manager.dict<no_key, int>());
  mine.call(&account::name);
  mine.call(&account::withdraw, std::string("30"));
#endif
}
