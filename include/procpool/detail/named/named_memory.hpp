// SPDX-License-Identifier: MIT
/// @file
/// Shared memory that has a name: a file in /dev/shm, as shm_open(3) and Python's SharedMemory make
/// it. No header, the size of the file is the size of the memory, only its user may open it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include <procpool/config.hpp>

namespace procpool::detail {

/// A mapping of such memory, read and write. Forked children inherit it. The destructor unmaps it
/// and leaves the name.
class named_memory {
 public:
  /// Takes over a mapping.
  explicit named_memory(std::span<std::byte> bytes) noexcept : bytes_(bytes) {}
  named_memory(const named_memory&) = delete;
  named_memory& operator=(const named_memory&) = delete;
  ~named_memory();

  [[nodiscard]] std::span<std::byte> bytes() const noexcept { return bytes_; }

 private:
  std::span<std::byte> bytes_;
};

using named_memory_ptr = std::shared_ptr<const named_memory>;

/// Whether a file in /dev/shm can have this name.
[[nodiscard]] bool is_memory_name(std::string_view name) noexcept;

/// Without the slash that POSIX names begin with.
/// @throws std::invalid_argument if no file in /dev/shm can have that name
[[nodiscard]] std::string checked_memory_name(std::string_view name);

/// A name that is probably not in use, as Python makes them: psm_ and 8 hexadecimal digits.
/// @throws ProcessError when there are no random numbers
[[nodiscard]] std::string random_memory_name();

/// Creates memory of @p size bytes, all zero, whose pages are allocated.
/// @param name checked
/// @throws std::invalid_argument if @p size is not positive; ProcessError: the name exists
/// (EEXIST), no room (ENOSPC), no /dev/shm (ENOENT) and others. Then nothing is left.
[[nodiscard]] named_memory_ptr create_named_memory(const std::string& name, std::int64_t size);

/// The same with a name from @p make_name, of which the first that is free is taken and stored.
[[nodiscard]] named_memory_ptr create_named_memory(std::string& name, std::int64_t size,
                                                   const std::function<std::string()>& make_name);

/// Maps existing memory. @param name checked
/// @throws ProcessError: there is none (ENOENT), it may not be opened (EACCES), it is empty
/// (EINVAL)
[[nodiscard]] named_memory_ptr attach_named_memory(const std::string& name);

/// Removes the name. @param name checked @throws ProcessError: there is none (ENOENT)
void unlink_named_memory(const std::string& name);
/// The same, whether there is one or not.
void forget_named_memory(const std::string& name) noexcept;

}  // namespace procpool::detail
