#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Checks that every .cpp of tests/ and examples/ is named in a CMakeLists.txt of its folder or of
one above, or matches a pattern there: a source that nobody lists is a test that never runs."""

import fnmatch
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
BY_FOLDER = {"tests/compile_fail", "tests/package"}  # taken by their drivers


def listed(folder):
    """The words of the CMakeLists.txt files from @p folder upwards, as paths from the root."""
    words = set()
    for place in [folder, *folder.parents]:
        lists = place / "CMakeLists.txt"
        if lists.exists():
            for word in re.findall(r"(?<![\w./*-])[\w*][\w./*-]*", lists.read_text(encoding="utf-8")):
                words.add((place / word).relative_to(ROOT).as_posix())
        if place == ROOT:
            return words
    return words


def main():
    lost = []
    for top in ("tests", "examples"):
        for path in sorted((ROOT / top).rglob("*.cpp")):
            name = path.relative_to(ROOT).as_posix()
            if any(name.startswith(folder + "/") for folder in BY_FOLDER):
                continue
            words = listed(path.parent)
            if not any(fnmatch.fnmatchcase(name, word) or name == word + ".cpp" for word in words):
                lost.append(name)
    for name in lost:
        print(f"{name}: in no CMakeLists.txt", file=sys.stderr)
    return 1 if lost else 0


if __name__ == "__main__":
    sys.exit(main())
