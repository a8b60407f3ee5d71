// SPDX-License-Identifier: MIT
/// @file
/// The functions of named_memory.hpp. They use the files of /dev/shm directly: shm_open(3) does the
/// same, but needs another library with older versions of the C library.
#pragma once

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <new>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>

#include <procpool/config.hpp>
#include <procpool/detail/base/concat.hpp>
#include <procpool/detail/machine/memory_room.hpp>
#include <procpool/detail/named/named_memory.hpp>
#include <procpool/detail/os/fd.hpp>
#include <procpool/detail/os/memory.hpp>
#include <procpool/detail/os/random.hpp>
#include <procpool/detail/os/stdio.hpp>
#include <procpool/detail/os/syscall.hpp>
#include <procpool/error.hpp>

namespace procpool::detail {

inline constexpr const char* memory_folder = "/dev/shm";

inline std::string path_of_memory(const std::string& name) {
  return concat({memory_folder, "/", name});
}

/// An error about the memory @p name. @param problem "cannot open shared memory"
[[noreturn, gnu::cold]] inline void memory_failed(const char* problem, const std::string& name,
                                                  const char* call, int error,
                                                  std::string_view more = {}) {
  struct stat folder {};
  if (error == ENOENT && PROCPOOL_SYSTEM(stat(memory_folder, &folder)) != 0) {
    more = ": /dev/shm does not exist here; named shared memory needs a tmpfs there";
  }
  os::throw_errno(concat({problem, " \"", name, "\" (", call, ")", more}), error);
}

/// ": N bytes are free in /dev/shm", for errors about its room.
[[gnu::cold]] inline std::string room_for_memory() {
  struct statfs about {};
  if (PROCPOOL_SYSTEM(statfs(memory_folder, &about)) != 0) return {};
  const auto free = std::uint64_t{about.f_bavail} * static_cast<std::uint64_t>(about.f_bsize);
  return concat({": ", free, " bytes are free in /dev/shm"});
}

inline bool has_room_for(std::uint64_t size) noexcept {
  struct statfs about {};
  if (PROCPOOL_SYSTEM(statfs(memory_folder, &about)) != 0) return true;  // to be found out
  if (about.f_blocks == 0) return true;                                  // a tmpfs without limit
  return size / static_cast<std::uint64_t>(about.f_bsize) <= about.f_bavail;
}

inline named_memory_ptr map_memory(const os::fd& file, const std::string& name, std::size_t size) {
  void* at =
      PROCPOOL_SYSTEM(mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, file.get(), 0));
  if (at == MAP_FAILED) memory_failed("cannot map shared memory", name, "mmap", errno);
  try {
    return std::make_shared<const named_memory>(std::span(static_cast<std::byte*>(at), size));
  } catch (...) {
    PROCPOOL_SYSTEM(munmap(at, size));
    throw;
  }
}

inline os::fd open_memory(const std::string& path, int flags) {
  constexpr int always = O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK;  // of shm_open, but the last
  return os::off_stdio(
      os::fd(os::retry([&] { return PROCPOOL_SYSTEM(open(path.c_str(), always | flags, 0600)); })));
}

/// Allocates and maps what was created. @throws ProcessError
inline named_memory_ptr fill_memory(const os::fd& file, const std::string& name, std::size_t size) {
  constexpr const char* problem = "cannot create shared memory";
  // Asked first: the kernel would take all the room there is before it fails.
  if (!has_room_for(size)) memory_failed(problem, name, "fallocate", ENOSPC, room_for_memory());
  constexpr std::size_t small = std::size_t{1} << 20U;  // not worth reading two files
  if (const auto room = size > small ? os::memory_room() : size; size > room) {
    memory_failed(problem, name, "fallocate", ENOMEM,
                  concat({": ", room, " bytes of memory are available"}));
  }
  if (os::set_size(file, size) != 0) memory_failed(problem, name, "ftruncate", errno);
  if (os::reserve_pages(file, size) != 0) {
    const int error = errno;
    memory_failed(problem, name, "fallocate", error, room_for_memory());
  }
  return map_memory(file, name, size);
}

/// Null if the name exists.
inline named_memory_ptr try_create_memory(const std::string& name, std::int64_t size) {
  if (size <= 0) {
    throw std::invalid_argument(
        concat({"the size of a new shared memory must be positive, not ", size}));
  }
  const std::string path = path_of_memory(name);
  const os::fd file = open_memory(path, O_CREAT | O_EXCL);
  if (!file && errno == EEXIST) return nullptr;
  if (!file) memory_failed("cannot create shared memory", name, "open", errno);
  try {
    return fill_memory(file, name, static_cast<std::size_t>(size));
  } catch (...) {
    PROCPOOL_SYSTEM(unlink(path.c_str()));
    throw;
  }
}

PROCPOOL_FUNCTION named_memory::~named_memory() {
  PROCPOOL_SYSTEM(munmap(bytes_.data(), bytes_.size()));
}

/// Why no file in /dev/shm can have this name; null if one can.
inline const char* fault_of_memory_name(std::string_view name) noexcept {
  constexpr std::size_t longest = 255;  // NAME_MAX of Linux
  if (name.empty()) return "it is empty";
  if (name == "." || name == "..") return "it means a folder";
  if (name.find('/') != std::string_view::npos) return "it contains a slash";
  if (name.find('\0') != std::string_view::npos) return "it contains a NUL character";
  return name.size() > longest ? "it is too long" : nullptr;
}

PROCPOOL_FUNCTION bool is_memory_name(std::string_view name) noexcept {
  return fault_of_memory_name(name) == nullptr;
}

PROCPOOL_FUNCTION std::string checked_memory_name(std::string_view name) {
  const std::string_view given = name.substr(0, name.find('\0'));  // what() ends at a NUL
  if (name.starts_with('/')) name.remove_prefix(1);
  const char* const fault = fault_of_memory_name(name);
  if (fault == nullptr) return std::string(name);
  throw std::invalid_argument(
      concat({"\"", given.substr(0, 300), "\" cannot be the name of a shared memory: ", fault,
              " (1 to 255 characters, one slash in front is allowed)"}));
}

PROCPOOL_FUNCTION std::string random_memory_name() {
  std::string name = "psm_";
  std::uint64_t number = os::random_number();
  for (int digit = 0; digit < 8; ++digit, number >>= 4U) name += "0123456789abcdef"[number & 15U];
  return name;
}

PROCPOOL_FUNCTION named_memory_ptr create_named_memory(const std::string& name, std::int64_t size) {
  if (auto made = try_create_memory(name, size)) return made;
  memory_failed("cannot create shared memory", name, "open", EEXIST);
}

PROCPOOL_FUNCTION named_memory_ptr create_named_memory(
    std::string& name, std::int64_t size, const std::function<std::string()>& make_name) {
  while (true) {
    name = make_name();
    if (auto made = try_create_memory(name, size)) return made;
  }
}

PROCPOOL_FUNCTION named_memory_ptr attach_named_memory(const std::string& name) {
  constexpr const char* problem = "cannot open shared memory";
  const os::fd file = open_memory(path_of_memory(name), 0);
  if (!file) memory_failed(problem, name, "open", errno);
  struct stat about {};
  if (PROCPOOL_SYSTEM(fstat(file.get(), &about)) != 0) memory_failed(problem, name, "fstat", errno);
  if (!S_ISREG(about.st_mode)) {
    memory_failed(problem, name, "open", EINVAL, ": it is no regular file");
  }
  if (about.st_size <= 0) {
    memory_failed(problem, name, "mmap", EINVAL,
                  ": it has 0 bytes; its creator has not finished, or died");
  }
  return map_memory(file, name, static_cast<std::size_t>(about.st_size));
}

PROCPOOL_FUNCTION void unlink_named_memory(const std::string& name) {
  if (PROCPOOL_SYSTEM(unlink(path_of_memory(name).c_str())) == 0) return;
  memory_failed("cannot unlink shared memory", name, "unlink", errno);
}

PROCPOOL_FUNCTION void forget_named_memory(const std::string& name) noexcept {
  try {
    PROCPOOL_SYSTEM(unlink(path_of_memory(name).c_str()));
  } catch (const std::bad_alloc&) {  // the name stays
  }
}

}  // namespace procpool::detail
