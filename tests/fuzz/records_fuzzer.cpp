// SPDX-License-Identifier: MIT
// The parent's reader of result rings against a worker that writes whatever it likes. The input is
// a script: bytes into the ring, cursors anywhere, and looks of the parent in between. However it
// goes, no more outcomes than items may be accepted, no byte be read outside, no promise be
// allocated.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include <procpool/procpool.hpp>

namespace {

using namespace procpool::detail;

constexpr std::size_t ring_bytes = 4096;
constexpr std::uint32_t items = 40;
constexpr std::uint64_t most_bytes = 1 << 20;

/// A pool that nobody asks anything.
class no_pool final : public driver {
 public:
  bool wait(const waitable&, std::optional<time_point>) override { return false; }
  void wake_waiters() override {}
  [[nodiscard]] bool drives_itself() override { return true; }
  bool cancel(job&, bool) override { return false; }
  bool watch(job&, observer_entry&) override { return false; }
  void unwatch(observer_entry&) noexcept override {}
  bool running(const job&) override { return false; }
  bool when_done(job&, continuation&) override { return false; }
  bool withdraw(continuation&) noexcept override { return false; }
};

struct worker_memory_block {
  result_control results;
  task_control tasks;
  alignas(16) std::byte ring[ring_bytes];
};

/// Checks and counts like the pool's result_processor; keeps nothing.
struct counting_sink {
  pool_task& task;

  delivery check(const record_head& head) const {
    if (head.kind != record_kind::run && head.length > most_bytes) throw protocol_violation("long");
    if (task.finished() || head.ordinal != 0 || !completion::fits(task, head)) {
      throw protocol_violation("out of turn");
    }
    const bool in_pieces = head.kind == record_kind::value && head.length % 12 == 8;
    return in_pieces ? delivery{.head = 8, .granule = 12} : completion::delivery_of(head);
  }
  void record(const record_head& head, std::span<const std::byte> bytes) const {
    if (bytes.size() != head.length) std::abort();
    touch(bytes);
    accept(1);
  }
  void piece(const record_head& head, std::uint64_t offset,
             std::span<const std::byte> bytes) const {
    const bool run = head.kind == record_kind::run;
    if (run && completion::items_of_run(task, head) == 0) throw protocol_violation("out of turn");
    if (!run && offset != 0) check_granules(offset, bytes);
    if (!run && offset == 0 && bytes.size() != 8) std::abort();
    if (offset + bytes.size() > head.length) std::abort();
    touch(bytes);
    if (offset + bytes.size() != head.length) return;
    accept(run ? head.length / task.owner->plain_size() : 1);
  }
  void lost(const record_head& /*head*/) const { accept(1); }
  static void check_granules(std::uint64_t offset, std::span<const std::byte> bytes) {
    if (offset % 12 != 8 || bytes.size() % 12 != 0) std::abort();
  }
  void accept(std::uint64_t count) const {
    if (count > items - task.done) std::abort();  // more outcomes than items
    task.pass(static_cast<std::uint32_t>(count));
  }
  static void touch(std::span<const std::byte> bytes) {
    static volatile std::byte sum;
    for (const std::byte each : bytes) sum = sum ^ each;
  }
};

/// Numbers out of the input; zeros when it is at its end.
class script {
 public:
  explicit script(std::span<const std::uint8_t> bytes) : bytes_(bytes) {}
  [[nodiscard]] bool at_end() const { return bytes_.empty(); }
  template <class Int>
  [[nodiscard]] Int next() {
    Int number{};
    const std::size_t size = std::min(sizeof number, bytes_.size());
    std::memcpy(&number, bytes_.data(), size);
    bytes_ = bytes_.subspan(size);
    return number;
  }

 private:
  std::span<const std::uint8_t> bytes_;
};

/// A cursor near the one before, or anywhere.
std::uint64_t cursor(script& input, std::uint64_t before) {
  const auto how = input.next<std::uint8_t>();
  if (how < 200) return before + how % 100 * 8;
  return how < 250 ? before + input.next<std::uint16_t>() : input.next<std::uint64_t>();
}

/// A head that is nearly right, at the cursor of the worker.
void write_head(script& input, worker_memory_block& memory, std::uint64_t at) {
  record_head head{0, 0, record_kind{input.next<std::uint8_t>() % 5U}, 0, 0};
  head.item = input.next<std::uint8_t>();
  head.ordinal = input.next<std::uint8_t>() / 250;
  const auto length = input.next<std::uint16_t>();
  head.length = length > 65'000 ? input.next<std::uint64_t>() : length;
  std::byte bytes[sizeof head];
  std::memcpy(bytes, &head, sizeof head);
  for (std::size_t i = 0; i < sizeof head; ++i) memory.ring[(at + i) % ring_bytes] = bytes[i];
}

void play(script& input, worker_memory_block& memory, result_consumer& parent, pool_task& task) {
  const counting_sink sink{task};
  auto& own = memory.results;
  while (!input.at_end()) {
    const std::uint64_t committed = own.committed.load(std::memory_order_relaxed);  // one thread
    switch (input.next<std::uint8_t>() % 6) {
      case 0:
        memory.ring[input.next<std::uint16_t>() % ring_bytes] =
            std::byte{input.next<std::uint8_t>()};
        break;
      case 1:
        write_head(input, memory, committed + input.next<std::uint8_t>() % 4 * 8);
        break;
      case 2:
        own.committed.store(cursor(input, committed), std::memory_order_relaxed);  // one thread
        break;
      case 3:
        own.finished.store(cursor(input, committed), std::memory_order_relaxed);  // one thread
        break;
      case 4:
        own.written.store(cursor(input, committed), std::memory_order_relaxed);  // one thread
        break;
      default:
        static_cast<void>(parent.drain(sink));
    }
  }
  parent.drain_last(sink);
}

procpool::detail::intrusive_ptr<job> job_of(bool plain) {
  static const procpool::detail::intrusive_ptr<driver> pool(new no_pool);
  static const procpool::detail::intrusive_ptr<job> longs(new map_job<long>(pool, items, nullptr),
                                                          false);
  static const procpool::detail::intrusive_ptr<job> texts(
      new map_job<std::string>(pool, items, nullptr), false);
  return plain ? longs : texts;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static auto& memory = *new worker_memory_block;
  std::memset(static_cast<void*>(&memory), 0, sizeof memory);
  script input({data, size});
  pool_task task;
  task.owner = job_of(input.next<std::uint8_t>() % 2 == 0);
  task.head.item_count = items;
  result_consumer parent(memory.results, memory.ring, memory.tasks);
  try {
    play(input, memory, parent, task);
  } catch (const protocol_violation&) {
  }
  return 0;
}
