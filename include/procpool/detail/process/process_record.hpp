// SPDX-License-Identifier: MIT
/// @file
/// The state behind a Process, shared by its handles, and the table of this process's children.
///
/// One mutex, the table's, guards every record. It is held briefly, never during a wait or while
/// code of the user runs. It is also held across every fork, so that a child finds all records
/// consistent and can close their descriptors, which are the parent's.
#pragma once

#include <poll.h>
#include <sys/types.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>
#include <list>
#include <memory>
#include <mutex>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include <procpool/config.hpp>
#include <procpool/detail/base/stop_token.hpp>
#include <procpool/detail/child/child.hpp>
#include <procpool/detail/child/pidfd.hpp>
#include <procpool/detail/child/stoppable_wait.hpp>
#include <procpool/detail/fork/fork_registry.hpp>
#include <procpool/detail/heap/heap.hpp>
#include <procpool/detail/os/fd.hpp>
#include <procpool/detail/os/one_per_process.hpp>
#include <procpool/detail/process/process_context.hpp>
#include <procpool/detail/process/process_handle.hpp>
#include <procpool/detail/process/process_target.hpp>

namespace procpool::detail {

class process_record;

/// The children of this process that have not been collected, in the order of their start.
class process_table final : public fork_handler {
 public:
  using list = std::list<std::shared_ptr<process_record>>;

  static process_table& instance() {
    static auto& table = os::one_per_process<process_table>(
        "process table", []() -> void* { return new process_table; });
    return table;
  }

  /// Reaps the children that have ended. @returns the running children
  std::vector<std::shared_ptr<process_record>> running();

  void lock_for_fork() override { mutex.lock(); }
  void release_locks() noexcept override { mutex.unlock(); }
  void abandon() noexcept override;

  std::mutex mutex;
  // Guarded by the mutex:
  list children;
  std::list<process_record*> holders;  // records with open descriptors, collected or not

 private:
  process_table() = default;
  void split(std::vector<std::shared_ptr<process_record>>& found, list& ended);

  fork_registration registration_{*this, fork_registration::scope::every_process};
};

/// Made before main. If another thread made it during a fork, the child would wait for that thread
/// without end.
inline const process_table& process_table_made_early = process_table::instance();

/// The record of the child that this thread is forking. In the child all descriptors of records are
/// the parent's and are closed, except those that this record needs to start.
inline constinit os::per_thread_pointer<const process_record> process_being_started{
    "process being started"};
inline const bool process_being_started_prepared = process_being_started.prepare();

/// One process: made here, perhaps started, perhaps ended. Any thread may call any member.
class process_record final : public child_process,
                             public std::enable_shared_from_this<process_record> {
 public:
  process_record(std::string name, std::optional<bool> daemon, std::optional<start_method> method,
                 std::unique_ptr<process_target> target)
      : generation_(process_generation()),
        position_(process_context::instance().next_position()),
        name_(name.empty() ? default_process_name(position_) : std::move(name)),
        daemon_(daemon.value_or(process_context::instance().identity().daemon)),
        method_(method),
        target_(std::move(target)) {}
  // Inline already here: a member declared without it would be the key function, and every program
  // would emit the whole class.
  inline ~process_record() override;

  [[nodiscard]] inline std::string name() const override;
  inline void set_name(std::string name) override;
  [[nodiscard]] inline bool daemon() const override;
  inline void set_daemon(bool daemon) override;
  [[nodiscard]] inline std::optional<pid_t> pid() const override;

  void start() override { run(); }
  [[nodiscard]] inline bool join(const os::deadline& until) override;
  [[nodiscard]] inline bool join(const stop_token& stop) override;
  [[nodiscard]] inline bool is_alive() override;
  [[nodiscard]] inline std::optional<int> exitcode() override;
  inline void send_signal(int number, const char* call) override;
  inline void close() override;
  [[nodiscard]] inline int sentinel() const override;

 private:
  friend class process_table;
  enum class stage { made, starting, started, closed };
  using lock = std::unique_lock<std::mutex>;

  static lock acquire() { return lock(process_table::instance().mutex); }

  // All below require the lock, except those of start().
  void require_own() const;
  void require_open() const;
  void require_started(const char* call) const;
  [[noreturn]] void throw_misuse(const char* sentence) const;
  bool has_ended();
  bool collect();
  void tell_heap() noexcept;  // without the lock
  void close_descriptors() noexcept;
  void abandon(bool is_this_process) noexcept;

  template <class Wait>
  bool join_while(Wait wait);

  void run();  // start(): process_start.hpp
  void prepare();
  void undo_prepare() noexcept;
  pid_t fork_child();
  pid_t spawn_child();
  void adopt(pid_t pid);
  [[noreturn]] void run_in_child(bool library_thread) noexcept;

  const std::uint32_t generation_;
  const std::vector<int> position_;

  std::string name_;
  bool daemon_;
  const std::optional<start_method> method_;
  stage stage_ = stage::made;
  pid_t pid_ = 0;
  std::optional<int> exitcode_;
  // Readable when the process has ended. Shared with the threads that wait for it, so that close()
  // in another thread neither closes the descriptor nor frees its number during the wait.
  std::shared_ptr<os::fd> sentinel_;
  std::unique_ptr<process_target> target_;
  // While it is being started:
  os::start_gate gate_;
  parent_link parent_;
  // Before the child: it has the heap, and the shared objects among its arguments.
  std::shared_ptr<shared_heap> heap_;
  std::shared_ptr<void> handles_;
  std::atomic<bool> heap_knows_{false};  ///< that the process has ended
  std::list<process_record*> own_node_;  // holds self_ while self_ is not among the holders
  std::list<process_record*>::iterator self_ = own_node_.insert(own_node_.end(), this);
};

inline process_record::~process_record() {
  if (generation_ != process_generation()) return;  // abandoned: the lists are the parent's
  const auto held = acquire();
  close_descriptors();
}

/// Closes all descriptors and leaves the holders.
inline void process_record::close_descriptors() noexcept {
  sentinel_.reset();
  gate_.close();
  parent_.process.reset();
  if (own_node_.empty()) {
    own_node_.splice(own_node_.end(), process_table::instance().holders, self_);
  }
}

[[noreturn]] inline void process_record::throw_misuse(const char* sentence) const {
  throw std::logic_error("procpool::Process '" + name_ + "': " + sentence);
}

inline void process_record::require_own() const {
  if (generation_ != process_generation()) {
    throw_misuse(
        "it belongs to the process that made it, and this is another one (forked from that)");
  }
}

inline void process_record::require_open() const {
  require_own();
  if (stage_ == stage::closed) throw_misuse("it is closed");
}

inline void process_record::require_started(const char* call) const {
  require_open();
  if (stage_ != stage::started) throw_misuse((std::string(call) + " needs start() first").c_str());
}

inline std::string process_record::name() const {
  const auto held = acquire();
  return name_;
}

inline void process_record::set_name(std::string name) {
  const auto held = acquire();
  name_.swap(name);
}

inline bool process_record::daemon() const {
  const auto held = acquire();
  return daemon_;
}

inline void process_record::set_daemon(bool daemon) {
  const auto held = acquire();
  require_open();
  if (stage_ != stage::made) throw_misuse("set_daemon() must come before start()");
  daemon_ = daemon;
}

inline std::optional<pid_t> process_record::pid() const {
  const auto held = acquire();
  if (stage_ == stage::closed) throw_misuse("it is closed");
  return stage_ == stage::started ? std::optional(pid_) : std::nullopt;
}

/// Reaps the process if it has ended. @returns whether it has
inline bool process_record::has_ended() {
  if (stage_ == stage::started && !exitcode_) exitcode_ = os::reap(sentinel_->get(), pid_);
  return exitcode_.has_value();
}

/// has_ended(), and takes an ended process out of the table. Only for callers that hold a handle:
/// otherwise the record could be destroyed here, under the lock that its destructor takes.
inline bool process_record::collect() {
  const bool known = exitcode_.has_value();
  if (!known && has_ended()) {
    std::erase_if(process_table::instance().children,
                  [this](const auto& child) { return child.get() == this; });
  }
  return exitcode_.has_value();
}

/// After the end: whoever waits for a lock of the process looks at once, and shared objects that
/// nobody else holds are freed. The heap has a lock of its own, which is not taken under this one.
inline void process_record::tell_heap() noexcept {
  if (heap_knows_.exchange(true, std::memory_order_relaxed)) return;  // once is enough
  process_was_reaped(pid_);
  collect_dead_processes(false);
}

inline bool process_record::is_alive() {
  {
    const auto held = acquire();
    require_open();
    if (stage_ != stage::started) return false;
    if (!collect()) return true;
  }
  tell_heap();
  return false;
}

inline std::optional<int> process_record::exitcode() {
  {
    const auto held = acquire();
    require_open();
    if (!collect()) return std::nullopt;
  }
  tell_heap();
  return exitcode_;  // does not change any more
}

inline bool process_record::join(const os::deadline& until) {
  return join_while([&](int sentinel) { return os::wait_readable(sentinel, until); });
}

inline bool process_record::join(const stop_token& stop) {
  return join_while([&](int sentinel) { return os::wait_readable(sentinel, stop); });
}

/// @param wait waits until the descriptor is readable; returns false to give up
template <class Wait>
bool process_record::join_while(Wait wait) {
  for (;;) {
    std::shared_ptr<os::fd> sentinel;
    {
      const auto held = acquire();
      require_started("join()");
      if (!collect()) sentinel = sentinel_;
    }
    if (sentinel == nullptr) {
      tell_heap();
      return true;
    }
    if (!wait(sentinel->get())) return false;
    {
      const auto held = acquire();
      if (collect()) sentinel.reset();
    }
    if (sentinel == nullptr) continue;
    PROCPOOL_SYSTEM(poll(nullptr, 0, 1));  // a debugger that traces it is told first: try again
  }
}

inline void process_record::send_signal(int number, const char* call) {
  const auto held = acquire();
  require_started(call);
  if (!collect()) os::send_signal(sentinel_->get(), pid_, number);
}

inline void process_record::close() {
  std::shared_ptr<shared_heap> heap;  // these have locks of their own: destroyed without ours
  std::shared_ptr<void> handles;
  bool ended = false;
  {
    const auto held = acquire();
    if (stage_ == stage::closed) return;
    require_own();
    if (stage_ == stage::starting || (stage_ == stage::started && !collect())) {
      throw_misuse("close() while it is running; join() or kill() it first");
    }
    ended = stage_ == stage::started;
    stage_ = stage::closed;
    heap.swap(heap_);
    handles.swap(handles_);
    close_descriptors();
  }
  if (ended) tell_heap();
}

inline int process_record::sentinel() const {
  const auto held = acquire();
  require_started("sentinel()");
  return sentinel_->get();
}

inline void process_record::abandon(bool is_this_process) noexcept {
  // Closes the descriptor, not only this reference: threads that waited in join() hold others, and
  // they do not exist in this process.
  if (sentinel_) sentinel_->reset();
  if (is_this_process) return;  // it needs the rest to start
  gate_.close();
  parent_.process.reset();
}

inline void process_table::abandon() noexcept {
  for (auto* holder : holders) holder->abandon(holder == process_being_started.get());
  holders.clear();
  children.clear();
}

inline std::vector<std::shared_ptr<process_record>> process_table::running() {
  std::vector<std::shared_ptr<process_record>> found;
  list ended;  // destroyed after the lock is released
  split(found, ended);
  for (const auto& each : ended) each->tell_heap();
  return found;
}

/// Takes the children that have ended out of the table.
inline void process_table::split(std::vector<std::shared_ptr<process_record>>& found, list& ended) {
  const std::lock_guard held(mutex);
  for (auto child = children.begin(); child != children.end();) {
    const auto here = child++;
    if ((*here)->stage_ != process_record::stage::started) continue;
    if ((*here)->has_ended()) {
      ended.splice(ended.end(), children, here);
    } else {
      found.push_back(*here);
    }
  }
}

}  // namespace procpool::detail
