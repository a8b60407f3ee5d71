// SPDX-License-Identifier: MIT
/// @file
/// The memory of a shared heap as one process has it: the file, the control area, the windows on
/// records. Made before the first fork that procpool makes in a program, so that all descendants
/// have it, whatever is put into it later.
#pragma once

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>
#include <string>
#include <system_error>
#include <utility>

#include <procpool/config.hpp>
#include <procpool/detail/base/concat.hpp>
#include <procpool/detail/heap/layout.hpp>
#include <procpool/detail/os/fd.hpp>
#include <procpool/detail/os/memory.hpp>
#include <procpool/detail/os/random.hpp>
#include <procpool/detail/os/stdio.hpp>
#include <procpool/detail/os/syscall.hpp>

namespace procpool::detail {

/// A descriptor that notices when other code has closed it and its number means another file now.
class guarded_fd {
 public:
  guarded_fd() noexcept = default;
  explicit guarded_fd(os::fd file) noexcept : file_(std::move(file)) {
    struct stat about {};
    known_ = file_ && PROCPOOL_SYSTEM(fstat(file_.get(), &about)) == 0;
    device_ = about.st_dev;
    inode_ = about.st_ino;
  }
  guarded_fd(guarded_fd&&) noexcept = default;
  guarded_fd& operator=(guarded_fd&&) = delete;
  ~guarded_fd() {
    if (!intact()) static_cast<void>(file_.release());  // another file's by now
  }

  [[nodiscard]] bool intact() const noexcept {
    if (!file_ || !known_) return static_cast<bool>(file_);
    struct stat about {};
    if (PROCPOOL_SYSTEM(fstat(file_.get(), &about)) != 0) return errno != EBADF;
    return about.st_dev == device_ && about.st_ino == inode_;
  }
  [[nodiscard]] int get() const noexcept { return file_.get(); }

 private:
  os::fd file_;
  bool known_ = false;  ///< whether the system has said which file it is
  dev_t device_ = 0;
  ino_t inode_ = 0;
};

/// Any thread.
class shared_heap {
 public:
  /// What a spawned process needs to join the heap.
  struct given_descriptors {
    os::fd file;
    os::fd store_in;   ///< to deposit descriptors, see descriptor_store.hpp
    os::fd store_out;  ///< to take them
  };

  /// A new heap. @throws ProcessError
  [[nodiscard]] static std::shared_ptr<shared_heap> make() {
    given_descriptors made{make_file(), {}, {}};
    std::array<int, 2> ends{};
    os::check(PROCPOOL_SYSTEM(
                  socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends.data())),
              "cannot create the socket pair of the shared heap (socketpair)");
    os::fd first(ends[0]);
    made.store_out = os::fd(ends[1]);
    made.store_in = os::off_stdio(std::move(first));
    made.store_out = os::off_stdio(std::move(made.store_out));
    auto heap = std::make_shared<shared_heap>(std::move(made));
    heap->control_->header.id = os::random_number();
    heap->id_ = heap->control_->header.id;
    return heap;
  }

  /// The heap of the parent of a spawned process. @throws ProcessError
  [[nodiscard]] static std::shared_ptr<shared_heap> adopt(given_descriptors given) {
    auto heap = std::make_shared<shared_heap>(std::move(given));
    heap->id_ = heap->control_->header.id;
    return heap;
  }

  explicit shared_heap(given_descriptors given)
      : file_(std::move(given.file)),
        store_in_(std::move(given.store_in)),
        store_out_(std::move(given.store_out)) {
    struct stat about {};
    os::check(PROCPOOL_SYSTEM(fstat(file_.get(), &about)), "cannot read the shared heap (fstat)");
    file_bytes_ = static_cast<std::uint64_t>(about.st_size);
    if (file_bytes_ < heap_places::records_at + heap_places::window_bytes) {
      os::throw_errno("the shared heap is too small", EINVAL);
    }
    control_ =
        reinterpret_cast<heap_control*>(map(0, heap_places::control_bytes, PROT_READ | PROT_WRITE));
  }
  shared_heap(const shared_heap&) = delete;
  shared_heap& operator=(const shared_heap&) = delete;
  ~shared_heap() {
    for (const auto& each : windows_) {
      if (std::byte* const window = each.load(std::memory_order_relaxed)) {  // the last user
        unmap(window, heap_places::window_bytes);
      }
    }
    if (control_ != nullptr) {
      unmap(reinterpret_cast<std::byte*>(control_), heap_places::control_bytes);
    }
  }

  [[nodiscard]] std::uint64_t id() const noexcept { return id_; }
  [[nodiscard]] heap_control& control() const noexcept { return *control_; }
  [[nodiscard]] const guarded_fd& file() const noexcept { return file_; }
  /// For children: the file, store_in, store_out.
  [[nodiscard]] std::array<int, 3> descriptors() const noexcept {
    return {file_.get(), store_in_.get(), store_out_.get()};
  }
  /// Whether other code has closed none of them.
  [[nodiscard]] bool is_complete() const noexcept {
    return file_.intact() && store_in_.intact() && store_out_.intact();
  }
  [[nodiscard]] const guarded_fd& store_in() const noexcept { return store_in_; }
  [[nodiscard]] const guarded_fd& store_out() const noexcept { return store_out_; }

  /// How many records were ever in use; other processes may use more a moment later.
  [[nodiscard]] std::uint32_t record_end() const noexcept {
    // Acquire: the records before it are seen as they were made.
    return std::min(control_->header.record_end.load(std::memory_order_acquire),
                    heap_places::max_records);
  }

  /// @param number below max_records. @throws ProcessError when it cannot be mapped
  [[nodiscard]] object_record& record(std::uint32_t number) {
    std::byte* const window = window_of(number / heap_places::window_records);
    return reinterpret_cast<object_record*>(window)[number % heap_places::window_records];
  }
  /// The same; null when it cannot be mapped.
  [[nodiscard]] object_record* find_record(std::uint32_t number) noexcept {
    try {
      return &record(number);
    } catch (...) {  // ProcessError; bad_alloc for its text
      return nullptr;
    }
  }

  /// Maps a part of the file. Forked children inherit the mapping. @throws ProcessError
  [[nodiscard]] std::byte* map(std::uint64_t offset, std::size_t size, int protection) const {
    require_range(offset, size);
    void* const at = PROCPOOL_SYSTEM(
        mmap(nullptr, size, protection, MAP_SHARED, file_.get(), static_cast<off_t>(offset)));
    if (at == MAP_FAILED)
      os::throw_errno(concat({"cannot map ", size, " bytes of shared memory (mmap)"}));
    // A core dump would make the kernel allocate every page of it, touched or not.
    PROCPOOL_SYSTEM(madvise(at, size, MADV_DONTDUMP));
    return static_cast<std::byte*>(at);
  }
  static void unmap(std::byte* at, std::size_t size) noexcept { PROCPOOL_SYSTEM(munmap(at, size)); }

  /// Allocates pages. @throws ProcessError: nothing is allocated then
  void reserve(std::uint64_t offset, std::uint64_t size) const {
    require_range(offset, size);
    const int result = os::retry([&] {
      return PROCPOOL_SYSTEM(
          fallocate(file_.get(), 0, static_cast<off_t>(offset), static_cast<off_t>(size)));
    });
    if (result == 0) return;
    const int error = errno;
    discard(offset, size);
    os::throw_errno(concat({"cannot reserve ", size, " bytes of shared memory (fallocate)"}),
                    error);
  }

  /// Gives pages back to the system.
  void discard(std::uint64_t offset, std::uint64_t size) const noexcept {
    if (!file_.intact()) return;  // the pages stay until the heap ends
    os::retry([&] {
      return PROCPOOL_SYSTEM(fallocate(file_.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                                       static_cast<off_t>(offset), static_cast<off_t>(size)));
    });
  }

 private:
  static os::fd make_file() {
    constexpr const char* name = "procpool heap";
    try {
      return os::sealed_memory(name, heap_places::file_bytes);
    } catch (const ProcessError& error) {
      if (error.code() != std::errc::file_too_large) throw;
    }
    rlimit limit{};  // enough for small objects, perhaps
    os::check(PROCPOOL_SYSTEM(getrlimit(RLIMIT_FSIZE, &limit)),
              "cannot read the limit on file sizes (getrlimit)");
    return os::sealed_memory(
        name, limit.rlim_cur / heap_places::window_bytes * heap_places::window_bytes);
  }

  void require_range(std::uint64_t offset, std::uint64_t size) const {
    if (!file_.intact()) {
      os::throw_errno("the descriptor of the shared heap has been closed by other code", EBADF);
    }
    if (offset > file_bytes_ || size > file_bytes_ - offset) {
      os::throw_errno("the shared heap is too small, because of a limit on file sizes (ulimit -f)",
                      EFBIG);
    }
  }

  std::byte* window_of(std::uint32_t number) {
    auto& window = windows_[number];
    std::byte* known = window.load(std::memory_order_acquire);  // with its mapping
    if (known != nullptr) return known;
    std::byte* const fresh = map(heap_places::records_at + number * heap_places::window_bytes,
                                 heap_places::window_bytes, PROT_READ | PROT_WRITE);
    if (window.compare_exchange_strong(known, fresh, std::memory_order_acq_rel,
                                       std::memory_order_acquire))  // publish; see the other's
      return fresh;
    unmap(fresh, heap_places::window_bytes);  // another thread was faster
    return known;
  }

  guarded_fd file_;
  guarded_fd store_in_;
  guarded_fd store_out_;
  std::uint64_t file_bytes_ = 0;
  std::uint64_t id_ = 0;
  heap_control* control_ = nullptr;
  std::array<std::atomic<std::byte*>, heap_places::max_records / heap_places::window_records>
      windows_{};
};

}  // namespace procpool::detail
