// SPDX-License-Identifier: MIT
/// @file
/// The state that the parts of a pool share: the lock, the engine that it guards, whether the pool
/// is open, and which threads wait for a change. The parts are leader, service_thread,
/// pending_limit and pool_shutdown; worker_pool.hpp puts them together.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>

#include <procpool/detail/fork/process_generation.hpp>
#include <procpool/detail/os/event.hpp>
#include <procpool/detail/pool/core_settings.hpp>
#include <procpool/detail/scheduling/engine.hpp>
#include <procpool/error.hpp>

namespace procpool::detail {

/// The state of the service thread that the other parts need, to wake it or to do its work. Guarded
/// by the pool's lock.
struct service_signal {
  std::condition_variable wakes;    ///< wakes the service thread: it has something to do
  bool asleep = false;              ///< it sleeps without a time limit: nothing is outstanding
  bool backs_off = false;           ///< it waits longer than a tick, while another thread leads
  bool failed = false;              ///< the thread could not be started, or not again after a fork
  std::thread::id callback_thread;  ///< the thread that runs callbacks; none: default id
};

/// @c mutex guards all members except the constants. These functions need no lock: workers(),
/// ours(), check_process(), check_usable(), and those of the backend and its region that say so.
/// While the leader polls or sleeps without the lock, it reads the channels that it has collected
/// (leader.hpp); other threads may use the engine under the lock meanwhile, but start no workers
/// and handle no events.
struct guarded_engine {
  enum class phase { open, closed, terminated };

  guarded_engine(const core_settings& settings, backend_maker make)
      : generation(process_generation()),
        max_pending(settings.max_pending),
        engine(make(settings), settings.sizes.workers, settings.workers, settings.rules,
               settings.recycling, settings.initializer),
        schedule(engine.table.schedule),
        results(engine.table.results),
        backend(*engine.table.backend),
        broken(engine.table.broken),
        dead(engine.table.dead),
        workers_(settings.workers) {}

  const std::uint32_t generation;  ///< of the process that made the pool
  const std::size_t max_pending;   ///< upper bound on unfinished tasks
  std::mutex mutex;
  std::condition_variable changed;  ///< followers: something is ready, or there is no leader
  class engine engine;
  // Parts of the engine, for questions that need no step of it.
  const scheduler& schedule;
  completion& results;
  worker_backend& backend;
  const std::string& broken;  ///< why the pool cannot run tasks any more; empty while it can
  job_list& dead;             ///< see worker_table; users' destructors run without the lock
  phase state = phase::open;
  int room_waiters = 0;  ///< threads that wait for room to submit
  /// Counts waits, and drains by submissions. While it changes, the service thread does not lead.
  std::uint64_t activity = 0;
  bool wake_requested = false;  ///< wake_waiters() was called by user code that runs under the lock
  os::event ready_event;        ///< for event loops; empty until the first fileno()
  service_signal service;

  /// The number of workers that the pool keeps. Any thread.
  [[nodiscard]] std::uint32_t workers() const noexcept {
    return workers_.load(std::memory_order_relaxed);  // one number
  }
  void set_workers(std::uint32_t wanted) noexcept {
    workers_.store(wanted, std::memory_order_relaxed);  // as above
  }

  /// Whether this is the process that made the pool. Any thread.
  [[nodiscard]] bool ours() const noexcept { return generation == process_generation(); }

  void check_process() const {
    if (!ours()) [[unlikely]]
      refuse_process();
  }
  /// Decoders and constructors of results run under the lock, so they cannot use the pool. Call it
  /// before taking the lock.
  void check_usable() const {
    check_process();
    if (results.decoding()) [[unlikely]]
      refuse_decoder();
  }
  void check_open() const {
    if (state != phase::open || !broken.empty()) [[unlikely]]
      refuse_closed();
  }

  /// Whether a submission has to wait.
  [[nodiscard]] bool no_room() const noexcept { return schedule.outstanding() >= max_pending; }

  /// Whether callbacks or continuations are due.
  [[nodiscard]] bool callbacks_due() noexcept {
    return !results.with_callbacks.empty() || results.due.size() != 0;
  }
  /// Whether a waiting thread has to run the callbacks, because there is no service thread and no
  /// other thread runs them.
  [[nodiscard]] bool callbacks_unserved() noexcept {
    return service.failed && callbacks_due() && service.callback_thread == std::thread::id();
  }

  /// Signals event loops: one system call for all results that are new.
  void signal_ready_event() noexcept {
    if (!ready_event) return;
    if (const std::uint64_t fresh = results.take_ready(); fresh != 0) ready_event.signal(fresh);
  }

  /// Destroys jobs without references. Releases the lock meanwhile, because users' destructors run.
  void drop_dead(std::unique_lock<std::mutex>& lock) {
    if (dead.empty()) return;
    job_list unused = std::exchange(dead, {});
    lock.unlock();
    unused.clear();
    lock.lock();
  }

  [[noreturn, gnu::noinline]] static void refuse_process() {
    throw std::logic_error("the pool belongs to another process: it cannot be used after fork");
  }
  [[noreturn, gnu::noinline]] static void refuse_decoder() {
    throw std::logic_error("a pool cannot be used while one of its results is decoded");
  }
  [[noreturn, gnu::noinline]] void refuse_closed() const {
    if (state != phase::open) throw PoolClosed("the pool is closed: it takes no more work");
    throw BrokenPool(broken);
  }

 private:
  std::atomic<std::uint32_t> workers_;
};

}  // namespace procpool::detail
