// SPDX-License-Identifier: MIT
// A command that a task starts must heed Ctrl-C as one that the program starts, or it outlives what
// the user interrupted: what is ignored stays ignored across exec. Exits with 0 when both do alike.
#include <procpool/procpool.hpp>

#include <sys/wait.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>

/// Whether an external command ends by SIGINT.
bool command_heeds_interrupt() {
  const int status = std::system("kill -INT $$; exit 0");
  return WIFSIGNALED(status) && WTERMSIG(status) == SIGINT;
}

int main() {
  std::signal(SIGINT, SIG_DFL);
  procpool::Pool pool{1};
  const bool here = command_heeds_interrupt();
  const bool in_a_task = pool.apply(command_heeds_interrupt);
  std::printf("a command heeds SIGINT: %d in the program, %d in a task\n", here, in_a_task);
  return here == in_a_task ? 0 : 1;
}
