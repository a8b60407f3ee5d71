#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Checks that every test case has a name that ctest keeps: a bracket in one garbles the list that
Catch2's CMake code makes of all, and ~ at the start would run all tests but this one."""

import pathlib
import re
import sys

TESTS = pathlib.Path(__file__).resolve().parents[1]
CASE = re.compile(r'\b(?:TEMPLATE_)?TEST_CASE\(\s*((?:"(?:[^"\\]|\\.)*"\s*)+)')
LITERAL = re.compile(r'"((?:[^"\\]|\\.)*)"')
BAD = re.compile(r"^~|[\[\]]")


def names(path):
    """The names of the test cases in a file, adjacent string literals joined."""
    for match in CASE.finditer(path.read_text(encoding="utf-8")):
        yield "".join(LITERAL.findall(match[1]))


def main():
    count, faults = 0, 0
    for path in sorted(TESTS.rglob("*_test.cpp")):
        for name in names(path):
            count += 1
            if BAD.search(name):
                faults += 1
                print(f"{path.relative_to(TESTS)}: {name}", file=sys.stderr)
    print(f"{count} test cases, {faults} with a name that CTest would garble")
    return 1 if faults or not count else 0


if __name__ == "__main__":
    sys.exit(main())
