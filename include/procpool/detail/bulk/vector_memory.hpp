// SPDX-License-Identifier: MIT
/// @file
/// The memory of a shared_vector. A small one is ordinary memory and travels as bytes. A large one
/// is a memory file of its own, whose descriptor travels.
///
/// Before a file is sent it is sealed against writing, which the kernel refuses as long as anybody
/// has it mapped to write. From then on each process maps it privately: it reads the same pages,
/// and what it writes goes into copies of its own. So nobody can change what another one has.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>

#include <procpool/codec/decoder.hpp>
#include <procpool/codec/encoder.hpp>
#include <procpool/config.hpp>
#include <procpool/detail/os/fd.hpp>

namespace procpool::detail {

/// Move-only. One thread at a time.
class vector_memory {
 public:
  /// From this size on, in bytes, a file pays: a smaller message is copied sooner.
  static constexpr std::size_t large_from = std::size_t{256} << 10U;
  static constexpr std::size_t alignment = 64;

  vector_memory() noexcept = default;
  vector_memory(vector_memory&& other) noexcept { swap(other); }
  vector_memory& operator=(vector_memory&& other) noexcept {
    swap(other);
    return *this;
  }
  ~vector_memory() { release(); }

  [[nodiscard]] std::byte* data() const noexcept { return data_; }
  /// In bytes.
  [[nodiscard]] std::size_t capacity() const noexcept { return capacity_; }

  /// Whether bytes that nobody has written are zero.
  [[nodiscard]] bool begins_as_zeros() const noexcept { return kind_ != kind::ordinary; }

  /// The memory may be written from now on: if it was sent before, it is not the same any more.
  void will_be_written() noexcept { as_sent_ = false; }

  /// Makes room for @p wanted bytes, more than the capacity. The first @p used bytes are kept.
  /// @throws ProcessError, std::bad_alloc: nothing has changed
  void grow(std::size_t used, std::size_t wanted);

  /// Puts the first @p used bytes, as `used / element_size` elements. Large memory becomes sealed:
  /// same address, same contents. @throws ProcessError
  void put(encoder& e, std::size_t used, std::size_t element_size);

  /// @param used the bytes that were put
  /// @throws DecodeError also if the sender can still change it; ProcessError
  [[nodiscard]] static vector_memory get(decoder& d, std::size_t& used, std::size_t element_size);

 private:
  enum class kind : std::uint8_t {
    ordinary,
    file,    ///< mapped shared; only this process has it
    sealed,  ///< mapped privately
  };

  void swap(vector_memory& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(capacity_, other.capacity_);
    std::swap(file_, other.file_);
    std::swap(kind_, other.kind_);
    std::swap(as_sent_, other.as_sent_);
  }
  void release() noexcept;
  void grow_file(std::size_t wanted);
  void become_file(std::size_t used, std::size_t wanted);
  void become_ordinary(std::size_t used, std::size_t wanted);
  [[nodiscard]] bool seal();

  std::byte* data_ = nullptr;
  std::size_t capacity_ = 0;
  os::fd file_;  ///< empty for what was received
  kind kind_ = kind::ordinary;
  bool as_sent_ = false;  ///< nothing was written since it was sealed
};

}  // namespace procpool::detail
