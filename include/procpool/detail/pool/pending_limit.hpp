// SPDX-License-Identifier: MIT
/// @file
/// The bound on unfinished tasks (pool_options::max_pending). A thread that submits at the limit
/// waits for room, and leads or follows meanwhile like a thread that waits for a result. A finished
/// task makes room before its callbacks run, so the wait depends on no callback.
#pragma once

#include <mutex>
#include <optional>

#include <procpool/detail/base/stop_token.hpp>
#include <procpool/detail/pool/guarded_engine.hpp>
#include <procpool/detail/pool/leader.hpp>
#include <procpool/detail/result/job.hpp>
#include <procpool/detail/result/job_list.hpp>
#include <procpool/detail/submit/submission_terms.hpp>
#include <procpool/error.hpp>

namespace procpool::detail {

/// Any thread, except a task of a pool of threads, which could wait for its own end.
class pending_limit {
 public:
  /// @param owner the pool; its wait() leads or follows
  pending_limit(driver& owner, guarded_engine& pool, leader& lead)
      : owner_(owner), pool_(pool), leader_(lead) {}

  /// Whether a submission would wait now. Takes the lock.
  [[nodiscard]] bool reached() {
    job_list dead;  // destroyed without the lock
    const std::lock_guard lock(pool_.mutex);
    const room_for_task room(pool_);
    if (!room.resolved() && !leader_.present()) drain_for_room(dead);
    return !room.resolved();
  }

  /// Waits until a submission would not wait, @p until is reached or a stop is requested. @returns
  /// whether a submission would not wait. Takes the lock.
  [[nodiscard]] bool await_room(std::optional<time_point> until, const stop_token& stop) {
    const counted_wait counted(pool_);
    return wait_for(owner_, room_for_task(pool_), until, stop);
  }

  /// Waits for room by the calling thread's submission_terms. Called with the lock, which it
  /// releases meanwhile. @throws pool_full, CancelledError by the terms; as check_open()
  void await_room_for_submission() {
    const submission_terms terms = submission_terms::own();
    if (!terms.may_wait) throw pool_full();
    const terms_scope default_terms;  // for callbacks that run on this thread meanwhile
    while (pool_.no_room()) {
      const bool has_room = await_unlocked(terms.stop != nullptr ? *terms.stop : stop_token{});
      pool_.check_open();
      if (!has_room)
        throw CancelledError("the call was stopped while it waited for room in the pool");
    }
  }

 private:
  // Without a leader, results that make room may not have been read yet.
  void drain_for_room(job_list& dead) {
    static_cast<void>(pool_.engine.advance());
    leader_.run_maintenance();
    dead = std::exchange(pool_.dead, {});
    leader_.notify_waiters();
  }

  bool await_unlocked(const stop_token& stop) {
    struct unlocked {
      explicit unlocked(std::mutex& which) : mutex(&which) { mutex->unlock(); }
      unlocked(const unlocked&) = delete;
      unlocked& operator=(const unlocked&) = delete;
      ~unlocked() { mutex->lock(); }
      std::mutex* mutex;
    };
    const unlocked scope(pool_.mutex);
    return await_room(std::nullopt, stop);
  }

  // Resolved when there is room for one more task, or the pool takes no more tasks.
  struct room_for_task final : waitable {
    explicit room_for_task(guarded_engine& of) : pool(&of) {}
    bool ready() const noexcept override { return resolved(); }
    bool resolved() const noexcept override {  // with the lock
      return !pool->no_room() || pool->state != guarded_engine::phase::open ||
             !pool->broken.empty();
    }
    guarded_engine* pool;
  };

  // Makes notify_waiters() wake this thread when there is room.
  class counted_wait {
   public:
    explicit counted_wait(guarded_engine& pool) : pool_(&pool) {
      const std::lock_guard lock(pool.mutex);
      ++pool.room_waiters;
    }
    counted_wait(const counted_wait&) = delete;
    counted_wait& operator=(const counted_wait&) = delete;
    ~counted_wait() {
      const std::lock_guard lock(pool_->mutex);
      --pool_->room_waiters;
    }

   private:
    guarded_engine* pool_;
  };

  driver& owner_;
  guarded_engine& pool_;
  leader& leader_;
};

}  // namespace procpool::detail
