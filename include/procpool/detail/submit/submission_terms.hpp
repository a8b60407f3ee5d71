// SPDX-License-Identifier: MIT
/// @file
/// What a submission does when the pool has no room (pool_options::max_pending): wait, stop or
/// fail.
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

/// How the calling thread's submissions wait for room. Read only when there is none.
struct submission_terms {
  const stop_token* stop = nullptr;  ///< ends the wait for room; null: none
  bool may_wait = true;

  /// The calling thread's terms.
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

/// Sets the calling thread's terms for its lifetime.
class terms_scope {
 public:
  /// Restores the default terms: for user code that runs within a submission.
  terms_scope() {
    if (submission_terms::current.get() != nullptr) hold();
  }
  explicit terms_scope(const submission_terms& terms) : terms_(terms) { hold(); }
  /// A stop request ends the wait. Does nothing for a token that cannot be stopped.
  explicit terms_scope(const stop_token& stop) : terms_{.stop = &stop} {
    if (stop.stop_possible()) hold();
  }
  terms_scope(const terms_scope&) = delete;
  terms_scope& operator=(const terms_scope&) = delete;
  ~terms_scope() {
    if (changed_) submission_terms::current = before_;  // was set before: needs no memory
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
