// SPDX-License-Identifier: MIT
// Runs a fuzz target without a fuzzer: on the files and folders that are given as arguments, or on
// encoded values of its own if none is. `--random 1000` before them: also on so many random changes
// of those, the same ones in every run.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#include "fuzz/everything.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

namespace {

using input = std::vector<std::uint8_t>;

void run(const input& bytes) {
  LLVMFuzzerTestOneInput(bytes.data(), bytes.size());
}

input read_file(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  input bytes{std::istreambuf_iterator<char>(file), {}};
  if (!file) throw std::runtime_error(path.string() + ": cannot be read");
  return bytes;
}

/// The contents of all these files, and of the files in these folders; in the same order always.
std::vector<input> read_all(const std::vector<std::filesystem::path>& places) {
  std::vector<std::filesystem::path> files;
  for (const auto& place : places) {
    if (!std::filesystem::is_directory(place)) {
      files.push_back(place);
      continue;
    }
    for (const auto& entry : std::filesystem::recursive_directory_iterator(place)) {
      if (entry.is_regular_file()) files.push_back(entry.path());
    }
  }
  std::sort(files.begin(), files.end());
  std::vector<input> all;
  for (const auto& file : files) all.push_back(read_file(file));
  return all;
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
  if (bytes.empty()) bytes.push_back(0);
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

void run_random(const std::vector<input>& good, std::size_t count) {
  std::mt19937_64 random(20240229);  // NOLINT(cert-msc51-cpp): the same inputs in every run
  for (std::size_t i = 0; i < count; ++i) {
    input bytes = good[i % good.size()];
    for (std::size_t changes = 1 + random() % 4; changes != 0; --changes) mutate(bytes, random);
    run(bytes);
  }
}

}  // namespace

int main(int argc, char** argv) try {
  std::vector<std::string> words(argv + 1, argv + argc);
  std::size_t count = words.empty() ? 200'000 : 0;
  if (words.size() >= 2 && words[0] == "--random") {
    count = std::stoul(words[1]);
    words.erase(words.begin(), words.begin() + 2);
  }
  auto good = read_all({words.begin(), words.end()});
  if (words.empty()) good = seeds();
  if (good.empty()) throw std::runtime_error("there are no inputs");
  for (const input& bytes : good) run(bytes);
  run_random(good, count);
  std::printf("%zu inputs run, and %zu random changes of them\n", good.size(), count);
  return 0;
} catch (const std::exception& error) {
  std::fprintf(stderr, "%s\n", error.what());
  return 1;
}
