// SPDX-License-Identifier: MIT
// Runs the same tasks in processes, in threads and in the caller.
#include <fmt/format.h>

#include <procpool/procpool.hpp>
#include <string>
#include <vector>

namespace {

int calls = 0;  // in this process

int length(const std::string& word) {
  ++calls;
  return static_cast<int>(word.size());
}

template <class Pool>
void run(Pool& pool, const char* name) {
  calls = 0;
  const auto lengths = pool.map(length, std::vector<std::string>{"a", "bc", "def"});
  fmt::print("{}: {} {} {}, {} calls here\n", name, lengths[0], lengths[1], lengths[2], calls);
}

}  // namespace

int main() {
  {
    procpool::Pool pool{2};
    run(pool, "processes");
  }
  {
    procpool::ThreadPool pool{1};  // one thread, because `calls` is not atomic
    run(pool, "threads");
  }
  procpool::Pool<procpool::Serial> pool;
  run(pool, "serial");
}
