// SPDX-License-Identifier: MIT
// A pool and a process that are made by static objects, before main and before the static objects
// of procpool::compiled, which is linked last.
#include <vector>

#include <procpool/pool.hpp>
#include <procpool/process.hpp>

namespace {

procpool::Pool<> pool{2};

struct started {
  started() { process.start(); }
  procpool::Process process{[] {}};
};
started at_once;

}  // namespace

int main() {
  const std::vector<long> squares = pool.map([](long x) { return x * x; }, {1L, 2L, 3L});
  at_once.process.join();
  return squares == std::vector<long>{1, 4, 9} && at_once.process.exitcode() == 0 ? 0 : 1;
}
