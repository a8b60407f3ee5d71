// SPDX-License-Identifier: MIT
/// @file
/// The code that a manager's process may be asked to run: each kind of call registers itself before
/// main, in every process of the program. A request names the code by its address, and the server
/// runs it only if it is registered.
#pragma once

#include <atomic>
#include <cstdint>

#include <procpool/config.hpp>
#include <procpool/detail/module/code_ref.hpp>
#include <procpool/detail/os/one_per_process.hpp>

namespace procpool::detail {

class managed_call;

/// Code of a manager's process.
using managed_entry = void (*)(managed_call&);

/// Registers code, whose module then stays loaded. Only static objects.
class managed_code {
 public:
  explicit managed_code(managed_entry entry) : entry_(entry) {
    os::keep_loaded(reinterpret_cast<std::uintptr_t>(entry));  // readers take no lock
    auto& first = list();
    next_ = first.load(std::memory_order_relaxed);  // checked by the exchange
    // Release: with its content.
    while (!first.compare_exchange_weak(next_, this, std::memory_order_release,
                                        std::memory_order_relaxed)) {
    }
  }
  managed_code(const managed_code&) = delete;
  managed_code& operator=(const managed_code&) = delete;
  ~managed_code() = default;

  [[nodiscard]] code_ref reference() const {
    return find_code(reinterpret_cast<std::uintptr_t>(entry_));
  }

  /// Looks through all of them.
  [[nodiscard]] static bool is_registered(std::uintptr_t address) noexcept {
    const managed_code* each = list().load(std::memory_order_acquire);  // with their content
    for (; each != nullptr; each = each->next_) {
      if (reinterpret_cast<std::uintptr_t>(each->entry_) == address) return true;
    }
    return false;
  }

 private:
  static std::atomic<const managed_code*>& list() noexcept {
    static auto& first = os::one_per_process<std::atomic<const managed_code*>>("managed code");
    return first;
  }

  managed_entry entry_;
  const managed_code* next_ = nullptr;
};

}  // namespace procpool::detail
