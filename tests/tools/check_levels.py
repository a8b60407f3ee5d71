#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Checks the headers' order: every header names its level in its second line and includes only
headers of its own or a lower level, never in a circle; headers of level 7 are opt-in, so no other
level's header includes them. Usage: check_levels.py [include directory]"""

import pathlib
import re
import sys

LEVELS = {0: "vocabulary", 1: "codec", 2: "operating system", 3: "memory and rings",
          4: "channels", 5: "processes", 6: "pool", 7: "optional"}
LEVEL_LINE = re.compile(r"// Level ([0-7]): (.+)\.$")
INCLUDE = re.compile(r'^\s*#\s*include\s*[<"](procpool/[^>"]+)[>"]', re.MULTILINE)
OTHER_INCLUDE = re.compile(r'^\s*#\s*include\s*"(?!procpool/)', re.MULTILINE)


class Header:
    def __init__(self, name, text):
        lines = text.splitlines() + ["", "", ""]
        self.name = name
        self.faults = []
        self.includes = INCLUDE.findall(text)
        match = LEVEL_LINE.match(lines[1])
        self.level = int(match[1]) if match else None
        if lines[0] != "// SPDX-License-Identifier: MIT":
            self.faults.append("the first line is not the SPDX line")
        if not match:
            self.faults.append("the second line is not `// Level N: name.`")
        elif match[2] != LEVELS[self.level]:
            self.faults.append(f"level {self.level} is called {LEVELS[self.level]}, not {match[2]}")
        if "#pragma once" not in lines:
            self.faults.append("no #pragma once")
        if OTHER_INCLUDE.search(text):
            self.faults.append("own headers are included as <procpool/...>")


def upward_edges(headers):
    """The sentences about includes that the rule forbids."""
    for header in headers.values():
        for target in header.includes:
            if target not in headers:
                yield f"{header.name}: includes {target}, which does not exist"
            elif None not in (header.level, headers[target].level):
                if headers[target].level > header.level:
                    yield (f"{header.name}: level {header.level} includes {target} "
                           f"of level {headers[target].level}")


def circles(headers):
    """The include circles, each found once, as sentences."""
    done, path = set(), []

    def visit(name):
        if name in path:
            yield "circle: " + " -> ".join(path[path.index(name):] + [name])
        elif name not in done and name in headers:
            path.append(name)
            for target in headers[name].includes:
                yield from visit(target)
            done.add(path.pop())

    for name in sorted(headers):
        yield from visit(name)


def main():
    default = pathlib.Path(__file__).resolve().parents[2] / "include"
    root = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else default
    headers = {}
    for path in sorted(root.rglob("*.hpp")):
        name = path.relative_to(root).as_posix()
        headers[name] = Header(name, path.read_text(encoding="utf-8"))
    faults = [f"{h.name}: {fault}" for h in headers.values() for fault in h.faults]
    faults += [*upward_edges(headers), *circles(headers)]
    for fault in faults:
        print(fault, file=sys.stderr)
    print(f"{len(headers)} headers, {len(faults)} faults")
    return 1 if faults or not headers else 0


if __name__ == "__main__":
    sys.exit(main())
