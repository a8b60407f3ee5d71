// SPDX-License-Identifier: MIT
// Every instruction of making, sending, receiving and freeing shared objects: a process is killed
// after the first, the second ... Afterwards no record is lost, and everything works.
// PROCPOOL_FULL=1 kills at every instruction; without it at about 150 places.
#include <catch2/catch_test_macros.hpp>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <optional>
#include <procpool/detail/heap/shared_heap.hpp>
#include <procpool/procpool.hpp>
#include <string>
#include <vector>

#include "fault/object_steps.hpp"
#include "support/sanitizers.hpp"
#include "support/shared_number.hpp"

namespace {

using namespace procpool::detail;
using fault::kill_at_every_instruction;
using fault::object_attack;
using fault::object_tally;
using support::is_free;
using support::shared_number;

std::optional<shared_number> common;  ///< held by all
std::vector<shared_number> own;       ///< of the process that is killed
object_wire wire;

void make_one() {
  own.emplace_back(7);
}
void free_one() {
  own.clear();
}
void receive_one() {
  own.emplace_back(receive_object(wire, object_kind::value, 77));
}
void lock_and_unlock() {
  auto& word = common->object()->record().wait_words[0];
  static_cast<void>(acquire_owner_word(word, this_owner()));
  release_owner_word(word);
}
void send_and_receive_descriptor() {
  static_cast<void>(receive_descriptor(send_descriptor(0)));
}

/// Nothing but the common object is left, and a new one can be made, locked and freed.
std::string look() {
  collect_dead_processes();
  const auto& heap = common->object()->heap();
  for (std::uint32_t number = 0; number < heap->record_end(); ++number) {
    if (number != common->object()->number() && !is_free(heap->record(number))) {
      return "record " + std::to_string(number) + " is still in use";
    }
  }
  auto& word = common->object()->record().wait_words[0];
  const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(2);
  if (acquire_owner_word(word, this_owner(), until) == acquired::no) return "the lock is stuck";
  release_owner_word(word);
  const shared_number fresh(3);
  if (fresh.number() != 3) return "a new object is not in order";
  const auto again = receive_object(send_object(fresh.object()), object_kind::value, 77);
  if (again != fresh.object()) return "a handle is not received";
  if (!receive_descriptor(send_descriptor(0))) return "a descriptor is not received";
  return {};
}

void report(const char* name, const object_tally& tally) {
  std::printf("%s: %zu instructions, %zu kills, %zu wrong, the survivors took at most %lld us\n",
              name, tally.instructions, tally.kills, tally.complaints.size(),
              static_cast<long long>(tally.longest.count()));
  for (const std::string& each : tally.complaints) UNSCOPED_INFO(each);
  CHECK(tally.complaints.empty());
  CHECK(tally.longest < std::chrono::milliseconds(500));
}

}  // namespace

TEST_CASE("a process is killed at every instruction of the shared heap") {
  if (support::address_sanitizer || support::thread_sanitizer) return;
  if (const std::string why = fault::tracing_refused(); !why.empty()) {
    WARN("processes cannot be traced here: " << why);
    return;
  }
  common.emplace(1);
  static_cast<void>(this_owner());
  own.reserve(4);
  report("make", kill_at_every_instruction({.operate = &make_one, .survive = look}));
  report("free",
         kill_at_every_instruction(
             {.prepare = [] { own.emplace_back(1); }, .operate = &free_one, .survive = look}));
  {
    // Not counted: whoever dies with a handle that it has received once leaves it in transit.
    wire = send_object(common->object());
    common->object()->record().in_transit = 0;
    wire.counted = 0;
    report("receive", kill_at_every_instruction({.operate = &receive_one, .survive = look}));
  }
  report("lock and unlock",
         kill_at_every_instruction({.operate = &lock_and_unlock, .survive = look}));
  report("descriptor",
         kill_at_every_instruction({.operate = &send_and_receive_descriptor, .survive = look}, 60));
  common.reset();
}
