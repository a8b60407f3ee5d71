// SPDX-License-Identifier: MIT
//
// Many results at once: as_completed yields each result when it is ready, wait returns those that
// are ready in time.
//
//     futures = [executor.submit(render, *page) for page in pages]
//     for future in concurrent.futures.as_completed(futures):
//         print(future.result())
//     done, not_done = concurrent.futures.wait(futures, timeout=0.2, return_when=FIRST_COMPLETED)

#include <fmt/core.h>

#include <chrono>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include <procpool/procpool.hpp>

using namespace std::chrono_literals;

/// A slow function.
std::string render(const std::string& page, std::chrono::milliseconds time) {
  std::this_thread::sleep_for(time);
  if (page.empty()) throw std::invalid_argument("an empty page");
  return "<p>" + page + "</p>";
}

int main() {
  procpool::Pool pool{4};

  std::vector<procpool::AsyncResult<std::string>> pages;
  pages.push_back(pool.apply_async(render, "long", 600ms));
  pages.push_back(pool.apply_async(render, "", 300ms));
  pages.push_back(pool.apply_async(render, "short", 0ms));
  for (auto& page : procpool::as_completed(pages)) {
    try {
      fmt::print("{}\n", page.get());
    } catch (const std::invalid_argument& error) {
      fmt::print("failed: {}\n", error.what());
    }
  }

  // Uses the first of two results and cancels the other.
  pages = {pool.apply_async(render, "slow", 60s), pool.apply_async(render, "quick", 0ms)};
  auto [done, pending] = procpool::wait(pages, procpool::FIRST_COMPLETED);
  fmt::print("first: {}\n", done.front().get());
  for (auto& page : pending) page.cancel({.kill = true});

  try {
    auto never = std::vector{pool.apply_async(render, "never", 60s)};
    for (auto& page : procpool::as_completed(never, 100ms)) fmt::print("{}\n", page.get());
  } catch (const procpool::TimeoutError& error) {
    fmt::print("time is over: {}\n", error.what());
  }
}
