#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Tests of what tests/setup.sh does with texts; nothing here runs apt.
set -uo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/../setup.sh"

failed=0
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT

expect() {  # expect WHAT WANTED GOT
  if [ "$2" != "$3" ]; then
    failed=1
    printf 'FAILED: %s\nwanted:\n%s\ngot:\n%s\n' "$1" "$2" "$3" >&2
  fi
}

cat >"$dir/one.list" <<'LIST'
# deb mirror://first bookworm main
deb mirror://other/ other main
deb [signed-by=/keys/a.gpg arch=amd64] mirror://third/debian bookworm main contrib # note
deb mirror://fourth/debian   bookworm   main
LIST
expect "one line, with options" \
  "deb [signed-by=/keys/a.gpg arch=amd64] mirror://third/debian bookworm-backports main" \
  "$(setup_backports_entry "$dir/one.list" 3 bookworm)"
expect "one line, plain" "deb mirror://fourth/debian bookworm-backports main" \
  "$(setup_backports_entry "$dir/one.list" 4 bookworm)"
expect "a comment is no entry" "" "$(setup_backports_entry "$dir/one.list" 1 bookworm)"

cat >"$dir/many.sources" <<'SOURCES'
# The first one is off.
Enabled: no
Types: deb
URIs: mirror://off
Suites: bookworm
Components: main

Types: deb-src
URIs: mirror://source
Suites: bookworm
Components: main

Types: deb deb-src
# a comment
URIs: mirror://right/debian
Suites: bookworm bookworm-updates
Components: main contrib
 non-free
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 abcd
 -----END PGP PUBLIC KEY BLOCK-----

Types: deb
URIs: mirror://security
Suites: bookworm-security
Components: main
SOURCES
expect "deb822: the enabled stanza of the suite, key and all" "Types: deb
URIs: mirror://right/debian
Suites: bookworm-backports
Components: main
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 abcd
 -----END PGP PUBLIC KEY BLOCK-----" "$(setup_backports_entry "$dir/many.sources" 1 bookworm)"
expect "deb822: the last stanza" "Types: deb
URIs: mirror://security
Suites: bookworm-security-backports
Components: main" "$(setup_backports_entry "$dir/many.sources" 1 bookworm-security)"
expect "deb822: no such suite" "" "$(setup_backports_entry "$dir/many.sources" 1 trixie)"

for pair in "3.24 cmake version 3.25.1" "3.24 3.24.0" "1.75 1.83.0.1"; do
  setup_at_least "${pair%% *}" "${pair#* }" || expect "$pair" yes no
done
for pair in "3.24 cmake version 3.9.6" "1.75 1.74.0.3"; do
  setup_at_least "${pair%% *}" "${pair#* }" && expect "$pair" no yes
done

cat >"$dir/ctest.log" <<'LOG'
10/12 Test #10: a ........***Skipped   0.00 sec
	  1 - an output of a test that looks like the sum (Skipped)
92% tests passed, 1 tests failed out of 12

Total Test time (real) =   0.01 sec

The following tests did not run:
	  2 - b (Skipped)
	 10 - c: d (e) (Skipped)
	 13 - f (Disabled)

The following tests FAILED:
	  4 - g (Failed)
LOG
expect "tests that were skipped" "9 passed, 1 failed, 2 skipped" \
  "$(setup_test_counts "$dir/ctest.log")"
printf '100%% tests passed, 0 tests failed out of 7\n' >"$dir/ctest.log"
expect "no test was skipped" "7 passed, 0 failed, 0 skipped" "$(setup_test_counts "$dir/ctest.log")"
: >"$dir/ctest.log"
expect "no test at all" "0 passed, 0 failed, 0 skipped" "$(setup_test_counts "$dir/ctest.log")"

exit $failed
