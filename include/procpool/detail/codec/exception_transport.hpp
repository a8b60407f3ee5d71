// SPDX-License-Identifier: MIT
/// @file
/// How an exception travels from a worker to its parent: as the name of its type and its members if
/// the type is known, else as text.
#pragma once

#include <any>
#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <filesystem>
#include <functional>
#include <limits>
#include <memory>
#include <new>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <typeinfo>
#include <utility>
#include <variant>
#include <vector>

#include <procpool/codec.hpp>
#include <procpool/codec/vocabulary.hpp>
#include <procpool/detail/base/concat.hpp>
#include <procpool/detail/base/try_catch.hpp>
#include <procpool/detail/base/type_name.hpp>
#include <procpool/detail/codec/exception_registry.hpp>
#include <procpool/detail/codec/exception_text.hpp>
#include <procpool/error.hpp>

namespace procpool::detail {

template <>
inline constexpr bool has_no_content<std::bad_variant_access> = true;  // one of a few texts

inline void put_code(encoder& out, const std::error_code& code) {
  out.put(code.value());
  out.put(code.category() == std::system_category());
}
/// Only the two categories of the operating system keep their identity; others become generic.
inline std::error_code get_code(decoder& in) {
  const int value = in.get<int>();
  return {value, in.get<bool>() ? std::system_category() : std::generic_category()};
}
/// The text that a system_error was made with: its what() ends with ": " and the code's message.
inline std::string own_text(std::string what, const std::error_code& code) {
  const std::string tail = concat({": ", code.message()});
  if (what.ends_with(tail)) what.resize(what.size() - tail.size());
  return what;
}

template <>
struct exception_parts<std::system_error> {
  static void encode(encoder& out, const std::system_error& error) {
    put_code(out, error.code());
    out.put(own_text(error.what(), error.code()));
  }
  static std::system_error decode(decoder& in) {
    const std::error_code code = get_code(in);
    return {code, in.get<std::string>()};
  }
};

template <>
struct exception_parts<std::filesystem::filesystem_error> {
  static void encode(encoder& out, const std::filesystem::filesystem_error& error) {
    put_code(out, error.code());
    out.put(error.path1().native());
    out.put(error.path2().native());
    out.put(std::string(error.std::system_error::what()));
  }
  static std::filesystem::filesystem_error decode(decoder& in) {
    const std::error_code code = get_code(in);
    const std::filesystem::path first = in.get<std::string>();
    const std::filesystem::path second = in.get<std::string>();
    return {own_text(in.get<std::string>(), code), first, second, code};
  }
};

template <class E>
struct process_error_parts {
  static void encode(encoder& out, const E& error) {
    out.put(static_cast<bool>(error.code()));
    put_code(out, error.code());
    out.put(error.code() ? own_text(error.what(), error.code()) : std::string(error.what()));
  }
  static E decode(decoder& in) {
    const bool has_code = in.get<bool>();
    const std::error_code code = get_code(in);
    const std::string text = in.get<std::string>();
    return has_code ? E(text, code) : E(text);
  }
};
template <>
struct exception_parts<ProcessError> : process_error_parts<ProcessError> {};
template <>
struct exception_parts<BrokenPipeError> : process_error_parts<BrokenPipeError> {};

template <>
struct exception_parts<BufferTooShort> {
  static void encode(encoder& out, const BufferTooShort& error) {
    out.put(std::string(error.what()));
    out.put(error.message());
  }
  static BufferTooShort decode(decoder& in) {
    const std::string text = in.get<std::string>();
    return {text, in.get<std::vector<std::byte>>()};
  }
};

template <>
struct exception_parts<DecodeError> {
  static void encode(encoder& out, const DecodeError& error) {
    const std::string tail = concat({" at byte ", error.offset()});
    std::string text = error.what();
    if (text.ends_with(tail)) text.resize(text.size() - tail.size());
    out.put(text);
    out.put(error.offset());
  }
  static DecodeError decode(decoder& in) {
    const std::string text = in.get<std::string>();
    return {text, in.get<std::size_t>()};
  }
};

template <>
struct exception_parts<RemoteError> {
  static void encode(encoder& out, const RemoteError& error) {
    out.put(error.type_name());
    const std::string text = error.what();  // shorter than the name if that contains a null
    const std::size_t head = error.type_name().size() + 2;
    out.put(text.size() > head ? text.substr(head) : std::string());
  }
  static RemoteError decode(decoder& in) {
    std::string type = in.get<std::string>();
    return {std::move(type), in.get<std::string>()};
  }
};

template <>
struct exception_parts<WorkerDied> {
  static void encode(encoder& out, const WorkerDied& error) {
    out.put(std::string(error.what()));
    out.put(error.attempts());
  }
  static WorkerDied decode(decoder& in) {
    const std::string text = in.get<std::string>();
    auto attempts = in.get<std::vector<worker_death>>();
    if (attempts.empty()) in.fail("a WorkerDied without any attempt");
    for (const worker_death& each : attempts) {
      if (each.exitcode < -std::numeric_limits<std::int8_t>::max()) in.fail("no exit code");
    }
    return {text, std::move(attempts)};
  }
};

template <class... E>
inline constexpr std::array<exception_entry, sizeof...(E)> exception_entries{
    exception_entry_of<E>()...};

/// The types that need no registration.
[[nodiscard]] inline std::span<const exception_entry> known_exceptions() noexcept {
  return exception_entries<
      std::exception, std::logic_error, std::domain_error, std::invalid_argument, std::length_error,
      std::out_of_range, std::runtime_error, std::range_error, std::overflow_error,
      std::underflow_error, std::system_error, std::filesystem::filesystem_error, std::bad_alloc,
      std::bad_array_new_length, std::bad_cast, std::bad_typeid, std::bad_exception,
      std::bad_function_call, std::bad_weak_ptr, std::bad_optional_access, std::bad_variant_access,
      std::bad_any_cast, Error, TimeoutError, CancelledError, BrokenPool, PoolClosed, ProcessError,
      EOFError, BrokenPipeError, BufferTooShort, AuthenticationError, BrokenBarrier, DecodeError,
      RemoteError, RemoteTraceback, WorkerDied, MemoryLimitError>;
}

/// The entry of a type by its mangled name, or null.
[[nodiscard]] inline const exception_entry* find_exception(std::string_view mangled) {
  const auto* node = registered_exceptions().load(std::memory_order_acquire);  // with its content
  for (; node != nullptr; node = node->next) {
    if (mangled == node->entry.type->name()) return &node->entry;
  }
  for (const exception_entry& each : known_exceptions()) {
    if (mangled == each.type->name()) return &each;
  }
  return nullptr;
}

/// The entry of an exception's type, or null.
[[nodiscard]] inline const exception_entry* find_exception(const std::exception& error) {
  if (const exception_entry* known = find_exception(exception_key(error))) return known;
  const auto* node = registered_exceptions().load(std::memory_order_acquire);  // as above
  for (; node != nullptr; node = node->next) {
    if (node->entry.nested != nullptr && *node->entry.nested == typeid(error)) return &node->entry;
  }
  return nullptr;
}

/// Encodes the members of an exception of a known type. May run the user's code.
/// @returns false: that code threw, and @p why says what
inline bool encode_parts(byte_buffer& parts, const exception_entry& known,
                         const std::exception& error, std::string& why) {
  bool done = false;
  try_catch(
      [&] {
        encoder out(parts);
        known.encode(out, error);
        done = true;
      },
      [&] { why = describe_current_exception(); });
  return done;
}

inline void encode_as_text(encoder& out, const std::string& type, const std::string& text) {
  out.put(std::string());
  out.put(type);
  out.put(text);
}

inline void encode_std_exception(encoder& out, const std::exception& error) {
  const exception_entry* known = find_exception(error);
  byte_buffer parts;  // separate: an encoding that fails leaves nothing in the message
  std::string why;
  if (known == nullptr) return encode_as_text(out, exception_type(error), what_of(error));
  if (!encode_parts(parts, *known, error, why)) {
    return encode_as_text(out, exception_type(error),
                          concat({what_of(error), " (encoding it failed: ", why, ")"}));
  }
  out.put(std::string(known->type->name()));
  out.align(byte_buffer::alignment);
  out.bytes(parts.data(), parts.size());
}

/// Encodes the exception being handled. To be called inside a catch block.
/// @param where in which worker, and by which callable, it was thrown
inline void encode_current_exception(encoder& out, const std::string& where) {
  out.put(concat({where, exception_lines("  ")}));
  try {
    throw;
  } catch (const std::exception& error) {
    encode_std_exception(out, error);
  } catch (...) {
    encode_as_text(out, current_exception_type(), "an exception that is no std::exception");
  }
}

/// A RemoteError in place of an exception of a known type that could not be rebuilt. To be called
/// while the reason is being handled.
/// @throws that reason, if the bytes are wrong or memory ran out
inline std::exception_ptr substitute_for(const exception_entry& known,
                                         const RemoteTraceback& trace) {
  try {
    throw;
  } catch (const DecodeError&) {
    throw;
  } catch (const std::bad_alloc&) {
    throw;
  } catch (...) {
    const std::string why = describe_current_exception();
    return with_trace(
        RemoteError(demangle(known.type->name()), concat({"it could not be rebuilt here: ", why})),
        trace);
  }
}

/// Rebuilds an exception of a known type. May run the user's code.
inline std::exception_ptr rebuild_exception(const exception_entry& known, decoder& in,
                                            const RemoteTraceback& trace) {
  std::exception_ptr rebuilt;
  try_catch([&] { rebuilt = known.rebuild(in, trace); },
            [&] { rebuilt = substitute_for(known, trace); });
  return rebuilt;
}

/// Decodes what encode_current_exception wrote. The exception has its RemoteTraceback nested in it.
/// @throws DecodeError when the bytes are invalid.
inline std::exception_ptr decode_exception(std::span<const std::byte> message) {
  decoder in(message);
  const RemoteTraceback trace(in.get<std::string>());
  const std::string key = in.get<std::string>();
  if (!key.empty()) {
    const exception_entry* known = find_exception(key);
    if (known == nullptr) in.fail("an exception of a type that is not registered here");
    in.align(byte_buffer::alignment);
    std::exception_ptr rebuilt = rebuild_exception(*known, in, trace);
    in.finish();
    return rebuilt;
  }
  std::string type = in.get<std::string>();
  const std::string text = in.get<std::string>();
  in.finish();
  return with_trace(RemoteError(std::move(type), text), trace);
}

}  // namespace procpool::detail
