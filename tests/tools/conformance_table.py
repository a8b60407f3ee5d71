#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Writes docs/conformance.md from the names of the test cases in tests/conformance.

With --check it writes nothing and fails when the page is not what it would write.
"""
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "conformance.md"
CASE = re.compile(r'TEST_CASE\(\s*((?:"(?:[^"\\]|\\.)*"\s*)+)', re.S)
NAME = re.compile(r"^(\w+\.test\w*): (.*)$")
HEAD = """# Conformance

CPython's own tests that have been written anew for procpool: the name in CPython, how many test cases stand for it and
what they say. Generated from the names of the test cases by `tests/tools/conformance_table.py`; all of them run in
`tests/run`, on processes started by fork.

{count} tests of CPython, {cases} test cases.

| CPython's test | cases | what they check |
| --- | --- | --- |
"""


def cases():
    """All (CPython name, sentence) pairs."""
    for path in sorted((ROOT / "tests" / "conformance").glob("*_test.cpp")):
        for match in CASE.finditer(path.read_text()):
            text = "".join(re.findall(r'"((?:[^"\\]|\\.)*)"', match.group(1)))
            if found := NAME.match(text):
                yield found.groups()


def page():
    table = {}
    for name, sentence in cases():
        table.setdefault(name, []).append(sentence.replace('\\"', '"'))
    rows = "".join(
        f"| `{name}` | {len(table[name])} | {'; '.join(table[name])} |\n" for name in sorted(table))
    return HEAD.format(count=len(table), cases=sum(map(len, table.values()))) + rows


def main():
    text = page()
    if "--check" not in sys.argv[1:]:
        PAGE.write_text(text)
    elif not PAGE.exists() or PAGE.read_text() != text:
        sys.exit("docs/conformance.md is not up to date: run tests/tools/conformance_table.py")


if __name__ == "__main__":
    main()
