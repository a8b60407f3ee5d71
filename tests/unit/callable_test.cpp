// SPDX-License-Identifier: MIT
// Callables: what their parameters are, how they travel, and what is refused.
#include <catch2/catch_test_macros.hpp>

#include <functional>
#include <memory>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include <procpool/detail/module/module_table.hpp>
#include <procpool/detail/task/callable.hpp>
#include <procpool/procpool.hpp>

namespace {

using procpool::detail::byte_buffer;
using procpool::detail::callable_codec;
using procpool::detail::shipped_types_t;
using procpool::detail::task_result_t;
using procpool::detail::type_list;

int twice(int x) {
  return 2 * x;
}
int counted_text(const std::string& text, std::string_view view, std::span<const int> numbers) {
  return static_cast<int>(text.size() + view.size() + numbers.size());
}
int quiet(int x) noexcept {
  return x;
}

struct weighted {
  std::vector<int> weights;
  int operator()(std::size_t i) const { return weights.at(i); }
};

template <class F>
F carried(const F& callable) {
  byte_buffer bytes;
  procpool::encoder out(bytes);
  callable_codec<F>::encode(out, callable);
  procpool::decoder in(bytes.view());
  F copy = callable_codec<F>::decode(in);
  in.finish();
  return copy;
}

TEST_CASE("arguments travel as the parameter types of a function", "[callable]") {
  using text = int (*)(const std::string&, std::string_view, std::span<const int>);
  STATIC_CHECK(std::is_same_v<shipped_types_t<text, const char*, const char*, std::vector<int>&>,
                              type_list<std::string, std::string_view, std::span<const int>>>);
  const auto lambda = [](double x) mutable { return x; };
  STATIC_CHECK(
      std::is_same_v<shipped_types_t<std::decay_t<decltype(lambda)>, int>, type_list<double>>);
  STATIC_CHECK(std::is_same_v<task_result_t<decltype(&quiet), int>, int>);
}

TEST_CASE("a generic callable takes the arguments as they are", "[callable]") {
  const auto generic = [](auto x) { return x; };
  using type = std::decay_t<decltype(generic)>;
  STATIC_CHECK(std::is_same_v<shipped_types_t<type, const long&>, type_list<long>>);
  STATIC_CHECK(std::is_same_v<task_result_t<type, const long&>, long>);
  STATIC_CHECK(std::is_same_v<task_result_t<std::plus<>, int, int>, int>);
}

TEST_CASE("functions travel as module and offset", "[callable]") {
  CHECK(carried(&twice) == &twice);
  CHECK(carried(&quiet)(5) == 5);
  CHECK(carried(&counted_text)("a", "bc", std::vector{1, 2, 3}) == 6);
  int (*library)(const char*) = &::puts;  // a shared library's
  CHECK(carried(library) == library);
}

TEST_CASE("closures travel as their bytes", "[callable]") {
  int factor = 3;
  double offset = 0.5;
  const auto scaled = [factor, offset](int x) { return factor * x + offset; };
  CHECK(carried(scaled)(2) == 6.5);
  CHECK(carried([](int x) { return x; })(4) == 4);
  byte_buffer bytes;
  procpool::encoder out(bytes);
  callable_codec<std::plus<>>::encode(out, std::plus<>());
  CHECK(bytes.size() == 0);
}

TEST_CASE("function objects travel by their members", "[callable]") {
  CHECK(carried(weighted{{5, 6, 7}})(1) == 6);
}

TEST_CASE("a closure that captured a local by reference is refused", "[callable]") {
  int local = 3;
  const auto by_reference = [&local](int x) { return local + x; };
  CHECK_THROWS_AS(carried(by_reference), std::invalid_argument);
  int* pointer = &local;
  const auto by_pointer = [pointer](int x) { return *pointer + x; };
  CHECK_THROWS_AS(carried(by_pointer), std::invalid_argument);
  const auto in_heap = std::make_unique<int>(4);
  const auto to_heap = [raw = in_heap.get()](int x) { return *raw + x; };
  CHECK(carried(to_heap)(1) == 5);
}

TEST_CASE("a null function pointer is refused", "[callable]") {
  int (*nothing)(int) = nullptr;
  CHECK_THROWS_AS(procpool::detail::reject_null(nothing), std::invalid_argument);
  procpool::Pool pool{1};
  CHECK_THROWS_AS(pool.apply(nothing, 1), std::invalid_argument);
  CHECK_THROWS_AS(pool.apply_async(nothing, 1), std::invalid_argument);
  CHECK_THROWS_AS(pool.map(nothing, {1, 2}), std::invalid_argument);
  CHECK(pool.apply(twice, 2) == 4);
}

TEST_CASE("code is found in the module that has it", "[callable]") {
  auto& modules = procpool::detail::module_table::instance();
  const auto code = modules.find(reinterpret_cast<std::uintptr_t>(&twice));
  CHECK(modules.address(code) == reinterpret_cast<std::uintptr_t>(&twice));
  static int data = 0;
  CHECK_THROWS_AS(modules.find(reinterpret_cast<std::uintptr_t>(&data)), std::invalid_argument);
}

}  // namespace
