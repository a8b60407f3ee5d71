// SPDX-License-Identifier: MIT
// What a user's program has of the library: every public header, and most of what is in them. It is
// compiled with the warnings that careful users have switched on, as errors (.ci/run
// user-warnings).
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <array>
#include <atomic>
#include <chrono>
#include <complex>
#include <coroutine>
#include <cstdint>
#include <exception>
#include <filesystem>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <numeric>
#include <optional>
#include <set>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <tuple>
#include <unordered_map>
#include <utility>
#include <variant>
#include <vector>

#include <procpool/codec/associative.hpp>
#include <procpool/codec/chrono.hpp>
#include <procpool/codec/complex.hpp>
#include <procpool/codec/list.hpp>
#include <procpool/codec/path.hpp>
#include <procpool/codec/vocabulary.hpp>
#include <procpool/fmt.hpp>
#include <procpool/pickle.hpp>
#include <procpool/procpool.hpp>
#include <procpool/random.hpp>

namespace {

using namespace std::chrono_literals;

struct point {
  double x = 0;
  double y = 0;
};
struct record {
  std::string name;
  std::vector<point> points;
  std::optional<std::int64_t> number;
  std::map<std::string, std::set<int>> tags;
  std::variant<int, std::string> either;
  std::tuple<bool, char, float> three;
  std::unique_ptr<int> owned;
  std::array<std::uint8_t, 5> bytes{};
};
struct scaled {
  double factor;
  double operator()(double value) const { return factor * value; }
};
enum class color : std::uint8_t { red, green };

class parse_error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

int square(int x) {
  return x * x;
}
long add(long a, long b) {
  return a + b;
}
double sum(std::span<const double> values) {
  return std::accumulate(values.begin(), values.end(), 0.0);
}
std::size_t length(std::string_view text) {
  return text.size();
}
record enrich(record given) {
  given.points.push_back({1, 2});
  return given;
}
std::filesystem::path parent_of(const std::filesystem::path& path) {
  return path.parent_path();
}
std::complex<double> conjugate(const std::complex<double>& z) {
  return std::conj(z);
}
std::chrono::milliseconds twice(std::chrono::milliseconds time) {
  return 2 * time;
}
color other(color c) {
  return c == color::red ? color::green : color::red;
}
std::vector<bool> flags(int n) {
  return std::vector<bool>(static_cast<std::size_t>(n), true);
}
std::list<std::unordered_map<int, std::string>> lists(int n) {
  return {{{n, "n"}}};
}
int fail(int x) {
  if (x > 2) throw parse_error("too large");
  return x;
}
void nothing() {}
double draw(int) {
  return std::uniform_real_distribution<double>()(procpool::current_worker().random());
}

procpool::worker_local<std::vector<int>> scratch;
std::size_t remember(int x) {
  scratch->push_back(x);
  return scratch->size();
}

struct small {
  int value = 0;
  int plus(int more) const { return value + more; }
  void drop() noexcept {}
};

struct task {
  struct promise_type {
    task get_return_object() { return {}; }
    std::suspend_never initial_suspend() noexcept { return {}; }
    std::suspend_never final_suspend() noexcept { return {}; }
    void return_void() {}
    void unhandled_exception() { std::terminate(); }
  };
};
task await_it(procpool::AsyncResult<int> result, std::atomic<int>& seen) {
  seen = co_await std::move(result);
}

template <class T>
void print_all(const T& values) {
  fmt::print("{}\n", values);
}

template <class Pool>
void calls(Pool& pool) {
  fmt::print("{} {}\n", pool.apply(square, 3),
             pool.apply({.timeout = 2s, .retries = 1}, add, 1, 2));
  fmt::print("{}\n", pool.apply(length, "abc"));
  fmt::print("{}\n", pool.apply(sum, std::vector<double>{1, 2}));
  fmt::print("{}\n", pool.apply(enrich, record{}).points.size());
  fmt::print("{}\n", pool.apply(scaled{2}, 1.5));
  fmt::print("{}\n", pool.apply(parent_of, "/a/b").string());
  fmt::print("{}\n", pool.apply(conjugate, std::complex<double>(1, 2)).real());
  fmt::print("{}\n", pool.apply(twice, 2ms).count());
  fmt::print("{}\n", pool.apply(other, color::red) == color::green);
  fmt::print("{} {}\n", pool.apply(flags, 3).size(), pool.apply(lists, 3).size());
  pool.apply(nothing);
  const double factor = 3;
  print_all(pool.map([factor](double x) { return factor * x; }, std::vector<double>{1}));
  print_all(pool.map(square, {1, 2, 3}, {.chunksize = 2}));
  fmt::print("{}\n", pool.starmap(add, std::vector<std::pair<long, long>>{{1, 2}}));
  print_all(pool.map_outcomes(fail, std::vector<int>{1, 5}));
  print_all(pool.map_reduce(square, std::vector<int>{1, 2}, std::plus<int>()));
  print_all(pool.map(remember, std::vector<int>{1, 2}));
  print_all(pool.map(&small::value, std::vector<small>{{1}, {2}}));
  fmt::print("{}\n", pool.apply(&small::plus, small{1}, 2));
  pool.apply(&small::drop, small{1});
  print_all(pool.map(draw, std::vector<int>{1, 2}).size());
  for (const int each : pool.imap(square, std::vector<int>{1, 2})) fmt::print("{}\n", each);
  for (const int each : pool.imap_unordered(square, std::vector<int>{1}, {.buffersize = 4}))
    fmt::print("{}\n", each);
}

template <class Pool>
void results(Pool& pool) {
  auto one = pool.apply_async({.callback = [](int x) { fmt::print("{}\n", x); }}, square, 4);
  auto none = pool.apply_async(nothing);
  auto many = pool.map_async(square, std::vector<int>{1, 2},
                             {.error_callback = [](const std::exception_ptr&) {}});
  one.add_done_callback(
      [](const procpool::AsyncResult<int>& result) { fmt::print("{}\n", result.get()); });
  std::vector<procpool::AsyncResult<int>> all;
  for (int i = 0; i < 3; ++i) all.push_back(pool.apply_async(square, i));
  for (auto& each : procpool::as_completed(all)) fmt::print("{}\n", each.get());
  static_cast<void>(procpool::wait(all));
  none.wait(1s);
  fmt::print("{} {} {}\n", one.get(), many.get(), one.ready());
  auto late = pool.apply_async(square, 5);
  static_cast<void>(late.cancel());
  std::atomic<int> seen{0};
  auto awaited = pool.apply_async(square, 6);
  await_it(awaited, seen);
  awaited.wait();
  try {
    pool.apply(fail, 3);
  } catch (const parse_error& error) {
    fmt::print("{}\n", error.what());
  } catch (const procpool::WorkerDied& died) {
    fmt::print("{} {}\n", died, died.pid());
  }
}

void messages() {
  auto [ours, theirs] = procpool::Pipe();
  ours.send(record{});
  ours.send(theirs);
  ours.send_pickle(std::map<std::string, std::variant<long, double, std::string>>{});
  fmt::print("{}\n", theirs.recv<record>().name);
  static_cast<void>(theirs.recv_pickle<std::tuple<std::vector<int>, std::optional<double>>>());
  procpool::Listener listener{{.backlog = 2}};
  procpool::Connection client = procpool::Client({.address = listener.address()});
  fmt::print("{}\n", procpool::wait({listener, ours, client}, 1s).size());
}

}  // namespace

int main(int argc, char** argv) {
  procpool::register_exception<parse_error>();
  procpool::freeze_support(argc, argv);
  procpool::Pool pool{{.processes = 2, .initializer = {square, 2}, .maxtasksperchild = 100}};
  calls(pool);
  results(pool);
  pool.close();
  pool.join();
  procpool::ThreadPool threads{1};
  calls(threads);
  results(threads);
  procpool::Pool<procpool::Serial> serial;
  calls(serial);
  results(serial);
  procpool::Process process(
      {.name = "p"}, [](int x) { fmt::print("{}\n", x); }, 3);
  process.start();
  process.join();
  auto context = procpool::get_context(procpool::start_method::fork);
  auto made = context.Pool({.processes = 1});
  fmt::print("{} {}\n", made.apply(square, 2), procpool::version.minor_part);
  if (argc > 99) messages();
  return process.exitcode().value_or(1);
}
