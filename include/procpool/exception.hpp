// SPDX-License-Identifier: MIT
/// @file
/// register_exception(): exceptions of your own that keep their type on the way from a worker.
#pragma once

#include <procpool/config.hpp>  // first, for its errors

#include <procpool/detail/codec/exception_registry.hpp>

namespace procpool {

/// Registers an exception type: when a task throws an exception of exactly type @p E, the parent
/// throws an E with a RemoteTraceback nested inside. An unregistered type arrives as RemoteError.
/// Call it before the pool is made, for example in main. Thread-safe.
///
/// An E that is encodable arrives with all its members. Otherwise it is rebuilt as `E(what())`:
/// members besides the text are lost (a compile error if E derives from std::runtime_error or
/// std::logic_error), and a constructor that adds to its text adds twice. An E without members that
/// cannot be made from a text is rebuilt as `E()`.
///
/// @tparam E derived from std::exception, not final, and either encodable (has a codec), or
/// constructible from a std::string or const char*, or default constructible and without members.
/// The exceptions of the standard library and of procpool are already registered.
/// @throws std::bad_alloc
///
/// Python: not needed, because exceptions are pickled.
template <class E>
void register_exception() {
  detail::add_exception<E>();
}

}  // namespace procpool
