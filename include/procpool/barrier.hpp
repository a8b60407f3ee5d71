// SPDX-License-Identifier: MIT
/// @file
/// Barrier: threads of several processes meet, and go on together. See docs/synchronize.md.
#pragma once

#include <procpool/config.hpp>  // first, for its errors

#include <chrono>
#include <concepts>
#include <cstdint>
#include <optional>
#include <type_traits>

#include <procpool/codec.hpp>
#include <procpool/detail/base/exact_number.hpp>
#include <procpool/detail/heap/held_object.hpp>
#include <procpool/detail/os/time.hpp>
#include <procpool/detail/sync/barrier_state.hpp>
#include <procpool/detail/sync/object_handle.hpp>
#include <procpool/error.hpp>

namespace procpool {

/// A place where a number of threads, of any processes, wait for each other; then all go on, and it
/// can be used again. Copies stand for the same barrier, and travel.
///
///     procpool::Barrier barrier{3};
///     int place = barrier.wait();   // 0, 1 or 2: the order of coming
///
/// It breaks for all if one of them waits longer than its timeout, calls abort(), is killed while
/// it waits, or if the action throws. Python: multiprocessing.Barrier, where a death is not
/// noticed.
class Barrier : public detail::object_handle {
 public:
  /// @param parties how many meet: 1 to 4096. @throws std::invalid_argument for another number;
  /// ProcessError when the system refuses memory
  explicit Barrier(detail::number<std::uint32_t> parties)
      : Barrier(detail::from_object{detail::make_object(detail::object_kind::barrier)},
                detail::checked_parties(parties)) {}

  /// @param action called by the last one to come, before any goes on: a closure without captures,
  /// because another process runs it, perhaps. If it throws, the barrier is broken, and the
  /// exception reaches who ran it
  template <class Action>
    requires(std::is_empty_v<Action>&& std::default_initializable<Action>&&
                 std::invocable<const Action&>)
  Barrier(detail::number<std::uint32_t> parties, Action /*action*/) : Barrier(parties) {
    action_ = detail::barrier_action<Action>::entry.run;
  }
  /// @param timeout of each wait() that has none of its own
  template <class Rep, class Period>
  Barrier(detail::number<std::uint32_t> parties, std::chrono::duration<Rep, Period> timeout)
      : Barrier(parties) {
    timeout_ = timeout;
  }
  template <class Action, class Rep, class Period>
    requires(std::is_empty_v<Action>&& std::default_initializable<Action>&&
                 std::invocable<const Action&>)
  Barrier(detail::number<std::uint32_t> parties, Action action,
          std::chrono::duration<Rep, Period> timeout)
      : Barrier(parties, action) {
    timeout_ = timeout;
  }

  /// Waits until as many threads as parties() wait. @returns the number of this one: 0 for the
  /// first to come. @throws BrokenBarrier; what the action throws, if this one was the last
  int wait() { return wait_until(timeout_ ? detail::os::deadline_after(*timeout_) : std::nullopt); }
  /// The same for at most @p timeout: then the barrier is broken for all.
  template <class Rep, class Period>
  int wait(std::chrono::duration<Rep, Period> timeout) {
    return wait_until(detail::os::deadline_after(timeout));
  }

  /// Makes it as new. Those who wait get BrokenBarrier.
  void reset() { here().reset(); }
  /// Breaks it: those who wait, and all who come, get BrokenBarrier until reset() is called.
  void abort() { here().abort(); }

  [[nodiscard]] int parties() const noexcept { return static_cast<int>(here().parties()); }
  /// How many wait at the moment.
  [[nodiscard]] int n_waiting() const noexcept { return static_cast<int>(here().state().count); }
  [[nodiscard]] bool broken() const noexcept { return here().state().broken; }

 private:
  friend codec<Barrier>;
  using seconds = std::chrono::duration<double>;

  Barrier(const detail::from_object& from, std::uint32_t parties)
      : object_handle(from),
        cells_(detail::make_cells(from.object, state_of(from.object), parties, "a Barrier")) {}
  explicit Barrier(const detail::from_object& from)
      : object_handle(from),
        cells_(detail::find_cells(from.object, state_of(from.object), detail::max_parties)) {}

  static detail::cell_state& state_of(const detail::object_ref& object) noexcept {
    return detail::body_as<detail::barrier_state>(object->record()).cells;
  }
  [[nodiscard]] detail::barrier_access here() const noexcept { return {record(), cells_}; }
  int wait_until(const detail::os::deadline& until) {
    return static_cast<int>(here().wait(action_, until));
  }

  detail::owner_cells cells_;
  void (*action_)() = nullptr;
  std::optional<seconds> timeout_;
};

/// Travels with its action and its timeout.
template <>
struct codec<Barrier> : detail::same_level {
  static constexpr std::size_t min_wire_size =
      sizeof(detail::object_wire) + sizeof(double) + sizeof(std::uint64_t) + sizeof(std::uint32_t);

  static void encode(encoder& e, const Barrier& barrier) {
    detail::put_object(e, detail::object_access::object_of(barrier));
    e.put(barrier.timeout_ ? barrier.timeout_->count() : no_timeout);
    detail::put_action(e, barrier.action_);
  }
  static Barrier decode(decoder& d) {
    Barrier barrier(detail::from_object{detail::get_object(d, detail::object_kind::barrier)});
    const auto timeout = d.get<double>();
    if (timeout > no_timeout) barrier.timeout_ = Barrier::seconds(timeout);
    barrier.action_ = detail::get_action(d);
    return barrier;
  }

 private:
  static constexpr double no_timeout = -1e300;
};

}  // namespace procpool

#ifndef PROCPOOL_COMPILED
#include <procpool/detail/sync/barrier_access.hpp>
#endif
