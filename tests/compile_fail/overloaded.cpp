// expect: a_function_that_is_overloaded_or_a_template_needs_a_lambda_around_it|needs a lambda
// around it SPDX-License-Identifier: MIT The compilers say themselves what the matter is; the first
// line says what to do.
#include <procpool/procpool.hpp>
#include <vector>

int half(int a) {
  return a / 2;
}
double half(double a) {
  return a / 2;
}
template <class T>
T twice(T a) {
  return 2 * a;
}

int main() {
  procpool::Pool pool{1};
  pool.apply([](int a) { return half(a); }, 1);
  pool.apply(twice<int>, 1);
#ifndef PROCPOOL_CONTROL
  pool.apply(half, 1);
  pool.apply_async(twice, 1);
  pool.map(half, std::vector<int>{1});
#endif
}
