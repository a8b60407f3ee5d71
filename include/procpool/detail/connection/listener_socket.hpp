// SPDX-License-Identifier: MIT
/// @file
/// Unix sockets with an address: the implementation of Listener and Client.
#pragma once

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

#include <procpool/config.hpp>
#include <procpool/detail/base/concat.hpp>
#include <procpool/detail/connection/challenge.hpp>
#include <procpool/detail/connection/connection_io.hpp>
#include <procpool/detail/connection/listener_state.hpp>
#include <procpool/detail/fork/process_generation.hpp>
#include <procpool/detail/os/random.hpp>
#include <procpool/detail/os/stdio.hpp>
#include <procpool/detail/os/syscall.hpp>
#include <procpool/error.hpp>

namespace procpool::detail {

struct socket_address {
  sockaddr_un address{};
  socklen_t size = 0;

  [[nodiscard]] const sockaddr* get() const noexcept {
    return reinterpret_cast<const sockaddr*>(&address);
  }
};

/// A name that can be printed: of an abstract address, "@name".
PROCPOOL_FUNCTION std::string printable_address(std::string_view address) {
  std::string text(address);
  for (char& each : text) {
    if (each == '\0') each = '@';
  }
  return text;
}

PROCPOOL_FUNCTION socket_address address_of(std::string_view text) {
  socket_address made;
  if (text.empty()) throw std::invalid_argument("the address of a Listener is empty");
  const bool abstract = text.front() == '\0';
  if (text.size() + (abstract ? 0 : 1) > sizeof made.address.sun_path) {
    throw std::invalid_argument(
        concat({"the address ", printable_address(text), " has ", text.size(),
                " bytes, and the address of a socket at most ", sizeof made.address.sun_path - 1}));
  }
  if (!abstract && text.find('\0') != text.npos)
    throw std::invalid_argument(
        concat({"the address ", printable_address(text), " contains a null byte"}));
  made.address.sun_family = AF_UNIX;
  std::memcpy(made.address.sun_path, text.data(), text.size());
  made.size =
      static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + text.size() + (abstract ? 0 : 1));
  return made;
}

PROCPOOL_FUNCTION std::string text_of_address(const socket_address& from) {
  constexpr std::size_t before = offsetof(sockaddr_un, sun_path);
  if (from.size <= before) return {};
  std::string_view text(from.address.sun_path,
                        std::min<std::size_t>(from.size - before, sizeof from.address.sun_path));
  if (text.front() != '\0') text = text.substr(0, text.find('\0'));
  return std::string(text);
}

PROCPOOL_FUNCTION os::fd new_socket() {
  return os::off_stdio(
      os::fd(os::check(PROCPOOL_SYSTEM(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)),
                       "cannot create a socket (socket)")));
}

/// Makes a directory that only this user can enter.
PROCPOOL_FUNCTION std::string new_directory() {
  constexpr std::string_view digits = "abcdefghijklmnopqrstuvwxyz012345";
  const char* const wanted = std::getenv("TMPDIR");
  const std::string base =
      concat({wanted != nullptr && *wanted == '/' ? wanted : "/tmp", "/procpool-"});
  while (true) {
    std::string path = base;
    std::uint64_t number = os::random_number();
    for (int i = 0; i < 8; ++i, number /= digits.size()) path += digits[number % digits.size()];
    if (PROCPOOL_SYSTEM(mkdir(path.c_str(), 0700)) == 0) return path;
    if (errno != EEXIST)
      os::throw_errno(concat({"cannot make the directory ", path, " for a Listener (mkdir)"}));
  }
}

PROCPOOL_FUNCTION listener_state::listener_state(std::string address, int backlog, credentials own)
    : address_(std::move(address)), own_(std::move(own)), generation_(process_generation()) {
  if (backlog < 1)
    throw std::invalid_argument(concat({"the backlog of a Listener is ", backlog, ", below 1"}));
  if (address_.empty()) {
    directory_ = new_directory();
    address_ = directory_ + "/listener";
  }
  try {
    start(backlog);
  } catch (...) {
    close();
    throw;
  }
}

PROCPOOL_FUNCTION void listener_state::start(int backlog) {
  const socket_address at = address_of(address_);
  os::fd made = new_socket();
  if (PROCPOOL_SYSTEM(bind(made.get(), at.get(), at.size)) != 0) {
    const int error = errno;
    const char* const hint = error == EADDRINUSE && address_.front() != '\0'
                                 ? "; if nobody listens there, it was left behind by a process "
                                   "that was killed: remove it"
                                 : "";
    os::throw_errno(concat({"cannot listen at ", printable_address(address_), hint, " (bind)"}),
                    error);
  }
  has_file_ = address_.front() != '\0';
  number_.store(made.release(), std::memory_order_relaxed);  // nobody else knows this object yet
  if (PROCPOOL_SYSTEM(listen(number(), backlog)) != 0)
    os::throw_errno(concat({"cannot listen at ", printable_address(address_), " (listen)"}));
}

PROCPOOL_FUNCTION int listener_state::number() const {
  const int number = number_.load(std::memory_order_relaxed);  // guards no other data
  if (number < 0) throw std::logic_error("the Listener is closed");
  return number;
}

// Failures of close() have no remedy: somebody else has removed the file.
PROCPOOL_FUNCTION void listener_state::close() noexcept {
  os::fd(number_.exchange(-1, std::memory_order_relaxed)).reset();  // guards no other data
  if (generation_ != process_generation()) return;
  if (std::exchange(has_file_, false)) PROCPOOL_SYSTEM(unlink(address_.c_str()));
  if (!directory_.empty()) PROCPOOL_SYSTEM(rmdir(std::exchange(directory_, {}).c_str()));
}

PROCPOOL_FUNCTION int listener_state::accept() {
  socket_address from;
  os::fd peer;
  while (!peer) {
    from.size = sizeof from.address;
    peer = os::fd(PROCPOOL_SYSTEM(
        accept4(number(), reinterpret_cast<sockaddr*>(&from.address), &from.size, SOCK_CLOEXEC)));
    if (peer || errno == EINTR || errno == ECONNABORTED) continue;
    if (errno != EAGAIN) os::throw_errno("cannot accept a client (accept4)");
    wait_until_usable(number(), POLLIN);
  }
  peer = os::off_stdio(std::move(peer));
  connection_state authenticated(std::move(peer), true, true);
  if (own_.mac != nullptr) {
    deliver_challenge(authenticated, own_);
    answer_challenge(authenticated, own_);
  }
  last_accepted_ = text_of_address(from);
  return authenticated.release();
}

PROCPOOL_FUNCTION int connect_to(const std::string& address, const credentials& own) {
  const socket_address at = address_of(address);
  os::fd made = new_socket();
  // A connect(2) that a signal has interrupted goes on by itself only for sockets of a network: a
  // local one has done nothing.
  if (os::retry([&] { return PROCPOOL_SYSTEM(connect(made.get(), at.get(), at.size)); }) != 0)
    os::throw_errno(concat({"cannot connect to ", printable_address(address), " (connect)"}));
  connection_state authenticated(std::move(made), true, true);
  if (own.mac != nullptr) {
    answer_challenge(authenticated, own);
    deliver_challenge(authenticated, own);
  }
  return authenticated.release();
}

}  // namespace procpool::detail
