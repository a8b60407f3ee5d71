# SPDX-License-Identifier: MIT
# What tests/run, examples/run and .ci/run share: what does this machine lack, and installing it.
#
# Sourced by bash. A script calls `setup_need THING...`; nothing is installed, and apt is not even
# asked, when all is there. Things: compiler cmake ninja git python3 pkg-config boost fmt catch2
# openssl g++-11 clang-14 clang-16 clang-19 clang-format clang-tidy spin valgrind tbb joblib mpi4py. Progress goes to stdout, complaints to stderr.

setup_root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
setup_backports_file=/etc/apt/sources.list.d/procpool-backports
setup_hint=""  # what a user without root can pass to an administrator

setup_say() { printf '%s\n' "-- $*"; }

setup_fail() {
  printf '%s\n' "procpool: $*" >&2
  exit 1
}

# ---------------------------------------------------------------- is it there?

setup_has() {
  case $1 in
    compiler) command -v "${CXX:-g++}" >/dev/null ;;
    cmake) command -v cmake >/dev/null && setup_at_least 3.24 "$(cmake --version | head -n 1)" ;;
    ninja) command -v ninja >/dev/null ;;
    clang-14) command -v clang++-14 >/dev/null ;;
    clang-16) command -v clang++-16 >/dev/null && setup_has_sanitizers clang++-16 ;;
    clang-19) setup_compiles clang++-19 -stdlib=libc++ && setup_compiles clang++-19 ;;
    clang-format) command -v clang-format-14 >/dev/null ;;
    clang-tidy) command -v clang-tidy-14 >/dev/null ;;
    tbb) setup_has_header tbb/task_group.h ;;
    openssl) setup_has_header openssl/hmac.h ;;
    joblib) /usr/bin/python3 -c "import joblib" 2>/dev/null ;;
    mpi4py) command -v mpirun >/dev/null && /usr/bin/python3 -c "import mpi4py" 2>/dev/null ;;
    boost | fmt | catch2)
      setup_probe
      grep -qx "$1" <<<"$setup_probed"
      ;;
    *) command -v "$1" >/dev/null ;;
  esac
}

setup_has_header() { echo "#include <$1>" | "${CXX:-g++}" -fsyntax-only -x c++ - 2>/dev/null; }

# setup_compiles COMPILER [FLAG...]: it finds a standard library to link.
setup_compiles() {
  command -v "$1" >/dev/null || return
  echo 'int main() { return new int == nullptr; }' | "$@" -x c++ - -o /dev/null 2>/dev/null
}

# setup_at_least 3.24 "cmake version 3.25.1"
setup_at_least() {
  [ "$(printf '%s\n' "$1" "${2##* }" | sort -V | head -n 1)" = "$1" ]
}

setup_has_sanitizers() {
  find "$("$1" -print-resource-dir)/lib/" -name 'libclang_rt.asan*.a' 2>/dev/null | grep -q .
}

# Sets setup_probed, once, to the libraries that CMake finds in the version we need, one a line.
# CMake is asked rather than the package manager, so that a library under /usr/local or
# CMAKE_PREFIX_PATH counts too.
setup_probe() {
  [ -n "${setup_probed+x}" ] || setup_probed=$(setup_probe_with_cmake)
}

setup_probe_with_cmake() {
  setup_has compiler && setup_has cmake || return 0
  local dir
  dir=$(mktemp -d) || return 0
  cat >"$dir/CMakeLists.txt" <<'PROBE'
cmake_minimum_required(VERSION 3.24)
project(probe LANGUAGES CXX)
find_package(Boost 1.75 CONFIG QUIET)
find_package(fmt 9 CONFIG QUIET)
find_package(Catch2 3 CONFIG QUIET)
set(found "")
foreach(name IN ITEMS Boost fmt Catch2)
  if(${name}_FOUND)
    string(TOLOWER "${name}\n" line)
    string(APPEND found "${line}")
  endif()
endforeach()
file(WRITE "${CMAKE_BINARY_DIR}/found" "${found}")
PROBE
  cmake -S "$dir" -B "$dir/build" -G "$(setup_generator)" >"$dir/log" 2>&1
  cat "$dir/build/found" 2>/dev/null
  rm -rf "$dir"
}

setup_generator() {
  if command -v ninja >/dev/null; then echo Ninja; else echo 'Unix Makefiles'; fi
}

# ---------------------------------------------------------------- which package has it?

setup_packages_of() {
  case $1 in
    compiler) echo g++ ;;
    git) echo git ca-certificates ;;
    ninja) echo ninja-build ;;
    boost) setup_boost_package ;;
    fmt) echo libfmt-dev ;;
    catch2) setup_catch2_package ;;
    clang-16) echo clang-16 libclang-rt-16-dev ;;
    clang-19) echo clang-19 libc++-19-dev libc++abi-19-dev ;;
    clang-format) echo clang-format-14 ;;
    clang-tidy) echo clang-tidy-14 ;;
    tbb) echo libtbb-dev ;;
    openssl) echo libssl-dev ;;
    joblib) echo python3-joblib ;;
    mpi4py) echo python3-mpi4py openmpi-bin ;;
    *) echo "$1" ;;
  esac
}

# Debian 12's default Boost is 1.74, without PFR; its libboost1.81-dev has it.
setup_boost_package() {
  local candidate
  candidate=$(LC_ALL=C apt-cache policy libboost-dev 2>/dev/null | awk '/Candidate:/ { print $2 }')
  if [ -n "$candidate" ] && setup_at_least 1.75 "$candidate"; then
    echo libboost-dev
  else
    echo libboost1.81-dev
  fi
}

# Debian 12 has version 3 in its backports only, where apt takes it from when asked by version.
setup_catch2_package() {
  local version
  version=$(setup_catch2_version)
  echo "catch2${version:+=$version}"
}

# The newest version 3 of Catch2 that apt knows; nothing if it knows none.
setup_catch2_version() {
  apt-cache madison catch2 2>/dev/null |
    awk -F '[ |]+' '$3 ~ /^([3-9]|[1-9][0-9])[.]/ { print $3; exit }'
}

# ---------------------------------------------------------------- installing

# Sets setup_as_root to the words that make a command run as root; fails without a way.
setup_find_root() {
  setup_as_root=(env)
  [ "$(id -u)" = 0 ] && return
  command -v sudo >/dev/null || return
  setup_as_root=(sudo env)
  [ -t 0 ] || sudo -n true 2>/dev/null
}

setup_apt() {
  "${setup_as_root[@]}" DEBIAN_FRONTEND=noninteractive LC_ALL=C apt-get -q \
    -o Acquire::Retries=3 -o DPkg::Lock::Timeout=300 "$@"
}

setup_apt_update() {
  setup_say "apt-get update"
  setup_apt update >/dev/null || setup_say "apt-get update complained; going on with what it has"
}

# The entry of the machine's own sources that Debian's main packages come from, its suite replaced
# by the backports of that suite. $1: the file, $2: the line (one-line format), $3: the suite.
setup_backports_entry() {
  case $1 in
    *.sources)
      awk -v suite="$3" '
        function emit(  i) {
          if (deb && wanted && !off) {
            for (i = 1; i <= n; i++) print kept[i]
            found = 1
            exit
          }
          n = deb = wanted = off = 0
        }
        /^#/ { next }
        /^[ \t]*$/ { emit(); next }
        /^[^ \t]/ { field = tolower($1) }
        field == "types:" { for (i = 1; i <= NF; i++) if ($i == "deb") deb = 1
                            if (/^[^ \t]/) kept[++n] = "Types: deb"; next }
        field == "suites:" { for (i = 1; i <= NF; i++) if ($i == suite) wanted = 1
                             if (/^[^ \t]/) kept[++n] = "Suites: " suite "-backports"; next }
        field == "components:" { if (/^[^ \t]/) kept[++n] = "Components: main"; next }
        field == "enabled:" { if (tolower($2) == "no") off = 1; next }
        { kept[++n] = $0 }
        END { if (!found) emit() }' "$1"
      ;;
    *)
      sed -nE "$2s@^[[:space:]]*deb([[:space:]]+\[[^]]*\])?[[:space:]]+([^[:space:]]+)[[:space:]].*@deb\1 \2 $3-backports main@p" "$1"
      ;;
  esac
}

# Adds the backports suite, from the mirror that this machine already uses.
setup_add_backports() {
  local where suite ending=list entry
  read -r where suite < <(apt-get indextargets --format '$(SOURCESENTRY) $(RELEASE)' \
    'Origin: Debian' 'Component: main' 'Created-By: Packages' | awk '$2 !~ /[-\/]/') || return
  case ${where%:*} in *.sources) ending=sources ;; esac
  entry=$(setup_backports_entry "${where%:*}" "${where##*:}" "$suite")
  [ -n "$entry" ] || return
  setup_say "adding $suite-backports, for Catch2 3, in $setup_backports_file.$ending"
  printf '%s\n' "# Written by tests/run of procpool, for Catch2 3." "$entry" |
    "${setup_as_root[@]}" tee "$setup_backports_file.$ending" >/dev/null || return
  setup_apt_update
}

setup_packages_for() {
  local thing
  for thing; do setup_packages_of "$thing"; done
}

# Says which packages would go: libboost1.74-dev cannot be installed beside libboost1.81-dev.
setup_announce_removals() {
  local removed
  removed=$(setup_apt -s install "$@" 2>/dev/null | awk '/^Remv/ { printf " %s", $2 }')
  [ -z "$removed" ] || setup_say "apt will remove, because they conflict:$removed"
}

# Whether apt has Catch2 3, with the backports suite added if it takes that.
setup_offer_catch2() {
  [ -n "$(setup_catch2_version)" ] && return
  setup_add_backports
  [ -n "$(setup_catch2_version)" ] && return
  "${setup_as_root[@]}" rm -f "$setup_backports_file".{list,sources}
  setup_say "no Catch2 3 in this machine's package sources or their backports"
  return 1
}

setup_install() {
  local things=() thing packages
  setup_apt_update
  for thing; do
    [ "$thing" = catch2 ] && ! setup_offer_catch2 || things+=("$thing")
  done
  [ ${#things[@]} -gt 0 ] || return 0
  mapfile -t packages < <(setup_packages_for "${things[@]}" | tr ' ' '\n')
  setup_say "installing: ${packages[*]}"
  setup_announce_removals --no-install-recommends "${packages[@]}"
  setup_apt install -y --no-install-recommends "${packages[@]}" ||
    setup_fail "apt-get could not install: ${packages[*]}"
  unset setup_probed
  hash -r
}

setup_missing() {
  local thing
  for thing; do setup_has "$thing" || printf '%s ' "$thing"; done
}

# Without these the build stops; the other things have a substitute: CMake fetches the source of a
# library, make does what ninja does, tests that need spin are skipped, a peer is left out of a comparison.
setup_without_substitute() {
  local thing
  for thing; do
    case $thing in
      boost | fmt | catch2 | openssl | spin | tbb | joblib | mpi4py) ;;
      ninja) command -v make >/dev/null || printf 'ninja ' ;;
      *) printf '%s ' "$thing" ;;
    esac
  done
}

# setup_need THING...: returns when all are there, or those at least that have no substitute.
setup_need() {
  local missing hard
  missing=$(setup_missing "$@")
  [ -n "$missing" ] || return 0
  setup_say "missing here: $missing"
  if command -v apt-get >/dev/null && setup_find_root; then
    setup_install $missing
    missing=$(setup_missing "$@")
    [ -n "$missing" ] || return 0
  fi
  hard=$(setup_without_substitute $missing)
  setup_hint="not there and not installed: $missing
(installing takes apt-get, and root or sudo; packages: $(setup_packages_for $missing | tr '\n' ' '))"
  [ -z "$hard" ] || setup_fail "$setup_hint"
  setup_say "$setup_hint"
  setup_say "going on: CMake fetches the source of a missing library, make stands in for ninja, what needs another thing is left out"
}

# ---------------------------------------------------------------- counting

# setup_test_counts LOG: what a run of ctest came to, as "N passed, N failed, N skipped". ctest itself
# counts tests that were skipped as passed; it names them below its sum.
setup_test_counts() {
  awk '/tests passed, [0-9]+ tests? failed out of/ { failed = $4; total = $NF; skipped = 0; summed = 1 }
       summed && /^[ \t]+[0-9]+ - .* \(Skipped\)/ { ++skipped }
       END { printf "%d passed, %d failed, %d skipped\n", total - failed - skipped, failed, skipped }' "$1"
}

# ---------------------------------------------------------------- building

setup_jobs() { nproc 2>/dev/null || echo 2; }

# setup_configure DIR [CMake arguments...]: configures the checkout into DIR.
setup_configure() {
  local dir=$1 fresh=()
  shift
  if [ -e "$dir/CMakeCache.txt" ]; then
    grep -qx "CMAKE_HOME_DIRECTORY:INTERNAL=$setup_root" "$dir/CMakeCache.txt" || fresh=(--fresh)
  fi
  [ -e "$dir/CMakeCache.txt" ] && [ ${#fresh[@]} = 0 ] || fresh+=(-G "$(setup_generator)")
  if command -v ccache >/dev/null; then
    fresh+=(-DCMAKE_CXX_COMPILER_LAUNCHER=ccache)
  fi
  cmake "${fresh[@]}" -S "$setup_root" -B "$dir" "$@" ||
    setup_fail "CMake could not configure the build.${setup_hint:+ 
Perhaps because of what is $setup_hint}"
}

setup_build() {
  cmake --build "$1" --parallel "$(setup_jobs)" "${@:2}" || setup_fail "the build failed"
}
