// expect: there is no Python type for this type, or for a part of it
// expect: no Python type becomes this type, or a part of it
// SPDX-License-Identifier: MIT
#include <procpool/pickle.hpp>
#include <string_view>
#include <vector>

struct Own {
  int x = 0;
};

int main() {
  auto [ours, theirs] = procpool::Pipe();
  ours.send_pickle(std::vector<std::string_view>{"a"});
#ifndef PROCPOOL_CONTROL
  ours.send_pickle(std::vector<Own>(1));
  static_cast<void>(theirs.recv_pickle<std::string_view>());
#endif
}
