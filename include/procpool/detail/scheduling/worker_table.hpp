// SPDX-License-Identifier: MIT
/// @file
/// The pool's state of its workers and their tasks, in the parent's private memory. Shared by the
/// parts of the engine, under the pool's lock.
#pragma once

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
#include <procpool/detail/task/intrusive_ptr.hpp>
#include <procpool/detail/worker/recycle_policy.hpp>
#include <procpool/detail/worker/replay.hpp>

namespace procpool::detail {

/// Why a worker is being killed.
enum class killing : std::uint8_t { no, violation, late, cancelled };

/// The state of a worker besides the scheduler's part.
struct worker_state {
  bool initializing = false;            ///< its initializer has not returned yet
  os::time_point since{};               ///< when it was started, if it has an initializer
  bool retire_due = false;              ///< has to be told to retire, once the ring has room
  bool unresponsive = false;            ///< does not take its tasks; gets none until it responds
  killing kill = killing::no;           ///< if set, its records are not expected any more
  std::uint64_t target = 0;             ///< the item it is killed for, as in `started`
  std::uint64_t finished = 0;           ///< frames
  std::uint64_t finished_measured = 0;  ///< at the last measurement,
  os::time_point measured{};            ///< and its time
  std::uint64_t finished_at_check = 0;  ///< at the last check for stuck workers
  std::uint64_t watched = ~std::uint64_t{0};  ///< the item it was last seen at, as in `started`
  os::time_point watched_since{};
  bool running = false;  ///< it was seen to have begun that item
  std::exception_ptr init_error;
  std::string violation;  ///< how it violated the protocol
};

class worker_table {
 public:
  worker_table(std::unique_ptr<worker_backend> workers_backend, std::size_t slots,
               const scheduling_rules& rules, const recycle_rules& recycle)
      : backend(std::move(workers_backend)),
        schedule(rules),
        recycling(recycle, rules.maxtasksperchild),
        workers(slots) {
    schedule.reserve(static_cast<std::uint32_t>(slots));
  }
  worker_table(const worker_table&) = delete;
  worker_table& operator=(const worker_table&) = delete;

  /// Slots in use are those below this number.
  [[nodiscard]] std::uint32_t size() const noexcept { return size_; }
  /// This slot has a worker, or will have one.
  void use(std::uint32_t worker) noexcept { size_ = std::max(size_, worker + 1); }
  /// Slots from @p wanted on are dropped if they are vacant.
  void shrink(std::uint32_t wanted) noexcept {
    while (size_ > wanted && schedule.vacant(size_ - 1)) --size_;
  }

  /// The task that a worker runs or will begin next; later ones follow by `next`.
  [[nodiscard]] pool_task* first_task(std::uint32_t worker) const {
    return static_cast<pool_task*>(schedule.front(worker));
  }
  [[nodiscard]] static pool_task* next_task(const pool_task& task) {
    return static_cast<pool_task*>(task.next);
  }

  /// Whether records are expected from a worker.
  [[nodiscard]] bool busy(std::uint32_t worker) const {
    const worker_state& state = workers[worker];
    return state.kill == killing::no &&
           (state.initializing ? !schedule.vacant(worker) : schedule.front(worker) != nullptr) &&
           backend->present(worker);
  }

  /// Kills a worker; its death is reported like any other.
  /// @param target the item that it is killed for, as in `started`
  void kill(std::uint32_t worker, killing why, std::uint64_t target = 0) noexcept {
    workers[worker].kill = why;
    workers[worker].target = target;
    schedule.quarantine(worker);  // it might begin with a new task
    backend->kill(worker);
  }
  /// Kills a worker that violated the protocol; none of its records count any more.
  void kill_for_violation(std::uint32_t worker, const char* why) noexcept {
    note_violation(worker, why);
    kill(worker, killing::violation);
  }
  /// The same for a dead worker. Must not fail, or its records would be read.
  void note_violation(std::uint32_t worker, const char* why) noexcept {
    workers[worker].kill = killing::violation;
    try {
      workers[worker].violation = why;
    } catch (const std::bad_alloc&) {
      workers[worker].violation = "no memory";  // short: needs no allocation
    }
  }

  /// A new task; the caller fills in its body.
  [[nodiscard]] pool_task& make_task(intrusive_ptr<job> owner, const frame_head& head,
                                     std::size_t first_index) {
    pool_task& task = store_.take();
    task.owner = std::move(owner);
    job_tasks::add(task);
    copy_head(task.head, head);
    task.head.timed = task.owner->rules().timeout.count() != 0 ? 1 : 0;
    task.first_index = first_index;
    timed_tasks_ += task.head.timed;
    if (head.first_number == unnumbered) task.head.first_number = take_numbers(head.item_count);
    return task;
  }
  /// The first of @p items consecutive numbers that no other items get.
  [[nodiscard]] std::uint64_t take_numbers(std::size_t items) noexcept {
    return std::exchange(next_number_, next_number_ + items);
  }
  /// Ends a task that is in no queue.
  void discard(pool_task& task) noexcept {
    timed_tasks_ -= task.head.timed;
    if (const auto block = task.body.block(); !block.empty()) backend->region().release(block);
    job_tasks::remove(task);
    job* owner = task.owner.detach();
    if (owner->drop_reference()) dead.push_back({owner, false});
    store_.give_back(task);
  }
  /// A copy of the input of the next item of a worker's front task; null if it is too large to
  /// keep, or there is no memory.
  [[nodiscard]] std::shared_ptr<const replayable> copy_for_replay(std::uint32_t worker,
                                                                  const pool_task& task) noexcept {
    const frame_bytes bytes = bytes_of(worker, task);
    if (bytes.body.size() + bytes.callable.size() > recycling.replay_bytes()) return nullptr;
    frame_head head = task.head;
    head.attempt = task.attempt;
    try {
      return std::make_shared<replay_record>(head, bytes, task.done, recycling.seed());
    } catch (const std::bad_alloc&) {
      return nullptr;
    }
  }
  /// Whether any task has a time limit.
  [[nodiscard]] bool any_timed() const noexcept { return timed_tasks_ > 0; }

  std::unique_ptr<worker_backend> backend;
  scheduler schedule;
  recycle_policy recycling;
  completion results;
  std::vector<worker_state> workers;
  std::string broken;  ///< why the pool cannot run tasks any more; empty while it can
  prepared_errors prepared;
  /// Jobs that no other owner refers to. Destroy them without the lock: that runs users'
  /// destructors.
  job_list dead;

 private:
  [[nodiscard]] frame_bytes bytes_of(std::uint32_t worker, const pool_task& task) {
    frame_bytes found;
    if (task.head.callable_size != 0) {
      const std::span<const std::byte> blocks = backend->region().blocks().memory();
      found.callable = blocks.subspan(task.head.callable_at, task.head.callable_size);
    }
    switch (task.body.place) {
      case body_place::in_line:
        found.body = backend->channel(worker).tasks.body(task.head.ordinal);
        break;
      case body_place::arena:
      case body_place::large:
      case body_place::stream:
        found.body = task.body.bytes;
        break;
    }
    return found;
  }

  task_store store_;
  std::size_t timed_tasks_ = 0;
  std::uint32_t size_ = 0;
  std::uint64_t next_number_ = 0;
};

}  // namespace procpool::detail
