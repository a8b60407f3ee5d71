// expect: a union cannot be sent, .* use std::variant
// expect: a class with virtual functions cannot be sent
// expect: this class has constructors or non-public members and no codec
// expect: the captures of this lambda cannot be read
// expect: this procpool::codec<T> lacks static void encode
// SPDX-License-Identifier: MIT
#include <procpool/codec.hpp>
#include <variant>
#include <vector>

union Union {
  int number;
  float real;
};

struct Shape {
  virtual ~Shape() = default;
};

class Account {
 public:
  explicit Account(int number) : number_(number) {}
  int number() const { return number_; }

 private:
  int number_;
};

struct Half {
  explicit Half(int) {}
};

template <>
struct procpool::codec<Half> {
  static void encode(encoder& e, const Half&) { e.put(1); }
#ifdef PROCPOOL_CONTROL
  static Half decode(decoder& d) {
    return Half(d.get<int>());
  }
#endif
};

int main() {
  procpool::assert_encodable<Half>();
#ifndef PROCPOOL_CONTROL
  procpool::assert_encodable<Union>();
  procpool::assert_encodable<Shape>();
  procpool::assert_encodable<std::vector<Account>>();
  auto lambda = [x = 1] { return x; };
  procpool::assert_encodable<decltype(lambda)>();
#endif
}
