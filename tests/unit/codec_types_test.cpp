// SPDX-License-Identifier: MIT
// Which types can be sent: a clean yes or no for each, at compile time.
#include <any>
#include <array>
#include <atomic>
#include <catch2/catch_test_macros.hpp>
#include <complex>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <procpool/codec.hpp>
#include <procpool/detail/base/type_name.hpp>
#include <string>
#include <system_error>
#include <thread>
#include <tuple>
#include <typeinfo>
#include <variant>
#include <vector>

#include "fuzz/everything.hpp"

using procpool::encodable;
using procpool::detail::demangle;
using procpool::detail::field_types_t;
using procpool::detail::is_flat_v;
using procpool::detail::min_wire_size_v;
using procpool::detail::shape;
using procpool::detail::shape_of;
using procpool::detail::type_list;
using procpool::detail::type_name;

namespace {

struct Empty {};
struct Base {
  int number;
};
struct Derived : Base {
  int more;
};
struct DerivedFromEmpty : Empty {
  int more;
};
struct DerivedFromVector : std::vector<int> {};
struct ArrayOfOne {
  int numbers[1];
};
struct ArrayInside {
  std::string text;
  char name[300];
  int number;
};
struct ArrayOfArrays {
  int number;
  int matrix[2][2];
};
struct ArrayOfOwners {
  std::unique_ptr<int> owners[2];
};
struct Constant {
  const int number;
};
struct Reference {
  int& number;
};
struct ConstantReference {
  const std::string& text;
};
union Union {
  int number;
  float real;
};
struct Virtual {
  virtual ~Virtual() = default;
};
class Opaque {
 public:
  [[nodiscard]] int number() const { return number_; }

 private:
  int number_ = 0;
};
struct Incomplete;
struct Defaults {
  int number = 3;
  std::string text = "text";
};
struct MoveOnly {
  std::unique_ptr<int> owner;
  std::optional<std::unique_ptr<int>> maybe;
  std::tuple<std::unique_ptr<int>> tuple;
  std::vector<std::unique_ptr<int>> many;
};
struct TakesAnything {
  template <class T>
  TakesAnything(T&&) {}  // NOLINT
};
struct HoldsOneThatTakesAnything {
  TakesAnything first;
  int second;
};
struct Wide {
  int a0, a1, a2, a3, a4, a5, a6, a7, a8, a9, b0, b1, b2, b3, b4, b5, b6, b7, b8, b9;
  std::string c0, c1, c2, c3, c4, c5, c6, c7, c8, c9;
};

struct Node {
  int value;
  std::vector<Node> children;
};
struct Tree {
  std::unique_ptr<Tree> left;
  std::unique_ptr<Tree> right;
  int value;
};
struct Odd;
struct Even {
  std::vector<Odd> odd;
};
struct Odd {
  std::map<int, Even> even;
};
struct RecursiveWithPointer {
  std::vector<RecursiveWithPointer> children;
  std::map<int, std::vector<int*>> bad;
};

struct Gap {
  char letter;
  int number;
};
struct NoGap {
  int number;
  float real;
  std::array<short, 4> shorts;
};
struct Nested {
  NoGap first;
  double second;
};
struct WithBool {
  int number;
  bool flag, more, and_more, last;
};
struct alignas(32) Aligned {
  std::array<double, 4> numbers;
};

}  // namespace

template <>
struct procpool::codec<TakesAnything> {
  static void encode(encoder&, const TakesAnything&) {}
  static TakesAnything decode(decoder&) { return TakesAnything(0); }
};

TEST_CASE("the shapes of classes are told apart", "[codec]") {
  STATIC_REQUIRE(shape_of<Empty>() == shape::plain);
  STATIC_REQUIRE(shape_of<Defaults>() == shape::plain);
  STATIC_REQUIRE(shape_of<MoveOnly>() == shape::plain);
  STATIC_REQUIRE(shape_of<Wide>() == shape::plain);
  STATIC_REQUIRE(shape_of<Node>() == shape::plain);
  STATIC_REQUIRE(shape_of<HoldsOneThatTakesAnything>() == shape::plain);
  STATIC_REQUIRE(shape_of<Derived>() == shape::has_base);
  STATIC_REQUIRE(shape_of<DerivedFromEmpty>() == shape::has_base);
  STATIC_REQUIRE(shape_of<DerivedFromVector>() == shape::has_base);
  STATIC_REQUIRE(shape_of<ArrayOfOne>() == shape::has_array);
  STATIC_REQUIRE(shape_of<ArrayInside>() == shape::has_array);
  STATIC_REQUIRE(shape_of<ArrayOfArrays>() == shape::has_array);
  STATIC_REQUIRE(shape_of<ArrayOfOwners>() == shape::has_array);
  STATIC_REQUIRE(shape_of<Constant>() == shape::has_constant);
  STATIC_REQUIRE(shape_of<Reference>() == shape::has_constant);
  STATIC_REQUIRE(shape_of<ConstantReference>() == shape::has_constant);
  STATIC_REQUIRE(shape_of<Union>() == shape::is_union);
  STATIC_REQUIRE(shape_of<Virtual>() == shape::not_an_aggregate);
  STATIC_REQUIRE(shape_of<Opaque>() == shape::not_an_aggregate);
  STATIC_REQUIRE(shape_of<std::string>() == shape::not_an_aggregate);
  STATIC_REQUIRE(shape_of<int>() == shape::not_an_aggregate);
  STATIC_REQUIRE(shape_of<Incomplete>() == shape::incomplete);
}

TEST_CASE("the fields of an aggregate have their own types", "[codec]") {
  STATIC_REQUIRE(std::is_same_v<field_types_t<Defaults>, type_list<int, std::string>>);
  STATIC_REQUIRE(std::is_same_v<field_types_t<Empty>, type_list<>>);
  STATIC_REQUIRE(std::is_same_v<field_types_t<Tree>,
                                type_list<std::unique_ptr<Tree>, std::unique_ptr<Tree>, int>>);
  STATIC_REQUIRE(procpool::detail::value_count_v<Wide> == 30);
}

TEST_CASE("what can be sent", "[codec]") {
  STATIC_REQUIRE(encodable<int>);
  STATIC_REQUIRE(encodable<const int>);
  STATIC_REQUIRE(encodable<MoveOnly>);
  STATIC_REQUIRE(encodable<Wide>);
  STATIC_REQUIRE(encodable<Node>);
  STATIC_REQUIRE(encodable<Tree>);
  STATIC_REQUIRE(encodable<Even>);
  STATIC_REQUIRE(encodable<std::vector<Odd>>);
  STATIC_REQUIRE(encodable<everything::Everything>);
  STATIC_REQUIRE(encodable<HoldsOneThatTakesAnything>);
  STATIC_REQUIRE(encodable<std::unique_ptr<const Node>>);
  STATIC_REQUIRE(encodable<std::pair<const int, const std::string>>);
}

TEST_CASE("what cannot be sent", "[codec]") {
  STATIC_REQUIRE_FALSE(encodable<void>);
  STATIC_REQUIRE_FALSE(encodable<int*>);
  STATIC_REQUIRE_FALSE(encodable<const char*>);
  STATIC_REQUIRE_FALSE(encodable<int&>);
  STATIC_REQUIRE_FALSE(encodable<const std::string&>);
  STATIC_REQUIRE_FALSE(encodable<int[3]>);
  STATIC_REQUIRE_FALSE(encodable<int()>);
  STATIC_REQUIRE_FALSE(encodable<int (*)()>);
  STATIC_REQUIRE_FALSE(encodable<int Base::*>);
  STATIC_REQUIRE_FALSE(encodable<std::nullptr_t>);
  STATIC_REQUIRE_FALSE(encodable<Incomplete>);
  STATIC_REQUIRE_FALSE(encodable<Union>);
  STATIC_REQUIRE_FALSE(encodable<Virtual>);
  STATIC_REQUIRE_FALSE(encodable<Opaque>);
  STATIC_REQUIRE_FALSE(encodable<Derived>);
  STATIC_REQUIRE_FALSE(encodable<ArrayInside>);
  STATIC_REQUIRE_FALSE(encodable<ConstantReference>);
  STATIC_REQUIRE_FALSE(encodable<RecursiveWithPointer>);
  STATIC_REQUIRE_FALSE(encodable<std::vector<std::optional<std::tuple<int, int*>>>>);
  STATIC_REQUIRE_FALSE(encodable<std::map<int, Opaque>>);
  STATIC_REQUIRE_FALSE(encodable<std::array<int*, 2>>);
  STATIC_REQUIRE_FALSE(encodable<std::variant<int, Union>>);
  STATIC_REQUIRE_FALSE(encodable<std::tuple<int&>>);
}

TEST_CASE("standard classes that cannot be sent", "[codec]") {
  STATIC_REQUIRE_FALSE(encodable<std::shared_ptr<int>>);
  STATIC_REQUIRE_FALSE(encodable<std::weak_ptr<int>>);
  STATIC_REQUIRE_FALSE(encodable<std::unique_ptr<int[]>>);
  STATIC_REQUIRE_FALSE(encodable<std::unique_ptr<Virtual>>);
  STATIC_REQUIRE_FALSE(encodable<std::unique_ptr<int, void (*)(int*)>>);
  STATIC_REQUIRE_FALSE(encodable<std::function<int()>>);
  STATIC_REQUIRE_FALSE(encodable<std::any>);
  STATIC_REQUIRE_FALSE(encodable<std::reference_wrapper<int>>);
  STATIC_REQUIRE_FALSE(encodable<std::thread>);
  STATIC_REQUIRE_FALSE(encodable<std::mutex>);
  STATIC_REQUIRE_FALSE(encodable<std::atomic<int>>);
  STATIC_REQUIRE_FALSE(encodable<std::error_code>);
  STATIC_REQUIRE_FALSE(encodable<std::exception_ptr>);
  STATIC_REQUIRE_FALSE(encodable<std::map<int, int, bool (*)(int, int)>>);
  STATIC_REQUIRE_FALSE(encodable<std::set<int, std::function<bool(int, int)>>>);
}

TEST_CASE("flat types have neither gaps nor values that are not allowed", "[codec]") {
  STATIC_REQUIRE(is_flat_v<int>);
  STATIC_REQUIRE(is_flat_v<const double>);
  STATIC_REQUIRE(is_flat_v<std::byte>);
  STATIC_REQUIRE(is_flat_v<char32_t>);
  STATIC_REQUIRE(is_flat_v<NoGap>);
  STATIC_REQUIRE(is_flat_v<Nested>);
  STATIC_REQUIRE(is_flat_v<std::array<NoGap, 3>>);
  STATIC_REQUIRE(is_flat_v<std::complex<double>>);
  STATIC_REQUIRE(is_flat_v<std::chrono::nanoseconds>);
  STATIC_REQUIRE(is_flat_v<std::chrono::steady_clock::time_point>);
  STATIC_REQUIRE(is_flat_v<Aligned>);
  STATIC_REQUIRE_FALSE(is_flat_v<bool>);
  STATIC_REQUIRE_FALSE(is_flat_v<everything::Level>);
  STATIC_REQUIRE_FALSE(is_flat_v<int*>);
  STATIC_REQUIRE_FALSE(is_flat_v<Gap>);
  STATIC_REQUIRE_FALSE(is_flat_v<WithBool>);
  STATIC_REQUIRE_FALSE(is_flat_v<Empty>);
  STATIC_REQUIRE_FALSE(is_flat_v<Derived>);
  STATIC_REQUIRE_FALSE(is_flat_v<Union>);
  STATIC_REQUIRE_FALSE(is_flat_v<std::string>);
  STATIC_REQUIRE_FALSE(is_flat_v<std::optional<int>>);
  STATIC_REQUIRE_FALSE(is_flat_v<std::array<bool, 2>>);
  STATIC_REQUIRE_FALSE(is_flat_v<std::array<int, 0>>);
  STATIC_REQUIRE_FALSE(is_flat_v<void>);
}

TEST_CASE("the least size of an encoding is known for built-in codecs", "[codec]") {
  STATIC_REQUIRE(min_wire_size_v<int> == 4);
  STATIC_REQUIRE(min_wire_size_v<bool> == 1);
  STATIC_REQUIRE(min_wire_size_v<Gap> == 5);
  STATIC_REQUIRE(min_wire_size_v<Node> == 12);
  STATIC_REQUIRE(min_wire_size_v<Tree> == 6);
  STATIC_REQUIRE(min_wire_size_v<std::string> == 8);
  STATIC_REQUIRE(min_wire_size_v<std::optional<double>> == 1);
  STATIC_REQUIRE(min_wire_size_v<std::pair<bool, std::tuple<char, short>>> == 4);
  STATIC_REQUIRE(min_wire_size_v<std::array<std::string, 3>> == 24);
  STATIC_REQUIRE(min_wire_size_v<Empty> == 0);
  STATIC_REQUIRE(min_wire_size_v<std::tuple<>> == 0);
}

TEST_CASE("names of types are readable", "[codec]") {
  CHECK(type_name<int>() == "int");
  CHECK(type_name<std::string>() == "std::string");
  CHECK(type_name<everything::Point>() == "everything::Point");
  CHECK(type_name<const Node*>().find("Node") != std::string::npos);
  CHECK(type_name<std::vector<std::string>>().starts_with("std::vector<std::string"));
  CHECK(demangle(typeid(everything::Point).name()) == "everything::Point");
  CHECK(demangle(typeid(std::runtime_error).name()) == "std::runtime_error");
  CHECK(demangle(typeid(std::string).name()) == "std::string");
  CHECK(demangle("not a mangled name") == "not a mangled name");
}
