// SPDX-License-Identifier: MIT
/// @file
/// The workers that can get a task now, in the order in which they get one. A part of the
/// scheduler: no system call, no lock.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <vector>

namespace procpool::detail {

inline constexpr std::uint32_t no_worker = std::numeric_limits<std::uint32_t>::max();

/// How a worker can get a task.
enum class offer : std::uint8_t {
  none,            ///< it gets nothing now
  idle,            ///< it has no task; served first, from the back
  lightly_loaded,  ///< it spins and has few tasks; served in turn
  busy,            ///< it has room for more; served in turn
};

/// Lists of workers, linked by index. Only reserve() and add() allocate.
class worker_offers {
 public:
  /// @param spinning the first workers, which spin while they wait
  explicit worker_offers(std::uint32_t spinning) : spinning_(spinning) {}

  void reserve(std::uint32_t workers) { entries_.reserve(workers); }
  /// There are this many workers; the new ones have no offer.
  void grow(std::uint32_t workers) { entries_.resize(workers); }

  [[nodiscard]] bool spins(std::uint32_t worker) const noexcept { return worker < spinning_; }

  /// Makes the worker the last in this list; a sleeping idle one becomes the first.
  void put(std::uint32_t worker, offer as) noexcept {
    if (as == entries_[worker].as && (as == offer::none || list(as).last == worker)) return;
    remove(worker);
    if (as == offer::none) return;
    entries_[worker].as = as;
    if (as == offer::idle && !spins(worker)) {
      push_front(list(as), worker);
    } else {
      push_back(list(as), worker);
    }
  }
  /// The worker gets nothing now.
  void remove(std::uint32_t worker) noexcept {
    entry& at = entries_[worker];
    if (at.as == offer::none) return;
    worker_list& from = list(at.as);
    at.as = offer::none;
    (at.previous != no_worker ? entries_[at.previous].next : from.first) = at.next;
    (at.next != no_worker ? entries_[at.next].previous : from.last) = at.previous;
  }

  [[nodiscard]] bool any_idle() const noexcept { return list(offer::idle).last != no_worker; }
  [[nodiscard]] bool any_lightly_loaded() const noexcept {
    return list(offer::lightly_loaded).first != no_worker;
  }
  /// Whether an idle worker spins: it needs no wake-up.
  [[nodiscard]] bool spinner_idle() const noexcept {
    const std::uint32_t last = list(offer::idle).last;
    return last != no_worker && spins(last);
  }

  /// The worker to serve next; no_worker: there is none.
  /// @param awake rather one that is awake than an idle one that has to be woken
  [[nodiscard]] std::uint32_t best(bool awake) const noexcept {
    if (any_idle() && (spinner_idle() || !awake)) return list(offer::idle).last;
    return any_lightly_loaded() ? list(offer::lightly_loaded).first : list(offer::busy).first;
  }

 private:
  struct entry {
    offer as = offer::none;
    std::uint32_t previous = no_worker;  ///< neighbours in its list
    std::uint32_t next = no_worker;
  };
  struct worker_list {
    std::uint32_t first = no_worker;
    std::uint32_t last = no_worker;
  };

  [[nodiscard]] worker_list& list(offer as) noexcept { return lists_[static_cast<int>(as)]; }
  [[nodiscard]] const worker_list& list(offer as) const noexcept {
    return lists_[static_cast<int>(as)];
  }

  void push_back(worker_list& to, std::uint32_t worker) noexcept {
    entries_[worker].previous = to.last;
    entries_[worker].next = no_worker;
    (to.last != no_worker ? entries_[to.last].next : to.first) = worker;
    to.last = worker;
  }
  void push_front(worker_list& to, std::uint32_t worker) noexcept {
    entries_[worker].next = to.first;
    entries_[worker].previous = no_worker;
    (to.first != no_worker ? entries_[to.first].previous : to.last) = worker;
    to.first = worker;
  }

  const std::uint32_t spinning_;
  std::vector<entry> entries_;
  worker_list lists_[4];  ///< by offer; that of `none` stays empty
};

}  // namespace procpool::detail
