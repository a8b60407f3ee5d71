// SPDX-License-Identifier: MIT
// Level 4: channels.
/// @file
/// How an exception crosses from a worker to its parent: by the name of its type, its members as
/// far as they are known, and text for the rest.
#pragma once

#include <cxxabi.h>

#include <any>
#include <array>
#include <atomic>
#include <cstddef>
#include <exception>
#include <filesystem>
#include <functional>
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
#include <procpool/detail/concat.hpp>
#include <procpool/detail/exception_registry.hpp>
#include <procpool/detail/exception_text.hpp>
#include <procpool/detail/type_name.hpp>
#include <procpool/error.hpp>

namespace procpool::detail {

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

template <>
struct exception_parts<ProcessError> {
  static void encode(encoder& out, const ProcessError& error) {
    out.put(static_cast<bool>(error.code()));
    put_code(out, error.code());
    out.put(error.code() ? own_text(error.what(), error.code()) : std::string(error.what()));
  }
  static ProcessError decode(decoder& in) {
    const bool has_code = in.get<bool>();
    const std::error_code code = get_code(in);
    const std::string text = in.get<std::string>();
    return has_code ? ProcessError(text, code) : ProcessError(text);
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
    out.put(std::string(error.what()).substr(error.type_name().size() + 2));
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
      DecodeError, RemoteError, RemoteTraceback, WorkerDied, MemoryLimitError>;
}

/// The entry of a type by its mangled name, or null.
[[nodiscard]] inline const exception_entry* find_exception(std::string_view mangled) {
  const auto* node = registered_exceptions.load(std::memory_order_acquire);  // behind the pointer
  for (; node != nullptr; node = node->next) {
    if (mangled == node->entry.type->name()) return &node->entry;
  }
  for (const exception_entry& each : known_exceptions()) {
    if (mangled == each.type->name()) return &each;
  }
  return nullptr;
}

/// Encodes the exception being handled. @p where says in which worker and in running what it was
/// thrown. To be called inside a catch block.
inline void encode_current_exception(encoder& out, const std::string& where) {
  try {
    throw;
  } catch (const std::exception& error) {
    out.put(concat({where, exception_lines(error, "  ")}));
    const std::string key = exception_key(error);
    const exception_entry* known = find_exception(key);
    out.put(known != nullptr ? key : std::string());
    if (known != nullptr) return known->encode(out, error);
    out.put(demangle(key.c_str()));
    out.put(std::string(error.what()));
  } catch (...) {
    const std::type_info* type = abi::__cxa_current_exception_type();
    const std::string name = type != nullptr ? demangle(type->name()) : "unknown exception";
    out.put(concat({where, "  ", name, "\n"}));
    out.put(std::string());
    out.put(name);
    out.put(std::string("an exception that is no std::exception"));
  }
}

/// What encode_current_exception wrote, as an exception with its RemoteTraceback nested inside.
/// @throws DecodeError when the bytes are nothing of the kind.
inline std::exception_ptr decode_exception(std::span<const std::byte> message) {
  decoder in(message);
  const RemoteTraceback trace(in.get<std::string>());
  const std::string key = in.get<std::string>();
  if (!key.empty()) {
    const exception_entry* known = find_exception(key);
    if (known == nullptr) in.fail("an exception of a type that is not registered here");
    std::exception_ptr rebuilt = known->rebuild(in, trace);
    in.finish();
    return rebuilt;
  }
  std::string type = in.get<std::string>();
  const std::string text = in.get<std::string>();
  in.finish();
  return with_trace(RemoteError(std::move(type), text), trace);
}

}  // namespace procpool::detail
