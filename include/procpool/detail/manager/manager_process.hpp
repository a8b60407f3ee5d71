// SPDX-License-Identifier: MIT
/// @file
/// A manager as its creator knows it: starting and ending its process. The implementation is in
/// manager_life.hpp, what the process does in manager_server.hpp.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include <procpool/codec.hpp>
#include <procpool/config.hpp>
#include <procpool/detail/codec/handles.hpp>
#include <procpool/detail/heap/held_object.hpp>
#include <procpool/detail/manager/manager_link.hpp>
#include <procpool/detail/process/process_handle.hpp>
#include <procpool/start_method.hpp>

namespace procpool {
namespace detail {

/// What a manager's process gets.
struct manager_ticket {
  object_ref manager;
};

/// The target of a manager's process.
void run_manager(const manager_ticket& ticket);

/// Asks the process to end.
void end_manager(const held_object& manager) noexcept;

/// Shared by the copies of a Manager.
class manager_process {
 public:
  /// Starts the process. @throws ProcessError
  manager_process(std::string name, std::optional<start_method> method);
  manager_process(const manager_process&) = delete;
  manager_process& operator=(const manager_process&) = delete;
  /// Shuts it down, unless this is a forked child of the creator.
  ~manager_process();

  /// @throws std::logic_error in a process that has not made it
  void shutdown();

  [[nodiscard]] const std::shared_ptr<manager_link>& link() const noexcept { return link_; }
  [[nodiscard]] child_process& process() const noexcept { return *process_; }

 private:
  void wait_until_ready();
  void end() noexcept;

  const std::uint32_t generation_;
  std::shared_ptr<manager_link> link_;
  std::shared_ptr<child_process> process_;
};

}  // namespace detail

template <>
struct codec<detail::manager_ticket> {
  static constexpr std::size_t min_wire_size = sizeof(detail::object_wire);

  static void encode(encoder& out, const detail::manager_ticket& ticket) {
    detail::put_object(out, ticket.manager);
  }
  static detail::manager_ticket decode(decoder& in) {
    return {detail::get_object(in, detail::object_kind::manager)};
  }
};

}  // namespace procpool
