// SPDX-License-Identifier: MIT
/// @file
/// Python's authentication of peers, byte for byte (multiprocessing/connection.py): the one sends
/// a random challenge, the other answers with a MAC of it, and then the same with roles changed.
///
/// Since Python 3.12 the challenge begins with the digest to use, "{sha256}", and so does the
/// answer. Before, the challenge is 20 random bytes and the answer the 16 bytes of HMAC-MD5; a peer
/// of that time answers a challenge of today in the same way.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <procpool/config.hpp>
#include <procpool/detail/connection/connection_state.hpp>
#include <procpool/detail/connection/handshake.hpp>
#include <procpool/detail/os/random.hpp>
#include <procpool/error.hpp>

namespace procpool::detail {

inline constexpr std::string_view challenge_mark = "#CHALLENGE#";
inline constexpr std::string_view welcome_mark = "#WELCOME#";
inline constexpr std::string_view failure_mark = "#FAILURE#";
inline constexpr std::size_t most_of_handshake = 256;  ///< bytes of a message
inline constexpr std::size_t random_bytes = 40;
inline constexpr std::size_t old_challenge = 20;  ///< bytes, up to Python 3.11
inline constexpr std::size_t old_answer = 16;

struct digest_name {
  std::string_view name;
  digest kind;
};
inline constexpr std::array digest_names{
    digest_name{"{md5}", digest::md5}, digest_name{"{sha256}", digest::sha256},
    digest_name{"{sha384}", digest::sha384}, digest_name{"{sha3_256}", digest::sha3_256},
    digest_name{"{sha3_384}", digest::sha3_384}};

inline std::span<const std::byte> bytes_of_text(std::string_view text) noexcept {
  return std::as_bytes(std::span(text.data(), text.size()));
}
inline std::string_view text_of_bytes(std::span<const std::byte> bytes) noexcept {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

/// The digest that a challenge or an answer begins with, and how long its name is; the old protocol
/// names none.
PROCPOOL_FUNCTION digest_name digest_of(std::string_view message, std::size_t old_size) {
  if (message.size() == old_size) return {"", digest::md5};
  for (const digest_name& each : digest_names) {
    if (message.starts_with(each.name)) return each;
  }
  throw AuthenticationError(
      "the peer does not follow the protocol: it names no digest that it may use");
}

PROCPOOL_FUNCTION void check_allowed(digest kind, const credentials& own) {
  if (kind != digest::md5 || own.allow_md5) return;
  throw AuthenticationError(
      "the peer uses MD5, as Python does up to 3.11: the option allow_md5 allows it");
}

/// Takes equally long wherever the two differ.
PROCPOOL_FUNCTION bool equal_in_constant_time(std::span<const std::byte> a,
                                              std::span<const std::byte> b) noexcept {
  if (a.size() != b.size()) return false;
  unsigned difference = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    difference |= std::to_integer<unsigned>(a[i] ^ b[i]);
    asm volatile("" : "+r"(difference));  // so that the compiler leaves no turn out
  }
  return difference == 0;
}

[[noreturn]] inline void throw_left() {
  throw AuthenticationError("the peer has closed the connection before it was authenticated");
}

PROCPOOL_FUNCTION void send_short(connection_state& peer, std::string_view message) {
  try {
    peer.send(bytes_of_text(message));
  } catch (const BrokenPipeError&) {
    throw_left();
  }
}

/// A message of the handshake, which is short. @throws AuthenticationError when it is not
PROCPOOL_FUNCTION std::string receive_short(connection_state& peer) {
  try {
    return std::string(text_of_bytes(peer.receive(most_of_handshake)));
  } catch (const EOFError&) {
    throw_left();
  } catch (const Error& error) {
    throw AuthenticationError(std::string("the peer does not follow the protocol: ") +
                              error.what());
  }
}

PROCPOOL_FUNCTION std::string new_challenge() {
  std::string message = "{sha256}";
  for (std::size_t i = 0; i < random_bytes; i += sizeof(std::uint64_t)) {
    const std::uint64_t number = os::random_number();
    message.append(reinterpret_cast<const char*>(&number), sizeof number);
  }
  return message;
}

PROCPOOL_FUNCTION bool is_right_answer(std::string_view challenge, std::string_view answer,
                                       const credentials& own) {
  const digest_name used = digest_of(answer, old_answer);
  check_allowed(used.kind, own);
  return equal_in_constant_time(own.mac(used.kind, own.key, bytes_of_text(challenge)),
                                bytes_of_text(answer.substr(used.name.size())));
}

PROCPOOL_FUNCTION void deliver_challenge(connection_state& peer, const credentials& own) {
  const std::string challenge = new_challenge();
  send_short(peer, std::string(challenge_mark) + challenge);
  const std::string answer = receive_short(peer);
  bool right = false;
  try {
    right = is_right_answer(challenge, answer, own);
  } catch (...) {
    send_short(peer, failure_mark);
    throw;
  }
  send_short(peer, right ? welcome_mark : failure_mark);
  if (!right) throw AuthenticationError("the peer has another key");
}

PROCPOOL_FUNCTION void answer_challenge(connection_state& peer, const credentials& own) {
  const std::string message = receive_short(peer);
  if (!message.starts_with(challenge_mark) ||
      message.size() < challenge_mark.size() + old_challenge) {
    throw AuthenticationError("the peer does not follow the protocol: it sends no challenge");
  }
  const std::string_view challenge = std::string_view(message).substr(challenge_mark.size());
  const digest_name asked = digest_of(challenge, old_challenge);
  check_allowed(asked.kind, own);
  std::string answer(asked.name);
  answer += text_of_bytes(own.mac(asked.kind, own.key, bytes_of_text(challenge)));
  send_short(peer, answer);
  if (receive_short(peer) != welcome_mark)
    throw AuthenticationError("the peer refuses the answer: it has another key");
}

}  // namespace procpool::detail
