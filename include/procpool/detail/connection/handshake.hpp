// SPDX-License-Identifier: MIT
/// @file
/// The interface between Listener and Client and the authentication of their peers; the
/// implementation is in challenge.hpp, and what computes with keys in
/// <procpool/authentication.hpp>.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace procpool::detail {

class connection_state;

/// The digests of Python's protocol.
enum class digest : std::uint8_t { md5, sha256, sha384, sha3_256, sha3_384 };

/// HMAC of @p message. @throws AuthenticationError when this machine's libcrypto refuses the digest
using mac_function = std::vector<std::byte>(digest kind, std::string_view key,
                                            std::span<const std::byte> message);

/// What a process knows to prove itself to its peer; without function: there is no key.
struct credentials {
  std::string key;
  mac_function* mac = nullptr;
  bool allow_md5 = false;
};

/// Makes the peer prove that it has the key. @throws AuthenticationError; EOFError
void deliver_challenge(connection_state& peer, const credentials& own);
/// Proves to the peer that this process has the key. @throws AuthenticationError; EOFError
void answer_challenge(connection_state& peer, const credentials& own);

}  // namespace procpool::detail
