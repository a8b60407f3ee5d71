// SPDX-License-Identifier: MIT
//
// Values on their way between processes: a producer, workers that were there before, results.
//
//     jobs, results = Manager().Queue(100), Manager().Queue()
//     producer = Process(target=produce, args=(jobs,)); producer.start()
//     pool.starmap_async(work, [(jobs, results)] * 2)

#include <fmt/core.h>

#include <chrono>
#include <string>
#include <utility>
#include <vector>

#include <procpool/procpool.hpp>

using job_queue = procpool::JoinableQueue<std::string>;
using length_queue = procpool::Queue<std::pair<std::string, std::size_t>>;

/// A process: puts lines. It waits while 100 are there.
void produce(job_queue jobs) {
  for (int i = 0; i < 1000; ++i) jobs.put(fmt::format("line {}", i));
}

/// A task: takes lines until there are no more.
void measure(job_queue jobs, length_queue lengths) {
  for (const std::string& line : jobs) {
    lengths.put({line, line.size()});
    jobs.task_done();
  }
}

int main() {
  procpool::Pool pool{2};
  job_queue jobs{{.maxsize = 100}};
  length_queue lengths;

  auto first = pool.apply_async(measure, jobs, lengths);
  auto second = pool.apply_async(measure, jobs, lengths);
  procpool::Process producer(produce, jobs);
  producer.start();
  producer.join();
  jobs.join();   // all lines are measured
  jobs.close();  // the tasks end
  first.get();
  second.get();

  std::size_t total = 0;
  const std::size_t count = lengths.qsize();
  for (const auto& [line, length] : lengths.get_many(count)) total += length;
  while (const auto next = lengths.try_get()) total += next->second;
  fmt::print("{} lines of {} characters\n", count, total);

  try {
    lengths.get(std::chrono::milliseconds(10));
  } catch (const procpool::Empty& error) {
    fmt::print("{}\n", error.what());
  }
  try {
    jobs.put("more");
  } catch (const procpool::QueueClosed& error) {
    fmt::print("{}\n", error.what());
  }
}
