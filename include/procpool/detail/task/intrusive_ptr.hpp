// SPDX-License-Identifier: MIT
/// @file
/// A pointer to an object that counts its owners itself. As boost::intrusive_ptr, whose header
/// includes <functional> for a hash: a sixth of what a program with procpool would have to parse.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <type_traits>
#include <utility>

namespace procpool::detail {

/// Owns a share of a T, for which intrusive_ptr_add_ref and intrusive_ptr_release are found by
/// argument-dependent lookup. Thread safety of a std::shared_ptr.
template <class T>
class intrusive_ptr {
 public:
  constexpr intrusive_ptr() noexcept = default;
  // NOLINTBEGIN(google-explicit-constructor): as boost::intrusive_ptr
  constexpr intrusive_ptr(std::nullptr_t) noexcept {}
  /// @param share whether to add a share; otherwise it takes over one of the caller's
  intrusive_ptr(T* target, bool share = true) : target_(target) {
    if (target_ != nullptr && share) intrusive_ptr_add_ref(target_);
  }
  template <class U>
    requires(std::is_convertible_v<U*, T*>)
  intrusive_ptr(const intrusive_ptr<U>& other) : intrusive_ptr(other.get()) {}
  template <class U>
    requires(std::is_convertible_v<U*, T*>)
  intrusive_ptr(intrusive_ptr<U>&& other)
  noexcept : target_(other.detach()) {}
  // NOLINTEND(google-explicit-constructor)
  intrusive_ptr(const intrusive_ptr& other) : intrusive_ptr(other.target_) {}
  intrusive_ptr(intrusive_ptr&& other) noexcept : target_(other.detach()) {}
  // NOLINTNEXTLINE(bugprone-unhandled-self-assignment): the copy makes it right
  intrusive_ptr& operator=(const intrusive_ptr& other) {
    intrusive_ptr(other).swap(*this);
    return *this;
  }
  intrusive_ptr& operator=(intrusive_ptr&& other) noexcept {
    intrusive_ptr(std::move(other)).swap(*this);
    return *this;
  }
  ~intrusive_ptr() {
    if (target_ != nullptr) intrusive_ptr_release(target_);
  }

  void reset() { intrusive_ptr().swap(*this); }
  /// Gives up its share without dropping it.
  T* detach() noexcept { return std::exchange(target_, nullptr); }
  void swap(intrusive_ptr& other) noexcept { std::swap(target_, other.target_); }

  [[nodiscard]] T* get() const noexcept { return target_; }
  [[nodiscard]] T& operator*() const noexcept { return *target_; }
  [[nodiscard]] T* operator->() const noexcept { return target_; }
  explicit operator bool() const noexcept { return target_ != nullptr; }

  template <class U>
  friend bool operator==(const intrusive_ptr& left, const intrusive_ptr<U>& right) noexcept {
    return left.get() == right.get();
  }
  friend bool operator==(const intrusive_ptr& left, const T* right) noexcept {
    return left.get() == right;
  }
  friend bool operator==(const intrusive_ptr& left, std::nullptr_t) noexcept {
    return left.get() == nullptr;
  }

 private:
  T* target_ = nullptr;
};

/// Base of a Derived that intrusive_ptr can own. The last owner deletes it.
template <class Derived>
class reference_counted {
 public:
  friend void intrusive_ptr_add_ref(const reference_counted* target) noexcept {
    target->owners_.fetch_add(1, std::memory_order_relaxed);  // the caller has a share
  }
  friend void intrusive_ptr_release(const reference_counted* target) noexcept {
    // Orders what the owners did before the deletion.
    if (target->owners_.fetch_sub(1, std::memory_order_acq_rel) == 1) {
      delete static_cast<const Derived*>(target);
    }
  }

 protected:
  reference_counted() noexcept = default;
  // A copy is another object, which nobody owns yet.
  reference_counted(const reference_counted&) noexcept : owners_(0) {}
  reference_counted& operator=(const reference_counted&) noexcept { return *this; }
  ~reference_counted() = default;

 private:
  mutable std::atomic<std::uint32_t> owners_{0};
};

}  // namespace procpool::detail
