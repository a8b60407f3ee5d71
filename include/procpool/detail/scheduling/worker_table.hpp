// SPDX-License-Identifier: MIT
/// @file
/// What a pool knows of its workers and their tasks, in the parent's private memory: shared by the
/// parts of the engine, which all run under the lock of the pool.
#pragma once

#include <boost/smart_ptr/intrusive_ptr.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <memory>
#include <new>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <procpool/detail/backend/worker_backend.hpp>
#include <procpool/detail/os/event.hpp>
#include <procpool/detail/result/job.hpp>
#include <procpool/detail/result/job_list.hpp>
#include <procpool/detail/ring/parent_channel.hpp>
#include <procpool/detail/ring/regions.hpp>
#include <procpool/detail/scheduling/completion.hpp>
#include <procpool/detail/scheduling/pool_task.hpp>
#include <procpool/detail/scheduling/prepared_errors.hpp>
#include <procpool/detail/scheduling/scheduler.hpp>
#include <procpool/detail/worker/recycle_policy.hpp>
#include <procpool/detail/worker/replay.hpp>

namespace procpool::detail {

/// Why a worker is being killed.
enum class killing : std::uint8_t { no, violation, late, cancelled };

/// What is known of a worker besides the scheduler's part.
struct worker_state {
  bool initializing = false;                  ///< its initializer has not returned yet
  os::time_point since{};                     ///< when it was started, if it has one
  bool retire_due = false;                    ///< has to be told to retire, when there is room
  bool unresponsive = false;                  ///< leaves its tasks alone, gets none until it stirs
  killing kill = killing::no;                 ///< nothing is expected from it any more
  std::uint64_t target = 0;                   ///< the item it is killed for, as in `started`
  std::uint64_t finished = 0;                 ///< frames
  std::uint64_t finished_before = 0;          ///< when its speed was measured the last time,
  os::time_point measured{};                  ///< and when that was
  std::uint64_t finished_then = 0;            ///< when it was looked for workers that are stuck
  std::uint64_t watched = ~std::uint64_t{0};  ///< the item it was seen with, as in `started`
  os::time_point watched_since{};
  bool running = false;  ///< it was seen to have begun with that
  std::exception_ptr init_error;
  std::string violation;  ///< what it did that no worker does
};

class worker_table {
 public:
  worker_table(std::unique_ptr<worker_backend> behind, std::size_t places,
               const scheduling_rules& rules, const recycle_rules& life)
      : backend(std::move(behind)),
        schedule(rules),
        lives(life, rules.maxtasksperchild),
        workers(places) {
    schedule.reserve(static_cast<std::uint32_t>(places));
  }
  worker_table(const worker_table&) = delete;
  worker_table& operator=(const worker_table&) = delete;

  /// Places in use are those before this one.
  [[nodiscard]] std::uint32_t size() const noexcept { return size_; }
  /// There is a worker in this place, or there will be.
  void use(std::uint32_t worker) noexcept { size_ = std::max(size_, worker + 1); }
  /// The places from @p wanted on are not needed any more when they are vacant.
  void shrink(std::uint32_t wanted) noexcept {
    while (size_ > wanted && schedule.vacant(size_ - 1)) --size_;
  }
  [[nodiscard]] parent_channel& channel(std::uint32_t worker) { return backend->channel(worker); }

  /// The task that a worker works on or will begin with; its successors follow by `next`.
  [[nodiscard]] pool_task* first_task(std::uint32_t worker) const {
    if (schedule.vacant(worker)) return nullptr;
    return static_cast<pool_task*>(schedule.front(worker));
  }
  [[nodiscard]] static pool_task* next_task(const pool_task& task) {
    return static_cast<pool_task*>(task.next);
  }

  /// Whether news is expected from a worker.
  [[nodiscard]] bool busy(std::uint32_t worker) const {
    return backend->present(worker) && !schedule.vacant(worker) &&
           workers[worker].kill == killing::no &&
           (workers[worker].initializing || first_task(worker) != nullptr);
  }

  /// Has a worker killed; its death is reported like any other.
  /// @param target the item that it is killed for, as in `started`
  void kill(std::uint32_t worker, killing why, std::uint64_t target = 0) noexcept {
    workers[worker].kill = why;
    workers[worker].target = target;
    schedule.quarantine(worker);  // it might begin with what it gets now
    backend->kill(worker);
  }
  /// It has done what no worker does: nothing from it counts any more.
  void kill_for_violation(std::uint32_t worker, const char* why) noexcept {
    note_violation(worker, why);
    kill(worker, killing::violation);
  }
  /// The same when it is dead. Whatever else fails, this must not: else it would be listened to.
  void note_violation(std::uint32_t worker, const char* why) noexcept {
    workers[worker].kill = killing::violation;
    try {
      workers[worker].violation = why;
    } catch (const std::bad_alloc&) {
      workers[worker].violation = "no memory";  // fits into the string itself
    }
  }

  /// A new task. Its body is still to be filled in.
  [[nodiscard]] pool_task& make_task(boost::intrusive_ptr<job> owner, const frame_head& head,
                                     std::size_t first_index) {
    pool_task& task = store_.take();
    task.owner = std::move(owner);
    job_tasks::add(task);
    copy_head(task.head, head);
    task.head.timed = task.owner->rules().timeout.count() != 0 ? 1 : 0;
    task.first_index = first_index;
    timed_ += task.head.timed;
    if (head.first_number == unnumbered) task.head.first_number = take_numbers(head.item_count);
    return task;
  }
  /// The first of so many numbers for items, which no other items get.
  [[nodiscard]] std::uint64_t take_numbers(std::size_t items) noexcept {
    return std::exchange(next_number_, next_number_ + items);
  }
  /// A task that is in no queue any more has come to its end.
  void discard(pool_task& task) noexcept {
    timed_ -= task.head.timed;
    if (const auto block = task.body.block(); !block.empty()) backend->blocks().release(block);
    job_tasks::remove(task);
    job* owner = task.owner.detach();
    if (owner->drop_reference()) dead_.push_back({owner, false});
    store_.give_back(task);
  }
  /// A copy of what the next item of a worker's front task is run with; null: too large to keep, or
  /// there is no memory for it.
  [[nodiscard]] std::shared_ptr<const replayable> copy_for_replay(std::uint32_t worker,
                                                                  const pool_task& task) noexcept {
    const frame_bytes bytes = bytes_of(worker, task);
    if (bytes.body.size() + bytes.callable.size() > lives.replay_bytes()) return nullptr;
    frame_head head = task.head;
    head.attempt = task.attempt;
    try {
      return std::make_shared<replay_record>(head, bytes, task.done, lives.seed());
    } catch (const std::bad_alloc&) {
      return nullptr;
    }
  }
  /// Whether any task has a time limit.
  [[nodiscard]] bool any_timed() const noexcept { return timed_ > 0; }

  /// Jobs that nobody else refers to any more: to be destroyed without the lock, because that runs
  /// destructors of the user's.
  [[nodiscard]] job_list take_dead() noexcept { return std::exchange(dead_, {}); }

  [[nodiscard]] bool any_dead() const noexcept { return !dead_.empty(); }

  std::unique_ptr<worker_backend> backend;
  scheduler schedule;
  recycle_policy lives;
  completion results;
  std::vector<worker_state> workers;
  std::string broken;  ///< why the pool cannot run tasks any more; empty while it can
  prepared_errors prepared;

 private:
  [[nodiscard]] frame_bytes bytes_of(std::uint32_t worker, const pool_task& task) {
    frame_bytes found;
    const std::span<const std::byte> blocks = backend->blocks().memory();
    if (task.head.callable_size != 0) {
      found.callable = blocks.subspan(task.head.callable_at, task.head.callable_size);
    }
    switch (task.body.place) {
      case body_place::in_line:
        found.body = channel(worker).tasks().body(task.head.ordinal);
        break;
      case body_place::arena:
        found.body = blocks.subspan(task.head.body_at, task.head.body_size);
        break;
      case body_place::stream:
        found.body = task.body.bytes;
        break;
    }
    return found;
  }

  task_store store_;
  job_list dead_;
  std::size_t timed_ = 0;
  std::uint32_t size_ = 0;
  std::uint64_t next_number_ = 0;
};

}  // namespace procpool::detail
