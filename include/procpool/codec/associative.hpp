// SPDX-License-Identifier: MIT
// Level 1: codec.
/// @file
/// Codecs of std::map, std::set, their multi and unordered forms. Comparators and hash functions
/// are not sent, so they must be without state. Two equal keys where there can be one are a
/// DecodeError.
#pragma once

#include <procpool/codec.hpp>

#include <cstddef>
#include <cstdint>
#include <map>
#include <set>
#include <type_traits>
#include <unordered_map>
#include <unordered_set>
#include <utility>

namespace procpool {

namespace detail {

/// Puts `key` at the end of `container` (ordered ones arrive in order), with its value if there
/// is one.
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

}  // namespace detail

template <class K, detail::stateless C, class A>
struct codec<std::set<K, C, A>> : detail::set_codec<std::set<K, C, A>, true> {};

template <class K, detail::stateless C, class A>
struct codec<std::multiset<K, C, A>> : detail::set_codec<std::multiset<K, C, A>, false> {};

template <class K, detail::stateless H, detail::stateless E, class A>
struct codec<std::unordered_set<K, H, E, A>>
    : detail::set_codec<std::unordered_set<K, H, E, A>, true> {};

template <class K, detail::stateless H, detail::stateless E, class A>
struct codec<std::unordered_multiset<K, H, E, A>>
    : detail::set_codec<std::unordered_multiset<K, H, E, A>, false> {};

template <class K, class V, detail::stateless C, class A>
struct codec<std::map<K, V, C, A>> : detail::map_codec<std::map<K, V, C, A>, true> {};

template <class K, class V, detail::stateless C, class A>
struct codec<std::multimap<K, V, C, A>> : detail::map_codec<std::multimap<K, V, C, A>, false> {};

template <class K, class V, detail::stateless H, detail::stateless E, class A>
struct codec<std::unordered_map<K, V, H, E, A>>
    : detail::map_codec<std::unordered_map<K, V, H, E, A>, true> {};

template <class K, class V, detail::stateless H, detail::stateless E, class A>
struct codec<std::unordered_multimap<K, V, H, E, A>>
    : detail::map_codec<std::unordered_multimap<K, V, H, E, A>, false> {};

}  // namespace procpool
