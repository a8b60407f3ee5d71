// SPDX-License-Identifier: MIT
/// @file
/// What the parts of a pool share: the lock, the engine that it guards, whether the pool is open,
/// and who waits for a change. The parts are in leader.hpp, service_thread.hpp and
/// pending_limit.hpp; worker_pool.hpp puts them together.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <thread>
#include <utility>

#include <procpool/detail/fork/process_generation.hpp>
#include <procpool/detail/os/event.hpp>
#include <procpool/detail/pool/core_settings.hpp>
#include <procpool/detail/scheduling/engine.hpp>
#include <procpool/error.hpp>

namespace procpool::detail {

/// What the leader knows of the service thread, to wake it. Guarded by the pool's lock.
struct service_signal {
  std::condition_variable wakes;    ///< the service thread: there is something to do
  bool asleep = false;              ///< it has nothing to do
  bool backs_off = false;           ///< it waits longer than a tick, while another thread leads
  bool failed = false;              ///< the thread could not be started, or not again after a fork
  std::thread::id callback_thread;  ///< the thread that runs callbacks, while there is one
};

/// All members are guarded by @c mutex, but the constants. The engine's own lists and the shared
/// memory of the rings belong to the pool's leader while it polls without the lock (leader.hpp).
struct guarded_engine {
  enum class phase { open, closed, terminated };

  guarded_engine(const core_settings& settings, backend_maker make)
      : generation(process_generation()),
        max_pending(settings.max_pending),
        engine(make(settings), settings.sizes.workers, settings.workers, settings.rules,
               settings.lives, settings.initializer),
        workers_(settings.workers) {}

  const std::uint32_t generation;  ///< of the process that made the pool
  const std::size_t max_pending;   ///< tasks that are not done
  std::mutex mutex;
  std::condition_variable changed;  ///< followers: something is ready, or there is no leader
  class engine engine;
  phase state = phase::open;
  int await_room = 0;          ///< threads that wait to submit
  std::uint64_t activity = 0;  ///< counts waits and drains; the service thread stays away meanwhile
  bool wake_requested = false;  ///< by a thread that had the lock
  os::event ready_event;        ///< for event loops; empty: nobody has asked for it
  service_signal service;

  /// How many workers there are to be. Any thread.
  [[nodiscard]] std::uint32_t workers() const noexcept {
    return workers_.load(std::memory_order_relaxed);  // one number
  }
  void set_workers(std::uint32_t wanted) noexcept {
    workers_.store(wanted, std::memory_order_relaxed);  // as above
  }

  [[nodiscard]] bool ours() const noexcept { return generation == process_generation(); }

  void check_process() const {
    if (!ours()) [[unlikely]]
      refuse_process();
  }
  /// Decoders and constructors of results run under the lock: they cannot use the pool.
  void check_usable() const {
    check_process();
    if (engine.decoding()) [[unlikely]]
      refuse_decoder();
  }
  void check_open() const {
    if (state != phase::open || !engine.broken().empty()) [[unlikely]]
      refuse_closed();
  }

  /// No task can be submitted for now.
  [[nodiscard]] bool no_room() const noexcept { return engine.outstanding() >= max_pending; }

  /// The service thread has something to run.
  [[nodiscard]] bool callbacks_due() noexcept {
    return !engine.with_callbacks().empty() || engine.due().size() != 0;
  }
  /// Callbacks wait for a thread that waits, because there is no service thread.
  [[nodiscard]] bool callbacks_unserved() noexcept {
    return service.failed && callbacks_due() && service.callback_thread == std::thread::id();
  }

  /// Tells event loops. One system call, however many results.
  void signal_ready_event() noexcept {
    if (!ready_event) return;
    if (const std::uint64_t fresh = engine.take_ready(); fresh != 0) ready_event.signal(fresh);
  }

  /// Destroys jobs that nobody refers to any more. Without the lock: destructors of the user's run.
  void drop_dead(std::unique_lock<std::mutex>& lock) {
    if (!engine.any_dead()) return;
    auto dead = engine.take_dead();
    lock.unlock();
    dead.clear();
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
    throw BrokenPool(engine.broken());
  }

 private:
  std::atomic<std::uint32_t> workers_;
};

}  // namespace procpool::detail
