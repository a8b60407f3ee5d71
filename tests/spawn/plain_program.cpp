// SPDX-License-Identifier: MIT
// Never calls freeze_support, and says what happens to it.
#include <cstdio>
#include <stdexcept>

#include <procpool/procpool.hpp>

namespace {

long square(long x) {
  return x * x;
}

template <class Work>
void say_what_happens(const char* what, Work work) {
  try {
    work();
    std::printf("%s: nothing was thrown\n", what);
  } catch (const std::logic_error& error) {
    std::printf("%s: %s\n", what, error.what());
  }
}

}  // namespace

int main() {
  std::puts("main begins");
  using procpool::start_method;
  say_what_happens("pool", [] {
    procpool::Pool pool{{.processes = 2, .start_method = start_method::spawn}};
    static_cast<void>(pool.apply(square, 3L));
  });
  procpool::Process process({.start_method = start_method::spawn}, square, 3L);
  say_what_happens("process", [&] { process.start(); });
  std::printf("alive: %d, children: %zu\n", process.is_alive() ? 1 : 0,
              procpool::active_children().size());
  procpool::Pool pool{2};
  std::printf("fork: %ld\n", pool.apply(square, 5L));
}
