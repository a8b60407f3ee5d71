// SPDX-License-Identifier: MIT
/// @file
/// Implements manager_process.hpp.
#pragma once

#include <signal.h>

#include <atomic>
#include <chrono>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>

#include <procpool/config.hpp>
#include <procpool/detail/base/concat.hpp>
#include <procpool/detail/fork/process_generation.hpp>
#include <procpool/detail/heap/heap.hpp>
#include <procpool/detail/manager/manager_body.hpp>
#include <procpool/detail/manager/manager_client.hpp>
#include <procpool/detail/manager/manager_process.hpp>
#include <procpool/detail/manager/manager_server.hpp>
#include <procpool/detail/module/module_table.hpp>
#include <procpool/detail/process/process_start.hpp>
#include <procpool/error.hpp>

namespace procpool::detail {

PROCPOOL_FUNCTION manager_process::manager_process(std::string name,
                                                   std::optional<start_method> method)
    : generation_(process_generation()),
      link_(manager_link::of(make_object(object_kind::manager))),
      process_(
          make_process<process_record>(std::move(name), true, method,
                                       make_target<void (*)(const manager_ticket&), manager_ticket>(
                                           &run_manager, manager_ticket{link_->manager()}))) {
  static_cast<void>(module_table::instance().refresh());  // a fork has the same numbers
  process_->start();
  try {
    wait_until_ready();
  } catch (...) {
    end();
    throw;
  }
}

PROCPOOL_FUNCTION manager_process::~manager_process() {
  if (generation_ == process_generation()) end();
}

PROCPOOL_FUNCTION void manager_process::wait_until_ready() {
  object_record& record = link_->manager()->record();
  const auto& server = body_as<manager_body>(record).server;
  auto& news = manager_news(record);
  wait_slices slices;
  while (true) {
    const auto seen = news.load(std::memory_order_acquire);   // before the server is looked at
    if (server.load(std::memory_order_acquire) != 0) return;  // nothing else is read after it
    if (!process_->is_alive()) {
      throw ProcessError(concat({"the process of a manager has ended while it started (exit code ",
                                 process_->exitcode().value_or(0), ")"}));
    }
    static_cast<void>(slices.sleep(news, seen, std::nullopt));
  }
}

PROCPOOL_FUNCTION void manager_process::shutdown() {
  if (generation_ != process_generation()) {
    throw std::logic_error("a Manager is shut down by the process that made it");
  }
  end();
}

/// As Python: a message, then SIGTERM, then SIGKILL, each after a second.
PROCPOOL_FUNCTION void manager_process::end() noexcept {
  const auto ends_within = [&](std::chrono::seconds limit) {
    return process_->join(os::deadline_after(limit));
  };
  end_manager(*link_->manager());
  try {
    // It gives calls that go on a second of its own.
    if (ends_within(std::chrono::seconds(2))) return;
    process_->send_signal(SIGTERM, "terminate()");
    if (ends_within(std::chrono::seconds(1))) return;
    process_->send_signal(SIGKILL, "kill()");
    static_cast<void>(process_->join(std::nullopt));
  } catch (...) {  // no descriptor: it ends by itself
  }
}

}  // namespace procpool::detail
