#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# g++ 11, the compiler of Ubuntu 22.04, lays classes with bases out in another way than its
# successors: a pool compiles, and runs. Usage: gxx11.sh INCLUDE_FOLDER
set -u
command -v g++-11 >/dev/null || exit 77
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
echo '#include <procpool/procpool.hpp>
int main() { procpool::Pool pool{2}; return pool.apply([](int i) { return i; }, 0); }' >"$dir/a.cpp"
g++-11 -std=c++20 -O0 -I "$1" "$dir/a.cpp" -o "$dir/a" -lfmt -pthread && timeout 30 "$dir/a"
