// SPDX-License-Identifier: MIT
/// @file
/// Compiler messages that say in one sentence why a type cannot be sent and what to do about it.
/// Nothing here is instantiated for types that can be sent.
#pragma once

#include <procpool/detail/base/type_name.hpp>
#include <procpool/detail/codec/encodable.hpp>

#include <string_view>
#include <type_traits>

namespace procpool::detail {

enum class obstacle {
  reference,
  text_pointer,
  function_pointer,
  pointer,
  array,
  incomplete,
  bad_codec,
  closure,
  std_shared,
  std_unique,
  std_hidden,
  std_process,
  std_stream,
  of_procpool,
  std_error,
  std_span,
  aligned_span,
  std_list,
  std_associative,
  std_vocabulary,
  std_chrono,
  std_complex,
  std_path,
  polymorphic,
  is_union,
  has_base,
  has_array,
  has_constant,
  has_too_many,
  has_bit_field,
  has_union,
  opaque
};

template <class T>
consteval bool is_aligned_span() {
  if constexpr (requires { alignof(typename T::element_type); }) {
    return std::is_const_v<typename T::element_type> && alignof(typename T::element_type) > 16;
  }
  return false;
}

/// Recognizes classes of the standard library and of procpool by their names, so that their headers
/// need not be included.
template <class T>
consteval obstacle obstacle_of_std_class() {
  constexpr std::string_view name = spelled_name<T>();
  if (is_std_name(name, "shared_ptr<", "weak_ptr<")) return obstacle::std_shared;
  if (is_std_name(name, "unique_ptr<")) return obstacle::std_unique;
  if (is_std_name(name, "reference_wrapper<")) return obstacle::reference;
  if (is_std_name(name, "function<", "move_only_function<", "any", "_Bind"))
    return obstacle::std_hidden;
  if (is_std_name(name, "thread", "jthread", "mutex", "timed_mutex", "recursive_", "shared_mutex",
                  "shared_timed_mutex", "condition_variable", "atomic", "future<", "promise<",
                  "shared_future<", "packaged_task<", "unique_lock<", "shared_lock<", "lock_guard<",
                  "scoped_lock<", "counting_semaphore<", "latch", "barrier<", "once_flag", "stop_"))
    return obstacle::std_process;
  if (is_std_name(name, "basic_ostream<", "basic_istream<", "basic_iostream<", "basic_ofstream<",
                  "basic_ifstream<", "basic_fstream<", "basic_ostringstream<",
                  "basic_istringstream<", "basic_stringstream<", "basic_filebuf<",
                  "basic_stringbuf<", "basic_streambuf<"))
    return obstacle::std_stream;
  if (name.starts_with("procpool::")) {
    for (const std::string_view own : {"Pool<", "AsyncResult<", "Process", "ImapIterator<",
                                       "worker_local<", "Initializer", "WorkerContext"}) {
      if (name.substr(std::string_view("procpool::").size()).starts_with(own))
        return obstacle::of_procpool;
    }
  }
  if (is_std_name(name, "error_code", "error_condition", "exception_ptr", "__exception_ptr::"))
    return obstacle::std_error;
  if (is_std_name(name, "span<")) {
    return is_aligned_span<T>() ? obstacle::aligned_span : obstacle::std_span;
  }
  if (is_std_name(name, "deque<", "list<", "forward_list<")) return obstacle::std_list;
  if (is_std_name(name, "map<", "set<", "multimap<", "multiset<", "unordered_"))
    return obstacle::std_associative;
  if (is_std_name(name, "pair<", "tuple<", "optional<", "variant<", "monostate", "bitset<"))
    return obstacle::std_vocabulary;
  if (is_std_name(name, "chrono::")) return obstacle::std_chrono;
  if (is_std_name(name, "complex<")) return obstacle::std_complex;
  if (is_std_name(name, "filesystem::")) return obstacle::std_path;
  return obstacle::opaque;
}

template <class T>
consteval bool is_closure() {
  constexpr std::string_view name = spelled_name<T>();
  return name.find("<lambda(") != std::string_view::npos ||
         name.find("(lambda at ") != std::string_view::npos;
}

template <class T>
consteval obstacle obstacle_of_class() {
  constexpr shape form = shape_of<T>();
  if constexpr (form == shape::is_union) return obstacle::is_union;
  if constexpr (form == shape::has_base) return obstacle::has_base;
  if constexpr (form == shape::has_array) return obstacle::has_array;
  if constexpr (form == shape::has_constant) return obstacle::has_constant;
  if constexpr (form == shape::has_too_many) return obstacle::has_too_many;
  if constexpr (form == shape::has_bit_field) return obstacle::has_bit_field;
  if constexpr (form == shape::has_union) return obstacle::has_union;
  if constexpr (std::is_polymorphic_v<T>) return obstacle::polymorphic;
  return is_closure<T>() ? obstacle::closure : obstacle::opaque;
}

template <class T>
inline constexpr bool is_character_v =
    std::is_same_v<T, char> || std::is_same_v<T, wchar_t> || std::is_same_v<T, char8_t> ||
    std::is_same_v<T, char16_t> || std::is_same_v<T, char32_t>;

template <class T>
consteval obstacle obstacle_of() {
  using target = std::remove_cv_t<std::remove_pointer_t<T>>;
  if constexpr (std::is_reference_v<T>) {
    return obstacle::reference;
  } else if constexpr (std::is_function_v<target>) {
    return obstacle::function_pointer;
  } else if constexpr (std::is_pointer_v<T>) {
    return is_character_v<target> ? obstacle::text_pointer : obstacle::pointer;
  } else if constexpr (std::is_member_pointer_v<T> || std::is_null_pointer_v<T>) {
    return obstacle::pointer;
  } else if constexpr (std::is_array_v<T>) {
    return obstacle::array;
  } else if constexpr (!complete<T>) {
    return obstacle::incomplete;
  } else if constexpr (complete<codec<T>>) {
    return obstacle::bad_codec;
  } else if constexpr (obstacle_of_std_class<T>() != obstacle::opaque) {
    return obstacle_of_std_class<T>();
  } else {
    return obstacle_of_class<T>();
  }
}

template <class Bad, obstacle why>
constexpr void explain_type() {
  static_assert(why != obstacle::reference,
                "procpool: a reference cannot be sent to another process; send the value.");
  static_assert(why != obstacle::text_pointer,
                "procpool: a pointer to characters cannot be sent to another process; use "
                "std::string, or std::string_view as a parameter.");
  static_assert(why != obstacle::function_pointer,
                "procpool: a function pointer cannot be part of what is sent; run the function as "
                "the task, or send an enum that selects it.");
  static_assert(why != obstacle::pointer,
                "procpool: a raw pointer cannot be sent to another process, where its address "
                "means nothing; send the value, a std::unique_ptr or a std::vector.");
  static_assert(why != obstacle::array, "procpool: a C array cannot be sent; use std::array.");
  static_assert(why != obstacle::incomplete,
                "procpool: this type is only declared here; define it before it is sent.");
  static_assert(why != obstacle::bad_codec,
                "procpool: this procpool::codec<T> lacks static void encode(procpool::encoder&, "
                "const T&) or static T decode(procpool::decoder&).");
}

template <class Bad, obstacle why>
constexpr void explain_std_class() {
  static_assert(why != obstacle::std_shared,
                "procpool: std::shared_ptr and std::weak_ptr cannot be sent, because processes "
                "share no objects; send the value or a std::unique_ptr.");
  static_assert(why != obstacle::std_unique,
                "procpool: a std::unique_ptr can be sent with the default deleter, to one object "
                "without virtual functions; include <procpool/codec/vocabulary.hpp>.");
  static_assert(why != obstacle::std_hidden,
                "procpool: std::function, std::any and std::bind hide what they hold; send a "
                "struct with operator(), or a std::variant.");
  static_assert(why != obstacle::std_process,
                "procpool: threads, locks, atomics and futures belong to one process and cannot "
                "be sent; send plain values.");
  static_assert(why != obstacle::std_stream,
                "procpool: a stream belongs to one process and cannot be sent; send the name of "
                "the file, or the text.");
  static_assert(why != obstacle::of_procpool,
                "procpool: pools, processes and results belong to the process that made them and "
                "cannot be sent; send what get() returns, or make a pool in the task.");
  static_assert(why != obstacle::aligned_span,
                "procpool: a std::span is received as a view of the message, where nothing is "
                "aligned to more than 16 bytes; use std::vector, whose elements are copied.");
  static_assert(why != obstacle::std_error,
                "procpool: error codes and exception pointers refer to objects of this process; "
                "send a number and a text, or throw.");
  static_assert(why != obstacle::std_span,
                "procpool: a std::span is received as a view of the message, so its elements must "
                "be const and flat, as in std::span<const double>; else use std::vector.");
  static_assert(why != obstacle::std_list,
                "procpool: include <procpool/codec/list.hpp> to send this list.");
  static_assert(why != obstacle::std_associative,
                "procpool: include <procpool/codec/associative.hpp> to send this container; its "
                "comparator or hash function must have no state.");
  static_assert(why != obstacle::std_vocabulary,
                "procpool: include <procpool/codec/vocabulary.hpp> to send this type.");
  static_assert(why != obstacle::std_chrono,
                "procpool: include <procpool/codec/chrono.hpp> to send durations and time points; "
                "calendar types have no codec.");
  static_assert(why != obstacle::std_complex,
                "procpool: include <procpool/codec/complex.hpp> to send complex numbers.");
  static_assert(why != obstacle::std_path,
                "procpool: include <procpool/codec/path.hpp> to send a std::filesystem::path; "
                "other types of that library have no codec.");
}

template <class Bad, obstacle why>
constexpr void explain_class() {
  static_assert(why != obstacle::closure,
                "procpool: the captures of this lambda cannot be read; write a struct with public "
                "members and operator().");
  static_assert(why != obstacle::polymorphic,
                "procpool: a class with virtual functions cannot be sent; send its data as a plain "
                "struct, or specialize procpool::codec for it.");
  static_assert(why != obstacle::is_union,
                "procpool: a union cannot be sent, because its active member is not known; use "
                "std::variant, or specialize procpool::codec for it.");
  static_assert(why != obstacle::has_base,
                "procpool: a struct with a base class cannot be sent member by member; make the "
                "base a member, or specialize procpool::codec for it.");
  static_assert(why != obstacle::has_array,
                "procpool: a struct with a C array as member cannot be sent member by member; make "
                "the member a std::array, or specialize procpool::codec for it.");
  static_assert(why != obstacle::has_constant,
                "procpool: a struct with a const or reference member cannot be sent member by "
                "member; make it a plain member, or specialize procpool::codec for it.");
  static_assert(why != obstacle::has_too_many,
                "procpool: a struct of more than 100 members cannot be sent member by member; "
                "group them in structs, or specialize procpool::codec for it.");
  static_assert(
      why != obstacle::has_bit_field,
      "procpool: a struct that is packed or has bit-fields cannot be sent member by member, "
      "because no reference can be bound to the members; make them plain members, or specialize "
      "procpool::codec for it.");
  static_assert(why != obstacle::has_union,
                "procpool: a struct with an anonymous union cannot be sent member by member, "
                "because the union's active member is not known; make it a std::variant, or "
                "specialize procpool::codec for it.");
  static_assert(why != obstacle::opaque,
                "procpool: this class has constructors or non-public members and no codec; make it "
                "a plain struct, or specialize procpool::codec for it.");
}

/// Never compiles: `Bad`, a part of `Whole`, has no codec. The compiler's notes name both.
template <class Bad, class Whole = Bad>
constexpr void explain() {
  constexpr obstacle why = obstacle_of<Bad>();
  explain_type<Bad, why>();
  explain_std_class<Bad, why>();
  explain_class<Bad, why>();
}

/// Whether objects of type T are of use only in the process that made them, however they are
/// passed.
template <class T>
consteval bool is_process_bound() {
  if constexpr (std::is_class_v<T> && complete<T>) {
    if constexpr (!has_codec<T>) {
      constexpr obstacle why = obstacle_of<T>();
      return why == obstacle::std_process || why == obstacle::std_stream ||
             why == obstacle::of_procpool;
    }
  }
  return false;
}

}  // namespace procpool::detail
