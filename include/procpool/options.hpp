// SPDX-License-Identifier: MIT
/// @file
/// Options of a pool and of its calls: aggregates for designated initializers, as in `Pool
/// pool{{.processes = 4}}` and `pool.map(f, items, {.chunksize = 20})`.
#pragma once

#include <procpool/config.hpp>  // first, for its errors

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <procpool/codec.hpp>
#include <procpool/detail/base/exact_number.hpp>
#include <procpool/detail/base/stop_token.hpp>
#include <procpool/detail/heap/held_object.hpp>
#include <procpool/detail/result/callback_function.hpp>
#include <procpool/detail/result/job.hpp>
#include <procpool/detail/result/typed_job.hpp>
#include <procpool/detail/task/callable.hpp>
#include <procpool/detail/task/task.hpp>
#include <procpool/detail/task/task_body.hpp>
#include <procpool/start_method.hpp>

namespace procpool {

/// A function that every worker calls before its first task (Python: initializer and initargs):
/// `.initializer = {open_database, std::string{"users.db"}}`. If it throws, or the worker dies in
/// it, the worker is replaced. The third such failure in a row breaks the pool; BrokenPool has the
/// reason.
class Initializer {
 public:
  Initializer() noexcept = default;

  /// @param function a function, lambda or function object, as for a task
  /// @param arguments its arguments, encoded now
  /// @throws std::invalid_argument for a null function pointer; exceptions of encoding
  template <class F, class... A>
    requires(!std::is_same_v<std::decay_t<F>, Initializer>)
  Initializer(F&& function, A&&... arguments);  // NOLINT(google-explicit-constructor): braces

 private:
  template <class Backend>
  friend class Pool;

  std::shared_ptr<const detail::initializer_frame> frame_;
};

/// A time span in an option: any std::chrono duration.
using time_limit = std::chrono::duration<double>;

/// Options of a Pool (Python: multiprocessing.Pool(processes, initializer, initargs,
/// maxtasksperchild)).
struct pool_options {
  /// Number of workers, at least 1. Default: the CPUs this process may use (cpu_count()).
  detail::optional_number<int> processes = std::nullopt;
  /// How the workers are started. With spawn, main must call freeze_support() first. Default:
  /// get_start_method().
  std::optional<procpool::start_method> start_method = std::nullopt;
  /// Called in every worker before its first task.
  Initializer initializer = {};
  /// The most time from the start of a worker to the end of its initializer, positive. A worker
  /// that exceeds it is killed, which counts as a failure of the initializer: the third in a row
  /// breaks the pool. Checked while a thread waits for results. Default: no limit. Not for threads,
  /// which cannot be killed: std::invalid_argument.
  std::optional<time_limit> initializer_timeout = std::nullopt;
  /// Tasks (chunks, for a map) after which a worker is replaced, at least 1. Default: workers live
  /// as long as the pool.
  detail::optional_number<int> maxtasksperchild = std::nullopt;
  /// How long a worker waits for a task before it leaves, positive. It is started again when there
  /// is work that the remaining workers cannot begin with. The parent needs no timer or wake-up for
  /// this. Default: workers stay.
  std::optional<time_limit> idle_timeout = std::nullopt;
  /// The most unfinished tasks (chunks, for a map or imap), at least 1: those that wait and those
  /// that workers have. At the limit, submitting waits until a task is done, and try_apply_async
  /// returns an empty optional. Choose more than twice the number of workers, so that no worker
  /// waits for work. Default: no limit; the arguments of waiting tasks are in this process's
  /// memory.
  detail::optional_number<int> max_pending = std::nullopt;
  /// Bytes of each of the two rings of a worker: a power of two, 4 KiB to 1 GiB. Larger tasks and
  /// results are streamed through the ring. The default suits nearly all programs.
  detail::number<std::size_t> ring_bytes = std::size_t{256} << 10;
  /// Bytes of address space for large task arguments: a multiple of 4096, at least 64 KiB. Memory
  /// is used only as needed. Arguments of 1 MiB or more that do
  /// not fit have pages of their own; others are streamed through the ring. Rings and arena are
  /// smaller where address space is limited (RLIMIT_AS) or refused: a pool takes a quarter of the
  /// rest.
  detail::number<std::size_t> arena_bytes = std::size_t{256} << 20;
  /// Bytes of private memory that a worker may allocate beyond its initial size (setrlimit(2),
  /// RLIMIT_DATA: heap, thread stacks, private mappings; not shared memory). An allocation beyond
  /// it fails. A task that lets std::bad_alloc escape ends with MemoryLimitError, and the worker
  /// goes on. Default: no limit.
  detail::optional_number<std::size_t> memory_limit = std::nullopt;
  /// CPU time that an item may use, summed over all threads of its worker, positive. At the limit
  /// the worker is killed with SIGXCPU, and the item ends with TimeoutError. Default: no limit.
  std::optional<time_limit> cpu_limit = std::nullopt;
  /// Resident bytes above which a worker is replaced after its current task: a remedy for leaks.
  /// Default: no limit.
  detail::optional_number<std::size_t> max_resident = std::nullopt;
  /// Bytes of freed memory that a worker keeps, at most 2 GiB (mallopt(3)). Large arguments and
  /// results then reuse that memory. Otherwise the system clears new pages for each, which costs
  /// several times as much as copying them. In return the worker stays as large as its largest
  /// task. No effect on threads. Default: that of the C library, which keeps no blocks larger than
  /// 32 MiB.
  detail::optional_number<std::size_t> keep_memory = std::nullopt;
  /// By what fraction, 0 to 1, maxtasksperchild and max_resident may be lowered at random for each
  /// worker, so that workers do not all leave at once. Default: none.
  double recycle_jitter = 0;
  /// The largest encoded result that is accepted, in bytes. A worker that sends a larger one is
  /// killed, and the item ends with WorkerDied. Default: half of the machine's memory.
  detail::optional_number<std::size_t> max_result_bytes = std::nullopt;
  /// The most bytes of encoded arguments (of a chunk, for a map) that are kept of a failed task,
  /// for AsyncResult::replay() and WorkerDied::replay().
  detail::number<std::size_t> replay_bytes = std::size_t{1} << 20;
  /// Seed of the tasks' random numbers, current_worker().random(). With the same seed, a program
  /// that submits the same work in the same order gets the same results, for any number of workers.
  /// Default: a new seed for each pool, from the system's random source.
  detail::optional_number<std::uint64_t> seed = std::nullopt;
  /// Whether each worker runs on one CPU only (sched_setaffinity(2)). Worker i gets the i-th CPU
  /// that the thread that makes the pool may use, modulo their number; its replacement gets the
  /// same CPU. Meant for warm caches and for measurements. It hurts if anything else runs on these
  /// CPUs, another pool for example: a pinned worker waits there while other CPUs are idle.
  bool pin_workers = false;
  /// Whether workers ignore signals of other processes that the program catches, ignores or blocks,
  /// and SIGINT always: a signal to the whole process group (terminal, timeout, service manager) is
  /// for the program to handle. Signals that the program leaves alone have their default action in
  /// workers, and so have signals that a worker raises itself: raise(), alarm(), a broken pipe.
  /// Handlers that tasks install take precedence. SIGKILL and SIGSTOP always work. With false every
  /// signal has its default action in a worker, as in a fresh program. No effect on threads.
  bool ignore_signals = true;
  /// Whether processes started by tasks (commands, a Process, daemons, and their descendants) are
  /// killed. Those of a worker are killed when the worker is killed or crashes (time limit, cancel,
  /// signal, exit code other than 0), all others at the end of the pool, also if their worker left
  /// in order. With false they live on as children of init. No effect on threads.
  bool kill_descendants = true;
  /// Whether forked workers close the program's descriptors, except the standard streams and
  /// pass_fds. Otherwise they keep copies as long as they live: the other ends of pipes see no end
  /// of file, ports of listening sockets stay taken, files locked by flock(2) stay locked. Spawned
  /// workers never have these descriptors.
  bool close_fds = false;
  /// Descriptors that forked workers keep despite close_fds; not allowed without it.
  std::vector<int> pass_fds = {};
  /// Environment variables of the workers, added to those of the program or replacing them. For
  /// variables that libraries read when they start (OMP_NUM_THREADS, LD_LIBRARY_PATH) use
  /// start_method::spawn: in forked workers these libraries have already started. No effect on
  /// threads.
  std::map<std::string, std::string> environment = {};
  /// Whether to warn on stderr, once per program, when a pool is forked while the program has other
  /// threads (those of OpenMP and BLAS count): locks that they hold are copied locked.
  /// PROCPOOL_WARN_THREADS=0 in the environment disables the warning too.
  bool warn_about_threads = true;
};

/// Options of a call whose caller waits.
struct call_options {
  /// The most time that the call may run, positive, counted from when a worker begins with it. At
  /// the limit that worker is killed and replaced, and the call ends with TimeoutError. Default: no
  /// limit.
  std::optional<time_limit> timeout = std::nullopt;
  /// Further attempts, 0 to 1000, after its worker died or its time limit passed. The task can read
  /// the number of the attempt from current_worker().attempt(). An exception of the task is not
  /// retried.
  detail::number<int> retries = 0;
  /// A stop request ends the call with CancelledError. If the call runs, its worker is killed.
  stop_token stop = {};
};

/// Options of a map whose caller waits.
struct map_options {
  /// Items per task, at least 1. Default: a quarter of an equal share, ceil(n / (4 * workers)), as
  /// in Python.
  detail::optional_number<std::ptrdiff_t> chunksize = std::nullopt;
  /// For each item, see call_options::timeout.
  std::optional<time_limit> timeout = std::nullopt;
  /// For each item, see call_options::retries.
  detail::number<int> retries = 0;
  /// A stop request ends the map with CancelledError; map_outcomes gives that as the outcome of
  /// each unfinished item. Workers that run a part of the map are killed.
  stop_token stop = {};
};

/// Options of an imap.
struct imap_options {
  /// Items per task, at least 1. Default: 1.
  detail::optional_number<std::ptrdiff_t> chunksize = std::nullopt;
  /// The most items taken from the input ahead of those returned to the reader, at least 1; no
  /// chunk is larger. Default: 32 chunks for each worker.
  detail::optional_number<std::ptrdiff_t> buffersize = std::nullopt;
  /// For each item, see call_options::timeout.
  std::optional<time_limit> timeout = std::nullopt;
  /// For each item, see call_options::retries.
  detail::number<int> retries = 0;
};

/// Options of AsyncResult::cancel().
struct cancel_options {
  /// Whether to end running items too: their workers are killed and replaced.
  bool kill = false;
};

/// Options of an asynchronous call with result T. Callbacks run one after another on a thread of
/// the pool, before the result becomes ready. They may use the pool, but a wait in one delays the
/// others, and a callback that waits for its own result gets std::logic_error. An exception of a
/// callback is reported on stderr and otherwise ignored.
template <class T>
struct task_options {
  /// See call_options::timeout.
  std::optional<time_limit> timeout = std::nullopt;
  /// See call_options::retries.
  detail::number<int> retries = 0;
  /// Called with the result.
  std::conditional_t<std::is_void_v<T>, detail::callback_function<>,
                     detail::callback_function<detail::stored_t<T>&>>
      callback = {};
  /// Called with the exception, including CancelledError and BrokenPool.
  detail::callback_function<std::exception_ptr> error_callback = {};
};

template <class T>
inline constexpr bool is_task_options_v = false;
template <class T>
inline constexpr bool is_task_options_v<task_options<T>> = true;

/// Options of an asynchronous map with result T: a vector, or void. Callbacks run as in
/// task_options.
template <class T>
struct map_async_options {
  /// See map_options::chunksize.
  detail::optional_number<std::ptrdiff_t> chunksize = std::nullopt;
  /// For each item, see call_options::timeout.
  std::optional<time_limit> timeout = std::nullopt;
  /// For each item, see call_options::retries.
  detail::number<int> retries = 0;
  /// Called once with all results, also for an empty input (Python does not call it then).
  std::conditional_t<std::is_void_v<T>, detail::callback_function<>,
                     detail::callback_function<detail::stored_t<T>&>>
      callback = {};
  /// Called once with the first exception by index.
  detail::callback_function<std::exception_ptr> error_callback = {};
};

template <class F, class... A>
  requires(!std::is_same_v<std::decay_t<F>, Initializer>)
Initializer::Initializer(F&& function, A&&... arguments) {
  using callable = std::decay_t<F>;
  if constexpr (detail::check_call<callable, A...>()) {
    auto frame = std::make_shared<detail::initializer_frame>();
    detail::reject_null<callable>(function);
    detail::handle_scope sent(detail::handle_delivery::repeated);
    encoder out(frame->body);
    frame->function = detail::callable_codec<callable>::encode(out, function);
    out.align(detail::frame_alignment);
    detail::put_arguments(out, detail::shipped_types_t<callable, A...>{},
                          std::forward<A>(arguments)...);
    frame->handles = sent.take();
    // Its result is ignored, so its type is not checked.
    frame->entry = detail::entry_point<detail::discarding<callable>,
                                       detail::shipped_types_t<callable, A...>>();
    frame_ = std::move(frame);
  }
}

}  // namespace procpool
