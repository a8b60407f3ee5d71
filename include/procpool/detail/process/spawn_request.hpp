// SPDX-License-Identifier: MIT
/// @file
/// What a spawned process is told by the one that spawns it: who it is and what it is for. Travels
/// as bytes in anonymous memory, whose descriptor it is given.
#pragma once

#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include <procpool/codec.hpp>
#include <procpool/detail/base/byte_buffer.hpp>
#include <procpool/detail/child/spawn.hpp>
#include <procpool/detail/module/code_ref.hpp>
#include <procpool/detail/module/module_table.hpp>
#include <procpool/detail/module/program.hpp>
#include <procpool/detail/os/fd.hpp>
#include <procpool/detail/os/memory.hpp>
#include <procpool/detail/os/one_per_process.hpp>
#include <procpool/detail/process/process_context.hpp>
#include <procpool/start_method.hpp>

namespace procpool::detail {

/// The first argument of a spawned process: no program has this for one of its own.
inline constexpr const char* spawned_mark = "--procpool-spawned-process";

/// What it finds at first_given and behind.
enum class given : int { order = os::first_given, channel, parent };

struct spawn_request {
  enum class purpose_type : std::uint32_t { fork_server, process } purpose{};
  process_identity identity;       ///< its link has no descriptor
  start_method method{};           ///< that it uses itself when none is named
  std::vector<module_id> modules;  ///< of the spawning process
  code_ref entry;                  ///< of a process: process_entry
  std::vector<std::byte> body;     ///< its target and arguments
};

inline void encode_request(encoder& out, const spawn_request& order) {
  out.put(static_cast<std::uint32_t>(order.purpose));
  out.put(order.identity.name);
  out.put(order.identity.daemon);
  out.put(order.identity.position);
  out.put(order.identity.parent->pid);
  out.put(order.identity.parent->name);
  out.put(static_cast<std::uint8_t>(order.method));
  out.count(order.modules.size());
  for (const module_id& each : order.modules) {
    out.put(each.name);
    out.put(each.build);
  }
  out.put(order.entry.offset);
  out.put(order.entry.module);
  out.put(order.body);
}

/// @throws DecodeError
inline spawn_request decode_request(decoder& in) {
  spawn_request order;
  order.purpose = static_cast<spawn_request::purpose_type>(in.get<std::uint32_t>());
  order.identity.name = in.get<std::string>();
  order.identity.daemon = in.get<bool>();
  order.identity.position = in.get<std::vector<int>>();
  parent_link parent;
  parent.pid = in.get<pid_t>();
  parent.name = in.get<std::string>();
  order.identity.parent = std::move(parent);
  order.method = static_cast<start_method>(in.get<std::uint8_t>());
  for (auto left = in.get<std::uint64_t>(); left > 0; --left) {
    std::string name = in.get<std::string>();
    order.modules.push_back({std::move(name), in.get<std::string>()});
  }
  order.entry.offset = in.get<std::uint64_t>();
  order.entry.module = in.get<std::uint32_t>();
  order.body = in.get<std::vector<std::byte>>();
  in.finish();
  return order;
}

/// An order with all but what is special to its purpose. @throws ProcessError
inline spawn_request request_from_here(spawn_request::purpose_type purpose,
                                       process_identity identity) {
  spawn_request order;
  order.purpose = purpose;
  order.identity = std::move(identity);
  order.method = get_start_method();
  static_cast<void>(module_table::instance().refresh());
  order.modules = module_table::instance().identities();
  return order;
}

/// A file that holds the order. @throws ProcessError
inline os::fd write_request(const spawn_request& order) {
  byte_buffer bytes;
  encoder out(bytes);
  encode_request(out, order);
  os::fd file = os::sealed_memory("procpool order", bytes.size());
  const os::mapping memory(file, bytes.size(), PROT_READ | PROT_WRITE);
  std::memcpy(memory.data(), bytes.data(), bytes.size());
  return file;
}

/// @throws ProcessError, DecodeError
inline spawn_request read_request(const os::fd& file) {
  struct stat about {};
  os::check(PROCPOOL_SYSTEM(fstat(file.get(), &about)),
            "cannot read the order of a process (fstat)");
  const auto size = static_cast<std::size_t>(about.st_size);
  const os::mapping memory(file, size, PROT_READ);
  decoder in({memory.data(), size});
  return decode_request(in);
}

/// Of this program: how it was started, and whether it takes part (freeze_support()).
struct spawn_state {
  bool takes_part = false;
  std::string name = "procpool";  ///< argv[0]
  os::program_file program = os::program_file::own();

  static spawn_state& instance() {
    static auto& state = os::one_per_process<spawn_state>("spawn state");
    return state;
  }
};

/// Made before main: the guard of a static object that another thread makes while this process
/// forks would stay taken in the child.
inline auto& spawn_state_made_early = spawn_state::instance();

/// Starts this program afresh for @p order. @p channel is what it talks to us through.
/// @throws std::logic_error when the program does not take part; ProcessError
/// @param environment what changes in it for the new process
inline pid_t spawn_process(const spawn_request& order, int channel, os::first_mask mask,
                           const os::environment_changes& environment = {}) {
  const spawn_state& state = spawn_state::instance();
  if (!state.takes_part) {
    throw std::logic_error(
        "start_method::spawn needs procpool::freeze_support(argc, argv) at the beginning of main, "
        "and "
        "this program has not called it");
  }
  const os::fd text = write_request(order);
  std::vector<std::string> words = state.program.words;
  if (words.empty()) words.push_back(state.name);
  words.emplace_back(spawned_mark);
  const int descriptors[] = {text.get(), channel, order.identity.parent->process->get()};
  return os::spawn_plan(descriptors, mask).run(state.program.run.c_str(), words, environment);
}

}  // namespace procpool::detail
