// expect: worker_local holds objects whose destructor is public and noexcept
// errors: one each
// SPDX-License-Identifier: MIT
#include <procpool/procpool.hpp>

struct throws_at_its_end {
#ifdef PROCPOOL_CONTROL
  ~throws_at_its_end() {}
#else
  ~throws_at_its_end() noexcept(false) {}
#endif
};

procpool::worker_local<throws_at_its_end> value;

int main() {}
