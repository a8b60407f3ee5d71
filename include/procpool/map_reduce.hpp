// SPDX-License-Identifier: MIT
/// @file
/// Pool::map_reduce: `functools.reduce(reduce, pool.map(function, items))` without sending every
/// result to the program.
///
///     std::map<std::string, int> count(const std::string& file);   // the words of one file
///     using words = std::map<std::string, int>;
///     const auto all = pool.map_reduce(count, files, [](words a, const words& b) {
///       for (const auto& [word, times] : b) a[word] += times;
///       return a;
///     });
///
/// Items are cut into chunks as for map. A worker calls the function for each item of its chunk and
/// reduces the results from left to right: a = reduce(a, next result). The calling thread reduces
/// the chunks' results in the order of the input, after the initial value if there is one.
///
/// `reduce` must be associative: reduce(a, reduce(b, c)) must be as good as reduce(reduce(a, b),
/// c). It need not be commutative. If it is only nearly associative, like floating-point addition,
/// the result depends on where chunks begin, and on nothing else: the same input and chunk size
/// give the same result each time. The default chunk size depends on the number of workers. For the
/// same result on every machine, set chunksize.
///
/// `reduce` takes two values of the function's result type and returns one. It travels like the
/// function. It runs in the workers, and a copy of it on the calling thread.
///
/// Failures: the first failure by index is thrown, as by map, with its index in WorkerDied::item().
/// An exception of `reduce` in a worker counts for the item whose result it was adding; in the
/// program it is thrown as it is. Items after a failed one in its chunk are not run, because their
/// results would be dropped.
///
/// Options: timeout applies to each item together with its reduction step. A chunk whose worker
/// died has lost its partial result. So `retries` count per chunk, each attempt begins with the
/// chunk's first item, and current_worker().attempt() is the same for all its items. Without
/// retries no item runs twice.
#pragma once

#include <procpool/config.hpp>  // first, for its errors

#include <initializer_list>
#include <optional>
#include <ranges>
#include <type_traits>
#include <utility>

#include <procpool/detail/submit/reduction.hpp>
#include <procpool/options.hpp>
#include <procpool/pool.hpp>

namespace procpool {

template <class Backend>
template <class F, std::ranges::input_range Range, class Reduce>
auto Pool<Backend>::map_reduce(F&& function, Range&& items, Reduce&& reduce, map_options options) {
  return this->map_reduce(function, items, reduce, std::nullopt, options);
}

template <class Backend>
template <class F, class Item, class Reduce>
auto Pool<Backend>::map_reduce(F&& function, std::initializer_list<Item> items, Reduce&& reduce,
                               map_options options) {
  return this->map_reduce(function, items, reduce, std::nullopt, options);
}

/// @param initial converts to the result type of @p function; also the result for no items
template <class Backend>
template <class F, std::ranges::input_range Range, class Reduce, class Initial>
  requires(!std::is_same_v<std::decay_t<Initial>, map_options>)
auto Pool<Backend>::map_reduce(F&& function, Range&& items, Reduce&& reduce, Initial&& initial,
                               map_options options) {
  if constexpr (check_map<detail::as_argument, std::decay_t<F>, std::remove_reference_t<Range>>()) {
    return detail::map_reduce<std::decay_t<F>, std::remove_reference_t<Range>,
                              std::decay_t<Reduce>>(core(), function, items, reduce,
                                                    std::forward<Initial>(initial), options);
  }
}

}  // namespace procpool
