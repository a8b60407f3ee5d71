// SPDX-License-Identifier: MIT
/// @file
/// Proxies of objects in a manager's process; see <procpool/manager.hpp>. Python:
/// multiprocessing.managers.BaseProxy, DictProxy, ListProxy, NamespaceProxy.
#pragma once

#include <procpool/config.hpp>  // first, for its errors

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <initializer_list>
#include <memory>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <procpool/codec.hpp>
#include <procpool/codec/vocabulary.hpp>
#include <procpool/detail/codec/handles.hpp>
#include <procpool/detail/manager/managed_invocation.hpp>
#include <procpool/detail/manager/manager_link.hpp>
#include <procpool/managed.hpp>

namespace procpool {

class Manager;

namespace detail {

/// What a proxy consists of.
struct proxy_parts {
  object_ref anchor;  ///< keeps the object in the server alive
  std::shared_ptr<manager_link> link;

  void encode(encoder& out) const {
    if (anchor == nullptr) throw std::logic_error("the proxy was moved from");
    put_object(out, anchor);
    put_object(out, link->manager());
  }
  static proxy_parts decode(decoder& in, std::uint64_t type) {
    auto anchor = get_object(in, object_kind::managed, type);
    return {std::move(anchor), manager_link::of(get_object(in, object_kind::manager))};
  }
};

}  // namespace detail

/// Stands for an object of type T in the process of a Manager. Made by Manager::make().
///
/// Copies stand for the same object. A proxy can be captured, be an argument, item or result, be
/// sent through a Connection, and be an element of an object of a manager, in all processes of the
/// program, whenever they were started. The object lives as long as a process has a proxy of it, or
/// a message contains one, and the Manager has not ended. It is destroyed within about a second
/// after that.
///
/// Each call is a message to the server and one back, and is done there as a whole: others wait.
/// Any thread; calls by several threads go through several connections.
///
/// Arguments and results are copied. An exception of the call is thrown here with its type, with a
/// RemoteTraceback nested in it (register_exception() for types of your own). If the manager has
/// ended or its process was killed, every call throws EOFError. If a client dies, nobody else
/// notices; a call that it has begun is done. When the system refuses memory or a descriptor, a
/// call throws ProcessError.
template <class T>
class Proxy {
 public:
  using value_type = T;

  /// Calls `f(object, arguments...)` in the manager's process: a pointer to member, a function, or
  /// a lambda without captures or with plain ones. Nobody else uses the object meanwhile, so this
  /// is how to read, change and write: `scores.call([](auto& all) { all["a"] += 1; })`.
  /// @returns a copy of the result
  /// @throws what f throws; std::logic_error if f calls the same object through a proxy
  template <class F, class... A>
  auto call(F f, A&&... arguments) const {
    if (parts_.anchor == nullptr) throw std::logic_error("the proxy was moved from");
    return detail::call_managed<T>(*parts_.link, *parts_.anchor, f, std::forward<A>(arguments)...);
  }

  /// Whether both stand for the same object.
  friend bool operator==(const Proxy& one, const Proxy& other) noexcept {
    const auto* const a = one.parts_.anchor.get();
    const auto* const b = other.parts_.anchor.get();
    if (a == nullptr || b == nullptr) return a == b;
    return a->number() == b->number() && a->generation() == b->generation();
  }

 private:
  friend class Manager;
  friend codec<Proxy>;
  explicit Proxy(detail::proxy_parts parts) noexcept : parts_(std::move(parts)) {}

  detail::proxy_parts parts_;
};

template <class T>
struct codec<Proxy<T>> {
  static constexpr std::size_t min_wire_size = 2 * sizeof(detail::object_wire);

  static void encode(encoder& out, const Proxy<T>& proxy) { proxy.parts_.encode(out); }
  static Proxy<T> decode(decoder& in) {
    return Proxy<T>(detail::proxy_parts::decode(in, detail::type_tag<T>()));
  }
};

/// Stands for a Dict in the process of a Manager. Made by Manager::dict(). Everything that is said
/// of Proxy holds. Python: a proxy of a dict.
/// @tparam K, V encodable; K has std::hash and ==, or <
template <class K, class V>
class DictProxy : public Proxy<Dict<K, V>> {
  using dict = Dict<K, V>;

 public:
  explicit DictProxy(Proxy<dict> proxy) noexcept : Proxy<dict>(std::move(proxy)) {}

  /// Python: d[key] = value.
  void set(const K& key, const V& value) const {
    this->call([](dict& d, K k, V v) { d.set(std::move(k), std::move(v)); }, key, value);
  }
  /// Python: d[key]. @throws std::out_of_range if there is none (Python: KeyError)
  [[nodiscard]] V get(const K& key) const {
    return this->call([](dict& d, const K& k) -> const V& { return d.at(k); }, key);
  }
  /// The value, or @p otherwise.
  [[nodiscard]] V get(const K& key, const V& otherwise) const {
    return this->call(
        [](dict& d, const K& k, const V& v) -> const V& {
          const auto item = d.find(k);
          return item == d.end() ? v : item->second;
        },
        key, otherwise);
  }
  /// Python: key in d.
  [[nodiscard]] bool contains(const K& key) const {
    return this->call([](dict& d, const K& k) { return d.contains(k); }, key);
  }
  /// The value, after it was set to @p value if there was none.
  V setdefault(const K& key, const V& value) const {
    return this->call(
        [](dict& d, K k, V v) -> const V& { return d.setdefault(std::move(k), std::move(v)); }, key,
        value);
  }
  /// Removes an item. @returns its value @throws std::out_of_range (Python: KeyError)
  V pop(const K& key) const {
    return this->call([](dict& d, const K& k) { return d.pop(k); }, key);
  }
  /// The same. @returns @p otherwise if there is none
  V pop(const K& key, const V& otherwise) const {
    return this->call([](dict& d, const K& k, V v) { return d.contains(k) ? d.pop(k) : v; }, key,
                      otherwise);
  }
  /// Removes the newest item. @throws std::out_of_range (Python: KeyError)
  std::pair<K, V> popitem() const {
    return this->call([](dict& d) { return d.popitem(); });
  }
  /// Removes an item. @returns whether there was one. Python: del d[key], which throws then.
  bool erase(const K& key) const {
    return this->call([](dict& d, const K& k) { return d.erase(k); }, key);
  }
  /// Sets all these items.
  void update(const std::vector<std::pair<K, V>>& items) const {
    this->call(
        [](dict& d, std::vector<std::pair<K, V>> all) {
          for (auto& [key, value] : all) d.set(std::move(key), std::move(value));
        },
        items);
  }
  void clear() const {
    this->call([](dict& d) { d.clear(); });
  }
  /// Python: len(d).
  [[nodiscard]] std::size_t size() const {
    return this->call([](dict& d) { return d.size(); });
  }

  // Copies, in the order of insertion.
  [[nodiscard]] std::vector<K> keys() const {
    return this->call([](dict& d) {
      std::vector<K> all;
      all.reserve(d.size());
      for (const auto& item : d) all.push_back(item.first);
      return all;
    });
  }
  [[nodiscard]] std::vector<V> values() const {
    return this->call([](dict& d) {
      std::vector<V> all;
      all.reserve(d.size());
      for (const auto& item : d) all.push_back(item.second);
      return all;
    });
  }
  [[nodiscard]] std::vector<std::pair<K, V>> items() const {
    return this->call([](dict& d) { return std::vector<std::pair<K, V>>(d.begin(), d.end()); });
  }
  /// A dictionary of this process. Python: d.copy().
  [[nodiscard]] Dict<K, V> copy() const { return Dict<K, V>(items()); }
};

/// Stands for a std::vector in the process of a Manager. Made by Manager::list(). Everything that
/// is said of Proxy holds. Indices count from 0, negative ones from the end. Python: a proxy of a
/// list.
/// @tparam T encodable
template <class T>
class ListProxy : public Proxy<std::vector<T>> {
  using list = std::vector<T>;
  using reference = typename list::const_reference;  // no reference for bool

 public:
  explicit ListProxy(Proxy<list> proxy) noexcept : Proxy<list>(std::move(proxy)) {}

  void append(const T& value) const {
    this->call([](list& l, T v) { l.push_back(std::move(v)); }, value);
  }
  void extend(const std::vector<T>& values) const {
    this->call([](list& l, const list& more) { l.insert(l.end(), more.begin(), more.end()); },
               values);
  }
  /// Inserts before @p index; an index beyond an end stands for that end.
  void insert(std::ptrdiff_t index, const T& value) const {
    this->call(
        [](list& l, std::ptrdiff_t i, T v) { l.insert(l.begin() + bounded(l, i), std::move(v)); },
        index, value);
  }
  /// Removes an element, by default the last one. @returns it
  /// @throws std::out_of_range (Python: IndexError)
  T pop(std::ptrdiff_t index = -1) const {
    return this->call(
        [](list& l, std::ptrdiff_t i) {
          const auto place = l.begin() + checked(l, i);
          T value = std::move(*place);
          l.erase(place);
          return value;
        },
        index);
  }
  /// Removes the first element that equals @p value. @throws std::invalid_argument if there is none
  /// (Python: ValueError)
  void remove(const T& value) const {
    this->call([](list& l, const T& v) { l.erase(found(l, v)); }, value);
  }
  /// Python: l[index]. @throws std::out_of_range (Python: IndexError)
  [[nodiscard]] T get(std::ptrdiff_t index) const {
    return this->call(
        [](list& l, std::ptrdiff_t i) -> reference {
          return std::as_const(l)[static_cast<std::size_t>(checked(l, i))];
        },
        index);
  }
  /// Python: l[index] = value. @throws std::out_of_range (Python: IndexError)
  void set(std::ptrdiff_t index, const T& value) const {
    this->call([](list& l, std::ptrdiff_t i,
                  T v) { l[static_cast<std::size_t>(checked(l, i))] = std::move(v); },
               index, value);
  }
  /// A copy of the elements from @p first up to, not including, @p last. Python: l[first:last].
  [[nodiscard]] std::vector<T> slice(std::ptrdiff_t first, std::ptrdiff_t last) const {
    return this->call(
        [](list& l, std::ptrdiff_t from, std::ptrdiff_t to) {
          const auto begin = bounded(l, from);
          return list(l.begin() + begin, l.begin() + std::max(begin, bounded(l, to)));
        },
        first, last);
  }
  /// The index of the first element that equals @p value. @throws std::invalid_argument if there is
  /// none (Python: ValueError)
  [[nodiscard]] std::size_t index(const T& value) const {
    return this->call(
        [](list& l, const T& v) { return static_cast<std::size_t>(found(l, v) - l.begin()); },
        value);
  }
  [[nodiscard]] bool contains(const T& value) const { return count(value) != 0; }
  /// How many elements equal @p value.
  [[nodiscard]] std::size_t count(const T& value) const {
    return this->call(
        [](list& l, const T& v) {
          return static_cast<std::size_t>(std::count(l.begin(), l.end(), v));
        },
        value);
  }
  void reverse() const {
    this->call([](list& l) { std::reverse(l.begin(), l.end()); });
  }
  /// Sorts by <; equal elements keep their order.
  void sort() const {
    this->call([](list& l) { std::stable_sort(l.begin(), l.end()); });
  }
  void clear() const {
    this->call([](list& l) { l.clear(); });
  }
  /// Python: len(l).
  [[nodiscard]] std::size_t size() const {
    return this->call([](list& l) { return l.size(); });
  }
  /// The elements, as they are now. Python: l.copy(), l[:].
  [[nodiscard]] std::vector<T> copy() const {
    return this->call([](list& l) -> const list& { return l; });
  }

 private:
  static std::ptrdiff_t bounded(const list& l, std::ptrdiff_t index) noexcept {
    const auto size = static_cast<std::ptrdiff_t>(l.size());
    return index < 0 ? std::max<std::ptrdiff_t>(0, index + size) : std::min(index, size);
  }
  static std::ptrdiff_t checked(const list& l, std::ptrdiff_t index) {
    const auto size = static_cast<std::ptrdiff_t>(l.size());
    if (index < -size || index >= size) {
      throw std::out_of_range(
          detail::concat({"index ", index, " in a list of ", size, " elements"}));
    }
    return index < 0 ? index + size : index;
  }
  static typename list::iterator found(list& l, const T& value) {
    const auto place = std::find(l.begin(), l.end(), value);
    if (place == l.end()) throw std::invalid_argument("the list has no such element");
    return place;
  }
};

/// Stands for a Namespace in the process of a Manager. Made by Manager::Namespace(). Everything
/// that is said of Proxy holds. Python: NamespaceProxy.
///
/// A template only so that programs that use no Namespace do not compile its code.
template <std::same_as<Namespace> Stored>
class BasicNamespaceProxy : public Proxy<Stored> {
 public:
  explicit BasicNamespaceProxy(Proxy<Stored> proxy) noexcept : Proxy<Stored>(std::move(proxy)) {}

  /// Python: n.name = value. @tparam T copyable and encodable
  template <class T>
  void set(const std::string& name, const T& value) const {
    this->call([](Stored& n, std::string key, T v) { n.set(std::move(key), std::move(v)); }, name,
               value);
  }
  void set(const std::string& name, const char* value) const { set(name, std::string(value)); }
  /// Python: n.name. @tparam T the type that it was set as
  /// @throws std::out_of_range if there is none (Python: AttributeError); std::invalid_argument if
  /// it is of another type
  template <class T>
  [[nodiscard]] T get(const std::string& name) const {
    return this->call(
        [](Stored& n, const std::string& key) -> const T& { return n.template get<T>(key); }, name);
  }
  [[nodiscard]] bool contains(const std::string& name) const {
    return this->call([](Stored& n, const std::string& key) { return n.contains(key); }, name);
  }
  /// @returns whether there was one. Python: del n.name, which throws then.
  bool erase(const std::string& name) const {
    return this->call([](Stored& n, const std::string& key) { return n.erase(key); }, name);
  }
  /// The names, in alphabetical order. Python: dir(n).
  [[nodiscard]] std::vector<std::string> names() const {
    return this->call([](Stored& n) { return n.names(); });
  }
};
using NamespaceProxy = BasicNamespaceProxy<Namespace>;

namespace detail {

/// For proxies that add members to Proxy<T>.
template <class Derived, class T>
struct proxy_codec {
  static constexpr std::size_t min_wire_size = codec<Proxy<T>>::min_wire_size;

  static void encode(encoder& out, const Derived& proxy) { codec<Proxy<T>>::encode(out, proxy); }
  static Derived decode(decoder& in) { return Derived(codec<Proxy<T>>::decode(in)); }
};

}  // namespace detail

template <class K, class V>
struct codec<DictProxy<K, V>> : detail::proxy_codec<DictProxy<K, V>, Dict<K, V>> {};
template <class T>
struct codec<ListProxy<T>> : detail::proxy_codec<ListProxy<T>, std::vector<T>> {};
template <std::same_as<Namespace> Stored>
struct codec<BasicNamespaceProxy<Stored>>
    : detail::proxy_codec<BasicNamespaceProxy<Stored>, Stored> {};

}  // namespace procpool
