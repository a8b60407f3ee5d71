// SPDX-License-Identifier: MIT
/// @file
/// The request that a spawned process gets from the process that spawns it: its identity and its
/// purpose. It is encoded in anonymous memory, whose descriptor the new process inherits.
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
#include <procpool/detail/heap/heap.hpp>
#include <procpool/detail/heap/shared_heap.hpp>
#include <procpool/detail/module/code_ref.hpp>
#include <procpool/detail/module/module_table.hpp>
#include <procpool/detail/module/program.hpp>
#include <procpool/detail/os/fd.hpp>
#include <procpool/detail/os/memory.hpp>
#include <procpool/detail/os/one_per_process.hpp>
#include <procpool/detail/process/process_context.hpp>
#include <procpool/start_method.hpp>

namespace procpool::detail {

/// The argument that marks a spawned process. No program uses it for an argument of its own.
inline constexpr const char* spawned_mark = "--procpool-spawned-process";

/// The descriptors that a spawned process inherits, from first_given on.
/// The last three are those of the shared heap, if there is one.
enum class given : int { request = os::first_given, channel, parent, heap, store_in, store_out };

struct spawn_request {
  enum class purpose_type : std::uint32_t { fork_server, process } purpose{};
  process_identity identity;       ///< the link to the parent is sent without its descriptor
  start_method method{};           ///< the default start method of the new process
  std::vector<module_id> modules;  ///< of the spawning process
  code_ref entry;                  ///< purpose process: the target_maker
  std::vector<std::byte> body;     ///< purpose process: target and arguments, encoded
  bool has_heap = false;           ///< whether the descriptors of the shared heap are given
};

inline void encode_request(encoder& out, const spawn_request& request) {
  out.put(static_cast<std::uint32_t>(request.purpose));
  out.put(request.identity.name);
  out.put(request.identity.daemon);
  out.put(request.identity.position);
  out.put(request.identity.parent->pid);
  out.put(request.identity.parent->name);
  out.put(static_cast<std::uint8_t>(request.method));
  out.count(request.modules.size());
  for (const module_id& each : request.modules) {
    out.put(each.name);
    out.put(each.build);
  }
  out.put(request.entry.offset);
  out.put(request.entry.module);
  out.put(request.body);
  out.put(request.has_heap);
}

/// @throws DecodeError
inline spawn_request decode_request(decoder& in) {
  spawn_request request;
  request.purpose = static_cast<spawn_request::purpose_type>(in.get<std::uint32_t>());
  request.identity.name = in.get<std::string>();
  request.identity.daemon = in.get<bool>();
  request.identity.position = in.get<std::vector<int>>();
  parent_link parent;
  parent.pid = in.get<pid_t>();
  parent.name = in.get<std::string>();
  request.identity.parent = std::move(parent);
  request.method = static_cast<start_method>(in.get<std::uint8_t>());
  for (auto left = in.get<std::uint64_t>(); left > 0; --left) {
    std::string name = in.get<std::string>();
    request.modules.push_back({std::move(name), in.get<std::string>()});
  }
  request.entry.offset = in.get<std::uint64_t>();
  request.entry.module = in.get<std::uint32_t>();
  request.body = in.get<std::vector<std::byte>>();
  request.has_heap = in.get<bool>();
  in.finish();
  return request;
}

/// A request without the members that depend on its purpose. @throws ProcessError
inline spawn_request request_from_here(spawn_request::purpose_type purpose,
                                       process_identity identity) {
  spawn_request request;
  request.purpose = purpose;
  request.identity = std::move(identity);
  request.method = get_start_method();
  static_cast<void>(module_table::instance().refresh());
  request.modules = module_table::instance().identities();
  return request;
}

/// A memory file that holds the encoded request. @throws ProcessError
inline os::fd write_request(const spawn_request& request) {
  byte_buffer bytes;
  encoder out(bytes);
  encode_request(out, request);
  os::fd file = os::sealed_memory("procpool request", bytes.size());
  const os::mapping memory(file, bytes.size(), PROT_READ | PROT_WRITE);
  std::memcpy(memory.data(), bytes.data(), bytes.size());
  return file;
}

/// @throws ProcessError, DecodeError
inline spawn_request read_request(const os::fd& file) {
  struct stat about {};
  os::check(PROCPOOL_SYSTEM(fstat(file.get(), &about)),
            "cannot read the request of a spawned process (fstat)");
  const auto size = static_cast<std::size_t>(about.st_size);
  const os::mapping memory(file, size, PROT_READ);
  decoder in({memory.data(), size});
  return decode_request(in);
}

/// How this program was started, and whether it has called freeze_support().
struct spawn_state {
  bool takes_part = false;
  std::string name = "procpool";  ///< argv[0]
  os::program_file program = os::program_file::own();

  static spawn_state& instance() {
    static auto& state = os::one_per_process<spawn_state>("spawn state");
    return state;
  }
};

/// Made before main. If another thread made it during a fork, the guard of the static object would
/// stay taken in the child.
inline auto& spawn_state_made_early = spawn_state::instance();

/// Starts this program again to serve @p request.
/// @param channel     the new process's end of the channel to this process
/// @param environment changes to the environment of the new process
/// @returns its process id
/// @throws ProcessError; std::logic_error when the program has not called freeze_support()
inline pid_t spawn_process(spawn_request request, int channel, os::first_mask mask,
                           const os::environment_changes& environment = {}) {
  const spawn_state& state = spawn_state::instance();
  if (!state.takes_part) {
    throw std::logic_error(
        "start_method::spawn needs procpool::freeze_support(argc, argv) at the beginning of main, "
        "and this program has not called it");
  }
  const auto heap = use_heap();
  request.has_heap = heap != nullptr && heap->is_complete();
  const os::fd file = write_request(request);
  std::vector<std::string> words = state.program.words;
  if (words.empty()) words.push_back(state.name);
  words.emplace_back(spawned_mark);
  std::vector<int> descriptors{file.get(), channel, request.identity.parent->process->get()};
  if (request.has_heap) {
    for (const int each : heap->descriptors()) descriptors.push_back(each);
  }
  return os::spawn_plan(descriptors, mask).run(state.program.run.c_str(), words, environment);
}

}  // namespace procpool::detail
