// SPDX-License-Identifier: MIT
/// @file
/// The main loop of a worker: takes frames, lets the task's code run them (task.hpp) and sends
/// their outcomes. Called on the worker's main thread by fork_server.hpp and thread_backend.hpp.
#pragma once

#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <exception>
#include <new>
#include <span>
#include <string>

#include <procpool/config.hpp>
#include <procpool/detail/base/byte_buffer.hpp>
#include <procpool/detail/base/concat.hpp>
#include <procpool/detail/codec/exception_transport.hpp>
#include <procpool/detail/module/module_table.hpp>
#include <procpool/detail/task/task.hpp>
#include <procpool/detail/worker/worker_channel.hpp>
#include <procpool/detail/worker/worker_limits.hpp>
#include <procpool/error.hpp>
#include <procpool/worker.hpp>

namespace procpool::detail {

/// A std::bad_alloc, encoded in advance: sent for an item whose exception cannot be encoded,
/// because there is no memory.
inline byte_buffer encoded_shortage() {
  byte_buffer bytes;
  encoder out(bytes);
  try {
    throw std::bad_alloc();
  } catch (...) {
    encode_current_exception(out, "in a worker that had no memory to say more:\n");
  }
  return bytes;
}

/// The state of a worker, besides its channel.
struct worker_equipment {
  WorkerContext context;
  limit_guard limits;
  byte_buffer scratch = {};
  byte_buffer shortage = encoded_shortage();
};

/// The line of a traceback that says where an exception was thrown.
inline std::string place_of_error(const WorkerContext& worker, const std::string& callable) {
  const pid_t pid = PROCPOOL_SYSTEM(getpid());
  return concat({"in ", worker.name(), " (process ", pid, "), running ", callable, ":\n"});
}

/// A frame that a worker has taken from its ring.
class worker_frame final : public frame_context {
 public:
  worker_frame(worker_channel& channel, const frame_head& head, worker_equipment& worker)
      : frame_context(head, worker.scratch), channel_(&channel), worker_(&worker) {
    worker.context.begin_frame(head.first_number);
    worker.context.begin_item(head.attempt);
    // Before the arguments are decoded: that counts as CPU time of the item.
    if (head.initializer == 0) worker.limits.begin_item();
  }

  [[nodiscard]] frame_bytes bytes() override { return channel_->bytes(head_); }

  void begin_item(std::uint32_t item) override {
    channel_->check_stop();
    worker_->context.begin_item(item == head_.first_item ? head_.attempt : 1);
    // The timer first: the rest of the previous item's CPU time must not run out in this item.
    if (head_.initializer == 0) worker_->limits.begin_item();
    channel_->results.begin_item(item);
  }

  void begin_part(std::uint32_t part) override {
    channel_->check_stop();
    worker_->context.begin_item(head_.attempt);
    worker_->limits.begin_item();  // in this order, as above
    channel_->results.begin_item(part);
  }

  [[nodiscard]] result_window open_window(std::uint32_t item, std::size_t size) override {
    if (head_.timed != 0 || head_.attempt != 1 || worker_->limits.any_for_items() ||
        channel_->may_be_stopped()) {
      return {};
    }
    worker_->context.begin_item(1);
    result_window window = channel_->results.open_window(item, size);
    const std::uint32_t left = head_.item_count - item;
    if (window.items > left) window.items = left;
    return window;
  }
  void close_window(std::uint32_t items, std::size_t size) override {
    if (items != 0) channel_->results.close_window(items, size);
  }

 private:
  void put_plain(std::uint32_t item, const void* value, std::size_t size) override {
    if (head_.item_count == 1) return channel_->results.put_only(item, value, size);
    channel_->results.put_plain(item, value, size);
  }

  void put_scratch(record_kind kind, std::uint32_t item, std::span<const std::byte> rest) override {
    constexpr std::size_t keep_bytes = std::size_t{64} << 20;
    byte_buffer& scratch = worker_->scratch;
    channel_->results.put(kind, item, scratch.view(), rest);
    if (scratch.capacity() > keep_bytes) scratch = byte_buffer();
  }

  void put_exception(std::uint32_t item, const callable_label& callable) override {
    channel_->check_stop();
    const limit_guard::more_memory room(worker_->limits);
    bool encoded = true;
    try {
      encode_exception(callable);
    } catch (const std::bad_alloc&) {
      encoded = false;
    }
    if (encoded) return put_scratch(record_kind::error, item, {});
    channel_->results.put(record_kind::error, item, worker_->shortage.view(), {});
  }

  void encode_exception(const callable_label& callable) {
    encoder out(empty_scratch());
    const std::string where = place_of_error(worker_->context, callable.text());
    try {
      throw;
    } catch (const std::bad_alloc&) {
      encode_shortage(out, where);
    } catch (...) {
      encode_current_exception(out, where);
    }
  }

  // In a worker with a memory limit a std::bad_alloc becomes a MemoryLimitError that names the
  // limit.
  void encode_shortage(encoder& out, const std::string& where) {
    const std::uint64_t limit = worker_->limits.limits().memory_bytes;
    if (limit == 0) return encode_current_exception(out, where);
    worker_->limits.note_shortage();
    try {
      throw MemoryLimitError(
          concat({"the task needed more memory than its worker may take (", limit, " bytes)"}));
    } catch (...) {
      encode_current_exception(out, where);
    }
  }

  worker_channel* channel_;
  worker_equipment* worker_;
};

/// Runs one frame. @returns how many of its items ended with an exception
inline std::uint32_t run_claimed(worker_channel& channel, const frame_head& head,
                                 worker_equipment& worker) {
  worker_frame frame(channel, head, worker);
  const code_ref code{head.entry_offset, head.entry_module};
  reinterpret_cast<task_entry>(code_address(code))(frame);
  worker.limits.end_frame();
  channel.done(head);
  return frame.errors();
}

/// Runs frames until the worker is told to leave, has grown too large, has been idle for too long,
/// or its initializer has thrown. @returns the exit code
inline int run_frames(worker_channel& channel, worker_equipment& worker) try {
  while (true) {
    const frame_head head = channel.next();
    if (head.kind == frame_kind::retire) return 0;
    const std::uint32_t errors = run_claimed(channel, head, worker);
    if (head.initializer != 0 && errors != 0) return 1;
    if (worker.limits.too_large()) return channel.note_leaving(), 0;
  }
} catch (const worker_idle&) {
  return channel.note_leaving(), 0;
}

/// Runs frames and ends the worker normally. Frames that it has not claimed are run by other
/// workers. @returns the exit code
inline int run_worker(worker_channel& channel, worker_equipment& worker) {
  running_worker = &worker.context;
  channel.limit_idleness(std::chrono::nanoseconds(worker.limits.limits().idle_ns));
  const int exitcode = run_frames(channel, worker);
  channel.flush();  // the results must not wait for the destructors of worker-local values
  worker.context.leave();
  running_worker = nullptr;
  return exitcode;
}

}  // namespace procpool::detail
