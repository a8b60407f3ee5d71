// SPDX-License-Identifier: MIT
// std::throw_with_nested outside of any handler is allowed and makes an exception with an empty
// std::nested_exception. std::rethrow_if_nested ends the process for it. 0: the exception arrives,
// on every backend. 1: the worker died.
#include <cstdio>
#include <exception>
#include <stdexcept>
#include <string>

#include <procpool/procpool.hpp>

static int fail(int) {
  std::throw_with_nested(std::runtime_error("no cause"));
}

template <class Pool>
static bool arrives(Pool&& pool) {
  try {
    pool.apply(fail, 1);
  } catch (const procpool::WorkerDied& died) {
    std::puts(died.what());
  } catch (const std::runtime_error& error) {
    std::puts(error.what());
    return std::string(error.what()) == "no cause";
  }
  return false;
}

int main() {
  const bool all = arrives(procpool::Pool<>{1}) && arrives(procpool::ThreadPool{1}) &&
                   arrives(procpool::Pool<procpool::Serial>{});
  return all ? 0 : 1;
}
