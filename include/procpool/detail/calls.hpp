// SPDX-License-Identifier: MIT
// Level 6: pool.
/// @file
/// What the members of Pool have in common: starting work, and turning a job into a result.
#pragma once

#include <boost/smart_ptr/intrusive_ptr.hpp>

#include <algorithm>
#include <cstddef>
#include <exception>
#include <optional>
#include <ranges>
#include <type_traits>
#include <utility>
#include <vector>

#include <procpool/detail/job.hpp>
#include <procpool/detail/submission.hpp>

namespace procpool::detail {

/// Whether the submitting thread waits for the result at once.
enum class attended { yes, no };

/// Submits one call.
template <class Core, class F, class... A>
auto start_call(const boost::intrusive_ptr<Core>& pool, attended how, const F& function,
                job_callbacks<task_result_t<std::decay_t<F>, const A&...>> callbacks,
                const A&... arguments) {
  using result = task_result_t<std::decay_t<F>, const A&...>;
  boost::intrusive_ptr<call_job<result>> job(new call_job<result>(pool, std::move(callbacks)));
  if (how == attended::no) pool->care_for(*job);
  submit_call<Core, std::decay_t<F>>(*pool, job, function, arguments...);
  return job;
}

/// Waits for a job and moves its result out, or throws its exception.
template <class T>
T finish(typed_job<T>& job) {
  static_cast<void>(job.wait_until(std::nullopt));
  if (job.failure() != nullptr) std::rethrow_exception(job.failure());
  if constexpr (!std::is_void_v<T>) return std::move(job.result());
}

/// How many items a range has; nullopt when only reading it can tell.
template <class Range>
std::optional<std::size_t> known_size(Range& range) {
  if constexpr (std::ranges::sized_range<Range>) {
    return static_cast<std::size_t>(std::ranges::size(range));
  } else if constexpr (std::ranges::forward_range<Range>) {
    return static_cast<std::size_t>(std::ranges::distance(range));
  } else {
    return std::nullopt;
  }
}

/// Submits a map over a range. One whose size only reading can tell is read first, as in Python.
template <class How, class Core, class F, class Range, class Callbacks>
auto start_map_of(const boost::intrusive_ptr<Core>& pool, attended how, const F& function,
                  Range& items, std::size_t size, std::optional<std::size_t> chunksize,
                  Callbacks callbacks) {
  using arguments = item_arguments<F, std::ranges::range_reference_t<Range>, How>;
  using job_type = map_job<listed_result_t<F, arguments>>;
  boost::intrusive_ptr<job_type> job(new job_type(pool, size, std::move(callbacks)));
  pool->check_open();
  if (how == attended::no && size > 0) pool->care_for(*job);
  if (size == 0) {
    reject_null(function);
    job->set_ready();
    return job;
  }
  submit_items<How, listed_shipped_t<F, arguments>>(
      pool, boost::intrusive_ptr<detail::job>(job), function, items, size,
      chunksize.value_or(default_chunksize(size, pool->workers())));
  return job;
}

template <class How, class Core, class F, class Range>
auto start_map(const boost::intrusive_ptr<Core>& pool, attended how, const F& function,
               Range& items, std::optional<std::ptrdiff_t> chunksize,
               job_callbacks<gathered_t<listed_result_t<
                   std::decay_t<F>,
                   item_arguments<std::decay_t<F>, std::ranges::range_reference_t<Range&>, How>>>>
                   callbacks) {
  using callable = std::decay_t<F>;
  const auto chunk = checked_size(chunksize, "chunksize");
  if constexpr (std::ranges::sized_range<Range&> || std::ranges::forward_range<Range&>) {
    return start_map_of<How, Core, callable>(pool, how, function, items, *known_size(items), chunk,
                                             std::move(callbacks));
  } else {
    std::vector<std::ranges::range_value_t<Range&>> read;
    for (auto&& item : items) read.emplace_back(std::forward<decltype(item)>(item));
    auto moving =
        std::ranges::subrange(std::move_iterator(read.begin()), std::move_sentinel(read.end()));
    return start_map_of<How, Core, callable>(pool, how, function, moving, read.size(), chunk,
                                             std::move(callbacks));
  }
}

/// Chunk and buffer of an imap, in items.
struct imap_sizes_type {
  std::size_t chunk;
  std::size_t buffer;
};

/// By default enough is under way that no worker waits for the reader.
inline imap_sizes_type imap_sizes(std::optional<std::ptrdiff_t> chunksize,
                                  std::optional<std::ptrdiff_t> buffersize, std::size_t workers) {
  constexpr std::size_t chunks_per_worker = 32;
  const std::size_t chunk = checked_size(chunksize, "chunksize").value_or(1);
  return {chunk,
          checked_size(buffersize, "buffersize").value_or(chunk * workers * chunks_per_worker)};
}

}  // namespace procpool::detail
