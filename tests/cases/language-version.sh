#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Compiled in a way that the library cannot be used in (no -std=c++20, -fno-rtti, -fno-exceptions,
# -m32, as C), every public header begins with one sentence that says so, and there is no other
# error but the one that ends the compilation.
# usage: language-version.sh INCLUDE_FOLDER
set -u
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
wrong=0

# check_header COMPILER HEADER SENTENCE FLAGS...
check_header() {
  local compiler=$1 header=$2 sentence=$3
  shift 3
  printf '#include <%s>\n' "$header" >"$work/a.cpp"
  if LC_ALL=C "$compiler" "$@" -fsyntax-only -I "$include" "$work/a.cpp" 2>"$work/errors"; then
    printf '%s %s: <%s> compiles\n' "$compiler" "$*" "$header"
    wrong=1
  elif ! grep -m 1 'error: ' "$work/errors" | grep -q "procpool $sentence" ||
    [ "$(grep -c 'error: ' "$work/errors")" -gt 2 ]; then
    printf '%s %s: <%s>:\n' "$compiler" "$*" "$header"
    grep 'error: ' "$work/errors" | head -3
    wrong=1
  fi
}

include=$(cd "$1" && pwd) || exit 1
cd "$include" || exit 1
headers=$(printf '%s\n' procpool/*.hpp procpool/codec/*.hpp)
found=0
for compiler in g++ clang++-16; do
  command -v "$compiler" >/dev/null || continue
  found=1
  for header in $headers; do
    check_header "$compiler" "$header" "needs C++20" -std=c++17
  done
  header=procpool/procpool.hpp
  check_header "$compiler" "$header" "needs exceptions" -std=c++20 -fno-exceptions
  check_header "$compiler" "$header" "needs run-time type information" -std=c++20 -fno-rtti
  check_header "$compiler" "$header" "supports Linux on 64 bits only" -std=c++20 -m32
  check_header "$compiler" "$header" "is a C++ library" -x c
done
[ $found = 1 ] || exit 77
exit $wrong
