// SPDX-License-Identifier: MIT
#include "child.hpp"

#include <fcntl.h>
#include <poll.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdio>
#include <exception>
#include <iostream>
#include <map>
#include <stdexcept>
#include <system_error>

namespace support {

namespace {

constexpr const char* named_option = "--run-named-program";

[[noreturn]] void fail(const char* what) {
  throw std::system_error(errno, std::generic_category(), what);
}

void flush_all() {
  std::cout.flush();
  std::fflush(nullptr);
}

[[noreturn]] void leave_with(const std::function<int()>& body) {
  int status = child_threw;
  try {
    status = body();
  } catch (const std::exception& error) {
    std::fprintf(stderr, "child: %s\n", error.what());
  } catch (...) {
    std::fprintf(stderr, "child: an exception of unknown type\n");
  }
  flush_all();
  _exit(status);
}

struct pipe_ends {
  int read = -1;
  int write = -1;
};

pipe_ends make_pipe() {
  std::array<int, 2> ends{};
  if (pipe2(ends.data(), O_CLOEXEC) != 0) fail("pipe2");
  return {ends[0], ends[1]};
}

/// Reads the available bytes; at the end of the stream closes @p fd and sets it to -1.
void drain(int& fd, std::string& into) {
  std::array<char, 65536> buffer;
  const ssize_t got = read(fd, buffer.data(), buffer.size());
  if (got > 0) {
    into.append(buffer.data(), static_cast<std::size_t>(got));
  } else if (got == 0 || errno != EINTR) {
    close(fd);
    fd = -1;
  }
}

/// Reads both streams in turn until both have ended, so that neither pipe stays full.
void drain_both(int out, int err, captured& result) {
  while (out >= 0 || err >= 0) {
    std::array<pollfd, 2> fds{{{out, POLLIN, 0}, {err, POLLIN, 0}}};
    if (poll(fds.data(), fds.size(), -1) < 0 && errno != EINTR) fail("poll");
    if (fds[0].revents != 0) drain(out, result.out);
    if (fds[1].revents != 0) drain(err, result.err);
  }
}

std::map<std::string, int (*)()>& named_programs() {
  static std::map<std::string, int (*)()> programs;
  return programs;
}

[[noreturn]] void execute(const std::vector<std::string>& command) {
  std::vector<char*> arguments;
  for (const auto& word : command) arguments.push_back(const_cast<char*>(word.c_str()));
  arguments.push_back(nullptr);
  execvp(arguments[0], arguments.data());
  std::perror(arguments[0]);
  _exit(127);
}

}  // namespace

void child_failed(const char* condition, const char* file, int line) {
  std::fprintf(stderr, "%s:%d: not true in the child: %s\n", file, line, condition);
  flush_all();
  _exit(1);
}

pid_t start_child(const std::function<int()>& body) {
  flush_all();  // otherwise the child would write the buffered text again
  const pid_t pid = fork();
  if (pid < 0) fail("fork");
  if (pid == 0) leave_with(body);
  return pid;
}

int wait_child(pid_t pid) {
  int status = 0;
  while (waitpid(pid, &status, 0) < 0) {
    if (errno != EINTR) fail("waitpid");
  }
  return WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status);
}

int run_child(const std::function<int()>& body) {
  return wait_child(start_child(body));
}

captured capture_child(const std::function<int()>& body) {
  const auto out = make_pipe();
  const auto err = make_pipe();
  const pid_t pid = start_child([&] {
    dup2(out.write, STDOUT_FILENO);
    dup2(err.write, STDERR_FILENO);
    for (int fd : {out.read, out.write, err.read, err.write}) close(fd);
    return body();
  });
  close(out.write);
  close(err.write);
  captured result;
  drain_both(out.read, err.read, result);
  result.exitcode = wait_child(pid);
  return result;
}

captured run_program(const std::vector<std::string>& command) {
  return capture_child([&]() -> int { execute(command); });
}

captured run_self(const std::vector<std::string>& arguments) {
  std::vector<std::string> command{"/proc/self/exe"};
  command.insert(command.end(), arguments.begin(), arguments.end());
  return run_program(command);
}

captured run_named(const std::string& name) {
  return run_self({named_option, name});
}

named_program::named_program(const char* name, int (*body)()) {
  named_programs()[name] = body;
}

int run_if_named(int argc, char** argv) {
  if (argc != 3 || argv[1] != std::string(named_option)) return -1;
  const auto found = named_programs().find(argv[2]);
  if (found == named_programs().end()) throw std::invalid_argument("no such program in the tests");
  return found->second();
}

}  // namespace support
