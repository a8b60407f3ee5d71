// SPDX-License-Identifier: MIT
/// @file
/// Keys for Listener and Client (`.authkey`), in Python's protocol: each side proves to the other
/// that it has the key, which does not travel. The connection is not encrypted. Needs OpenSSL's
/// libcrypto: link procpool::authentication, or -lcrypto. procpool.hpp does not include this
/// header.
///
/// Python from 3.12 on uses SHA-256. Up to 3.11 it uses MD5 only, which is refused unless
/// listener_options::allow_md5 or client_options::allow_md5 is set.
#pragma once

#include <procpool/config.hpp>  // first, for its errors

#include <openssl/evp.h>
#include <openssl/hmac.h>

#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <procpool/detail/connection/handshake.hpp>
#include <procpool/error.hpp>
#include <procpool/listener.hpp>

namespace procpool::detail {

inline const EVP_MD* openssl_digest(digest kind) noexcept {
  switch (kind) {
    case digest::md5:
      return EVP_md5();
    case digest::sha256:
      return EVP_sha256();
    case digest::sha384:
      return EVP_sha384();
    case digest::sha3_256:
      return EVP_sha3_256();
    case digest::sha3_384:
      return EVP_sha3_384();
  }
  return nullptr;
}

inline std::vector<std::byte> openssl_mac(digest kind, std::string_view key,
                                          std::span<const std::byte> message) {
  std::vector<std::byte> mac(EVP_MAX_MD_SIZE);
  unsigned size = 0;
  const auto* const done =
      HMAC(openssl_digest(kind), key.data(), static_cast<int>(key.size()),
           reinterpret_cast<const unsigned char*>(message.data()), message.size(),
           reinterpret_cast<unsigned char*>(mac.data()), &size);
  if (done == nullptr)
    throw AuthenticationError("libcrypto does not compute the digest that the protocol asks for");
  mac.resize(size);
  return mac;
}

template <class Key>
struct authentication {
  static constexpr mac_function* mac = &openssl_mac;
};

}  // namespace procpool::detail
