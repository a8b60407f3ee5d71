// SPDX-License-Identifier: MIT
/// @file
/// Listener and Client: Connections between programs of the same machine, through Unix sockets.
/// Python: multiprocessing.connection.Listener, Client (family AF_UNIX).
#pragma once

#include <procpool/config.hpp>  // first, for its errors

#include <concepts>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>

#include <procpool/connection.hpp>
#include <procpool/detail/connection/handshake.hpp>
#include <procpool/detail/connection/listener_state.hpp>

namespace procpool {

namespace detail {

/// Defined in <procpool/authentication.hpp>, for any Key.
template <class Key>
struct authentication;

}  // namespace detail

/// A key that both sides of a connection must have. A member of listener_options and
/// client_options: `.authkey = key`, where key is a std::string or whatever a std::string_view can
/// be made of. Needs <procpool/authentication.hpp>, and libcrypto.
class authentication_key {
 public:
  authentication_key() = default;  ///< no key: peers are not authenticated

  /// @throws std::invalid_argument for an empty key
  template <std::convertible_to<std::string_view> Key>
  authentication_key(const Key& key)  // NOLINT(google-explicit-constructor): in options
      : text_(std::string_view(key)) {
    constexpr bool included = detail::is_defined<detail::authentication<Key>>;
    static_assert(included, "procpool: an authkey needs #include <procpool/authentication.hpp>");
    if (text_.empty()) throw std::invalid_argument("an empty authkey");
    if constexpr (included) mac_ = detail::authentication<Key>::mac;
  }

  /// For Listener and Client.
  [[nodiscard]] detail::credentials with(bool allow_md5) && {
    return {std::move(text_), mac_, allow_md5};
  }

 private:
  std::string text_;
  detail::mac_function* mac_ = nullptr;
};

struct listener_options {
  /// A path of at most 107 bytes; or a name in Linux' abstract namespace, which begins with a null
  /// byte: `std::string("\0name", 5)`; or empty: a new path in a new directory that only this user
  /// can look into.
  std::string address = {};
  int backlog = 1;                  ///< how many clients may wait to be accepted; at least 1
  authentication_key authkey = {};  ///< a key that clients must have
  bool allow_md5 = false;           ///< whether clients may use MD5, as Python does up to 3.11
};

/// Accepts connections from Clients, of C++ and of Python.
///
/// Who may connect: for a path, who may write to it and search its directories, so the process's
/// umask decides; for an abstract name, every process of the machine's network namespace. Without
/// authkey everybody who may connect is accepted.
///
/// Copies of a handle refer to the same socket, closed by close() or with the last copy. Then the
/// file of the socket is removed, in the process that made it. When that process is killed, the
/// file stays: the next Listener with that address gets ProcessError (EADDRINUSE) until it is
/// removed, as in Python. Any thread, but close() not while another one accepts; forked processes
/// may accept, too.
class Listener {
 public:
  /// @throws ProcessError: EADDRINUSE when there is something at the address; ENOENT, EACCES for a
  /// directory that does not exist or cannot be written to; std::invalid_argument for an address
  /// that is too long, or a backlog below 1
  explicit Listener(listener_options options = {})
      : state_(std::make_shared<detail::listener_state>(
            std::move(options.address), options.backlog,
            std::move(options.authkey).with(options.allow_md5))) {}

  /// Waits for a client, and with an authkey until it has proved that it has the key. To wait for a
  /// limited time use wait({listener}, 1s), see <procpool/connection_wait.hpp>; a client that
  /// connects and then says nothing is waited for without limit.
  /// @throws AuthenticationError for a client with another key, which is disconnected: call
  /// accept() again; std::logic_error after close(); ProcessError when no descriptor is free
  Connection accept() { return Connection(state().accept()); }

  /// The address, for Client. Python: Listener.address.
  [[nodiscard]] const std::string& address() const { return state().address(); }
  /// The address of the client that was accepted last; empty, unless the client gave its socket a
  /// name. Not while another thread accepts. Python: Listener.last_accepted.
  [[nodiscard]] std::string last_accepted() const { return state().last_accepted(); }
  /// A descriptor that is readable when a client waits. @throws std::logic_error after close()
  [[nodiscard]] int fileno() const { return state().number(); }

  /// Accepts no more clients; those that wait are disconnected. A second call does nothing.
  void close() noexcept {
    if (state_ != nullptr) state_->close();
  }

 private:
  [[nodiscard]] detail::listener_state& state() const {
    if (state_ == nullptr) throw std::logic_error("the Listener was moved from");
    return *state_;
  }

  std::shared_ptr<detail::listener_state> state_;
};

struct client_options {
  std::string address;              ///< of the Listener
  authentication_key authkey = {};  ///< the Listener's key
  bool allow_md5 = false;           ///< whether the Listener may use MD5, as Python does up to 3.11
};

/// Connects to a Listener, of C++ or Python, and with an authkey waits until both have proved to
/// each other that they have the key. Any thread. Python: multiprocessing.connection.Client.
/// @throws ProcessError: ENOENT when there is no such address, ECONNREFUSED when nobody listens
/// there; AuthenticationError; std::invalid_argument for an address that is empty or too long
[[nodiscard]] inline Connection Client(client_options options) {
  return Connection(
      detail::connect_to(options.address, std::move(options.authkey).with(options.allow_md5)));
}

}  // namespace procpool

#ifndef PROCPOOL_COMPILED
#include <procpool/detail/connection/listener_socket.hpp>
#endif
