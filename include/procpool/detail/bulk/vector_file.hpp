// SPDX-License-Identifier: MIT
/// @file
/// Implements vector_memory.hpp.
#pragma once

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <new>
#include <stdexcept>
#include <system_error>
#include <thread>
#include <utility>

#include <procpool/config.hpp>
#include <procpool/detail/base/concat.hpp>
#include <procpool/detail/bulk/vector_memory.hpp>
#include <procpool/detail/heap/descriptor_store.hpp>
#include <procpool/detail/heap/heap.hpp>
#include <procpool/detail/machine/memory_room.hpp>
#include <procpool/detail/os/memory.hpp>
#include <procpool/detail/os/stdio.hpp>
#include <procpool/detail/os/syscall.hpp>
#include <procpool/error.hpp>

namespace procpool::detail {

inline constexpr int all_seals = F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW;

/// Reserves pages of a vector's file. @throws ProcessError
inline void reserve_for_vector(const os::fd& file, std::size_t size) {
  const std::uint64_t room = os::memory_room();
  if (size > room) {
    os::throw_errno(concat({"cannot reserve ", size, " bytes for a shared_vector: ", room,
                            " bytes are available"}),
                    ENOMEM);
  }
  os::check(os::set_size(file, size), "cannot size the memory of a shared_vector (ftruncate)");
  os::check(os::reserve_pages(file, size),
            "cannot reserve the memory of a shared_vector (fallocate)");
}

inline std::byte* map_vector(const os::fd& file, std::size_t size, int flags, void* at = nullptr) {
  void* const mapped =
      PROCPOOL_SYSTEM(mmap(at, size, PROT_READ | PROT_WRITE, flags, file.get(), 0));
  if (mapped == MAP_FAILED) os::throw_errno("cannot map the memory of a shared_vector (mmap)");
  return static_cast<std::byte*>(mapped);
}

/// Up to 10 s: other descriptors leave the store when their receivers take them.
inline descriptor_wire send_when_there_is_room(int descriptor) {
  const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(10);
  while (true) {
    try {
      return send_descriptor(descriptor);
    } catch (const ProcessError& error) {
      if (error.code() != std::errc::resource_unavailable_try_again ||
          std::chrono::steady_clock::now() > until) {
        throw;
      }
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
}

PROCPOOL_FUNCTION void vector_memory::release() noexcept {
  if (kind_ == kind::ordinary) {
    ::operator delete (data_, std::align_val_t{alignment});
  } else {
    PROCPOOL_SYSTEM(munmap(data_, capacity_));
  }
}

PROCPOOL_FUNCTION void vector_memory::grow(std::size_t used, std::size_t wanted) {
  if (kind_ == kind::file) return grow_file(wanted);
  wanted < large_from ? become_ordinary(used, wanted) : become_file(used, wanted);
}

PROCPOOL_FUNCTION void vector_memory::grow_file(std::size_t wanted) {
  reserve_for_vector(file_, wanted);
  void* const moved = PROCPOOL_SYSTEM(mremap(data_, capacity_, wanted, MREMAP_MAYMOVE));
  if (moved == MAP_FAILED) os::throw_errno("cannot map the memory of a shared_vector (mremap)");
  data_ = static_cast<std::byte*>(moved);
  capacity_ = wanted;
}

PROCPOOL_FUNCTION void vector_memory::become_file(std::size_t used, std::size_t wanted) {
  vector_memory fresh;
  fresh.file_ = os::off_stdio(os::fd(
      os::check(PROCPOOL_SYSTEM(memfd_create("procpool vector", MFD_CLOEXEC | MFD_ALLOW_SEALING)),
                "cannot create the memory of a shared_vector (memfd_create)")));
  reserve_for_vector(fresh.file_, wanted);
  fresh.data_ = map_vector(fresh.file_, wanted, MAP_SHARED);
  fresh.kind_ = kind::file;
  fresh.capacity_ = wanted;
  if (used != 0) std::memcpy(fresh.data_, data_, used);
  swap(fresh);
}

PROCPOOL_FUNCTION void vector_memory::become_ordinary(std::size_t used, std::size_t wanted) {
  vector_memory fresh;
  fresh.data_ = static_cast<std::byte*>(::operator new (wanted, std::align_val_t{alignment}));
  fresh.capacity_ = wanted;
  if (used != 0) std::memcpy(fresh.data_, data_, used);
  swap(fresh);
}

/// @returns false: another process has the file mapped to write
PROCPOOL_FUNCTION bool vector_memory::seal() {
  // Replaces the mapping in one call: the address stays, and no mapping is left that can write.
  map_vector(file_, capacity_, MAP_PRIVATE | MAP_FIXED, data_);
  kind_ = kind::sealed;
  as_sent_ = PROCPOOL_SYSTEM(fcntl(file_.get(), F_ADD_SEALS, all_seals)) == 0;
  if (as_sent_ || errno == EBUSY) return as_sent_;
  os::throw_errno("cannot seal the memory of a shared_vector (fcntl F_ADD_SEALS)");
}

PROCPOOL_FUNCTION void vector_memory::put(encoder& e, std::size_t used, std::size_t element_size) {
  const bool large = used >= large_from;
  e.put(static_cast<unsigned char>(large));
  e.count(used / element_size);
  if (!large) {
    e.align(16);
    return e.bytes(data_, used);
  }
  if (e.is_counting()) return e.put(descriptor_wire{});
  // What was received, or written after it was sealed, needs a file of its own.
  if (kind_ != kind::file && !(as_sent_ && file_)) become_file(used, used);
  if (kind_ == kind::file && !seal()) {  // a forked child has it, too
    become_file(used, used);
    if (!seal()) os::throw_errno("cannot seal the memory of a shared_vector", EBUSY);
  }
  e.put(send_when_there_is_room(file_.get()));
}

PROCPOOL_FUNCTION vector_memory vector_memory::get(decoder& d, std::size_t& used,
                                                   std::size_t element_size) {
  vector_memory got;
  const auto large = d.get<unsigned char>();
  if (large > 1) d.fail("a kind of memory that does not exist");
  if (large == 0) {
    const std::size_t count = d.count(element_size);
    d.align(16);
    used = count * element_size;
    const auto bytes = d.bytes(used);
    if (used == 0) return got;
    got.become_ordinary(0, used);
    std::memcpy(got.data_, bytes.data(), used);
    return got;
  }
  const auto count = d.get<std::uint64_t>();
  const auto wire = d.get<descriptor_wire>();
  os::fd file;
  try {
    file = receive_descriptor(wire);
  } catch (const std::invalid_argument& error) {
    d.fail(error.what());
  }
  struct stat about {};
  const int seals = PROCPOOL_SYSTEM(fcntl(file.get(), F_GET_SEALS));
  if (seals == -1 || (seals & all_seals) != all_seals ||
      PROCPOOL_SYSTEM(fstat(file.get(), &about)) != 0) {
    d.fail("the memory of a vector that its sender can still change");
  }
  const auto size = static_cast<std::uint64_t>(std::max<off_t>(about.st_size, 0));
  if (count == 0 || count > size / element_size) d.fail("a vector with less memory than elements");
  used = count * element_size;
  got.data_ = map_vector(file, used, MAP_PRIVATE);
  got.capacity_ = used;
  got.kind_ = kind::sealed;
  return got;
}

}  // namespace procpool::detail
