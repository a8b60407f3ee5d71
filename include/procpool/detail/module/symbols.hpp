// SPDX-License-Identifier: MIT
/// @file
/// Names for code addresses of this process, for messages to people. The dynamic linker knows what
/// modules export; the rest (static functions, lambdas, most of any program) is looked up in the
/// symbol table of the module's file.
///
/// A file may be anything by now. It is read piece by piece with pread(2), since a mapping of a
/// file that somebody shortens would end in SIGBUS, and no number in it is used unchecked: what is
/// wrong with a file costs names, never more.
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

/// An address in code, and what is found out about it.
struct code_place {
  std::uintptr_t address = 0;
  /// Where to look: an address that a call returns to may already belong to the next function.
  std::uintptr_t lookup = 0;
  std::string function = {};  ///< as the linker knows it, mangled; empty: not known
  std::string module = {};    ///< name of its file; empty: no code that is loaded here
  std::uintptr_t begin = 0;   ///< of the function, or else of the module
};

/// A piece of a module's file as it is in memory.
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

/// Finds the module whose code an address is.
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
    return static_cast<module_search*>(search)->is_in(*info) ? 1 : 0;
  }

  bool is_in(const dl_phdr_info& info) {
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
    constexpr std::size_t longest = 4096;
    if (note.p_type != PT_NOTE || note.p_filesz > longest) return;
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

/// An ELF file of this machine's kind, as far as its functions' names are concerned.
class elf_file {
 public:
  explicit elf_file(fd file) noexcept : file_(std::move(file)) {}

  /// Opens the file of @p module; one that is not the build in memory gives no names.
  static elf_file of(const loaded_module& module) {
    const char* path = module.path.empty() ? program_file::own().path.c_str() : module.path.c_str();
    const int flags = O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK;  // whatever is there now
    const bool is_path = std::strchr(path, '/') != nullptr;  // the kernel's own module has none
    elf_file file{fd(is_path ? PROCPOOL_SYSTEM(open(path, flags)) : -1)};
    return file.is_build_of(module) ? std::move(file) : elf_file(fd());
  }

  /// Fills in the function and its begin for those of @p places that its symbols cover.
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
      if (got < wanted) return;  // the file ends here, whatever it says
    }
  }

 private:
  static constexpr std::size_t longest_name = std::size_t{64} << 10;

  // What could be read of @p size bytes at @p offset.
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

  // The name at @p offset in the table; empty if it does not end within reason.
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

/// What the dynamic linker knows of the function at @p place.
inline void ask_linker(code_place& place) {
  Dl_info info{};
  if (dladdr(reinterpret_cast<void*>(place.lookup), &info) == 0) return;
  if (info.dli_sname == nullptr || info.dli_saddr == nullptr) return;
  place.function = info.dli_sname;
  place.begin = reinterpret_cast<std::uintptr_t>(info.dli_saddr);
}

/// The name of the module's file without its folders.
inline std::string short_name(const loaded_module& module) {
  std::string path = module.path.empty() ? program_file::own().path : module.path;
  if (path == kernels_program) {
    std::array<char, 4096> target;
    const auto size = PROCPOOL_SYSTEM(readlink(kernels_program, target.data(), target.size()));
    path = size > 0 ? std::string(target.data(), static_cast<std::size_t>(size)) : "program";
  }
  return path.substr(path.rfind('/') + 1);
}

/// Finds out all that can be found out about @p places, given their addresses.
inline void name_code(std::span<code_place> places) {
  for (code_place& place : places) {
    if (!place.module.empty()) continue;  // came with another one
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

/// "function(int) + 0x12 in module", "module + 0x1234", or the bare address.
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
