#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# A program and a shared library that both include procpool, compiled with hidden symbols: each has
# its own copies of the library's variables. The pool of the shared library must end, its task in
# the program's pool must know its worker, and it must know that main called freeze_support().
# Usage: hidden-visibility.sh INCLUDE_FOLDER; CXX is the compiler, or g++
set -u
include=$1
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir" || exit 2
cat >lib.cpp <<'END'
#include <procpool/procpool.hpp>
#define EXPORT extern "C" __attribute__((visibility("default")))
EXPORT int work() {
  procpool::Pool pool{2};
  return pool.apply_async([](int i) { return i; }, 5).get();
}
EXPORT int place(int) { return procpool::current_worker().index(); }
EXPORT int spawned() {
  procpool::Pool pool{{.processes = 1, .start_method = procpool::start_method::spawn}};
  return pool.apply([](int i) { return i; }, 5);
}
END
cat >main.cpp <<'END'
#include <procpool/procpool.hpp>
#include <cstdio>
#include <string_view>
extern "C" { int work(); int place(int); int spawned(); }
int main(int argc, char** argv) {
  procpool::freeze_support(argc, argv);
  const std::string_view what = argv[1];
  if (what == "work") return work() != 5;
  try {
    procpool::Pool pool{1};
    if (pool.apply_async([](int i) { return i; }, 5).get() != 5) return 1;
    return what == "place" ? pool.apply(place, 1) != 0 : spawned() != 5;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s: %s\n", argv[1], error.what());
    return 1;
  }
}
END
flags=(-std=c++20 -O0 -fvisibility=hidden -fvisibility-inlines-hidden -I "$include")
"${CXX:-g++}" "${flags[@]}" -fPIC -shared lib.cpp -o libit.so -lfmt -pthread || exit 2
"${CXX:-g++}" "${flags[@]}" main.cpp -o main -L. -lit -Wl,-rpath,"$dir" -lfmt -pthread || exit 2
wrong=0
for what in work work work work work work place spawned; do
  timeout 20 ./main $what || { echo "$what: wrong"; wrong=1; }
done
exit $wrong
