// SPDX-License-Identifier: MIT
// Exceptions on their way from a worker: types, members and texts survive, or become RemoteError.
#include <catch2/catch_test_macros.hpp>

#include <any>
#include <exception>
#include <filesystem>
#include <functional>
#include <optional>
#include <stdexcept>
#include <string>
#include <system_error>
#include <variant>

#include <procpool/detail/codec/exception_transport.hpp>
#include <procpool/exception.hpp>
#include <procpool/procpool.hpp>

namespace {

using procpool::detail::byte_buffer;
using procpool::detail::decode_exception;
using procpool::detail::encode_current_exception;

// What a parent gets when a worker throws this.
template <class E>
std::exception_ptr carried(const E& error) {
  byte_buffer bytes;
  try {
    throw error;
  } catch (...) {
    procpool::encoder out(bytes);
    encode_current_exception(out, "in a worker, running f:\n");
  }
  return decode_exception(bytes.view());
}

// Catches what came as exactly an E (or what carries a trace inside an E) and returns a copy.
template <class E>
E caught(const std::exception_ptr& what) {
  try {
    std::rethrow_exception(what);
  } catch (const E& error) {
    return error;
  }
}

std::string trace_of(const std::exception_ptr& what) {
  try {
    std::rethrow_exception(what);
  } catch (const std::exception& error) {
    try {
      std::rethrow_if_nested(error);
    } catch (const procpool::RemoteTraceback& trace) {
      return trace.what();
    }
  }
  return "no trace";
}

template <class E>
void check_text(const E& error) {
  CAPTURE(error.what());
  CHECK(std::string(caught<E>(carried(error)).what()) == error.what());
}

struct registered_error : std::runtime_error {
  using std::runtime_error::runtime_error;
};
struct unknown_error : std::runtime_error {
  using std::runtime_error::runtime_error;
};

struct rich_error : std::exception {
  explicit rich_error(int code) : number(code) {}
  const char* what() const noexcept override { return "rich"; }
  int number;
};

struct c_text_error : std::runtime_error {
  c_text_error() : std::runtime_error("no text") {}
  explicit c_text_error(const char* text) : std::runtime_error(text) {}
};
struct named_error : std::exception {
  const char* what() const noexcept override { return "named"; }
};

}  // namespace

template <>
struct procpool::codec<rich_error> {
  static void encode(encoder& out, const rich_error& error) { out.put(error.number); }
  static rich_error decode(decoder& in) { return rich_error(in.get<int>()); }
};

namespace {

TEST_CASE("standard exceptions keep their type and text", "[exception]") {
  check_text(std::logic_error("a"));
  check_text(std::domain_error("b"));
  check_text(std::invalid_argument(""));
  check_text(std::length_error("d"));
  check_text(std::out_of_range("e"));
  check_text(std::runtime_error("f"));
  check_text(std::range_error("g"));
  check_text(std::overflow_error("h"));
  check_text(std::underflow_error("i"));
  check_text(std::bad_alloc());
  check_text(std::bad_cast());
  check_text(std::bad_function_call());
  check_text(std::bad_optional_access());
  check_text(std::bad_variant_access());
  check_text(std::bad_any_cast());
}

TEST_CASE("system errors keep code and category", "[exception]") {
  const std::system_error error(ENOENT, std::system_category(), "opening");
  const auto copy = caught<std::system_error>(carried(error));
  CHECK(copy.code() == error.code());
  CHECK(std::string(copy.what()) == error.what());
  const std::filesystem::filesystem_error file("cannot", "/a", "/b",
                                               std::make_error_code(std::errc::permission_denied));
  const auto other = caught<std::filesystem::filesystem_error>(carried(file));
  CHECK(other.path1() == "/a");
  CHECK(other.path2() == "/b");
  CHECK(other.code() == file.code());
}

TEST_CASE("procpool's own exceptions keep their members", "[exception]") {
  check_text(procpool::TimeoutError("late"));
  check_text(procpool::BrokenPool("why"));
  const auto died = caught<procpool::WorkerDied>(
      carried(procpool::WorkerDied("gone", {{.pid = 7, .exitcode = -9, .item = 3}})));
  CHECK(died.pid() == 7);
  CHECK(died.signal() == 9);
  CHECK(died.item() == 3U);
  const auto decode = caught<procpool::DecodeError>(carried(procpool::DecodeError("bad", 12)));
  CHECK(decode.offset() == 12);
  CHECK(std::string(decode.what()) == "bad at byte 12");
  const auto remote = caught<procpool::RemoteError>(carried(procpool::RemoteError("T", "text")));
  CHECK(remote.type_name() == "T");
  CHECK(std::string(remote.what()) == "T: text");
  const auto process = caught<procpool::ProcessError>(
      carried(procpool::ProcessError("fork", std::error_code(EAGAIN, std::generic_category()))));
  CHECK(process.code().value() == EAGAIN);
}

TEST_CASE("every exception has the worker's story nested inside", "[exception]") {
  const std::string trace = trace_of(carried(std::out_of_range("index 9")));
  CHECK(trace.find("in a worker, running f") != std::string::npos);
  CHECK(trace.find("std::out_of_range: index 9") != std::string::npos);
}

TEST_CASE("what was thrown with a nested exception keeps its type and tells of the cause",
          "[exception]") {
  byte_buffer bytes;
  try {
    try {
      throw std::invalid_argument("inner");
    } catch (...) {
      std::throw_with_nested(std::runtime_error("outer"));
    }
  } catch (...) {
    procpool::encoder out(bytes);
    encode_current_exception(out, "");
  }
  const auto what = decode_exception(bytes.view());
  CHECK(std::string(caught<std::runtime_error>(what).what()) == "outer");
  CHECK(trace_of(what).find("std::invalid_argument: inner") != std::string::npos);
}

namespace inner {
struct tag {};
template <class>
struct error_of : std::runtime_error {
  using runtime_error::runtime_error;
};
}  // namespace inner

#if defined(__GLIBCXX__)
TEST_CASE("an instance of a template keeps its type when thrown with a nested one", "[exception]") {
  using error = inner::error_of<inner::tag>;
  procpool::register_exception<error>();
  byte_buffer bytes;
  try {
    try {
      throw std::invalid_argument("inner");
    } catch (...) {
      std::throw_with_nested(error("outer"));
    }
  } catch (...) {
    procpool::encoder out(bytes);
    encode_current_exception(out, "");
  }
  CHECK(std::string(caught<error>(decode_exception(bytes.view())).what()) == "outer");
}
#endif

TEST_CASE("types that are not registered become RemoteError", "[exception]") {
  const auto error = caught<procpool::RemoteError>(carried(unknown_error("what")));
  CHECK(error.type_name().find("unknown_error") != std::string::npos);
  CHECK(std::string(error.what()).find("what") != std::string::npos);
  CHECK(caught<procpool::RemoteError>(carried(42)).type_name() == "int");
}

TEST_CASE("registered types keep their type, with a codec also their members", "[exception]") {
  procpool::register_exception<registered_error>();
  procpool::register_exception<rich_error>();
  check_text(registered_error("mine"));
  CHECK(caught<rich_error>(carried(rich_error(5))).number == 5);
}

TEST_CASE("registered types are made again from their text, if they have one", "[exception]") {
  procpool::register_exception<c_text_error>();
  procpool::register_exception<named_error>();
  check_text(c_text_error("disk full"));
  check_text(named_error());
}

TEST_CASE("bytes that are no exception are a DecodeError", "[exception]") {
  const std::byte rubbish[40]{std::byte{1}};
  CHECK_THROWS_AS(decode_exception(rubbish), procpool::DecodeError);
}

}  // namespace
