// SPDX-License-Identifier: MIT
/// @file
/// The backend of a pool of threads: the same rings and the same worker loop in one address space.
///
/// A thread cannot be killed. A thread that is to leave (the pool ends, or its results are not
/// wanted any more) checks its stop flag before the next item and in every wait, and unwinds.
#pragma once

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>

#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>
#include <optional>
#include <string>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include <procpool/detail/backend/worker_backend.hpp>
#include <procpool/detail/base/forced_unwind.hpp>
#include <procpool/detail/fork/fork_registry.hpp>
#include <procpool/detail/machine/cpu.hpp>
#include <procpool/detail/os/event.hpp>
#include <procpool/detail/os/one_per_process.hpp>
#include <procpool/detail/os/stdio.hpp>
#include <procpool/detail/process/process_report.hpp>
#include <procpool/detail/process/startup_status.hpp>
#include <procpool/detail/ring/regions.hpp>
#include <procpool/detail/worker/worker_limits.hpp>
#include <procpool/detail/worker/worker_loop.hpp>
#include <procpool/error.hpp>
#include <procpool/worker.hpp>

namespace procpool::detail {

class thread_backend final : public worker_backend {
 public:
  /// @throws ProcessError when there is no memory
  explicit thread_backend(const region_sizes& sizes) {
    prepare(sizes, memory_kind::own);
    threads_.resize(sizes.workers);
    sigemptyset(&mask_);
    if (!fork_registry::on_library_thread()) {
      PROCPOOL_SYSTEM(pthread_sigmask(SIG_SETMASK, nullptr, &mask_));
    }
  }
  ~thread_backend() override { shut_down(); }

  void start(std::uint32_t worker, const worker_limits& limits) override {
    if (limits.pinned != 0 && cpus_.empty()) cpus_ = os::affinity_mask();  // the maker's
    leaving_.reserve(leaving_.size() + threads_.size());  // free_slot() must not fail
    auto fresh = make_place(worker);
    auto thread = std::make_unique<worker_thread>(*this, worker, fresh->incarnation, limits,
                                                  memory_of(*fresh, worker), wake_event_of(*fresh));
    try {
      thread->handle = std::thread(&worker_thread::run, thread.get());
    } catch (const std::system_error& error) {
      throw ProcessError("cannot start a worker thread of the pool (pthread_create)", error.code());
    }
    places_[worker] = std::move(fresh);
    threads_[worker] = std::move(thread);
  }

  [[nodiscard]] bool can_kill() const noexcept override { return false; }
  /// The thread leaves when its current item has ended.
  void kill(std::uint32_t worker) noexcept override { threads_[worker]->stop(channel(worker)); }

  void free_slot(std::uint32_t worker) noexcept override {
    // The thread has reported its end, but destructors of the user's thread_local objects may still
    // run on it and need the pool's lock: it is not waited for here.
    leaving_.push_back(std::move(threads_[worker]));
    std::erase_if(leaving_, [](const auto& each) { return each->try_join(); });
    worker_backend::free_slot(worker);
  }
  [[nodiscard]] crash_report crash_report_of(std::uint32_t /*worker*/, int /*signal*/) override {
    return {};
  }

  [[nodiscard]] std::optional<worker_event> next_event() override {
    for (auto& each : threads_) {
      if (each == nullptr) continue;
      if (auto event = each->report()) return event;
    }
    return std::nullopt;
  }
  [[nodiscard]] std::optional<worker_event> await_report() override { return next_event(); }

  /// Whether the calling thread is one of the workers, which cannot wait for themselves.
  [[nodiscard]] bool on_worker() const noexcept override { return own_pool.get() == this; }

  void await_workers() noexcept override {
    for (std::uint32_t worker = 0; worker < threads_.size(); ++worker) {
      if (threads_[worker] != nullptr) threads_[worker]->stop(channel(worker));
    }
    for (auto& each : threads_) {
      if (each != nullptr) each->join();
    }
    for (auto& each : leaving_) each->join();
  }
  void shut_down() noexcept override {
    await_workers();
    threads_.clear();
    leaving_.clear();
    close_descriptors();
  }
  void abandon() noexcept override {
    if (on_worker()) {  // a task has forked: the copy in the child is not a worker
      own_pool = nullptr;
      running_worker = nullptr;
    }
    for (auto& each : threads_) {
      if (each != nullptr) each->forget();
    }
    for (auto& each : leaving_) each->forget();
    worker_backend::abandon();
  }

 private:
  struct worker_thread {
    worker_thread(thread_backend& pool, std::uint32_t place, std::uint64_t number,
                  const worker_limits& limits, const worker_memory& memory, os::event wake_event)
        : pool_(&pool),
          place_(place),
          number_(number),
          name_(worker_name(number)),
          limits_(limits),
          results_(memory.results),
          channel_(
              memory, std::move(wake_event), [] {}, &leave_) {}
    worker_thread(const worker_thread&) = delete;
    worker_thread& operator=(const worker_thread&) = delete;
    ~worker_thread() { join(); }
    void join() noexcept {
      if (handle.joinable()) handle.join();
    }

    /// Joins the thread if it has ended. @returns whether it has
    [[nodiscard]] bool try_join() noexcept {
      if (::pthread_tryjoin_np(handle.native_handle(), nullptr) != 0) return false;
      forget();
      return true;
    }

    void stop(parent_channel& channel) noexcept {
      leave_.store(true, std::memory_order_relaxed);  // wake() publishes it
      channel.wake();
    }
    /// Drops the handle of a thread that does not exist: it was joined, or this is a forked child.
    void forget() noexcept { std::construct_at(&handle); }

    void run() {
      const end_reporter at_end(*this);  // also when pthread_exit in a task unwinds this thread
      // The mask is not inherited, because any thread may start a worker.
      PROCPOOL_SYSTEM(pthread_sigmask(SIG_SETMASK, &pool_->mask_, nullptr));
      own_pool = pool_;
      pin_error_ = limits_.pinned != 0 ? pin() : 0;
      if (pin_error_ == 0) code_ = work();
    }

    /// The next event of the thread that was not reported yet.
    [[nodiscard]] std::optional<worker_event> report() noexcept {
      using kind = worker_event::kind_type;
      if (!std::exchange(start_reported_, true))
        return worker_event{kind::started, place_, number_, 0, 0};
      if (end_reported_ || !ended_.load(std::memory_order_acquire)) return std::nullopt;  // code_
      end_reported_ = true;
      if (pin_error_ != 0) return worker_event{kind::not_pinned, place_, number_, 0, pin_error_};
      return worker_event{kind::exited, place_, number_, 0, code_, startup_};
    }

    std::thread handle;

   private:
    class end_reporter {
     public:
      explicit end_reporter(worker_thread& thread) noexcept : thread_(&thread) {}
      end_reporter(const end_reporter&) = delete;
      end_reporter& operator=(const end_reporter&) = delete;
      ~end_reporter() {
        const thread_backend* pool = thread_->pool_;
        running_worker = nullptr;
        thread_->ended_.store(true, std::memory_order_release);  // code_ before it
        pool->interrupt();
      }

     private:
      worker_thread* thread_;
    };

    // Pins this thread. @returns errno, or 0
    [[nodiscard]] int pin() const noexcept {
      try {
        const os::cpu_mask& cpus = pool_->cpus_;
        if (cpus.empty()) return EINVAL;
        return os::set_affinity(os::one_cpu_of(cpus, place_)) ? 0 : errno;
      } catch (const std::bad_alloc&) {
        return ENOMEM;
      }
    }

    // @returns the exit code that a worker process would have
    [[nodiscard]] int work() {
      try {
        worker_equipment equipment{WorkerContext(name_, place_, limits_.seed, results_->started),
                                   limit_guard({.idle_ns = limits_.idle_ns})};
        startup_.ready = 1;
        return run_worker(channel_, equipment);
      } catch (const worker_stopped&) {
        return 0;
      } catch (...) {
        pass_on_thread_exit();
        if (startup_.ready == 0) startup_ = status_of_exception();
        uncaught(name_);
        return 1;
      }
    }

    thread_backend* pool_;
    std::uint32_t place_;
    std::uint64_t number_;
    std::string name_;
    const worker_limits limits_;  ///< only seed, pinned and idle_ns are used
    const result_control* results_;
    std::atomic<bool> leave_{false};
    worker_channel channel_;
    bool start_reported_ = false;
    bool end_reported_ = false;
    int code_ = 1;
    int pin_error_ = 0;
    startup_status startup_;
    std::atomic<bool> ended_{false};  ///< the thread has ended, except its call of interrupt()
  };

  /// The backend whose worker the calling thread is; null: it is not a worker.
  static constinit inline os::per_thread_pointer<const thread_backend> own_pool{"thread backend"};

  [[nodiscard]] worker_memory memory_of(const place& at, std::uint32_t worker) const {
    const region_sizes& sizes = outbound_->sizes();
    std::byte* own = at.inbound.memory();
    return {&outbound_->header(),       at.control,
            outbound_->ring(worker),    outbound_->arena_memory(),
            new (own) result_control{}, {own + region_sizes::results_at(), sizes.ring_bytes}};
  }

  // A descriptor of the thread's own: the place and its descriptor may be freed before the thread
  // has ended.
  [[nodiscard]] static os::event wake_event_of(const place& at) {
    return os::event(os::off_stdio(
        os::fd(os::check(PROCPOOL_SYSTEM(fcntl(at.wake_event.get(), F_DUPFD_CLOEXEC, 3)),
                         "cannot create an event descriptor for the pool (eventfd)"))));
  }

  std::vector<std::unique_ptr<worker_thread>> threads_;
  std::vector<std::unique_ptr<worker_thread>> leaving_;  ///< end reported, not joined yet
  sigset_t mask_{};    ///< the signal mask of the pool's maker, which all workers get
  os::cpu_mask cpus_;  ///< the CPUs of the pool's maker; read when workers are pinned
};

}  // namespace procpool::detail
