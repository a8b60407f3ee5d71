#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# A pool of eight workers in a shell with `ulimit -v`: less than it reserves where there is no limit.
# usage: little-address-space.sh INCLUDE_FOLDER
set -u
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cat > "$dir/main.cpp" <<'END'
#include <procpool/procpool.hpp>
int main(int argc, char** argv) {
  procpool::freeze_support(argc, argv);
  for (auto method : {procpool::start_method::fork, procpool::start_method::spawn}) {
    procpool::Pool pool{{.processes = 8, .start_method = method}};
    if (pool.apply([](int i) { return i; }, 5) != 5) return 1;
  }
}
END
${CXX:-g++} -std=c++20 -O0 -I "$1" "$dir/main.cpp" -o "$dir/main" -lfmt -pthread || exit 2
for kib in 300000 100000 60000; do
  (ulimit -v $kib && timeout 60 "$dir/main") || { echo "with $kib KiB: exit code $?"; exit 1; }
done
