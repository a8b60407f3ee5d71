// SPDX-License-Identifier: MIT
/// @file
/// The objects that a worker keeps from task to task: worker_local values and its random generator.
#pragma once

#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include <procpool/detail/base/type_name.hpp>

namespace procpool::detail {

/// Objects of any type under numbers. One thread: the worker's.
class worker_locals {
 public:
  worker_locals() = default;
  worker_locals(const worker_locals&) = delete;
  worker_locals& operator=(const worker_locals&) = delete;
  ~worker_locals() { clear(); }

  /// The object under @p key; nullptr if there is none.
  [[nodiscard]] void* find(std::uint64_t key) const noexcept {
    for (const entry& each : entries_) {
      if (each.key == key) return each.object;
    }
    return nullptr;
  }

  /// Makes the object of type T that @p make returns and keeps it under @p key, where there is
  /// none. @throws what make() throws: nothing is kept then; std::logic_error if make() asks for
  /// that very object, or if the worker is about to leave
  template <class T, class Make>
  T& add(std::uint64_t key, Make make) {
    const construction now(*this, key, &type_name<T>);
    std::unique_ptr<T> object(new T(make()));
    // Others that make() has added come before it: it may use them to its end.
    entries_.push_back({key, object.get(), [](void* of) { delete static_cast<T*>(of); }});
    return *object.release();
  }

  /// Destroys all objects, the youngest first; there will be no others.
  void clear() noexcept {
    closed_ = true;
    while (!entries_.empty()) {
      const entry last = entries_.back();
      entries_.pop_back();  // first: it is not to be found while it is being destroyed
      last.destroy(last.object);
    }
  }

 private:
  struct entry {
    std::uint64_t key;
    void* object;
    void (*destroy)(void*);
  };

  // Keeps in mind what is being made, to tell a circle from a chain.
  class construction {
   public:
    construction(worker_locals& store, std::uint64_t key, std::string (*name)()) : store_(&store) {
      if (store.closed_) {
        throw std::logic_error("a worker_local<" + name() +
                               "> was used for the first time while its worker leaves");
      }
      for (const std::uint64_t each : store.under_way_) {
        if (each == key) {
          throw std::logic_error("making a worker_local<" + name() + "> needs that very value");
        }
      }
      store.under_way_.push_back(key);
    }
    construction(const construction&) = delete;
    construction& operator=(const construction&) = delete;
    ~construction() { store_->under_way_.pop_back(); }

   private:
    worker_locals* store_;
  };

  std::vector<entry> entries_;  ///< in the order in which they were completed
  std::vector<std::uint64_t> under_way_;
  bool closed_ = false;
};

}  // namespace procpool::detail
