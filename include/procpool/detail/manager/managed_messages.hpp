// SPDX-License-Identifier: MIT
/// @file
/// Messages between clients of a manager and its process, through a connection of each client's
/// own.
///
/// A request has a head, and then what its code reads. Each gets one reply: a head, and the encoded
/// result or exception, aligned. If the reply contains handles, the client says when it has decoded
/// them; until then the server keeps what they refer to. A client that dies never says it, and its
/// connection ends.
#pragma once

#include <cstdint>

#include <procpool/config.hpp>
#include <procpool/detail/base/byte_buffer.hpp>

namespace procpool::detail {

enum class managed_op : std::uint32_t {
  run = 0x70725201,  ///< runs registered code
  received,          ///< the last reply has been decoded; has no reply
};

struct request_head {
  managed_op op;
  std::uint32_t record;      ///< of the object, in the shared heap
  std::uint32_t generation;  ///< of that record
  std::uint32_t module;      ///< of the code
  std::uint64_t offset;      ///< likewise
  std::uint64_t zero;
};

enum class reply_kind : std::uint32_t { value = 0x70725301, exception };

struct reply_head {
  reply_kind kind;
  std::uint32_t has_handles;  ///< 1: answer it with managed_op::received
  std::uint64_t zero;
};

// What follows a head is aligned.
static_assert(sizeof(request_head) % byte_buffer::alignment == 0);
static_assert(sizeof(reply_head) % byte_buffer::alignment == 0);

}  // namespace procpool::detail
