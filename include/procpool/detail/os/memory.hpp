// SPDX-License-Identifier: MIT
/// @file
/// Anonymous shared memory: sealed memfds and mappings of them. No file system has a name for it.
#pragma once

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>

#include <procpool/detail/os/fd.hpp>
#include <procpool/detail/os/stdio.hpp>
#include <procpool/detail/os/syscall.hpp>

namespace procpool::detail::os {

/// The machine's physical memory in bytes; 8 GiB if unknown.
inline std::uint64_t physical_memory() noexcept {
  const long pages = PROCPOOL_SYSTEM(sysconf(_SC_PHYS_PAGES));
  const long page = PROCPOOL_SYSTEM(sysconf(_SC_PAGESIZE));
  constexpr std::uint64_t unknown = std::uint64_t{8} << 30;
  if (pages <= 0 || page <= 0) return unknown;
  return static_cast<std::uint64_t>(pages) * static_cast<std::uint64_t>(page);
}

/// A memory mapping, unmapped by the destructor. Forked children do not inherit it: a child maps
/// what it needs, and cannot damage the rest. Shared mappings are left out of core dumps.
class mapping {
 public:
  mapping() noexcept = default;

  /// Maps all @p size bytes of @p file. @throws ProcessError when there is no address space left
  mapping(const fd& file, std::size_t size, int protection) : size_(size) {
    void* at = PROCPOOL_SYSTEM(mmap(nullptr, size, protection, MAP_SHARED, file.get(), 0));
    if (at == MAP_FAILED) throw_errno("cannot map shared memory for the pool (mmap)");
    data_ = static_cast<std::byte*>(at);
    // On failure children that the user forks inherit the mapping, which does no harm.
    PROCPOOL_SYSTEM(madvise(data_, size_, MADV_DONTFORK));
    // A core dump would make the kernel allocate every page of it, touched or not.
    PROCPOOL_SYSTEM(madvise(data_, size_, MADV_DONTDUMP));
  }

  /// Puts this shared mapping into core dumps of this process after all.
  void include_in_core() const noexcept { PROCPOOL_SYSTEM(madvise(data_, size_, MADV_DODUMP)); }

  /// Maps @p size bytes of private memory. @throws ProcessError
  explicit mapping(std::size_t size) : size_(size) {
    void* at = PROCPOOL_SYSTEM(mmap(nullptr, size, PROT_READ | PROT_WRITE,
                                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
    if (at == MAP_FAILED) throw_errno("cannot map memory for the pool (mmap)");
    data_ = static_cast<std::byte*>(at);
    PROCPOOL_SYSTEM(madvise(data_, size_, MADV_DONTFORK));  // as above
  }

  /// Maps the first @p size bytes of @p file for reading, in forked children too; empty when that
  /// is not possible.
  [[nodiscard]] static mapping inherited(const fd& file, std::size_t size) noexcept {
    mapping made;
    void* at = PROCPOOL_SYSTEM(mmap(nullptr, size, PROT_READ, MAP_SHARED, file.get(), 0));
    if (at == MAP_FAILED) return made;
    made.data_ = static_cast<std::byte*>(at);
    made.size_ = size;
    PROCPOOL_SYSTEM(madvise(made.data_, size, MADV_DONTDUMP));  // as above
    return made;
  }

  mapping(mapping&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}
  mapping& operator=(mapping&& other) noexcept {
    if (this != &other) {
      reset();
      data_ = std::exchange(other.data_, nullptr);
      size_ = std::exchange(other.size_, 0);
    }
    return *this;
  }
  ~mapping() { reset(); }

  [[nodiscard]] std::byte* data() const noexcept { return data_; }
  [[nodiscard]] std::size_t size() const noexcept { return size_; }

  void reset() noexcept {
    if (data_ != nullptr) PROCPOOL_SYSTEM(munmap(std::exchange(data_, nullptr), size_));
  }
  /// Drops the mapping without munmap(2): for a forked child, which did not inherit it.
  void abandon() noexcept { data_ = nullptr; }

 private:
  std::byte* data_ = nullptr;
  std::size_t size_ = 0;
};

/// Allocates the pages of a shared mapping now. Without it the first write into a page that the
/// system cannot allocate ends the process by SIGBUS (vm.overcommit_memory=2). True also on kernels
/// before 5.14, which cannot do this. @param bytes begin at a page
[[nodiscard]] inline bool populate(std::span<std::byte> bytes) noexcept {
  constexpr int populate_write = 23;  // MADV_POPULATE_WRITE, which older headers lack
  const int result =
      retry([&] { return PROCPOOL_SYSTEM(madvise(bytes.data(), bytes.size(), populate_write)); });
  return result == 0 || errno == EINVAL;
}

/// Makes a call that enlarges a file, again when a signal interrupts it. Beyond RLIMIT_FSIZE
/// (ulimit -f) the kernel returns EFBIG and also sends SIGXFSZ to this thread, which would end the
/// program. The signal is blocked and consumed here. @returns what the call returned, with errno
template <class Call>
int enlarge_file(Call call) noexcept {
  sigset_t excess;
  sigset_t mask;
  sigset_t pending;
  sigemptyset(&excess);
  sigaddset(&excess, SIGXFSZ);
  PROCPOOL_SYSTEM(sigpending(&pending));
  PROCPOOL_SYSTEM(pthread_sigmask(SIG_BLOCK, &excess, &mask));
  const int result = retry(call);
  const int error = errno;
  if (result == -1 && error == EFBIG && sigismember(&pending, SIGXFSZ) == 0) {
    const timespec at_once{};
    PROCPOOL_SYSTEM(sigtimedwait(&excess, nullptr, &at_once));
  }
  PROCPOOL_SYSTEM(pthread_sigmask(SIG_SETMASK, &mask, nullptr));
  errno = error;
  return result;
}

/// Sets the size of a file. @returns 0; -1 with errno
inline int set_size(const fd& file, std::size_t size) noexcept {
  return enlarge_file(
      [&] { return PROCPOOL_SYSTEM(ftruncate(file.get(), static_cast<off_t>(size))); });
}

/// Allocates the pages of the first @p size bytes of a file in memory, so that no later access to
/// them fails for want of room (SIGBUS). In steps: a signal that comes again and again undoes one
/// step at most. @returns 0; -1 with errno: ENOSPC, ENOMEM, EFBIG
inline int reserve_pages(const fd& file, std::size_t size) noexcept {
  constexpr std::size_t step = std::size_t{16} << 20;
  for (std::size_t at = 0; at < size; at += step) {
    const std::size_t length = size - at < step ? size - at : step;
    const int result = enlarge_file([&] {
      return PROCPOOL_SYSTEM(
          fallocate(file.get(), 0, static_cast<off_t>(at), static_cast<off_t>(length)));
    });
    if (result != 0) return result;
  }
  return 0;
}

/// A new memfd of @p size bytes, sealed so that no process can change its size.
/// @throws ProcessError when descriptors or memory are exhausted
inline fd sealed_memory(const char* name, std::size_t size) {
  fd file = off_stdio(fd(check(PROCPOOL_SYSTEM(memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING)),
                               "cannot create shared memory for the pool (memfd_create)")));
  check(set_size(file, size), "cannot size shared memory for the pool (ftruncate)");
  // A peer that could truncate the file could kill us with SIGBUS (fcntl(2), file sealing).
  check(PROCPOOL_SYSTEM(fcntl(file.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW)),
        "cannot seal shared memory for the pool (fcntl F_ADD_SEALS)");
  return file;
}

/// From now on new mappings of @p file must be read-only; existing ones stay writable.
inline void seal_against_writing(const fd& file) {
  check(PROCPOOL_SYSTEM(fcntl(file.get(), F_ADD_SEALS, F_SEAL_FUTURE_WRITE | F_SEAL_SEAL)),
        "cannot seal shared memory for the pool (fcntl F_ADD_SEALS)");
}

}  // namespace procpool::detail::os
