// SPDX-License-Identifier: MIT
/// @file
/// What a worker says of its own start: that it has come up, or why it cannot.
#pragma once

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdint>
#include <exception>
#include <new>
#include <string_view>
#include <type_traits>

#include <procpool/error.hpp>

namespace procpool::detail {

/// Travels as it is. All zero: the worker has said nothing.
struct startup_status {
  std::int32_t ready = 0;             ///< 1: it has come up, and takes tasks
  std::int32_t error = 0;             ///< else: the errno of what failed, if it has one
  std::array<char, 184> reason = {};  ///< else: in words, ends with a zero

  /// It cannot come up. @p why is cut to what there is room for.
  void fail(std::string_view why, int code) noexcept {
    ready = 0;
    error = code;
    why = why.substr(0, reason.size() - 1);
    *std::ranges::copy(why, reason.begin()).out = '\0';
  }
  /// In words; empty: it has given none. Ends within what there is, whatever was received.
  [[nodiscard]] std::string_view why() const noexcept {
    return {reason.data(), std::ranges::find(reason, '\0')};
  }
};
static_assert(std::is_trivially_copyable_v<startup_status>);
static_assert(sizeof(startup_status) == 192, "both ends of a pipe have to agree");

/// What can be said of the exception that is being handled.
inline startup_status status_of_exception() noexcept {
  startup_status status;
  try {
    throw;
  } catch (const ProcessError& error) {
    status.fail(error.what(), error.code().value());
  } catch (const std::bad_alloc&) {
    status.fail("there is no memory", ENOMEM);
  } catch (const std::exception& error) {
    const char* what = error.what();
    status.fail(what != nullptr ? what : "", 0);
  } catch (...) {
    status.fail("an exception that is no std::exception", 0);
  }
  return status;
}

}  // namespace procpool::detail
