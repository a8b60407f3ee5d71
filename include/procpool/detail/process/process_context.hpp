// SPDX-License-Identifier: MIT
/// @file
/// The identity of the current process: its name, its position in the tree, its parent.
#pragma once

#include <sys/types.h>
#include <unistd.h>

#include <atomic>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <procpool/config.hpp>
#include <procpool/detail/base/stop_token.hpp>
#include <procpool/detail/child/pidfd.hpp>
#include <procpool/detail/child/stoppable_wait.hpp>
#include <procpool/detail/fork/life_line.hpp>
#include <procpool/detail/os/fd.hpp>
#include <procpool/detail/os/one_per_process.hpp>
#include <procpool/detail/process/process_handle.hpp>

namespace procpool::detail {

/// The identity of the current process. A new child writes it while it has one thread; afterwards
/// it is only read. Never destroyed, because handlers at exit read it.
class process_context {
 public:
  static process_context& instance() {
    static auto& context = os::one_per_process<process_context>(
        "process context", []() -> void* { return new process_context; });
    return context;
  }

  [[nodiscard]] const process_identity& identity() const noexcept { return identity_; }

  void become(process_identity identity) {
    identity_ = std::move(identity);
    children_ = 0;
  }

  /// For a process whose descriptors are about to be closed: their numbers are used again, and the
  /// link would later close a descriptor that is not its own.
  void drop_parent() noexcept { identity_.parent.reset(); }

  /// The position of the next child.
  [[nodiscard]] std::vector<int> next_position() {
    auto position = identity_.position;
    position.push_back(++children_);
    return position;
  }

 private:
  process_context() = default;

  process_identity identity_;
  std::atomic<int> children_{0};
};

/// Made before main, so that no fork happens while another thread makes it.
inline const process_context& process_context_made_early = process_context::instance();

PROCPOOL_FUNCTION const process_identity& own_identity() noexcept {
  return process_context::instance().identity();
}

PROCPOOL_FUNCTION bool wait_for_end(const parent_link& parent, const os::deadline& until) {
  return os::wait_readable(parent.process->get(), until);
}

PROCPOOL_FUNCTION bool wait_for_end(const parent_link& parent, const stop_token& stop) {
  return os::wait_readable(parent.process->get(), stop);
}

/// Python's default name: "Process-1" for the first child, "Process-1:2" for the second child of
/// "Process-1".
inline std::string default_process_name(const std::vector<int>& position) {
  std::string name = "Process";
  char separator = '-';
  for (const int number : position) {
    name += std::exchange(separator, ':') + std::to_string(number);
  }
  return name;
}

/// The link that a child of this process gets. Holds a descriptor. @throws ProcessError
inline parent_link link_to_this_process() {
  const pid_t pid = PROCPOOL_SYSTEM(getpid());
  return {pid, process_context::instance().identity().name,
          std::make_shared<const os::fd>(end_of_this_process(pid))};
}

}  // namespace procpool::detail
