// expect: a reference cannot be sent to another process
// expect: a pointer to characters cannot be sent .* use std::string
// expect: a function pointer cannot be part of what is sent
// expect: a raw pointer cannot be sent .* send the value
// expect: a C array cannot be sent; use std::array
// expect: this type is only declared here
// SPDX-License-Identifier: MIT
#include <procpool/codec.hpp>
#include <string>
#include <vector>

struct Declared;

struct Row {
  int number;
  std::vector<double> values;
#ifndef PROCPOOL_CONTROL
  std::vector<std::vector<int*>> pointers;
#endif
};

int main() {
  procpool::assert_encodable<Row>();
#ifndef PROCPOOL_CONTROL
  procpool::assert_encodable<std::string&>();
  procpool::assert_encodable<std::vector<const char*>>();
  procpool::assert_encodable<int (*)(int)>();
  procpool::assert_encodable<double[3]>();
  procpool::assert_encodable<Declared>();
#endif
}
