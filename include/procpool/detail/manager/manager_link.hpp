// SPDX-License-Identifier: MIT
/// @file
/// A manager as one process of its clients knows it, and one request with its reply. The
/// implementation is in manager_client.hpp.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include <procpool/config.hpp>
#include <procpool/detail/base/byte_buffer.hpp>
#include <procpool/detail/connection/connection_state.hpp>
#include <procpool/detail/heap/held_object.hpp>
#include <procpool/detail/manager/managed_messages.hpp>
#include <procpool/detail/module/code_ref.hpp>
#include <procpool/detail/os/fd.hpp>
#include <procpool/detail/os/one_per_process.hpp>

namespace procpool::detail {

class manager_links;

/// An object that a thread of a manager's process is calling.
struct served_object {
  std::uint32_t record;
  std::uint32_t generation;

  /// Null: this thread calls none.
  static os::per_thread_pointer<const served_object>& current() noexcept {
    static constinit os::per_thread_pointer<const served_object> object{"served object"};
    return object;
  }
};
/// The key exists before main, so that no later use can fail.
inline const bool served_object_prepared = served_object::current().prepare();

/// One in a process for each manager whose proxies it has. Keeps the connections that no call uses.
/// Any thread.
class manager_link {
 public:
  /// The link of this process. @param manager the manager's record
  [[nodiscard]] static std::shared_ptr<manager_link> of(const object_ref& manager);

  explicit manager_link(object_ref manager);
  manager_link(const manager_link&) = delete;
  manager_link& operator=(const manager_link&) = delete;
  ~manager_link();

  [[nodiscard]] const object_ref& manager() const noexcept { return manager_; }

  /// A connection for one request. @throws EOFError: the manager has ended; ProcessError
  [[nodiscard]] std::unique_ptr<connection_state> take();
  /// Gives a connection back, or only says that it is no longer used.
  void give_back(std::unique_ptr<connection_state> connection, bool is_usable) noexcept;

 private:
  friend class manager_links;
  using connections = std::vector<std::unique_ptr<connection_state>>;

  void abandon() noexcept;

  const object_ref manager_;
  // Guarded by the mutex of manager_links:
  connections idle_;
  std::vector<connection_state*> busy_;
};

/// One request and its reply. Any thread, but one.
class manager_exchange {
 public:
  /// @param record, generation of the object @param code what the server runs
  manager_exchange(manager_link& link, const held_object& object, code_ref code);
  manager_exchange(const manager_exchange&) = delete;
  manager_exchange& operator=(const manager_exchange&) = delete;
  ~manager_exchange();

  /// To put what the code reads.
  [[nodiscard]] byte_buffer& request() noexcept { return *request_; }
  /// Sends the request, with descriptors, and waits. @returns the encoded result, which stays there
  /// until the end of this object
  /// @throws the exception that the code threw; EOFError when the manager has ended
  [[nodiscard]] std::span<const std::byte> reply(std::span<const int> descriptors,
                                                 std::vector<os::fd>& along);

 private:
  void wait_for_reply();
  void acknowledge() noexcept;

  manager_link& link_;
  std::unique_ptr<connection_state> connection_;
  byte_buffer* request_;
  bool in_order_ = true;  ///< nothing is on its way through the connection
  bool has_handles_ = false;
};

}  // namespace procpool::detail
