// SPDX-License-Identifier: MIT
// The rings alone, both ends in one process: frames in, records out, wrapping, streaming, taking
// back.
#include <catch2/catch_test_macros.hpp>

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <numeric>
#include <optional>
#include <random>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include <procpool/detail/ring/result_consumer.hpp>
#include <procpool/detail/ring/result_producer.hpp>
#include <procpool/detail/ring/task_consumer.hpp>
#include <procpool/detail/ring/task_producer.hpp>

namespace {

using namespace procpool::detail;

// One channel's memory, without processes.
struct memory {
  explicit memory(std::size_t ring_bytes)
      : task_ring(new (std::align_val_t{64}) std::byte[ring_bytes]),
        result_ring(new (std::align_val_t{64}) std::byte[ring_bytes]),
        size(ring_bytes) {}

  struct aligned_delete {
    void operator()(std::byte* bytes) const { operator delete[](bytes, std::align_val_t{64}); }
  };

  task_control tasks{};
  result_control results{};
  std::unique_ptr<std::byte[], aligned_delete> task_ring;
  std::unique_ptr<std::byte[], aligned_delete> result_ring;
  std::size_t size;

  [[nodiscard]] task_producer sender() { return {tasks, {task_ring.get(), size}, results}; }
  [[nodiscard]] task_consumer receiver() { return {tasks, {task_ring.get(), size}, results}; }
};

// In one thread there is nobody to wait for: what is waited for must be there.
const auto must_be_ready = [](auto ready) { REQUIRE(ready()); };

std::vector<std::byte> pattern(std::size_t size, std::uint32_t seed) {
  std::vector<std::byte> bytes(size);
  std::mt19937 random(seed);
  for (auto& byte : bytes) byte = static_cast<std::byte>(random());
  return bytes;
}

frame_head head_for(std::span<const std::byte> body, std::uint32_t tag) {
  frame_head head{};
  head.kind = frame_kind::run;
  head.place = body_place::in_line;
  head.item_count = tag;
  head.body_size = body.size();
  return head;
}

bool equal(std::span<const std::byte> a, std::span<const std::byte> b) {
  return std::ranges::equal(a, b);
}

TEST_CASE("task ring: frames of all sizes arrive whole, aligned and in order", "[rings]") {
  memory m(4096);
  auto sender = m.sender();
  auto receiver = m.receiver();
  std::mt19937 random(1);
  std::uint32_t sent = 0;
  std::uint32_t received = 0;
  while (received < 5'000) {
    while (sent - received < 6) {
      const auto body = pattern(random() % (sender.in_line_limit() + 1), sent);
      if (!sender.try_send(head_for(body, sent), body)) break;
      ++sent;
    }
    REQUIRE(sent > received);
    const frame_head head = receiver.next(must_be_ready);
    REQUIRE(head.item_count == received);
    const auto body = receiver.in_line_body(head);
    REQUIRE(reinterpret_cast<std::uintptr_t>(body.data()) % frame_alignment == 0);
    REQUIRE(equal(body, pattern(body.size(), received)));
    receiver.pass(head);
    REQUIRE(sender.front_ordinal() == received);
    sender.pop_front();
    ++received;
  }
}

TEST_CASE("task ring: a frame's space is not used again before its results are there", "[rings]") {
  memory m(4096);
  auto sender = m.sender();
  auto receiver = m.receiver();
  const auto body = pattern(900, 1);
  int fitted = 0;
  while (sender.try_send(head_for(body, 0), body)) ++fitted;
  CHECK(fitted == 4);
  const frame_head head = receiver.next(must_be_ready);
  receiver.pass(head);  // the worker has read it
  CHECK_FALSE(sender.try_send(head_for(body, 0), body));
  sender.pop_front();  // its results have come
  CHECK(sender.try_send(head_for(body, 0), body));
}

TEST_CASE("task ring: a body longer than the ring streams through it", "[rings]") {
  memory m(4096);
  auto sender = m.sender();
  auto receiver = m.receiver();
  const auto small = pattern(100, 9);
  for (const std::size_t size : {std::size_t{4097}, std::size_t{100'003}, std::size_t{65'536}}) {
    const auto body = pattern(size, static_cast<std::uint32_t>(size));
    frame_head head = head_for(body, 1);
    head.place = body_place::stream;
    REQUIRE(sender.try_send_stream(head, body));
    CHECK_FALSE(sender.try_send(head_for(small, 2), small));  // not in the middle of a stream
    const frame_head got = receiver.next(must_be_ready);
    std::vector<std::byte> read(size);
    const auto pump = [&](auto ready) {
      if (!ready()) sender.pump();
      REQUIRE(ready());
    };
    receiver.read_stream(read.data(), size, pump, [] {});
    CHECK(equal(read, body));
    receiver.pass(got);
    while (sender.pump()) {
    }
    sender.pop_front();
    REQUIRE(sender.try_send(head_for(small, 3), small));
    const frame_head next = receiver.next(must_be_ready);
    CHECK(next.item_count == 3);
    CHECK(equal(receiver.in_line_body(next), small));
    receiver.pass(next);
    sender.pop_front();
  }
}

TEST_CASE("task ring: what was not claimed can be taken back", "[rings]") {
  memory m(4096);
  auto sender = m.sender();
  auto receiver = m.receiver();
  for (std::uint32_t i = 0; i < 4; ++i) {
    const auto body = pattern(64, i);
    REQUIRE(sender.try_send(head_for(body, i), body));
  }
  const frame_head first = receiver.next(must_be_ready);
  CHECK(sender.claimed(0));
  CHECK_FALSE(sender.claimed(1));
  CHECK(sender.take_back(0) == 1);  // the claimed one stays
  CHECK(equal(sender.body(3), pattern(64, 3)));
  CHECK(sender.take_back(0) == sender.next_ordinal());  // nothing more
  const auto body = pattern(64, 4);
  REQUIRE(sender.try_send(head_for(body, 4), body));
  receiver.pass(first);
  const frame_head next = receiver.next(must_be_ready);
  CHECK(next.item_count == 4);
  CHECK(next.ordinal == 4);
  receiver.pass(next);
  sender.pop_front();
  CHECK(sender.front_ordinal() == 4);
  sender.pop_front();
  const auto large = pattern(sender.in_line_limit(), 5);  // all space is free again
  for (int i = 0; i < 3; ++i) REQUIRE(sender.try_send(head_for(large, 5), large));
}

TEST_CASE("task ring: one frame can be taken away from between others", "[rings]") {
  memory m(4096);
  auto sender = m.sender();
  auto receiver = m.receiver();
  for (std::uint32_t i = 0; i < 5; ++i) REQUIRE(sender.try_send(head_for({}, i), {}));
  const frame_head first = receiver.next(must_be_ready);
  CHECK_FALSE(sender.take_away(0));  // claimed
  CHECK(sender.take_away(3));
  CHECK(sender.take_away(1));
  receiver.pass(first);
  sender.pop_front();
  for (const std::uint32_t tag : {2U, 4U}) {
    const frame_head next = receiver.next(must_be_ready);
    CHECK(next.item_count == tag);
    CHECK(sender.front_ordinal() == tag);
    receiver.pass(next);
    sender.pop_front();
  }
  const auto large = pattern(sender.in_line_limit(), 5);  // all space is free again
  for (int i = 0; i < 3; ++i) REQUIRE(sender.try_send(head_for(large, 5), large));
}

TEST_CASE("task ring: a frame that may not be taken back ends it", "[rings]") {
  memory m(4096);
  auto sender = m.sender();
  auto receiver = m.receiver();
  for (std::uint32_t i = 0; i < 4; ++i) REQUIRE(sender.try_send(head_for({}, i), {}));
  std::vector<std::uint64_t> asked;
  const auto may = [&](std::uint64_t ordinal) {
    asked.push_back(ordinal);
    return ordinal != 1;
  };
  CHECK(sender.take_back(0, may) == 2);
  CHECK(asked == std::vector<std::uint64_t>{3, 2, 1});
  for (const std::uint32_t tag : {0U, 1U}) {
    const frame_head next = receiver.next(must_be_ready);
    CHECK(next.item_count == tag);
    receiver.pass(next);
    sender.pop_front();
  }
}

TEST_CASE("task ring: taking back against claiming, in two threads, loses and doubles nothing",
          "[rings]") {
  constexpr std::uint32_t frames = 200'000;
  memory m(16384);
  auto sender = m.sender();
  std::vector<std::uint8_t> ran(frames);
  std::atomic<std::uint64_t> done{0};  // ordinals that the worker has finished, plus one
  std::thread worker([&] {
    auto receiver = m.receiver();
    const auto spin = [](auto ready) {
      while (!ready()) std::this_thread::yield();
    };
    while (true) {
      const frame_head head = receiver.next(spin);
      if (head.kind == frame_kind::retire) return;
      ++ran[head.item_count];
      receiver.pass(head);
      done.store(head.ordinal + 1, std::memory_order_release);
    }
  });
  std::uint32_t next = 0;
  std::vector<std::uint32_t> in_ring;  // tags of frames in flight, by order
  std::vector<std::uint64_t> ordinals;
  std::vector<std::uint32_t> again;  // taken back
  std::uint64_t taken_back = 0;
  std::uint64_t taken_away = 0;
  std::mt19937 random(3);
  const auto retire_finished = [&] {
    while (!ordinals.empty() && ordinals.front() < done.load(std::memory_order_acquire)) {
      sender.pop_front();
      ordinals.erase(ordinals.begin());
      in_ring.erase(in_ring.begin());
    }
  };
  while (next < frames || !again.empty() || !ordinals.empty()) {
    retire_finished();
    const std::uint32_t tag = !again.empty() ? again.back() : next;
    const std::uint64_t ordinal = sender.next_ordinal();
    if (tag < frames && ordinals.size() < 40 && sender.try_send(head_for({}, tag), {})) {
      ordinals.push_back(ordinal);
      in_ring.push_back(tag);
      if (!again.empty())
        again.pop_back();
      else
        ++next;
    } else {
      std::this_thread::yield();
    }
    if (random() % 16 == 1 && !ordinals.empty()) {
      const std::size_t which = random() % ordinals.size();
      if (sender.take_away(ordinals[which])) {
        again.push_back(in_ring[which]);
        ordinals.erase(ordinals.begin() + static_cast<std::ptrdiff_t>(which));
        in_ring.erase(in_ring.begin() + static_cast<std::ptrdiff_t>(which));
        ++taken_away;
      }
    }
    if (random() % 16 == 0 && !ordinals.empty()) {
      const std::uint64_t first = sender.take_back(ordinals[random() % ordinals.size()]);
      while (!ordinals.empty() && ordinals.back() >= first) {
        again.push_back(in_ring.back());
        ordinals.pop_back();
        in_ring.pop_back();
        ++taken_back;
      }
    }
  }
  frame_head retire{};
  retire.kind = frame_kind::retire;
  retire.place = body_place::in_line;
  while (!sender.try_send(retire, {})) std::this_thread::yield();
  worker.join();
  CHECK(std::ranges::all_of(ran, [](std::uint8_t times) { return times == 1; }));
  CHECK(taken_back > 0);
  CHECK(taken_away > 0);
}

// ---- results
// -------------------------------------------------------------------------------------

// Collects what a receiver delivers.
struct result_processor {
  delivery check(const record_head& head) {
    return {.head = 0, .granule = head.kind == record_kind::run ? 1U : 0U};
  }
  void record(const record_head& head, std::span<const std::byte> bytes) {
    heads.push_back(head);
    payloads.emplace_back(bytes.begin(), bytes.end());
  }
  void piece(const record_head& head, std::uint64_t offset, std::span<const std::byte> bytes) {
    if (offset == 0) {
      heads.push_back(head);
      payloads.emplace_back();
    }
    REQUIRE(payloads.back().size() == offset);
    payloads.back().insert(payloads.back().end(), bytes.begin(), bytes.end());
  }
  void lost(const record_head&) { FAIL("there was memory"); }

  std::vector<record_head> heads;
  std::vector<std::vector<std::byte>> payloads;
};

struct result_channel {
  explicit result_channel(std::size_t ring_bytes)
      : m(ring_bytes),
        receiver(m.results, {m.result_ring.get(), ring_bytes}, m.tasks),
        sender(m.results, {m.result_ring.get(), ring_bytes}, m.tasks,
               [this](const std::function<bool()>& ready) {
                 while (!ready()) REQUIRE(receiver.drain(got));
               }) {}

  void end_and_commit() {
    sender.end_frame();
    sender.commit();
  }

  memory m;
  result_processor got;
  result_consumer receiver;
  result_producer<std::function<void(const std::function<bool()>&)>> sender;
};

TEST_CASE("result ring: records of all sizes arrive whole and in order", "[rings]") {
  result_channel c(4096);
  std::mt19937 random(2);
  std::vector<std::vector<std::byte>> sent;
  for (std::uint32_t i = 0; i < 2'000; ++i) {
    sent.push_back(pattern(random() % 3 == 0 ? random() % 20'000 : random() % 100, i));
    c.sender.begin_frame(i, 0);
    c.sender.put(record_kind::value, 0, sent.back());
    c.end_and_commit();
    if (random() % 4 == 0) c.receiver.drain(c.got);
  }
  c.receiver.drain(c.got);
  REQUIRE(c.got.payloads.size() == sent.size());
  for (std::size_t i = 0; i < sent.size(); ++i) {
    REQUIRE(c.got.heads[i].ordinal == i);
    REQUIRE(equal(c.got.payloads[i], sent[i]));
  }
}

TEST_CASE("result ring: plain values are packed into runs", "[rings]") {
  result_channel c(4096);
  constexpr std::uint32_t items = 10'000;
  c.sender.begin_frame(0, 0);
  for (std::uint32_t i = 0; i < items; ++i) {
    c.sender.begin_item(i);
    c.sender.put_plain(i, &i, sizeof i);
  }
  c.end_and_commit();
  c.receiver.drain(c.got);
  std::uint32_t next = 0;
  for (std::size_t run = 0; run < c.got.heads.size(); ++run) {
    REQUIRE(c.got.heads[run].item == next);
    for (std::size_t at = 0; at < c.got.payloads[run].size(); at += sizeof next) {
      std::uint32_t value = 0;
      std::memcpy(&value, &c.got.payloads[run][at], sizeof value);
      REQUIRE(value == next++);
    }
  }
  CHECK(next == items);
  CHECK(c.got.heads.size() < 20);
}

TEST_CASE("result ring: held back results are seen by one who looks for them", "[rings]") {
  result_channel c(4096);
  const std::uint64_t value = 42;
  c.sender.begin_frame(0, 0);
  c.sender.put_plain(0, &value, sizeof value);
  CHECK_FALSE(c.receiver.anything_finished());
  c.sender.end_frame();
  CHECK_FALSE(c.receiver.anything());
  CHECK(c.receiver.anything_finished());
  CHECK(c.receiver.drain(c.got));
  CHECK(c.got.payloads.size() == 1);
  c.sender.commit();
  CHECK_FALSE(c.receiver.anything());
  CHECK_FALSE(c.receiver.drain(c.got));
}

TEST_CASE("result ring: after a death finished items count, the one being written does not",
          "[rings]") {
  result_channel c(4096);
  c.sender.begin_frame(0, 0);
  for (std::uint64_t i = 0; i < 5; ++i) c.sender.put_plain(static_cast<std::uint32_t>(i), &i, 8);
  c.sender.begin_item(5);  // and here it dies
  CHECK_FALSE(c.receiver.drain(c.got));
  c.receiver.drain_last(c.got);
  REQUIRE(c.got.payloads.size() == 1);
  CHECK(c.got.payloads[0].size() == 5 * 8);
  CHECK(c.m.results.started.load() == 5);
}

TEST_CASE("result ring: a part of a head is no news", "[rings]") {
  memory m(4096);
  result_consumer receiver(m.results, {m.result_ring.get(), m.size}, m.tasks);
  result_processor got;
  m.results.committed = 16;  // the worker was stopped in the middle of a head
  CHECK(receiver.anything());
  CHECK_FALSE(receiver.drain(got));
  CHECK_FALSE(receiver.anything());
  CHECK_FALSE(receiver.anything_finished());
}

TEST_CASE("result ring: a forged cursor or an unfinished run is a violation", "[rings]") {
  memory m(4096);
  result_consumer receiver(m.results, {m.result_ring.get(), m.size}, m.tasks);
  result_processor got;
  SECTION("a cursor beyond the ring") {
    m.results.committed = 4097;
    CHECK_THROWS_AS(receiver.drain(got), protocol_violation);
  }
  SECTION("a cursor that goes back changes nothing") {
    m.results.committed = 0;
    m.results.finished = 0;
    CHECK_FALSE(receiver.drain(got));
  }
  SECTION("a run that is committed open") {
    const record_head head{0, 0, record_kind::run, 0, open_length};
    std::memcpy(m.result_ring.get(), &head, sizeof head);
    m.results.committed = sizeof head + 8;
    CHECK_THROWS_AS(receiver.drain(got), protocol_violation);
  }
}

}  // namespace

TEST_CASE("task ring: the space of a skipped frame is not used again while the worker looks at it",
          "[rings]") {
  memory m(4096);
  auto sender = m.sender();
  auto receiver = m.receiver();
  const auto body = pattern(944, 1);  // four frames fill the ring
  for (std::uint32_t i = 0; i < 4; ++i) REQUIRE(sender.try_send(head_for(body, i), body));
  REQUIRE(sender.take_back(0) == 0);
  REQUIRE_FALSE(sender.try_send(head_for(body, 99), body));
  m.tasks.limit.store(0);  // holds the worker between its claim and its look at the kind
  bool held = false;
  const auto wait = [&](auto ready) {
    if (ready()) return;
    if (held) throw std::runtime_error("nothing more");
    held = true;
    CHECK_FALSE(sender.try_send(head_for(body, 99), body));
    m.tasks.limit.store(no_limit);
  };
  CHECK_THROWS(receiver.next(wait));  // four frames to pass over, none to run
  CHECK(sender.try_send(head_for(body, 99), body));
  CHECK(receiver.next(must_be_ready).item_count == 99);
}

TEST_CASE("results: before the first item nothing is named as started", "[rings]") {
  memory m(4096);
  result_producer results(m.results, {m.result_ring.get(), m.size}, m.tasks, must_be_ready);
  CHECK(m.results.started.load() != started_mark(0, 0));
}
