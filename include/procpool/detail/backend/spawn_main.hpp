// SPDX-License-Identifier: MIT
/// @file
/// The main function of a spawned process: reads its spawn_request, then becomes a fork server or
/// the process of a Process. Called by freeze_support().
#pragma once

#include <fcntl.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <procpool/config.hpp>
#include <procpool/detail/backend/fork_server.hpp>
#include <procpool/detail/backend/worker_event.hpp>
#include <procpool/detail/child/child.hpp>
#include <procpool/detail/heap/heap.hpp>
#include <procpool/detail/module/module_table.hpp>
#include <procpool/detail/os/fd.hpp>
#include <procpool/detail/os/stdio.hpp>
#include <procpool/detail/process/process_lifetime.hpp>
#include <procpool/detail/process/process_report.hpp>
#include <procpool/detail/process/process_start.hpp>
#include <procpool/detail/process/process_target.hpp>
#include <procpool/detail/process/spawn_request.hpp>
#include <procpool/start_method.hpp>

namespace procpool::detail {

/// Takes over a descriptor that this process has inherited. @throws ProcessError when it is missing
inline os::fd take_given(given which) {
  const int number = static_cast<int>(which);
  os::check(PROCPOOL_SYSTEM(fcntl(number, F_SETFD, FD_CLOEXEC)),
            "a spawned process was started by something else than procpool (fcntl)");
  return os::fd(number);
}

/// Reports the missing modules and the places of the others to the pool, then serves it.
[[noreturn]] inline void become_fork_server(process_identity workers, os::fd channel,
                                            std::size_t modules,
                                            const std::vector<std::uint32_t>& missing) {
  using kind = worker_event::kind_type;
  os::message_socket control(std::move(channel));
  for (const std::uint32_t module : missing) {
    static_cast<void>(control.send(worker_event{kind::missing_module, module, 0, 0, 0}));
  }
  for (std::uint32_t module = 0; module < modules; ++module) {  // for the stacks of crashes
    const module_entry* own = module_table::instance().entry(module);
    if (own == nullptr || !own->loaded()) continue;
    static_cast<void>(control.send(worker_event{kind::module_place, module, own->base, 0, 0}));
  }
  static_cast<void>(control.send(worker_event{kind::ready, 0, 0, 0, 0}));
  fork_server(std::move(control), std::move(workers)).run();
}

/// Decodes the target. By value: the request is destroyed here, because leave_child() does not
/// destroy the variables of the caller.
inline std::unique_ptr<process_target> decode_target(spawn_request request) {
  try {
    const auto make = reinterpret_cast<target_maker>(code_address(request.entry));
    return make({request.body.data(), request.body.size()});
  } catch (...) {
    uncaught(process_context::instance().identity().name);
    leave_child(1);
  }
}

/// Waits until the parent opens the gate, then runs the target of a Process.
[[noreturn]] inline void become_process(spawn_request request, os::fd gate) {
  char go = 0;
  if (os::retry([&] { return PROCPOOL_SYSTEM(read(gate.get(), &go, 1)); }) != 1) os::leave_now(1);
  gate.reset();
  enter_spawned(std::move(request.identity));
  auto target = decode_target(std::move(request));
  leave_child(run_target(std::move(target)));
}

[[noreturn]] inline void run_spawned() {
  // Output that static objects have written by now is this process's own: it must not be lost.
  os::flush_standard_streams();
  std::fflush(nullptr);
  os::other_streams::state().flushed_at_fork = true;
  os::fd channel = take_given(given::channel);
  spawn_request request = read_request(take_given(given::request));  // closed: not needed any more
  request.identity.parent->process = std::make_shared<const os::fd>(take_given(given::parent));
  if (request.has_heap) {
    join_heap(take_given(given::heap), take_given(given::store_in), take_given(given::store_out));
  }
  default_start_method::instance().set(request.method, true);
  const auto missing = module_table::instance().adopt(request.modules);
  if (request.purpose == spawn_request::purpose_type::fork_server) {
    become_fork_server(std::move(request.identity), std::move(channel), request.modules.size(),
                       missing);
  }
  become_process(std::move(request), std::move(channel));
}

PROCPOOL_FUNCTION void take_part_in_spawning(int argc, char** argv) {
  spawn_state& state = spawn_state::instance();
  state.takes_part = true;
  if (argc > 0) state.name = argv[0];
  state.program.set_arguments(argc);
  // At any position: the program may be started through a script that adds arguments of its own.
  const std::span arguments(argv, static_cast<std::size_t>(argc));
  if (std::ranges::find(arguments, std::string_view(spawned_mark)) == arguments.end()) return;
  try {
    run_spawned();
  } catch (...) {
    uncaught("a spawned process");
    os::flush_standard_streams();
    os::leave_now(1);
  }
}

PROCPOOL_FUNCTION void spawn_program(const std::string& path) {
  spawn_state::instance().program = {path, path, {}};
}

}  // namespace procpool::detail
