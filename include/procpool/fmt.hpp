// SPDX-License-Identifier: MIT
/// @file
/// fmt formatters of the library's errors, outcomes, states and shared objects: `fmt::print("{}\n",
/// error)` writes the text of what(), for a WorkerDied a report of several lines; for a Lock its
/// owner. procpool.hpp does not include this header, and no other header of the library needs fmt.
#pragma once

#include <procpool/config.hpp>  // first, for its errors

#include <fmt/format.h>

#include <sys/types.h>

#include <concepts>
#include <exception>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>

#include <procpool/detail/codec/exception_text.hpp>
#include <procpool/error.hpp>
#include <procpool/outcome.hpp>
#include <procpool/pool.hpp>
#include <procpool/process.hpp>
#include <procpool/synchronize.hpp>
#include <procpool/value.hpp>

namespace procpool::detail {

/// Formats an exception as the text of what(), with the format specifications of strings (width,
/// fill, alignment).
template <class E>
struct error_formatter : fmt::formatter<std::string_view> {
  template <class Context>
  auto format(const E& error, Context& context) const {
    return fmt::formatter<std::string_view>::format(std::string_view(error.what()), context);
  }
};

}  // namespace procpool::detail

// A specialization for each type: one for all types derived from Error would be ambiguous with that
// for std::exception in fmt/std.h.
template <>
struct fmt::formatter<procpool::Error> : procpool::detail::error_formatter<procpool::Error> {};
template <>
struct fmt::formatter<procpool::TimeoutError>
    : procpool::detail::error_formatter<procpool::TimeoutError> {};
template <>
struct fmt::formatter<procpool::CancelledError>
    : procpool::detail::error_formatter<procpool::CancelledError> {};
template <>
struct fmt::formatter<procpool::BrokenPool>
    : procpool::detail::error_formatter<procpool::BrokenPool> {};
template <>
struct fmt::formatter<procpool::PoolClosed>
    : procpool::detail::error_formatter<procpool::PoolClosed> {};
template <>
struct fmt::formatter<procpool::ProcessError>
    : procpool::detail::error_formatter<procpool::ProcessError> {};
template <>
struct fmt::formatter<procpool::EOFError> : procpool::detail::error_formatter<procpool::EOFError> {
};
template <>
struct fmt::formatter<procpool::BrokenPipeError>
    : procpool::detail::error_formatter<procpool::BrokenPipeError> {};
template <>
struct fmt::formatter<procpool::BufferTooShort>
    : procpool::detail::error_formatter<procpool::BufferTooShort> {};
template <>
struct fmt::formatter<procpool::AuthenticationError>
    : procpool::detail::error_formatter<procpool::AuthenticationError> {};
template <>
struct fmt::formatter<procpool::BrokenBarrier>
    : procpool::detail::error_formatter<procpool::BrokenBarrier> {};
template <>
struct fmt::formatter<procpool::DecodeError>
    : procpool::detail::error_formatter<procpool::DecodeError> {};
template <>
struct fmt::formatter<procpool::RemoteError>
    : procpool::detail::error_formatter<procpool::RemoteError> {};
template <>
struct fmt::formatter<procpool::RemoteTraceback>
    : procpool::detail::error_formatter<procpool::RemoteTraceback> {};
template <>
struct fmt::formatter<procpool::MemoryLimitError>
    : procpool::detail::error_formatter<procpool::MemoryLimitError> {};
template <>
struct fmt::formatter<procpool::WorkerDied>
    : procpool::detail::error_formatter<procpool::WorkerDied> {};

/// "active", "closed", "broken", "terminated".
template <>
struct fmt::formatter<procpool::pool_state> : fmt::formatter<std::string_view> {
  template <class Context>
  auto format(procpool::pool_state state, Context& context) const {
    constexpr std::string_view names[] = {"active", "closed", "broken", "terminated"};
    return fmt::formatter<std::string_view>::format(names[static_cast<int>(state)], context);
  }
};

/// The value with the format specifications of its type, or the exception's text in brackets.
template <class T>
  requires(!std::is_void_v<T> && fmt::is_formattable<T>::value)
struct fmt::formatter<procpool::Outcome<T>> : fmt::formatter<T> {
  template <class Context>
  auto format(const procpool::Outcome<T>& outcome, Context& context) const {
    try {
      return fmt::formatter<T>::format(outcome.value(), context);
    } catch (const std::exception& error) {
      return fmt::format_to(context.out(), "[{}]", procpool::detail::what_of(error));
    } catch (...) {
      return fmt::format_to(context.out(), "[an exception that is no std::exception]");
    }
  }
};

namespace procpool::detail {

/// The name of a process: as Python's repr() of a lock has it.
inline std::string name_of_owner(std::optional<pid_t> owner) {
  if (!owner) return "None";
  if (*owner == current_process().pid()) return current_process().name();
  for (const Process& each : active_children()) {
    if (each.pid() == *owner) return each.name();
  }
  return fmt::format("process {}", *owner);
}
inline std::string describe(const Lock& lock) {
  return fmt::format("Lock(owner={})", name_of_owner(lock.owner()));
}
inline std::string describe(const RLock& lock) {
  const auto owner = lock.owner();
  const auto thread = lock.owner_thread();
  std::string name = name_of_owner(owner);
  if (owner && thread && *thread != *owner) name += fmt::format("|thread {}", *thread);
  return fmt::format("RLock(owner={}, count={})", name, owner ? lock.depth() : 0);
}
inline std::string describe(const Semaphore& semaphore) {
  return fmt::format("Semaphore(value={})", semaphore.get_value());
}
inline std::string describe(const BoundedSemaphore& semaphore) {
  return fmt::format("BoundedSemaphore(value={}, maxvalue={})", semaphore.get_value(),
                     semaphore.max_value());
}
inline std::string describe(const Event& event) {
  return event.is_set() ? "Event(set)" : "Event(unset)";
}
inline std::string describe(const Condition& condition) {
  return fmt::format("Condition(owner={}, waiting={})", name_of_owner(condition.owner()),
                     condition.waiting());
}
inline std::string describe(const Barrier& barrier) {
  return fmt::format("Barrier(parties={}, waiting={}{})", barrier.parties(), barrier.n_waiting(),
                     barrier.broken() ? ", broken" : "");
}
template <class T, class L>
std::string describe(const Value<T, L>& value) {
  const std::string owner = name_of_owner(value.get_lock().owner());
  if constexpr (fmt::is_formattable<T>::value) {
    return fmt::format("Value({}, owner={})", value.get(), owner);
  } else {
    return fmt::format("Value(owner={})", owner);
  }
}
template <class T>
std::string describe(const RawValue<T>& value) {
  if constexpr (fmt::is_formattable<T>::value) {
    return fmt::format("RawValue({})", T(value.value()));
  } else {
    return "RawValue()";
  }
}
template <class T, class L>
std::string describe(const Array<T, L>& array) {
  return fmt::format("Array(size={}, owner={})", array.size(),
                     name_of_owner(array.get_lock().owner()));
}

template <class Handle>
concept described_handle = std::derived_from<Handle, object_handle> &&
    requires(const Handle& handle) {
  describe(handle);
};

}  // namespace procpool::detail

/// A shared object: its type, its state, and which process has it.
template <procpool::detail::described_handle Handle>
struct fmt::formatter<Handle> : fmt::formatter<std::string_view> {
  template <class Context>
  auto format(const Handle& handle, Context& context) const {
    return fmt::formatter<std::string_view>::format(procpool::detail::describe(handle), context);
  }
};
