// SPDX-License-Identifier: MIT
/// @file
/// Connection and Pipe: messages between two processes. Python: multiprocessing.Pipe,
/// multiprocessing.connection.Connection. To wait for several see <procpool/connection_wait.hpp>.
#pragma once

#include <procpool/config.hpp>  // first, for its errors

#include <chrono>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <ranges>
#include <span>
#include <stdexcept>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include <procpool/codec.hpp>
#include <procpool/detail/connection/connection_state.hpp>
#include <procpool/detail/connection/descriptor_carrier.hpp>
#include <procpool/detail/connection/typed_message.hpp>
#include <procpool/detail/os/time.hpp>
#include <procpool/error.hpp>

namespace procpool {

namespace detail {

/// Whether the header that defines T is included.
template <class T>
concept is_defined = requires {
  sizeof(T);
};

/// Defined in <procpool/pickle.hpp>.
template <class T>
struct pickle_format;

/// Contiguous elements of one byte: std::vector<std::byte>, std::string, std::span<const char>.
template <class Range>
concept byte_range = std::ranges::contiguous_range<Range> && std::ranges::sized_range<Range> &&
    (std::same_as<std::remove_cv_t<std::ranges::range_value_t<Range>>, std::byte> ||
     std::same_as<std::remove_cv_t<std::ranges::range_value_t<Range>>, char> ||
     std::same_as<std::remove_cv_t<std::ranges::range_value_t<Range>>,
                  unsigned char>)&&!std::is_array_v<std::remove_cvref_t<Range>>;

}  // namespace detail

/// Which directions a Connection has. Both is the default.
struct connection_directions {
  bool readable = true;
  bool writable = true;
};

/// One end of a pipe or of a socket: whole messages go in, and whole messages come out at the other
/// end, in order. The messages are those of Python's multiprocessing.connection, byte for byte.
///
/// Copies of a handle refer to the same descriptor; the last one closes it. A Connection can be
/// captured or passed as an argument, and be sent through another Connection. A forked process has
/// a copy of every Connection that its parent has: an end is closed for its peer when all processes
/// that have a copy have closed it or ended. So close the ends that you do not use.
///
/// Calls block until they are done, also when signals arrive. When the peer's process dies, what it
/// has sent can still be received; then receiving throws EOFError, and sending BrokenPipeError.
/// Nobody gets SIGPIPE.
///
/// One thread may send while another one receives. Two threads may not send at once, nor receive at
/// once, nor may close() be called meanwhile. Several processes that have the same end can send
/// messages of up to 4 KiB each without mixing them; longer ones need a Lock, and so does
/// receiving.
///
/// All members but closed(), readable(), writable() and close() throw std::logic_error when the
/// Connection is closed or was moved from, or has not the direction that they need (Python:
/// OSError).
class Connection {
 public:
  /// Takes over a descriptor: a stream socket, or an end of a pipe.
  /// @param descriptor closed by the last copy of the Connection
  /// @param directions what this end is used for: `Connection in{0, {.writable = false}};`
  /// @throws std::invalid_argument for a negative number, or no direction
  explicit Connection(int descriptor, connection_directions directions = {})
      : state_(std::make_shared<detail::connection_state>(
            checked(descriptor, directions), directions.readable, directions.writable)) {}

  /// Sends a value. The receiver must be of the same program, or one with the same types compiled
  /// for the same kind of machine. Python: Connection.send.
  /// @param value anything encodable, also a Connection or what contains one
  /// @throws BrokenPipeError; what encoding the value throws: then nothing was sent
  template <class T>
  void send(const T& value) {
    assert_encodable<T>();
    detail::send_value(state(), value);
  }
  /// Sends a text, to be received as a std::string.
  void send(const char* text) { detail::send_value(state(), std::string_view(text)); }

  /// Waits for a value and receives it. Python: Connection.recv.
  /// @tparam T what the peer has sent
  /// @throws EOFError; DecodeError when the message is no T, then the next message can be received,
  /// or when it is no message, then none can
  template <class T>
  [[nodiscard]] T recv() {
    static_assert(!is_view_v<T>, "procpool: recv() cannot return a view: receive its owner");
    assert_encodable<T>();
    return detail::receive_value<T>(state());
  }

  /// Sends bytes as they are. Python: Connection.send_bytes, which also takes offset and size: send
  /// a subspan.
  /// @param bytes std::vector<std::byte>, std::string, a span, of any length
  /// @throws BrokenPipeError
  void send_bytes(std::span<const std::byte> bytes) { state().send(bytes); }
  template <detail::byte_range Range>
    requires(!std::convertible_to<Range, std::span<const std::byte>>)
  void send_bytes(const Range& bytes) {
    state().send(std::as_bytes(std::span(std::ranges::data(bytes), std::ranges::size(bytes))));
  }

  /// Waits for a message and receives its bytes. Memory grows as they arrive, whatever the peer has
  /// said about the length. Python: Connection.recv_bytes.
  /// @param maxlength how long the message may be
  /// @throws EOFError; ProcessError (EMSGSIZE) when the message is longer, then nothing more can be
  /// received; DecodeError when it is no message
  [[nodiscard]] std::vector<std::byte> recv_bytes(
      std::size_t maxlength = detail::connection_state::no_limit) {
    return state().receive_bytes(maxlength);
  }

  /// The same into memory of the caller. Python: Connection.recv_bytes_into.
  /// @returns the size of the message
  /// @throws BufferTooShort, which has the message, when it does not fit; EOFError
  [[nodiscard]] std::size_t recv_bytes_into(std::span<std::byte> room) {
    return state().receive_into(room);
  }

  /// Whether there is something to receive now: a message, a part of one, or the end.
  [[nodiscard]] bool poll() { return poll(std::chrono::seconds(0)); }
  /// The same after waiting for at most @p timeout. Python: Connection.poll.
  /// @param timeout zero or less: does not wait; duration::max(): without limit
  template <class Rep, class Period>
  [[nodiscard]] bool poll(std::chrono::duration<Rep, Period> timeout) {
    return state().poll(detail::os::deadline_after(timeout));
  }

  /// Sends a value to a Python process, as Connection.send does there. Needs
  /// <procpool/pickle.hpp>, which says what can be sent.
  template <class T>
  void send_pickle(const T& value) {
    constexpr bool included = detail::is_defined<detail::pickle_format<T>>;
    static_assert(included, "procpool: send_pickle() needs #include <procpool/pickle.hpp>");
    if constexpr (included) send_bytes(detail::pickle_format<T>::dumps(value));
  }
  /// Receives a value that a Python process has sent with Connection.send. Needs
  /// <procpool/pickle.hpp>.
  template <class T>
  [[nodiscard]] T recv_pickle() {
    constexpr bool included = detail::is_defined<detail::pickle_format<T>>;
    static_assert(included, "procpool: recv_pickle() needs #include <procpool/pickle.hpp>");
    if constexpr (included) return detail::pickle_format<T>::loads(state().receive());
  }

  /// Sends a copy of a descriptor; sockets only. Python: multiprocessing.reduction.send_handle.
  /// @throws BrokenPipeError; ProcessError: EBADF
  void send_handle(int descriptor) { state().send_descriptors({&descriptor, 1}); }
  /// Receives a descriptor from send_handle(). Python: multiprocessing.reduction.recv_handle.
  /// @returns the descriptor, which is the caller's, and is closed by execve(2)
  /// @throws EOFError; ProcessError when the peer has sent something else (Python: RuntimeError)
  [[nodiscard]] int recv_handle() { return state().receive_descriptors(1).front().release(); }

  /// The descriptor, for poll(2) and the like: do not read from it, nor write to it.
  [[nodiscard]] int fileno() const { return state().number(); }

  /// Closes the descriptor, for all copies in this process. A second call does nothing.
  void close() noexcept {
    if (state_ != nullptr) state_->close();
  }
  [[nodiscard]] bool closed() const noexcept { return state_ == nullptr || state_->closed(); }
  /// Whether this end can receive: it was made for it, and nothing that is no message has come in.
  [[nodiscard]] bool readable() const noexcept { return state_ != nullptr && state_->readable(); }
  [[nodiscard]] bool writable() const noexcept { return state_ != nullptr && state_->writable(); }

  /// Whether both handles refer to the same descriptor.
  friend bool operator==(const Connection&, const Connection&) noexcept = default;

 private:
  static detail::os::fd checked(int descriptor, connection_directions directions) {
    if (descriptor < 0)
      throw std::invalid_argument("a Connection needs a descriptor, not a negative number");
    if (!directions.readable && !directions.writable)
      throw std::invalid_argument("a Connection is readable, writable or both");
    return detail::os::fd(descriptor);
  }

  [[nodiscard]] detail::connection_state& state() const {
    if (state_ == nullptr) throw std::logic_error("the Connection was moved from");
    return *state_;
  }

  std::shared_ptr<detail::connection_state> state_;
};

/// The descriptor travels along: the receiver has an end of its own, and the sender's stays open.
/// Through a Connection it goes to any process, otherwise (arguments, items, results) to processes
/// of the same program.
template <>
struct codec<Connection> {
  static constexpr std::size_t min_wire_size = sizeof(detail::descriptor_wire) + 2;

  static void encode(encoder& out, const Connection& connection) {
    const int number = connection.fileno();
    out.put(out.is_counting() ? detail::descriptor_wire{} : detail::pass_descriptor(number));
    out.put(connection.readable());
    out.put(connection.writable());
  }
  static Connection decode(decoder& in) {
    const auto wire = in.get<detail::descriptor_wire>();
    const connection_directions directions{in.get<bool>(), in.get<bool>()};
    if (!directions.readable && !directions.writable) in.fail("a Connection without direction");
    return Connection(detail::take_descriptor(in, wire).release(), directions);
  }
};

/// What Pipe() makes.
struct pipe_options {
  bool duplex = true;  ///< both ends can send and receive
};

/// Makes two connected ends: `auto [ours, theirs] = procpool::Pipe();`. Any thread. Python:
/// multiprocessing.Pipe.
/// @returns the two ends; with `Pipe({.duplex = false})` the first can only receive, the second
/// only send. They are closed by execve(2).
/// @throws ProcessError when no descriptors are free
[[nodiscard]] inline std::pair<Connection, Connection> Pipe(pipe_options options = {}) {
  auto [receiver, sender] = detail::connected_pair();
  return {Connection(receiver.release(), {.readable = true, .writable = options.duplex}),
          Connection(sender.release(), {.readable = options.duplex, .writable = true})};
}

}  // namespace procpool

#ifndef PROCPOOL_COMPILED
#include <procpool/detail/connection/connection_io.hpp>
#include <procpool/detail/connection/make_pipe.hpp>
#endif
