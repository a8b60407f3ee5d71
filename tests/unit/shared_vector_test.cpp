// SPDX-License-Identifier: MIT
// shared_vector: a vector, small and large; sent and received without a copy; hostile senders.
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <catch2/catch_test_macros.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <numeric>
#include <random>
#include <ranges>
#include <stdexcept>
#include <utility>
#include <vector>

#include <procpool/detail/heap/descriptor_store.hpp>
#include <procpool/procpool.hpp>

#include "support/child.hpp"

namespace {

using procpool::shared_vector;

constexpr std::size_t large = 1 << 18;  // doubles: 2 MiB

/// An encoded vector, to be received any number of times.
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

template <class T = double>
shared_vector<T> received(const message& from) {
  procpool::decoder in({from.bytes.data(), from.bytes.size()});
  return in.get<shared_vector<T>>();
}

// Tasks.
shared_vector<double> count_to(std::size_t n) {
  shared_vector<double> values(n);
  std::iota(values.begin(), values.end(), 1.0);
  return values;
}

double sum_of(shared_vector<double> values) {
  for (double& x : values) x += 0;  // writes into its own copy
  return std::accumulate(values.begin(), values.end(), 0.0);
}

shared_vector<double> grow_by_one(shared_vector<double> values) {
  values.push_back(7);
  return values;
}

struct found {
  int number;
  shared_vector<long> data;
};

found find(int number) {
  found made{number, {}};
  for (long i = 0; i < 200'000; ++i) made.data.push_back(i * number);
  return made;
}

}  // namespace

TEST_CASE("a shared_vector is a vector, whatever its size", "[shared_vector]") {
  std::mt19937_64 random(815);  // NOLINT(cert-msc51-cpp): the same each time
  shared_vector<long> ours;
  std::vector<long> model;
  for (int step = 0; step < 3000; ++step) {
    const std::size_t n = random() % 100'000;
    switch (random() % 8) {
      case 0:
        ours.resize(n);
        model.resize(n);
        break;
      case 1:
        ours.reserve(n);
        break;
      case 2:
        if (random() % 10 == 0) {
          ours.clear();
          model.clear();
        }
        break;
      case 3:
        if (!model.empty()) {
          ours.pop_back();
          model.pop_back();
        }
        break;
      case 4:
        if (random() % 20 == 0) {
          const auto copy = ours;
          ours = shared_vector<long>();
          ours = copy;
        } else if (random() % 20 == 0) {
          ours = received<long>(sent(ours));
        }
        break;
      default:
        for (int i = 0; i < 100; ++i) {
          ours.push_back(i);
          model.push_back(i);
        }
    }
    REQUIRE(ours.size() == model.size());
    if (step % 20 == 0) REQUIRE(std::ranges::equal(ours, model));
  }
}

TEST_CASE("constructors, comparison, access", "[shared_vector]") {
  const shared_vector<int> three{1, 2, 3};
  CHECK(three.size() == 3);
  CHECK(three == shared_vector<int>(std::vector<int>{1, 2, 3}));
  CHECK_FALSE(three == shared_vector<int>(3, 1));
  CHECK(shared_vector<int>(3, 7)[2] == 7);
  CHECK(three.front() == 1);
  CHECK(three.back() == 3);
  CHECK_THROWS_AS(three.at(3), std::out_of_range);
  CHECK(shared_vector<int>().empty());
  CHECK_THROWS_AS(shared_vector<int>(~std::size_t{0}), std::length_error);
  CHECK_THROWS_AS(shared_vector<int>(std::size_t{1} << 40U), procpool::ProcessError);
  auto copy = three;
  copy[0] = 9;
  CHECK(three[0] == 1);
  shared_vector<int> moved = std::move(copy);
  CHECK(moved[0] == 9);
  CHECK(copy.empty());  // NOLINT(bugprone-use-after-move)
  static_assert(std::ranges::contiguous_range<shared_vector<int>>);
}

TEST_CASE("what is sent and what is received are two vectors", "[shared_vector]") {
  for (const std::size_t size : {std::size_t{10}, large}) {
    shared_vector<double> ours(size);
    std::iota(ours.begin(), ours.end(), 0.0);
    const double* const before = std::as_const(ours).data();
    const auto handle = sent(ours);
    CHECK(std::as_const(ours).data() == before);
    auto theirs = received(handle);
    CHECK(theirs == ours);
    theirs[1] = -1;
    CHECK(ours[1] == 1);
    ours[2] = -2;
    CHECK(theirs[2] == 2);
    CHECK(received(handle)[2] == 2);
    CHECK(received(sent(ours))[2] == -2);  // written since it was sent
    const auto onward = received(sent(theirs));
    CHECK(onward[1] == -1);
    theirs.push_back(5);
    ours.resize(size * 2);
    CHECK(theirs[size] == 5);
    CHECK(ours[size] == 0);
  }
}

TEST_CASE("a large vector travels as a descriptor, a small one as bytes", "[shared_vector]") {
  CHECK(sent(shared_vector<double>(large)).bytes.size() < 100);
  CHECK(sent(shared_vector<double>(1000)).bytes.size() > 8000);
  const shared_vector<double> values(large);
  const auto first = sent(values);
  const auto second = sent(values);  // the same file
  CHECK(received(first) == received(second));
}

TEST_CASE("a vector of which a forked child has the memory is sent all the same",
          "[shared_vector]") {
  shared_vector<double> values(large);
  values[0] = 1;
  std::array<int, 2> gate{};
  REQUIRE(pipe2(gate.data(), O_CLOEXEC) == 0);
  const pid_t child = support::start_child([&] {
    close(gate[1]);
    char end = 0;
    while (read(gate[0], &end, 1) > 0) {
    }
    values[0] = 2;  // its own mapping of the file that was not sent
    return 0;
  });
  const auto theirs = received(sent(values));
  close(gate[1]);
  CHECK(support::wait_child(child) == 0);
  close(gate[0]);
  CHECK(theirs[0] == 1);
}

TEST_CASE("memory that its sender can still change is refused", "[shared_vector]") {
  const auto forged = [](int seals, std::uint64_t count, unsigned char large_kind = 1) {
    message made;
    procpool::detail::handle_scope scope(procpool::detail::handle_delivery::repeated);
    procpool::encoder out(made.bytes);
    const int file = memfd_create("hostile", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    REQUIRE(ftruncate(file, 1 << 20) == 0);
    if (seals != 0) REQUIRE(fcntl(file, F_ADD_SEALS, seals) == 0);
    out.put(large_kind);
    out.count(count);
    out.put(procpool::detail::send_descriptor(file));
    close(file);
    made.kept = scope.take();
    return made;
  };
  constexpr int all = F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW;
  constexpr std::uint64_t count = (1 << 20) / sizeof(double);
  CHECK(received(forged(all, count)).size() == count);
  CHECK_THROWS_AS(received(forged(0, count)), procpool::DecodeError);
  CHECK_THROWS_AS(received(forged(F_SEAL_SHRINK | F_SEAL_GROW, count)), procpool::DecodeError);
  CHECK_THROWS_AS(received(forged(F_SEAL_FUTURE_WRITE | F_SEAL_SHRINK | F_SEAL_GROW, count)),
                  procpool::DecodeError);
  CHECK_THROWS_AS(received(forged(all, count + 1)), procpool::DecodeError);
  CHECK_THROWS_AS(received(forged(all, ~0ULL)), procpool::DecodeError);
  CHECK_THROWS_AS(received(forged(all, 0)), procpool::DecodeError);
  CHECK_THROWS_AS(received(forged(all, count, 2)), procpool::DecodeError);

  // Descriptors of other things.
  message made;
  procpool::detail::handle_scope scope(procpool::detail::handle_delivery::repeated);
  procpool::encoder out(made.bytes);
  std::array<int, 2> ends{};
  REQUIRE(pipe2(ends.data(), O_CLOEXEC) == 0);
  out.put(static_cast<unsigned char>(1));
  out.count(1);
  out.put(procpool::detail::send_descriptor(ends[0]));
  CHECK_THROWS_AS(received(made), procpool::DecodeError);
  close(ends[0]);
  close(ends[1]);
}

TEST_CASE("a cut message is a DecodeError", "[shared_vector]") {
  for (const std::size_t size : {std::size_t{3}, large}) {
    const auto handle = sent(shared_vector<double>(size));
    for (std::size_t length = 0; length < handle.bytes.size(); ++length) {
      procpool::decoder in({handle.bytes.data(), length});
      CHECK_THROWS_AS(in.get<shared_vector<double>>(), procpool::DecodeError);
    }
  }
}

TEST_CASE("tasks return and take large vectors", "[shared_vector][pool]") {
  for (const auto method : {procpool::start_method::fork, procpool::start_method::spawn}) {
    procpool::Pool pool{{.processes = 2, .start_method = method}};
    const auto values = pool.apply(count_to, large);
    CHECK(values.size() == large);
    CHECK(values[large - 1] == large);
    const double expected = static_cast<double>(large) * (large + 1) / 2;
    CHECK(pool.apply(sum_of, values) == expected);
    CHECK(std::accumulate(values.begin(), values.end(), 0.0) == expected);
    const auto more = pool.apply(grow_by_one, values);
    CHECK(more.size() == large + 1);
    CHECK(more.back() == 7);
    const auto many = pool.map(count_to, std::vector<std::size_t>{0, 1, 1000, large, large + 1});
    CHECK(many[2].back() == 1000);
    CHECK(many[4].back() == large + 1);
    const auto all = pool.map(find, std::views::iota(0, 20));
    for (int i = 0; i < 20; ++i) {
      const auto& each = all[static_cast<std::size_t>(i)];
      CHECK(each.number == i);
      CHECK(each.data[199'999] == 199'999L * i);
    }
  }
  procpool::ThreadPool threads{2};
  CHECK(threads.apply(count_to, large).back() == large);
}

TEST_CASE("more vectors than the descriptor store holds at once", "[shared_vector][pool]") {
  procpool::Pool pool{2};
  const auto many = pool.map(count_to, std::vector<std::size_t>(1000, 1 << 15), {.chunksize = 50});
  CHECK(std::ranges::all_of(many, [](const auto& each) { return each.back() == 1 << 15; }));
}
