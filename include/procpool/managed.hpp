// SPDX-License-Identifier: MIT
/// @file
/// Dict and Namespace: what a Manager keeps for DictProxy and NamespaceProxy, in its own process.
/// (A ListProxy stands for a std::vector.) Python: dict, multiprocessing.managers.Namespace.
#pragma once

#include <procpool/config.hpp>  // first, for its errors

#include <any>
#include <concepts>
#include <cstddef>
#include <functional>
#include <list>
#include <map>
#include <optional>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <unordered_map>
#include <utility>
#include <vector>

#include <procpool/detail/base/concat.hpp>
#include <procpool/detail/base/type_name.hpp>

namespace procpool {

namespace detail {

template <class K>
concept hashable = std::equality_comparable<K> && requires(const K& key) {
  { std::hash<K>{}(key) } -> std::convertible_to<std::size_t>;
};

template <class K>
concept orderable = requires(const K& key) {
  // NOLINTNEXTLINE(misc-redundant-expression): asks whether it compiles
  { key < key } -> std::convertible_to<bool>;
};

}  // namespace detail

/// A dictionary in the order of insertion. A key that is set again keeps its place. Not safe for
/// several threads at once. Python: dict.
/// @tparam K copyable, with std::hash and ==, or with <
template <class K, class V>
class Dict {
  static_assert(detail::hashable<K> || detail::orderable<K>,
                "procpool: the key of a Dict needs std::hash and ==, or <");
  using items_type = std::list<std::pair<const K, V>>;

 public:
  using key_type = K;
  using mapped_type = V;
  using value_type = typename items_type::value_type;
  using iterator = typename items_type::iterator;
  using const_iterator = typename items_type::const_iterator;

  Dict() = default;
  explicit Dict(std::vector<std::pair<K, V>> items) {
    for (auto& [key, value] : items) set(std::move(key), std::move(value));
  }
  Dict(const Dict& other) {
    for (const auto& [key, value] : other) set(key, value);
  }
  Dict(Dict&& other) noexcept
      : items_(std::exchange(other.items_, {})), places_(std::exchange(other.places_, {})) {}
  Dict& operator=(Dict other) noexcept {
    items_.swap(other.items_);
    places_.swap(other.places_);
    return *this;
  }
  ~Dict() = default;

  [[nodiscard]] iterator begin() noexcept { return items_.begin(); }
  [[nodiscard]] iterator end() noexcept { return items_.end(); }
  [[nodiscard]] const_iterator begin() const noexcept { return items_.begin(); }
  [[nodiscard]] const_iterator end() const noexcept { return items_.end(); }
  [[nodiscard]] std::size_t size() const noexcept { return items_.size(); }
  [[nodiscard]] bool empty() const noexcept { return items_.empty(); }

  [[nodiscard]] iterator find(const K& key) {
    const auto place = places_.find(key);
    return place == places_.end() ? end() : place->second;
  }
  [[nodiscard]] const_iterator find(const K& key) const {
    const auto place = places_.find(key);
    return place == places_.end() ? end() : const_iterator(place->second);
  }
  [[nodiscard]] bool contains(const K& key) const { return places_.contains(key); }

  /// The value. @throws std::out_of_range if there is none (Python: KeyError)
  [[nodiscard]] V& at(const K& key) { return found(find(key))->second; }
  [[nodiscard]] const V& at(const K& key) const { return found(find(key))->second; }

  /// The value; if there is none, V() is set first. Python: collections.defaultdict.
  V& operator[](const K& key) requires std::default_initializable<V> {
    return setdefault(key, V());
  }

  void set(K key, V value) {
    if (const auto item = find(key); item != end()) {
      item->second = std::move(value);
    } else {
      add(std::move(key), std::move(value));
    }
  }
  /// The value, after it was set to @p value if there was none.
  V& setdefault(K key, V value) {
    const auto item = find(key);
    return item != end() ? item->second : add(std::move(key), std::move(value))->second;
  }

  /// Removes an item. @returns its value @throws std::out_of_range (Python: KeyError)
  V pop(const K& key) {
    const auto item = found(find(key));
    V value = std::move(item->second);
    erase(item);
    return value;
  }
  /// Removes the newest item. @throws std::out_of_range when there is none (Python: KeyError)
  std::pair<K, V> popitem() {
    const auto item = found(items_.empty() ? end() : std::prev(end()));
    std::pair<K, V> last(item->first, std::move(item->second));
    erase(item);
    return last;
  }
  /// @returns whether there was one
  bool erase(const K& key) {
    const auto item = find(key);
    if (item != end()) erase(item);
    return item != end();
  }
  void erase(iterator item) {
    places_.erase(item->first);
    items_.erase(item);
  }
  void clear() noexcept {
    places_.clear();
    items_.clear();
  }

 private:
  using places_type = std::conditional_t<detail::hashable<K>, std::unordered_map<K, iterator>,
                                         std::map<K, iterator>>;

  template <class Iterator>
  Iterator found(Iterator item) const {
    if (item == Iterator(const_cast<Dict*>(this)->end())) {
      throw std::out_of_range("the dictionary has no such key");
    }
    return item;
  }

  iterator add(K key, V value) {
    items_.emplace_back(std::move(key), std::move(value));
    const auto item = std::prev(items_.end());
    try {
      places_.emplace(item->first, item);
    } catch (...) {
      items_.pop_back();
      throw;
    }
    return item;
  }

  items_type items_;
  places_type places_;
};

/// Values of any types, by name. Not safe for several threads at once. Python:
/// multiprocessing.managers.Namespace.
class Namespace {
 public:
  /// @tparam T copyable
  template <class T>
  void set(std::string name, T value) {
    static_assert(std::is_copy_constructible_v<T>,
                  "procpool: a value in a Namespace must be copyable");
    values_.insert_or_assign(std::move(name), std::any(std::move(value)));
  }

  /// @throws std::out_of_range if there is none (Python: AttributeError); std::invalid_argument if
  /// it is of another type
  template <class T>
  [[nodiscard]] T& get(const std::string& name) {
    const auto value = values_.find(name);
    if (value == values_.end()) {
      throw std::out_of_range(detail::concat({"the namespace has no '", name, "'"}));
    }
    if (T* const typed = std::any_cast<T>(&value->second)) return *typed;
    throw std::invalid_argument(
        detail::concat({"'", name, "' in the namespace is no ", detail::type_name<T>(), " but a ",
                        detail::demangle(value->second.type().name())}));
  }

  [[nodiscard]] bool contains(const std::string& name) const { return values_.contains(name); }
  /// @returns whether there was one
  bool erase(const std::string& name) { return values_.erase(name) != 0; }
  /// The names, in alphabetical order.
  [[nodiscard]] std::vector<std::string> names() const {
    std::vector<std::string> all;
    for (const auto& [name, value] : values_) all.push_back(name);
    return all;
  }
  [[nodiscard]] std::size_t size() const noexcept { return values_.size(); }

 private:
  std::map<std::string, std::any> values_;
};

}  // namespace procpool
