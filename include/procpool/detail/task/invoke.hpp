// SPDX-License-Identifier: MIT
/// @file
/// std::invoke without <functional>, which is large.
#pragma once

#include <tuple>
#include <type_traits>
#include <utility>

namespace procpool::detail {

template <class F, class... A>
constexpr decltype(auto) invoke(F&& callable, A&&... arguments) {
  if constexpr (std::is_member_pointer_v<std::remove_cvref_t<F>>) {
    return std::apply(std::forward<F>(callable),
                      std::forward_as_tuple(std::forward<A>(arguments)...));
  } else {
    return std::forward<F>(callable)(std::forward<A>(arguments)...);
  }
}

}  // namespace procpool::detail
