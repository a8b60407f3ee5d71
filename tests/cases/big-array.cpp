// SPDX-License-Identifier: MIT
// A result of 3 MiB by value, and an argument: a plain call needs each once on a stack of 8 MiB.
// 0: so does a call by way of a pool. 1: the child that does it dies, of a stack overflow.
#include <fmt/format.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cstddef>

#include <procpool/procpool.hpp>

namespace {

using image = std::array<char, std::size_t{3} << 20>;

image paint(int color) {
  image made;
  made.fill(static_cast<char>(color));
  return made;
}
int last_of(const image& picture) {
  return picture.back();
}
image screen;

template <class Pool>
void try_out(Pool&& pool) {
  screen = pool.apply(paint, 7);
  if (screen.back() != 7 || pool.apply(last_of, screen) != 7) _exit(1);
}

int child() {
  const rlimit stack{8U << 20, 8U << 20};  // the usual one
  setrlimit(RLIMIT_STACK, &stack);
  try_out(procpool::Pool{1});
  try_out(procpool::ThreadPool{1});
  try_out(procpool::Pool<procpool::Serial>{});
  return 0;
}

}  // namespace

int main() {
  const pid_t pid = fork();
  if (pid == 0) _exit(child());
  int status = 0;
  waitpid(pid, &status, 0);
  if (WIFSIGNALED(status)) fmt::print("the child died of signal {}\n", WTERMSIG(status));
  return status == 0 ? 0 : 1;
}
