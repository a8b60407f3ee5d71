// SPDX-License-Identifier: MIT
/// @file
/// Anonymous shared memory: memfds with seals, and mappings of them. Nothing here has a name.
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
#include <utility>

#include <procpool/detail/os/fd.hpp>
#include <procpool/detail/os/stdio.hpp>
#include <procpool/detail/os/syscall.hpp>

namespace procpool::detail::os {

/// Bytes of memory that the machine has.
inline std::uint64_t physical_memory() noexcept {
  const long pages = PROCPOOL_SYSTEM(sysconf(_SC_PHYS_PAGES));
  const long page = PROCPOOL_SYSTEM(sysconf(_SC_PAGESIZE));
  constexpr std::uint64_t unknown = std::uint64_t{8} << 30;
  if (pages <= 0 || page <= 0) return unknown;
  return static_cast<std::uint64_t>(pages) * static_cast<std::uint64_t>(page);
}

/// Memory mapped from a descriptor; unmapped at the end of its life. Not inherited by forked
/// children: what a child needs it maps itself, and what it does not map it cannot damage. Not in
/// core dumps, if it is shared.
class mapping {
 public:
  mapping() noexcept = default;

  /// Maps all @p size bytes of @p file. @throws ProcessError when the address space is not there.
  mapping(const fd& file, std::size_t size, int protection) : size_(size) {
    void* at = PROCPOOL_SYSTEM(mmap(nullptr, size, protection, MAP_SHARED, file.get(), 0));
    if (at == MAP_FAILED) throw_errno("cannot map shared memory for the pool (mmap)");
    data_ = static_cast<std::byte*>(at);
    // A failure would only leave one mapping more in children of the user's own making.
    PROCPOOL_SYSTEM(madvise(data_, size_, MADV_DONTFORK));
    // Or in a core dump, for which the kernel makes every page that there could be.
    PROCPOOL_SYSTEM(madvise(data_, size_, MADV_DONTDUMP));
  }

  /// Shared memory that is to be in core dumps of this process all the same.
  void include_in_core() const noexcept { PROCPOOL_SYSTEM(madvise(data_, size_, MADV_DODUMP)); }

  /// Maps @p size bytes of memory that belongs to this process alone. @throws ProcessError
  explicit mapping(std::size_t size) : size_(size) {
    void* at = PROCPOOL_SYSTEM(mmap(nullptr, size, PROT_READ | PROT_WRITE,
                                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
    if (at == MAP_FAILED) throw_errno("cannot map memory for the pool (mmap)");
    data_ = static_cast<std::byte*>(at);
    PROCPOOL_SYSTEM(madvise(data_, size_, MADV_DONTFORK));  // as above
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
  /// Forgets the mapping without unmapping it: for a forked child, which never inherited it.
  void abandon() noexcept { data_ = nullptr; }

 private:
  std::byte* data_ = nullptr;
  std::size_t size_ = 0;
};

/// Sets the size of a file. Beyond RLIMIT_FSIZE (ulimit -f) the kernel says it twice: by EFBIG,
/// which is enough, and by a SIGXFSZ to this thread, which would end the program.
inline int set_size(const fd& file, std::size_t size) noexcept {
  sigset_t excess;
  sigset_t mask;
  sigset_t pending;
  sigemptyset(&excess);
  sigaddset(&excess, SIGXFSZ);
  PROCPOOL_SYSTEM(sigpending(&pending));
  PROCPOOL_SYSTEM(pthread_sigmask(SIG_BLOCK, &excess, &mask));
  const int result =
      retry([&] { return PROCPOOL_SYSTEM(ftruncate(file.get(), static_cast<off_t>(size))); });
  const int error = errno;
  if (result == -1 && error == EFBIG && sigismember(&pending, SIGXFSZ) == 0) {
    const timespec at_once{};
    PROCPOOL_SYSTEM(sigtimedwait(&excess, nullptr, &at_once));
  }
  PROCPOOL_SYSTEM(pthread_sigmask(SIG_SETMASK, &mask, nullptr));
  errno = error;
  return result;
}

/// A new anonymous file in memory of @p size bytes, whose size nobody can change from now on.
/// @throws ProcessError when descriptors or memory are exhausted.
inline fd sealed_memory(const char* name, std::size_t size) {
  fd file = off_stdio(fd(check(PROCPOOL_SYSTEM(memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING)),
                               "cannot create shared memory for the pool (memfd_create)")));
  check(set_size(file, size), "cannot size shared memory for the pool (ftruncate)");
  // A peer that could truncate the file could make us die of SIGBUS (fcntl(2), file sealing).
  check(PROCPOOL_SYSTEM(fcntl(file.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW)),
        "cannot seal shared memory for the pool (fcntl F_ADD_SEALS)");
  return file;
}

/// From now on @p file can be mapped for reading only; mappings that exist keep what they have.
inline void seal_against_writing(const fd& file) {
  check(PROCPOOL_SYSTEM(fcntl(file.get(), F_ADD_SEALS, F_SEAL_FUTURE_WRITE | F_SEAL_SEAL)),
        "cannot seal shared memory for the pool (fcntl F_ADD_SEALS)");
}

}  // namespace procpool::detail::os
