// SPDX-License-Identifier: MIT
/// @file
/// Types with a codec of their own: one that cannot be encoded, one that counts its objects.
#pragma once

#include <atomic>
#include <stdexcept>

#include <procpool/procpool.hpp>

namespace conformance {

/// What the codec of unshippable throws; a standard type, so that it comes back from a worker too.
using encoding_failed = std::range_error;

/// Throws while it is encoded, as long as it is broken: Python's object that cannot be pickled.
struct unshippable {
  long number = 0;
  bool broken = true;
};

/// Knows how many of its kind there are in this process.
class counted {
 public:
  counted() { ++alive; }
  counted(const counted&) { ++alive; }
  counted& operator=(const counted&) = default;
  ~counted() { --alive; }

  inline static std::atomic<int> alive = 0;
};

}  // namespace conformance

template <>
struct procpool::codec<conformance::unshippable> {
  static void encode(encoder& out, const conformance::unshippable& value) {
    if (value.broken) throw conformance::encoding_failed("this one cannot be encoded");
    out.put(value.number);
  }
  static conformance::unshippable decode(decoder& in) {
    return {.number = in.get<long>(), .broken = false};
  }
};

template <>
struct procpool::codec<conformance::counted> {
  static void encode(encoder& out, const conformance::counted&) { out.put(1); }
  static conformance::counted decode(decoder& in) {
    static_cast<void>(in.get<int>());
    return {};
  }
};
