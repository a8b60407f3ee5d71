// SPDX-License-Identifier: MIT
/// @file
/// Decides which worker gets which task, and what becomes of tasks whose worker died. A pure state
/// machine over private memory: no system call, no shared memory, no clock, no lock.
///
/// A task is one frame: an apply, or a chunk of a map. Its life:
///
///     pending --next()--> assigned --finished()--> (gone)
///        ^                   |
///        +-- refused() ------+      no room in the ring: stays first in line
///        +-- died() ---------+      its worker died before it began with it: first in line again
///        +-- taken_back() ---+      moved to an idle worker
///
/// and that of a worker's place:
///
///     vacant --add()--> up --next() says so--> retiring --died()--> vacant
///                        +--------------------- died() -----------> vacant
///
/// Workers get tasks from the moment they are added, even before they are up: the frames wait in
/// the ring. Idle workers are served before busy ones, and among them those that are awake.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

#include <procpool/detail/scheduling/scheduling_rules.hpp>
#include <procpool/detail/scheduling/task_queue.hpp>

namespace procpool::detail {

/// Whom next() chooses: a worker that is awake even if it has a little to do, or an idle one even
/// if it has to be woken.
enum class preference { awake, idle };

/// What next() wants done.
struct assignment {
  std::uint32_t worker;
  scheduled_task* task;  ///< nullptr: tell the worker to retire
};

/// What rebalance() wants tried.
struct relocation {
  std::uint32_t from;     ///< worker that has more than it can begin with
  scheduled_task* first;  ///< its task from which on they are to be taken back
};

class scheduler {
 public:
  explicit scheduler(const scheduling_rules& rules) : rules_(rules) {}
  scheduler(const scheduler&) = delete;  // its places know where the lists are
  scheduler& operator=(const scheduler&) = delete;

  // ---- workers -------------------------------------------------------------------------------

  /// Makes room for so many places, so that what concerns their workers cannot fail.
  void reserve(std::uint32_t places) {
    workers_.reserve(places);
    leaving_.reserve(places);
  }
  /// A worker has been started in this place, which is new or vacant.
  /// @param most_tasks after which it is to leave; by the rules if not given, 0: never
  void add(std::uint32_t worker, std::optional<std::uint32_t> most_tasks = std::nullopt) {
    if (worker >= workers_.size()) {
      reserve(worker + 1);
      workers_.resize(worker + 1);
    }
    place& at = workers_[worker];
    at = place{};
    at.state = worker_state::up;
    at.depth = rules_.least_depth;
    at.wake_depth = rules_.least_wake_depth;
    at.most = most_tasks.value_or(rules_.maxtasksperchild);
    ++present_;
    offer(worker);
  }

  /// The worker has died or left. Its tasks are handed to @p each(task), oldest first, and are
  /// in no queue then: the pool ends them or gives them back by resubmit(), youngest first.
  template <class Each>
  void died(std::uint32_t worker, Each each) noexcept {
    place& at = workers_[worker];
    at.state = worker_state::vacant;
    --present_;
    withdraw_offer(worker);
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
  /// Puts a task back that was sent before: it is first in line.
  void resubmit(scheduled_task& task) noexcept { pending_.push_front(task); }

  /// The task that this worker works on, or will begin with; nullptr if it has none.
  [[nodiscard]] scheduled_task* front(std::uint32_t worker) const noexcept {
    return workers_[worker].tasks.front();
  }

  /// The task that this worker was sent last; nullptr if it has none.
  [[nodiscard]] scheduled_task* back(std::uint32_t worker) const noexcept {
    return workers_[worker].tasks.back();
  }

  /// The worker's front task has its outcome.
  void finished(std::uint32_t worker) {
    place& at = workers_[worker];
    unassign(*at.tasks.front());
    at.refused = false;
    offer(worker);
  }

  /// The worker takes about so long for a task, at most. One that has run out of tasks while more
  /// were waiting, or whose tasks are shorter than a hand-over, gets more of them at a time; what
  /// turns out too much is taken back. A favourite gets as many before others are woken as it has
  /// done by the time they would be awake.
  void measured(std::uint32_t worker, std::chrono::nanoseconds task, bool ran_dry) noexcept {
    constexpr std::chrono::nanoseconds hand_over{5'000};
    constexpr std::chrono::nanoseconds wake_up{50'000};
    place& at = workers_[worker];
    if (ran_dry || task < hand_over) at.depth = std::min(at.depth * 2, rules_.most_depth);
    const auto meanwhile = wake_up / std::max(task, std::chrono::nanoseconds{1});
    const auto most = std::min<std::int64_t>(meanwhile, rules_.most_depth);
    at.wake_depth = std::max(rules_.least_wake_depth, static_cast<std::uint32_t>(most));
    offer(worker);
  }

  /// Takes a pending task out, as when it is cancelled. Precondition: task.worker == no_worker.
  void withdraw(scheduled_task& task) noexcept { pending_.remove(task); }

  /// All pending tasks, oldest first, out of the queue.
  template <class Each>
  void drop_pending(Each each) {
    while (!pending_.empty()) {
      scheduled_task& task = *pending_.front();
      pending_.remove(task);
      each(task);
    }
  }

  /// The pending task that is first in line; its successors follow by `next`.
  [[nodiscard]] scheduled_task* first_pending() const noexcept { return pending_.front(); }
  [[nodiscard]] std::size_t pending() const noexcept { return pending_.size(); }
  [[nodiscard]] std::size_t assigned() const noexcept { return assigned_; }
  /// Workers that have a task.
  [[nodiscard]] std::uint32_t working() const noexcept { return working_; }

  // ---- decisions -----------------------------------------------------------------------------

  /// The next thing to do, if any; call until there is none.
  [[nodiscard]] std::optional<assignment> next(preference who = preference::awake) {
    if (!leaving_.empty()) return retire_next();
    if (pending_.empty()) return std::nullopt;
    const std::uint32_t worker = best_offer(who);
    if (worker == no_worker) return std::nullopt;
    scheduled_task& task = *pending_.front();
    pending_.remove(task);
    assign(worker, task);
    return assignment{worker, &task};
  }

  /// The last assignment could not be carried out for want of room: the task is first in line
  /// again, and the worker gets nothing more before it has finished something.
  void refused(const assignment& what) {
    place& at = workers_[what.worker];
    unassign(*what.task);
    --at.received;
    at.refused = true;
    if (at.state == worker_state::retiring) undo_retirement(what.worker);
    withdraw_offer(what.worker);
    pending_.push_front(*what.task);
  }

  /// The worker may have room again though it has finished nothing.
  void resume(std::uint32_t worker) {
    if (vacant(worker)) return;
    workers_[worker].refused = false;
    offer(worker);
  }

  /// Whether a task would go to a worker that may have to be woken, because the spinning_workers
  /// have enough to do.
  [[nodiscard]] bool spinners_busy() const noexcept {
    return working_ > 0 && lightly_loaded_.empty() &&
           (idle_.last == no_worker || idle_.last >= rules_.spinning_workers);
  }
  /// Whether a task would find a worker that has nothing to do.
  [[nodiscard]] bool anybody_idle() const noexcept { return !idle_.empty(); }

  /// Whether there are tasks that more workers could begin with at once.
  [[nodiscard]] bool work_for_more() const noexcept {
    return !pending_.empty() || (laden_ > 0 && idle_.empty());
  }

  /// The worker shows no sign of life: it gets nothing before resume().
  void quarantine(std::uint32_t worker) noexcept {
    workers_[worker].refused = true;
    withdraw_offer(worker);
  }

  /// When nothing is pending and a worker has nothing to do: whom to take tasks from.
  [[nodiscard]] std::optional<relocation> rebalance() const {
    if (!pending_.empty() || idle_.empty() || laden_ == 0) return std::nullopt;
    const place* fullest = nullptr;
    for (const place& at : workers_) {
      if (at.tasks.size() < 2) continue;  // those that retire have to give, too
      if (fullest == nullptr || at.tasks.size() > fullest->tasks.size()) fullest = &at;
    }
    if (fullest == nullptr) return std::nullopt;
    scheduled_task* from = fullest->tasks.front();
    for (std::size_t keep = (fullest->tasks.size() + 1) / 2; keep > 0; --keep) from = from->next;
    return relocation{static_cast<std::uint32_t>(fullest - workers_.data()), from};
  }

  /// The worker gave this task back, its youngest: it is first in line again.
  void taken_back(scheduled_task& task) {
    place& at = workers_[task.worker];
    at.depth = std::max(at.depth / 2, rules_.least_depth);  // it had more than it could begin with
    --at.received;
    at.refused = false;  // it need not finish anything any more; the next attempt will tell
    const std::uint32_t worker = task.worker;
    unassign(task);
    offer(worker);
    pending_.push_front(task);
  }

  /// The same for any task, which is in no queue any more.
  void taken_away(scheduled_task& task) noexcept {
    const std::uint32_t worker = task.worker;
    --workers_[worker].received;
    workers_[worker].refused = false;  // as above
    unassign(task);
    offer(worker);
  }

  /// Orders a worker to leave after what it has.
  void retire(std::uint32_t worker) {
    if (!vacant(worker) && workers_[worker].state == worker_state::up) begin_retirement(worker);
  }
  /// The same for all.
  void retire_all() {
    for (std::uint32_t worker = 0; worker < workers_.size(); ++worker) retire(worker);
  }

 private:
  enum class worker_state : std::uint8_t { vacant, up, retiring };

  struct worker_list;

  struct place {
    worker_state state = worker_state::vacant;
    bool refused = false;               ///< its ring is full
    std::uint32_t depth = 0;            ///< frames it may have in flight
    std::uint32_t wake_depth = 0;       ///< frames it gets before another one is woken
    std::uint32_t received = 0;         ///< frames it was sent in its life
    std::uint32_t most = 0;             ///< after which it leaves; 0: never
    worker_list* offered_in = nullptr;  ///< idle_, lightly_loaded_ or busy_; null: gets nothing now
    std::uint32_t previous = no_worker;  ///< neighbours there
    std::uint32_t next = no_worker;
    task_queue tasks;
  };

  // A list of workers, linked through their places.
  struct worker_list {
    std::uint32_t first = no_worker;
    std::uint32_t last = no_worker;

    [[nodiscard]] bool empty() const noexcept { return first == no_worker; }
    void push_back(std::vector<place>& places, std::uint32_t worker) noexcept {
      places[worker].previous = last;
      places[worker].next = no_worker;
      (last != no_worker ? places[last].next : first) = worker;
      last = worker;
    }
    void push_front(std::vector<place>& places, std::uint32_t worker) noexcept {
      places[worker].next = first;
      places[worker].previous = no_worker;
      (first != no_worker ? places[first].previous : last) = worker;
      first = worker;
    }
    void remove(std::vector<place>& places, std::uint32_t worker) noexcept {
      const place& at = places[worker];
      (at.previous != no_worker ? places[at.previous].next : first) = at.next;
      (at.next != no_worker ? places[at.next].previous : last) = at.previous;
    }
  };

  [[nodiscard]] bool wants_more(const place& at) const noexcept {
    return at.state == worker_state::up && !at.refused && at.tasks.size() < at.depth;
  }

  // Awake and idle; then awake and not too busy, or asleep; then busy.
  [[nodiscard]] std::uint32_t best_offer(preference who) const noexcept {
    const bool idle_favourite = idle_.last != no_worker && idle_.last < rules_.spinning_workers;
    const bool awake =
        who == preference::awake && (!lightly_loaded_.empty() || working_ >= rules_.parallel);
    if (!idle_.empty() && (idle_favourite || !awake)) return idle_.last;
    return lightly_loaded_.empty() ? busy_.first : lightly_loaded_.first;
  }

  // A worker that may get a task is in one of three lists.
  void offer(std::uint32_t worker) noexcept {
    place& at = workers_[worker];
    const bool favourite = worker < rules_.spinning_workers;
    worker_list* list = list_for(at, favourite);
    if (list == at.offered_in && (list == nullptr || list->last == worker)) return;  // as it was
    withdraw_offer(worker);
    at.offered_in = list;
    if (list == nullptr) return;
    if (at.offered_in == &idle_ && !favourite) {
      idle_.push_front(workers_, worker);
    } else {
      at.offered_in->push_back(workers_, worker);
    }
  }

  [[nodiscard]] worker_list* list_for(const place& at, bool favourite) noexcept {
    if (!wants_more(at)) return nullptr;
    if (at.tasks.empty()) return &idle_;
    return favourite && at.tasks.size() < at.wake_depth ? &lightly_loaded_ : &busy_;
  }

  void withdraw_offer(std::uint32_t worker) noexcept {
    place& at = workers_[worker];
    if (at.offered_in != nullptr) std::exchange(at.offered_in, nullptr)->remove(workers_, worker);
  }

  void assign(std::uint32_t worker, scheduled_task& task) {
    place& at = workers_[worker];
    task.worker = worker;
    at.tasks.push_back(task);
    ++at.received;
    ++assigned_;
    if (at.tasks.size() == 1) ++working_;
    if (at.tasks.size() == 2) ++laden_;
    if (at.received == at.most) begin_retirement(worker);
    offer(worker);
  }

  void begin_retirement(std::uint32_t worker) {
    workers_[worker].state = worker_state::retiring;
    withdraw_offer(worker);
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
    place& at = workers_[task.worker];
    if (at.tasks.size() == 1) --working_;
    if (at.tasks.size() == 2) --laden_;
    at.tasks.remove(task);
    --assigned_;
    task.worker = no_worker;
  }

  scheduling_rules rules_;
  std::vector<place> workers_;
  worker_list idle_;                    ///< have nothing to do; served first, from the back
  worker_list lightly_loaded_;          ///< spinning_workers with little to do; served in turn
  worker_list busy_;                    ///< have room for more; served in turn
  std::vector<std::uint32_t> leaving_;  ///< who is to be told to retire; has room for all
  task_queue pending_;
  std::size_t assigned_ = 0;
  std::size_t present_ = 0;
  std::uint32_t working_ = 0;  ///< workers with a task
  std::size_t laden_ = 0;      ///< workers with more than one
};

}  // namespace procpool::detail
