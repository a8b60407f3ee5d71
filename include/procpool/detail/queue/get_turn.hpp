// SPDX-License-Identifier: MIT
/// @file
/// Implements get_turn: finding the next item.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <utility>

#include <procpool/codec/decoder.hpp>
#include <procpool/config.hpp>
#include <procpool/detail/queue/queue_waiting.hpp>
#include <procpool/detail/queue/segments.hpp>
#include <procpool/detail/queue/shared_queue.hpp>

namespace procpool::detail {

PROCPOOL_FUNCTION get_turn::get_turn(shared_queue& queue, const os::deadline& until)
    : queue_(queue), body_(queue.body()) {
  locked_ = lock_end(queue.words().get_lock(), until);
  if (!locked_) return;
  passed_.word = body_.get.passed.load(std::memory_order_relaxed);  // under the lock
  now_ = body_.get.places[passed_.copy()].load();
}

PROCPOOL_FUNCTION get_turn::~get_turn() {
  release();
}

PROCPOOL_FUNCTION void get_turn::release() noexcept {
  if (std::exchange(locked_, false)) release_owner_word(queue_.words().get_lock());
}

inline bool get_turn::anything() {
  const std::uint64_t items = passed_.items() + items_;
  auto& known = body_.get.other_items;
  std::uint64_t put = known.load(std::memory_order_relaxed);  // under the lock
  if (put == items) {
    // Acquire: the items are seen. Consumers that rely on what is noted here take the lock later.
    put = passed_word{body_.put.passed.load(std::memory_order_acquire)}.items();
    known.store(put, std::memory_order_relaxed);
  }
  if (put - items > impossible_count) queue_is_damaged(now_.at);
  return put != items;
}

PROCPOOL_FUNCTION std::optional<std::span<const std::byte>> get_turn::next() {
  if (!locked_ || !anything()) return std::nullopt;
  constexpr int most_hops = 3;  // an item follows after one
  for (int hop = 0; hop < most_hops; ++hop) {
    if (!now_.is_valid()) queue_is_damaged(now_.at);
    const std::byte* const at = queue_.windows_->get.of(*queue_.object(), now_.segment) + now_.at;
    const item_head head{load<std::uint64_t>(at)};
    const std::uint64_t left = now_.segment.size() - now_.at - sizeof head;
    if (head.kind() == record_head_kind::item) {
      if (head.length() > left || record_size(head.length()) - sizeof head > left) break;
      next_size_ = record_size(head.length());
      return std::span(at + sizeof head, head.length());
    }
    if (head.kind() == record_head_kind::wrap) {
      now_.at = 0;
    } else if (head.kind() == record_head_kind::jump) {
      if (items_ != 0) return std::nullopt;  // one drained segment at a time
      drained_ = std::exchange(now_.segment, {load<std::uint64_t>(at + sizeof head)});
      now_.at = 0;
    } else {
      break;
    }
  }
  queue_is_damaged(now_.at);
}

PROCPOOL_FUNCTION void get_turn::take() noexcept {
  now_.at += next_size_;
  now_.bytes += next_size_;
  ++items_;
}

PROCPOOL_FUNCTION void get_turn::publish() noexcept {
  if (items_ != 0) {
    const passed_word next = passed_.plus(items_);
    body_.get.places[next.copy()].store(now_);
    body_.get.passed.store(next.word, std::memory_order_release);  // now the items are gone
    if (drained_.word != 0) queue_.retire(drained_);
  }
  release();
  wake_sleepers(queue_.words().room_word(), items_);
}

}  // namespace procpool::detail
