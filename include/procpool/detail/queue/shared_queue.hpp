// SPDX-License-Identifier: MIT
/// @file
/// A queue of byte strings in the shared heap, as one process has it: what the typed queues are
/// made of. queue_layout.hpp has its layout; put_turn.hpp, get_turn.hpp and queue_waiting.hpp
/// implement it.
#pragma once

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>

#include <procpool/config.hpp>
#include <procpool/detail/heap/heap.hpp>
#include <procpool/detail/os/time.hpp>
#include <procpool/detail/queue/queue_layout.hpp>

namespace procpool::detail {

/// As a deadline: do not wait.
inline constexpr os::time_point not_waiting{};

/// What bounds a queue; 0: nothing.
struct queue_limits {
  std::uint64_t items = 0;
  std::uint64_t bytes = 0;
  bool returns_items = false;  ///< those of dead consumers go back, see pending_items.hpp
};

/// The segment that one end of a queue uses, mapped in this process. Used by who has the lock of
/// the end. A thread may fork this process while another one is in here; the child then maps the
/// segment again.
class segment_window {
 public:
  segment_window() noexcept = default;
  segment_window(const segment_window&) = delete;
  segment_window& operator=(const segment_window&) = delete;
  ~segment_window() { forget(); }

  /// @returns the first byte of @p segment, which is valid. @throws ProcessError
  [[nodiscard]] std::byte* of(const held_object& object, segment_number segment) {
    // Relaxed: another thread's change happened before it gave the lock back.
    if (mapped_.load(std::memory_order_relaxed) == segment.word) [[likely]]
      return base_;
    return map(object, segment);
  }
  void forget() noexcept;

 private:
  std::byte* map(const held_object& object, segment_number segment);

  std::atomic<std::uint64_t> mapped_{0};  ///< a segment_number; 0 while base_ changes
  std::byte* base_ = nullptr;
};

/// Those of both ends.
struct queue_windows {
  segment_window put;
  segment_window get;
};

/// How long to poll before a sleep. It halves when polling was in vain: then there are more who
/// wait than CPUs, or nothing comes soon. Any thread.
class spin_budget {
 public:
  [[nodiscard]] std::chrono::nanoseconds time() const noexcept;
  void note(bool successful) noexcept;

 private:
  static constexpr int most = 50'000;  // ns: as much as a sleep and a wake-up cost
  static constexpr int least = 1'500;
  std::atomic<int> nanoseconds_{most};
};

/// Any thread, any process.
class shared_queue {
 public:
  /// A new queue. @throws ProcessError
  shared_queue(queue_limits limits, std::uint64_t type);
  /// One that exists. @throws std::bad_alloc
  explicit shared_queue(object_ref object);

  [[nodiscard]] const object_ref& object() const noexcept { return object_; }

  /// How many items are in it. Momentary.
  [[nodiscard]] std::uint64_t size() const noexcept;
  [[nodiscard]] bool is_empty() const noexcept { return size() == 0; }
  /// How many items were ever put.
  [[nodiscard]] std::uint64_t put_count() const noexcept;
  /// Whether an item of @p length bytes has to wait. Momentary.
  [[nodiscard]] bool is_full(std::uint64_t length) const noexcept;
  [[nodiscard]] bool is_closed() const noexcept;
  /// Whether nobody else has it: with this object the queue ends. Another one may have it a moment
  /// later only if its handle is an item of this queue.
  [[nodiscard]] bool is_last_user() const noexcept;
  /// No more items will be put. Those who wait are woken. @throws ProcessError
  void close();

  [[nodiscard]] bool returns_items() const noexcept;
  /// To be called now and then by who waits for an item in vain, with @p about. @returns whether it
  /// has put one. Before other threads use this object
  void call_when_idle(bool (*function)(void* about), void* about) noexcept {
    idle_ = function;
    idle_about_ = about;
  }
  /// Whether that has put an item.
  [[nodiscard]] bool get_more() { return idle_ != nullptr && idle_(idle_about_); }

  /// Sleeps until there may be an item, or it is closed. @returns false: @p until has passed
  [[nodiscard]] bool wait_for_item(wait_slices& slices, const os::deadline& until);
  /// Sleeps until there may be room for an item of @p length bytes, or it is closed.
  [[nodiscard]] bool wait_for_room(wait_slices& slices, std::uint64_t length,
                                   const os::deadline& until);

 private:
  friend class put_turn;
  friend class get_turn;
  friend class unfinished_items;

  [[nodiscard]] queue_body& body() const noexcept { return *body_; }
  [[nodiscard]] queue_words words() const noexcept { return {&object_->record()}; }
  void give_memory_back();
  void retire(segment_number drained) noexcept;

  // The last handle of a process that is a worker leaves its windows to the next one.
  class windows_of_queue {
   public:
    explicit windows_of_queue(const held_object& object);
    windows_of_queue(const windows_of_queue&) = delete;
    windows_of_queue& operator=(const windows_of_queue&) = delete;
    ~windows_of_queue();
    [[nodiscard]] queue_windows* operator->() const noexcept { return windows_.get(); }

   private:
    std::shared_ptr<queue_windows> windows_;
  };

  windows_of_queue windows_;  // before the object: they are not kept when that has ended
  object_ref object_;
  queue_body* body_;
  spin_budget item_spin_;
  spin_budget room_spin_;
  bool (*idle_)(void*) = nullptr;
  void* idle_about_ = nullptr;
};

/// Once the lock of the producers' end. Items that are added exist from publish() on, all at once.
class put_turn {
 public:
  /// Whether the bounds of the queue count, and whether it is closed.
  enum class limits : std::uint8_t { all, none };

  /// Waits for the lock. @throws QueueClosed; ProcessError
  put_turn(shared_queue& queue, const os::deadline& until, limits which = limits::all);
  put_turn(const put_turn&) = delete;
  put_turn& operator=(const put_turn&) = delete;
  /// Without publish() nothing was put.
  ~put_turn();

  /// Room for one more item, to be filled before publish(). Null: the queue is full, or the time is
  /// over. @throws ProcessError: no memory; DecodeError: another process has damaged the queue
  [[nodiscard]] std::byte* add(std::uint64_t length);
  /// Whether the lock was to be had in time.
  [[nodiscard]] bool has_lock() const noexcept { return locked_; }
  /// How many were added.
  [[nodiscard]] std::uint64_t count() const noexcept { return items_; }
  void publish() noexcept;

 private:
  [[nodiscard]] bool has_room(std::uint64_t size);
  [[nodiscard]] bool is_within_limits(std::uint64_t size);
  [[nodiscard]] bool fits(std::uint64_t size) const noexcept;
  [[nodiscard]] bool fits_at_beginning(std::uint64_t size) const noexcept;
  [[nodiscard]] bool see_room_coming(std::uint64_t size) noexcept;
  [[nodiscard]] bool look_at_other_end() noexcept;
  static void write_head(std::byte* at, item_head head) noexcept;
  void leave_large_segment(std::uint64_t size);
  void go_to_another_segment(std::uint64_t units);
  [[nodiscard]] segment_number take_segment(std::uint64_t units);
  [[nodiscard]] segment_number new_segment(std::uint64_t units);
  void reserve(std::uint64_t end);
  void release() noexcept;

  shared_queue& queue_;
  queue_body& body_;
  limits limits_;
  bool locked_ = false;
  passed_word passed_;
  queue_place now_;
  queue_place get_;  ///< where the other end was; its segment is none if it is not known
  std::byte* base_ = nullptr;
  std::uint64_t reserved_ = 0;
  std::uint64_t items_ = 0;
};

/// Once the lock of the consumers' end. Items that are taken leave the queue at publish(), all at
/// once.
class get_turn {
 public:
  /// Waits for the lock. @throws ProcessError; DecodeError: another process has damaged the queue
  get_turn(shared_queue& queue, const os::deadline& until);
  get_turn(const get_turn&) = delete;
  get_turn& operator=(const get_turn&) = delete;
  /// Without publish() all items are still there.
  ~get_turn();

  /// The next item, in memory that other processes can write. Nullopt: there is none now, or the
  /// lock was not to be had in time. @throws DecodeError: another process has damaged the queue
  [[nodiscard]] std::optional<std::span<const std::byte>> next();
  /// Counts the item that next() gave as taken.
  void take() noexcept;
  /// Whether the lock was to be had in time.
  [[nodiscard]] bool has_lock() const noexcept { return locked_; }
  /// How many were taken.
  [[nodiscard]] std::uint64_t count() const noexcept { return items_; }
  void publish() noexcept;

 private:
  [[nodiscard]] bool anything();
  void release() noexcept;

  shared_queue& queue_;
  queue_body& body_;
  bool locked_ = false;
  passed_word passed_;
  queue_place now_;
  segment_number drained_{};  ///< the segment that this turn has left
  std::uint64_t next_size_ = 0;
  std::uint64_t items_ = 0;
};

}  // namespace procpool::detail
