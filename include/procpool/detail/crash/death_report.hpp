// SPDX-License-Identifier: MIT
/// @file
/// Messages and exceptions for items whose worker died. In the parent.
#pragma once

#include <signal.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <procpool/detail/base/concat.hpp>
#include <procpool/detail/base/replayable.hpp>
#include <procpool/detail/codec/exception_text.hpp>
#include <procpool/detail/crash/signal_name.hpp>
#include <procpool/error.hpp>

namespace procpool::detail {

/// "was killed by signal 11 (SIGSEGV) at address 0x10", or the like.
inline std::string describe_end(const worker_death& death) {
  if (!death.cause.empty()) return concat({"was killed by its pool (", death.cause, ")"});
  if (death.exitcode >= 0) return concat({"exited with code ", death.exitcode});
  std::string text =
      concat({"was killed by signal ", -death.exitcode, " (", signal_name(-death.exitcode), ")"});
  if (death.fault_address) {
    char address[2 + 2 * sizeof(std::uintptr_t) + 1];
    std::snprintf(address, sizeof address, "0x%jx",
                  static_cast<std::uintmax_t>(*death.fault_address));
    text = concat({text, " at address ", address});
  }
  const bool is_sender = death.exitcode == -SIGKILL;  // for other signals, the reason is the cause
  if (!death.reason.empty()) text = concat({text, is_sender ? ", " : ": ", death.reason});
  return text;
}

/// Whether a process gets this signal for its own actions.
constexpr bool is_crash(int signal) noexcept {
  return signal == SIGABRT || signal == SIGSEGV || signal == SIGBUS || signal == SIGFPE ||
         signal == SIGILL || signal == SIGSYS || signal == SIGTRAP;
}

/// "worker process 123 (PoolWorker-2) was killed by signal 9 (SIGKILL) while it ran item 4 of f".
inline std::string describe_death(const worker_death& death) {
  std::string text = death.pid != 0 ? concat({"worker process ", death.pid}) : "worker thread";
  if (!death.worker.empty()) text = concat({text, " (", death.worker, ")"});
  text = concat({text, " ", describe_end(death)});
  if (!death.item) return text;
  const bool in_commas = death.exitcode == -SIGKILL && !death.reason.empty();
  text = concat({text, in_commas ? "," : "", " while it ran item ", *death.item});
  if (!death.callable.empty()) text = concat({text, " of ", death.callable});
  return text;
}

/// One line for each frame; equal frames in a row share one.
inline std::string describe_stack(const std::vector<std::string>& stack) {
  std::string text;
  for (std::size_t i = 0; i < stack.size();) {
    std::size_t next = i + 1;
    while (next < stack.size() && stack[next] == stack[i]) ++next;
    text = concat({text, "\n  #", i, " ", stack[i]});
    if (next - i > 1) text = concat({text, " (and ", next - i - 1, " more times)"});
    i = next;
  }
  return text;
}

/// The stack, and one line for each attempt before the last.
inline std::string describe_details(const std::vector<worker_death>& attempts) {
  std::string text = describe_stack(attempts.back().stack);
  for (std::size_t i = 0; i + 1 < attempts.size(); ++i) {
    const worker_death& earlier = attempts[i];
    text = concat({text, "\n  attempt ", earlier.attempt, ": worker process ", earlier.pid, " (",
                   earlier.worker, ") ", describe_end(earlier)});
  }
  return text;
}

inline std::string describe_attempt(const worker_death& death) {
  return death.attempt > 1 ? concat({", attempt ", death.attempt}) : "";
}

/// A stack without the library's frames that called the task: they are the same for every task.
inline std::vector<std::string> without_callers(std::vector<std::string> stack) {
  constexpr std::array<std::string_view, 5> ours{
      "procpool::detail::run_", "procpool::detail::reduce_items<",
      "procpool::detail::packed_arguments<", "procpool::detail::argument_list<",
      "procpool::detail::invoke_member<"};
  constexpr std::string_view deduced = "decltype(auto) ";
  const auto is_ours = [&](std::string_view frame) {
    if (frame.starts_with(deduced)) frame.remove_prefix(deduced.size());
    return std::ranges::any_of(ours, [&](std::string_view name) {
      const auto at = frame.find(name);  // after the result type
      return at != std::string_view::npos && at < frame.find('(');
    });
  };
  const auto first = std::ranges::find_if(stack, is_ours);
  if (first != stack.begin()) stack.erase(first, stack.end());  // a crash in the library shows all
  return stack;
}

/// WorkerDied, for an item whose worker died. @param attempts at the item; the last one is final
inline std::exception_ptr worker_died(std::vector<worker_death> attempts,
                                      std::shared_ptr<const replayable> again) {
  const worker_death& last = attempts.back();
  const std::string text =
      concat({describe_death(last), describe_attempt(last), describe_details(attempts)});
  WorkerDied died(text, std::move(attempts));
  died.keep(std::move(again));
  return std::make_exception_ptr(std::move(died));
}

/// "2 s", "0.05 s".
inline std::string in_seconds(std::chrono::nanoseconds time) {
  char text[32];
  std::snprintf(text, sizeof text, "%g s", std::chrono::duration<double>(time).count());
  return text;
}

/// TimeoutError, for an item that exceeded its time limit, for which its worker was killed.
inline std::exception_ptr too_late(const std::vector<worker_death>& attempts,
                                   std::chrono::nanoseconds limit) {
  const worker_death& last = attempts.back();
  return std::make_exception_ptr(TimeoutError(concat(
      {"item ", last.item.value_or(0), " of ", last.callable, " ran longer than its time limit of ",
       in_seconds(limit), ": worker process ", last.pid, " (", last.worker, ") was killed",
       describe_attempt(last), describe_details(attempts)})));
}

/// TimeoutError, for an item that exceeded its limit of CPU time.
inline std::exception_ptr out_of_time(const std::vector<worker_death>& attempts,
                                      std::chrono::nanoseconds limit) {
  return std::make_exception_ptr(TimeoutError(
      concat({describe_death(attempts.back()), describe_attempt(attempts.back()),
              ": it used up its CPU time of ", in_seconds(limit), describe_details(attempts)})));
}

}  // namespace procpool::detail
