// SPDX-License-Identifier: MIT
// Runs a fuzz target without a fuzzer: on the files and directories that are given as arguments,
// or else on random changes of good messages, the same ones in every run.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <vector>

#include "fuzz/everything.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

namespace {

using input = std::vector<std::uint8_t>;

void run(const input& bytes) {
  LLVMFuzzerTestOneInput(bytes.data(), bytes.size());
}

bool replay_file(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  const input bytes{std::istreambuf_iterator<char>(file), {}};
  if (!file) {
    std::fprintf(stderr, "%s: cannot be read\n", path.c_str());
    return false;
  }
  run(bytes);
  return true;
}

int replay(const std::vector<std::filesystem::path>& places) {
  std::size_t count = 0;
  bool all_read = true;
  const auto one = [&](const std::filesystem::path& path) {
    const bool read = replay_file(path);
    all_read = all_read && read;
    count += read ? 1 : 0;
  };
  for (const auto& place : places) {
    if (!std::filesystem::is_directory(place)) {
      one(place);
      continue;
    }
    for (const auto& entry : std::filesystem::recursive_directory_iterator(place)) {
      if (entry.is_regular_file()) one(entry.path());
    }
  }
  std::printf("%zu inputs replayed\n", count);
  return all_read ? 0 : 1;
}

template <class T>
input seed(std::uint8_t kind, const T& value) {
  procpool::detail::byte_buffer buffer;
  procpool::encoder(buffer).put(value);
  input bytes{kind};
  for (const std::byte byte : buffer.view()) bytes.push_back(std::to_integer<std::uint8_t>(byte));
  return bytes;
}

std::vector<input> seeds() {
  const double numbers[] = {1, 2, 3};
  const std::byte raw[] = {std::byte{1}, std::byte{2}};
  const std::uint16_t three[] = {1, 2, 3};
  const auto value = everything::sample();
  return {seed(0, value), seed(0, everything::Everything{}),
          seed(1, everything::Views{"text", numbers, raw, three}), seed(2, value.tree),
          seed(3, value.chain)};
}

/// Counts are where a decoder can be fooled, so that numbers of 8 bytes get extreme values.
void overwrite_number(input& bytes, std::mt19937_64& random) {
  const std::uint64_t extremes[] = {0,
                                    1,
                                    255,
                                    1U << 20,
                                    std::uint64_t{1} << 32,
                                    ~std::uint64_t{0},
                                    std::uint64_t{1} << 63,
                                    bytes.size(),
                                    bytes.size() / 8};
  const std::uint64_t number = extremes[random() % std::size(extremes)];
  if (bytes.size() < 9) return;
  const std::size_t at = 1 + random() % (bytes.size() - 8);
  for (std::size_t i = 0; i < 8; ++i) bytes[at + i] = static_cast<std::uint8_t>(number >> (8 * i));
}

void mutate(input& bytes, std::mt19937_64& random) {
  const std::size_t at = random() % bytes.size();
  const auto byte = static_cast<std::uint8_t>(random());
  const auto place = bytes.begin() + static_cast<std::ptrdiff_t>(at);
  switch (random() % 5) {
    case 0:
      bytes[at] = byte;
      break;
    case 1:
      bytes[at] = static_cast<std::uint8_t>(bytes[at] ^ (1U << (byte % 8)));
      break;
    case 2:
      bytes.insert(place, 1 + byte % 16, byte);
      break;
    case 3:
      bytes.erase(place, bytes.size() > at + 1 + byte % 16 ? place + 1 + byte % 16 : bytes.end());
      break;
    default:
      overwrite_number(bytes, random);
      break;
  }
  if (bytes.empty()) bytes.push_back(byte);
}

int run_random(std::size_t count) {
  std::mt19937_64 random(20240229);  // NOLINT(cert-msc51-cpp): the same inputs in every run
  const auto good = seeds();
  for (const input& bytes : good) run(bytes);
  for (std::size_t i = 0; i < count; ++i) {
    input bytes = good[i % good.size()];
    for (std::size_t changes = 1 + random() % 4; changes != 0; --changes) mutate(bytes, random);
    run(bytes);
  }
  std::printf("%zu random inputs run\n", count);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) return run_random(200'000);
  return replay(std::vector<std::filesystem::path>(argv + 1, argv + argc));
}
