// SPDX-License-Identifier: MIT
/// @file
/// Options, as aggregates for designated initializers: `Pool pool{{.processes = 4}}`,
/// `pool.map(f, items, {.chunksize = 20})`.
#pragma once

#include <procpool/config.hpp>  // first, for its errors

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <functional>
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
#include <procpool/detail/result/callback_function.hpp>
#include <procpool/detail/result/job.hpp>
#include <procpool/detail/result/typed_job.hpp>
#include <procpool/detail/task/callable.hpp>
#include <procpool/detail/task/task.hpp>
#include <procpool/detail/task/task_body.hpp>
#include <procpool/start_method.hpp>

namespace procpool {

/// Called once in every worker before its first task (Python's initializer and initargs):
/// `.initializer = {open_database, std::string{"users.db"}}`. If it throws or the worker dies in
/// it, the worker is replaced; the third such failure in a row breaks the pool, which says why.
class Initializer {
 public:
  Initializer() noexcept = default;

  /// @param function what to call: a function, a lambda, a function object, as for a task
  /// @param arguments its arguments, encoded now
  /// @throws std::invalid_argument for a null function pointer; what encoding throws
  template <class F, class... A>
    requires(!std::is_same_v<std::decay_t<F>, Initializer>)
  Initializer(F&& function, A&&... arguments);  // NOLINT(google-explicit-constructor): braces

 private:
  template <class Backend>
  friend class Pool;

  std::shared_ptr<const detail::initializer_frame> frame_;
};

/// A span of time in an option: any std::chrono duration.
using time_limit = std::chrono::duration<double>;

/// How a Pool is made. Python: multiprocessing.Pool(processes, initializer, initargs,
/// maxtasksperchild).
struct pool_options {
  /// Number of workers, at least 1. Default: the CPUs this process may use (cpu_count()).
  detail::optional_number<int> processes = std::nullopt;
  /// How the workers are started; with spawn the program calls freeze_support() first in main.
  /// Default: get_start_method().
  std::optional<procpool::start_method> start_method = std::nullopt;
  /// Called in every worker before its first task.
  Initializer initializer = {};
  /// The most that a worker may take from its start to the end of its initializer, positive. Then
  /// it is killed, which counts as a failure of the initializer: the third in a row breaks the
  /// pool. Looked after while somebody waits for results. Default: any time. Not for threads, which
  /// cannot be killed: std::invalid_argument.
  std::optional<time_limit> initializer_timeout = std::nullopt;
  /// Tasks (chunks, for a map) after which a worker leaves and is replaced, at least 1. Default:
  /// workers live as long as the pool.
  detail::optional_number<int> maxtasksperchild = std::nullopt;
  /// How long a worker waits for a task before it leaves, positive. It is started again when there
  /// is work that those left have no time for. The pool itself needs no timer for that, nor does it
  /// wake up. Default: workers stay.
  std::optional<time_limit> idle_timeout = std::nullopt;
  /// The most tasks (chunks, for a map or imap) that are submitted and not done, at least 1: those
  /// that wait and those that workers have. With so many, submitting waits until one is done, and
  /// try_apply_async returns nothing. More than twice the number of workers, so that none waits for
  /// work. Default: any number; arguments that wait are in this process's memory.
  detail::optional_number<int> max_pending = std::nullopt;
  /// Bytes of each of the two rings of a worker: a power of two, 4 KiB to 1 GiB. Larger tasks and
  /// results stream through. The default suits nearly everything.
  detail::number<std::size_t> ring_bytes = std::size_t{256} << 10;
  /// Bytes of address space for large task arguments, a multiple of 4096 and at least 64 KiB;
  /// memory is taken as it is used. Larger arguments stream through the ring. Both are cut down
  /// where address space is limited (RLIMIT_AS) or refused: a pool takes a quarter of what is left.
  detail::number<std::size_t> arena_bytes = std::size_t{256} << 20;
  /// Bytes of private memory that a worker may take beyond what it is born with (setrlimit(2),
  /// RLIMIT_DATA: heap, stacks of threads, private mappings; not memory shared with others). An
  /// allocation beyond it fails: a task that lets std::bad_alloc out ends with MemoryLimitError,
  /// and the worker goes on. Default: what the machine has.
  detail::optional_number<std::size_t> memory_limit = std::nullopt;
  /// CPU time that an item may use, of all threads of its worker, positive. The worker is killed
  /// with SIGXCPU then, and the item ends with TimeoutError. Default: any.
  std::optional<time_limit> cpu_limit = std::nullopt;
  /// Resident bytes of a worker after which it leaves, between two tasks, and is replaced: against
  /// leaks. Default: never.
  detail::optional_number<std::size_t> max_resident = std::nullopt;
  /// Bytes of memory that a worker keeps when tasks have freed it, at most 2 GiB (mallopt(3)).
  /// Large arguments and results are then made in memory that is there, instead of pages that the
  /// system has to clear for each, which costs several times as much as to copy them; in return the
  /// worker stays as large as its largest task. Of no effect on threads. Default: what the C
  /// library keeps, which is nothing of blocks larger than 32 MiB.
  detail::optional_number<std::size_t> keep_memory = std::nullopt;
  /// The part of maxtasksperchild and max_resident, 0 to 1, that chance may take away, for each
  /// worker anew: so they do not all leave at once. Default: none.
  double recycle_jitter = 0;
  /// Bytes of the largest encoded result that is accepted. A worker that sends a larger one is
  /// killed, the item ends with WorkerDied. Default: half of the machine's memory.
  detail::optional_number<std::size_t> max_result_bytes = std::nullopt;
  /// Bytes of encoded arguments (of a chunk, for a map) that are kept of a task that has failed,
  /// for AsyncResult::replay() and WorkerDied::replay().
  detail::number<std::size_t> replay_bytes = std::size_t{1} << 20;
  /// What the random numbers of its tasks come from, current_worker().random(): with the same seed
  /// a program that submits the same work in the same order gets the same results, whatever the
  /// number of workers. Default: another one each time, from the system's random source.
  detail::optional_number<std::uint64_t> seed = std::nullopt;
  /// Whether each worker runs on one CPU only: the worker in place i on the i-th of those that the
  /// thread that makes the pool may use, from 0 again behind the last one (sched_setaffinity(2)).
  /// Its replacement has the same one. For caches that are to stay warm, and for measuring. It
  /// hurts wherever something else runs on these CPUs, other pools too: a pinned worker waits while
  /// other CPUs have nothing to do.
  bool pin_workers = false;
  /// Whether signals that others send mean nothing to a worker when the program catches, ignores or
  /// blocks them, and SIGINT in any case: a signal to the whole process group (a terminal, timeout,
  /// a service manager) is the program's to answer. What the program leaves alone has its default
  /// action in workers, too, and so have signals of a worker's own making: raise(), alarm(), a
  /// broken pipe. Handlers that tasks install win. SIGKILL and SIGSTOP always work. With false a
  /// worker has the default action of every signal, as a fresh program has. Of no effect on
  /// threads.
  bool ignore_signals = true;
  /// Whether processes that tasks have started (commands, a Process, daemons, and what comes of
  /// them) are killed: those of a worker when it is killed or crashes (a time limit, cancel, a
  /// signal, an exit code other than 0), all at the end of the pool. Those of a worker that leaves
  /// in order live until the end of the pool. With false they are left alone, and live on as
  /// children of init. Of no effect on threads.
  bool kill_descendants = true;
  /// Whether forked workers close what the program has open, but for the standard streams and
  /// pass_fds. Without it they keep copies for as long as they live: of pipes, whose other ends see
  /// no end of file; of listening sockets, whose ports stay taken; of files locked by flock(2),
  /// which stay locked. Spawned workers never have any of it.
  bool close_fds = false;
  /// Descriptors that forked workers keep all the same. Only with close_fds.
  std::vector<int> pass_fds = {};
  /// Environment variables of the workers that come to the program's, or take their place. For
  /// what libraries read when they start (OMP_NUM_THREADS, LD_LIBRARY_PATH) use
  /// start_method::spawn: in forked workers they have started already. Of no effect on threads.
  std::map<std::string, std::string> environment = {};
  /// Whether stderr is told, once in a program, when a pool is forked while the program has threads
  /// of its own (those of OpenMP and BLAS count): locks that they hold are copied locked.
  /// PROCPOOL_WARN_THREADS=0 in the environment turns it off, too.
  bool warn_about_threads = true;
};

/// How a call runs whose caller waits.
struct call_options {
  /// The most that it may run, positive, counted from when a worker begins with it. Then that
  /// worker is killed and replaced, and the call ends with TimeoutError. Default: any time.
  std::optional<time_limit> timeout = std::nullopt;
  /// Further attempts, 0 to 1000, when its worker has died or it was too late. The task sees which
  /// it is by current_worker().attempt(). Exceptions are answers: nothing is tried again for them.
  detail::number<int> retries = 0;
  /// A requested stop ends the call with CancelledError; if it runs its worker is killed.
  stop_token stop = {};
};

/// How a map is cut into tasks.
struct map_options {
  /// Items sent to a worker at a time, at least 1. Default: a quarter of a fair share,
  /// ceil(n / (4 * workers)), as in Python.
  detail::optional_number<std::ptrdiff_t> chunksize = std::nullopt;
  /// For each item, see call_options::timeout.
  std::optional<time_limit> timeout = std::nullopt;
  /// For each item, see call_options::retries.
  detail::number<int> retries = 0;
  /// A requested stop ends the map with CancelledError, or gives that as the outcome of what is not
  /// done; workers that run a part of it are killed.
  stop_token stop = {};
};

/// How an imap runs.
struct imap_options {
  /// Items sent to a worker at a time, at least 1.
  detail::optional_number<std::ptrdiff_t> chunksize = std::nullopt;
  /// The most items that are taken from the input ahead of those handed out, at least 1; no chunk
  /// is larger. Default: 32 chunks for each worker.
  detail::optional_number<std::ptrdiff_t> buffersize = std::nullopt;
  /// For each item, see call_options::timeout.
  std::optional<time_limit> timeout = std::nullopt;
  /// For each item, see call_options::retries.
  detail::number<int> retries = 0;
};

/// How work is cancelled.
struct cancel_options {
  /// Also what runs: its workers are killed and replaced.
  bool kill = false;
};

/// How an asynchronous submission with result T runs. Callbacks run one after the other on a thread
/// of the pool before the result becomes ready; they may use the pool, but a wait in them holds up
/// the others, and one that waits for its own result gets std::logic_error. An exception in one is
/// reported on stderr and harms nothing.
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
  /// Called with the exception, also CancelledError and the like.
  detail::callback_function<std::exception_ptr> error_callback = {};
};

template <class T>
inline constexpr bool is_task_options_v = false;
template <class T>
inline constexpr bool is_task_options_v<task_options<T>> = true;

/// The same for a map, with result T: a vector, or void.
template <class T>
struct map_async_options {
  /// See map_options::chunksize.
  detail::optional_number<std::ptrdiff_t> chunksize = std::nullopt;
  /// For each item, see call_options::timeout.
  std::optional<time_limit> timeout = std::nullopt;
  /// For each item, see call_options::retries.
  detail::number<int> retries = 0;
  /// Called once with all results, also when there are none because there was no item (Python does
  /// not call it then).
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
    encoder out(frame->body);
    frame->function = detail::callable_codec<callable>::encode(out, function);
    out.align(detail::frame_alignment);
    detail::put_arguments(out, detail::shipped_types_t<callable, A...>{},
                          std::forward<A>(arguments)...);
    // Its result is not wanted, so nothing is asked of its type.
    frame->entry = detail::entry_point<detail::discarding<callable>,
                                       detail::shipped_types_t<callable, A...>>();
    frame_ = std::move(frame);
  }
}

}  // namespace procpool
