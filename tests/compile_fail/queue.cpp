// expect: a received view would refer to memory of the queue that is used again
// expect: procpool: a raw pointer cannot be sent
// expect: items of a queue are values: no references, not const
// SPDX-License-Identifier: MIT
// Items that cannot be in a queue.
#include <string>
#include <string_view>

#include <procpool/queue.hpp>

int main() {
  const procpool::Queue<std::string> good;
#ifndef PROCPOOL_CONTROL
  const procpool::Queue<std::string_view> view;
  const procpool::JoinableQueue<int*> pointer;
  const procpool::SimpleQueue<const int> constant;
#endif
}
