// SPDX-License-Identifier: MIT
/// @file
/// Exceptions of your own that keep their type on the way from a worker.
#pragma once

#include <procpool/config.hpp>  // first, for its errors

#include <procpool/detail/codec/exception_registry.hpp>

namespace procpool {

/// From now on an exception of exactly type @p E that a task throws is thrown as an E in the
/// parent, with a RemoteTraceback nested inside; without this it arrives as RemoteError. To be
/// called before the pool is made, in main for instance. Thread-safe.
///
/// An E that is encodable arrives as it was. Else it is made again as `E(what())`: members besides
/// the text are lost (refused when E derives from std::runtime_error or std::logic_error), and a
/// constructor that adds to its text adds twice. One without members that cannot be made from a
/// text is made again as `E()`.
///
/// @tparam E derived from std::exception, not final, and either encodable (has a codec), or
/// constructible from a std::string or const char*, or default constructible and without members.
/// The exceptions of the standard library and of procpool are registered already.
template <class E>
void register_exception() {
  detail::add_exception<E>();
}

}  // namespace procpool
