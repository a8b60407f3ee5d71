// expect: include <procpool/codec/associative.hpp> to send this container
// expect: include <procpool/codec/vocabulary.hpp> to send this type
// expect: include <procpool/codec/list.hpp> to send this list
// expect: include <procpool/codec/chrono.hpp> to send durations
// expect: include <procpool/codec/complex.hpp> to send complex numbers
// expect: include <procpool/codec/path.hpp> to send a std::filesystem::path
// SPDX-License-Identifier: MIT
#include <chrono>
#include <complex>
#include <filesystem>
#include <list>
#include <map>
#include <optional>
#include <procpool/codec.hpp>
#include <string>
#ifdef PROCPOOL_CONTROL
#include <procpool/codec/associative.hpp>
#include <procpool/codec/chrono.hpp>
#include <procpool/codec/complex.hpp>
#include <procpool/codec/list.hpp>
#include <procpool/codec/path.hpp>
#include <procpool/codec/vocabulary.hpp>
#endif

struct Row {
  std::string name;
  std::map<std::string, int> tags;
};

int main() {
  procpool::assert_encodable<Row>();
  procpool::assert_encodable<std::optional<int>>();
  procpool::assert_encodable<std::list<int>>();
  procpool::assert_encodable<std::chrono::seconds>();
  procpool::assert_encodable<std::complex<double>>();
  procpool::assert_encodable<std::filesystem::path>();
}
