// SPDX-License-Identifier: MIT
/// @file
/// The file of the program that this process runs, and how to start it again. Also works if it was
/// started through the dynamic linker (`ld.so --library-path lib ./app`), or without /proc.
#pragma once

#include <elf.h>
#include <limits.h>
#include <link.h>
#include <sys/auxv.h>
#include <unistd.h>

#include <array>
#include <cstddef>
#include <span>
#include <string>
#include <vector>

#include <procpool/config.hpp>
#include <procpool/detail/fork/fork_safe_mutex.hpp>
#include <procpool/detail/machine/cpu.hpp>

namespace procpool::detail::os {

/// A link to the running file, which works even if the file has been replaced or removed since.
inline constexpr const char* kernels_program = "/proc/self/exe";

/// Whether the user started the dynamic linker, which then loaded the program: the kernel has
/// loaded no linker (AT_BASE is 0, getauxval(3)), though the program names one (PT_INTERP).
inline bool started_by_linker() {
  if (PROCPOOL_SYSTEM(getauxval(AT_BASE)) != 0) return false;
  bool names_linker = false;
  for_each_module(
      [](dl_phdr_info* info, std::size_t, void* result) {
        for (const auto& part : std::span(info->dlpi_phdr, info->dlpi_phnum)) {
          if (part.p_type == PT_INTERP) *static_cast<bool*>(result) = true;
        }
        return 1;  // the program comes first
      },
      &names_linker);
  return names_linker;
}

/// The path under which the program was started; a relative one is completed with the current
/// folder. (If the user started the dynamic linker, glibc has put the program's path there.)
inline std::string started_as() {
  constexpr unsigned long none = -1UL;  // a failure that a test injects
  const unsigned long name = PROCPOOL_SYSTEM(getauxval(AT_EXECFN));
  std::string path = name != 0 && name != none ? reinterpret_cast<const char*>(name) : "";
  if (path.find('/') == std::string::npos || path.front() == '/') return path;
  std::array<char, PATH_MAX> folder;
  if (PROCPOOL_SYSTEM(getcwd(folder.data(), folder.size())) == nullptr) return path;
  return folder.data() + ("/" + path);
}

/// The program's file, determined at program start, because the current folder may change later.
struct program_file {
  std::string path = kernels_program;  ///< the file of the program
  /// The file to execute, and the arguments that precede the program's own. Both differ from the
  /// program's if the user started the linker: its file, its options and the program's path.
  std::string run = kernels_program;
  std::vector<std::string> words = {};

  /// That of this process; made before main.
  static program_file& own() {
    static program_file& only = *new program_file(find());  // never destroyed, for exit handlers
    return only;
  }

  /// Sets the linker's options, if the user started it. @param arguments main's argc
  void set_arguments(int arguments) {
    if (words.empty()) return;
    const std::string all = read_small_file("/proc/self/cmdline");
    auto given = split(all, '\0');  // the linker's arguments, then the program's
    const auto own = static_cast<std::size_t>(arguments);
    if (own == 0 || given.size() <= own) return;
    given.resize(given.size() - own);  // the linker's name and its options
    words.assign(given.begin(), given.end());
    words.push_back(path);
  }

 private:
  static program_file find() {
    program_file found;
    if (PROCPOOL_SYSTEM(access(kernels_program, F_OK)) != 0) {  // no /proc
      found.path = found.run = started_as();
    } else if (started_by_linker()) {
      found.path = started_as();
      found.words = {"ld.so", found.path};
    }
    return found;
  }
};

inline auto& own_program_made_early = program_file::own();

}  // namespace procpool::detail::os
