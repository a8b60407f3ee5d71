// SPDX-License-Identifier: MIT
/// @file
/// A manager's process. Its first thread waits for clients at the doors (manager_body.hpp) and
/// drops objects that nobody has a proxy of; each connection has a thread of its own.
#pragma once

#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <optional>
#include <stdexcept>
#include <thread>
#include <utility>
#include <vector>

#include <procpool/config.hpp>
#include <procpool/detail/child/child.hpp>
#include <procpool/detail/connection/connection_io.hpp>
#include <procpool/detail/connection/connection_state.hpp>
#include <procpool/detail/connection/make_pipe.hpp>
#include <procpool/detail/fork/fork_registry.hpp>
#include <procpool/detail/heap/heap.hpp>
#include <procpool/detail/manager/managed_objects.hpp>
#include <procpool/detail/manager/manager_body.hpp>
#include <procpool/detail/manager/manager_process.hpp>
#include <procpool/detail/manager/served_client.hpp>
#include <procpool/detail/os/futex.hpp>
#include <procpool/detail/os/signals.hpp>
#include <procpool/detail/os/stdio.hpp>
#include <procpool/detail/process/process_context.hpp>

namespace procpool::detail {

class manager_server final : public fork_handler {
 public:
  explicit manager_server(object_ref manager)
      : manager_(std::move(manager)),
        body_(body_as<manager_body>(manager_->record())),
        bell_(manager_bell(manager_->record())),
        objects_(*manager_->heap()) {}

  /// Serves until the manager has been shut down. @returns whether all clients' calls have returned
  [[nodiscard]] bool run() {
    body_.server.store(this_owner(), std::memory_order_release);  // it is ready
    tell_clients();
    // Acquire: nothing else is read after these.
    while (body_.ended.load(std::memory_order_acquire) == 0) {
      const auto heard = bell_.load(std::memory_order_acquire);  // before the doors are looked at
      const bool answered = answer_doors();
      const bool dropped = drop_objects();
      const auto until = std::chrono::steady_clock::now() + (answered || dropped ? soon : later);
      os::futex_wait(bell_, heard, until);
    }
    return disconnect_all();
  }

  // fork_handler: children of this process have no use for its connections
  void lock_for_fork() override {
    mutex_.lock();
    objects_.mutex().lock();
  }
  void release_locks() noexcept override {
    objects_.mutex().unlock();
    mutex_.unlock();
  }
  void abandon() noexcept override {
    for (connection_state* each : connections_) each->close();
  }

 private:
  static constexpr std::chrono::seconds soon{1};
  static constexpr std::chrono::seconds later{60};
  static constexpr std::chrono::seconds suspicion{20};
  using time_point = std::chrono::steady_clock::time_point;

  /// A process that has closed a connection: perhaps it dies, and holds objects.
  struct suspect {
    owner_id client;
    time_point until;  ///< after that it has closed the connection for another reason
  };

  void tell_clients() noexcept {
    auto& news = manager_news(manager_->record());
    news.fetch_add(1, std::memory_order_seq_cst);  // after what it tells of
    wake_all(news);
  }

  /// @returns whether any door is in use
  bool answer_doors() {
    bool any = false;
    bool answered = false;
    for (auto& door : body_.doors) {
      const auto word = door.load(std::memory_order_acquire);  // the door was taken before the bell
      if (word == 0) continue;
      any = true;
      const auto state = door_state::of(word);
      if (owner_is_dead(state.client)) {
        clean(door, word);
      } else if (state.ticket == 0) {
        if (!connect(door, state.client)) refuse(door, state.client);
        answered = true;
      }
    }
    if (answered) tell_clients();
    return any;
  }

  /// The client of the door has died, perhaps before it received the descriptor.
  void clean(std::atomic<std::uint64_t>& door, std::uint64_t word) noexcept {
    const auto ticket = door_state::of(word).ticket;
    if (ticket != 0 && ticket != door_state::refused) {
      const auto heap = manager_->heap()->id();
      try {
        static_cast<void>(receive_descriptor({heap, ticket, 0}));  // throws if it is not there
        static_cast<void>(receive_descriptor({heap, ticket, 1}));
      } catch (...) {  // it was received
      }
    }
    door.compare_exchange_strong(word, 0, std::memory_order_release,
                                 std::memory_order_relaxed);  // frees the door
  }

  bool connect(std::atomic<std::uint64_t>& door, owner_id client) noexcept {
    try {
      auto [ours, theirs] = connected_pair();
      serve(std::move(ours), client);
      handle_scope sent(handle_delivery::once);
      const auto wire = send_descriptor(theirs.get());
      auto word = door_state{client, 0}.word();
      if (wire.ticket >= door_state::refused) return false;
      if (door.compare_exchange_strong(word, door_state{client, wire.ticket}.word(),
                                       std::memory_order_release,
                                       std::memory_order_relaxed)) {  // after the deposit
        sent.commit();
      }
      return true;
    } catch (...) {  // no memory, descriptor or thread
      return false;
    }
  }

  static void refuse(std::atomic<std::uint64_t>& door, owner_id client) noexcept {
    auto word = door_state{client, 0}.word();
    door.compare_exchange_strong(word, door_state{client, door_state::refused}.word(),
                                 std::memory_order_relaxed);  // there is nothing else to see
  }

  void serve(os::fd socket, owner_id client) {
    {
      const std::lock_guard lock(mutex_);
      connections_.reserve(threads_ + 1);  // so that adding it cannot fail
      ++threads_;
    }
    try {
      std::thread([this, client, end = std::move(socket)]() mutable {
        const leaving on_exit{*this};
        connection_state connection(std::move(end), true, true);
        const connected while_served{*this, connection, client};
        serve_client(connection, objects_);
      }).detach();
    } catch (...) {
      const leaving failed{*this};
      throw;
    }
  }

  /// A thread that ends, also by pthread_exit(3).
  struct leaving {
    manager_server& server;
    ~leaving() {
      const std::lock_guard lock(server.mutex_);
      --server.threads_;
      server.left_.notify_all();
    }
  };
  /// A connection that the server can close.
  struct connected {
    manager_server& server;
    connection_state& connection;
    owner_id client;

    connected(manager_server& of, connection_state& served, owner_id by)
        : server(of), connection(served), client(by) {
      const std::lock_guard lock(server.mutex_);
      server.connections_.push_back(&connection);
      if (server.stopping_) PROCPOOL_SYSTEM(shutdown(connection.number(), SHUT_RDWR));
    }
    connected(const connected&) = delete;
    connected& operator=(const connected&) = delete;
    ~connected() {
      {
        const std::lock_guard lock(server.mutex_);
        std::erase(server.connections_, &connection);
        server.suspect_death_of(client);
      }
      server.bell_.fetch_add(1, std::memory_order_seq_cst);  // after the suspect was noted
      wake_all(server.bell_);
    }
  };

  /// With the mutex.
  void suspect_death_of(owner_id client) noexcept {
    std::erase_if(suspects_, [&](const suspect& each) { return each.client == client; });
    try {
      suspects_.push_back({client, std::chrono::steady_clock::now() + suspicion});
    } catch (...) {  // no memory: another process notices that it has died
    }
  }

  /// @returns whether there are objects, or processes that may be dead
  bool drop_objects() noexcept {
    const auto now = std::chrono::steady_clock::now();
    if (now < next_look_) return true;  // clients come and go faster than that
    next_look_ = now + soon;
    try {
      const bool suspicious = look_at_suspects(now);
      collect_dead_processes();
      objects_.drop_ended();
      return suspicious || !objects_.empty();
    } catch (...) {  // no memory: next time
      return true;
    }
  }

  bool look_at_suspects(time_point now) {
    std::vector<suspect> seen;
    {
      const std::lock_guard lock(mutex_);
      seen.swap(suspects_);
    }
    std::erase_if(seen, [&](const suspect& each) {
      return owner_is_dead(each.client) || now > each.until;  // the heap notes who is dead
    });
    const std::lock_guard lock(mutex_);
    suspects_.insert(suspects_.end(), seen.begin(), seen.end());
    return !suspects_.empty();
  }

  /// @returns whether all threads have ended
  bool disconnect_all() {
    std::unique_lock lock(mutex_);
    stopping_ = true;
    for (connection_state* each : connections_) {
      PROCPOOL_SYSTEM(shutdown(each->number(), SHUT_RDWR));
    }
    return left_.wait_for(lock, std::chrono::seconds(1), [this] { return threads_ == 0; });
  }

  const object_ref manager_;
  manager_body& body_;
  std::atomic<std::uint32_t>& bell_;
  time_point next_look_{};  ///< at objects and suspects
  managed_objects objects_;
  std::mutex mutex_;
  std::condition_variable left_;
  // Guarded by the mutex:
  std::vector<connection_state*> connections_;
  std::vector<suspect> suspects_;
  std::size_t threads_ = 0;
  bool stopping_ = false;
  fork_registration registration_{*this};
};

/// Ends the manager when its creator has ended.
inline void end_with_parent(const object_ref& manager) {
  const auto& parent = own_identity().parent;
  if (!parent) throw std::logic_error("a manager's process without parent");
  const os::signals_blocked in_the_thread;
  std::thread([manager, link = *parent] {
    try {
      static_cast<void>(wait_for_end(link, std::nullopt));
    } catch (...) {  // other code has closed the descriptor: the parent shuts it down
      return;
    }
    end_manager(*manager);
  }).detach();
}

PROCPOOL_FUNCTION void end_manager(const held_object& manager) noexcept {
  object_record& record = manager.record();
  body_as<manager_body>(record).ended.store(1, std::memory_order_seq_cst);  // before the bell
  manager_bell(record).fetch_add(1, std::memory_order_seq_cst);             // after it
  wake_all(manager_bell(record));
}

PROCPOOL_FUNCTION void run_manager(const manager_ticket& ticket) {
  // Ctrl-C is for the program; it ends the manager (Python: the same).
  os::set_disposition(SIGINT, SIG_IGN);
  os::set_disposition(SIGTERM, SIG_DFL);
  // It is daemonic for its parent, but what its objects start is as if they did not know.
  auto identity = own_identity();
  identity.daemon = false;
  process_context::instance().become(std::move(identity));
  end_with_parent(ticket.manager);
  manager_server server(ticket.manager);
  if (server.run()) return;
  os::flush_standard_streams();  // a call goes on: no destructor may run below it
  os::leave_now(0);
}

}  // namespace procpool::detail
