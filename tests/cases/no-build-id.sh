#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# A library without a build id, in a program without one. As long as its file is the same spawned
# workers run its functions; when another build of the same size has taken its place they are
# refused, instead of running whatever lies at the same offset there.
# usage: no-build-id.sh INCLUDE_FOLDER
set -u
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
include=$(realpath "$1")
cd "$dir" || exit 2
add='extern "C" long add(long a) { return a + 1; }'
sub='extern "C" long sub(long a) { return a - 1; }'
echo "$add $sub" > old.cpp
echo "$sub $add" > code.cpp
for each in old code; do
  ${CXX:-g++} -O1 -fPIC -shared $each.cpp -o $each.so -Wl,--build-id=none || exit 2
done
cat > main.cpp <<'END'
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <stdexcept>

#include <procpool/procpool.hpp>
extern "C" long add(long);
static long apply(long x) {
  procpool::Pool pool{{.processes = 1, .start_method = procpool::start_method::spawn}};
  return pool.apply(add, x);
}
int main(int argc, char** argv) {
  procpool::freeze_support(argc, argv);
  if (apply(10) != 11) return 1;
  std::filesystem::rename("code.so", "libx.so");  // an upgrade while the program runs
  try {
    std::printf("after the upgrade: add(10) is %ld\n", apply(10));
    return 1;
  } catch (const std::invalid_argument& error) {
    return std::strstr(error.what(), "libx.so") != nullptr ? 0 : 1;
  }
}
END
cp old.so libx.so
${CXX:-g++} -std=c++20 -O0 -I "$include" main.cpp -o main -L. -lx -Wl,-rpath,"$dir" \
  -Wl,--build-id=none -lfmt -pthread || exit 2
timeout 60 ./main
