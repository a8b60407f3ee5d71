// SPDX-License-Identifier: MIT
// A sandbox (seccomp) or an old kernel refuses one system call, with EPERM or with ENOSYS. Pools
// and processes then work all the same, or there is an error that names the call; nothing hangs.
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <string>

#include <procpool/procpool.hpp>

namespace {

struct denied {
  unsigned number;
  const char* name;
  bool must_work;  ///< there is another way
};

constexpr denied calls[] = {
    {SYS_waitid, "waitid", true},
    {SYS_pidfd_open, "pidfd_open", false},  // pools do without, a Process does not
    {SYS_pidfd_send_signal, "pidfd_send_signal", true},
    {SYS_preadv2, "preadv2", true},
    {SYS_madvise, "madvise", true},
    {SYS_mincore, "mincore", true},
    {SYS_sched_getaffinity, "sched_getaffinity", true},
    {SYS_close_range, "close_range", true},
    {SYS_membarrier, "membarrier", true},
    {SYS_sigaltstack, "sigaltstack", true},
    {SYS_memfd_create, "memfd_create", false},
    {SYS_eventfd2, "eventfd", false},
    {SYS_epoll_create1, "epoll_create1", false},
    {SYS_epoll_ctl, "epoll_ctl", false},
    {SYS_signalfd4, "signalfd", true},
    {SYS_socketpair, "socketpair", false},
    {SYS_pipe2, "pipe2", false},
    {SYS_getrandom, "getrandom", false},
};

void deny(unsigned call, int error) {
  sock_filter code[] = {BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
                        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, call, 0, 1),
                        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | static_cast<unsigned>(error)),
                        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)};
  const sock_fprog program{4, code};
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) _exit(77);
  if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0) _exit(77);
}

bool pool_works(procpool::start_method method) {
  procpool::Pool pool{{.processes = 2, .start_method = method}};
  if (pool.apply([](int i) { return i; }, 5) != 5) return false;
  return pool.apply_async([](int i) { return i; }, 6).get() == 6;
}

bool process_works() {
  procpool::Process process([] { std::exit(7); });
  process.start();
  process.join();
  return process.exitcode() == 7;
}

/// Of one use of the library: 0 when it is right.
int judge(const char* use, const denied& call, bool (*works)()) {
  try {
    if (works()) return 0;
    std::printf("without %s: %s gives wrong results\n", call.name, use);
  } catch (const std::exception& error) {
    const bool names = std::strstr(error.what(), call.name) != nullptr;
    if (names && !call.must_work) return 0;
    std::printf("without %s: %s: %s\n", call.name, use, error.what());
  }
  return 1;
}

int run_without(const denied& call, int error) {
  deny(call.number, error);
  return judge("fork", call, [] { return pool_works(procpool::start_method::fork); }) |
         judge("spawn", call, [] { return pool_works(procpool::start_method::spawn); }) |
         judge("process", call, process_works);
}

}  // namespace

int main(int argc, char** argv) {
  procpool::freeze_support(argc, argv);
  int wrong = 0;
  for (const denied& call : calls) {
    for (const int error : {EPERM, ENOSYS}) {
      const pid_t child = fork();
      if (child == 0) {
        alarm(30);
        const int result = run_without(call, error);
        std::fflush(stdout);
        _exit(result);
      }
      int status = 0;
      waitpid(child, &status, 0);
      if (WIFEXITED(status) && WEXITSTATUS(status) == 77) return 77;
      if (WIFSIGNALED(status)) std::printf("without %s: it hangs, or dies\n", call.name);
      if (status != 0) wrong = 1;
    }
  }
  return wrong;
}
