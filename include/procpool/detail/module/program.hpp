// SPDX-License-Identifier: MIT
/// @file
/// The file of the program that this process runs, and how to run it once more: also when it was
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

/// Where the kernel has the file that it runs, also when it has been replaced or removed since.
inline constexpr const char* kernels_program = "/proc/self/exe";

/// Whether the file that the kernel runs is the dynamic linker, which has loaded the program: the
/// kernel has loaded none for it (getauxval(3)), though the program names one.
inline bool started_by_linker() {
  if (PROCPOOL_SYSTEM(getauxval(AT_BASE)) != 0) return false;
  bool names_one = false;
  for_each_module(
      [](dl_phdr_info* info, std::size_t, void* result) {
        for (const auto& part : std::span(info->dlpi_phdr, info->dlpi_phnum)) {
          if (part.p_type == PT_INTERP) *static_cast<bool*>(result) = true;
        }
        return 1;  // the program comes first
      },
      &names_one);
  return names_one;
}

/// The program's name as it was started, with the folder of that moment in front of a relative one.
/// (When the dynamic linker has loaded it, glibc has put the program's name there.)
inline std::string started_as() {
  constexpr unsigned long none = -1UL;  // in tests
  const unsigned long name = PROCPOOL_SYSTEM(getauxval(AT_EXECFN));
  std::string path = name != 0 && name != none ? reinterpret_cast<const char*>(name) : "";
  if (path.find('/') == std::string::npos || path.front() == '/') return path;
  std::array<char, PATH_MAX> folder;
  if (PROCPOOL_SYSTEM(getcwd(folder.data(), folder.size())) == nullptr) return path;
  return folder.data() + ("/" + path);
}

/// What is found out when the program starts, because it may go to another folder later.
struct program_file {
  std::string path = kernels_program;  ///< of the program
  /// Run in its place with these words before the program's own: the linker with its options.
  std::string run = kernels_program;
  std::vector<std::string> words = {};

  /// Of this process; made before main.
  static program_file& own() {
    static program_file& only = *new program_file(find());  // asked for in handlers at exit, too
    return only;
  }

  /// @param arguments of main: how many there were
  void set_arguments(int arguments) {
    if (words.empty()) return;
    const std::string all = read_small_file("/proc/self/cmdline");
    auto given = split(all, '\0');  // what the linker was given, and the program behind it
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
