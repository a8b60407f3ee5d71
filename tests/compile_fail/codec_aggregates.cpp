// expect: a struct with a base class cannot be sent member by member; make the base a member
// expect: a C array as member cannot be sent member by member; make the member a std::array
// expect: a struct with a const or reference member cannot be sent member by member
// expect: a struct of more than 100 members cannot be sent member by member
// SPDX-License-Identifier: MIT
#include <array>
#include <procpool/codec.hpp>
#include <string>

struct Base {
  int number;
};

#ifdef PROCPOOL_CONTROL
struct Derived {
  Base base;
  int more;
};
struct Name {
  int length;
  std::array<char, 16> text;
};
struct Constant {
  int number;
  std::string text;
};
#else
struct Derived : Base {
  int more;
};
struct Name {
  int length;
  char text[16];
};
struct Constant {
  const int number;
  const std::string& text;
};
#endif

// clang-format off
#define TEN(p) int p##0, p##1, p##2, p##3, p##4, p##5, p##6, p##7, p##8, p##9;
struct Wide {
  TEN(a)
  TEN(b)
  TEN(c)
  TEN(d) TEN(e) TEN(f) TEN(g) TEN(h) TEN(i) TEN(j)
#ifndef PROCPOOL_CONTROL
  int last;
#endif
};
// clang-format on

int main() {
  procpool::assert_encodable<Derived>();
  procpool::assert_encodable<Name>();
  procpool::assert_encodable<Constant>();
  procpool::assert_encodable<Wide>();
}
