// SPDX-License-Identifier: MIT
// Decodes arbitrary bytes. The first byte says as what; whatever comes out is encoded and decoded
// again, and must be the same as before. Link with libFuzzer, or with replay_main.cpp.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <procpool/detail/base/byte_buffer.hpp>

#include "fuzz/everything.hpp"

namespace {

using procpool::decoder;
using procpool::encoder;
using procpool::detail::byte_buffer;

template <class T>
byte_buffer encoded(const T& value) {
  byte_buffer buffer;
  encoder(buffer).put(value);
  return buffer;
}

bool same_bytes(const byte_buffer& a, const byte_buffer& b) {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size()) == 0);
}

/// Numbers that are no numbers equal nothing, so bytes are compared; unordered containers have no
/// order, so those of the second and third generation.
template <class T>
void decode_as(const byte_buffer& message) {
  decoder d(message.view());
  const T first = d.get<T>();
  d.finish();
  const byte_buffer second = encoded(first);
  encoder counting = encoder::counting();
  counting.put(first);
  if (counting.size() != second.size()) std::abort();
  decoder again(second.view());
  const T third = again.get<T>();
  again.finish();
  if (encoded(third).size() != second.size()) std::abort();
  if constexpr (!std::is_same_v<T, everything::Everything>) {
    if (!same_bytes(encoded(third), second)) std::abort();
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  byte_buffer message;  // aligned, and with an end that AddressSanitizer knows
  message.reserve(size - 1 == 0 ? 1 : size - 1);
  message.append(data + 1, size - 1);
  try {
    switch (data[0] % 4) {
      case 0:
        decode_as<everything::Everything>(message);
        break;
      case 1:
        decode_as<everything::Views>(message);
        break;
      case 2:
        decode_as<everything::Node>(message);
        break;
      default:
        decode_as<everything::Link>(message);
        break;
    }
  } catch (const procpool::DecodeError&) {
    // The answer to most inputs; anything else ends the program.
  }
  return 0;
}
