// SPDX-License-Identifier: MIT
#include <sys/resource.h>

#include <array>
#include <catch2/catch_template_test_macros.hpp>
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <limits>
#include <list>
#include <map>
#include <optional>
#include <random>
#include <set>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <tuple>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <variant>
#include <vector>

#include <procpool/pickle.hpp>
#include <procpool/procpool.hpp>

#include "support/child.hpp"
#include "support/python.hpp"

using Catch::Matchers::ContainsSubstring;
using procpool::DecodeError;
using procpool::pickle_dumps;
using procpool::pickle_loads;

namespace {

using bytes = std::vector<std::byte>;
using text = std::string;

/// A pickle as text: "\x80\x04N."
bytes raw(std::string_view content) {
  const auto found = std::as_bytes(std::span(content.data(), content.size()));
  return {found.begin(), found.end()};
}

/// Of protocol 4: what stands between the PROTO and the STOP.
bytes pickle(const std::string& content) {
  return raw("\x80\x04" + content + ".");
}

template <class T>
T again(const T& value) {
  return pickle_loads<T>(pickle_dumps(value));
}

template <class T>
std::string error_of(const bytes& from) {
  try {
    static_cast<void>(pickle_loads<T>(from));
  } catch (const DecodeError& error) {
    CHECK(error.offset() <= from.size());
    return error.what();
  }
  return "no error";
}

std::string four(std::uint32_t number) {
  std::string made;
  for (int i = 0; i < 4; ++i) made += static_cast<char>(number >> (8 * i));
  return made;
}

}  // namespace

TEST_CASE("values of all types come back from their pickles", "[pickle]") {
  CHECK(again(true));
  CHECK_FALSE(again(false));
  for (long long value :
       {0LL, 1LL, -1LL, 127LL, 128LL, 255LL, 256LL, 65'535LL, 65'536LL, -128LL, 2'147'483'647LL,
        2'147'483'648LL, -2'147'483'648LL, -2'147'483'649LL, std::numeric_limits<long long>::max(),
        std::numeric_limits<long long>::min()}) {
    CHECK(again(value) == value);
  }
  for (std::uint64_t value : {std::uint64_t{1} << 63, ~std::uint64_t{0}})
    CHECK(again(value) == value);
  CHECK(again(static_cast<signed char>(-7)) == -7);
  CHECK(again(static_cast<unsigned char>(200)) == 200);
  CHECK(again(2.5) == 2.5);
  CHECK(again(-2.5F) == -2.5F);
  CHECK(std::signbit(again(-0.0)));
  CHECK(std::isnan(again(std::nan(""))));
  CHECK(again(std::numeric_limits<double>::infinity()) > 1e308);
  for (const text& value : {text(), text("plain"), text("ä€😀"), text("a\0b", 3), text(255, 'x'),
                            text(256, 'x'), text(100'000, 'x')}) {
    CHECK(again(value) == value);
    CHECK(again(raw(value)) == raw(value));
  }
  CHECK(again(std::vector<int>{1, 2, 3}) == std::vector<int>{1, 2, 3});
  CHECK(again(std::vector<bool>{true, false}) == std::vector<bool>{true, false});
  CHECK(again(std::deque<text>{"a"}) == std::deque<text>{"a"});
  CHECK(again(std::list<double>{}).empty());
  CHECK(again(std::array<int, 3>{1, 2, 3}) == std::array<int, 3>{1, 2, 3});
  CHECK(again(std::array<int, 5>{1, 2, 3, 4, 5}) == std::array<int, 5>{1, 2, 3, 4, 5});
  CHECK(again(std::tuple<>()) == std::tuple<>());
  CHECK(again(std::pair(1, text("b"))) == std::pair(1, text("b")));
  const std::tuple mixed(1, 2.5, text("c"), true, raw("d"));
  CHECK(again(mixed) == mixed);
  const std::map<text, std::vector<long>> map{{"a", {1, 2}}, {"b", {}}};
  CHECK(again(map) == map);
  const std::unordered_map<int, bool> hashed{{1, true}, {2, false}};
  CHECK(again(hashed) == hashed);
  CHECK(again(std::set<int>{3, 1}) == std::set<int>{1, 3});
  CHECK(again(std::unordered_set<text>{"x"}) == std::unordered_set<text>{"x"});
  CHECK(again(std::optional<int>()) == std::nullopt);
  CHECK(again(std::optional(4)) == 4);
  CHECK(pickle_loads<std::nullptr_t>(pickle_dumps(nullptr)) == nullptr);
  CHECK(again(std::monostate()) == std::monostate());
  using any = std::variant<std::monostate, bool, long, double, text, std::vector<long>>;
  for (const any& value :
       {any(), any(true), any(7L), any(7.0), any(text("t")), any(std::vector<long>{1})}) {
    CHECK(again(value) == value);
  }
}

TEST_CASE("a variant takes the first alternative that fits", "[pickle]") {
  using reals = std::variant<text, double>;
  CHECK(pickle_loads<reals>(pickle_dumps(7)) == reals(7.0));
  using lists = std::variant<std::vector<int>, std::vector<text>>;
  CHECK(pickle_loads<lists>(pickle_dumps(std::vector{1})) == lists(std::vector{1}));
  CHECK_THAT(error_of<lists>(pickle_dumps(std::vector<text>{"a"})), ContainsSubstring("an int"));
  CHECK_THAT(error_of<reals>(pickle_dumps(nullptr)), ContainsSubstring("variant"));
}

TEST_CASE("values of another type are refused with both types and the place", "[pickle]") {
  CHECK(error_of<int>(pickle_dumps(text("t"))) == "a str where an int was expected at byte 2");
  CHECK(error_of<text>(pickle_dumps(1)) == "a int where a str was expected at byte 2");
  CHECK_THAT(error_of<bool>(pickle_dumps(1)), ContainsSubstring("a bool"));
  CHECK_THAT(error_of<int>(pickle_dumps(true)), ContainsSubstring("a bool where an int"));
  CHECK_THAT(error_of<bytes>(pickle_dumps(text("t"))), ContainsSubstring("a bytes object"));
  CHECK_THAT(error_of<std::vector<int>>(pickle_dumps(std::set<int>{})),
             ContainsSubstring("a list"));
  CHECK_THAT((error_of<std::map<int, int>>(pickle_dumps(std::vector<int>{}))),
             ContainsSubstring("a dict"));
  CHECK_THAT((error_of<std::pair<int, int>>(pickle_dumps(std::array{1, 2, 3}))),
             ContainsSubstring("a tuple of 3 values where 2 were expected"));
  CHECK_THAT(error_of<std::int8_t>(pickle_dumps(128)), ContainsSubstring("out of the range"));
  CHECK_THAT(error_of<std::uint8_t>(pickle_dumps(-1)), ContainsSubstring("out of the range"));
  CHECK_THAT(error_of<std::uint64_t>(pickle_dumps(-1)), ContainsSubstring("out of the range"));
  CHECK_THAT(error_of<long>(pickle_dumps(~0ULL)), ContainsSubstring("out of the range"));
  CHECK_THAT(error_of<double>(pickle_dumps((1LL << 53) + 1)), ContainsSubstring("equal"));
  CHECK(pickle_loads<double>(pickle_dumps(-(1LL << 53))) == -9007199254740992.0);
  const std::string googol = "\x8a\x0a" + std::string(9, '\xff') + "\x7f";
  CHECK_THAT(error_of<std::uint64_t>(pickle(googol)), ContainsSubstring("out of the range"));
  CHECK_THAT(error_of<double>(pickle(googol)), ContainsSubstring("equal"));
}

TEST_CASE("every opcode that plain values have is read", "[pickle]") {
  const auto list = [](const std::string& content) {
    return pickle_loads<std::vector<int>>(pickle(content));
  };
  const std::vector<int> one{1};
  const std::vector<int> two{1, 2};
  CHECK(list("]K\x01"
             "a") == one);
  CHECK(list("(K\x01K\x02l") == two);
  CHECK(list("](K\x01K\x02"
             "e") == two);
  CHECK(list("(K\x01K\x02t") == two);
  CHECK(list("K\x01\x85") == one);
  CHECK(list("K\x01K\x02\x86") == two);
  CHECK(list(")").empty());
  CHECK(list("K\x01"
             "2\x86") == std::vector<int>{1, 1});
  CHECK(list("K\x07"
             "0K\x01\x85") == one);
  CHECK(list("K\x01(K\x02K\x03"
             "1\x85") == one);
  CHECK(list("K\x01(0\x85") == one);
  CHECK(list("K\x01q\x05K\x02h\x05\x87") == std::vector<int>{1, 2, 1});
  CHECK(list("K\x01r" + four(70'000) + "j" + four(70'000) + "\x86") == std::vector<int>{1, 1});
  CHECK(list("K\x01\x94h" + std::string(1, '\0') + "\x86") == std::vector<int>{1, 1});
  CHECK(list("\x95" + std::string("\x04\0\0\0\0\0\0\0", 8) + "K\x01\x85") == one);
  CHECK(list("J" + four(static_cast<std::uint32_t>(-2)) + "\x85") == std::vector<int>{-2});
  CHECK(list(std::string("M\x01\x02\x85")) == std::vector<int>{513});
  CHECK(list("\x8b" + four(2) + "\xfe\xff\x85") == std::vector<int>{-2});
  CHECK(list(std::string("\x8a\0\x85", 3)) == std::vector<int>{0});
  const auto map = [](const std::string& content) {
    return pickle_loads<std::map<int, int>>(pickle(content));
  };
  CHECK(map("}K\x01K\x02s") == std::map<int, int>{{1, 2}});
  CHECK(map("}(K\x01K\x02K\x01K\x03u") == std::map<int, int>{{1, 3}});
  CHECK(map("(K\x01K\x02"
            "d") == std::map<int, int>{{1, 2}});
  const auto set = [](const std::string& content) {
    return pickle_loads<std::set<int>>(pickle(content));
  };
  CHECK(set("\x8f(K\x01K\x02\x90") == std::set<int>{1, 2});
  CHECK(set("(K\x01\x91") == std::set<int>{1});
  CHECK(pickle_loads<text>(pickle("X" + four(2) + "ab")) == "ab");
  CHECK(pickle_loads<text>(pickle("\x8d" + four(2) + four(0) + "ab")) == "ab");
  CHECK(pickle_loads<bytes>(pickle("B" + four(2) + "ab")) == raw("ab"));
  CHECK(pickle_loads<bytes>(pickle("\x8e" + four(2) + four(0) + "ab")) == raw("ab"));
  CHECK(pickle_loads<bytes>(pickle("\x96" + four(2) + four(0) + "ab")) == raw("ab"));
  CHECK(pickle_loads<text>(raw("\x80\x02X" + four(1) + "a.")) == "a");
}

TEST_CASE("what names a class or function, or is of an old protocol, is refused", "[pickle]") {
  // os.system("true"), as protocol 2 and 4 have it
  CHECK_THAT(error_of<int>(raw("\x80\x02"
                               "cposix\nsystem\nX" +
                               four(4) + "true\x85R.")),
             ContainsSubstring("class or function"));
  CHECK_THAT(error_of<int>(pickle("\x8c\x05posix\x8c\x06system\x93\x8c\x04true\x85R")),
             ContainsSubstring("class or function"));
  for (char code : {'i', 'o', 'R', 'b', '\x81', '\x92', '\x93', '\x82', '\x83', '\x84'})
    CHECK_THAT(error_of<int>(pickle(std::string(1, code))), ContainsSubstring("class or function"));
  for (char code : {'P', 'Q', '\x97', '\x98'})
    CHECK_THAT(error_of<int>(pickle(std::string(1, code))), ContainsSubstring("outside"));
  for (char code : {'F', 'I', 'L', 'S', 'T', 'U', 'V', 'g', 'p'})
    CHECK_THAT(error_of<int>(pickle(std::string(1, code))), ContainsSubstring("protocol 0 or 1"));
  CHECK_THAT(error_of<int>(pickle("\xff")), ContainsSubstring("unknown opcode 255"));
  CHECK_THAT(error_of<int>(raw("I1\n.")), ContainsSubstring("not a pickle"));
  CHECK_THAT(error_of<int>(raw("\x80\x06K\x01.")), ContainsSubstring("protocol 6"));
  CHECK_THAT(error_of<int>({}), ContainsSubstring("ends early"));
}

TEST_CASE("pickles that make no sense are refused", "[pickle]") {
  for (const std::string& content : std::vector<std::string>{"",
                                                             "0",
                                                             "2",
                                                             "a",
                                                             "]a",
                                                             "K\x01K\x01"
                                                             "a",
                                                             "}K\x01s",
                                                             "}(K\x01u",
                                                             "(K\x01"
                                                             "d",
                                                             "e",
                                                             "t",
                                                             "1",
                                                             "\x85",
                                                             "K\x01\x86",
                                                             "(K\x01\x85",
                                                             "K\x01K\x01",
                                                             "(K\x01",
                                                             "h\x01",
                                                             "j" + four(5),
                                                             "q\x01",
                                                             "\x94",
                                                             "](K\x01\x90",
                                                             "}(K\x01K\x01"
                                                             "e",
                                                             "X" + four(0xFFFFFFFF),
                                                             "\x8d" + four(0) + four(0x80000000),
                                                             "\x8a\x05\x01",
                                                             "\x95" + four(100) + four(0) + "N",
                                                             "\x8c\x01\xff",
                                                             "\x8c\x02\xc0\x80",
                                                             "\x8c\x03\xe2\x82",
                                                             "\x8c\x04\xf4\x90\x80\x80",
                                                             "\x8b" + four(0xFFFFFFFF)}) {
    CHECK(error_of<std::vector<int>>(pickle(content)) != "no error");
  }
  CHECK_THAT(error_of<int>(raw("\x80\x04K\x01.x")), ContainsSubstring("after the end"));
  CHECK(pickle_loads<text>(pickle("\x8c\x03\xed\xa0\x80")) == "\xed\xa0\x80");  // as Python does
}

TEST_CASE("every part of a pickle is no pickle", "[pickle]") {
  const auto whole = pickle_dumps(
      std::tuple(std::map<text, std::vector<double>>{{"a", {1.5, 2}}, {"b", {}}},
                 std::set<int>{1, 70'000}, std::optional<bool>(true), raw("bytes"), 1LL << 40));
  using type = std::tuple<std::map<text, std::vector<double>>, std::set<int>, std::optional<bool>,
                          bytes, long long>;
  static_cast<void>(pickle_loads<type>(whole));
  for (std::size_t size = 0; size < whole.size(); ++size)
    CHECK(error_of<type>(bytes(whole.begin(), whole.begin() + static_cast<long>(size))) !=
          "no error");
}

TEST_CASE("a text that is not UTF-8 is not pickled", "[pickle]") {
  for (const char* wrong : {"\xff", "a\xc3", "\xed\xa0\x80", "\xc0\xaf", "\xf8\x88\x80\x80\x80"})
    CHECK_THROWS_AS(pickle_dumps(text(wrong)), std::invalid_argument);
}

TEST_CASE("a short pickle that stands for very much is refused", "[pickle]") {
  // A list of ten references to a list of ten references to ... : 10^9 elements.
  std::string content = "K\x01q" + std::string(1, '\0') + "0";
  for (char level = 0; level < 9; ++level) {
    content += "](";
    for (int i = 0; i < 10; ++i) content += std::string("h") + level;
    content += std::string("eq") + static_cast<char>(level + 1) + "0";
  }
  content += "h\x09";
  using v = std::vector<std::vector<std::vector<
      std::vector<std::vector<std::vector<std::vector<std::vector<std::vector<int>>>>>>>>>;
  CHECK_THAT(error_of<v>(pickle(content)), ContainsSubstring("too often"));
  // A list that contains itself.
  CHECK_THAT(error_of<std::vector<std::vector<int>>>(pickle("]q\x01h\x01"
                                                            "a")),
             ContainsSubstring("an int"));
  // The same text many times is no harm.
  std::string often = "\x8c\x64" + std::string(100, 'x') +
                      "q\x01"
                      "0](";
  for (int i = 0; i < 1000; ++i) often += "h\x01";
  CHECK(pickle_loads<std::vector<text>>(pickle(often + "e")).size() == 1000);
}

TEST_CASE("random changes of pickles are values or DecodeErrors", "[pickle]") {
  const auto whole = pickle_dumps(std::tuple(
      std::map<text, std::vector<double>>{{"a", {1.5, 2}}, {"b", {}}}, std::set<int>{1, 70'000}));
  using type = std::tuple<std::map<text, std::vector<double>>, std::set<int>>;
  std::mt19937 random(4);
  int values = 0;
  for (int i = 0; i < 100'000; ++i) {
    auto changed = whole;
    for (auto n = random() % 3 + 1; n > 0; --n)
      changed[random() % changed.size()] = static_cast<std::byte>(random());
    try {
      static_cast<void>(pickle_loads<type>(changed));
      ++values;
    } catch (const DecodeError&) {
    }
  }
  CHECK(values > 0);
}

TEST_CASE("pickles go through a Connection", "[pickle]") {
  auto [ours, theirs] = procpool::Pipe();
  ours.send_pickle("a literal");
  ours.send_pickle(std::vector<long>{1, 2, 3});
  ours.send_bytes(std::string("no pickle"));
  ours.send_pickle(1);
  CHECK(theirs.recv_pickle<text>() == "a literal");
  CHECK(theirs.recv_pickle<std::vector<long>>() == std::vector<long>{1, 2, 3});
  CHECK_THROWS_AS(theirs.recv_pickle<int>(), DecodeError);
  CHECK(theirs.recv_pickle<int>() == 1);
}

// ---------------------------------------------------------------------------- Python

TEST_CASE("Python reads what is sent and sends what is read", "[pickle][python]") {
  support::need_python();
  procpool::Listener listener;
  support::python_program python(R"(
import pickle, sys
from multiprocessing.connection import Client
with Client(sys.argv[1]) as peer:
    def expect(value):
        got = peer.recv()
        assert got == value and type(got) is type(value), (got, value)
    expect(None)
    expect(True)
    for value in (0, -1, 255, 256, 65535, 65536, -2**31, 2**31, 2**63 - 1, -2**63, 2**64 - 1):
        expect(value)
    expect(2.5)
    expect('ä€😀')
    expect('x' * 70000)
    expect(bytes(range(256)) * 2)
    expect([1, 2, 3])
    expect((1, 'two', 3.0, None, True))
    expect({'a': [1], 'b': []})
    expect({1, 2, 3})
    expect([])
    expect({})
    expect(set())
    expect(())
    value = ({'a': [1, 2**40], 'b': []}, (1.5, 'text', b'bytes', None), 'text', 2**64 - 1, -2**63)
    for protocol in (3, 4, 5):
        peer.send_bytes(pickle.dumps(value, protocol))
    peer.send_bytes(pickle.dumps(({'a': [1]}, True, 'x'), 2))
    peer.send({1, 2})
    peer.send(frozenset([1]))
    peer.send(bytearray(b'abc') if pickle.DEFAULT_PROTOCOL > 4 else b'abc')
    peer.send(['same'] * 1000)
    peer.send(list(range(100000)))
    peer.send({i: str(i) for i in range(5000)})
    peer.send(2**70)
    peer.send(peer)
    peer.send(1)
)",
                                 {listener.address()});
  procpool::Connection peer = listener.accept();
  peer.send_pickle(nullptr);
  peer.send_pickle(true);
  for (long long value :
       {0LL, -1LL, 255LL, 256LL, 65'535LL, 65'536LL, -(1LL << 31), 1LL << 31,
        std::numeric_limits<long long>::max(), std::numeric_limits<long long>::min()}) {
    peer.send_pickle(value);
  }
  peer.send_pickle(~std::uint64_t{0});
  peer.send_pickle(2.5);
  peer.send_pickle("ä€😀");
  peer.send_pickle(text(70'000, 'x'));
  bytes all(512);
  for (std::size_t i = 0; i < all.size(); ++i) all[i] = static_cast<std::byte>(i);
  peer.send_pickle(all);
  peer.send_pickle(std::vector<long>{1, 2, 3});
  peer.send_pickle(std::tuple(1, "two", 3.0, nullptr, true));
  peer.send_pickle(std::map<text, std::vector<int>>{{"a", {1}}, {"b", {}}});
  peer.send_pickle(std::set<int>{1, 2, 3});
  peer.send_pickle(std::vector<int>{});
  peer.send_pickle(std::map<int, int>{});
  peer.send_pickle(std::set<int>{});
  peer.send_pickle(std::tuple<>());

  using nested =
      std::tuple<std::map<text, std::vector<long>>,
                 std::tuple<double, text, bytes, std::optional<int>>, text, std::uint64_t, long>;
  const nested expected({{"a", {1, 1L << 40}}, {"b", {}}}, {1.5, "text", raw("bytes"), {}}, "text",
                        ~std::uint64_t{0}, std::numeric_limits<long>::min());
  for (int protocol = 3; protocol <= 5; ++protocol) CHECK(peer.recv_pickle<nested>() == expected);
  using simple = std::tuple<std::map<text, std::vector<long>>, bool, text>;
  CHECK(peer.recv_pickle<simple>() == simple({{"a", {1}}}, true, "x"));
  CHECK(peer.recv_pickle<std::set<int>>() == std::set<int>{1, 2});
  CHECK(peer.recv_pickle<std::set<int>>() == std::set<int>{1});
  CHECK(peer.recv_pickle<bytes>() == raw("abc"));
  CHECK(peer.recv_pickle<std::vector<text>>() == std::vector<text>(1000, "same"));
  const auto numbers = peer.recv_pickle<std::vector<long>>();
  CHECK(numbers.size() == 100'000);
  CHECK(numbers.back() == 99'999);
  const auto map = peer.recv_pickle<std::unordered_map<int, text>>();
  CHECK(map.size() == 5000);
  CHECK(map.at(4999) == "4999");
  CHECK_THROWS_AS(peer.recv_pickle<long>(), DecodeError);
  CHECK_THROWS_AS(peer.recv_pickle<long>(), DecodeError);
  CHECK(peer.recv_pickle<long>() == 1);
  CHECK(python.exitcode() == 0);
}
