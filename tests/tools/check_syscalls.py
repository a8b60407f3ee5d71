#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Checks that the library makes every system call through PROCPOOL_SYSTEM (config.hpp), so that the
tests can make each of them fail: looks in all headers for calls of the C library's wrappers that
are outside the hook.

A wrapper's name is often a member's name too (close, kill, read). So a call without a qualifier
counts only if it has as many arguments as the wrapper takes, and the header declares nothing of
that name with as many; :: in front counts always.

Exempt, because they are no plain wrappers and report failure by other means: std::thread and the
mutexes (std::system_error), std::chrono's clocks (cannot fail), stdio and iostreams, malloc and
operator new, dl_iterate_phdr and dladdr, pthread_atfork (before main), exit and atexit.
Usage: check_syscalls.py [include directory]"""

import pathlib
import re
import sys

# Wrapper -> how many arguments it takes; a pair is a range. Several wrappers for one kernel call
# (wait3, creat) are here, so that nobody needs to remember which the hook knows.
WRAPPERS = {
    # files and descriptors
    "open": (2, 3), "openat": (3, 4), "creat": 2, "close": 1, "close_range": 3, "closefrom": 1,
    "dup": 1, "dup2": 2, "dup3": 3, "pipe": 1, "pipe2": 2, "fcntl": (2, 3), "ioctl": (2, 3),
    "read": 3, "pread": 4, "readv": 3, "preadv": 4, "preadv2": 5, "write": 3,
    "pwrite": 4, "writev": 3,
    "pwritev": 4, "lseek": 3, "fsync": 1, "fdatasync": 1, "ftruncate": 2, "truncate": 2,
    "fallocate": 4, "posix_fallocate": 3, "sendfile": 4, "splice": 6, "tee": 4,
    "copy_file_range": 6, "stat": 2, "fstat": 2, "lstat": 2, "fstatat": 4, "statx": 5,
    "statfs": 2, "fstatfs": 2, "access": 2, "faccessat": 4, "readlink": 3, "readlinkat": 4,
    "symlink": 2, "link": 2, "unlink": 1, "unlinkat": 3, "rename": 2, "mkdir": 2, "rmdir": 1,
    "chmod": 2, "fchmod": 2, "chown": 3, "fchown": 3, "umask": 1, "chdir": 1, "fchdir": 1,
    "chroot": 1, "getcwd": 2, "mkfifo": 2, "mknod": 3, "mkstemp": 1, "mkostemp": 2, "opendir": 1,
    "fdopendir": 1, "readdir": 1, "closedir": 1, "flock": 2, "lockf": 3, "isatty": 1,
    "shm_open": 3, "shm_unlink": 1, "memfd_create": 2, "memfd_secret": 1,
    # waiting for descriptors
    "poll": 3, "ppoll": 4, "select": 5, "pselect": 6, "epoll_create": 1, "epoll_create1": 1,
    "epoll_ctl": 4, "epoll_wait": 4, "epoll_pwait": 5, "epoll_pwait2": 5, "eventfd": 2,
    "eventfd_read": 2, "eventfd_write": 2, "signalfd": 3, "timerfd_create": 2,
    "timerfd_settime": 4, "timerfd_gettime": 2, "inotify_init1": 1, "inotify_add_watch": 3,
    # sockets
    "socket": 3, "socketpair": 4, "bind": 3, "listen": 2, "accept": 3, "accept4": 4, "connect": 3,
    "shutdown": 2, "send": 4, "sendto": 6, "sendmsg": 3, "sendmmsg": 4, "recv": 4, "recvfrom": 6,
    "recvmsg": 3, "recvmmsg": 5, "getsockopt": 5, "setsockopt": 5, "getsockname": 3,
    "getpeername": 3,
    # memory
    "mmap": 6, "munmap": 2, "mremap": (4, 5), "mprotect": 3, "pkey_mprotect": 4, "madvise": 3,
    "posix_madvise": 3, "msync": 3, "mlock": 2, "mlock2": 3, "munlock": 2, "mlockall": 1,
    "munlockall": 0, "mincore": 3, "brk": 1, "sbrk": 1, "membarrier": 3, "process_vm_readv": 6,
    "process_vm_writev": 6, "process_madvise": 5, "malloc_trim": 1,
    # processes
    "fork": 0, "_Fork": 0, "vfork": 0, "clone": (4, 7), "execve": 3, "execv": 2, "execvp": 2,
    "execvpe": 3, "execl": (2, 99), "execlp": (2, 99), "execle": (3, 99), "fexecve": 3,
    "posix_spawn": 6, "posix_spawnp": 6, "system": 1, "popen": 2, "pclose": 1, "wait": 1,
    "wait3": 3, "wait4": 4, "waitpid": 3, "waitid": 4, "_exit": 1, "_Exit": 1, "quick_exit": 1,
    "on_exit": 2, "getpid": 0, "getppid": 0, "gettid": 0, "getpgid": 1, "getpgrp": 0, "setpgid": 2,
    "getsid": 1, "setsid": 0, "getuid": 0, "geteuid": 0, "getgid": 0, "getegid": 0, "setuid": 1,
    "setgid": 1, "setreuid": 2, "setresuid": 3, "prctl": (1, 5), "arch_prctl": 2, "ptrace": (1, 4),
    "unshare": 1, "setns": 2, "pidfd_open": 2, "pidfd_send_signal": 4, "pidfd_getfd": 3,
    "daemon": 2, "personality": 1, "getrandom": 3, "getentropy": 2,
    # scheduling, limits, the machine
    "nice": 1, "getpriority": 2, "setpriority": 3, "sched_yield": 0, "sched_getaffinity": 3,
    "sched_setaffinity": 3, "sched_getcpu": 0, "sched_getscheduler": 1, "sched_setscheduler": 3,
    "sched_getparam": 2, "sched_setparam": 2, "getcpu": 2, "getrlimit": 2, "setrlimit": 2,
    "prlimit": 4, "getrusage": 2, "times": 1, "sysinfo": 1, "uname": 1, "gethostname": 2,
    "sysconf": 1, "fpathconf": 2, "pathconf": 2, "getauxval": 1, "getloadavg": 2, "get_nprocs": 0,
    # signals
    "kill": 2, "killpg": 2, "tgkill": 3, "raise": 1, "sigqueue": 3, "sigaction": 3, "signal": 2,
    "sigaltstack": 2, "sigprocmask": 3, "sigpending": 1, "sigsuspend": 1, "sigwait": 2,
    "sigwaitinfo": 2, "sigtimedwait": 3, "pause": 0, "alarm": 1, "ualarm": 2, "abort": 0,
    "pthread_kill": 2, "pthread_sigqueue": 3, "pthread_sigmask": 3,
    # threads
    "pthread_create": 4, "pthread_join": 2, "pthread_detach": 1, "pthread_cancel": 1,
    "pthread_setaffinity_np": 3, "pthread_getaffinity_np": 3, "pthread_setname_np": 2,
    "pthread_getattr_np": 2, "sem_init": 3, "sem_open": (2, 4), "sem_wait": 1, "sem_post": 1,
    # time
    "nanosleep": 2, "clock_nanosleep": 4, "usleep": 1, "sleep": 1, "clock_gettime": 2,
    "clock_getres": 2, "clock_settime": 2, "gettimeofday": 2, "getitimer": 2, "setitimer": 3,
    "timer_create": 3, "timer_settime": 4, "timer_delete": 1,
    # whatever has no wrapper
    "syscall": (1, 7),
}
# Parameters and members of other headers have these names with as many arguments.
ONLY_QUALIFIED = {"wait"}

HOOK = "PROCPOOL_SYSTEM("
COMMENT_OR_TEXT = re.compile(
    r'//[^\n]*|/\*.*?\*/|R"(\w*)\(.*?\)\1"|"(?:[^"\\\n]|\\.)*"|(?<!\w)\'(?:[^\'\\\n]|\\.)+\'', re.S)
DIRECTIVE = re.compile(r"^[ \t]*#(?:[^\n\\]|\\.|\\\n)*", re.M)
NAME = re.compile(r"(?<!\w)([A-Za-z_]\w*)\s*\(")


def blank(match):
    """As long as what it replaces, with the same line ends, so that line numbers stay."""
    return re.sub(r"[^\n]", " ", match[0])


def closing(text, at):
    """Where the bracket that opens at @p at is closed."""
    depth = 0
    for i in range(at, len(text)):
        depth += (text[i] in "([{") - (text[i] in ")]}")
        if depth == 0:
            return i
    return len(text)


def count_arguments(inside):
    depth, count = 0, 1 if inside.strip() else 0
    for c in inside:
        depth += (c in "([{") - (c in ")]}")
        count += c == "," and depth == 0
    return count


def takes(name, count):
    wanted = WRAPPERS[name]
    least, most = wanted if isinstance(wanted, tuple) else (wanted, wanted)
    return least <= count <= most


def qualifier(text, at):
    """What stands before the name at @p at: "global", "other" (a member, another namespace), "type"
    (so that this is a declaration), or "none"."""
    before = text[:at].rstrip()
    if before.endswith("::"):
        outer = before[:-2].rstrip()
        named = re.search(r"[\w>]$", outer) and not re.search(r"\b(?:return|co_return)$", outer)
        return "other" if named else "global"
    if before.endswith((".", "->")):
        return "other"
    word = re.search(r"(\w+)$", before)
    if word and word[1] not in {"return", "else", "do", "throw", "co_return", "case"}:
        return "type"
    # "void* mmap(" and "T& kill(" are declarations, "a * read(" is no style of ours.
    return "type" if before.endswith(("*", "&", ">")) and not before.endswith("&&") else "none"


def unhooked(text):
    """(line, call) of every call outside the hook."""
    text = COMMENT_OR_TEXT.sub(blank, text)
    text = DIRECTIVE.sub(blank, text)
    own, plain = set(), []
    for match in NAME.finditer(text):
        name, at = match[1], match.start()
        if name not in WRAPPERS or text[:at].rstrip().endswith(HOOK):
            continue
        where = qualifier(text, at)
        inside = text[match.end():closing(text, match.end() - 1)]
        count = count_arguments(inside)
        line = text.count("\n", 0, at) + 1
        if where == "type":
            own.update((name, count - i) for i in range(inside.count(" = ") + 1))  # defaults
        elif where == "global":
            yield line, name
        elif where == "none" and takes(name, count) and name not in ONLY_QUALIFIED:
            plain.append((line, name, count))
    yield from ((line, name) for line, name, count in plain if (name, count) not in own)


def hooked(text):
    text = COMMENT_OR_TEXT.sub(blank, text)
    return re.findall(re.escape(HOOK) + r"\s*(\w+)\s*\(", text)


def main():
    default = pathlib.Path(__file__).resolve().parents[2] / "include"
    root = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else default
    calls, faults = [], 0
    for path in sorted(root.rglob("*.hpp")):
        text = path.read_text(encoding="utf-8")
        calls += hooked(text)
        for line, name in unhooked(text):
            faults += 1
            print(f"{path.relative_to(root).as_posix()}:{line}: {name}() is called outside "
                  "PROCPOOL_SYSTEM", file=sys.stderr)
    for name in sorted(set(calls) - set(WRAPPERS)):
        faults += 1
        print(f"{name}: hooked, but not in the list of {pathlib.Path(__file__).name}",
              file=sys.stderr)
    print(f"{len(calls)} hooked calls of {len(set(calls))} functions, {faults} faults")
    return 1 if faults or not calls else 0


if __name__ == "__main__":
    sys.exit(main())
