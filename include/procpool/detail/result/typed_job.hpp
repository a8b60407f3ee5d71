// SPDX-License-Identifier: MIT
/// @file
/// Jobs with a type: a single call, one outcome per item, a whole map.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <exception>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <type_traits>
#include <utility>
#include <vector>

#include <procpool/codec.hpp>
#include <procpool/detail/base/byte_buffer.hpp>
#include <procpool/detail/base/value_slot.hpp>
#include <procpool/detail/codec/incremental_decode.hpp>
#include <procpool/detail/os/huge_pages.hpp>
#include <procpool/detail/result/callback_function.hpp>
#include <procpool/detail/result/job.hpp>
#include <procpool/detail/result/job_list.hpp>
#include <procpool/detail/task/intrusive_ptr.hpp>
#include <procpool/detail/task/task.hpp>
#include <procpool/outcome.hpp>

namespace procpool::detail {

/// A result of type void travels as one byte and is stored as this.
template <class R>
using stored_t = std::conditional_t<std::is_void_v<R>, std::byte, R>;

template <class Stored>
inline constexpr std::size_t plain_size_of = is_plain_result_v<Stored> ? sizeof(Stored) : 0;

/// A job whose result for the user is a T.
template <class T>
class typed_job : public job {
 public:
  using job::job;

  /// The result. Precondition: ready, no failure.
  [[nodiscard]] virtual stored_t<T>& result() = 0;
};

/// The user's callback and error_callback.
template <class T>
struct job_callbacks {
  std::conditional_t<std::is_void_v<T>, callback_function<>, callback_function<stored_t<T>&>>
      success;
  callback_function<std::exception_ptr> failure;
};

/// Calls one of them.
template <class T>
class result_callback final : public done_callback {
 public:
  explicit result_callback(job_callbacks<T> calls) : calls_(std::move(calls)) {}

  void call(job& done) override {
    if (done.failure() != nullptr) {
      if (calls_.failure) calls_.failure(done.failure());
    } else if (calls_.success) {
      if constexpr (std::is_void_v<T>) {
        calls_.success();
      } else {
        calls_.success(static_cast<typed_job<T>&>(done).result());
      }
    }
  }

 private:
  job_callbacks<T> calls_;
};

/// Null if both are empty.
template <class T>
std::unique_ptr<done_callback> callback_of(job_callbacks<T> calls) {
  if (!calls.success && !calls.failure) return nullptr;
  return std::make_unique<result_callback<T>>(std::move(calls));
}

/// Fills in a large result piece by piece; after an exception it is empty.
template <class Stored>
void assemble_result(value_slot<Stored>& result, std::uint64_t offset, std::uint64_t total,
                     std::span<const std::byte> bytes) {
  if constexpr (delivery_of<Stored>().granule != 0) {
    if (offset == 0) result.emplace();
    if (!result) return;
    try {
      assemble(*result, offset, total, bytes);
    } catch (...) {
      result.reset();
      throw;
    }
  }
}

/// A single call.
template <class R>
class call_job final : public typed_job<R> {
 public:
  using stored = stored_t<R>;

  explicit call_job(intrusive_ptr<driver> pool, std::unique_ptr<done_callback> callbacks = nullptr)
      : typed_job<R>(std::move(pool), 1,
                     {.plain_size = plain_size_of<stored>, .pieces = delivery_of<stored>()},
                     std::move(callbacks)) {}

  void value(std::size_t, std::span<const std::byte> encoded) override {
    decoder in(encoded);
    result_.make([&] { return in.template get<stored>(); });
    in.finish();
  }
  void plain(std::size_t, std::size_t offset, std::span<const std::byte> bytes) override {
    if constexpr (is_plain_result_v<stored>) {
      std::memcpy(raw_ + offset, bytes.data(), bytes.size());
      if (offset + bytes.size() == sizeof(stored)) {
        decoder in(std::span<const std::byte>(raw_, sizeof(stored)));
        result_.make([&] { return in.template get<stored>(); });
      }
    }
  }
  void piece(std::size_t, std::uint64_t offset, std::uint64_t total,
             std::span<const std::byte> bytes) override {
    assemble_result(result_, offset, total, bytes);
  }
  [[nodiscard]] stored& result() override { return *result_; }

 private:
  static constexpr std::size_t raw_bytes = is_plain_result_v<stored> ? sizeof(stored) : 1;

  value_slot<stored> result_;
  alignas(16) std::byte raw_[raw_bytes];
};

/// Collects jobs that become ready, for imap_unordered.
class completion_queue final : public waitable {
 public:
  void push(intrusive_ptr<job> finished) noexcept {
    std::lock_guard lock(mutex_);
    finished_.push_back(std::move(finished));
  }
  [[nodiscard]] intrusive_ptr<job> pop() noexcept {
    std::lock_guard lock(mutex_);
    return finished_.pop_front();
  }
  /// True only until the next pop().
  [[nodiscard]] bool ready() const noexcept override {
    std::lock_guard lock(mutex_);
    return !finished_.empty();
  }
  [[nodiscard]] bool resolved() const noexcept override { return ready(); }

 private:
  mutable std::mutex mutex_;
  job_list finished_;
};

/// One Outcome for each item: a chunk of an imap, or a map_outcomes.
template <class R>
class outcomes_job final : public typed_job<std::vector<Outcome<R>>> {
 public:
  using stored = stored_t<R>;
  using base = typed_job<std::vector<Outcome<R>>>;

  /// @param first index of the first item in the input
  outcomes_job(intrusive_ptr<driver> pool, std::size_t first, std::size_t items,
               std::shared_ptr<completion_queue> finished = nullptr,
               std::unique_ptr<done_callback> callbacks = nullptr)
      : base(std::move(pool), items,
             {.plain_size = plain_size_of<stored>, .announced = finished != nullptr},
             std::move(callbacks)),
        first_(first),
        outcomes_(items),
        finished_(std::move(finished)) {}

  void value(std::size_t index, std::span<const std::byte> encoded) override {
    decoder in(encoded);
    auto& outcome = outcomes_[index - first_];
    if constexpr (decoded_in_place_v<stored>) {
      in.get_to(outcome.emplace());
    } else {
      outcome.emplace(in.template get<stored>());
    }
    in.finish();
  }
  void plain(std::size_t index, std::size_t offset, std::span<const std::byte> bytes) override {
    if (offset == 0) raw_.clear();  // a worker may have died, or sent garbage, inside a value
    raw_.append(bytes.data(), bytes.size());  // a value may arrive in parts
    std::size_t taken = 0;
    for (index += offset / sizeof(stored) - first_; raw_.size() - taken >= sizeof(stored);
         ++index, taken += sizeof(stored)) {
      take_plain(index, raw_.data() + taken);
    }
    std::memmove(raw_.data(), raw_.data() + taken, raw_.size() - taken);
    raw_.resize_uninitialized(raw_.size() - taken);
  }
  void error(std::size_t index, std::exception_ptr exception) override {
    outcomes_[index - first_].fail(std::move(exception));
  }
  void announce() override {
    // Drops the reference to the queue, which holds this job from here on.
    if (auto queue = std::exchange(finished_, nullptr)) queue->push(this);
    base::announce();
  }
  [[nodiscard]] bool cancellable_while_running() const noexcept override { return true; }

  [[nodiscard]] std::vector<Outcome<R>>& result() override { return outcomes_; }
  [[nodiscard]] std::size_t size() const noexcept { return outcomes_.size(); }
  /// Moves an item's result into @p to, or throws its exception; then drops it. Precondition:
  /// ready; call once for each item.
  void take(std::size_t index, std::optional<stored>& to) {
    struct reset_on_exit {
      Outcome<R>* outcome;
      ~reset_on_exit() { outcome->reset(); }
    };
    const reset_on_exit done{&outcomes_[index]};
    to.emplace(std::move(*outcomes_[index]));
  }

 protected:
  // Decided items keep their outcomes.
  void fail_submission(std::exception_ptr exception) override {
    for (auto& each : outcomes_) {
      if (!each.decided()) each.fail(exception);
    }
  }

 private:
  void take_plain(std::size_t index, const std::byte* from) {
    if constexpr (is_plain_result_v<stored>) {
      decoder in(std::span<const std::byte>(from, sizeof(stored)));
      outcomes_[index].emplace(in.template get<stored>());
    }
  }

  std::size_t first_;
  std::vector<Outcome<R>> outcomes_;
  byte_buffer raw_;
  std::shared_ptr<completion_queue> finished_;
};

/// A map: results in the order of the input.
template <class R>
class map_job final
    : public typed_job<std::conditional_t<std::is_void_v<R>, void, std::vector<stored_t<R>>>> {
 public:
  using stored = stored_t<R>;
  using whole = std::conditional_t<std::is_void_v<R>, void, std::vector<stored>>;
  using base = typed_job<whole>;

  map_job(intrusive_ptr<driver> pool, std::size_t items, std::unique_ptr<done_callback> callbacks)
      : base(std::move(pool), items,
             {.plain_size = plain_size_of<stored>,
              .pieces = delivery_of<stored>(),
              .sealed = separate},
             std::move(callbacks)),
        items_(items) {
    if constexpr (separate) {
      pieces_.resize(items);
    } else if constexpr (packed) {
      results_.reserve(items);  // zero-filled later, while workers are busy
      advise_huge_pages(results_.data(), items * sizeof(stored));
    } else if constexpr (!std::is_void_v<R>) {
      results_.resize(items);
    }
  }

  void value(std::size_t index, std::span<const std::byte> encoded) override {
    if constexpr (!is_plain_result_v<stored>) {
      decoder in(encoded);
      if constexpr (separate) {
        pieces_[index].make([&] { return in.template get<stored>(); });
      } else {
        if constexpr (in_pieces) reset_result(index);
        results_[index] = in.template get<stored>();
      }
      in.finish();
    }
  }
  void piece(std::size_t index, std::uint64_t offset, std::uint64_t total,
             std::span<const std::byte> bytes) override {
    if constexpr (separate) {
      assemble_result(pieces_[index], offset, total, bytes);
    } else if constexpr (in_pieces) {
      if (offset == 0) reset_result(index);
      assemble(results_[index], offset, total, bytes);
    }
  }
  void plain(std::size_t index, std::size_t offset, std::span<const std::byte> bytes) override {
    if constexpr (packed) {
      if (results_.empty()) allocate_results();
      std::memcpy(reinterpret_cast<std::byte*>(results_.data() + index) + offset, bytes.data(),
                  bytes.size());
    }
  }

  [[nodiscard]] bool cancellable_while_running() const noexcept override { return true; }
  void seal() override {
    if constexpr (separate) {
      if (this->failure() != nullptr) return;
      results_.reserve(pieces_.size());
      for (auto& piece : pieces_) results_.push_back(std::move(*piece));
      pieces_.clear();
    }
  }
  [[nodiscard]] stored_t<whole>& result() override {
    if constexpr (std::is_void_v<R>) {
      return void_result_;
    } else {
      return results_;
    }
  }

 private:
  static constexpr bool packed = is_plain_result_v<stored> && !std::is_void_v<R>;
  // Whether a result can be stored in place as soon as it arrives. Then all elements before it are
  // default-constructed first, which takes time before any work, so only small ones are.
  static constexpr std::size_t max_placed_bytes = 128;
  static constexpr bool in_place = packed || (sizeof(stored) <= max_placed_bytes &&
                                              std::is_nothrow_default_constructible_v<stored> &&
                                              std::is_nothrow_move_assignable_v<stored>);
  static constexpr bool separate = !in_place && !std::is_void_v<R>;
  static constexpr bool in_pieces = delivery_of<stored>().granule != 0;
  struct empty {};

  // Not inlined: in the user's build g++ 12 would warn of a null pointer in std::vector.
  [[gnu::noinline]] void allocate_results() { results_.resize(items_); }

  // The worker of an earlier attempt may have died within a longer result, whose memory must be
  // freed: assignment to a string would keep it.
  void reset_result(std::size_t index) noexcept {
    std::destroy_at(&results_[index]);
    std::construct_at(&results_[index]);
  }

  const std::size_t items_;
  std::conditional_t<std::is_void_v<R>, empty, std::vector<stored>> results_;
  std::conditional_t<separate, std::vector<value_slot<stored>>, empty> pieces_;
  std::byte void_result_{};
};

}  // namespace procpool::detail
