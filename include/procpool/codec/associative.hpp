// SPDX-License-Identifier: MIT
/// @file
/// Codecs of std::map, std::set, their multi and unordered forms. Comparators and hash functions
/// are not sent, so they must have no state. Two equal keys where only one is allowed are a
/// DecodeError. The containers are recognized by their names and members, so that this header
/// includes none of theirs.
#pragma once

#include <procpool/config.hpp>  // first, for its errors

#include <procpool/codec.hpp>

#include <cstddef>
#include <cstdint>
#include <type_traits>
#include <utility>

#include <procpool/detail/base/type_name.hpp>

namespace procpool {

namespace detail {

/// Inserts a key, with its value if it has one, at the end of `container`: keys of ordered
/// containers arrive in order.
template <bool Unique, class Container, class... Parts>
void insert_decoded(decoder& d, Container& container, Parts&&... parts) {
  const std::size_t before = container.size();
  container.emplace_hint(container.end(), std::forward<Parts>(parts)...);
  if (Unique && container.size() == before) d.fail("the same key twice");
}

template <class Container>
void reserve_buckets(decoder& d, Container& container, std::size_t n) {
  if constexpr (requires { container.reserve(n); }) {
    container.reserve(d.reserve_hint<typename Container::value_type>(n));
  }
}

template <class Set, bool Unique>
struct set_codec {
  using key = typename Set::key_type;
  using parts = type_list<key>;
  static constexpr std::size_t min_wire_size = sizeof(std::uint64_t);

  static void encode(encoder& e, const Set& value) { put_elements<key>(e, value, value.size()); }

  static Set decode(decoder& d) {
    const std::size_t n = d.count(min_wire_size_v<key>);
    Set value;
    reserve_buckets(d, value, n);
    get_elements<key>(d, n, [&](key&& next) { insert_decoded<Unique>(d, value, std::move(next)); });
    return value;
  }
};

template <class Map, bool Unique>
struct map_codec {
  using key = typename Map::key_type;
  using mapped = typename Map::mapped_type;
  using parts = type_list<key, mapped>;
  static constexpr std::size_t min_wire_size = sizeof(std::uint64_t);

  static void encode(encoder& e, const Map& value) {
    e.count(value.size());
    for (const auto& [first, second] : value) {
      const std::size_t before = e.size();
      e.put(first);
      e.put(second);
      if constexpr (pair_size == 0) {
        if (e.size() == before) e.pass_empty_element(sizeof(key) + sizeof(mapped));
      }
    }
  }

  static Map decode(decoder& d) {
    std::size_t n = d.count(pair_size);
    Map value;
    reserve_buckets(d, value, n);
    for (; n != 0; --n) {
      const std::size_t before = d.offset();
      key next = d.get<key>();
      insert_decoded<Unique>(d, value, std::move(next), d.get<mapped>());
      if constexpr (pair_size == 0) {
        if (d.offset() == before) d.pass_empty_element(sizeof(key) + sizeof(mapped));
      }
    }
    return value;
  }

 private:
  static constexpr std::size_t pair_size = min_wire_size_v<key> + min_wire_size_v<mapped>;
};

template <class Function>
concept stateless = std::is_empty_v<Function> && std::is_default_constructible_v<Function>;

template <class T>
concept ordered = stateless<typename T::key_compare>;
template <class T>
concept hashed = stateless<typename T::hasher> && stateless<typename T::key_equal>;

template <class T>
concept associative = requires {
  typename T::key_type;
}
&&(ordered<T> || hashed<T>)&&is_std_name(spelled_name<T>(), "map<", "set<", "multimap<",
                                         "multiset<", "unordered_map<", "unordered_set<",
                                         "unordered_multimap<", "unordered_multiset<");

template <class T>
concept mapping = associative<T> && requires {
  typename T::mapped_type;
};

/// Whether a container has at most one element for each key.
template <class T>
inline constexpr bool unique_keys_v = requires(T& container, typename T::value_type value) {
  container.insert(value).second;
};

}  // namespace detail

template <detail::associative Set>
struct codec<Set> : detail::set_codec<Set, detail::unique_keys_v<Set>> {};

template <detail::mapping Map>
struct codec<Map> : detail::map_codec<Map, detail::unique_keys_v<Map>> {};

}  // namespace procpool
