// SPDX-License-Identifier: MIT
/// @file
/// SharedMemory and ShareableList: memory with a name, which programs that are not related can
/// share, also with Python (multiprocessing.shared_memory), in both directions. See
/// docs/shared_memory.md.
///
/// Between processes of one program SharedArray needs no name and leaves nothing behind.
#pragma once

#include <procpool/config.hpp>  // first, for its errors

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <iterator>
#include <memory>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#include <procpool/codec.hpp>
#include <procpool/detail/base/exact_number.hpp>
#include <procpool/detail/fork/process_generation.hpp>
#include <procpool/detail/named/list_layout.hpp>
#include <procpool/detail/named/named_memory.hpp>

namespace procpool {

/// Options of a SharedMemory (Python: its arguments).
struct shared_memory_options {
  /// 1 to 255 characters, without a slash but one in front, which is dropped. Empty with create:
  /// a random name, `psm_` and 8 hexadecimal digits, that nobody has.
  std::string name = {};
  /// Whether to create the memory. If not, it must exist.
  bool create = false;
  /// Of new memory in bytes, positive. Ignored for existing memory, which has its size.
  detail::number<std::int64_t> size = 0;
};

/// Memory with a name that any process of the same user can open (Python:
/// multiprocessing.shared_memory.SharedMemory): a file in /dev/shm without a header, mode 0600.
/// Python and shm_open(3) find it under the same name.
///
/// A value: copies are the same memory, and in one process they share one mapping. It can be an
/// argument, a result, an item, a member or a capture: it travels by its name, and the receiver
/// maps the memory anew. So the name must exist until it has arrived. Forked children inherit the
/// mapping.
///
/// The name stays until unlink(), also when all processes have ended (Python: as with track=False).
/// The memory lives until the name is gone and no process maps it. A process that dies leaves the
/// contents as they are.
///
/// Any thread may use a handle as any other value. The contents have no lock: use one when several
/// processes write. Whoever has the memory can write anything into it. Who makes the file shorter
/// (ftruncate) ends the others with SIGBUS when they touch what is gone; procpool and Python do
/// not.
class SharedMemory {
 public:
  /// Creates or opens memory: `SharedMemory memory{{.name = "frames", .create = true, .size =
  /// n}};`. New memory is all zero and its pages are allocated here, so that no later write fails.
  /// @throws std::invalid_argument for a size that is not positive with create, no name without
  /// create, or a name that cannot be one; ProcessError, with errno in code(): the name exists
  /// (EEXIST) or does not (ENOENT), there is not enough room in /dev/shm (ENOSPC; what() says how
  /// much there is), there is no /dev/shm (ENOENT), and others. Nothing is left then.
  explicit SharedMemory(const shared_memory_options& options)
      : name_(options.name.empty() && options.create ? std::string()
                                                     : detail::checked_memory_name(options.name)),
        memory_(open(name_, options)) {}

  /// @returns the memory, to read and write; empty after close()
  [[nodiscard]] std::span<std::byte> buf() const noexcept {
    return memory_ != nullptr ? memory_->bytes() : std::span<std::byte>();
  }
  /// @returns the name, without a slash, as Python gives it; also after close()
  [[nodiscard]] const std::string& name() const noexcept { return name_; }
  /// @returns the size in bytes; 0 after close()
  [[nodiscard]] std::size_t size() const noexcept { return buf().size(); }

  /// Gives up this handle's use of the memory, which is unmapped when the last copy in this process
  /// does so or is destroyed. The name stays. May be called again.
  void close() noexcept { memory_.reset(); }

  /// Removes the name, so that nobody can open the memory any more. Who has it mapped keeps it. To
  /// be called once, by any process; before or after close().
  /// @throws ProcessError with ENOENT if the name does not exist any more
  void unlink() const { detail::unlink_named_memory(name_); }

 private:
  static detail::named_memory_ptr open(std::string& name, const shared_memory_options& options) {
    if (!options.create) return detail::attach_named_memory(name);
    if (!name.empty()) return detail::create_named_memory(name, options.size);
    return detail::create_named_memory(name, options.size, detail::random_memory_name);
  }

  std::string name_;
  detail::named_memory_ptr memory_;
};

/// A value of a ShareableList: nullptr is Python's None, std::int64_t int, double float,
/// std::string str (UTF-8), std::vector<std::byte> bytes.
using shareable_value = detail::list_value;

/// Options of a ShareableList.
struct shareable_list_options {
  /// As for SharedMemory. Of a new list: empty for a random name.
  std::string name = {};
};

/// A list of fixed length in a SharedMemory, byte for byte as Python's
/// multiprocessing.shared_memory.ShareableList, whose lists it can open and the other way round.
///
///     ShareableList settings{{1L, 2.5, true, std::string("text")}};
///     settings.set(0, 7L);
///     long first = settings.get<long>(0);
///
/// An item can become any value that fits into its place: 8 bytes, or for an item that was a text
/// or bytes at first, the next multiple of 8 above its length. Texts and bytes lose NULs at their
/// end, as in Python.
///
/// A value, as SharedMemory, which says how it travels and how long it lives. There is no lock: an
/// item that one process sets while another reads it may be read as something in between. Whatever
/// other processes write into the memory, an access here ends with a value or an exception.
class ShareableList {
 public:
  using value_type = shareable_value;

  /// A new list. @throws std::invalid_argument for an item of 10 MB or more; as SharedMemory
  ShareableList(std::initializer_list<shareable_value> values,
                const shareable_list_options& options = {})
      : ShareableList(std::span(values.begin(), values.size()), options) {}
  /// The same from a vector, array or span of values.
  explicit ShareableList(std::span<const shareable_value> values,
                         const shareable_list_options& options = {})
      : layout_(values), memory_({.name = options.name, .create = true, .size = layout_.size()}) {
    layout_.write(values, memory_.buf());
  }
  /// An existing list: `ShareableList list{{.name = "psm_1234abcd"}};`.
  /// @throws DecodeError if the memory has no such list; as SharedMemory
  explicit ShareableList(const shareable_list_options& options)
      : ShareableList(SharedMemory({.name = options.name})) {}
  /// The list in a memory. @throws DecodeError if there is none
  explicit ShareableList(SharedMemory memory)
      : layout_(std::span<const std::byte>(memory.buf())), memory_(std::move(memory)) {}

  /// @returns the number of items, which never changes. Python: len(list)
  [[nodiscard]] std::size_t size() const noexcept { return layout_.count(); }
  [[nodiscard]] bool empty() const noexcept { return size() == 0; }

  /// The item at @p index, counted from 0; negative numbers do not count from the end.
  /// @throws std::out_of_range for the index; std::logic_error after close() of shm();
  /// DecodeError if another process has written something that is no value
  [[nodiscard]] shareable_value operator[](std::size_t index) const {
    return layout_.get(bytes(), index);
  }

  /// The item as a `T`: bool, an integer, double, std::string, std::vector<std::byte> or
  /// std::nullptr_t. @throws std::invalid_argument if the item is of another kind;
  /// std::out_of_range if its number does not fit into `T`; as operator[]
  template <class T>
  [[nodiscard]] T get(std::size_t index) const {
    using stored = std::conditional_t<detail::number_type<T>, std::int64_t,
                                      std::conditional_t<std::floating_point<T>, double, T>>;
    shareable_value value = (*this)[index];
    auto* found = std::get_if<stored>(&value);
    if (found == nullptr) detail::wrong_kind(index, value);
    if constexpr (detail::number_type<T>) {
      if (!std::in_range<T>(*found)) detail::does_not_fit(index, *found);
      return static_cast<T>(*found);
    } else if constexpr (std::floating_point<T>) {
      return static_cast<T>(*found);
    } else {
      return std::move(*found);
    }
  }

  /// Replaces the item at @p index. If this process dies meanwhile, the item may be something in
  /// between. @throws std::invalid_argument if the value is longer than its place, which then keeps
  /// what it has; std::out_of_range for the index; std::logic_error after close() of shm()
  void set(std::size_t index, const shareable_value& value) { layout_.set(bytes(), index, value); }

  /// @returns how many items are equal to @p value, and of the same type (1 is not 1.0 here)
  [[nodiscard]] std::size_t count(const shareable_value& value) const {
    std::size_t found = 0;
    for (std::size_t i = 0; i < size(); ++i) {
      if ((*this)[i] == value) ++found;
    }
    return found;
  }
  /// @returns the first index with @p value. @throws std::invalid_argument if there is none
  [[nodiscard]] std::size_t index(const shareable_value& value) const {
    for (std::size_t i = 0; i < size(); ++i) {
      if ((*this)[i] == value) return i;
    }
    throw std::invalid_argument("no item of the ShareableList has this value");
  }
  /// @returns how the items are stored, in the language of Python's struct module: "qdxxxxxxx?8s"
  [[nodiscard]] std::string format() const {
    std::string all;
    for (std::size_t i = 0; i < size(); ++i) all += layout_.format(bytes(), i);
    return all;
  }
  /// @returns the memory of the list, for name(), close() and unlink(). Python: list.shm
  [[nodiscard]] SharedMemory& shm() noexcept { return memory_; }
  [[nodiscard]] const SharedMemory& shm() const noexcept { return memory_; }

  /// Reads one item after another.
  class iterator {
   public:
    using iterator_concept = std::input_iterator_tag;
    using value_type = shareable_value;
    using difference_type = std::ptrdiff_t;

    iterator() noexcept = default;
    iterator(const ShareableList& list, std::size_t at) noexcept : list_(&list), at_(at) {}
    [[nodiscard]] shareable_value operator*() const { return (*list_)[at_]; }
    iterator& operator++() noexcept {
      ++at_;
      return *this;
    }
    iterator operator++(int) noexcept { return {*list_, at_++}; }
    friend bool operator==(const iterator&, const iterator&) noexcept = default;

   private:
    const ShareableList* list_ = nullptr;
    std::size_t at_ = 0;
  };
  [[nodiscard]] iterator begin() const noexcept { return {*this, 0}; }
  [[nodiscard]] iterator end() const noexcept { return {*this, size()}; }

 private:
  [[nodiscard]] std::span<std::byte> bytes() const {
    if (memory_.buf().empty()) throw std::logic_error("the ShareableList is closed");
    return memory_.buf();
  }

  detail::list_layout layout_;
  SharedMemory memory_;
};

/// Makes memory and lists with random names, and removes the names at its end (Python:
/// multiprocessing.managers.SharedMemoryManager, which needs a process for that). If this process
/// is killed the names stay. One thread at a time; forked children leave the names alone.
class SharedMemoryManager {
 public:
  SharedMemoryManager() = default;
  SharedMemoryManager(const SharedMemoryManager&) = delete;
  SharedMemoryManager& operator=(const SharedMemoryManager&) = delete;
  /// As shutdown().
  ~SharedMemoryManager() { shutdown(); }

  /// New memory of @p size bytes. @throws as the constructor; std::logic_error after shutdown()
  [[nodiscard]] procpool::SharedMemory SharedMemory(detail::number<std::int64_t> size) {
    return keep(procpool::SharedMemory({.create = true, .size = size}));
  }
  /// A new list. @throws as the constructor; std::logic_error after shutdown()
  [[nodiscard]] procpool::ShareableList ShareableList(
      std::initializer_list<shareable_value> values) {
    procpool::ShareableList list(values);
    static_cast<void>(keep(list.shm()));
    return list;
  }

  /// Removes all names. Who has the memory mapped keeps it. May be called again.
  void shutdown() noexcept {
    if (detail::process_generation() != generation_) return;
    for (const std::string& name : std::exchange(names_, {})) detail::forget_named_memory(name);
    open_ = false;
  }

 private:
  procpool::SharedMemory keep(procpool::SharedMemory memory) {
    try {
      if (!open_) throw std::logic_error("the SharedMemoryManager is shut down");
      names_.push_back(memory.name());
    } catch (...) {
      detail::forget_named_memory(memory.name());
      throw;
    }
    return memory;
  }

  std::vector<std::string> names_;
  std::uint32_t generation_ = detail::process_generation();
  bool open_ = true;
};

/// Travels by name. Decoding throws ProcessError with ENOENT if the name was unlinked meanwhile.
template <>
struct codec<SharedMemory> : detail::same_level {
  static constexpr std::size_t min_wire_size = sizeof(std::uint64_t);
  static void encode(encoder& e, const SharedMemory& memory) { e.put(memory.name()); }
  static SharedMemory decode(decoder& d) {
    auto name = d.get<std::string>();
    if (!detail::is_memory_name(name)) d.fail("a name that no shared memory can have");
    return SharedMemory({.name = std::move(name)});
  }
};

/// Travels by name, as SharedMemory.
template <>
struct codec<ShareableList> : detail::same_level {
  static constexpr std::size_t min_wire_size = sizeof(std::uint64_t);
  static void encode(encoder& e, const ShareableList& list) { e.put(list.shm()); }
  static ShareableList decode(decoder& d) { return ShareableList(d.get<SharedMemory>()); }
};

}  // namespace procpool

#ifndef PROCPOOL_COMPILED
#include <procpool/detail/named/list_access.hpp>
#include <procpool/detail/named/memory_file.hpp>
#endif
