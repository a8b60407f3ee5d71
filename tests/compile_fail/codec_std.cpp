// expect: std::shared_ptr and std::weak_ptr cannot be sent
// expect: a std::unique_ptr can be sent with the default deleter
// expect: std::function, std::any and std::bind hide what they hold
// expect: threads, locks, atomics and futures belong to one process
// expect: error codes and exception pointers refer to objects of this process
// expect: a std::span is received as a view of the message
// expect: its comparator or hash function must have no state
// SPDX-License-Identifier: MIT
#include <any>
#include <exception>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <procpool/codec.hpp>
#include <procpool/codec/associative.hpp>
#include <procpool/codec/vocabulary.hpp>
#include <span>
#include <thread>
#include <vector>

template <class... Types>
void assert_all() {
  (procpool::assert_encodable<Types>(), ...);
}

int main() {
  assert_all<std::unique_ptr<std::vector<int>>, std::map<int, int, std::greater<>>,
             std::span<const double>>();
#ifndef PROCPOOL_CONTROL
  assert_all<std::vector<std::shared_ptr<int>>, std::unique_ptr<int[]>, std::function<int(int)>,
             std::any, std::mutex, std::vector<std::thread>, std::exception_ptr, std::span<int>,
             std::map<int, int, bool (*)(int, int)>>();
#endif
}
