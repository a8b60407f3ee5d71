// SPDX-License-Identifier: MIT
/// @file
/// What becomes of a submission when the pool takes no more tasks for now
/// (pool_options::max_pending).
#pragma once

#include <procpool/detail/base/stop_token.hpp>
#include <procpool/detail/os/one_per_process.hpp>
#include <procpool/error.hpp>

namespace procpool::detail {

/// Thrown by a submission that must not wait for room.
class pool_full : public Error {
 public:
  pool_full() : Error("the pool takes no more tasks for now") {}
};

/// Of the submissions of a thread, for a while. Looked at only when there is no room.
struct submission_terms {
  const stop_token* stop = nullptr;  ///< ends the wait for room; null: nothing does
  bool may_wait = true;

  /// Those of the calling thread.
  [[nodiscard]] static submission_terms own() {
    const submission_terms* const now = current.get();
    return now != nullptr ? *now : submission_terms{};
  }

 private:
  friend class terms_scope;
  static os::per_thread_pointer<const submission_terms> current;
};
inline constinit os::per_thread_pointer<const submission_terms> submission_terms::current{
    "submission terms"};

/// These terms hold for the calling thread while it exists.
class terms_scope {
 public:
  /// Those of a thread that has asked for none: for code that runs in the midst of a submission.
  terms_scope() {
    if (submission_terms::current.get() != nullptr) hold();
  }
  explicit terms_scope(const submission_terms& terms) : terms_(terms) { hold(); }
  /// A wait ends when a stop is requested. Nothing is changed for a token that cannot be.
  explicit terms_scope(const stop_token& stop) : terms_{.stop = &stop} {
    if (stop.stop_possible()) hold();
  }
  terms_scope(const terms_scope&) = delete;
  terms_scope& operator=(const terms_scope&) = delete;
  ~terms_scope() {
    if (changed_) submission_terms::current = before_;  // there was one: no memory is needed
  }

 private:
  void hold() {
    before_ = submission_terms::current.exchange(&terms_);
    changed_ = true;
  }

  const submission_terms terms_{};
  const submission_terms* before_ = nullptr;
  bool changed_ = false;
};

}  // namespace procpool::detail
