#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# A program that is started through the dynamic linker, as bundles do (`ld.so --library-path lib
# ./app`): /proc/self/exe is the linker then. Spawned processes are started the same way, also from
# another folder, and crashes are described with the names of the program's functions.
# usage: loader.sh INCLUDE_FOLDER
set -u
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
mkdir "$dir/lib"
echo 'extern "C" long add(long a) { return a + 1; }' > "$dir/x.cpp"
cat > "$dir/a.cpp" <<'END'
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <exception>
#include <string>

#include <procpool/procpool.hpp>
extern "C" long add(long);
static int boom(int) { std::abort(); }
int main(int argc, char** argv) {
  procpool::freeze_support(argc, argv);
  if (argc != 3 || std::string(argv[2]) != "two words") return 3;
  if (chdir("/") != 0) return 2;
  int wrong = 0;
  try {
    procpool::Pool pool{{.processes = 1, .start_method = procpool::start_method::spawn}};
    wrong += pool.apply(add, 5L) != 6;
  } catch (const std::exception& error) {
    std::printf("spawn: %s\n", error.what());
    ++wrong;
  }
  try {
    procpool::Pool pool{1};
    pool.apply(boom, 1);
  } catch (const procpool::WorkerDied& died) {
    if (std::string(died.what()).find("boom") == std::string::npos) {
      std::printf("no names in: %s\n", died.what());
      ++wrong;
    }
  }
  return wrong != 0 ? 1 : 0;
}
END
${CXX:-g++} -O1 -fPIC -shared "$dir/x.cpp" -o "$dir/lib/libx.so" || exit 2
${CXX:-g++} -std=c++20 -O0 -I "$1" "$dir/a.cpp" -o "$dir/a" -L "$dir/lib" -lx -lfmt -pthread || exit 2
linker=$(readelf -l "$dir/a" | sed -n 's/.*interpreter: \(.*\)\]/\1/p')
cd "$dir" || exit 2
LD_LIBRARY_PATH=$dir/lib timeout 30 ./a one "two words" || { echo "started plainly: $?"; exit 1; }
timeout 30 "$linker" --library-path "$dir/lib" ./a one "two words" || { echo "by the linker: $?"; exit 1; }
