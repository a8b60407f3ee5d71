// SPDX-License-Identifier: MIT
/// @file
/// Implements what the handles of queues throw.
#pragma once

#include <stdexcept>

#include <procpool/config.hpp>
#include <procpool/detail/queue/queue_handle.hpp>
#include <procpool/error.hpp>

namespace procpool::detail {

PROCPOOL_FUNCTION void queue_has_no_room() {
  throw Full("the queue is full");
}
PROCPOOL_FUNCTION void queue_has_no_item() {
  throw Empty("the queue is empty");
}
PROCPOOL_FUNCTION void queue_is_over() {
  throw QueueClosed("the queue is closed, and nothing is left in it");
}
PROCPOOL_FUNCTION void too_many_finished() {
  throw std::logic_error("task_done() was called more often than values were taken");
}

}  // namespace procpool::detail
