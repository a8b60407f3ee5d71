// SPDX-License-Identifier: MIT
/// @file
/// Implements descriptor_store.hpp; object_transfer.hpp has the part that sends.
///
/// Each message in the socket has a ticket and one descriptor. A receiver looks through them
/// without removing any (MSG_PEEK at an offset, unix(7) and socket(7) SO_PEEK_OFF), which gives it
/// a copy of the descriptor. It notes the ticket as taken. Messages leave the socket at its front,
/// when their tickets are taken. One receiver at a time: the offset belongs to the socket. A
/// receiver that dies has changed nothing, or has noted its ticket.
#pragma once

#include <sys/socket.h>
#include <sys/uio.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <utility>

#include <procpool/config.hpp>
#include <procpool/detail/heap/descriptor_store.hpp>
#include <procpool/detail/heap/owner_lock.hpp>
#include <procpool/detail/heap/shared_heap.hpp>
#include <procpool/detail/heap/this_process.hpp>
#include <procpool/detail/os/fd.hpp>
#include <procpool/detail/os/stdio.hpp>
#include <procpool/detail/os/syscall.hpp>

namespace procpool::detail {

/// The store of one heap. Short-lived.
class descriptor_store {
 public:
  explicit descriptor_store(shared_heap& heap)
      : heap_(heap), table_(heap.control().header.tickets) {}

  std::uint64_t deposit(int descriptor) {
    const std::uint64_t ticket = 1 + table_.next.fetch_add(1, std::memory_order_relaxed);  // unique
    for (int attempt = 0; attempt < 2; ++attempt) {
      if (send(ticket, descriptor)) return ticket;
      const lock_guard lock(*this);
      drop_taken();
      bring_taken_to_front();
    }
    os::throw_errno("too many descriptors are on their way to other processes", EAGAIN);
  }

  /// @returns an empty one if the ticket is not there
  os::fd take(std::uint64_t ticket, bool last) {
    const lock_guard lock(*this);
    require(heap_.store_out());
    int offset = 0;
    os::fd found;
    while (true) {
      message next = receive(offset, MSG_PEEK);
      if (next.ticket == 0) break;
      if (next.ticket == ticket) {
        found = std::move(next.descriptor);
        break;
      }
      offset += static_cast<int>(sizeof ticket);
    }
    if (found && last) note_taken(ticket);
    try {
      drop_taken();
    } catch (const ProcessError&) {  // no descriptor is free: another one drops it
    }
    return found;
  }

  void discard(std::uint64_t ticket) {
    const lock_guard lock(*this);
    note_taken(ticket);
    drop_taken();
  }

 private:
  struct message {
    std::uint64_t ticket = 0;  ///< 0: there is none
    os::fd descriptor;
  };
  struct alignas(cmsghdr) control_space {
    std::array<char, CMSG_SPACE(sizeof(int))> bytes{};
  };

  class lock_guard {
   public:
    // The limit: another process may be stopped while it has the lock.
    explicit lock_guard(descriptor_store& of) : word_(of.table_.lock) {
      const auto limit = std::chrono::steady_clock::now() + std::chrono::seconds(5);
      if (acquire_owner_word(word_, this_owner(), limit) == acquired::no) {
        os::throw_errno("descriptors on their way to other processes are locked", ETIMEDOUT);
      }
    }
    lock_guard(const lock_guard&) = delete;
    lock_guard& operator=(const lock_guard&) = delete;
    ~lock_guard() { release_owner_word(word_); }

   private:
    std::atomic<std::uint32_t>& word_;
  };

  static void require(const guarded_fd& end) {
    if (!end.intact()) {
      os::throw_errno("the sockets of the shared heap have been closed by other code", EBADF);
    }
  }

  // @returns false: the socket is full
  [[nodiscard]] bool send(std::uint64_t ticket, int descriptor) const {
    require(heap_.store_in());
    iovec part{&ticket, sizeof ticket};
    control_space control;
    msghdr head{};
    head.msg_iov = &part;
    head.msg_iovlen = 1;
    head.msg_control = control.bytes.data();
    head.msg_controllen = control.bytes.size();
    auto* rights = reinterpret_cast<cmsghdr*>(control.bytes.data());
    rights->cmsg_level = SOL_SOCKET;
    rights->cmsg_type = SCM_RIGHTS;
    rights->cmsg_len = CMSG_LEN(sizeof descriptor);
    std::memcpy(CMSG_DATA(rights), &descriptor, sizeof descriptor);
    const auto sent = os::retry([&] {
      return PROCPOOL_SYSTEM(sendmsg(heap_.store_in().get(), &head, MSG_NOSIGNAL | MSG_DONTWAIT));
    });
    if (sent != -1) return true;
    if (errno == EAGAIN || errno == ENOBUFS || errno == ETOOMANYREFS) return false;
    os::throw_errno("cannot send a descriptor to other processes (sendmsg)");
  }

  // The message at @p offset. Without MSG_PEEK it is removed.
  [[nodiscard]] message receive(int offset, int flags) const {
    const int from = heap_.store_out().get();
    os::check(PROCPOOL_SYSTEM(setsockopt(from, SOL_SOCKET, SO_PEEK_OFF, &offset, sizeof offset)),
              "cannot receive a descriptor from another process (setsockopt SO_PEEK_OFF)");
    message got;
    iovec part{&got.ticket, sizeof got.ticket};
    control_space control;
    msghdr head{};
    head.msg_iov = &part;
    head.msg_iovlen = 1;
    head.msg_control = control.bytes.data();
    head.msg_controllen = control.bytes.size();
    const auto size = os::retry([&] {
      return PROCPOOL_SYSTEM(recvmsg(from, &head, flags | MSG_CMSG_CLOEXEC | MSG_DONTWAIT));
    });
    if (size == -1 && errno == EAGAIN) return {};
    os::check(size, "cannot receive a descriptor from another process (recvmsg)");
    const cmsghdr* rights = CMSG_FIRSTHDR(&head);
    if (rights != nullptr && rights->cmsg_type == SCM_RIGHTS) {
      int number = -1;
      std::memcpy(&number, CMSG_DATA(rights), sizeof number);
      got.descriptor = os::off_stdio(os::fd(number));
    } else if (size == sizeof got.ticket) {  // no number was free
      os::throw_errno("cannot receive a descriptor from another process", EMFILE);
    }
    if (size != sizeof got.ticket) got.ticket = not_ours;
    return got;
  }

  // The functions below change the table under its lock. Relaxed: the lock orders them.
  void note_taken(std::uint64_t ticket) noexcept {
    std::uint32_t count = taken_count();
    if (count == max_taken_tickets) count = 0;  // of tickets whose messages are gone
    table_.taken[count].store(ticket, std::memory_order_relaxed);
    table_.count.store(count + 1, std::memory_order_relaxed);
  }

  [[nodiscard]] std::uint32_t taken_count() const noexcept {
    return std::min<std::uint32_t>(table_.count.load(std::memory_order_relaxed), max_taken_tickets);
  }

  // A message that is not taken for long keeps those behind it. It goes to the back: its copy is
  // put there before it is removed, or after, if the socket is full.
  void bring_taken_to_front() {
    for (std::size_t moved = 0; moved < max_taken_tickets && taken_count() != 0; ++moved) {
      const message first = receive(0, MSG_PEEK);
      if (first.ticket == 0) return;
      const bool sent = send(first.ticket, first.descriptor.get());
      static_cast<void>(receive(0, 0));
      if (!sent && !send(first.ticket, first.descriptor.get())) return;
      drop_taken();
    }
  }

  // Removes messages at the front whose tickets are taken. First the message: a note that is left
  // does no harm, a message that nobody takes would stay.
  void drop_taken() {
    if (!heap_.store_out().intact()) return;
    while (true) {
      const message first = receive(0, MSG_PEEK);
      if (first.ticket == 0 || !is_taken(first.ticket)) return;
      static_cast<void>(receive(0, 0));
      forget_taken(first.ticket);
    }
  }

  // @returns its place in the table; taken_count(): it is not there
  [[nodiscard]] std::uint32_t place_of(std::uint64_t ticket) const noexcept {
    const std::uint32_t count = taken_count();
    std::uint32_t place = 0;
    while (place < count && table_.taken[place].load(std::memory_order_relaxed) != ticket) ++place;
    return place;
  }
  [[nodiscard]] bool is_taken(std::uint64_t ticket) const noexcept {
    return ticket == not_ours || place_of(ticket) < taken_count();
  }
  void forget_taken(std::uint64_t ticket) noexcept {
    const std::uint32_t count = taken_count();
    const std::uint32_t place = place_of(ticket);
    if (place >= count) return;
    table_.taken[place].store(table_.taken[count - 1].load(std::memory_order_relaxed),
                              std::memory_order_relaxed);
    table_.count.store(count - 1, std::memory_order_relaxed);
  }

  static constexpr std::uint64_t not_ours = ~std::uint64_t{0};

  shared_heap& heap_;
  ticket_table& table_;
};

/// Removes a descriptor that nobody will receive. A failure leaves it there until the heap ends.
inline void discard_descriptor(shared_heap& heap, std::uint64_t ticket) noexcept {
  try {
    descriptor_store(heap).discard(ticket);
  } catch (...) {
  }
}

PROCPOOL_FUNCTION os::fd receive_descriptor(const descriptor_wire& wire) {
  const auto heap = heap_process::instance().heap_if_any();
  if (heap == nullptr || heap->id() != wire.heap) {
    throw std::invalid_argument("the descriptor received is of another program");
  }
  os::fd found = descriptor_store(*heap).take(wire.ticket, wire.counted != 0);
  if (!found) throw std::invalid_argument("the descriptor received was received before");
  return found;
}

}  // namespace procpool::detail
