// SPDX-License-Identifier: MIT
/// @file
/// The lock of a shared object: an owner word that any process can take over from a dead one. A
/// Lock, an RLock, a Condition, a Value and an Array have it at the same place of their records.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

#include <procpool/config.hpp>
#include <procpool/detail/heap/held_object.hpp>
#include <procpool/detail/heap/layout.hpp>
#include <procpool/detail/heap/owner_lock.hpp>
#include <procpool/detail/os/time.hpp>

namespace procpool::detail {

/// The beginning of the body of every object that has a lock. Written by the lock's owner alone.
struct lock_state {
  std::atomic<std::uint64_t> thread;      ///< RLock: the thread that has it, see this_thread_of()
  std::atomic<std::uint32_t> depth;       ///< RLock: how often that thread has it
  std::atomic<std::uint32_t> owner_died;  ///< 1: an owner died with it, until consistent()
};
static_assert(sizeof(lock_state) == 16);

enum class lock_kind : std::uint8_t {
  plain,      ///< any process may release it
  recursive,  ///< its owner is one thread, which may take it again
};

/// A thread of a process, in one word. @param self of this process
[[nodiscard]] std::uint64_t this_thread_of(owner_id self) noexcept;

/// The lock in a record. A value: it refers to the record. Any thread.
class record_lock {
 public:
  record_lock(object_record& record, lock_kind kind) noexcept : record_(&record), kind_(kind) {}

  /// @param until nullopt: no limit. @returns false: the time is over
  bool acquire(const os::deadline& until) {
    const owner_id self = this_owner();
    if (kind_ == lock_kind::recursive && own_again(self)) return true;
    return taken(acquire_owner_word(word(), self, until), self);
  }
  bool try_acquire() {
    const owner_id self = this_owner();
    if (kind_ == lock_kind::recursive && own_again(self)) return true;
    if (try_acquire_owner_word(word(), self)) return taken(acquired::yes, self);
    return take_from_dead_owner(word(), self) && taken(acquired::from_dead_owner, self);
  }

  /// @returns false: it is not locked; of a recursive lock, by this thread
  bool release() {
    if (kind_ == lock_kind::plain) return give() != 0;
    if (!is_owned()) return false;
    // Relaxed: only this thread writes them while it owns the lock.
    const std::uint32_t depth = state().depth.load(std::memory_order_relaxed);
    if (depth > 1) {
      state().depth.store(depth - 1, std::memory_order_relaxed);
      return true;
    }
    state().thread.store(0, std::memory_order_relaxed);  // before the word is free
    give();
    return true;
  }

  /// Whether this thread has it; of a plain lock, this process.
  [[nodiscard]] bool is_owned() const {
    const owner_id self = this_owner();
    return owner() == self && (kind_ == lock_kind::plain || is_mine(self));
  }
  /// 0: nobody has it. It may be the name of a process that has ended.
  [[nodiscard]] owner_id owner() const noexcept {
    return word().load(std::memory_order_relaxed) & ~has_sleepers;  // a snapshot
  }
  /// How often a recursive lock's owner has it.
  [[nodiscard]] std::uint32_t depth() const noexcept {
    return owner() == 0 ? 0 : state().depth.load(std::memory_order_relaxed);  // a snapshot
  }
  [[nodiscard]] lock_state& state() const noexcept { return body_as<lock_state>(*record_); }
  [[nodiscard]] object_record& record() const noexcept { return *record_; }
  [[nodiscard]] lock_kind kind() const noexcept { return kind_; }

  /// Gives a lock back that this thread owns, however often. @returns how often
  std::uint32_t release_all() {
    const std::uint32_t depth = state().depth.load(std::memory_order_relaxed);  // ours
    state().thread.store(0, std::memory_order_relaxed);                         // ours, still
    give();
    return depth;
  }
  /// The opposite.
  void acquire_again(std::uint32_t depth) {
    acquire(std::nullopt);
    state().depth.store(depth, std::memory_order_relaxed);  // ours
  }

 private:
  [[nodiscard]] std::atomic<std::uint32_t>& word() const noexcept { return record_->wait_words[0]; }
  // The word is read first: `thread` is that of an owner who died, or of another process, while a
  // new owner has not yet written it. Both differ from this thread's.
  [[nodiscard]] bool is_mine(owner_id self) const noexcept {
    return state().thread.load(std::memory_order_relaxed) == this_thread_of(self);  // ours or not
  }
  bool own_again(owner_id self) {
    if (owner() != self || !is_mine(self)) return false;
    // Relaxed: only this thread writes it now.
    state().depth.store(state().depth.load(std::memory_order_relaxed) + 1,
                        std::memory_order_relaxed);
    return true;
  }
  bool taken(acquired how, owner_id self) {
    if (how == acquired::no) return false;
    // A process killed before this has died as the owner, so the next one is told, too.
    if (how == acquired::from_dead_owner) [[unlikely]]
      state().owner_died.store(1, std::memory_order_relaxed);  // the lock orders it
    if (kind_ == lock_kind::recursive) {
      state().depth.store(1, std::memory_order_relaxed);  // ours
      state().thread.store(this_thread_of(self), std::memory_order_relaxed);
    }
    return true;
  }
  std::uint32_t give() noexcept {
    const std::uint32_t before = word().exchange(0, std::memory_order_seq_cst);  // as owner_lock
    if ((before & has_sleepers) != 0) wake_some(word(), 1);
    return before & ~has_sleepers;
  }

  object_record* record_;
  lock_kind kind_;
};

/// The process that an owner_id names, as this pid namespace knows it; 0: it has ended, or is none.
[[nodiscard]] std::int32_t pid_of_owner(owner_id owner) noexcept;

/// @throws std::logic_error
[[noreturn]] void not_locked(const char* what);

}  // namespace procpool::detail
