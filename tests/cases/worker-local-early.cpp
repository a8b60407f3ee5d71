// SPDX-License-Identifier: MIT
// A worker_local that is defined behind a global pool is not made yet in the workers, which were
// forked before its constructor ran. 0: a std::logic_error that names its type and the reason, also
// when the worker has used its random generator. 1: anything else.
#include <cstdio>
#include <stdexcept>
#include <string>

#include <procpool/procpool.hpp>
#include <procpool/random.hpp>

static procpool::Pool<> pool{1};
static procpool::worker_local<std::string> name{[] { return std::string("made"); }};

static std::string ask(int use_random) {
  if (use_random != 0) static_cast<void>(procpool::current_worker().random()());
  return *name;
}

static bool told(int use_random) {
  try {
    static_cast<void>(pool.apply(ask, use_random));
  } catch (const std::logic_error& error) {
    std::puts(error.what());
    const std::string text = error.what();
    return text.find("worker_local<std::string>") != std::string::npos &&
           text.find("before it was made") != std::string::npos;
  } catch (const std::exception& error) {
    std::puts(error.what());
  }
  return false;
}

int main() {
  return told(0) && told(1) && told(0) ? 0 : 1;
}
