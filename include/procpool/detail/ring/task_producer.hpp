// SPDX-License-Identifier: MIT
/// @file
/// The parent's end of a task ring: it produces frames, one worker consumes them in order.
///
/// What each side knows. The parent's records (cursors, frames in flight) are private. From the
/// worker it takes only hints that can harm no one but that worker: how far it has claimed, and how
/// much of a stream it has taken. The space of a frame is reused when the parent has the frame's
/// results, not when the worker says so.
///
/// Taking frames back. The worker publishes its claim, then reads the limit. The parent publishes
/// the limit, then reads the claim. All four are sequentially consistent, so at least one side sees
/// the other's store. The claim that the parent read decides: frames that it saw claimed stay. It
/// marks the others as skipped, then lifts the limit. A worker that finds the limit at or below its
/// frame waits until the limit is lifted, then reads the frame's kind again. Taking back one frame
/// between others works the same way. If the worker dies meanwhile, its claim says which frames it
/// had. If the parent dies, the fork server kills the worker.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <optional>
#include <span>

#include <procpool/detail/base/fifo.hpp>
#include <procpool/detail/ring/layout.hpp>
#include <procpool/detail/ring/ring_memory.hpp>

namespace procpool::detail {

inline constexpr std::uint64_t no_limit = std::numeric_limits<std::uint64_t>::max();

/// Fetches a cache line that will be written soon, so that the fence after the write need not wait
/// for the other CPU to release the line. Only a hint: any address is allowed.
inline void prefetch_for_write(const void* line) noexcept {
#if defined(__x86_64__)
  asm volatile("prefetchw %0" : : "m"(*static_cast<const char*>(line)));
#else
  __builtin_prefetch(line, 1);
#endif
}

/// Parent's end. Not thread-safe: used under the lock of its pool.
class task_producer {
 public:
  task_producer(task_control& control, std::span<std::byte> ring, const result_control& worker)
      : control_(&control), ring_(ring), worker_(&worker) {
    control.published.store(0, std::memory_order_relaxed);     // before the worker exists
    control.limit.store(no_limit, std::memory_order_relaxed);  // likewise
    in_flight_.make_room();  // an idle worker can always be sent a frame
  }

  /// Bytes of the largest body that travels inside a frame. Larger ones use the arena or a stream.
  [[nodiscard]] static constexpr std::size_t in_line_limit(std::uint64_t ring_bytes) noexcept {
    return ring_bytes / 4 - sizeof(frame_head);
  }
  [[nodiscard]] std::size_t in_line_limit() const noexcept { return in_line_limit(ring_.capacity); }

  /// Sends a frame whose body is in-line (@p body) or in the arena, as @p head says. Fills in
  /// length and ordinal of the head. @returns false: no room now
  bool try_send(const frame_head& head, std::span<const std::byte> body) {
    prefetch_for_write(&control_->published);
    const std::uint64_t padded = round_up<std::uint64_t>(body.size(), frame_alignment);
    std::byte* at = make_room(head, sizeof head + padded, 0);
    if (at == nullptr) return false;
    if (!body.empty()) std::memcpy(at + sizeof head, body.data(), body.size());
    publish();
    return true;
  }

  /// Sends the head of a frame; pump() sends its @p body, which must outlive the frame.
  /// @returns false: no room now
  bool try_send_stream(const frame_head& head, std::span<const std::byte> body) {
    const std::uint64_t padded = round_up<std::uint64_t>(body.size(), frame_alignment);
    if (make_room(head, sizeof head, padded) == nullptr) return false;
    head_ -= padded;  // pump() sends it
    stream_ = body;
    publish();
    pump();
    return true;
  }

  /// Sends as much of a streamed body as there is room for. @returns whether anything was sent.
  bool pump() {
    taken_.store(worker_->consumed.load(std::memory_order_acquire),  // bytes it has copied
                 std::memory_order_relaxed);                         // for anything_taken()
    if (stream_.empty()) return false;
    const std::size_t piece = std::min<std::size_t>(stream_.size(), room());
    if (piece == 0) return false;
    ring_.copy_in(head_, stream_.data(), piece);
    head_ += piece;
    stream_ = stream_.subspan(piece);
    if (stream_.empty()) head_ = round_up<std::uint64_t>(head_, frame_alignment);
    publish();
    return true;
  }

  [[nodiscard]] bool streaming() const noexcept { return !stream_.empty(); }
  /// Whether the oldest frame without complete results is still being streamed.
  [[nodiscard]] bool streaming_front() const noexcept {
    return streaming() && front_ordinal() + 1 == next_ordinal_;
  }
  /// Whether the worker has taken more of a stream since the last pump(). Any thread.
  [[nodiscard]] bool anything_taken() const noexcept {
    return worker_->consumed.load(std::memory_order_relaxed) !=
           taken_.load(std::memory_order_relaxed);  // a hint; pump() acquires
  }
  [[nodiscard]] std::uint64_t next_ordinal() const noexcept { return next_ordinal_; }
  /// Ordinal of the last frame whose results are complete.
  [[nodiscard]] std::optional<std::uint64_t> last_answered() const noexcept { return answered_; }

  /// Ordinal of the oldest frame whose results are not complete. Precondition: there is one.
  [[nodiscard]] std::uint64_t front_ordinal() const noexcept { return front().ordinal; }

  /// Notes that there was no room for a frame. From now on passed_more() says whether there may be.
  void note_refusal() noexcept {
    refused_at_.store(worker_->claimed.load(std::memory_order_acquire),  // frames it has passed
                      std::memory_order_relaxed);                        // for passed_more()
  }
  /// The same for an unresponsive worker, whose frames were all taken back.
  /// @returns false if it has passed them all by now
  [[nodiscard]] bool note_silence() noexcept {
    const std::uint64_t claimed = worker_->claimed.load(std::memory_order_acquire);  // as above
    refused_at_.store(claimed, std::memory_order_relaxed);                           // likewise
    return claimed < head_;
  }
  /// Whether the worker has passed frames since the last note_refusal() or note_silence(). Any
  /// thread.
  [[nodiscard]] bool passed_more() const noexcept {
    return worker_->claimed.load(std::memory_order_relaxed) !=
           refused_at_.load(std::memory_order_relaxed);  // a hint; the next attempt decides
  }

  /// The in-line body of the frame with this ordinal, which is in flight.
  [[nodiscard]] std::span<const std::byte> body(std::uint64_t ordinal) const noexcept {
    const frame_head& head = head_of(find(ordinal));
    return {reinterpret_cast<const std::byte*>(&head + 1), head.body_size};
  }

  /// The oldest frame has all its results: its space can be used again.
  void pop_front() {
    while (in_flight_.front().skipped) in_flight_.pop_front();  // passed, as a later frame has run
    answered_ = in_flight_.front().ordinal;
    in_flight_.pop_front();
  }

  /// Takes back frames from the youngest down to @p from (ordinal), as far as the worker has not
  /// claimed them. @returns the ordinal of the oldest frame taken back; next_ordinal() if none.
  std::uint64_t take_back(std::uint64_t from) {
    return take_back(from, [](std::uint64_t) { return true; });
  }
  /// The same, but asks @p may_take(ordinal) before each. False: this frame and older ones stay.
  /// The frame is unchanged when it is asked for, but the worker may already wait at the limit.
  template <class MayTake>
  std::uint64_t take_back(std::uint64_t from, MayTake may_take) {
    if (streaming() || from >= next_ordinal_) return next_ordinal_;
    const entry& first = find(from);
    control_->limit.store(first.at, std::memory_order_seq_cst);      // before the claim is read
    const std::uint64_t claimed = claim(std::memory_order_seq_cst);  // after the limit
    std::uint64_t taken = next_ordinal_;
    for (std::size_t i = in_flight_.size(); i > 0; --i) {
      entry& frame = in_flight_[i - 1];
      if (frame.ordinal < from || frame.at < claimed) break;
      if (frame.retires || frame.skipped) continue;  // the order stands; already taken back
      if (!may_take(frame.ordinal)) break;
      skip(frame);
      taken = frame.ordinal;
    }
    control_->limit.store(no_limit, std::memory_order_seq_cst);  // lets a waiting worker continue
    return taken;
  }
  /// Takes back one frame in flight, whatever follows it. @returns false: the worker has claimed
  /// it, or has a part of its body.
  [[nodiscard]] bool take_away(std::uint64_t ordinal) noexcept {
    entry& frame = find(ordinal);
    if (streaming() && ordinal + 1 == next_ordinal_) return false;
    control_->limit.store(frame.at, std::memory_order_seq_cst);      // as in take_back()
    const bool free = frame.at >= claim(std::memory_order_seq_cst);  // likewise
    if (free) skip(frame);
    control_->limit.store(no_limit, std::memory_order_seq_cst);  // lets a waiting worker continue
    return free;
  }

  /// Whether the worker has claimed this frame. The answer outlives the worker.
  [[nodiscard]] bool claimed(std::uint64_t ordinal) noexcept {
    return find(ordinal).at < claim(std::memory_order_acquire);  // of a dead worker: final
  }

  /// A record of the oldest frame has arrived: the worker has claimed it, whatever `claimed` says.
  void note_begun() noexcept { claim_seen_ = std::max(claim_seen_, front().at + 1); }

  /// Whether the worker has ever claimed a frame.
  [[nodiscard]] bool anything_claimed() noexcept {
    return claim(std::memory_order_acquire) != 0;  // of a dead worker: final
  }

 private:
  struct entry {
    std::uint64_t begin;  ///< cursor where its space begins, a pad before it included
    std::uint64_t at;     ///< cursor of its head
    std::uint64_t end;    ///< cursor after it
    std::uint64_t ordinal;
    bool streamed;
    bool retires;
    bool skipped;
  };

  // How far the worker has claimed. The result only grows, up to the end of what was sent: a value
  // seen once stays, whatever a corrupted worker writes later.
  std::uint64_t claim(std::memory_order order) noexcept {
    const std::uint64_t claimed = worker_->claimed.load(order);
    const std::uint64_t sent = in_flight_.empty() ? head_ : in_flight_.back().end;
    if (claimed <= sent) claim_seen_ = std::max(claim_seen_, claimed);
    return claim_seen_;
  }

  [[nodiscard]] const entry& front() const noexcept {
    std::size_t i = 0;
    while (in_flight_[i].skipped) ++i;
    return in_flight_[i];
  }
  [[nodiscard]] const entry& find(std::uint64_t ordinal) const noexcept {
    return in_flight_[ordinal - in_flight_.front().ordinal];
  }
  [[nodiscard]] entry& find(std::uint64_t ordinal) noexcept {
    return in_flight_[ordinal - in_flight_.front().ordinal];
  }
  void skip(entry& frame) noexcept {
    store_kind(*reinterpret_cast<frame_head*>(ring_.at(frame.at)), frame_kind::skip);
    frame.skipped = true;
  }
  [[nodiscard]] const frame_head& head_of(const entry& frame) const noexcept {
    return *reinterpret_cast<const frame_head*>(ring_.at(frame.at));
  }

  // The worker passes over frames that were taken back. After that their space is free.
  void forget_skipped() {
    if (in_flight_.empty() || !in_flight_.front().skipped) return;
    const std::uint64_t claimed = worker_->claimed.load(std::memory_order_acquire);  // passed them
    while (!in_flight_.empty() && in_flight_.front().skipped && in_flight_.front().end <= claimed) {
      in_flight_.pop_front();
    }
  }

  [[nodiscard]] std::uint64_t tail() const noexcept {
    if (in_flight_.empty()) return head_;
    const entry& front = in_flight_.front();
    if (!front.streamed) return front.begin;
    // The part of a stream that the worker reports as taken is free, within what was sent.
    const std::uint64_t taken = worker_->consumed.load(std::memory_order_acquire);  // bytes copied
    return std::clamp(taken, front.begin, std::min(front.end, head_));
  }

  [[nodiscard]] std::uint64_t room() {
    forget_skipped();
    const std::uint64_t used = head_ - tail();  // rounding of a stream may exceed the capacity
    return used < ring_.capacity ? ring_.capacity - used : 0;
  }

  // Writes the head where the @p length bytes of head and in-line body lie in one piece. Returns
  // nullptr when the ring has no room, or there is no memory to record the frame in flight: then it
  // is sent when others are done. @param streamed bytes that follow the frame
  std::byte* make_room(const frame_head& head, std::uint64_t length, std::uint64_t streamed) {
    if (streaming()) return nullptr;
    const std::uint64_t gap = ring_.until_end(head_) < length ? ring_.until_end(head_) : 0;
    if (room() < gap + length || !in_flight_.may_have_room()) return nullptr;
    const std::uint64_t begin = head_;
    if (gap >= sizeof(frame_head)) write_pad(gap);
    head_ += gap;  // both sides skip a gap too small for a head
    std::byte* at = ring_.at(head_);
    auto* sent = reinterpret_cast<frame_head*>(at);
    copy_head(*sent, head);
    sent->length = static_cast<std::uint32_t>(length);  // no ring is larger
    sent->ordinal = next_ordinal_;
    sent->backlog = in_flight_.size() >= backlog_frames ? 1 : 0;
    const std::uint64_t end = head_ + length + streamed;
    const bool retires = head.kind == frame_kind::retire;
    in_flight_.push_back({begin, head_, end, next_ordinal_++, streamed != 0, retires, false});
    head_ = end;
    prefetch_for_write(ring_.at(end + prefetch_distance));
    prefetch_for_write(ring_.at(end + prefetch_distance + cache_line));
    return at;
  }

  void write_pad(std::uint64_t gap) {
    frame_head pad{};
    pad.length = static_cast<std::uint32_t>(gap);
    pad.kind = frame_kind::pad;
    pad.place = body_place::in_line;
    std::memcpy(ring_.at(head_), &pad, sizeof pad);
  }

  void publish() {
    control_->published.store(head_, std::memory_order_release);  // after the bytes
  }

  static constexpr std::uint64_t prefetch_distance = 3 * cache_line;  ///< after the written frame
  static constexpr std::size_t backlog_frames = 8;                    ///< in flight

  task_control* control_;
  ring_memory<std::byte> ring_;
  const result_control* worker_;
  fifo<entry> in_flight_;
  std::span<const std::byte> stream_;
  std::uint64_t head_ = 0;
  std::uint64_t next_ordinal_ = 0;
  std::uint64_t claim_seen_ = 0;
  std::optional<std::uint64_t> answered_;
  std::atomic<std::uint64_t> taken_{0};
  std::atomic<std::uint64_t> refused_at_{0};
};

}  // namespace procpool::detail
