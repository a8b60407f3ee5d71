// SPDX-License-Identifier: MIT
/// @file
/// ImapIterator: the lazy results of Pool::imap and imap_unordered.
#pragma once

#include <procpool/config.hpp>  // first, for its errors

#include <chrono>
#include <cstddef>
#include <exception>
#include <iterator>
#include <memory>
#include <optional>
#include <ranges>
#include <type_traits>
#include <utility>
#include <vector>

#include <procpool/detail/base/stop_token.hpp>
#include <procpool/detail/os/time.hpp>
#include <procpool/detail/result/job.hpp>
#include <procpool/detail/result/typed_job.hpp>
#include <procpool/detail/submit/pool_interface.hpp>
#include <procpool/detail/submit/submission.hpp>
#include <procpool/error.hpp>

namespace procpool {

/// Results that are computed while they are read (Python: IMapIterator). An input range, with
/// next() for single results. For one thread at a time. Only the reading thread advances the input,
/// at most `buffersize` items ahead of the results that were returned, so the input may be
/// endless. The destructor cancels items that no worker has begun with.
///
/// A failed item throws its exception, or WorkerDied, from next() or from the loop's increment;
/// next() can then go on with the next item. An exception of the input is thrown after the results
/// of all items before it. If the pool ends before the input, PoolClosed, BrokenPool or
/// CancelledError is thrown.
template <class F, std::ranges::view Input>
class ImapIterator {
  using item = std::ranges::range_reference_t<Input>;
  using arguments = detail::item_arguments<F, item, detail::as_argument>;
  using result = detail::listed_result_t<F, arguments>;
  using chunk = detail::outcomes_job<result>;

 public:
  using value_type = detail::stored_t<result>;

  ImapIterator(ImapIterator&&) noexcept = default;
  ImapIterator& operator=(ImapIterator&& other) noexcept {
    if (this != &other) {
      drop();
      std::destroy_at(this);
      std::construct_at(this, std::move(other));
    }
    return *this;
  }
  ~ImapIterator() { drop(); }

  /// Waits for the next result.
  /// @returns the result; empty at the end
  /// @throws the exception of the item: the next call goes on behind it; the exception of the
  /// input: the next call returns empty
  [[nodiscard]] std::optional<value_type> next() { return next_until(std::nullopt); }

  /// next() that waits at most for @p timeout. @throws TimeoutError; the call can be repeated
  template <class Rep, class Period>
  [[nodiscard]] std::optional<value_type> next(std::chrono::duration<Rep, Period> timeout) {
    return next_until(detail::os::deadline_after(timeout));
  }

  /// next() that waits until a stop is requested. @throws CancelledError; the call can be repeated
  [[nodiscard]] std::optional<value_type> next(const stop_token& stop) {
    return next_until(std::nullopt, stop);
  }

  /// For a range-based for loop. The constructor waits for the first result.
  class iterator {
   public:
    using value_type = ImapIterator::value_type;
    using difference_type = std::ptrdiff_t;

    explicit iterator(ImapIterator& range) : range_(&range) { ++*this; }
    iterator(iterator&&) noexcept = default;
    iterator& operator=(iterator&&) noexcept = default;

    value_type& operator*() const noexcept { return *range_->source_->current; }
    iterator& operator++() {
      range_->source_->current.reset();  // frees the result that was read
      range_->read_into(range_->source_->current, std::nullopt);
      return *this;
    }
    void operator++(int) { ++*this; }
    friend bool operator==(const iterator& at, std::default_sentinel_t) noexcept {
      return at.at_end();
    }

   private:
    [[nodiscard]] bool at_end() const noexcept { return !range_->source_->current.has_value(); }

    ImapIterator* range_;
  };

  [[nodiscard]] iterator begin() { return iterator(*this); }
  [[nodiscard]] std::default_sentinel_t end() const noexcept { return {}; }

 private:
  template <class Backend>
  friend class Pool;

  // The input and its position. At a fixed address, because iterators refer to their range.
  struct source {
    source(Input range, detail::shipped_callable function)
        : input(std::move(range)), callable(std::move(function)) {}

    Input input;
    detail::shipped_callable callable;
    std::optional<std::ranges::iterator_t<Input>> at;
    std::optional<value_type> current;  ///< the loop's; here because it may be large
    std::exception_ptr failure;
    bool ended = false;
  };

  ImapIterator(detail::intrusive_ptr<detail::pool_interface> pool, const detail::job_rules& rules,
               const F& function, Input input, std::size_t chunksize, std::size_t buffersize,
               bool ordered)
      : pool_(std::move(pool)),
        rules_(rules),
        source_(
            std::make_unique<source>(std::move(input), detail::shipped_callable(pool_, function))),
        chunksize_(chunksize < buffersize ? chunksize : buffersize),
        buffersize_(buffersize),
        finished_(ordered ? nullptr : std::make_shared<detail::completion_queue>()) {}

  std::optional<value_type> next_until(std::optional<detail::time_point> until,
                                       const stop_token& stop = {}) {
    std::optional<value_type> value;
    read_into(value, until, stop);
    return value;
  }

  // Leaves the value empty at the end.
  void read_into(std::optional<value_type>& value, std::optional<detail::time_point> until,
                 const stop_token& stop = {}) {
    while (true) {
      if (reading_ != nullptr && position_ < reading_->size()) {
        --taken_;
        return reading_->take(position_++, value);  // if this throws, the item counts as read
      }
      reading_ = nullptr;
      if (ahead_.empty() && !source_->ended) wait_for_room(until, stop);
      refill();
      if (ahead_.empty()) break;
      wait_for_chunk(until, stop);
    }
    if (source_->failure != nullptr)
      std::rethrow_exception(std::exchange(source_->failure, nullptr));
  }

  // Waits to submit when no chunk is in flight; not longer than next() may take.
  void wait_for_room(std::optional<detail::time_point> until, const stop_token& stop) {
    if (!pool_open() || pool_->await_room(until, stop)) return;
    if (stop.stop_requested()) throw CancelledError("the wait for the next result was stopped");
    throw TimeoutError("the next result was not ready in time");
  }

  void wait_for_chunk(std::optional<detail::time_point> until, const stop_token& stop) {
    const bool ready = finished_ != nullptr
                           ? finished_->ready() || wait_for(*pool_, *finished_, until, stop)
                           : ahead_.front()->wait_until(until, stop);
    if (!ready && stop.stop_requested()) {
      throw CancelledError("the wait for the next result was stopped");
    }
    if (!ready) throw TimeoutError("the next result was not ready in time");
    reading_ = finished_ != nullptr ? static_cast<chunk*>(finished_->pop().get()) : ahead_.front();
    std::erase(ahead_, reading_);
    position_ = 0;
  }

  // Submits chunks while the buffer has room.
  void refill() {
    while (!source_->ended && taken_ < buffersize_) {
      const std::size_t left = buffersize_ - taken_;
      const std::size_t room = chunksize_ < left ? chunksize_ : left;
      if (room < chunksize_ && taken_ > 0) return;   // no small chunks
      if (!ahead_.empty() && pool_->full()) return;  // read ready results first
      submit(room);
    }
  }

  void submit(std::size_t max_items) {
    if (!pool_open()) return;
    std::vector<std::ranges::range_value_t<Input>> items = collect(max_items);
    if (items.empty()) return;
    detail::intrusive_ptr<chunk> job = make_chunk(items.size());
    if (job == nullptr) return;
    job->set_rules(rules_);
    auto at = items.begin();
    const auto give = [&](auto visit) {
      return at != items.end() && (visit(std::move(*at++)), true);
    };
    try {
      pool_->ensure_service(*job);
      detail::submit_chunk<detail::as_argument, F, detail::listed_shipped_t<F, arguments>>(
          *pool_, job, source_->callable, submitted_, items.size(), give);
    } catch (...) {  // arguments that cannot be encoded: the outcome of these items
      const std::exception_ptr failure = std::current_exception();
      if (!pool_open()) return ahead_.pop_back();  // closed meanwhile: none was submitted
      pool_->fail_submission(*job, failure);
      static_cast<void>(pool_->take_numbers(items.size()));  // no other items get their numbers
    }
    submitted_ += items.size();
    taken_ += items.size();
    ahead_.back() = std::move(job);
  }

  // Makes a chunk and its slot in ahead_. Null: no memory. That ends the input, because items taken
  // from it cannot be taken again; submitted items are returned first.
  detail::intrusive_ptr<chunk> make_chunk(std::size_t items) {
    const std::size_t before = ahead_.size();
    try {
      ahead_.emplace_back();
      return {new chunk(pool_, submitted_, items, finished_), false};
    } catch (...) {
      ahead_.resize(before);
      source_->failure = std::current_exception();
      source_->ended = true;
      return nullptr;
    }
  }

  // A closed or broken pool ends the input; submitted items are returned first.
  bool pool_open() {
    try {
      pool_->check_open();
      return true;
    } catch (const Error&) {
      source_->failure = std::current_exception();
      source_->ended = true;
      return false;
    }
  }

  // The input's own exception ends it; items before it still count.
  std::vector<std::ranges::range_value_t<Input>> collect(std::size_t max_items) {
    std::vector<std::ranges::range_value_t<Input>> items;
    try {
      if (!source_->at) {
        source_->at.emplace(std::ranges::begin(source_->input));
      }
      while (items.size() < max_items && !at_end()) {
        if (std::exchange(pending_step_, false)) {
          ++*source_->at;
          continue;
        }
        items.emplace_back(**source_->at);
        pending_step_ = true;  // the increment may wait for input, so it is delayed
      }
    } catch (...) {
      source_->failure = std::current_exception();
      source_->ended = true;
    }
    return items;
  }

  bool at_end() {
    if (pending_step_) return false;
    source_->ended = *source_->at == std::ranges::end(source_->input);
    return source_->ended;
  }

  void drop() noexcept {
    for (auto& each : ahead_) {
      if (!each->ready()) pool_->fail_submission(*each, dropped());
    }
    ahead_.clear();
  }

  static std::exception_ptr dropped() noexcept {
    try {
      return std::make_exception_ptr(CancelledError("the imap was dropped"));
    } catch (...) {  // no memory: this exception is never read
      return std::current_exception();
    }
  }

  detail::intrusive_ptr<detail::pool_interface> pool_;
  detail::job_rules rules_;
  std::unique_ptr<source> source_;
  std::size_t chunksize_;
  std::size_t buffersize_;
  std::shared_ptr<detail::completion_queue> finished_;  ///< null: in the order of the input
  std::vector<detail::intrusive_ptr<chunk>>
      ahead_;  ///< a vector: its moves never allocate, unlike a deque's
  detail::intrusive_ptr<chunk> reading_;
  std::size_t position_ = 0;
  std::size_t submitted_ = 0;  ///< items taken from the input
  std::size_t taken_ = 0;      ///< of these, items not yet returned
  bool pending_step_ = false;
};

}  // namespace procpool
