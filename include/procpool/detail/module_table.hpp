// SPDX-License-Identifier: MIT
// Level 4: channels.
/// @file
/// The modules that code_ref.hpp names code by. Modules are the
/// program and its shared libraries, numbered in the order in which this process met them; a
/// process made from this one by fork has the same table, one made by spawn matches build ids.
#pragma once

#include <link.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include <procpool/config.hpp>
#include <procpool/detail/code_ref.hpp>
#include <procpool/detail/os/symbols.hpp>
#include <procpool/detail/type_name.hpp>

namespace procpool::detail {

/// One program or library that is loaded.
struct module_entry {
  std::uintptr_t base = 0;
  std::uintptr_t begin = 0;  ///< of its executable part
  std::uintptr_t end = 0;
  std::string name;
};

/// The modules of this process. Thread-safe without a lock, because a lock that another thread
/// holds while this process forks would stay locked in the child. Entries are never renumbered.
class module_table {
 public:
  using list = std::vector<module_entry>;

  static module_table& instance() {
    static module_table table;
    return table;
  }

  /// Looks for modules loaded since the last time. @returns how many are known now.
  std::uint32_t refresh() {
    const generation* known = newest_.load(std::memory_order_acquire);  // made by another thread
    while (true) {
      auto wider = std::make_unique<generation>(generation{known->modules, known});
      dl_iterate_phdr(&module_table::note, &wider->modules);
      if (wider->modules.size() == known->modules.size()) break;
      if (newest_.compare_exchange_strong(known, wider.get(), std::memory_order_acq_rel)) {
        known = wider.release();  // stays for ever: readers have no lock
      }
    }
    return static_cast<std::uint32_t>(known->modules.size());
  }

  /// Where @p address lies. @throws std::invalid_argument when it is no code of any module.
  [[nodiscard]] code_ref find(std::uintptr_t address) {
    if (const auto known = look_up(address)) return *known;
    refresh();
    if (const auto known = look_up(address)) return *known;
    throw std::invalid_argument("the function to run is not code of the program or of a library");
  }

  /// The address of @p code in this process.
  [[nodiscard]] std::uintptr_t address(code_ref code) const {
    return modules().at(code.module).base + code.offset;
  }

  [[nodiscard]] std::string name(std::uint32_t module) const { return modules().at(module).name; }

 private:
  static int note(dl_phdr_info* info, std::size_t, void* modules) {
    module_entry found{info->dlpi_addr, 0, 0, info->dlpi_name};
    for (int i = 0; i < info->dlpi_phnum; ++i) {
      const auto& part = info->dlpi_phdr[i];
      if (part.p_type != PT_LOAD || (part.p_flags & PF_X) == 0) continue;
      found.begin = info->dlpi_addr + part.p_vaddr;
      found.end = found.begin + part.p_memsz;
    }
    if (found.end != 0) add(*static_cast<list*>(modules), std::move(found));
    return 0;
  }

  static void add(list& modules, module_entry found) {
    for (const module_entry& known : modules) {
      if (known.begin == found.begin && known.name == found.name) return;
    }
    modules.push_back(std::move(found));
  }

  [[nodiscard]] std::optional<code_ref> look_up(std::uintptr_t address) const {
    const list& known = modules();
    for (std::uint32_t i = 0; i < known.size(); ++i) {
      const module_entry& module = known[i];
      if (address >= module.begin && address < module.end)
        return code_ref{address - module.base, i};
    }
    return std::nullopt;
  }

  struct generation {
    list modules;
    const generation* older;  ///< kept reachable, for leak checkers
  };

  [[nodiscard]] const list& modules() const noexcept {
    return newest_.load(std::memory_order_acquire)->modules;  // the entries behind the pointer
  }

  generation empty_{{}, nullptr};
  std::atomic<const generation*> newest_{&empty_};
};

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
