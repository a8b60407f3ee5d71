// SPDX-License-Identifier: MIT
/// @file
/// One connection of a manager's process: receives requests, runs their code, replies. Whatever the
/// client sends, at worst its connection ends.
#pragma once

#include <fcntl.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <span>
#include <stdexcept>
#include <string>
#include <unordered_set>
#include <utility>
#include <vector>

#include <procpool/codec.hpp>
#include <procpool/config.hpp>
#include <procpool/detail/base/concat.hpp>
#include <procpool/detail/base/forced_unwind.hpp>
#include <procpool/detail/base/try_catch.hpp>
#include <procpool/detail/codec/exception_transport.hpp>
#include <procpool/detail/connection/connection_state.hpp>
#include <procpool/detail/connection/descriptor_carrier.hpp>
#include <procpool/detail/connection/typed_message.hpp>
#include <procpool/detail/manager/managed_code.hpp>
#include <procpool/detail/manager/managed_messages.hpp>
#include <procpool/detail/manager/managed_objects.hpp>
#include <procpool/detail/manager/manager_link.hpp>
#include <procpool/detail/os/fd.hpp>
#include <procpool/detail/os/syscall.hpp>

namespace procpool::detail {

/// Copies of descriptors in a result, which may be gone before the reply is sent.
class returned_descriptors final : public descriptor_carrier {
 public:
  std::uint64_t put(int descriptor) override {
    constexpr int above_standard_streams = 3;
    copies_.emplace_back(
        os::check(PROCPOOL_SYSTEM(fcntl(descriptor, F_DUPFD_CLOEXEC, above_standard_streams)),
                  "cannot copy a descriptor for a client of a manager (fcntl F_DUPFD_CLOEXEC)"));
    numbers_.push_back(copies_.back().get());
    return numbers_.size() - 1;
  }
  os::fd take(std::uint64_t) override { return {}; }
  [[nodiscard]] std::span<const int> numbers() const noexcept { return numbers_; }

 private:
  std::vector<os::fd> copies_;
  std::vector<int> numbers_;
};

/// Notes which object this thread calls.
class serving {
 public:
  explicit serving(const request_head& head)
      : object_{head.record, head.generation},
        before_(served_object::current().exchange(&object_)) {}
  serving(const serving&) = delete;
  serving& operator=(const serving&) = delete;
  ~serving() { served_object::current() = before_; }

 private:
  const served_object object_;
  const served_object* before_;
};

/// One request.
class served_request final : public managed_call {
 public:
  served_request(connection_state& connection, managed_objects& objects, const request_head& head,
                 std::span<const std::byte> message, received_descriptors& along)
      : connection_(connection), objects_(objects), head_(head), in_(message), along_(along) {}

  [[nodiscard]] decoder& arguments() override { return in_; }
  [[nodiscard]] descriptor_carrier& sent_along() override { return along_; }

  [[nodiscard]] std::shared_ptr<managed_object> object(std::uint64_t type) override {
    auto found = objects_.find(head_.record, head_.generation);
    if (found == nullptr || found->type != type) in_.fail("the manager has no such object");
    return found;
  }
  void keep(std::shared_ptr<managed_object> object) override {
    if (!objects_.add(head_.record, head_.generation, std::move(object))) {
      in_.fail("the manager cannot keep a second object of the same number");
    }
  }

  /// Runs the code that @p find finds, and replies. @returns what must be kept until the client has
  /// decoded the reply
  template <class Find>
  std::shared_ptr<void> run(Find find) {
    auto kind = reply_kind::value;
    try_catch(
        [&] {
          const serving current(head_);
          find()(*this);
          if (out_ == nullptr) static_cast<void>(begin_result());
        },
        [&] {
          pass_on_thread_exit();
          kind = reply_kind::exception;
          handles_.reset();
          returned_ = {};
          encoder out(begin_result());
          encode_current_exception(
              out, concat({"in a manager's process (", PROCPOOL_SYSTEM(getpid()), "):\n"}));
        });
    const reply_head head{kind, handles_ != nullptr ? 1U : 0U, 0};
    std::memcpy(out_->data() + head_at_, &head, sizeof head);
    connection_.send_message(returned_.numbers());
    return std::move(handles_);
  }

 private:
  [[nodiscard]] byte_buffer& begin_result() override {
    out_ = &connection_.new_message();
    head_at_ = out_->size();
    encoder(*out_).put(reply_head{});
    return *out_;
  }
  [[nodiscard]] descriptor_carrier& returned_along() override { return returned_; }
  void keep_handles(std::shared_ptr<void> handles) noexcept override {
    handles_ = std::move(handles);
  }

  connection_state& connection_;
  managed_objects& objects_;
  const request_head head_;
  decoder in_;
  received_descriptors& along_;
  returned_descriptors returned_;
  byte_buffer* out_ = nullptr;
  std::size_t head_at_ = 0;
  std::shared_ptr<void> handles_;
};

/// A client, on the thread of its connection.
class served_client {
 public:
  served_client(connection_state& connection, managed_objects& objects) noexcept
      : connection_(connection), objects_(objects) {}

  /// @throws EOFError: it has closed the connection; anything: its messages make no sense, or the
  /// system refuses something
  void serve_next() {
    received_descriptors along;  // closed in any case
    const auto message = connection_.receive(connection_state::no_limit, &along.all());
    unread_.reset();
    decoder in(message);
    const auto head = in.get<request_head>();
    if (head.op == managed_op::received) return in.finish();
    if (head.op != managed_op::run) in.fail("not a request");
    served_request request(connection_, objects_, head, message.subspan(sizeof head), along);
    unread_ = request.run([&] { return find(head); });
  }

 private:
  managed_entry find(const request_head& head) {
    const auto address = code_address({head.offset, head.module});
    if (!known_.contains(address)) {
      if (!managed_code::is_registered(address)) {
        throw std::invalid_argument("a manager cannot run this: it is no code for managers");
      }
      known_.insert(address);
    }
    return reinterpret_cast<managed_entry>(address);
  }

  connection_state& connection_;
  managed_objects& objects_;
  std::unordered_set<std::uintptr_t> known_;
  std::shared_ptr<void> unread_;  ///< shared objects in the last reply
};

/// Returns when the connection has ended.
inline void serve_client(connection_state& connection, managed_objects& objects) {
  served_client client(connection, objects);
  bool ended = false;
  while (!ended) {
    try_catch([&] { client.serve_next(); },
              [&] {
                pass_on_thread_exit();
                ended = true;
              });
  }
}

}  // namespace procpool::detail
