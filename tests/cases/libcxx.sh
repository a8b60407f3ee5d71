#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# clang with libc++, which has no abi::__forced_unwind, and std::stop_token by request only: a pool
# compiles, and runs, with and without. Usage: libcxx.sh INCLUDE_FOLDER
set -u
command -v clang++-19 >/dev/null || exit 77
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
echo '#include <vector>' | clang++-19 -stdlib=libc++ -fsyntax-only -x c++ - 2>/dev/null || exit 77
echo '#include <procpool/procpool.hpp>
int main() { procpool::Pool pool{2}; return pool.apply([](int i) { return i; }, 0); }' >"$dir/a.cpp"
for experimental in -fexperimental-library ''; do
  clang++-19 -std=c++20 -stdlib=libc++ $experimental -DFMT_HEADER_ONLY -O0 -I "$1" "$dir/a.cpp" \
    -o "$dir/a" -pthread && timeout 30 "$dir/a" || exit 1
done
