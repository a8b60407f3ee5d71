// SPDX-License-Identifier: MIT
/// @file
/// Implements manager_link.hpp: how a process gets connections to a manager, and keeps them.
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <stdexcept>
#include <system_error>
#include <utility>
#include <vector>

#include <procpool/codec.hpp>
#include <procpool/config.hpp>
#include <procpool/detail/codec/exception_transport.hpp>
#include <procpool/detail/connection/connection_state.hpp>
#include <procpool/detail/fork/fork_registry.hpp>
#include <procpool/detail/heap/heap.hpp>
#include <procpool/detail/heap/shared_heap.hpp>
#include <procpool/detail/manager/manager_body.hpp>
#include <procpool/detail/manager/manager_link.hpp>
#include <procpool/detail/os/one_per_process.hpp>
#include <procpool/error.hpp>

namespace procpool::detail {

/// The links of this process. A forked child closes the connections, which are its parent's. The
/// heap is not used while the mutex is locked, because it has one, too.
class manager_links final : public fork_handler {
 public:
  static manager_links& instance() {
    static constinit os::lazily_found<manager_links> only{
        "manager links", []() -> void* { return new manager_links; }};
    return only.get();
  }

  [[nodiscard]] std::shared_ptr<manager_link> find_or_add(std::shared_ptr<manager_link> fresh) {
    const std::lock_guard lock(mutex);
    for (const auto& [link, reference] : all) {
      if (!stands_for_same(*link, *fresh)) continue;
      if (auto known = reference.lock()) return known;
    }
    all.emplace_back(fresh.get(), fresh);
    return fresh;
  }

  void lock_for_fork() override { mutex.lock(); }
  void release_locks() noexcept override { mutex.unlock(); }
  void abandon() noexcept override {
    for (const auto& [link, reference] : all) link->abandon();
  }

  std::mutex mutex;
  std::vector<std::pair<manager_link*, std::weak_ptr<manager_link>>> all;  ///< guarded by the mutex

 private:
  manager_links() = default;

  static bool stands_for_same(const manager_link& one, const manager_link& other) noexcept {
    return one.manager()->number() == other.manager()->number() &&
           one.manager()->generation() == other.manager()->generation() &&
           one.manager()->heap() == other.manager()->heap();
  }

  fork_registration registration_{*this, fork_registration::scope::every_process};
};

PROCPOOL_FUNCTION std::shared_ptr<manager_link> manager_link::of(const object_ref& manager) {
  auto fresh = std::make_shared<manager_link>(manager);  // destroyed without the mutex
  return manager_links::instance().find_or_add(fresh);
}

PROCPOOL_FUNCTION manager_link::manager_link(object_ref manager) : manager_(std::move(manager)) {}

PROCPOOL_FUNCTION manager_link::~manager_link() {
  auto& links = manager_links::instance();
  const std::lock_guard lock(links.mutex);
  std::erase_if(links.all, [this](const auto& each) { return each.first == this; });
}

PROCPOOL_FUNCTION void manager_link::abandon() noexcept {
  for (const auto& each : idle_) each->close();
  for (connection_state* each : busy_) each->close();
  idle_.clear();
  busy_.clear();
}

// ------------------------------------------------------------------------------- connecting

[[noreturn]] inline void throw_manager_ended() {
  throw EOFError("the manager has ended, and its objects with it");
}

/// A client at the doors of a manager, see manager_body.hpp.
class manager_visit {
 public:
  explicit manager_visit(const held_object& manager)
      : manager_(manager), body_(body_as<manager_body>(manager.record())), self_(this_owner()) {}
  manager_visit(const manager_visit&) = delete;
  manager_visit& operator=(const manager_visit&) = delete;
  ~manager_visit() { leave(); }

  [[nodiscard]] os::fd connect() {
    auto& news = manager_news(manager_.record());
    wait_slices slices;
    while (true) {
      const auto seen = news.load(std::memory_order_acquire);  // before the door is looked at
      if (door_ == nullptr) take_door();
      if (door_ != nullptr) {
        // Acquire: the descriptor has been deposited.
        const auto state = door_state::of(door_->load(std::memory_order_acquire));
        if (state.ticket != 0) return receive(state.ticket);
      }
      require_server();
      ring();
      static_cast<void>(slices.sleep(news, seen, std::nullopt));
    }
  }

 private:
  void require_server() const {
    const auto server = body_.server.load(std::memory_order_acquire);  // guards no other data
    if (body_.ended.load(std::memory_order_acquire) != 0 || server == 0 || owner_is_dead(server)) {
      throw_manager_ended();
    }
  }

  void take_door() noexcept {
    for (auto& door : body_.doors) {
      std::uint64_t free = 0;
      if (door.compare_exchange_strong(free, door_state{self_, 0}.word(),
                                       std::memory_order_seq_cst)) {  // before the bell
        door_ = &door;
        return;
      }
    }
  }

  void ring() noexcept {
    auto& bell = manager_bell(manager_.record());
    bell.fetch_add(1, std::memory_order_seq_cst);  // after the door
    wake_all(bell);
  }

  // The door is freed last: if this process dies before, the server looks what was left.
  os::fd receive(std::uint64_t ticket) {
    struct freeing {
      std::atomic<std::uint64_t>& door;
      ~freeing() { door.store(0, std::memory_order_release); }  // the descriptor is received
    } const freed{*std::exchange(door_, nullptr)};
    if (ticket == door_state::refused) {
      throw ProcessError("the manager has no memory or descriptors left for another connection",
                         std::make_error_code(std::errc::resource_unavailable_try_again));
    }
    return receive_descriptor({manager_.heap()->id(), ticket, 1});
  }

  void leave() noexcept {
    if (door_ == nullptr) return;
    auto word = door_state{self_, 0}.word();
    if (door_->compare_exchange_strong(word, 0, std::memory_order_relaxed)) return;  // no answer
    try {
      static_cast<void>(receive(door_state::of(word).ticket));
    } catch (...) {  // it stays in the store
    }
  }

  const held_object& manager_;
  manager_body& body_;
  const owner_id self_;
  std::atomic<std::uint64_t>* door_ = nullptr;
};

PROCPOOL_FUNCTION std::unique_ptr<connection_state> manager_link::take() {
  auto& links = manager_links::instance();
  std::unique_ptr<connection_state> taken;
  {
    const std::lock_guard lock(links.mutex);
    busy_.reserve(busy_.size() + 1);
    if (!idle_.empty()) {
      taken = std::move(idle_.back());
      idle_.pop_back();
      busy_.push_back(taken.get());
      return taken;
    }
  }
  taken = std::make_unique<connection_state>(manager_visit(*manager_).connect(), true, true);
  const std::lock_guard lock(links.mutex);
  busy_.push_back(taken.get());
  return taken;
}

PROCPOOL_FUNCTION void manager_link::give_back(std::unique_ptr<connection_state> connection,
                                               bool is_usable) noexcept {
  const std::lock_guard lock(manager_links::instance().mutex);
  std::erase(busy_, connection.get());
  if (!is_usable || connection->closed()) return;  // a fork has closed it
  try {
    idle_.push_back(std::move(connection));
  } catch (...) {  // no memory: it is closed
  }
}

// ------------------------------------------------------------------------------- requests

inline void reject_call_within(const held_object& object) {
  const served_object* const current = served_object::current();
  if (current != nullptr && current->record == object.number() &&
      current->generation == object.generation()) {
    throw std::logic_error(
        "an object of a manager is called through its proxy by code that is already using it: the "
        "call would wait for itself");
  }
}

PROCPOOL_FUNCTION manager_exchange::manager_exchange(manager_link& link, const held_object& object,
                                                     code_ref code)
    : link_(link) {
  reject_call_within(object);
  connection_ = link.take();
  try {
    request_ = &connection_->new_message();
    encoder(*request_).put(request_head{managed_op::run, object.number(), object.generation(),
                                        code.module, code.offset, 0});
  } catch (...) {
    link_.give_back(std::move(connection_), true);
    throw;
  }
}

PROCPOOL_FUNCTION manager_exchange::~manager_exchange() {
  if (in_order_ && has_handles_) acknowledge();
  link_.give_back(std::move(connection_), in_order_);
}

/// When the server dies, the connection ends: unless a child of the server that it started in its
/// own way has a copy of its end.
PROCPOOL_FUNCTION void manager_exchange::wait_for_reply() {
  constexpr std::chrono::seconds slice{1};
  const auto& server = body_as<manager_body>(link_.manager()->record()).server;
  while (!connection_->poll(os::deadline_after(slice))) {
    if (owner_is_dead(server.load(std::memory_order_relaxed)))
      throw_manager_ended();  // never changes
  }
}

PROCPOOL_FUNCTION void manager_exchange::acknowledge() noexcept {
  try {
    encoder(connection_->new_message()).put(request_head{managed_op::received, 0, 0, 0, 0, 0});
    connection_->send_message({});
  } catch (...) {
    in_order_ = false;
  }
}

PROCPOOL_FUNCTION std::span<const std::byte> manager_exchange::reply(
    std::span<const int> descriptors, std::vector<os::fd>& along) {
  std::span<const std::byte> message;
  in_order_ = false;
  try {
    connection_->send_message(descriptors);
    wait_for_reply();
    message = connection_->receive(connection_state::no_limit, &along);
  } catch (const BrokenPipeError&) {
    throw_manager_ended();
  } catch (const EOFError&) {
    throw_manager_ended();
  }
  decoder in(message);
  const auto head = in.get<reply_head>();
  if (head.kind != reply_kind::value && head.kind != reply_kind::exception) {
    in.fail("what the manager has sent is no reply");
  }
  in_order_ = true;
  has_handles_ = head.has_handles != 0;
  message = message.subspan(sizeof head);
  if (head.kind == reply_kind::exception) std::rethrow_exception(decode_exception(message));
  return message;
}

}  // namespace procpool::detail
