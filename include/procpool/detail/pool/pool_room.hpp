// SPDX-License-Identifier: MIT
/// @file
/// Whether a pool takes tasks: its state, and the bound on those that are not done
/// (pool_options::max_pending). Whoever submits one too many waits, and drives meanwhile, as those
/// do who wait for a result. A task that is done makes room, whatever its callbacks do. So the wait
/// ends if those tasks come to their ends.
#pragma once

#include <mutex>
#include <optional>
#include <procpool/detail/base/stop_token.hpp>

#include <procpool/detail/pool/pool_service.hpp>
#include <procpool/detail/result/job.hpp>
#include <procpool/detail/result/job_list.hpp>
#include <procpool/detail/submit/submission_terms.hpp>
#include <procpool/error.hpp>

namespace procpool::detail {

class pool_room : public pool_service {
 public:
  [[nodiscard]] pool_state state() override {
    check_usable();
    std::lock_guard lock(mutex_);
    if (state_ == state::terminated) return pool_state::terminated;
    if (!engine_.broken().empty()) return pool_state::broken;
    return state_ == state::closed ? pool_state::closed : pool_state::active;
  }

  [[nodiscard]] bool full() override {
    check_usable();
    if (engine_.backend().on_worker()) return false;
    job_list dead;  // dropped without the lock
    const std::lock_guard lock(mutex_);
    const room_for_task room(*this);
    if (!room.resolved() && leader_ == role::nobody) look_for_room(dead);
    return !room.resolved();
  }
  [[nodiscard]] bool await_room(std::optional<time_point> until, const stop_token& stop) override {
    check_usable();
    if (engine_.backend().on_worker()) return true;
    const waiting_for_room counted(*this);
    return wait_for(*this, room_for_task(*this), until, stop);
  }

 protected:
  using pool_service::pool_service;

  // There is no room for the task that this thread submits, with the lock. A task of a pool of
  // threads does not wait: it could be for its own end.
  void await_room() {
    if (engine_.backend().on_worker()) return;
    const submission_terms terms = submission_terms::own();
    if (!terms.may_wait) throw pool_full();
    const terms_scope of_callbacks;  // which may run here meanwhile
    while (no_room()) {
      const bool came = await_room_unlocked(terms.stop != nullptr ? *terms.stop : stop_token{});
      check_open_locked();
      if (!came) throw CancelledError("the call was stopped while it waited for room in the pool");
    }
  }

 private:
  // There may be some that nobody has noticed: no thread waits, and none is there that would drive.
  void look_for_room(job_list& dead) {
    static_cast<void>(engine_.advance());
    run_maintenance();
    dead = engine_.take_dead();
    notify_waiters();
  }

  // Gives the lock away for a while, which its owner does not learn.
  bool await_room_unlocked(const stop_token& stop) {
    struct unlocked {
      explicit unlocked(std::mutex& which) : mutex(&which) { mutex->unlock(); }
      unlocked(const unlocked&) = delete;
      unlocked& operator=(const unlocked&) = delete;
      ~unlocked() { mutex->lock(); }
      std::mutex* mutex;
    };
    const unlocked meanwhile(mutex_);
    return await_room(std::nullopt, stop);
  }

  // Room for one more task; or there will be none.
  struct room_for_task final : waitable {
    explicit room_for_task(pool_room& pool) : pool_(&pool) {}
    bool ready() const noexcept override { return resolved(); }
    bool resolved() const noexcept override {  // with the lock
      return !pool_->no_room() || pool_->state_ != state::open || !pool_->engine_.broken().empty();
    }
    pool_room* pool_;
  };
  // So that others tell when there is some.
  class waiting_for_room {
   public:
    explicit waiting_for_room(pool_room& pool) : pool_(&pool) {
      const std::lock_guard lock(pool.mutex_);
      ++pool.await_room_;
    }
    waiting_for_room(const waiting_for_room&) = delete;
    waiting_for_room& operator=(const waiting_for_room&) = delete;
    ~waiting_for_room() {
      const std::lock_guard lock(pool_->mutex_);
      --pool_->await_room_;
    }

   private:
    pool_room* pool_;
  };
};

}  // namespace procpool::detail
