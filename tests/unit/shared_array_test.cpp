// SPDX-License-Identifier: MIT
// SharedArray: handles, parts, errors, what happens to the memory, hostile handles.
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <numeric>
#include <ranges>
#include <span>
#include <stdexcept>
#include <string>
#include <system_error>
#include <tuple>
#include <utility>
#include <vector>

#include <procpool/detail/heap/heap_of_program.hpp>
#include <procpool/detail/heap/held_object.hpp>
#include <procpool/detail/heap/owner_lock.hpp>
#include <procpool/detail/heap/shared_heap.hpp>
#include <procpool/detail/machine/memory_room.hpp>
#include <procpool/procpool.hpp>

#include "support/child.hpp"
#include "support/shared.hpp"

namespace {

using Catch::Matchers::ContainsSubstring;
using procpool::SharedArray;

/// An encoded handle, which may be received any number of times.
struct message {
  procpool::detail::byte_buffer bytes;
  std::shared_ptr<void> kept;
};

template <class T>
message sent(const T& value) {
  message made;
  procpool::detail::handle_scope scope(procpool::detail::handle_delivery::repeated);
  procpool::encoder(made.bytes).put(value);
  made.kept = scope.take();
  return made;
}

template <class T>
T received(const message& handle) {
  procpool::decoder in({handle.bytes.data(), handle.bytes.size()});
  return in.get<T>();
}

/// The memory that the shared heap of this program takes, in bytes.
std::uint64_t memory_in_use() {
  const auto heap = procpool::detail::use_heap();
  struct stat about {};
  REQUIRE(fstat(heap->file().get(), &about) == 0);
  return static_cast<std::uint64_t>(about.st_blocks) * 512;
}

struct point {
  float x;
  float y;
};

// Tasks.
void double_all(SharedArray<double> part) {
  for (double& x : part) x *= 2;
}

double sum_of(SharedArray<const double> part) {
  return std::accumulate(part.begin(), part.end(), 0.0);
}

SharedArray<long> make_in_worker(std::size_t size) {
  SharedArray<long> made(size);
  std::iota(made.begin(), made.end(), 0L);
  return made;
}

struct job {
  SharedArray<double> array;
  std::size_t from;
  std::vector<SharedArray<double>> more;
};

double use_job(const job& what) {
  what.array[what.from] = 1;
  return std::accumulate(what.more.begin(), what.more.end(), 0.0,
                         [](double sum, const auto& each) { return sum + each[0]; });
}

struct clear_one {
  SharedArray<double> array;
  void operator()(long i) const { array[static_cast<std::size_t>(i)] = 0; }
};

void die_with(SharedArray<double> part) {
  part[0] = 99;
  raise(SIGKILL);
}

std::vector<procpool::start_method> start_methods() {
  return {procpool::start_method::fork, procpool::start_method::spawn};
}

}  // namespace

TEST_CASE("a new array is zero, has its size and is a range", "[shared_array]") {
  const SharedArray<double> data(1000);
  CHECK(data.size() == 1000);
  CHECK(data.size_bytes() == 8000);
  CHECK_FALSE(data.empty());
  CHECK(std::ranges::all_of(data, [](double x) { return x == 0; }));
  std::iota(data.begin(), data.end(), 1.0);
  CHECK(data[999] == 1000);
  CHECK(data.front() == 1);
  CHECK(data.back() == 1000);
  CHECK(data.at(5) == 6);
  CHECK_THROWS_AS(data.at(1000), std::out_of_range);
  const std::span<double> all = data;
  CHECK(all.data() == data.data());
  const std::span<const double> seen = data;
  CHECK(std::accumulate(seen.begin(), seen.end(), 0.0) == 500500);
  static_assert(std::ranges::contiguous_range<SharedArray<double>>);
}

TEST_CASE("an empty array has no memory", "[shared_array]") {
  const SharedArray<long> none;
  const SharedArray<long> zero(0);
  CHECK(none.empty());
  CHECK(zero == none);
  CHECK(none.slices(3).empty());
  CHECK(received<SharedArray<long>>(sent(zero)).empty());
  CHECK(none.subarray(0, 0).empty());
}

TEST_CASE("an array takes over the elements of a range", "[shared_array]") {
  const SharedArray data(std::vector<int>{3, 1, 2});
  static_assert(std::same_as<decltype(data), const SharedArray<int>>);
  CHECK(std::ranges::equal(data, std::array{3, 1, 2}));
  const SharedArray<long> squares(std::views::iota(0, 5) |
                                  std::views::transform([](int i) { return long{i} * i; }));
  CHECK(squares[4] == 16);
  const SharedArray points(std::vector<point>{{1, 2}, {3, 4}});
  CHECK(points[1].y == 4);
}

TEST_CASE("copies, parts and slices are the same elements", "[shared_array]") {
  SharedArray<int> data(10);
  const auto copy = data;
  copy[3] = 7;
  CHECK(data[3] == 7);
  CHECK(copy == data);
  const auto part = data.subarray(2, 5);
  CHECK(part.size() == 5);
  CHECK(part[1] == 7);
  CHECK(part.subarray(1, 1)[0] == 7);
  CHECK_THROWS_AS(data.subarray(6, 5), std::out_of_range);
  CHECK_THROWS_AS(data.subarray(11, 0), std::out_of_range);
  CHECK_THROWS_AS(part.subarray(1, ~std::size_t{0}), std::out_of_range);

  std::vector<std::size_t> sizes;
  int* next = data.data();
  for (const auto& each : data.slices(4)) {
    sizes.push_back(each.size());
    CHECK(each.data() == next);
    next += each.size();
  }
  CHECK(sizes == std::vector<std::size_t>{3, 3, 2, 2});
  CHECK(data.slices(100).size() == 10);
  CHECK_THROWS_AS(data.slices(0), std::invalid_argument);

  const SharedArray<const int> view = data;
  CHECK(view[3] == 7);
  const SharedArray<const int> part_of_view = view.subarray(3, 1);
  data[3] = 8;
  CHECK(part_of_view[0] == 8);
}

TEST_CASE("a handle is small, and as large for a large array as for a small one",
          "[shared_array]") {
  const SharedArray<char> small(1000);
  const SharedArray<char> large(64 << 20);
  CHECK(sent(small).bytes.size() == sent(large).bytes.size());
  CHECK(sent(small).bytes.size() == 40);
  CHECK(sizeof small <= 32);
}

TEST_CASE("handles received in one process share the mapping", "[shared_array]") {
  const SharedArray<int> data(100);
  const auto again = received<SharedArray<int>>(sent(data));
  CHECK(again.data() == data.data());
  const auto part = received<SharedArray<int>>(sent(data.subarray(10, 20)));
  CHECK(part.data() == data.data() + 10);
  CHECK(part.size() == 20);
  const auto view = received<SharedArray<const int>>(sent(data));
  CHECK(view.data() != data.data());  // read-only
  data[42] = 5;
  CHECK(view[42] == 5);
}

TEST_CASE("a child that inherits an array, and one that receives it, write in place",
          "[shared_array]") {
  const SharedArray<long> data(100'000);
  const auto handle = sent(data.subarray(50'000, 50'000));
  CHECK(support::run_child([&] {
          data[0] = 1;
          const auto part = received<SharedArray<long>>(handle);
          part[0] = 2;
          return 0;
        }) == 0);
  CHECK(data[0] == 1);
  CHECK(data[50'000] == 2);
}

TEST_CASE("who receives a const array cannot write it", "[shared_array]") {
  const SharedArray<long> data(1000);
  const auto handle = sent(SharedArray<const long>(data));
  CHECK(support::run_child([&] {
          const auto view = received<SharedArray<const long>>(handle);
          CHILD_REQUIRE(view[0] == 0);
          signal(SIGSEGV, SIG_DFL);
          const_cast<volatile long&>(view[0]) = 1;  // NOLINT(cppcoreguidelines-pro-type-const-cast)
          return 0;
        }) == -SIGSEGV);
  CHECK(data[0] == 0);
}

TEST_CASE("the last handle frees the memory, in whichever process it is", "[shared_array]") {
  const auto heap = procpool::detail::use_heap();
  const std::uint64_t before = memory_in_use();
  constexpr std::size_t size = 8 << 20;
  {
    SharedArray<char> data(size);
    CHECK(memory_in_use() >= before + size);  // reserved
    const auto parts = data.slices(4);
    data = {};
    CHECK(memory_in_use() >= before + size);
  }
  CHECK(memory_in_use() < before + (1 << 20));

  message handle;
  {
    const SharedArray<char> data(size);
    procpool::encoder(handle.bytes).put(data);  // to be received once
  }
  CHECK(memory_in_use() >= before + size);  // on its way
  CHECK(support::run_child([&] {
          const auto arrived = received<SharedArray<char>>(handle);
          return arrived.size() == size ? 0 : 1;
        }) == 0);
  CHECK(memory_in_use() < before + (1 << 20));
  const SharedArray<char> another(1);  // lets go of the mapping
}

TEST_CASE("a process that is killed keeps no memory", "[shared_array]") {
  const auto heap = procpool::detail::use_heap();
  const std::uint64_t before = memory_in_use();
  const pid_t child = support::start_child([&] {
    const SharedArray<char> data(8 << 20);
    data[0] = 1;
    raise(SIGKILL);
    return 0;
  });
  CHECK(support::wait_child(child) == -SIGKILL);
  CHECK(memory_in_use() >= before + (8 << 20));
  procpool::detail::process_was_reaped(child);  // as pools and Processes do
  procpool::detail::collect_dead_processes();
  CHECK(memory_in_use() < before + (1 << 20));
}

TEST_CASE("what is too large is an error when the array is made", "[shared_array]") {
  const auto code_of = [](std::size_t size) {
    try {
      const SharedArray<double> data(size);
    } catch (const procpool::ProcessError& error) {
      return std::pair(error.code(), std::string(error.what()));
    }
    return std::pair(std::error_code(), std::string());
  };
  const auto [more_than_memory, text] = code_of(std::size_t{1} << 37U);
  CHECK(more_than_memory == std::errc::not_enough_memory);
  CHECK_THAT(text, ContainsSubstring("bytes are available"));
  CHECK(code_of(std::size_t{1} << 39U).first == std::errc::file_too_large);
  CHECK(code_of(~std::size_t{0}).first == std::errc::file_too_large);
  CHECK_THROWS_AS(SharedArray<double>(-1), std::invalid_argument);
}

TEST_CASE("no address space for an array is an error", "[shared_array]") {
  CHECK(support::run_child([] {
          const auto heap = procpool::detail::use_heap();
          const rlimit limit{1U << 30U, 1U << 30U};
          CHILD_REQUIRE(setrlimit(RLIMIT_AS, &limit) == 0);
          try {
            const SharedArray<char> data(std::size_t{2} << 30U);
          } catch (const procpool::ProcessError& error) {
            return error.code() == std::errc::not_enough_memory ? 0 : 2;
          }
          return 1;
        }) == 0);
}

TEST_CASE("hostile handles of arrays are errors", "[shared_array]") {
  const SharedArray<long> data(100);
  // offset, count, heap, record and generation, kind and counted
  const auto changed = [&](std::size_t word, std::uint64_t value) {
    auto handle = sent(data);
    std::memcpy(handle.bytes.data() + word * 8, &value, sizeof value);
    return handle;
  };
  CHECK_THROWS_AS(received<SharedArray<long>>(changed(0, 1)), procpool::DecodeError);
  CHECK_THROWS_AS(received<SharedArray<long>>(changed(0, ~0ULL)), procpool::DecodeError);
  CHECK_THROWS_AS(received<SharedArray<long>>(changed(1, 101)), procpool::DecodeError);
  CHECK_THROWS_AS(received<SharedArray<long>>(changed(1, ~0ULL)), procpool::DecodeError);
  CHECK_THROWS_AS(received<SharedArray<long>>(changed(2, 1)), procpool::DecodeError);
  CHECK_THROWS_AS(received<SharedArray<long>>(changed(3, 77)), procpool::DecodeError);
  CHECK_THROWS_AS(received<SharedArray<long>>(changed(3, ~0ULL)), procpool::DecodeError);
  CHECK_THROWS_AS(received<SharedArray<int>>(sent(data)), procpool::DecodeError);
  CHECK_THROWS_AS(received<SharedArray<double>>(sent(data)), procpool::DecodeError);
  const auto handle = sent(data);
  for (std::size_t length = 0; length < handle.bytes.size(); ++length) {
    procpool::decoder in({handle.bytes.data(), length});
    CHECK_THROWS_AS(in.get<SharedArray<long>>(), procpool::DecodeError);
  }
}

TEST_CASE("a size that another process has scribbled does not lead out of the array",
          "[shared_array]") {
  struct body {
    std::atomic<std::uint64_t> bytes;
  };
  const SharedArray<long> data(100);
  const auto handle = sent(data);
  procpool::decoder in({handle.bytes.data(), handle.bytes.size()});
  static_cast<void>(in.get<std::array<std::uint64_t, 2>>());
  const auto object = procpool::detail::receive_object(in.get<procpool::detail::object_wire>(),
                                                       procpool::detail::object_kind::shared_array,
                                                       procpool::detail::type_tag<long>());
  auto& bytes = procpool::detail::body_as<body>(object->record()).bytes;
  for (const std::uint64_t hostile : {std::uint64_t{0}, std::uint64_t{799}}) {
    bytes = hostile;
    CHECK_THROWS_AS(received<SharedArray<long>>(sent(data)), procpool::DecodeError);
  }
  bytes = ~std::uint64_t{0};
  const auto again = received<SharedArray<long>>(sent(data));
  CHECK(again.size() == 100);
  again[99] = 1;
  CHECK(data[99] == 1);
}

TEST_CASE("how much memory there is follows from the machine and its control groups",
          "[shared_array]") {
  namespace os = procpool::detail::os;
  const auto read = [](const std::string& path) -> std::string {
    if (path == "/proc/meminfo") {
      return "MemTotal:  9999 kB\nMemAvailable:   1000 kB\nSwapFree: 24 kB\n";
    }
    if (path == "/proc/self/cgroup") return "0::/outer/inner\n";
    if (path == "/sys/fs/cgroup/outer/inner/memory.max") return "max\n";
    if (path == "/sys/fs/cgroup/outer/memory.max") return "500000\n";
    if (path == "/sys/fs/cgroup/outer/memory.current") return "300000\n";
    if (path == "/sys/fs/cgroup/outer/memory.stat") return "anon 1\nfile 90000\nshmem 40000\n";
    return "";
  };
  CHECK(os::machine_memory_room(read) == 1024 * 1024);
  CHECK(os::group_memory_room(read) == 250'000);
  const auto nothing = [](const std::string&) { return std::string(); };
  CHECK(os::machine_memory_room(nothing) == os::unlimited_memory);
  CHECK(os::group_memory_room(nothing) == os::unlimited_memory);
}

TEST_CASE("a pool works on the slices of an array in place", "[shared_array][pool]") {
  for (const auto method : start_methods()) {
    procpool::Pool pool{{.processes = 2, .start_method = method}};  // before the array exists
    SharedArray<double> data(100'000);
    std::ranges::fill(data, 1.5);
    pool.map(double_all, data.slices(7));
    CHECK(std::ranges::all_of(data, [](double x) { return x == 3; }));
    const SharedArray<const double> view = data;
    const auto sums = pool.map(sum_of, view.slices(7));
    CHECK(std::accumulate(sums.begin(), sums.end(), 0.0) == 300'000);
    pool.map(clear_one{data}, std::views::iota(0L, 100L));
    CHECK(data[99] == 0);
    CHECK(data[100] == 3);
    CHECK(pool.apply(use_job, job{data, 5000, data.slices(3)}) == 6);
    CHECK(data[5000] == 1);
  }
}

TEST_CASE("a worker makes an array and returns it", "[shared_array][pool]") {
  for (const auto method : start_methods()) {
    const std::uint64_t before = memory_in_use();
    {
      procpool::Pool pool{{.processes = 2, .start_method = method}};
      const auto made = pool.map(make_in_worker, std::vector<std::size_t>{1, 1000, 1'000'000});
      CHECK(made[0].size() == 1);
      CHECK(made[2][999'999] == 999'999);
      const SharedArray<double> first(10);
    }
    CHECK(memory_in_use() <= before + (1 << 20));
  }
}

TEST_CASE("an array outlives the worker that has it", "[shared_array][pool]") {
  procpool::Pool pool{{.processes = 1}};
  SharedArray<double> data(1000);
  CHECK_THROWS_AS(pool.apply(die_with, data), procpool::WorkerDied);
  CHECK(data[0] == 99);
  pool.apply(double_all, data.subarray(0, 1));  // the replacement
  CHECK(data[0] == 198);
}

TEST_CASE("a Process, its child and threads use an array", "[shared_array][pool]") {
  for (const auto method : start_methods()) {
    SharedArray<double> data(1000);
    std::ranges::fill(data, 1);
    auto context = procpool::get_context(method);
    auto process = context.Process(double_all, data);
    process.start();
    process.join();
    CHECK(process.exitcode() == 0);
    CHECK(data[999] == 2);
  }
  SharedArray<double> data(1000);
  std::ranges::fill(data, 1);
  procpool::ThreadPool threads{2};
  threads.map(double_all, data.slices(3));
  CHECK(std::ranges::all_of(data, [](double x) { return x == 2; }));
  procpool::Pool pool{1};
  pool.apply(
      [](SharedArray<double> part) {
        procpool::Pool nested{1};
        nested.map(double_all, part.slices(2));
      },
      data);
  CHECK(std::ranges::all_of(data, [](double x) { return x == 4; }));
}

TEST_CASE("many arrays come and go", "[shared_array][pool]") {
  procpool::Pool pool{2};
  const std::uint64_t before = memory_in_use();
  for (std::size_t i = 0; i < 300; ++i) {
    SharedArray<double> data(20'000);
    data[i] = 7;
    CHECK(pool.apply(sum_of, data) == 7);
    CHECK(pool.apply(make_in_worker, std::size_t{1000})[i] == static_cast<long>(i));
  }
  CHECK(memory_in_use() <= before + (1 << 20));
}
