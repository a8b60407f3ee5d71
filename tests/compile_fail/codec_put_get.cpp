// expect: a raw pointer cannot be sent to another process
// expect: a union cannot be sent
// SPDX-License-Identifier: MIT
// Without assert_encodable, put and get say the same.
#include <procpool/codec.hpp>
#include <vector>

union Union {
  int number;
  float real;
};

#ifdef PROCPOOL_CONTROL
using pointer = int;
using number = int;
#else
using pointer = int*;
using number = Union;
#endif

struct Row {
  int id;
  std::vector<pointer> values;
};

void send(procpool::encoder& e, const Row& row) {
  e.put(row);
}
std::vector<number> receive(procpool::decoder& d) {
  return d.get<std::vector<number>>();
}
