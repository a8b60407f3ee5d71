// SPDX-License-Identifier: MIT
/// @file
/// Identifies the build of a module without a build id: a hash of its read-only segments (code and
/// constants) in memory. Not of its file, which may have been replaced since.
#pragma once

#include <elf.h>
#include <fcntl.h>
#include <link.h>
#include <sys/types.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <procpool/config.hpp>
#include <procpool/detail/fork/fork_safe_mutex.hpp>
#include <procpool/detail/os/fd.hpp>
#include <procpool/detail/os/syscall.hpp>

namespace procpool::detail {

/// A 128-bit hash. Not collision-resistant: an attacker could as well forge a build id.
class content_hash {
 public:
  /// @param bytes a multiple of 8 bytes, except in the last call
  void add(std::span<const std::byte> bytes) noexcept {
    std::size_t at = 0;
    for (; at + sizeof(std::uint64_t) <= bytes.size(); at += sizeof(std::uint64_t)) {
      std::uint64_t word = 0;
      std::memcpy(&word, bytes.data() + at, sizeof word);
      add(word);
    }
    if (at == bytes.size()) return;
    std::uint64_t rest = 0;
    std::memcpy(&rest, bytes.data() + at, bytes.size() - at);
    add(rest);
  }
  void add(std::uint64_t word) noexcept {
    constexpr std::uint64_t factor0 = 0x9E3779B97F4A7C15U;  // odd, with well spread bits
    constexpr std::uint64_t factor1 = 0xC2B2AE3D27D4EB4FU;
    state_[0] = std::rotl((state_[0] ^ word) * factor0, 31);
    state_[1] = std::rotl((state_[1] + word) * factor1, 29) ^ state_[0];
  }
  [[nodiscard]] std::string text() const { return std::string("content ") + hex(0) + hex(1); }

 private:
  [[nodiscard]] std::string hex(int half) const {
    std::string digits;
    for (int shift = 60; shift >= 0; shift -= 4) {
      digits += "0123456789abcdef"[state_[half] >> shift & 15U];
    }
    return digits;
  }

  std::uint64_t state_[2] = {1, 2};
};

/// Reads memory of this process that may fault: pages of a mapped file that was truncated.
class own_memory {
 public:
  own_memory() : file_(PROCPOOL_SYSTEM(open("/proc/self/mem", O_RDONLY | O_CLOEXEC))) {}

  [[nodiscard]] bool read(std::uintptr_t address, std::span<std::byte> into) const {
    if (!file_) {  // /proc is missing or forbidden: assume that the memory is readable
      std::memcpy(into.data(), reinterpret_cast<const void*>(address), into.size());
      return true;
    }
    const auto got = os::retry([&] {
      return PROCPOOL_SYSTEM(
          pread(file_.get(), into.data(), into.size(), static_cast<off_t>(address)));
    });
    return got == static_cast<ssize_t>(into.size());
  }

 private:
  os::fd file_;
};

/// The content hashes of loaded modules, by base address.
class module_contents {
 public:
  /// Hashes the modules at @p bases, under the loader's lock, so that none is unloaded meanwhile.
  explicit module_contents(std::vector<std::uintptr_t> bases) : bases_(std::move(bases)) {
    if (!bases_.empty()) for_each_module(&module_contents::visit, this);
  }

  /// The hash of the module at @p base. Empty if unknown; then it equals no other module's.
  [[nodiscard]] std::string of(std::uintptr_t base) const {
    for (const auto& [at, text] : found_) {
      if (at == base) return text;
    }
    return {};
  }

 private:
  static int visit(dl_phdr_info* info, std::size_t, void* contents) {
    auto& self = *static_cast<module_contents*>(contents);
    if (std::ranges::find(self.bases_, info->dlpi_addr) == self.bases_.end()) return 0;
    self.found_.emplace_back(info->dlpi_addr, self.describe(*info));
    return 0;
  }

  // Text relocations make the code differ between processes.
  static bool is_relocated(const dl_phdr_info& info, const ElfW(Phdr) & dynamic) {
    const auto* entry = reinterpret_cast<const ElfW(Dyn)*>(info.dlpi_addr + dynamic.p_vaddr);
    for (; entry->d_tag != DT_NULL; ++entry) {
      if (entry->d_tag == DT_TEXTREL) return true;
      if (entry->d_tag == DT_FLAGS && (entry->d_un.d_val & DF_TEXTREL) != 0) return true;
    }
    return false;
  }

  std::string describe(const dl_phdr_info& info) {
    content_hash hash;
    for (const auto& part : std::span(info.dlpi_phdr, info.dlpi_phnum)) {
      if (part.p_type == PT_DYNAMIC && is_relocated(info, part)) return {};
      if (part.p_type != PT_LOAD) continue;
      hash.add(part.p_vaddr);
      hash.add(part.p_memsz);
      if ((part.p_flags & PF_W) != 0 || (part.p_flags & PF_R) == 0) continue;
      if (!add(hash, info.dlpi_addr + part.p_vaddr, part.p_filesz)) return {};
    }
    return hash.text();
  }

  bool add(content_hash& hash, std::uintptr_t address, std::size_t size) {
    while (size > 0) {
      const std::span piece(buffer_.data(), std::min(size, buffer_.size()));
      if (!memory_.read(address, piece)) return false;
      hash.add(piece);
      address += piece.size();
      size -= piece.size();
    }
    return true;
  }

  std::vector<std::uintptr_t> bases_;
  std::vector<std::pair<std::uintptr_t, std::string>> found_;
  std::vector<std::byte> buffer_ = std::vector<std::byte>(std::size_t{64} << 10);
  own_memory memory_;
};

}  // namespace procpool::detail
