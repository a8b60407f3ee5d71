// SPDX-License-Identifier: MIT
/// @file
/// For a JoinableQueue whose items go back when a consumer dies: copies of the items that each
/// process has taken and not finished. They lie in a queue of their own for each process, which
/// outlives the process. An item is copied before it is taken: it is never lost, but may come
/// twice.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <optional>
#include <span>
#include <stdexcept>
#include <utility>

#include <procpool/config.hpp>
#include <procpool/detail/heap/heap.hpp>
#include <procpool/detail/queue/get_turn.hpp>
#include <procpool/detail/queue/put_turn.hpp>
#include <procpool/detail/queue/shared_queue.hpp>
#include <procpool/error.hpp>

namespace procpool::detail {

/// The copies of this process. Used with the lock of the consumers' end of the main queue.
class pending_items {
 public:
  /// Copies an item. @param word of this process, where others find the copies
  void keep(std::span<const std::byte> item, std::atomic<std::uint64_t>& word, owner_id self) {
    if (owner_ != self || !copies_) {  // the first one, or this process was forked from its owner
      copies_.reset();
      auto fresh = std::make_unique<shared_queue>(queue_limits{}, tag);
      publish(*fresh->object(), word);
      copies_ = std::move(fresh);
      owner_ = self;
    }
    put_copy(*copies_, item, put_turn::limits::none);
  }

  /// The oldest copy in a process's word is finished.
  static void drop_one(const object_ref& main, std::atomic<std::uint64_t>& word) {
    if (const auto copies = find(main, word)) {
      try {
        get_turn turn(*copies, std::nullopt);
        if (!turn.next()) return;
        turn.take();
        turn.publish();
      } catch (const DecodeError&) {  // the copies are damaged
      }
    }
  }

  /// Nobody will need the copies.
  static void release(const object_ref& main, std::atomic<std::uint64_t>& word) noexcept {
    const std::uint64_t known = word.exchange(0, std::memory_order_acquire);  // with the copies
    try {
      static_cast<void>(find_at(main, known, true));
    } catch (...) {  // they stay until the program ends
    }
  }

  /// Puts the copies of a process that has ended into the main queue again.
  static void give_back(shared_queue& main, std::atomic<std::uint64_t>& word) {
    const std::uint64_t known = word.load(std::memory_order_acquire);  // with the copies
    if (const auto copies = find(main.object(), word)) {
      try {
        while (give_one_back(main, *copies)) continue;
      } catch (const DecodeError&) {  // the copies are damaged, or the queue: who uses it will see
      }
    }
    std::uint64_t expected = known;
    if (known != 0 && word.compare_exchange_strong(expected, 0, std::memory_order_relaxed)) {
      static_cast<void>(find_at(main.object(), known, true));  // nobody else will
    }
  }

 private:
  static constexpr std::uint64_t tag = hash_of_name("pending items of a queue", 0);

  static void publish(const held_object& copies, std::atomic<std::uint64_t>& word) noexcept {
    // In transit until it is given back: it outlives this process.
    copies.record().in_transit.fetch_add(1, std::memory_order_seq_cst);  // as in record_life.hpp
    word.store(std::uint64_t{copies.generation()} << 32U | copies.number(),
               std::memory_order_release);
  }

  static std::unique_ptr<shared_queue> find(const object_ref& main,
                                            const std::atomic<std::uint64_t>& word) {
    return find_at(main, word.load(std::memory_order_acquire), false);  // with the copies
  }
  static std::unique_ptr<shared_queue> find_at(const object_ref& main, std::uint64_t place,
                                               bool last) {
    if (place == 0) return nullptr;
    const object_wire wire{main->heap()->id(), static_cast<std::uint32_t>(place),
                           static_cast<std::uint32_t>(place >> 32U),
                           static_cast<std::uint32_t>(object_kind::queue), last ? 1U : 0U};
    try {
      auto object = receive_object(wire, object_kind::queue, tag);
      return object == nullptr ? nullptr : std::make_unique<shared_queue>(std::move(object));
    } catch (const std::invalid_argument&) {  // another process has written into the word
      return nullptr;
    }
  }

  static void put_copy(shared_queue& queue, std::span<const std::byte> item,
                       put_turn::limits which) {
    put_turn turn(queue, std::nullopt, which);
    std::byte* const at = turn.add(item.size());
    if (at != nullptr && !item.empty()) std::memcpy(at, item.data(), item.size());
    turn.publish();
  }

  static bool give_one_back(shared_queue& main, shared_queue& copies) {
    get_turn turn(copies, std::nullopt);
    const auto item = turn.next();
    if (!item) return false;
    put_copy(main, *item, put_turn::limits::none);
    turn.take();
    turn.publish();
    return true;
  }

  std::unique_ptr<shared_queue> copies_;
  owner_id owner_ = 0;
};

}  // namespace procpool::detail
