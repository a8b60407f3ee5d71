// SPDX-License-Identifier: MIT
/// @file
/// The table of modules (the program and its shared libraries) that code_ref refers to. They are
/// numbered in the order in which this process found them. A forked process has the same table; a
/// spawned one takes over the numbers by matching build ids.
#pragma once

#include <elf.h>
#include <link.h>

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <iterator>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <procpool/config.hpp>
#include <procpool/detail/base/type_name.hpp>
#include <procpool/detail/fork/fork_safe_mutex.hpp>
#include <procpool/detail/module/code_ref.hpp>
#include <procpool/detail/module/module_content.hpp>
#include <procpool/detail/module/symbols.hpp>
#include <procpool/detail/os/one_per_process.hpp>

namespace procpool::detail {

/// A loaded program or library; `begin` and `end` are 0 once it is unloaded.
struct module_entry {
  std::uintptr_t base = 0;
  std::uintptr_t begin = 0;  ///< begin and end of its executable segment
  std::uintptr_t end = 0;
  std::string name;
  std::string build;         ///< the build id; for a module without one, the size of its code
  bool has_build_id = true;  ///< false: its content identifies the build (module_content.hpp)

  [[nodiscard]] bool loaded() const { return end != 0; }
  friend bool operator==(const module_entry&, const module_entry&) = default;
};

/// The identity of a module, comparable between processes.
struct module_id {
  std::string name;
  std::string build;  ///< its build id, or else its content hash; empty: matches no other
};

/// The modules of this process. Thread-safe without a lock: a lock that another thread holds during
/// a fork would stay locked in the child. Entries are never renumbered.
class module_table {
 public:
  using list = std::vector<module_entry>;

  static module_table& instance() {
    static auto& table = os::one_per_process<module_table>("module table");
    return table;
  }

  /// Looks for modules loaded or unloaded since the last call. @returns the size of the table
  std::uint32_t refresh() {
    const generation* known = newest_.load(std::memory_order_acquire);  // to read its entries
    while (true) {
      module_list now;
      for_each_module(&module_table::note, &now);
      auto next = std::make_unique<generation>(generation{known->modules, now.unloaded, known});
      if (!update(next->modules, std::move(now.modules)) && now.unloaded == known->unloaded) break;
      if (newest_.compare_exchange_strong(known, next.get(), std::memory_order_acq_rel)) {
        known = next.release();  // never freed, because readers hold no lock
      }
    }
    return static_cast<std::uint32_t>(known->modules.size());
  }

  /// The module and offset of @p address. @throws std::invalid_argument if in no module's code.
  [[nodiscard]] code_ref find(std::uintptr_t address) {
    constexpr int max_attempts = 4;  // other threads may load and unload modules meanwhile
    for (int attempt = 0; attempt < max_attempts; ++attempt) {
      if (attempt > 0) refresh();
      const code_ref found = look_up(address);
      if (found.module != no_module) return found;
    }
    throw std::invalid_argument("the function to run is not code of the program or of a library");
  }

  /// The address of @p code in this process. @throws std::invalid_argument if it is not loaded here
  [[nodiscard]] std::uintptr_t address(code_ref code) const {
    const list& known = modules();
    if (code.module >= known.size())
      missing("a library that was loaded after this process was made");
    const module_entry& module = known[code.module];
    if (!module.loaded()) missing(module.name.empty() ? "the program" : module.name);
    return module.base + code.offset;
  }

  [[nodiscard]] std::string name(std::uint32_t module) const { return modules().at(module).name; }

  /// The entry number @p module; null if there is none.
  [[nodiscard]] const module_entry* entry(std::uint32_t module) const {
    const list& known = modules();
    return module < known.size() ? &known[module] : nullptr;
  }

  /// The identities of all modules, in the order of their numbers.
  [[nodiscard]] std::vector<module_id> identities() const { return identities_of(modules()); }

  /// Renumbers the modules of this process like @p others, those of the process that spawned it.
  /// Call it while there is one thread. @returns the numbers of modules that are missing here or
  /// are another build
  [[nodiscard]] std::vector<std::uint32_t> adopt(const std::vector<module_id>& others) {
    refresh();
    list own = modules();
    std::vector<module_id> own_ids = identities_of(own);
    list numbered;
    std::vector<std::uint32_t> missing;
    for (const module_id& wanted : others) {
      const auto found = std::ranges::find_if(own_ids, [&](const module_id& each) {
        return each.name == wanted.name && each.build == wanted.build && !each.build.empty();
      });
      if (found == own_ids.end()) {
        missing.push_back(static_cast<std::uint32_t>(numbered.size()));
        numbered.push_back({.name = wanted.name, .build = wanted.build});
      } else {
        const auto at = own.begin() + (found - own_ids.begin());
        numbered.push_back(std::move(*at));
        own.erase(at);
        own_ids.erase(found);
      }
    }
    for (module_entry& each : own) numbered.push_back(std::move(each));
    const generation* known = newest_.load(std::memory_order_relaxed);  // one thread
    newest_.store(new generation{std::move(numbered), known->unloaded, known},
                  std::memory_order_relaxed);  // likewise
    return missing;
  }

 private:
  [[noreturn]] static void missing(const std::string& module) {
    throw std::invalid_argument("the function to run is in " + module +
                                ": this process does not have it, or has another build of it");
  }

  // Reads all of a module without a build id, so it is called only when processes are spawned.
  static std::vector<module_id> identities_of(const list& modules) {
    std::vector<std::uintptr_t> without;
    for (const module_entry& each : modules) {
      if (each.loaded() && !each.has_build_id) without.push_back(each.base);
    }
    const module_contents contents(std::move(without));
    std::vector<module_id> all;
    for (const module_entry& each : modules) {
      all.push_back({each.name, each.has_build_id ? each.build : contents.of(each.base)});
    }
    return all;
  }

  struct generation {
    list modules;
    unsigned long long unloaded;  ///< the loader's unload count when this was made
    const generation* older;      ///< keeps old generations reachable for leak checkers
  };

  struct module_list {
    list modules;
    unsigned long long unloaded = 0;  ///< modules unloaded since the process started (dlpi_subs)
  };

  static int note(dl_phdr_info* info, std::size_t, void* result) {
    module_list& now = *static_cast<module_list*>(result);
    now.unloaded = info->dlpi_subs;
    module_entry found{info->dlpi_addr, 0, 0, info->dlpi_name, {}, true};
    for (int i = 0; i < info->dlpi_phnum; ++i) {
      const auto& part = info->dlpi_phdr[i];
      if (part.p_type == PT_NOTE && found.build.empty()) {
        found.build = build_id({reinterpret_cast<const char*>(info->dlpi_addr + part.p_vaddr),
                                static_cast<std::size_t>(part.p_memsz)});
      }
      if (part.p_type != PT_LOAD || (part.p_flags & PF_X) == 0) continue;
      found.begin = info->dlpi_addr + part.p_vaddr;
      found.end = found.begin + part.p_memsz;
    }
    found.has_build_id = !found.build.empty();
    if (!found.has_build_id) found.build = std::to_string(found.end - found.begin);
    if (found.loaded()) now.modules.push_back(std::move(found));
    return 0;
  }

  /// Updates @p known to the modules @p present. A library that is loaded again gets a new number,
  /// because pools made in between do not have it. @returns whether anything has changed
  static bool update(list& known, list present) {
    bool changed = false;
    for (module_entry& each : known) {
      if (!each.loaded() || std::erase(present, each) != 0) continue;
      each.base = each.begin = each.end = 0;
      changed = true;
    }
    changed = changed || !present.empty();
    std::ranges::move(present, std::back_inserter(known));
    return changed;
  }

  /// Whether libraries have been unloaded since @p known was made. Asks the loader, under its lock.
  [[nodiscard]] static bool outdated(const generation& known) {
    unsigned long long unloaded = 0;
    for_each_module(
        [](dl_phdr_info* info, std::size_t, void* result) {
          *static_cast<unsigned long long*>(result) = info->dlpi_subs;
          return 1;  // stop: dlpi_subs is the same for all modules
        },
        &unloaded);
    return unloaded != known.unloaded;
  }

  // The NT_GNU_BUILD_ID note in a segment of notes (elf(5)); empty if there is none.
  static std::string build_id(std::string_view notes) {
    constexpr std::size_t alignment = 4;
    const auto round = [](std::size_t n) { return (n + alignment - 1) / alignment * alignment; };
    while (notes.size() >= sizeof(ElfW(Nhdr))) {
      ElfW(Nhdr) head;
      std::memcpy(&head, notes.data(), sizeof head);
      const std::size_t text = sizeof head + round(head.n_namesz);
      const std::size_t end = text + round(head.n_descsz);
      if (end > notes.size()) break;
      const std::string_view owner = notes.substr(sizeof head, head.n_namesz);
      if (head.n_type == NT_GNU_BUILD_ID && owner == std::string_view("GNU\0", 4)) {
        return std::string(notes.substr(text, head.n_descsz));
      }
      notes.remove_prefix(end);
    }
    return {};
  }

  // no_module if @p address is in no known module, or in a library that may have been unloaded. The
  // program itself is never unloaded.
  [[nodiscard]] code_ref look_up(std::uintptr_t address) const {
    const generation& known = newest();
    for (const module_entry& module : known.modules) {
      if (address - module.begin >= module.end - module.begin) continue;
      if (!module.name.empty() && outdated(known)) break;
      return {address - module.base, static_cast<std::uint32_t>(&module - known.modules.data())};
    }
    return {0, no_module};
  }

  [[nodiscard]] const generation& newest() const noexcept {
    return *newest_.load(std::memory_order_acquire);  // to read its entries
  }
  [[nodiscard]] const list& modules() const noexcept { return newest().modules; }

  static constexpr std::uint32_t no_module = ~std::uint32_t{0};

  generation empty_{{}, 0, nullptr};
  std::atomic<const generation*> newest_{&empty_};
};

/// Made before main: if another thread were making the static object during a fork, its guard would
/// stay locked in the child.
inline auto& module_table_made_early = module_table::instance();

PROCPOOL_FUNCTION code_ref find_code(std::uintptr_t address) {
  return module_table::instance().find(address);
}

PROCPOOL_FUNCTION std::uintptr_t code_address(code_ref code) {
  return module_table::instance().address(code);
}

PROCPOOL_FUNCTION std::string symbol_name(std::uintptr_t address) {
  thread_local os::code_place last;
  if (last.address != address) {
    os::code_place place{.address = address, .lookup = address};
    os::name_code({&place, 1});
    last = std::move(place);
  }
  if (last.function.empty() || last.begin != address) return "";
  // A C function called "f" would be demangled as the type float.
  return last.function.starts_with("_Z") ? demangle(last.function.c_str()) : last.function;
}

}  // namespace procpool::detail
