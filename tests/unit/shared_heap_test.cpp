// SPDX-License-Identifier: MIT
// The shared heap: records, holders, owners that die, descriptors on their way.
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <procpool/detail/fork/fork_registry.hpp>
#include <procpool/detail/heap/heap.hpp>
#include <procpool/detail/heap/process_table.hpp>
#include <procpool/detail/heap/shared_heap.hpp>
#include <procpool/procpool.hpp>
#include <random>
#include <span>
#include <stdexcept>
#include <thread>
#include <utility>
#include <vector>

#include "support/shared_number.hpp"

namespace {

using namespace procpool::detail;
using namespace std::chrono_literals;
using Catch::Matchers::ContainsSubstring;
using support::is_free;
using support::shared_number;

/// Runs @p body in a forked child. @returns its exit status; minus the signal that ended it
int in_child(const std::function<int()>& body) {
  const pid_t child = ::fork();
  if (child == 0) {
    int result = 99;
    try {
      result = body();
    } catch (...) {
    }
    ::_exit(result);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  process_was_reaped(child);
  collect_dead_processes();
  return WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status);
}

os::deadline in(std::chrono::milliseconds time) {
  return std::chrono::steady_clock::now() + time;
}

std::atomic<std::uint32_t>& word_of(const shared_number& number) {
  return number.object()->record().wait_words[0];
}

}  // namespace

TEST_CASE("the state of an entry and of a record fit into one word each") {
  const slot_state slot{slot_phase::collecting, slot_state::max_generation, 4'194'304, 1023};
  const slot_state again = slot_state::of(slot.word());
  CHECK(again.phase == slot.phase);
  CHECK(again.generation == slot.generation);
  CHECK(again.pid == slot.pid);
  CHECK(again.collector == slot.collector);
  CHECK(slot.next_generation() == 1);
  const record_state record{record_phase::freeing, 1023, 0xFFFFFFFF};
  const record_state same = record_state::of(record.word());
  CHECK(same.phase == record.phase);
  CHECK(same.by == record.by);
  CHECK(same.generation == record.generation);
  CHECK((make_owner_id(1023, slot_state::max_generation) & has_sleepers) == 0);
}

TEST_CASE("a record is used again, and handles of its earlier object are refused") {
  auto first = std::make_unique<shared_number>(1);
  const auto heap = first->object()->heap();
  const object_wire wire = send_object(first->object());
  CHECK(receive_object(wire, object_kind::value, 77) == first->object());
  const std::uint32_t number = first->object()->number();
  first.reset();
  const shared_number second(2);
  CHECK(second.object()->number() == number);
  CHECK(receive_object(wire, object_kind::value, 77) == nullptr);
  CHECK(second.number() == 2);
}

TEST_CASE("a handle in transit keeps its object alive until it is received") {
  auto number = std::make_unique<shared_number>(5);
  const auto heap = number->object()->heap();
  object_record& record = number->object()->record();
  const object_wire wire = send_object(number->object());
  number.reset();
  CHECK_FALSE(is_free(record));
  auto received = receive_object(wire, object_kind::value, 77);
  REQUIRE(received != nullptr);
  received.reset();
  CHECK(is_free(record));
}

TEST_CASE("a message that was not sent leaves nothing in transit") {
  const shared_number number;
  {
    const handle_scope scope(handle_delivery::once);
    static_cast<void>(send_object(number.object()));
  }
  CHECK(number.object()->record().in_transit == 0);
  {
    handle_scope scope(handle_delivery::once);
    static_cast<void>(send_object(number.object()));
    scope.commit();
  }
  CHECK(number.object()->record().in_transit == 1);
  number.object()->record().in_transit = 0;
}

TEST_CASE("handles of another program or of another type are refused") {
  const shared_number number;
  object_wire wire = send_object(number.object());
  CHECK_THROWS_WITH(receive_object(wire, object_kind::event, 77),
                    ContainsSubstring("another type"));
  wire.counted = 0;
  CHECK_THROWS_WITH(receive_object(wire, object_kind::value, 78),
                    ContainsSubstring("another type"));
  wire.heap += 1;
  CHECK_THROWS_WITH(receive_object(wire, object_kind::value, 77),
                    ContainsSubstring("another program"));
  wire.heap -= 1;
  wire.record = heap_places::max_records;
  CHECK_THROWS_AS(receive_object(wire, object_kind::value, 77), std::invalid_argument);
}

TEST_CASE("ten thousand objects take no descriptors, and are freed") {
  const shared_number first;
  const auto heap = first.object()->heap();
  const int before = ::dup(0);
  ::close(before);
  {
    std::vector<shared_number> many(10'000);
    const int after = ::dup(0);
    ::close(after);
    CHECK(after == before);
  }
  for (std::uint32_t number = 1; number < 10'000; ++number) {
    REQUIRE(is_free(heap->record(number)));
  }
}

TEST_CASE("an object that a forked child holds stays until the child has ended") {
  auto number = std::make_unique<shared_number>(1);
  const auto heap = number->object()->heap();
  object_record& record = number->object()->record();
  std::array<int, 2> ends{};
  REQUIRE(::pipe(ends.data()) == 0);
  const pid_t child = ::fork();
  if (child == 0) {
    char go = 0;
    static_cast<void>(!::read(ends[0], &go, 1));
    ::_exit(number->number() == 2 ? 0 : 1);
  }
  number->number() = 2;
  number.reset();
  CHECK_FALSE(is_free(record));
  CHECK(::write(ends[1], "x", 1) == 1);
  int status = 0;
  ::waitpid(child, &status, 0);
  CHECK(status == 0);
  collect_dead_processes();
  CHECK(is_free(record));
  ::close(ends[0]);
  ::close(ends[1]);
}

TEST_CASE("the lock of a killed owner is taken over, and says so") {
  const shared_number number;
  CHECK(in_child([&] {
          static_cast<void>(acquire_owner_word(word_of(number), this_owner()));
          ::kill(::getpid(), SIGKILL);
          return 0;
        }) == -SIGKILL);
  CHECK_FALSE(try_acquire_owner_word(word_of(number), this_owner()));
  CHECK(acquire_owner_word(word_of(number), this_owner(), in(5s)) == acquired::from_dead_owner);
  release_owner_word(word_of(number));
  CHECK(acquire_owner_word(word_of(number), this_owner(), in(5s)) == acquired::yes);
  CHECK(acquire_owner_word(word_of(number), this_owner(), in(20ms)) == acquired::no);
}

TEST_CASE("an owner that has ended is known as such, its successor in the table is not it") {
  const shared_number number;
  CHECK(in_child([&] {
          number.number() = this_owner();
          return 0;
        }) == 0);
  const auto ended = static_cast<owner_id>(number.number().load());
  CHECK(owner_is_dead(ended));
  CHECK_FALSE(owner_is_dead(this_owner()));
  CHECK(owner_is_dead(12345 * max_processes));
  CHECK(in_child([&] {
          number.number() = this_owner();
          return owner_is_dead(ended) && !owner_is_dead(this_owner()) ? 0 : 1;
        }) == 0);
  CHECK(slot_of(static_cast<owner_id>(number.number().load())) == slot_of(ended));
}

TEST_CASE("a full table of processes is cleared of those that have ended") {
  const shared_number number;
  const auto& heap = number.object()->heap();
  std::size_t taken = 0;
  for (std::size_t slot = 0; slot < max_processes; ++slot) {  // as if they had been killed
    slot_access access(heap->control(), slot);
    const owner_id identity = access.reserve(::getpid());
    if (identity == 0) continue;
    ++taken;
    const slot_state reserved = access.state();
    access.change(reserved, {slot_phase::dead, reserved.generation, 1, 0});
  }
  CHECK(taken > max_processes / 2);
  CHECK(in_child([&] { return this_owner() != 0 ? 0 : 1; }) == 0);
}

TEST_CASE("an extent is reserved, shared and given back") {
  auto number = std::make_unique<shared_number>();
  const auto heap = number->object()->heap();
  constexpr std::size_t size = std::size_t{64} << 20;
  reserve_extent(*number->object(), 0, size);
  {
    const extent_mapping here(*number->object(), 0, size, extent_access::read_write);
    here.bytes().front() = std::byte{1};
    here.bytes().back() = std::byte{2};
    CHECK(in_child([&] {
            const extent_mapping there(*number->object(), 0, size, extent_access::read);
            return there.bytes().back() == std::byte{2} ? 0 : 1;
          }) == 0);
  }
  struct stat about {};
  ::fstat(heap->file().get(), &about);
  const auto full = about.st_blocks;
  number.reset();
  ::fstat(heap->file().get(), &about);
  CHECK(full - about.st_blocks >= static_cast<long>(size / 512));
}

TEST_CASE("an extent has a limit, and reserving too much changes nothing") {
  const shared_number number;
  CHECK_THROWS_AS(
      extent_mapping(*number.object(), heap_places::extent_bytes, 1, extent_access::read),
      procpool::ProcessError);
  CHECK_THROWS_AS(extent_mapping(*number.object(), 0, 0, extent_access::read),
                  procpool::ProcessError);
  CHECK_THROWS_AS(reserve_extent(*number.object(), 0, heap_places::extent_bytes + 1),
                  procpool::ProcessError);
}

TEST_CASE("descriptors reach a process that was there before, one or many times") {
  const shared_number keeps_the_heap;
  std::array<int, 2> ends{};
  REQUIRE(::pipe(ends.data()) == 0);
  for (int i = 0; i < 1000; ++i) {  // more than fit into the socket
    const descriptor_wire wire = send_descriptor(ends[1]);
    const os::fd received = receive_descriptor(wire);
    REQUIRE(received);
    CHECK_THROWS_AS(receive_descriptor(wire), std::invalid_argument);
  }
  {
    handle_scope scope(handle_delivery::repeated);
    const descriptor_wire wire = send_descriptor(ends[1]);
    auto kept = scope.take();
    CHECK(receive_descriptor(wire));
    CHECK(in_child([&] {
            const os::fd received = receive_descriptor(wire);
            return ::write(received.get(), "x", 1) == 1 ? 0 : 1;
          }) == 0);
    kept.reset();
    CHECK_THROWS_AS(receive_descriptor(wire), std::invalid_argument);
  }
  char got = 0;
  CHECK(::read(ends[0], &got, 1) == 1);
  ::close(ends[0]);
  ::close(ends[1]);
}

TEST_CASE("descriptors are received in any order, and too many at once are an error") {
  const shared_number keeps_the_heap;
  std::array<int, 2> ends{};
  REQUIRE(::pipe(ends.data()) == 0);
  std::vector<descriptor_wire> wires;
  try {
    while (wires.size() < 100'000) wires.push_back(send_descriptor(ends[1]));
    FAIL("there was room for all");
  } catch (const procpool::ProcessError& error) {
    CHECK_THAT(error.what(), ContainsSubstring("too many descriptors"));
  }
  CHECK(wires.size() > 50);
  std::ranges::shuffle(wires, std::minstd_rand(7));
  for (const descriptor_wire& each : wires) REQUIRE(receive_descriptor(each));
  const descriptor_wire one_more = send_descriptor(ends[1]);
  CHECK(receive_descriptor(one_more));
  ::close(ends[0]);
  ::close(ends[1]);
}

TEST_CASE("processes make, send, receive and free objects at the same time") {
  const shared_number sum;
  std::vector<pid_t> children;
  for (int child = 0; child < 4; ++child) {
    const pid_t pid = ::fork();
    if (pid == 0) {
      bool right = true;
      for (int i = 0; i < 2000; ++i) {
        const shared_number own(i);
        right = right && own.number() == i;
        const auto again = receive_object(send_object(own.object()), object_kind::value, 77);
        right = right && again == own.object();
        ++sum.number();
      }
      ::_exit(right ? 0 : 1);
    }
    children.push_back(pid);
  }
  for (const pid_t child : children) {
    int status = 0;
    ::waitpid(child, &status, 0);
    CHECK(status == 0);
  }
  CHECK(sum.number() == 8000);
  collect_dead_processes();
}

TEST_CASE("processes that are killed while they make and free objects leave nothing behind") {
  const shared_number sum;
  const auto& heap = sum.object()->heap();
  std::minstd_rand random(3);
  for (int round = 0; round < 200; ++round) {
    const pid_t pid = ::fork();
    if (pid == 0) {
      for (;;) {
        const std::vector<shared_number> several(3);
        for (const auto& each : several) ++each.number();
      }
    }
    ::usleep(static_cast<useconds_t>(random() % 2000));
    ::kill(pid, SIGKILL);
    ::waitpid(pid, nullptr, 0);
    collect_dead_processes();
  }
  int used = 0;
  for (std::uint32_t number = 0; number < heap->record_end(); ++number) {
    if (!is_free(heap->record(number))) ++used;
  }
  CHECK(used == 1);
  const shared_number after(4);
  CHECK(after.number() == 4);
}

TEST_CASE("a process that scribbles over the heap harms nobody's life") {
  // In a child: its family has a heap of its own.
  CHECK(in_child([] {
          auto number = std::make_unique<shared_number>(1);
          const auto heap = number->object()->heap();
          std::minstd_rand random(11);
          const auto scribble = [&random](void* at, std::size_t size) {
            auto* bytes = static_cast<unsigned char*>(at);
            for (std::size_t i = 0; i < size; i += 1 + random() % 7) {
              bytes[i] = static_cast<unsigned char>(random());
            }
          };
          const pid_t hostile = ::fork();
          if (hostile == 0) {
            scribble(&heap->control().processes, sizeof heap->control().processes);
            scribble(&heap->control().header.record_end, 8);
            scribble(&heap->control().header.tickets, sizeof(ticket_table));
            scribble(&heap->record(0), 64 * sizeof(object_record));
            ::_exit(0);
          }
          ::waitpid(hostile, nullptr, 0);
          const auto tolerate = [](auto action) {
            try {
              action();
            } catch (const std::exception&) {
            }
          };
          for (int i = 0; i < 20; ++i) {
            tolerate([] { const shared_number other(2); });
            tolerate([&] { static_cast<void>(send_object(number->object())); });
            tolerate([&] {
              static_cast<void>(acquire_owner_word(word_of(*number), this_owner(), in(10ms)));
            });
            tolerate([] { static_cast<void>(receive_descriptor(send_descriptor(0))); });
            tolerate([] { collect_dead_processes(); });
          }
          number.reset();
          return 0;
        }) == 0);
}

TEST_CASE("a descriptor that is not taken for long does not keep others from leaving the store") {
  const shared_number keeps_the_heap;
  handle_scope scope(handle_delivery::repeated);
  const descriptor_wire first = send_descriptor(1);
  const auto kept = scope.take();
  {
    const handle_scope others(handle_delivery::once);
    for (int i = 0; i < 2000; ++i) {
      REQUIRE(receive_descriptor(send_descriptor(1)));
    }
  }
  CHECK(receive_descriptor(first));
}

TEST_CASE("a stale handle does not keep another object alive") {
  auto old = std::make_unique<shared_number>(1);
  const auto heap = old->object()->heap();
  object_wire stale = send_object(old->object());
  stale.counted = 0;
  object_record& record = old->object()->record();
  record.in_transit = 0;
  old.reset();
  std::atomic<bool> stop{false};
  std::thread receiver([&] {
    while (!stop) static_cast<void>(receive_object(stale, object_kind::value, 77));
  });
  int left = 0;
  for (int i = 0; i < 20'000; ++i) {
    const std::uint32_t number = shared_number(2).object()->number();
    left += is_free(heap->record(number)) ? 0 : 1;
  }
  stop = true;
  receiver.join();
  CHECK(left < 20'000);
  CHECK(is_free(record));
}

TEST_CASE("forks that the system refuses leave no entry reserved") {
  const shared_number number;
  const auto& heap = number.object()->heap();
  const auto reserved = [&] {
    std::size_t count = 0;
    for (std::size_t slot = first_slot; slot < max_processes; ++slot) {
      count += slot_access(heap->control(), slot).state().phase == slot_phase::reserved ? 1U : 0U;
    }
    return count;
  };
  CHECK(in_child([&] {
          rlimit none{0, 0};
          if (::setrlimit(RLIMIT_NPROC, &none) != 0 || ::setuid(65534) != 0) return 0;
          for (int i = 0; i < 50; ++i) {
            try {
              fork_process();
              return 2;
            } catch (const procpool::ProcessError&) {
            }
          }
          return reserved() == 0 ? 0 : 1;
        }) == 0);
}
