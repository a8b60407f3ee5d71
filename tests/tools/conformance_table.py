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
CASE = re.compile(r'TEST_CASE\(\s*((?:"(?:[^"\\]|\\.)*"\s*)+),\s*"([^"]*)"', re.S)
NAME = re.compile(r"^(\w+\.test\w*): (.*)$")
HEAD = """# Conformance

CPython's own tests that have been written anew for procpool: the name in CPython, how many test cases stand for it, on
which backends they run, and what they say. Generated from the names and tags of the test cases by
`tests/tools/conformance_table.py`; all of them run in `tests/run`.

The backends are processes started by fork, processes started by spawn, threads, and serial, where the caller runs the
tasks itself. A test is left out of those that do not have what it is about: threads have no memory of their own and
cannot be killed, and serial has no workers at all. A number in brackets is how many of the cases run there.

{count} tests of CPython, {cases} test cases: {totals}.

| CPython's test | cases | backends | what they check |
| --- | --- | --- | --- |
"""

# Which tags keep a test case from running there, as in tests/conformance/CMakeLists.txt.
BACKENDS = {"fork": set(), "spawn": {"fork"}, "threads": {"processes"}, "serial": {"processes", "workers"}}


def cases():
    """All (CPython name, sentence, backends) of test cases."""
    for path in sorted((ROOT / "tests" / "conformance").glob("*_test.cpp")):
        for match in CASE.finditer(path.read_text()):
            text = "".join(re.findall(r'"((?:[^"\\]|\\.)*)"', match.group(1)))
            tags = set(re.findall(r"\[([^\]]+)\]", match.group(2)))
            runs_on = [backend for backend, without in BACKENDS.items() if not tags & without]
            if found := NAME.match(text):
                yield *found.groups(), runs_on


def backends_of(rows):
    """Where all of these cases run, and where some of them do."""
    counts = {backend: sum(backend in row[1] for row in rows) for backend in BACKENDS}
    return ", ".join(
        backend if count == len(rows) else f"{backend} ({count})"
        for backend, count in counts.items() if count > 0)


def page():
    table = {}
    for name, sentence, runs_on in cases():
        table.setdefault(name, []).append((sentence.replace('\\"', '"'), runs_on))
    lines = []
    for name, rows in sorted(table.items()):
        sentences = "; ".join(sentence for sentence, _ in rows)
        lines.append(f"| `{name}` | {len(rows)} | {backends_of(rows)} | {sentences} |\n")
    everything = [row for rows in table.values() for row in rows]
    totals = ", ".join(
        f"{sum(backend in runs_on for _, runs_on in everything)} on {backend}"
        for backend in BACKENDS)
    head = HEAD.format(count=len(table), cases=len(everything), totals=totals)
    return head + "".join(lines)


def main():
    text = page()
    if "--check" not in sys.argv[1:]:
        PAGE.write_text(text)
    elif not PAGE.exists() or PAGE.read_text() != text:
        sys.exit("docs/conformance.md is not up to date: run tests/tools/conformance_table.py")


if __name__ == "__main__":
    main()
