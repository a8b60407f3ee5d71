// SPDX-License-Identifier: MIT
// A bit of everything, for each compiler and standard library: ends with 0 when all is right.
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <functional>
#include <map>
#include <optional>
#include <stdexcept>
#include <string>
#include <tuple>
#include <vector>

#include <procpool/procpool.hpp>
#include <procpool/random.hpp>

namespace {

int faults = 0;

void expect(bool right, const char* what) {
  if (right) return;
  ++faults;
  std::fprintf(stderr, "wrong: %s\n", what);
}

struct row {
  std::string name;
  std::optional<double> score;
  std::map<std::string, int> tags;
  friend bool operator==(const row&, const row&) = default;
};

struct own_error : std::runtime_error {
  using std::runtime_error::runtime_error;
};

long square(long number) {
  return number * number;
}
int power(int base, int exponent) {
  return exponent == 0 ? 1 : base * power(base, exponent - 1);
}
row doubled(const row& from) {
  row to = from;
  to.name += from.name;
  return to;
}
int fail(int number) {
  throw own_error("number " + std::to_string(number));
}
int die(int number) {
  return number == 0 ? number : raise(SIGKILL);
}

procpool::worker_local<std::vector<int>> seen{[] { return std::vector<int>(); }};
std::size_t remember(int number) {
  seen->push_back(number);
  return seen->size();
}

template <class Pool>
void check_calls(Pool& pool) {
  const std::vector<long> numbers{1, 2, 3, 4, 5};
  const std::vector<long> squares{1, 4, 9, 16, 25};
  expect(pool.apply(square, 7) == 49, "apply");
  expect(pool.apply_async(square, 8).get() == 64, "apply_async");
  expect(pool.map(square, numbers, {.chunksize = 2}) == squares, "map");
  const std::vector<std::tuple<int, int>> pairs{{2, 3}, {3, 2}};
  expect(pool.starmap(power, pairs) == std::vector<int>{8, 9}, "starmap");
  const row some{"ab", 0.5, {{"x", 1}}};
  expect(pool.apply(doubled, some) == row{"abab", 0.5, {{"x", 1}}}, "a struct");
  expect(pool.map_reduce(square, numbers, std::plus<>()) == 55, "map_reduce");
  long sum = 0;
#if !defined(__clang__) || __clang_major__ >= 16 || defined(_LIBCPP_VERSION)
  for (const long each : pool.imap_unordered(square, numbers)) sum += each;
  expect(sum == 55, "imap_unordered");
#endif  // else clang cannot compile the views of libstdc++
  std::vector<procpool::AsyncResult<long>> results;
  for (const long number : numbers) results.push_back(pool.apply_async(square, number));
  sum = 0;
  for (auto& each : procpool::as_completed(results)) sum += each.get();
  expect(sum == 55, "as_completed");
}

template <class Pool>
void check_exceptions(Pool& pool) {
  try {
    pool.apply(fail, 3);
    expect(false, "an exception");
  } catch (const own_error& error) {
    expect(error.what() == std::string("number 3"), "the text of an exception");
    try {
      std::rethrow_if_nested(error);
      expect(false, "what is nested in an exception");
    } catch (const procpool::RemoteTraceback&) {
    }
  }
}

void check_deaths() {
  procpool::Pool pool{2};
  try {
    pool.map(die, std::vector<int>{0, 1, 0});
    expect(false, "a death");
  } catch (const procpool::WorkerDied& death) {
    expect(death.signal() == SIGKILL && death.item() == std::size_t{1},
           "which item has died of what");
  }
  expect(pool.apply(die, 0) == 0, "a pool after a death");
}

void check_processes() {
  procpool::Process leaves([](int code) { std::exit(code); }, 5);
  procpool::Process throws([] { throw own_error("as it should"); });
  for (auto* process : {&leaves, &throws}) process->start();
  for (auto* process : {&leaves, &throws}) process->join();
  expect(leaves.exitcode() == 5, "exit in a Process");
  expect(throws.exitcode() == 1, "an exception in a Process");
}

void check_stop() {
#ifdef __cpp_lib_jthread
  procpool::Pool pool{1};
  std::stop_source source;
  source.request_stop();
  const auto result = pool.apply_async([](int) { pause(); }, 1);
  expect(!result.wait(source.get_token()), "a stopped wait");
#endif
}

}  // namespace

int main(int argc, char** argv) {
  procpool::freeze_support(argc, argv);
  procpool::register_exception<own_error>();
  procpool::Pool pool{2};
  procpool::Pool spawned{{.processes = 1, .start_method = procpool::start_method::spawn}};
  procpool::ThreadPool threads{2};
  procpool::Pool<procpool::Serial> serial;
  check_calls(pool);
  check_calls(spawned);
  check_calls(threads);
  check_calls(serial);
  check_exceptions(pool);
  check_exceptions(threads);
  expect(spawned.apply(remember, 1) == 1 && spawned.apply(remember, 2) == 2, "worker_local");
  check_deaths();
  check_processes();
  check_stop();
  pool.close();
  pool.join();
  return faults == 0 ? 0 : 1;
}
