// SPDX-License-Identifier: MIT
/// @file
/// The end of a pool in the first of many callbacks.
#pragma once

#include <atomic>
#include <chrono>
#include <exception>
#include <stdexcept>
#include <thread>

#include <procpool/procpool.hpp>

#include "support/shared.hpp"

/// Of 20 callbacks the first one terminates their pool. How many have run when join() returns in
/// another thread, or without @p join when the destructor has.
template <class Pool>
int callbacks_before_end(bool join) {
  using namespace std::chrono_literals;
  std::atomic<bool> submitted = false;
  std::atomic<bool> ended = false;
  std::atomic<int> calls = 0;
  int seen = -1;
  {
    Pool pool{1};
    const auto fail = [](long) -> long { throw std::runtime_error("no"); };
    const auto end_all = [&](const std::exception_ptr&) {
      while (!submitted) std::this_thread::sleep_for(1ms);
      if (!ended) pool.terminate();
      ended = true;
      std::this_thread::sleep_for(5ms);
      ++calls;
    };
    for (long i = 0; i < 20; ++i) pool.apply_async({.error_callback = end_all}, fail, i);
    submitted = true;
    if (!support::eventually([&] { return ended.load(); })) return seen;
    if (join) {
      pool.join();
      seen = calls;
    }
  }
  return join ? seen : calls.load();
}
