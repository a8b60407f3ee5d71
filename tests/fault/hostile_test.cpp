// SPDX-License-Identifier: MIT
// Workers that run wild in their memory, forge cursors and records, never stop writing, or flood
// their parent: the task ends with an error, its worker is replaced, and nobody else notices.
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/resource.h>

#include <catch2/catch_test_macros.hpp>
#include <iterator>
#include <new>

#include "fault/hostile_battle.hpp"

namespace {

using namespace hostile;

/// Every variant of an attack on a task of this shape, @p times times.
int wage_all(const std::string& name, attack_code code, std::int32_t variants, shape form,
             manners allowed = {}, int times = 1) {
  return wage(name, allowed, [=](battle& fight) {
    for (std::int32_t i = 0; i < variants * times && fight.won(); ++i) {
      fight.round(form, code, i % variants);
    }
  });
}

finale finale_of(std::int32_t variant) {
  return static_cast<finale>(variant % 3);
}
constexpr manners any_end{.may_succeed = true};

// ---- random bytes ------------------------------------------------------------------------------

void scribble_once(const order& what) {
  std::mt19937_64 random(what.seed);
  const inbound own = inbound::find();
  fill_randomly(own.begin, own.size, random);
  leave(finale_of(what.variant));
}

/// From a thread, here and there, while the task runs on and returns; until the parent has enough.
void scribble_on_and_on(const order& what) {
  std::thread([seed = what.seed, own = inbound::find()] {
    std::mt19937_64 random(seed);
    const auto end = std::chrono::steady_clock::now() + 500ms;
    while (std::chrono::steady_clock::now() < end) {
      const std::size_t at = random() % 2 == 0 ? random() % 256 : random() % own.size;
      const std::uint64_t bytes = random() % 3 == 0 ? random() : random() % 65'536;
      std::memcpy(own.begin + at / 8 * 8, &bytes, 8);
      if (random() % 16 == 0) std::this_thread::yield();
    }
    die();
  }).detach();
  std::this_thread::sleep_for(std::chrono::microseconds(what.variant * 300));
}

/// What the attack on everything needs while it destroys everything: on pages of their own, which
/// it cannot write to itself.
struct targets {
  struct {
    std::uint64_t* begin;
    std::size_t words;
  } areas[512];
  std::size_t count;
};

const targets* writable_targets() {
  const auto areas = own_areas();
  void* page =
      mmap(nullptr, sizeof(targets), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  auto* all = new (page) targets{};
  for (const area& each : areas) {
    const bool of_the_test = each.shared() && !each.name.starts_with(results_name);
    if (!each.writable() || of_the_test || all->count == std::size(all->areas)) continue;
    all->areas[all->count++] = {reinterpret_cast<std::uint64_t*>(each.begin), each.size / 8};
  }
  mprotect(page, sizeof(targets), PROT_READ);
  return all;
}

/// Heap, stack, static data, everything: single words first, then whole areas.
void scribble_everywhere(const order& what) {
  const targets* all = writable_targets();
  std::uint64_t x = what.seed * 0x9e3779b97f4a7c15ULL + 1;
  const auto next = [&x] {
    x ^= x << 13;
    x ^= x >> 7;
    return x ^= x << 17;
  };
  for (std::int32_t i = 0; i < what.variant * 10'000; ++i) {
    const auto& area = all->areas[next() % all->count];
    area.begin[next() % area.words] = next();
  }
  for (std::uint64_t n = next();; ++n) {
    const auto& area = all->areas[n % all->count];
    const std::size_t most = area.words < (1U << 20) ? area.words : 1U << 20;
    for (std::size_t i = 0; i < most; ++i) area.begin[i] = next();
  }
}

TEST_CASE("random bytes all over a worker's writable shared memory cost one task",
          "[fault][hostile][limit:300]") {
  const campaign figures("random bytes in shared memory");
  const int times = full() ? 100 : 10;
  CHECK(wage_all("once, a number", scribble_once, 3, shape::number, any_end, times) == 0);
  CHECK(wage_all("once, a text", scribble_once, 3, shape::text, any_end, times) == 0);
  CHECK(wage_all("once, a chunk", scribble_once, 3, shape::chunk, any_end, times) == 0);
}

TEST_CASE("random bytes in shared memory while the task runs on and returns harm no other worker",
          "[fault][hostile][limit:300]") {
  const campaign figures("random bytes from a thread");
  constexpr manners allowed{.may_succeed = true, .lingers = true, .wild = true};
  const int times = full() ? 30 : 3;
  CHECK(wage_all("thread, a number", scribble_on_and_on, 8, shape::number, allowed, times) == 0);
  CHECK(wage_all("thread, a text", scribble_on_and_on, 8, shape::text, allowed, times) == 0);
  CHECK(wage_all("thread, a chunk", scribble_on_and_on, 8, shape::chunk, allowed, times) == 0);
}

TEST_CASE("random bytes in everything that a worker can write to cost one task",
          "[fault][hostile][limit:300]") {
  const campaign figures("random bytes everywhere");
  const int times = full() ? 30 : 4;
  CHECK(wage_all("everything, a number", scribble_everywhere, 5, shape::number, {}, times) == 0);
  CHECK(wage_all("everything, a text", scribble_everywhere, 5, shape::text, {}, times) == 0);
}

// ---- cursors -----------------------------------------------------------------------------------

constexpr std::int32_t fields = 8;
constexpr std::int32_t values = 12;

std::atomic<std::uint64_t>& field(result_control& own, std::int32_t which) {
  std::atomic<std::uint64_t>* all[] = {&own.committed, &own.written,    &own.finished, &own.started,
                                       &own.claimed,   &own.started_at, &own.consumed};
  return *all[which];
}

std::uint64_t extreme(std::int32_t which, std::uint64_t now, std::uint64_t seed) {
  const std::uint64_t all[values] = {0,
                                     1,
                                     ~std::uint64_t{0},
                                     ~std::uint64_t{0} - ring_bytes,
                                     std::uint64_t{1} << 63,
                                     now + ring_bytes,
                                     now + ring_bytes + 1,
                                     now + 1,
                                     now + sizeof(record_head),
                                     now - 1,
                                     now - 80,
                                     seed * 0x9e3779b97f4a7c15ULL};
  return all[which];
}

void forge_cursor(const order& what) {
  auto& own = inbound::find().control();
  const std::int32_t which = what.variant / 3 / values;
  const std::int32_t value = what.variant / 3 % values;
  if (which < fields - 1) {
    auto& word = field(own, which);
    word = extreme(value, word, what.seed);
  } else {
    own.parked = static_cast<std::uint32_t>(extreme(value, own.parked, what.seed));
  }
  leave(finale_of(what.variant));
}

/// All of them again and again, from a thread, while the task runs.
void juggle_cursors(const order& what) {
  auto& own = inbound::find().control();
  std::mt19937_64 random(what.seed);
  for (const auto end = std::chrono::steady_clock::now() + 30ms;
       std::chrono::steady_clock::now() < end;) {
    const auto which = static_cast<std::int32_t>(random() % (fields - 1));
    auto& word = field(own, which == what.variant % 3 ? 4 : which);
    word = extreme(static_cast<std::int32_t>(random() % values), word, random());
  }
  die();
}

/// It has never begun, it says, and leaves as a worker does that cannot start.
void deny_everything(const order& what) {
  auto& own = inbound::find().control();
  own.claimed = 0;
  own.started = 0;
  if (what.variant == 0) die();
  _exit(1);
}

TEST_CASE("forged cursors cost one task", "[fault][hostile][limit:600]") {
  const campaign figures("forged cursors");
  constexpr std::int32_t all = fields * values * 3;
  CHECK(wage_all("cursors, a number", forge_cursor, all, shape::number, any_end) == 0);
  if (full()) {
    CHECK(wage_all("cursors, a text", forge_cursor, all, shape::text, any_end) == 0);
    CHECK(wage_all("cursors, a chunk", forge_cursor, all, shape::chunk, any_end) == 0);
  }
  CHECK(wage_all("juggled, a number", juggle_cursors, 3, shape::number, {}, 5) == 0);
  CHECK(wage_all("juggled, a chunk", juggle_cursors, 3, shape::chunk, {}, 5) == 0);
}

TEST_CASE("a worker that denies having begun costs one task, not the pool",
          "[fault][hostile][limit:300]") {
  const campaign figures("forged claims");
  CHECK(wage_all("denial, a number", deny_everything, 2, shape::number) == 0);
  CHECK(wage_all("denial, a chunk", deny_everything, 2, shape::chunk) == 0);
}

// ---- records -----------------------------------------------------------------------------------

using kind = record_kind;
constexpr std::uint64_t huge = std::uint64_t{1} << 63;

void put(forger& forge, record_head head, std::size_t payload) {
  forge.put(head, payload);
}
record_head changed(record_head head, std::int64_t ordinal, std::int64_t item) {
  head.ordinal += static_cast<std::uint32_t>(ordinal);
  head.item += static_cast<std::uint32_t>(item);
  return head;
}

/// Each puts something into the ring that no worker writes (or, the last ones, too much of what it
/// may).
constexpr void (*forgeries[])(forger&) = {
    [](forger& f) { put(f, changed(f.head(kind::run, 4), 1, 0), 4); },
    [](forger& f) { put(f, changed(f.head(kind::value, 4), -1, 0), 4); },
    [](forger& f) { put(f, changed(f.head(kind::error, 40), 100, 0), 40); },
    [](forger& f) { put(f, changed(f.head(kind::run, 4), 1 << 30, 1 << 30), 4); },
    [](forger& f) { put(f, changed(f.head(kind::run, 4), 0, 1), 4); },
    [](forger& f) { put(f, changed(f.head(kind::value, 4), 0, -1), 4); },
    [](forger& f) { put(f, f.head(kind{0}, 4), 4); },
    [](forger& f) { put(f, f.head(kind{4}, 4), 4); },
    [](forger& f) { put(f, f.head(kind{~0U}, ~std::uint64_t{0}), 4); },
    [](forger& f) { put(f, f.head(kind::run, 3), 3); },
    [](forger& f) { put(f, f.head(kind::run, 4 * 11), 4 * 11); },
    [](forger& f) { put(f, f.head(kind::run, huge), 64); },
    [](forger& f) { put(f, f.head(kind::run, procpool::detail::open_length), 64); },
    [](forger& f) { put(f, f.head(kind::value, huge), 64); },
    [](forger& f) { put(f, f.head(kind::value, ~std::uint64_t{0}), 64); },
    [](forger& f) { put(f, f.head(kind::error, ~std::uint64_t{0} - 7), 64); },
    [](forger& f) { put(f, f.head(kind::error, 0), 0); },
    [](forger& f) { put(f, f.head(kind::error, 400), 400); },
    [](forger& f) { put(f, f.head(kind::value, 0), 0); },
    [](forger& f) { put(f, f.head(kind::value, 300), 300); },
    [](forger& f) {  // the head behind a gap
      f.advance(5);
      const record_head head = f.head(kind::run, 4);
      f.put(&head, sizeof head);
    },
    [](forger& f) { f.advance(ring_bytes); },
    [](forger& f) {  // two results for one item
      put(f, f.head(kind::run, 4), 4);
      put(f, f.head(kind::run, 4), 4);
    },
    [](forger& f) {
      put(f, f.head(kind::value, 12), 12);
      put(f, f.head(kind::value, 12), 12);
    },
    [](forger& f) {  // and for tasks behind this one
      for (int i = 0; i < 20; ++i) put(f, changed(f.head(kind::run, 4), i, 0), 4);
    },
    [](forger& f) { put(f, f.head(kind::run, 4), 4); },
    [](forger& f) { put(f, f.head(kind::value, 12), 12); },
};

void forge_record(const order& what) {
  forger forge;
  forgeries[what.variant / 3](forge);
  forge.commit();
  leave(finale_of(what.variant));
}

/// A record whose second half comes when its task seems not to have begun.
void forge_half_a_record(const order& what) {
  constexpr std::size_t half = 2048;
  const task_control& tasks = *own_tasks(what.seed);
  forger forge;
  const record_head head = forge.head(what.variant == 0 ? kind::error : kind::value, 2 * half);
  forge.put(&head, sizeof head);
  forge.advance(half);
  hand_over(forge, tasks);
  forge.control().claimed = 0;
  std::this_thread::sleep_for(100ms);  // it may be taken back now
  forge.advance(half);
  hand_over(forge, tasks);
  leave(finale::die_later);
}

TEST_CASE("forged records cost one task", "[fault][hostile][limit:600]") {
  const campaign figures("forged records");
  constexpr auto all = static_cast<std::int32_t>(3 * std::size(forgeries));
  // One that has forged its result and then returns may meet its end in the next task.
  constexpr manners allowed{.may_succeed = true, .lingers = true};
  CHECK(wage_all("records, a number", forge_record, all, shape::number, allowed) == 0);
  CHECK(wage_all("records, a text", forge_record, all, shape::text, allowed) == 0);
  CHECK(wage_all("records, a chunk", forge_record, all, shape::chunk, allowed) == 0);
}

TEST_CASE("half a record of a task that then seems not to have begun costs one task",
          "[fault][hostile][limit:300]") {
  const campaign figures("half records");
  CHECK(wage_all("half, a number", forge_half_a_record, 1, shape::number, any_end, 5) == 0);
  CHECK(wage_all("half, a text", forge_half_a_record, 2, shape::text, any_end, 5) == 0);
}

/// Last words without sense, and a crash.
void forge_crash_note(const order& what) {
  const inbound own = inbound::find();
  std::mt19937_64 random(what.seed);
  fill_randomly(reinterpret_cast<std::byte*>(&own.note()), sizeof(crash_note), random);
  own.note().signal = what.variant % 2 == 0 ? SIGSEGV : static_cast<std::uint32_t>(random());
  own.note().frames = what.variant < 4 ? crash_note::max_frames : ~std::uint64_t{0};
  if (what.variant % 4 < 2) die();
  signal(SIGSEGV, SIG_DFL);
  kill(getpid(), SIGSEGV);
}

TEST_CASE("a crash note of random bytes is survived", "[fault][hostile][limit:300]") {
  const campaign figures("forged crash notes");
  CHECK(wage_all("note", forge_crash_note, 8, shape::number, {}, full() ? 50 : 5) == 0);
}

// ---- without end -------------------------------------------------------------------------------

void promise_an_exabyte(const order& what) {
  promise(what.seed, what.variant == 0 ? kind::value : kind::error, std::uint64_t{1} << 60);
}

void repeat_nothing(const order& what) {
  stream(what.seed, [](forger& forge, bool) {
    for (int i = 0; i < 40; ++i) put(forge, forge.head(kind::run, 0), 0);
  });
}

void ring_for_ever(const order& what) {
  const int bell = own_bell();
  const std::uint64_t most = what.variant == 0 ? 1 : ~std::uint64_t{0} - 1;
  for (;;) {
    if (write(bell, &most, sizeof most) < 0) sched_yield();
  }
}

void ring_once_and_loud(const order&) {
  const std::uint64_t most = ~std::uint64_t{0} - 1;
  static_cast<void>(write(own_bell(), &most, sizeof most));
  std::this_thread::sleep_for(50ms);
}

TEST_CASE("a result without end is refused before it fills the memory",
          "[fault][hostile][limit:300]") {
  const campaign figures("endless results");
  CHECK(wage_all("an exabyte of text", promise_an_exabyte, 2, shape::text) == 0);
  CHECK(wage_all("an exabyte of error", promise_an_exabyte, 2, shape::chunk) == 0);
}

TEST_CASE("results without contents are refused", "[fault][hostile][limit:300]") {
  const campaign figures("empty results");
  CHECK(wage_all("empty runs", repeat_nothing, 1, shape::number) == 0);
  CHECK(wage_all("empty runs in a chunk", repeat_nothing, 1, shape::chunk) == 0);
}

TEST_CASE("a worker that rings its bell for ever is killed", "[fault][hostile][limit:300]") {
  const campaign figures("floods");
  CHECK(wage_all("one by one", ring_for_ever, 2, shape::number) == 0);
  CHECK(wage_all("all at once", ring_once_and_loud, 1, shape::number, any_end, 5) == 0);
}

}  // namespace
