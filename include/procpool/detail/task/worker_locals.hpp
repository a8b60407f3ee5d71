// SPDX-License-Identifier: MIT
/// @file
/// The objects that a worker keeps across tasks: worker_local values and random generators.
#pragma once

#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include <procpool/detail/base/type_name.hpp>

namespace procpool::detail {

/// Objects of any type, each under a number. Used on the worker's own thread only.
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

  /// Stores the T that @p make returns under @p key, which must be free.
  /// @throws what make() throws; nothing is stored then. std::logic_error if make() needs the
  /// object under @p key, or if the worker is exiting
  template <class T, class Make>
  T& add(std::uint64_t key, Make make) {
    const construction now(*this, key, &type_name<T>);
    std::unique_ptr<T> object(new T(make()));
    // Behind the objects that make() has added, so that it may use them in its destructor.
    entries_.push_back({key, object.get(), [](void* of) { delete static_cast<T*>(of); }});
    return *object.release();
  }

  /// Destroys all objects, the youngest first. None can be added afterwards.
  void clear() noexcept {
    closed_ = true;
    while (!entries_.empty()) {
      const entry last = entries_.back();
      entries_.pop_back();  // first: its destructor must not find it
      last.destroy(last.object);
    }
  }

 private:
  struct entry {
    std::uint64_t key;
    void* object;
    void (*destroy)(void*);
  };

  // Records what is being made, to detect an object whose construction needs itself.
  class construction {
   public:
    construction(worker_locals& store, std::uint64_t key, std::string (*name)()) : store_(&store) {
      if (store.closed_) {
        throw std::logic_error("a worker_local<" + name() +
                               "> was used for the first time while its worker exits");
      }
      for (const std::uint64_t each : store.in_construction_) {
        if (each == key) {
          throw std::logic_error("making a worker_local<" + name() + "> needs that very value");
        }
      }
      store.in_construction_.push_back(key);
    }
    construction(const construction&) = delete;
    construction& operator=(const construction&) = delete;
    ~construction() { store_->in_construction_.pop_back(); }

   private:
    worker_locals* store_;
  };

  std::vector<entry> entries_;                  ///< in the order in which they were completed
  std::vector<std::uint64_t> in_construction_;  ///< keys
  bool closed_ = false;
};

}  // namespace procpool::detail
