// SPDX-License-Identifier: MIT
/// @file
/// Function names for code addresses of this process, for messages. The dynamic linker knows
/// exported functions. The others (static functions, lambdas, most of any program) are looked up in
/// the symbol table of the module's file.
///
/// The file may have changed since it was loaded. It is read in pieces with pread(2), because a
/// mapping of a truncated file would raise SIGBUS. Every number in it is checked: a damaged file
/// costs names and does no other harm.
#pragma once

#include <dlfcn.h>
#include <elf.h>
#include <fcntl.h>
#include <link.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <procpool/detail/base/concat.hpp>
#include <procpool/detail/base/type_name.hpp>
#include <procpool/detail/fork/fork_safe_mutex.hpp>
#include <procpool/detail/module/program.hpp>
#include <procpool/detail/os/fd.hpp>
#include <procpool/detail/os/syscall.hpp>

namespace procpool::detail::os {

/// A code address and, after name_code(), its function and module.
struct code_place {
  std::uintptr_t address = 0;
  /// The address to look up. For a return address: one less, as it may be in the next function.
  std::uintptr_t lookup = 0;
  std::string function = {};  ///< mangled, as the linker knows it; empty: unknown
  std::string module = {};    ///< name of its file; empty: not in code that is loaded here
  std::uintptr_t begin = 0;   ///< of the function; if unknown, of the module
};

/// The bytes of a part of a module's file, as they are in memory.
struct module_piece {
  std::uint64_t offset = 0;  ///< in the file
  std::vector<char> bytes = {};
};

/// A program or library in memory.
struct loaded_module {
  std::string path = {};  ///< empty: the program
  std::uintptr_t base = 0;
  std::uintptr_t begin = 0;  ///< of its code
  std::uintptr_t end = 0;
  std::vector<module_piece> notes = {};  ///< the build id among them

  [[nodiscard]] bool holds(std::uintptr_t address) const noexcept {
    return begin <= address && address < end;
  }
};

/// Finds the module whose code contains an address.
class module_search {
 public:
  static std::optional<loaded_module> find(std::uintptr_t address) {
    module_search search(address);
    if (for_each_module(&module_search::visit, &search) == 0) return std::nullopt;
    return std::move(search.found_);
  }

 private:
  explicit module_search(std::uintptr_t address) : address_(address) {}

  static int visit(dl_phdr_info* info, std::size_t, void* search) {
    return static_cast<module_search*>(search)->take_if_inside(*info) ? 1 : 0;
  }

  bool take_if_inside(const dl_phdr_info& info) {
    const std::span parts(info.dlpi_phdr, info.dlpi_phnum);
    for (const auto& part : parts) {
      const std::uintptr_t begin = info.dlpi_addr + part.p_vaddr;
      if (part.p_type != PT_LOAD || (part.p_flags & PF_X) == 0) continue;
      if (address_ - begin >= part.p_memsz) continue;
      found_ = {info.dlpi_name, info.dlpi_addr, begin, begin + part.p_memsz};
      for (const auto& each : parts) add_note(parts, each);
      return true;
    }
    return false;
  }

  void add_note(std::span<const ElfW(Phdr)> parts, const ElfW(Phdr) & note) {
    constexpr std::size_t max_size = 4096;
    if (note.p_type != PT_NOTE || note.p_filesz > max_size) return;
    for (const auto& part : parts) {
      const auto at = note.p_vaddr - part.p_vaddr;
      if (part.p_type != PT_LOAD || at >= part.p_filesz) continue;
      if (note.p_filesz > part.p_filesz - at) continue;
      const char* begin = reinterpret_cast<const char*>(found_.base + note.p_vaddr);
      found_.notes.push_back({note.p_offset, {begin, begin + note.p_filesz}});
    }
  }

  std::uintptr_t address_;
  loaded_module found_;
};

/// The function names of an ELF file for this kind of machine.
class elf_file {
 public:
  explicit elf_file(fd file) noexcept : file_(std::move(file)) {}

  /// Opens the file of @p module; has no names if the file is not the build in memory.
  static elf_file of(const loaded_module& module) {
    const char* path = module.path.empty() ? program_file::own().path.c_str() : module.path.c_str();
    const int flags = O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK;  // it may be any kind of file
    const bool is_path = std::strchr(path, '/') != nullptr;          // the vdso has no file
    elf_file file{fd(is_path ? PROCPOOL_SYSTEM(open(path, flags)) : -1)};
    return file.is_build_of(module) ? std::move(file) : elf_file(fd());
  }

  /// Sets `function` and `begin` of those @p places that a symbol covers. Reorders @p places.
  /// @param base where the module is loaded
  void name(std::span<code_place*> places, std::uintptr_t base) const {
    Elf64_Shdr symbols{};
    Elf64_Shdr strings{};
    if (!find_symbols(symbols, strings)) return;
    std::sort(places.begin(), places.end(),
              [](const auto* a, const auto* b) { return a->lookup < b->lookup; });
    std::array<Elf64_Sym, 512> piece;
    for (std::uint64_t at = 0; at < symbols.sh_size; at += sizeof piece) {
      const std::uint64_t wanted = std::min<std::uint64_t>(sizeof piece, symbols.sh_size - at);
      const std::size_t got = read(piece.data(), wanted, symbols.sh_offset + at);
      for (std::size_t i = 0; i < got / sizeof(Elf64_Sym); ++i)
        match(piece[i], strings, places, base);
      if (got < wanted) return;  // the file is shorter than its header says
    }
  }

 private:
  static constexpr std::size_t longest_name = std::size_t{64} << 10;

  // Reads up to @p size bytes at @p offset. @returns the number of bytes read, 0 on failure
  std::size_t read(void* into, std::size_t size, std::uint64_t offset) const noexcept {
    const auto got = retry([&] {
      return PROCPOOL_SYSTEM(pread(file_.get(), into, size, static_cast<off_t>(offset)));
    });
    return got > 0 ? static_cast<std::size_t>(got) : 0;
  }
  template <class T>
  bool read(T& into, std::uint64_t offset) const noexcept {
    return read(&into, sizeof into, offset) == sizeof into;
  }

  bool is_build_of(const loaded_module& module) const {
    struct stat status {};
    if (!file_ || PROCPOOL_SYSTEM(fstat(file_.get(), &status)) != 0) return false;
    if (!S_ISREG(status.st_mode)) return false;
    for (const module_piece& note : module.notes) {
      std::vector<char> bytes(note.bytes.size());
      if (read(bytes.data(), bytes.size(), note.offset) != bytes.size()) return false;
      if (bytes != note.bytes) return false;
    }
    return true;
  }

  static bool is_readable(const Elf64_Ehdr& head) noexcept {
    constexpr auto order = __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__ ? ELFDATA2LSB : ELFDATA2MSB;
    return std::memcmp(head.e_ident, ELFMAG, SELFMAG) == 0 &&
           head.e_ident[EI_CLASS] == ELFCLASS64 && head.e_ident[EI_DATA] == order &&
           head.e_shentsize == sizeof(Elf64_Shdr);
  }

  bool find_symbols(Elf64_Shdr& symbols, Elf64_Shdr& strings) const noexcept {
    Elf64_Ehdr head{};
    if (!read(head, 0) || !is_readable(head)) return false;
    for (unsigned i = 0; i < head.e_shnum; ++i) {
      if (!read(symbols, head.e_shoff + i * sizeof symbols)) return false;
      if (symbols.sh_type != SHT_SYMTAB) continue;
      return symbols.sh_entsize == sizeof(Elf64_Sym) && symbols.sh_link < head.e_shnum &&
             read(strings, head.e_shoff + symbols.sh_link * sizeof strings);
    }
    return false;
  }

  void match(const Elf64_Sym& symbol, const Elf64_Shdr& strings, std::span<code_place*> places,
             std::uintptr_t base) const {
    const auto type = ELF64_ST_TYPE(symbol.st_info);
    if ((type != STT_FUNC && type != STT_GNU_IFUNC) || symbol.st_shndx == SHN_UNDEF) return;
    const std::uintptr_t begin = base + symbol.st_value;
    auto place = std::lower_bound(places.begin(), places.end(), begin,
                                  [](const auto* a, auto value) { return a->lookup < value; });
    for (; place != places.end() && (*place)->lookup - begin < symbol.st_size; ++place) {
      if (!(*place)->function.empty()) continue;
      (*place)->function = text(strings, symbol.st_name);
      if (!(*place)->function.empty()) (*place)->begin = begin;
    }
  }

  // The name at @p offset in the string table; empty if it is longer than longest_name.
  std::string text(const Elf64_Shdr& strings, std::uint64_t offset) const {
    std::string name;
    std::array<char, 256> piece;
    while (name.size() < longest_name && offset < strings.sh_size) {
      const std::size_t room = std::min<std::uint64_t>(piece.size(), strings.sh_size - offset);
      const std::size_t got = read(piece.data(), room, strings.sh_offset + offset);
      const auto* last = piece.begin() + got;
      const auto* end = std::find<const char*>(piece.begin(), last, '\0');
      name.append(piece.data(), static_cast<std::size_t>(end - piece.begin()));
      if (end != last) return name;
      if (got == 0) return "";
      offset += got;
    }
    return "";
  }

  fd file_;
};

/// Sets `function` and `begin` of @p place if the dynamic linker knows its function.
inline void ask_linker(code_place& place) {
  Dl_info info{};
  if (dladdr(reinterpret_cast<void*>(place.lookup), &info) == 0) return;
  if (info.dli_sname == nullptr || info.dli_saddr == nullptr) return;
  place.function = info.dli_sname;
  place.begin = reinterpret_cast<std::uintptr_t>(info.dli_saddr);
}

/// The module's file name without its folders.
inline std::string short_name(const loaded_module& module) {
  std::string path = module.path.empty() ? program_file::own().path : module.path;
  if (path == kernels_program) {
    std::array<char, 4096> target;
    const auto size = PROCPOOL_SYSTEM(readlink(kernels_program, target.data(), target.size()));
    path = size > 0 ? std::string(target.data(), static_cast<std::size_t>(size)) : "program";
  }
  return path.substr(path.rfind('/') + 1);
}

/// Fills in function, module and begin of @p places, as far as they can be found.
inline void name_code(std::span<code_place> places) {
  for (code_place& place : places) {
    if (!place.module.empty()) continue;  // done with an earlier place in the same module
    const auto module = module_search::find(place.lookup);
    if (!module) continue;
    std::vector<code_place*> unnamed;
    for (code_place& each : places) {
      if (!module->holds(each.lookup)) continue;
      each.module = short_name(*module);
      each.begin = module->base;
      ask_linker(each);
      if (each.function.empty()) unnamed.push_back(&each);
    }
    if (!unnamed.empty()) elf_file::of(*module).name(unnamed, module->base);
  }
}

inline std::string in_hex(std::uintptr_t number) {
  std::array<char, 2 * sizeof number> digits;
  const auto end = std::to_chars(digits.data(), digits.data() + digits.size(), number, 16).ptr;
  return "0x" + std::string(digits.data(), end);
}

/// "function(int) + 0x12 in module", "module + 0x1234", or only the address.
inline std::string describe(const code_place& place) {
  if (place.module.empty()) return in_hex(place.address);
  const std::string offset = " + " + in_hex(place.address - place.begin);
  if (place.function.empty()) return place.module + offset;
  // Only C++ names: a C function called "f" would be demangled as the type float.
  const bool is_mangled = place.function.starts_with("_Z");
  const std::string name = is_mangled ? demangle(place.function.c_str()) : place.function;
  return concat({name, offset, " in ", place.module});
}

}  // namespace procpool::detail::os
