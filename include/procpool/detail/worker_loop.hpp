// SPDX-License-Identifier: MIT
// Level 4: channels.
/// @file
/// What a worker does all its life: it takes frames, has the task's code run them (task.hpp), and
/// sends what becomes of them.
#pragma once

#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <exception>
#include <new>
#include <span>
#include <string>

#include <procpool/config.hpp>
#include <procpool/detail/byte_buffer.hpp>
#include <procpool/detail/concat.hpp>
#include <procpool/detail/exception_transport.hpp>
#include <procpool/detail/module_table.hpp>
#include <procpool/detail/task.hpp>
#include <procpool/detail/worker_channel.hpp>
#include <procpool/detail/worker_limits.hpp>
#include <procpool/error.hpp>
#include <procpool/worker.hpp>

namespace procpool::detail {

/// What a worker has besides its channel.
struct worker_equipment {
  WorkerContext context;
  limit_guard limits;
  byte_buffer scratch = {};
};

PROCPOOL_FUNCTION frame_bytes frame_context::bytes() const {
  return channel_->bytes(head_);
}

PROCPOOL_FUNCTION void frame_context::begin_item(std::uint32_t item) {
  worker_->context.begin_item(item == head_.first_item ? head_.attempt : 1);
  // First the time: what the item before left of its own must not run out in this one.
  if (head_.initializer == 0) worker_->limits.begin_item();
  channel_->results().begin_item(item);
}

PROCPOOL_FUNCTION void frame_context::begin_part(std::uint32_t part) {
  worker_->context.begin_item(head_.attempt);
  worker_->limits.begin_item();  // in this order, as above
  channel_->results().begin_item(part);
}

PROCPOOL_FUNCTION plain_window frame_context::open_window(std::uint32_t item, std::size_t size) {
  if (head_.timed != 0 || head_.attempt != 1 || worker_->limits.any_for_items()) return {};
  worker_->context.begin_item(1);
  plain_window window = channel_->results().open_window(item, size);
  const std::uint32_t left = head_.item_count - item;
  if (window.items > left) window.items = left;
  return window;
}

PROCPOOL_FUNCTION void frame_context::close_window(std::uint32_t items, std::size_t size) {
  if (items != 0) channel_->results().close_window(items, size);
}

PROCPOOL_FUNCTION void frame_context::put_plain(std::uint32_t item, const void* value,
                                                std::size_t size) {
  channel_->results().put_plain(item, value, size);
}

PROCPOOL_FUNCTION byte_buffer& frame_context::empty_scratch() noexcept {
  worker_->scratch.clear();
  return worker_->scratch;
}

PROCPOOL_FUNCTION void frame_context::put_scratch(record_kind kind, std::uint32_t item,
                                                  std::span<const std::byte> rest) {
  constexpr std::size_t keep_bytes = std::size_t{64} << 20;
  byte_buffer& scratch = worker_->scratch;
  channel_->results().put(kind, item, scratch.view(), rest);
  if (scratch.capacity() > keep_bytes) scratch = byte_buffer();
}

PROCPOOL_FUNCTION void frame_context::put_error(std::uint32_t item,
                                                const callable_label& callable) {
  const limit_guard::more_memory room(worker_->limits);
  put_named_error(item, callable.text());
}

PROCPOOL_FUNCTION void frame_context::put_errors_from(std::uint32_t item,
                                                      const callable_label& callable) {
  const limit_guard::more_memory room(worker_->limits);
  const std::string name = callable.text();
  for (; item < head_.item_count; ++item) {
    begin_item(item);
    put_named_error(item, name);
  }
}

PROCPOOL_FUNCTION void frame_context::put_named_error(std::uint32_t item,
                                                      const std::string& callable) {
  ++errors_;
  encoder out(empty_scratch());
  const pid_t pid = PROCPOOL_SYSTEM(getpid());
  const std::string where =
      concat({"in ", worker_->context.name(), " (process ", pid, "), running ", callable, ":\n"});
  try {
    throw;
  } catch (const std::bad_alloc&) {
    encode_shortage(out, where);
  } catch (...) {
    encode_current_exception(out, where);
  }
  put_scratch(record_kind::error, item);
}

// A std::bad_alloc in a worker that may not have all the memory there is says why.
PROCPOOL_FUNCTION void frame_context::encode_shortage(encoder& out, const std::string& where) {
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

/// Runs one frame; how many of its items ended with an exception.
inline std::uint32_t run_claimed(worker_channel& channel, const frame_head& head,
                                 worker_equipment& worker) {
  frame_context frame(channel, head, worker);
  worker.context.begin_frame(head.first_number);
  const code_ref code{head.entry_offset, head.entry_module};
  reinterpret_cast<task_entry>(code_address(code))(frame);
  worker.limits.end_frame();
  channel.done(head);
  return frame.errors();
}

/// Runs frames until the worker is told to leave, or has grown too large. @returns its exit code.
inline int run_frames(worker_channel& channel, worker_equipment& worker) {
  while (true) {
    const frame_head head = channel.next();
    if (head.kind == frame_kind::retire) return 0;
    const std::uint32_t errors = run_claimed(channel, head, worker);
    if (head.initializer != 0 && errors != 0) return 1;
    if (worker.limits.too_large()) return 0;
  }
}

/// The worker's life: runs frames, and leaves in order; what it has not claimed is done by others.
/// @returns its exit code.
inline int run_worker(worker_channel& channel, worker_equipment& worker) {
  running_worker = &worker.context;
  const int exitcode = run_frames(channel, worker);
  channel.flush();  // nobody is to wait for its results until it has destroyed what it has
  worker.context.leave();
  running_worker = nullptr;
  return exitcode;
}

}  // namespace procpool::detail
