// SPDX-License-Identifier: MIT
/// @file
/// Pickles of plain values, for Python peers: Connection::send_pickle and recv_pickle, and the same
/// for bytes. procpool.hpp does not include this header.
///
/// | C++ | Python |
/// | --- | --- |
/// | bool; integers but char; float, double | bool; int; float (or an int, coming in) |
/// | std::string, string_view, "literals" | str, UTF-8 |
/// | std::vector<std::byte>, std::span<const std::byte> | bytes (or a bytearray, coming in) |
/// | std::vector, deque, list | list (or a tuple, coming in) |
/// | std::tuple, pair, array | tuple (or a list, coming in) |
/// | std::map, unordered_map; std::set, unordered_set | dict; set (or a frozenset, coming in) |
/// | std::optional; std::monostate, nullptr | the value or None; None |
/// | std::variant | the value of the alternative; coming in, the first that the Python type fits |
///
/// Pickles come in in protocols 2 to 5 and go out in protocol 4. Whatever names a class or function
/// is refused, so nothing in a pickle is ever called. Reading is total: any bytes are a value or a
/// DecodeError. It takes memory of at most about 40 times the length of the pickle; parts that a
/// pickle refers to again and again may add 64 MiB and 16 times its length.
#pragma once

#include <procpool/config.hpp>  // first, for its errors

#include <cstddef>
#include <span>
#include <utility>
#include <vector>

#include <procpool/connection.hpp>
#include <procpool/detail/pickle/containers.hpp>
#include <procpool/detail/pickle/document.hpp>
#include <procpool/detail/pickle/reader.hpp>
#include <procpool/detail/pickle/scalars.hpp>
#include <procpool/detail/pickle/writer.hpp>
#include <procpool/error.hpp>

namespace procpool {

/// The pickle of a value, in protocol 4. Any thread. Python: pickle.dumps.
/// @throws std::invalid_argument for a text that is not UTF-8, or a variant without value
template <class T>
[[nodiscard]] std::vector<std::byte> pickle_dumps(const T& value) {
  static_assert(detail::can_be_pickled<T>,
                "procpool: there is no Python type for this type, or for a part of it: see the "
                "table in <procpool/pickle.hpp>");
  detail::pickle_writer out;
  if constexpr (detail::can_be_pickled<T>) detail::pickled<T>::write(out, value);
  return std::move(out).finish();
}

/// The value of a pickle. Any thread. Python: pickle.loads, which may run any code.
/// @throws DecodeError when the bytes are no pickle of plain values, or the value is no T
template <class T>
[[nodiscard]] T pickle_loads(std::span<const std::byte> bytes) {
  static_assert(detail::can_be_unpickled<T>,
                "procpool: no Python type becomes this type, or a part of it: see the table in "
                "<procpool/pickle.hpp>");
  if constexpr (detail::can_be_unpickled<T>) {
    const detail::pickle_document document = detail::pickle_reader(bytes).read();
    detail::pickle_budget budget(bytes.size());
    return detail::pickled<T>::read(detail::pickle_view(document, document.root, budget));
  }
}

namespace detail {

/// For Connection::send_pickle and recv_pickle.
template <class T>
struct pickle_format {
  static std::vector<std::byte> dumps(const T& value) { return pickle_dumps(value); }
  template <class Value = T>  // an array can be sent, but not returned
  static Value loads(std::span<const std::byte> bytes) {
    return pickle_loads<Value>(bytes);
  }
};

}  // namespace detail
}  // namespace procpool
