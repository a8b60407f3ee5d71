// expect: threads, locks, atomics and futures belong to one process
// expect: a stream belongs to one process and cannot be sent
// expect: pools, processes and results belong to the process that made them
// SPDX-License-Identifier: MIT
#include <atomic>
#include <fstream>
#include <future>
#include <iostream>
#include <mutex>
#include <procpool/procpool.hpp>
#include <thread>

int lock(std::mutex&) {
  return 0;
}
int hold(std::unique_lock<std::mutex>) {
  return 0;
}
int count(const std::atomic<int>&) {
  return 0;
}
int join(std::thread) {
  return 0;
}
int await(std::future<int>) {
  return 0;
}
int print(std::ostream&) {
  return 0;
}
int save(std::ofstream) {
  return 0;
}
int submit(procpool::Pool<>&) {
  return 0;
}
int read(const procpool::AsyncResult<int>&) {
  return 0;
}
int wait(procpool::Process) {
  return 0;
}

int main() {
  procpool::Pool pool{1};
#ifndef PROCPOOL_CONTROL
  std::mutex mutex;
  std::atomic<int> number{1};
  pool.apply(lock, mutex);
  pool.apply(hold, std::unique_lock(mutex));
  pool.apply(count, number);
  pool.apply(join, std::thread());
  pool.apply(await, std::future<int>());
  pool.apply(print, std::cout);
  pool.apply(save, std::ofstream());
  pool.apply(submit, pool);
  pool.apply(read, procpool::AsyncResult<int>());
  pool.apply(wait, procpool::Process([] {}));
#endif
}
