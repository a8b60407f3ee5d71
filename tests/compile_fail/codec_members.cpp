// expect: a struct that is packed or has bit-fields cannot be sent member by member
// expect: a struct with an anonymous union cannot be sent member by member
// expect: nothing is aligned to more than 16 bytes; use std::vector
// SPDX-License-Identifier: MIT
#include <procpool/procpool.hpp>
#include <span>
#include <vector>

struct bits {
  int before;
  double real;
  short one, two, three, four;
  unsigned low : 3;
  unsigned high : 29;
};
struct __attribute__((packed)) packed {
  char letter;
  int number;
  int a, b, c, d, e, f, g, h;
};
struct either {
  int kind;
  union {
    int number;
    float real;
  };
};
struct alignas(32) wide {
  double value[4];
};
union named {
  int number;
};
template <>
struct procpool::codec<named> : procpool::flat_codec<named> {};
struct holds_named {  // its union has a codec
  int kind;
  named inner;
};

int low(bits b) {
  return static_cast<int>(b.low);
}
int number(packed p) {
  return p.number;
}
int kind(either e) {
  return e.kind;
}
int inner(holds_named h) {
  return h.kind;
}
double first(std::span<const wide> all) {
  return all[0].value[0];
}

int main() {
  procpool::Pool pool{1};
  pool.apply(inner, holds_named{});
#ifndef PROCPOOL_CONTROL
  pool.apply(low, bits{});
  pool.apply(number, packed{});
  pool.apply(kind, either{});
  pool.apply(first, std::vector<wide>(2));
#endif
}
