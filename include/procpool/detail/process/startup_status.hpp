// SPDX-License-Identifier: MIT
/// @file
/// The outcome of a worker's start, as the worker reports it: it has come up, or why it cannot.
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

/// Sent as raw bytes through a pipe and a socket. All zero: the worker has reported nothing.
struct startup_status {
  std::int32_t ready = 0;             ///< 1: it has come up and takes tasks
  std::int32_t error = 0;             ///< else: the errno of the failure; 0: none
  std::array<char, 184> reason = {};  ///< else: text, ends with a zero

  /// The worker cannot come up. @p why is cut to the size of the array.
  void fail(std::string_view why, int code) noexcept {
    ready = 0;
    error = code;
    why = why.substr(0, reason.size() - 1);
    *std::ranges::copy(why, reason.begin()).out = '\0';
  }
  /// The reason; empty: none. Ends within the array, whatever was received.
  [[nodiscard]] std::string_view why() const noexcept {
    return {reason.data(), std::ranges::find(reason, '\0')};
  }
};
static_assert(std::is_trivially_copyable_v<startup_status>);
static_assert(sizeof(startup_status) == 192, "both ends of a pipe have to agree");

/// The status for the exception being handled, which ends the worker.
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
