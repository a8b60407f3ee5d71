// SPDX-License-Identifier: MIT
// Reads arbitrary bytes as a pickle, and as messages of a Connection. The first byte says as what.
// Whatever comes out of a pickle is pickled and read again, and must be the same as before. Link
// with libFuzzer, or with replay_main.cpp.
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <map>
#include <optional>
#include <procpool/pickle.hpp>
#include <set>
#include <span>
#include <string>
#include <tuple>
#include <variant>
#include <vector>

namespace {

using value = std::variant<std::monostate, bool, long, std::uint64_t, double, std::string,
                           std::vector<std::byte>>;
using tree = std::vector<std::vector<std::vector<std::optional<long>>>>;
using mixed = std::tuple<std::map<std::string, std::vector<value>>, std::set<long>, value>;

template <class T>
void read_as(std::span<const std::byte> bytes) {
  const auto first = procpool::pickle_dumps(procpool::pickle_loads<T>(bytes));
  if (procpool::pickle_dumps(procpool::pickle_loads<T>(first)) != first) std::abort();
}

/// What a peer may do that follows no protocol.
void receive(std::span<const std::byte> bytes) {
  auto [ours, theirs] = procpool::Pipe();
  if (bytes.size() > 100'000) return;  // what a socket takes without a reader
  if (!bytes.empty() &&
      write(theirs.fileno(), bytes.data(), bytes.size()) != static_cast<ssize_t>(bytes.size())) {
    std::abort();
  }
  theirs.close();
  while (ours.readable()) {
    try {
      if (ours.recv_bytes().size() > bytes.size()) std::abort();
    } catch (const procpool::EOFError&) {
      return;
    }
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const auto* const begin = reinterpret_cast<const std::byte*>(data) + 1;
  const std::vector<std::byte> message(begin, begin + size - 1);  // AddressSanitizer sees its end
  try {
    switch (data[0] % 4) {
      case 0:
        read_as<mixed>(message);
        break;
      case 1:
        read_as<tree>(message);
        break;
      case 2:
        read_as<value>(message);
        break;
      default:
        receive(message);
        break;
    }
  } catch (const procpool::DecodeError&) {
    // The answer to most inputs; anything else ends the program.
  } catch (const std::invalid_argument&) {
    // A str with half a surrogate pair can be read, but not written.
  }
  return 0;
}
