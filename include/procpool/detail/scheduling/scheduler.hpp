// SPDX-License-Identifier: MIT
/// @file
/// Decides which worker gets which task, and what happens to tasks whose worker died. A pure state
/// machine in private memory: no system call, no shared memory, no clock, no lock.
///
/// A task is one frame: an apply, or a chunk of a map. Its states:
///
///     pending --next()--> assigned --finished()--> (gone)
///        ^                   |
///        +-- refused() ------+      no room in the ring: stays first in line
///        +-- died() ---------+      worker died before it began the task: first in line again
///        +-- taken_back() ---+      moved to an idle worker
///
/// The states of a worker's slot:
///
///     vacant --add()--> up --next() says so--> retiring --died()--> vacant
///                        +--------------------- died() -----------> vacant
///
/// Workers get tasks as soon as they are added, even before they are up: the frames wait in the
/// ring. Idle workers are served before busy ones, and awake ones first among the idle ones.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

#include <procpool/detail/scheduling/scheduling_rules.hpp>
#include <procpool/detail/scheduling/worker_offers.hpp>

namespace procpool::detail {

/// The scheduler's part of a task, the base of the pool's task. In one queue at a time.
struct scheduled_task {
  scheduled_task* previous = nullptr;
  scheduled_task* next = nullptr;
  std::uint32_t worker = no_worker;  ///< its worker; no_worker while pending
};

/// An intrusive queue of tasks.
class task_queue {
 public:
  [[nodiscard]] bool empty() const noexcept { return first_ == nullptr; }
  [[nodiscard]] std::size_t size() const noexcept { return size_; }
  [[nodiscard]] scheduled_task* front() const noexcept { return first_; }
  [[nodiscard]] scheduled_task* back() const noexcept { return last_; }

  void push_back(scheduled_task& task) noexcept {
    task.previous = last_;
    task.next = nullptr;
    (last_ != nullptr ? last_->next : first_) = &task;
    last_ = &task;
    ++size_;
  }
  void push_front(scheduled_task& task) noexcept {
    task.next = first_;
    task.previous = nullptr;
    (first_ != nullptr ? first_->previous : last_) = &task;
    first_ = &task;
    ++size_;
  }
  void remove(scheduled_task& task) noexcept {
    (task.previous != nullptr ? task.previous->next : first_) = task.next;
    (task.next != nullptr ? task.next->previous : last_) = task.previous;
    task.previous = task.next = nullptr;
    --size_;
  }

 private:
  scheduled_task* first_ = nullptr;
  scheduled_task* last_ = nullptr;
  std::size_t size_ = 0;
};

/// Which worker next() prefers: an awake one even if it has a few tasks, or an idle one even if it
/// has to be woken.
enum class preference { awake, idle };

/// What next() asks the caller to do.
struct assignment {
  std::uint32_t worker;
  scheduled_task* task;  ///< nullptr: tell the worker to retire
};

/// What rebalance() asks the caller to try.
struct relocation {
  std::uint32_t from;     ///< worker with more tasks than it can begin with
  scheduled_task* first;  ///< its first task to take back; later ones follow
};

class scheduler {
 public:
  explicit scheduler(const scheduling_rules& rules) : rules_(rules) {}
  scheduler(const scheduler&) = delete;  // tasks point to each other
  scheduler& operator=(const scheduler&) = delete;

  // ---- workers -------------------------------------------------------------------------------

  /// Reserves slots, so that no later call for their workers allocates.
  void reserve(std::uint32_t slots) {
    workers_.reserve(slots);
    offers_.reserve(slots);
    leaving_.reserve(slots);
  }
  /// A worker has been started in this slot, which is new or vacant.
  /// @param max_tasks frames after which it leaves; 0: never; default: by the rules
  void add(std::uint32_t worker, std::optional<std::uint32_t> max_tasks = std::nullopt) {
    if (worker >= workers_.size()) {
      reserve(worker + 1);
      workers_.resize(worker + 1);
      offers_.grow(worker + 1);
    }
    offers_.remove(worker);
    slot& at = workers_[worker];
    at = slot{};
    at.state = worker_state::up;
    at.depth = rules_.min_depth;
    at.wake_depth = rules_.min_wake_depth;
    at.max_frames = max_tasks.value_or(rules_.maxtasksperchild);
    ++present_;
    offer(worker);
  }

  /// The worker has died or left. Calls @p each(task) for its tasks, oldest first. They are in no
  /// queue then: the caller ends them or calls resubmit(), newest first.
  template <class Each>
  void died(std::uint32_t worker, Each each) noexcept {
    slot& at = workers_[worker];
    at.state = worker_state::vacant;
    --present_;
    offers_.remove(worker);
    while (!at.tasks.empty()) {
      scheduled_task& task = *at.tasks.front();
      unassign(task);
      each(task);
    }
  }

  [[nodiscard]] bool vacant(std::uint32_t worker) const noexcept {
    return worker >= workers_.size() || workers_[worker].state == worker_state::vacant;
  }
  [[nodiscard]] bool retiring(std::uint32_t worker) const noexcept {
    return workers_[worker].state == worker_state::retiring;
  }
  /// Workers that are up or retiring.
  [[nodiscard]] std::size_t present() const noexcept { return present_; }

  // ---- tasks ---------------------------------------------------------------------------------

  void submit(scheduled_task& task) noexcept { pending_.push_back(task); }
  /// Puts a task that was sent before first in line.
  void resubmit(scheduled_task& task) noexcept { pending_.push_front(task); }

  /// The task that this worker runs or will begin next; nullptr if it has none.
  [[nodiscard]] scheduled_task* front(std::uint32_t worker) const noexcept {
    return worker < workers_.size() ? workers_[worker].tasks.front() : nullptr;
  }

  /// The task sent to this worker last; nullptr if it has none.
  [[nodiscard]] scheduled_task* back(std::uint32_t worker) const noexcept {
    return workers_[worker].tasks.back();
  }

  /// The worker's front task has its outcome.
  void finished(std::uint32_t worker) {
    slot& at = workers_[worker];
    unassign(*at.tasks.front());
    at.refused = false;
    offer(worker);
  }

  /// Adapts how many tasks the worker gets at a time, from the time that it takes for one, at most.
  /// It gets more if it ran out of tasks while others were pending, or if its tasks are shorter
  /// than a hand-over; surplus tasks are taken back. A spinning worker gets as many tasks as it can
  /// do in the time that it takes to wake another one.
  void measured(std::uint32_t worker, std::chrono::nanoseconds task, bool ran_dry) noexcept {
    constexpr std::chrono::nanoseconds hand_over{5'000};
    constexpr std::chrono::nanoseconds wake_up{50'000};
    slot& at = workers_[worker];
    if (ran_dry || task < hand_over) at.depth = std::min(at.depth * 2, rules_.max_depth);
    const auto tasks_per_wake_up = wake_up / std::max(task, std::chrono::nanoseconds{1});
    const auto max_frames = std::min<std::int64_t>(tasks_per_wake_up, rules_.max_depth);
    at.wake_depth = std::max(rules_.min_wake_depth, static_cast<std::uint32_t>(max_frames));
    offer(worker);
  }

  /// Removes a pending task, for example when it is cancelled. Precondition: task.worker ==
  /// no_worker.
  void withdraw(scheduled_task& task) noexcept { pending_.remove(task); }

  /// Removes all pending tasks, oldest first.
  template <class Each>
  void drop_pending(Each each) {
    while (!pending_.empty()) {
      scheduled_task& task = *pending_.front();
      pending_.remove(task);
      each(task);
    }
  }

  /// The pending task that is first in line; the others follow by `next`.
  [[nodiscard]] scheduled_task* first_pending() const noexcept { return pending_.front(); }
  [[nodiscard]] std::size_t pending() const noexcept { return pending_.size(); }
  [[nodiscard]] std::size_t assigned() const noexcept { return assigned_; }
  /// Tasks without an outcome.
  [[nodiscard]] std::size_t outstanding() const noexcept { return pending_.size() + assigned_; }
  /// Workers that have a task.
  [[nodiscard]] std::uint32_t working() const noexcept { return working_; }

  // ---- decisions -----------------------------------------------------------------------------

  /// The next thing to do, if any; call until there is none.
  [[nodiscard]] std::optional<assignment> next(preference preferred = preference::awake) {
    if (!leaving_.empty()) return retire_next();
    if (pending_.empty()) return std::nullopt;
    const std::uint32_t worker = best_offer(preferred);
    if (worker == no_worker) return std::nullopt;
    scheduled_task& task = *pending_.front();
    pending_.remove(task);
    assign(worker, task);
    return assignment{worker, &task};
  }

  /// There was no room for the last assignment: the task is first in line again, and the worker
  /// gets nothing more until it has finished a task.
  void refused(const assignment& assigned) {
    slot& at = workers_[assigned.worker];
    unassign(*assigned.task);
    --at.received;
    at.refused = true;
    if (at.state == worker_state::retiring) undo_retirement(assigned.worker);
    offers_.remove(assigned.worker);
    pending_.push_front(*assigned.task);
  }

  /// The worker may have room again although it has finished nothing.
  void resume(std::uint32_t worker) {
    if (vacant(worker)) return;
    workers_[worker].refused = false;
    offer(worker);
  }

  /// Whether a task would go to a worker that may have to be woken, because the spinning workers
  /// have enough tasks.
  [[nodiscard]] bool spinners_busy() const noexcept {
    return working_ > 0 && offers_.lightly_loaded.first == no_worker && !spins(offers_.idle.last);
  }
  /// Whether any worker is idle.
  [[nodiscard]] bool any_idle() const noexcept { return offers_.idle.last != no_worker; }

  /// Whether there are tasks that further workers could begin with at once.
  [[nodiscard]] bool work_for_more() const noexcept {
    return !pending_.empty() || (multiply_loaded_ > 0 && !any_idle());
  }

  /// The worker is unresponsive or being killed: it gets nothing before resume().
  void quarantine(std::uint32_t worker) noexcept {
    workers_[worker].refused = true;
    offers_.remove(worker);
  }

  /// From which worker to take tasks, when none is pending and a worker is idle.
  [[nodiscard]] std::optional<relocation> rebalance() const {
    if (!pending_.empty() || !any_idle() || multiply_loaded_ == 0) return std::nullopt;
    const slot* fullest = nullptr;
    for (const slot& at : workers_) {
      if (at.tasks.size() < 2) continue;  // retiring workers give, too
      if (fullest == nullptr || at.tasks.size() > fullest->tasks.size()) fullest = &at;
    }
    if (fullest == nullptr) return std::nullopt;
    scheduled_task* from = fullest->tasks.front();
    for (std::size_t keep = (fullest->tasks.size() + 1) / 2; keep > 0; --keep) from = from->next;
    return relocation{static_cast<std::uint32_t>(fullest - workers_.data()), from};
  }

  /// A worker gave back this task, its newest: it is first in line again.
  void taken_back(scheduled_task& task) {
    slot& at = workers_[task.worker];
    at.depth = std::max(at.depth / 2, rules_.min_depth);  // it had more than it could begin with
    --at.received;
    at.refused = false;  // it may have nothing left to finish; the next attempt decides
    const std::uint32_t worker = task.worker;
    unassign(task);
    offer(worker);
    pending_.push_front(task);
  }

  /// The same for any task of a worker; the task is in no queue then.
  void taken_away(scheduled_task& task) noexcept {
    const std::uint32_t worker = task.worker;
    --workers_[worker].received;
    workers_[worker].refused = false;  // as above
    unassign(task);
    offer(worker);
  }

  /// Tells a worker to leave after its tasks.
  void retire(std::uint32_t worker) {
    if (!vacant(worker) && workers_[worker].state == worker_state::up) begin_retirement(worker);
  }
  /// The same for all workers.
  void retire_all() {
    for (std::uint32_t worker = 0; worker < workers_.size(); ++worker) retire(worker);
  }

 private:
  enum class worker_state : std::uint8_t { vacant, up, retiring };

  struct slot {
    worker_state state = worker_state::vacant;
    bool refused = false;          ///< its ring is full
    std::uint32_t depth = 0;       ///< frames it may have in flight
    std::uint32_t wake_depth = 0;  ///< frames it gets before another worker is woken
    std::uint32_t received = 0;    ///< frames sent to it in its life
    std::uint32_t max_frames = 0;  ///< frames after which it leaves; 0: never
    task_queue tasks;
  };

  [[nodiscard]] bool wants_more(const slot& at) const noexcept {
    return at.state == worker_state::up && !at.refused && at.tasks.size() < at.depth;
  }

  // First awake and idle workers; then lightly loaded or sleeping ones; then busy ones.
  [[nodiscard]] std::uint32_t best_offer(preference preferred) const noexcept {
    const bool light = offers_.lightly_loaded.first != no_worker;
    const bool awake = preferred == preference::awake && (light || working_ >= rules_.parallel);
    if (any_idle() && (spins(offers_.idle.last) || !awake)) return offers_.idle.last;
    return light ? offers_.lightly_loaded.first : offers_.busy.first;
  }

  // Offers the worker again after a change of its tasks or its room.
  void offer(std::uint32_t worker) noexcept {
    const slot& at = workers_[worker];
    if (!wants_more(at)) return offers_.remove(worker);
    if (at.tasks.empty()) return offers_.put(worker, offers_.idle, !spins(worker));
    const bool light = spins(worker) && at.tasks.size() < at.wake_depth;
    offers_.put(worker, light ? offers_.lightly_loaded : offers_.busy, false);
  }

  // Whether the worker needs no wake-up; false for no_worker.
  [[nodiscard]] bool spins(std::uint32_t worker) const noexcept {
    return worker < rules_.spinning_workers;
  }

  void assign(std::uint32_t worker, scheduled_task& task) {
    slot& at = workers_[worker];
    task.worker = worker;
    at.tasks.push_back(task);
    ++at.received;
    ++assigned_;
    if (at.tasks.size() == 1) ++working_;
    if (at.tasks.size() == 2) ++multiply_loaded_;
    if (at.received == at.max_frames) begin_retirement(worker);
    offer(worker);
  }

  void begin_retirement(std::uint32_t worker) {
    workers_[worker].state = worker_state::retiring;
    offers_.remove(worker);
    leaving_.push_back(worker);
  }

  void undo_retirement(std::uint32_t worker) {
    workers_[worker].state = worker_state::up;
    std::erase(leaving_, worker);
  }

  assignment retire_next() {
    const std::uint32_t worker = leaving_.front();
    leaving_.erase(leaving_.begin());
    return {worker, nullptr};
  }

  void unassign(scheduled_task& task) noexcept {
    slot& at = workers_[task.worker];
    if (at.tasks.size() == 1) --working_;
    if (at.tasks.size() == 2) --multiply_loaded_;
    at.tasks.remove(task);
    --assigned_;
    task.worker = no_worker;
  }

  scheduling_rules rules_;
  std::vector<slot> workers_;
  worker_offers offers_;
  std::vector<std::uint32_t> leaving_;  ///< to be told to retire; reserved for all
  task_queue pending_;
  std::size_t assigned_ = 0;
  std::size_t present_ = 0;
  std::uint32_t working_ = 0;        ///< workers with a task
  std::size_t multiply_loaded_ = 0;  ///< workers with more than one task
};

}  // namespace procpool::detail
