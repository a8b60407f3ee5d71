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
/// Items are cut into chunks as for map. A worker calls the function for the items of its chunk and
/// reduces the results from left to right, a = reduce(a, result of the next item). The program
/// reduces what the chunks gave, in the order of the input, an initial value in front of them.
///
/// So `reduce` must be associative: reduce(a, reduce(b, c)) as good as reduce(reduce(a, b), c). It
/// need not be commutative. Where it is so only nearly, as the addition of floating-point numbers,
/// the result depends on where the chunks begin, and on nothing else: it is the same each time for
/// the same input and chunk size. The default chunk size depends on the number of workers; give one
/// if results are to be the same on any machine.
///
/// `reduce` takes two values of the type that the function returns, and returns one. It travels as
/// the function does, and runs in the workers and, a copy of it, on the calling thread.
///
/// Failures: the first item by index that failed is thrown, as by map, with its index in
/// WorkerDied::item(). An exception of `reduce` counts as one of the item whose result it took in;
/// of the last steps in the program, it is simply thrown. Items behind a failed one in its chunk
/// are not run: nobody would get their results.
///
/// Options: timeout holds for each item, with its step of the reduction. A chunk whose worker died
/// has lost what it had, so `retries` count for chunks, and each begins with the chunk's first
/// item; current_worker().attempt() counts them for all its items. Without retries no item runs
/// twice.
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

/// @param initial converts to what @p function returns; also the result for no items
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
