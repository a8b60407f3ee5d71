// SPDX-License-Identifier: MIT
// Level 6: pool.
/// @file
/// What becomes of a submission when the pool takes no more tasks for now
/// (pool_options::max_pending).
#pragma once

#include <procpool/detail/stop_token.hpp>
#include <utility>

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
  [[nodiscard]] static submission_terms& own() noexcept {
    static constinit thread_local submission_terms terms;
    return terms;
  }
};

/// These terms hold for the calling thread while it exists.
class terms_scope {
 public:
  explicit terms_scope(const submission_terms& terms) noexcept
      : before_(std::exchange(submission_terms::own(), terms)), changed_(true) {}
  /// A wait ends when a stop is requested. Nothing is changed for a token that cannot be.
  explicit terms_scope(const stop_token& stop) noexcept {
    if (!stop.stop_possible()) return;
    before_ = std::exchange(submission_terms::own(), {.stop = &stop});
    changed_ = true;
  }
  terms_scope(const terms_scope&) = delete;
  terms_scope& operator=(const terms_scope&) = delete;
  ~terms_scope() {
    if (changed_) submission_terms::own() = before_;
  }

 private:
  submission_terms before_;
  bool changed_ = false;
};

}  // namespace procpool::detail
