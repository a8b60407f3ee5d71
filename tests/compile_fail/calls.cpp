// expect: the target of the task cannot be called
// expect: instead of std::function or std::bind pass the function
// expect: starmap takes items that are the arguments of a call
// expect: members besides its text, which would not arrive
// expect: this exception cannot be made from its text
// SPDX-License-Identifier: MIT
#include <functional>
#include <procpool/procpool.hpp>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

struct counter {
  int plus(int x) const { return value + x; }
  int value = 0;
};
struct http_error : std::runtime_error {
  explicit http_error(const std::string& text, int code = 0)
      : std::runtime_error(text), status(code) {}
  int status;
};
struct parse_error : std::exception {
  int line = 0;
};
struct not_found : std::runtime_error {
  using std::runtime_error::runtime_error;
};
long add(long a, long b) {
  return a + b;
}

int main() {
  procpool::register_exception<not_found>();
  procpool::Pool pool{1};
  pool.starmap(add, std::vector<std::pair<long, long>>{{1, 2}});
  pool.apply(&counter::plus, counter{}, 4);
#ifndef PROCPOOL_CONTROL
  procpool::register_exception<http_error>();
  procpool::register_exception<parse_error>();
  pool.apply(add(1, 2));
  pool.apply(std::function<long(long, long)>(add), 1, 2);
  pool.starmap(add, std::vector<long>{1, 2});
#endif
}
