// expect: send_pickle\(\) needs #include <procpool/pickle.hpp>
// expect: recv_pickle\(\) needs #include <procpool/pickle.hpp>
// expect: an authkey needs #include <procpool/authentication.hpp>
// expect: recv\(\) cannot return a view
// expect: std::shared_ptr and std::weak_ptr cannot be sent
// SPDX-License-Identifier: MIT
#include <memory>
#include <procpool/procpool.hpp>
#include <string>
#include <string_view>

int main() {
  auto [ours, theirs] = procpool::Pipe();
  ours.send(std::string_view("text"));
  static_cast<void>(theirs.recv<std::string>());
  const procpool::Listener listener{{.address = ""}};
#ifndef PROCPOOL_CONTROL
  ours.send_pickle(1);
  static_cast<void>(theirs.recv_pickle<int>());
  const procpool::Listener locked{{.authkey = "key"}};
  static_cast<void>(theirs.recv<std::string_view>());
  ours.send(std::make_shared<int>(1));
#endif
}
