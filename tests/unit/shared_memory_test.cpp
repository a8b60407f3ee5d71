// SPDX-License-Identifier: MIT
// Memory with a name and lists in it: errors, copies, hostile contents, and Python at the other
// end.
#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <random>
#include <stdexcept>
#include <string>
#include <system_error>
#include <utility>
#include <variant>
#include <vector>

#include <procpool/procpool.hpp>

#include "support/child.hpp"
#include "support/named_memory.hpp"

namespace {

using Catch::Matchers::ContainsSubstring;
using procpool::ShareableList;
using procpool::SharedMemory;
using support::captured;
using support::memory_exists;
using support::memory_name;
using support::run_python;

/// The number and the text of the error that making @p options gives.
std::pair<std::errc, std::string> error_of(const procpool::shared_memory_options& options) {
  try {
    SharedMemory memory(options);
    memory.unlink();
    return {};
  } catch (const procpool::ProcessError& error) {
    return {static_cast<std::errc>(error.code().value()), error.what()};
  }
}

std::string text_at(const SharedMemory& memory, std::size_t length) {
  return {reinterpret_cast<const char*>(memory.buf().data()), length};
}

void write_text(const SharedMemory& memory, const std::string& text) {
  std::memcpy(memory.buf().data(), text.data(), text.size());
}

/// Removes the name at the end of a test.
struct unlinked {
  std::string name;
  ~unlinked() { unlink(("/dev/shm/" + name).c_str()); }
};

std::vector<std::byte> bytes_of(const std::string& text) {
  const auto* begin = reinterpret_cast<const std::byte*>(text.data());
  return {begin, begin + text.size()};
}

}  // namespace

TEST_CASE("named memory is a file of its size that only the user may open", "[shared_memory]") {
  support::need_named_memory();
  SharedMemory memory{{.name = memory_name("file"), .create = true, .size = 12345}};
  const unlinked guard{memory.name()};
  struct stat about {};
  REQUIRE(stat(("/dev/shm/" + memory.name()).c_str(), &about) == 0);
  CHECK(about.st_size == 12345);
  CHECK((about.st_mode & 0777U) == 0600);
  CHECK(about.st_blocks * 512 >= 12345);  // its pages are there
  CHECK(memory.size() == 12345);
  CHECK(std::ranges::all_of(memory.buf(), [](std::byte b) { return b == std::byte{0}; }));
}

TEST_CASE("copies of a handle share one mapping until the last is closed", "[shared_memory]") {
  support::need_named_memory();
  SharedMemory memory{{.name = memory_name("copies"), .create = true, .size = 64}};
  const unlinked guard{memory.name()};
  SharedMemory copy = memory;
  CHECK(copy.buf().data() == memory.buf().data());
  memory.close();
  memory.close();
  CHECK(memory.buf().empty());
  CHECK(memory.size() == 0);
  CHECK(memory.name() == copy.name());
  write_text(copy, "still here");
  memory = SharedMemory{{.name = copy.name()}};
  CHECK(text_at(memory, 10) == "still here");
}

TEST_CASE("a memory lives without its name as long as somebody maps it", "[shared_memory]") {
  support::need_named_memory();
  SharedMemory memory{{.name = memory_name("nameless"), .create = true, .size = 64}};
  memory.unlink();
  CHECK_FALSE(memory_exists(memory.name()));
  write_text(memory, "alive");
  CHECK(text_at(memory, 5) == "alive");
  CHECK(error_of({.name = memory.name()}).first == std::errc::no_such_file_or_directory);
}

TEST_CASE("wrong names and sizes are invalid arguments that say why", "[shared_memory]") {
  const auto message = [](const procpool::shared_memory_options& options) -> std::string {
    try {
      const SharedMemory memory(options);
    } catch (const std::invalid_argument& error) {
      return error.what();
    }
    return "no error";
  };
  CHECK_THAT(message({.name = "a/b", .create = true, .size = 1}), ContainsSubstring("a slash"));
  CHECK_THAT(message({.name = "//a", .create = true, .size = 1}), ContainsSubstring("a slash"));
  CHECK_THAT(message({.name = std::string("a\0b", 3)}), ContainsSubstring("NUL"));
  CHECK_THAT(message({.name = std::string(256, 'x')}), ContainsSubstring("too long"));
  CHECK_THAT(message({.name = ".."}), ContainsSubstring("folder"));
  CHECK_THAT(message({.name = "/"}), ContainsSubstring("empty"));
  CHECK_THAT(message({}), ContainsSubstring("empty"));
  CHECK_THAT(message({.create = true}), ContainsSubstring("must be positive, not 0"));
  CHECK_THAT(message({.create = true, .size = -5}), ContainsSubstring("must be positive, not -5"));
  CHECK_THROWS_AS(SharedMemory({.create = true, .size = ~std::size_t{0}}), std::invalid_argument);
}

TEST_CASE("a name of 255 characters and one with a slash in front are fine", "[shared_memory]") {
  support::need_named_memory();
  std::string name = memory_name("");
  name.resize(255, 'x');
  const SharedMemory memory{{.name = "/" + name, .create = true, .size = 1}};
  const unlinked guard{name};
  CHECK(memory.name() == name);
  CHECK(memory_exists(name));
}

TEST_CASE("errors of the system say what happened to which name", "[shared_memory]") {
  support::need_named_memory();
  const std::string name = memory_name("errors");
  CHECK(error_of({.name = name}).first == std::errc::no_such_file_or_directory);
  CHECK_THAT(error_of({.name = name}).second, ContainsSubstring('"' + name + '"'));
  const SharedMemory memory{{.name = name, .create = true, .size = 1}};
  const unlinked guard{name};
  CHECK(error_of({.name = name, .create = true, .size = 1}).first == std::errc::file_exists);
  CHECK(memory.size() == 1);

  const std::string path = "/dev/shm/" + name;
  REQUIRE(truncate(path.c_str(), 0) == 0);
  CHECK_THAT(error_of({.name = name}).second, ContainsSubstring("0 bytes"));
  REQUIRE(unlink(path.c_str()) == 0);
  REQUIRE(mkfifo(path.c_str(), 0600) == 0);
  CHECK_THAT(error_of({.name = name}).second, ContainsSubstring("no regular file"));
  REQUIRE(unlink(path.c_str()) == 0);
  REQUIRE(symlink("/etc/passwd", path.c_str()) == 0);
  CHECK(error_of({.name = name}).first == std::errc::too_many_symbolic_link_levels);
}

TEST_CASE("too large is an error when the memory is made, with the room that there is",
          "[shared_memory]") {
  support::need_named_memory();
  const std::string name = memory_name("large");
  const auto [code, text] =
      error_of({.name = name, .create = true, .size = std::int64_t{1} << 60U});
  CHECK(code == std::errc::no_space_on_device);
  CHECK_THAT(text, ContainsSubstring("bytes are free in /dev/shm"));
  CHECK_FALSE(memory_exists(name));
}

TEST_CASE("a full /dev/shm is an error when the memory is made", "[shared_memory]") {
  support::need_named_memory();
  CHECK(support::run_with_own_tmpfs("/dev/shm", "size=1m", [] {
          const SharedMemory most{{.name = "most", .create = true, .size = 1000 << 10}};
          const auto [code, text] = error_of({.name = "more", .create = true, .size = 1000 << 10});
          CHILD_REQUIRE(code == std::errc::no_space_on_device);
          CHILD_REQUIRE(text.find("24576 bytes are free") != std::string::npos);
          CHILD_REQUIRE(!memory_exists("more"));
          CHILD_REQUIRE(error_of({.name = "rest", .create = true, .size = 24576}).second.empty());
          return 0;
        }) == 0);
}

TEST_CASE("without /dev/shm the error says so", "[shared_memory]") {
  CHECK(support::run_with_own_tmpfs("/dev", "", [] {
          for (const bool create : {true, false}) {
            const auto [code, text] = error_of({.name = "any", .create = create, .size = 1});
            CHILD_REQUIRE(code == std::errc::no_such_file_or_directory);
            CHILD_REQUIRE(text.find("/dev/shm does not exist") != std::string::npos);
          }
          return 0;
        }) == 0);
}

TEST_CASE("the limit on the size of files is an error and no signal", "[shared_memory]") {
  support::need_named_memory();
  const std::string name = memory_name("limit");
  CHECK(support::run_child([&] {
          const rlimit limit{4096, 4096};
          CHILD_REQUIRE(setrlimit(RLIMIT_FSIZE, &limit) == 0);
          CHILD_REQUIRE(error_of({.name = name, .create = true, .size = 1 << 20}).first ==
                        std::errc::file_too_large);
          CHILD_REQUIRE(!memory_exists(name));
          return 0;
        }) == 0);
}

TEST_CASE("a forked child has the mapping, and leaves the name", "[shared_memory]") {
  support::need_named_memory();
  SharedMemory memory{{.name = memory_name("forked"), .create = true, .size = 64}};
  const unlinked guard{memory.name()};
  CHECK(support::run_child([&] {
          write_text(memory, "from the child");
          return 0;
        }) == 0);
  CHECK(text_at(memory, 14) == "from the child");
  CHECK(memory_exists(memory.name()));
}

TEST_CASE("a received name that cannot be one is a DecodeError", "[shared_memory]") {
  procpool::detail::byte_buffer buffer;
  procpool::encoder out(buffer);
  out.put(std::string("../../etc/passwd"));
  procpool::decoder in({buffer.data(), buffer.size()});
  CHECK_THROWS_AS(in.get<SharedMemory>(), procpool::DecodeError);
}

TEST_CASE("Python opens our memory and we open Python's", "[shared_memory][python]") {
  support::need_named_memory();
  SharedMemory ours{{.name = memory_name("python"), .create = true, .size = 100}};
  const unlinked guard{ours.name()};
  write_text(ours, "hello Python");
  const captured reader = run_python(
      "m = attached(SharedMemory(name=sys.argv[1]))\n"
      "print(m.name, m.size, bytes(m.buf[:12]))\n"
      "m.buf[:9] = b'hello C++'\n"
      "m.close()\n",
      {ours.name()});
  CHECK(reader.err.empty());
  CHECK(reader.out == ours.name() + " 100 b'hello Python'\n");
  CHECK(text_at(ours, 9) == "hello C++");

  const captured maker = run_python(
      "m = attached(SharedMemory(create=True, size=4097))\n"
      "m.buf[:4] = b'snake'[:4]\n"
      "print(m.name, end='')\n");
  CHECK(maker.err.empty());
  REQUIRE(maker.out.starts_with("psm_"));
  SharedMemory theirs{{.name = maker.out}};
  CHECK(theirs.size() == 4097);
  CHECK(text_at(theirs, 4) == "snak");
  theirs.unlink();
  CHECK_FALSE(memory_exists(maker.out));
}

TEST_CASE("Python reads and writes our list", "[shared_memory][python]") {
  support::need_named_memory();
  ShareableList list{
      {1L, -2.5, true, false, nullptr, "text", std::string(8, 'x'), "grün", bytes_of("bytes"), ""},
      {.name = memory_name("list")}};
  const unlinked guard{list.shm().name()};
  const captured python = run_python(
      "l = ShareableList(name=sys.argv[1])\n"
      "attached(l.shm)\n"
      "print(list(l), l.format, len(l))\n"
      "l[0] = 2**40; l[1] = None; l[2] = 2.25; l[4] = 'short'; l[5] = b'raw'; l[6] = 'y' * 15\n"
      "l[8] = 7\n"
      "try: l[5] = 'too long for it'\n"
      "except ValueError as e: print(e)\n",
      {list.shm().name()});
  CHECK(python.err.empty());
  CHECK(python.out ==
        "[1, -2.5, True, False, None, 'text', 'xxxxxxxx', 'grün', b'bytes', ''] "
        "qdxxxxxxx?xxxxxxx?xxxxxx?x8s16s8s8s8s 10\nbytes/str item exceeds available storage\n");
  CHECK(list.get<long>(0) == 1L << 40U);
  CHECK(list[1] == procpool::shareable_value(nullptr));
  CHECK(list.get<double>(2) == 2.25);
  CHECK(list.get<std::string>(4) == "short");
  CHECK(list.get<std::vector<std::byte>>(5) == bytes_of("raw"));
  CHECK(list.get<std::string>(6) == std::string(15, 'y'));
  CHECK(list.get<int>(8) == 7);
}

TEST_CASE("we read and write Python's list, byte for byte as Python does",
          "[shared_memory][python]") {
  support::need_named_memory();
  const captured maker = run_python(
      "l = ShareableList(['howdy', b'HoWdY', -273.154, 100, None, True, 42, 'x' * 20])\n"
      "attached(l.shm)\n"
      "print(l.shm.name, end='')\n");
  CHECK(maker.err.empty());
  ShareableList theirs{{.name = maker.out}};
  const unlinked guard{maker.out};
  const std::vector<procpool::shareable_value> expected{
      "howdy", bytes_of("HoWdY"), -273.154, 100L, nullptr, true, 42L, std::string(20, 'x')};
  CHECK(std::vector<procpool::shareable_value>(theirs.begin(), theirs.end()) == expected);

  // The same list made here has the same bytes.
  const ShareableList same(expected, {.name = memory_name("same")});
  const unlinked guard_of_same{same.shm().name()};
  REQUIRE(same.shm().size() == theirs.shm().size());
  CHECK(std::ranges::equal(same.shm().buf(), theirs.shm().buf()));

  theirs.set(0, 5L);
  theirs.set(1, std::string("texts"));
  theirs.set(2, nullptr);
  theirs.set(3, false);
  theirs.set(4, std::string("tiny"));
  theirs.set(7, bytes_of("raw"));
  const captured python = run_python(
      "l = ShareableList(name=sys.argv[1])\n"
      "attached(l.shm)\n"
      "print(list(l), l.format)\n",
      {maker.out});
  CHECK(python.err.empty());
  CHECK(python.out ==
        "[5, 'texts', None, False, 'tiny', True, 42, b'raw'] "
        "q8sxxxxxx?xxxxxxxx?8sxxxxxxx?q24s\n");
}

TEST_CASE("a list finds, counts and checks its items", "[shared_memory]") {
  support::need_named_memory();
  ShareableList list{{300L, "a", 300L, 1.5, true}, {.name = memory_name("items")}};
  const unlinked guard{list.shm().name()};
  CHECK(list.size() == 5);
  CHECK_FALSE(list.empty());
  CHECK(list.count(300L) == 2);
  CHECK(list.count("b") == 0);
  CHECK(list.index("a") == 1);
  CHECK_THROWS_AS(list.index(7L), std::invalid_argument);
  CHECK_THROWS_AS(list.get<std::int8_t>(0), std::out_of_range);
  CHECK_THROWS_AS(list.get<long>(1), std::invalid_argument);
  CHECK_THROWS_AS(list.get<long>(4), std::invalid_argument);
  CHECK_THROWS_AS(list[5], std::out_of_range);
  CHECK_THROWS_AS(list.set(5, 1L), std::out_of_range);
  CHECK_THROWS_AS(list[~std::size_t{0}], std::out_of_range);
  CHECK(list.get<float>(3) == 1.5F);
  CHECK_THROWS_AS(list.set(1, std::string("nine char")), std::invalid_argument);
  CHECK(list.get<std::string>(1) == "a");
  list.set(1, std::string("8 chars!"));
  CHECK(list.get<std::string>(1) == "8 chars!");
  ShareableList second{{.name = list.shm().name()}};
  second.set(0, std::numeric_limits<long>::min());
  CHECK(list.get<long>(0) == std::numeric_limits<long>::min());
  second.shm().close();
  CHECK_THROWS_AS(second[0], std::logic_error);
  CHECK(list.get<bool>(4));
}

TEST_CASE("an empty list and one with a long text", "[shared_memory]") {
  support::need_named_memory();
  const ShareableList none(std::vector<procpool::shareable_value>{}, {.name = memory_name("none")});
  const unlinked guard{none.shm().name()};
  CHECK(none.empty());
  CHECK(none.shm().size() == 16);
  const ShareableList again{{.name = none.shm().name()}};
  CHECK(again.begin() == again.end());

  const std::string text(9'999'991, 'x');
  const ShareableList one{{text}, {.name = memory_name("one")}};
  const unlinked guard_of_one{one.shm().name()};
  CHECK(one.get<std::string>(0) == text);
  CHECK(one.format() == "9999992s");
  CHECK_THROWS_AS((ShareableList{{std::string(9'999'992, 'x')}, {.name = memory_name("two")}}),
                  std::invalid_argument);
  CHECK_FALSE(memory_exists(memory_name("two")));
}

TEST_CASE("whatever a list's memory holds, reading it gives values or errors", "[shared_memory]") {
  support::need_named_memory();
  const std::vector<procpool::shareable_value> values{
      1L, 2.5, true, nullptr, "some text here", bytes_of("raw")};
  ShareableList list(values, {.name = memory_name("hostile")});
  const unlinked guard{list.shm().name()};
  const auto memory = list.shm().buf();
  const std::vector<std::byte> before(memory.begin(), memory.end());
  std::mt19937_64 random(4711);  // NOLINT(cert-msc51-cpp): the same each time
  int opened = 0;
  int refused = 0;
  const auto look = [&](ShareableList& seen) {
    for (std::size_t i = 0; i < seen.size(); ++i) {
      try {
        static_cast<void>(seen[i]);
        seen.set(i, random() % 2 == 0 ? procpool::shareable_value(std::string("x")) : values[i]);
        ++opened;
      } catch (const procpool::DecodeError&) {
        ++refused;
      } catch (const std::invalid_argument&) {  // a place too small for it
        ++refused;
      }
    }
  };
  constexpr std::array<std::int64_t, 8> nasty{-1,
                                              0,
                                              1,
                                              7,
                                              17,
                                              1L << 40U,
                                              std::numeric_limits<std::int64_t>::max(),
                                              std::numeric_limits<std::int64_t>::min()};
  for (int round = 0; round < 20'000; ++round) {
    std::ranges::copy(before, memory.begin());
    for (int changes = 0; changes < 3; ++changes) {
      if (random() % 2 == 0) {
        memory[random() % memory.size()] = static_cast<std::byte>(random());
      } else {
        const std::int64_t number = nasty[random() % nasty.size()];
        std::memcpy(memory.data() + random() % (memory.size() - 7), &number, sizeof number);
      }
    }
    look(list);  // opened before
    try {
      ShareableList fresh{{.name = list.shm().name()}};
      look(fresh);
    } catch (const procpool::DecodeError&) {
      ++refused;
    }
  }
  CHECK(opened > 1000);
  CHECK(refused > 1000);
}

TEST_CASE("memory that is too small for a list is a DecodeError", "[shared_memory]") {
  support::need_named_memory();
  for (const int size : {1, 8, 15, 16, 32, 33, 4096}) {
    const SharedMemory memory{{.name = memory_name("small"), .create = true, .size = size}};
    const unlinked guard{memory.name()};
    const std::int64_t count = size < 16 ? 0 : (size - 16) / 17 + 1;
    std::memcpy(memory.buf().data(), &count, std::min<std::size_t>(memory.size(), sizeof count));
    CHECK_THROWS_AS(ShareableList(memory), procpool::DecodeError);
  }
}
