// SPDX-License-Identifier: MIT
/// @file
/// What the handles of all queues have in common.
#pragma once

#include <cstddef>
#include <cstdint>
#include <iterator>
#include <memory>
#include <optional>
#include <type_traits>
#include <utility>

#include <procpool/codec.hpp>
#include <procpool/config.hpp>
#include <procpool/detail/codec/handles.hpp>
#include <procpool/detail/queue/queue_items.hpp>
#include <procpool/error.hpp>

namespace procpool::detail {

/// A queue as a process has it: shared by its handles.
struct open_queue {
  shared_queue bytes;
  std::optional<unfinished_items> unfinished{};  ///< of a JoinableQueue

  open_queue(queue_limits limits, std::uint64_t type, bool joinable) : bytes(limits, type) {
    if (joinable) unfinished.emplace(bytes, true);
  }
  open_queue(object_ref object, bool joinable) : bytes(std::move(object)) {
    if (joinable) unfinished.emplace(bytes, false);
  }
};

/// A queue whose items may contain handles. When its last user goes, it receives and drops what is
/// left: else the objects that the items refer to would stay until the program ends.
template <class T>
struct draining_queue : open_queue {
  using open_queue::open_queue;
  draining_queue(const draining_queue&) = delete;
  draining_queue& operator=(const draining_queue&) = delete;
  ~draining_queue() {
    while (!this->bytes.is_empty() && this->bytes.is_last_user()) {
      try {
        if (!get_item<T>(this->bytes, nullptr, not_waiting).value) return;
      } catch (const DecodeError&) {  // that item is gone, too
      } catch (...) {
        return;
      }
    }
  }
};
template <class T>
using queue_of =
    std::conditional_t<may_carry_handles_v<T> && !copied_once_v<T>, draining_queue<T>, open_queue>;

[[noreturn]] void queue_has_no_room();
[[noreturn]] void queue_has_no_item();
[[noreturn]] void queue_is_over();
[[noreturn]] void too_many_finished();

/// The elements of a range-for over a queue: each is taken from the queue.
template <class T>
class queue_iterator {
 public:
  using iterator_concept = std::input_iterator_tag;
  using value_type = T;
  using difference_type = std::ptrdiff_t;

  queue_iterator() = default;
  explicit queue_iterator(std::shared_ptr<open_queue> queue) : queue_(std::move(queue)) { ++*this; }

  [[nodiscard]] T& operator*() const { return *value_; }
  [[nodiscard]] T* operator->() const { return &*value_; }
  queue_iterator& operator++() {
    auto& unfinished = queue_->unfinished;
    value_ = get_item<T>(queue_->bytes, unfinished ? &*unfinished : nullptr, std::nullopt).value;
    return *this;
  }
  void operator++(int) { ++*this; }
  friend bool operator==(const queue_iterator& it, std::default_sentinel_t) noexcept {
    return !it.value_.has_value();
  }

 private:
  std::shared_ptr<open_queue> queue_;
  mutable std::optional<T> value_;
};

template <class Queue>
struct queue_codec;

/// Copies are the same queue. `Queue` is the class of the handle.
template <class T, class Queue, bool joinable>
class queue_handle {
 public:
  using value_type = T;

 protected:
  explicit queue_handle(queue_limits limits)
      : queue_(std::make_shared<queue_of<T>>(limits, type_tag<Queue>(), joinable)) {
    check();
  }
  explicit queue_handle(object_ref object)
      : queue_(std::make_shared<queue_of<T>>(std::move(object), joinable)) {
    check();
  }
  // No moves: there is no handle without a queue.
  queue_handle(const queue_handle&) = default;
  queue_handle& operator=(const queue_handle&) = default;
  ~queue_handle() = default;

  void put_until(const T& value, const os::deadline& until) const {
    if (!put_item(queue_->bytes, value, until)) queue_has_no_room();
  }
  [[nodiscard]] T get_until(const os::deadline& until) const {
    auto got = get_item<T>(queue_->bytes, unfinished(), until);
    if (got.is_over) queue_is_over();
    if (!got.value) queue_has_no_item();
    return std::move(*got.value);
  }
  [[nodiscard]] std::optional<T> try_get_until(const os::deadline& until) const {
    return get_item<T>(queue_->bytes, unfinished(), until).value;
  }
  [[nodiscard]] unfinished_items* unfinished() const noexcept {
    return joinable ? &*queue_->unfinished : nullptr;
  }
  [[nodiscard]] const std::shared_ptr<open_queue>& queue() const noexcept { return queue_; }

 private:
  friend queue_codec<Queue>;

  static void check() {
    assert_encodable<T>();
    static_assert(std::is_same_v<T, std::remove_cvref_t<T>>,
                  "procpool: items of a queue are values: no references, not const");
    static_assert(
        !contains_view_v<T>,
        "procpool: a received view would refer to memory of the queue that is used again; "
        "use std::string or std::vector");
  }

  std::shared_ptr<open_queue> queue_;
};

/// Travels as a handle.
template <class Queue>
struct queue_codec : same_level {
  static constexpr std::size_t min_wire_size = sizeof(object_wire);
  static void encode(encoder& e, const Queue& value) {
    put_object(e, value.queue_->bytes.object());
  }
  static Queue decode(decoder& d) {
    return Queue(get_object(d, object_kind::queue, type_tag<Queue>()));
  }
};

}  // namespace procpool::detail
