// SPDX-License-Identifier: MIT
// A pool that is made by a thread with a small stack, such as a library's helper: its tasks have
// the stack of a fresh process all the same.
#include <pthread.h>

#include <cstdio>
#include <optional>

#include <procpool/procpool.hpp>

static int deep(int kib) {
  volatile char page[1024];
  page[0] = 1;
  return kib > 0 ? deep(kib - 1) + page[0] : 0;
}

static std::optional<procpool::Pool<>> pool;

static void* make_pool(void*) {
  pool.emplace(1);
  return nullptr;
}

int main() {
  pthread_attr_t small;
  pthread_attr_init(&small);
  pthread_attr_setstacksize(&small, 256 << 10);
  pthread_t maker{};
  pthread_create(&maker, &small, make_pool, nullptr);
  pthread_join(maker, nullptr);
  try {
    return pool->apply(deep, 1024) == 1024 ? 0 : 1;
  } catch (const procpool::WorkerDied& died) {
    std::puts(died.what());
    return 1;
  }
}
