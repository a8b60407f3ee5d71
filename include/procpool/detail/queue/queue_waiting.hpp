// SPDX-License-Identifier: MIT
/// @file
/// Implements shared_queue: what does not put and not take, and waiting.
///
/// A sleeper sets has_sleepers in a word, fences and looks again. Whoever puts or takes publishes,
/// gives its lock back by an exchange, which is a full fence, and looks at the word. The flag stays
/// until a wake-up has found nobody. All sleeps end after a slice, so that a wake-up that was meant
/// for a process that is killed costs others 50 ms at most.
#pragma once

#include <linux/futex.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <bit>
#include <chrono>
#include <climits>
#include <cstdint>
#include <utility>

#include <procpool/config.hpp>
#include <procpool/detail/base/cpu_relax.hpp>
#include <procpool/detail/heap/record_life.hpp>
#include <procpool/detail/machine/cpu_count.hpp>
#include <procpool/detail/os/syscall.hpp>
#include <procpool/detail/queue/segments.hpp>
#include <procpool/detail/queue/shared_queue.hpp>
#include <procpool/detail/queue/window_cache.hpp>

namespace procpool::detail {

/// A lock that is held for a moment does not make a call fail that does not wait: it waits for the
/// lock up to a second.
[[gnu::noinline]] inline bool wait_for_end(std::atomic<std::uint32_t>& lock, owner_id self,
                                           const os::deadline& until) {
  os::deadline patience;
  if (until.has_value()) {
    patience = std::chrono::steady_clock::now() + std::chrono::seconds(1);
    if (*until > *patience) patience = until;
  }
  return acquire_owner_word(lock, self, patience) != acquired::no;
}

/// Takes the lock of an end.
inline bool lock_end(std::atomic<std::uint32_t>& lock, const os::deadline& until) {
  const owner_id self = this_owner();
  return try_acquire_owner_word(lock, self) || wait_for_end(lock, self, until);
}

[[gnu::noinline]] inline void wake_found_sleepers(std::atomic<std::uint32_t>& word,
                                                  std::uint32_t seen,
                                                  std::uint64_t count) noexcept {
  const int most = static_cast<int>(std::min<std::uint64_t>(count, INT_MAX));
  const long woken =
      PROCPOOL_SYSTEM(syscall(SYS_futex, &word, FUTEX_WAKE, most, nullptr, nullptr, 0));
  // Nobody sleeps. Who is about to sleep sees the change, and looks again.
  if (woken == 0) {
    word.compare_exchange_strong(seen, (seen + 1) & ~has_sleepers, std::memory_order_relaxed);
  }
}

/// After something was published and a full fence.
inline void wake_sleepers(std::atomic<std::uint32_t>& word, std::uint64_t count) noexcept {
  const std::uint32_t seen = word.load(std::memory_order_seq_cst);  // after the fence: see @file
  if ((seen & has_sleepers) != 0) [[unlikely]]
    wake_found_sleepers(word, seen, count);
}

/// Sleeps for a slice unless @p ready. @returns false: @p until has passed
template <class Ready>
bool sleep_unless(std::atomic<std::uint32_t>& word, wait_slices& slices, const os::deadline& until,
                  Ready ready) {
  // A full fence, also where the flag was there: see @file.
  const std::uint32_t seen = word.fetch_or(has_sleepers, std::memory_order_seq_cst) | has_sleepers;
  if (ready()) return true;
  return slices.sleep(word, seen, until);
}

/// Where one CPU runs everything, nothing changes while somebody polls.
inline bool may_spin() noexcept {
  static const bool several_cpus = [] {
    try {
      return os::usable_cpus() > 1;
    } catch (...) {  // PROCPOOL_MAX_CPUS is no number; pools say so
      return false;
    }
  }();
  return several_cpus;
}

PROCPOOL_FUNCTION std::chrono::nanoseconds spin_budget::time() const noexcept {
  // Relaxed: a hint.
  return std::chrono::nanoseconds(may_spin() ? nanoseconds_.load(std::memory_order_relaxed) : 0);
}
PROCPOOL_FUNCTION void spin_budget::note(bool successful) noexcept {
  const int before = nanoseconds_.load(std::memory_order_relaxed);  // a hint
  const int after = successful ? most : std::max(least, before / 2);
  if (before != after) nanoseconds_.store(after, std::memory_order_relaxed);  // a hint
}

/// Polls for a while. @returns whether it became ready
template <class Ready>
bool spin(spin_budget& budget, Ready ready) {
  const auto time = budget.time();
  if (time.count() == 0) return false;
  const auto poll = [&] {
    for (int i = 0; i < 32; ++i) {
      if (ready()) return true;
      cpu_relax();
    }
    return false;
  };
  bool done = poll();  // reading the clock costs as much as many polls
  if (!done) {
    const auto end = std::chrono::steady_clock::now() + time;
    do {
      PROCPOOL_SYSTEM(sched_yield());  // the other side may need this CPU
      done = poll();
    } while (!done && std::chrono::steady_clock::now() < end);
  }
  budget.note(done);
  return done;
}

/// Whoever waits has just looked: this is no reason to look again.
inline bool is_over(const os::deadline& until) noexcept {
  return until && (*until == not_waiting || std::chrono::steady_clock::now() >= *until);
}

PROCPOOL_FUNCTION shared_queue::shared_queue(queue_limits limits, std::uint64_t type)
    : shared_queue(make_object(object_kind::queue, type)) {
  // Relaxed: no other process has a handle yet.
  const auto first =
      segment_number::of(segment_number::first_unit, first_segment_size / segment_number::unit);
  body_->producers.max_items.store(limits.items, std::memory_order_relaxed);
  body_->producers.max_bytes.store(limits.bytes, std::memory_order_relaxed);
  body_->producers.next_unit.store(first.start() + first.units(), std::memory_order_relaxed);
  body_->both.returns_items.store(limits.returns_items ? 1 : 0, std::memory_order_relaxed);
  body_->producers.get_place.store({first, 0, 0});
  body_->put.places[0].store({first, 0, 0});
  body_->get.places[0].store({first, 0, 0});
}

PROCPOOL_FUNCTION shared_queue::shared_queue(object_ref object)
    : windows_(*object),
      object_(std::move(object)),
      body_(&body_as<queue_body>(object_->record())) {}

PROCPOOL_FUNCTION std::uint64_t shared_queue::size() const noexcept {
  // The consumers' end first: it cannot overtake the other one. Acquire: in this order, and the
  // items are seen.
  const std::uint64_t taken =
      passed_word{body_->get.passed.load(std::memory_order_acquire)}.items();
  const std::uint64_t put = passed_word{body_->put.passed.load(std::memory_order_acquire)}.items();
  return put > taken ? put - taken : 0;
}

PROCPOOL_FUNCTION std::uint64_t shared_queue::put_count() const noexcept {
  return passed_word{body_->put.passed.load(std::memory_order_seq_cst)}.items();  // unfinished.hpp
}

PROCPOOL_FUNCTION bool shared_queue::is_full(std::uint64_t length) const noexcept {
  // Relaxed: they never change.
  const auto max_items = body_->producers.max_items.load(std::memory_order_relaxed);
  const auto max_bytes = body_->producers.max_bytes.load(std::memory_order_relaxed);
  const std::uint64_t waiting = size();
  if (waiting == 0) return false;
  if (max_items != 0 && waiting >= max_items) return true;
  if (max_bytes == 0) return false;
  const queue_end::view taken = body_->get.look();
  const queue_end::view put = body_->put.look();
  if (!taken.is_known || !put.is_known) return false;
  return put.place.bytes - taken.place.bytes + record_size(length) > max_bytes;
}

PROCPOOL_FUNCTION bool shared_queue::returns_items() const noexcept {
  return body_->both.returns_items.load(std::memory_order_relaxed) == 1;  // never changes
}

PROCPOOL_FUNCTION bool shared_queue::is_closed() const noexcept {
  return body_->producers.closed.load(std::memory_order_acquire) != 0;  // with all items
}

PROCPOOL_FUNCTION bool shared_queue::is_last_user() const noexcept {
  if (object_.use_count() != 1) return false;
  const object_record& record = object_->record();
  if (record.in_transit.load(std::memory_order_relaxed) != 0) return false;  // as above
  if (holders_of(record) > 1) collect_dead_processes();
  return holders_of(record) == 1;
}

PROCPOOL_FUNCTION void shared_queue::close() {
  if (is_closed()) return;
  if (!lock_end(words().put_lock(), std::nullopt)) return;
  body_->producers.closed.store(1, std::memory_order_release);  // after all items
  release_owner_word(words().put_lock());
  wake_all(words().item_word());
  wake_all(words().room_word());
}

[[gnu::noinline]] PROCPOOL_FUNCTION bool shared_queue::wait_for_item(wait_slices& slices,
                                                                     const os::deadline& until) {
  if (is_over(until)) return false;
  const auto ready = [this] { return !is_empty() || is_closed(); };
  if (spin(item_spin_, ready)) return true;
  constexpr int looks_before_trim = 6;  // 63 ms
  for (int looks = 0;; ++looks) {
    if (looks == looks_before_trim) give_memory_back();
    if (!sleep_unless(words().item_word(), slices, until, ready)) return ready();
    if (ready() || get_more()) return true;
  }
}

[[gnu::noinline]] PROCPOOL_FUNCTION bool shared_queue::wait_for_room(wait_slices& slices,
                                                                     std::uint64_t length,
                                                                     const os::deadline& until) {
  if (is_over(until)) return false;
  const auto ready = [&] { return !is_full(length) || is_closed(); };
  if (spin(room_spin_, ready)) return true;
  while (true) {
    if (!sleep_unless(words().room_word(), slices, until, ready)) return ready();
    if (ready()) return true;
  }
}

// Nothing was put for a while: an empty queue needs no large segment.
PROCPOOL_FUNCTION void shared_queue::give_memory_back() {
  // Relaxed: hints.
  const segment_number segment = body_->put.look().place.segment;
  const bool large = segment.is_valid() && segment.size() > first_segment_size;
  const bool touched = body_->producers.reserved.load(std::memory_order_relaxed) != 0;
  if (!large || (!touched && body_->both.spare.load(std::memory_order_relaxed) == 0)) return;
  const owner_id self = this_owner();
  if (!try_acquire_owner_word(words().get_lock(), self)) return;
  if (try_acquire_owner_word(words().put_lock(), self)) {
    if (is_empty()) {
      // Relaxed: under both locks.
      body_->producers.reserved.store(0, std::memory_order_relaxed);
      body_->both.spare.store(0, std::memory_order_relaxed);
      const std::uint64_t begin = segment_number::first_unit * segment_number::unit;
      discard_extent(*object_, begin, heap_places::extent_bytes - begin);
    }
    release_owner_word(words().put_lock());
  }
  release_owner_word(words().get_lock());
}

// Called with the lock of the consumers' end.
PROCPOOL_FUNCTION void shared_queue::retire(segment_number drained) noexcept {
  auto& spare = body_->both.spare;
  if (drained.units() == largest_segment_units && spare.load(std::memory_order_relaxed) == 0) {
    spare.store(drained.word, std::memory_order_release);  // after the last look at its items
    return;
  }
  discard_extent(*object_, drained.offset(), drained.size());
}

}  // namespace procpool::detail
