// SPDX-License-Identifier: MIT
//
// A pool in an event loop: poll(2) watches the pool's descriptor together with all others of the
// program. The loop never blocks on a result; the descriptor is readable when there are any.

#include <fmt/format.h>
#include <poll.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <ctime>
#include <thread>
#include <vector>

#include <procpool/procpool.hpp>

using namespace std::chrono_literals;

long slow_square(long x) {
  std::this_thread::sleep_for(100ms);
  return x * x;
}

// Another event source of the loop: a timer that ticks every 20 ms.
int make_timer() {
  const int timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC);
  const timespec every{.tv_sec = 0, .tv_nsec = 20'000'000};
  const itimerspec ticks{.it_interval = every, .it_value = every};
  timerfd_settime(timer, 0, &ticks, nullptr);
  return timer;
}

std::uint64_t take(int descriptor) {
  std::uint64_t count = 0;
  return read(descriptor, &count, sizeof count) == sizeof count ? count : 0;
}

int main() {
  procpool::Pool pool{2};
  const int timer = make_timer();
  std::array<pollfd, 2> watched{{{pool.fileno(), POLLIN, 0}, {timer, POLLIN, 0}}};

  std::vector<procpool::AsyncResult<long>> results;
  for (long x = 1; x <= 6; ++x) results.push_back(pool.apply_async(slow_square, x));

  std::size_t left = results.size();
  std::uint64_t ticks = 0;
  long sum = 0;
  while (left > 0) {
    poll(watched.data(), watched.size(), -1);
    if ((watched[1].revents & POLLIN) != 0) ticks += take(timer);
    if ((watched[0].revents & POLLIN) == 0) continue;
    take(pool.fileno());  // before ready(): a result that comes later makes it readable again
    std::erase_if(results, [&](const auto& result) {
      if (!result.ready()) return false;
      sum += result.get();
      return true;
    });
    left = results.size();
  }
  close(timer);
  fmt::print("the sum of six squares is {}\n", sum);
  fmt::print("the loop was free meanwhile: {}\n", ticks >= 5);
  return 0;
}
