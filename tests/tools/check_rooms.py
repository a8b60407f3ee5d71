#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Checks the order of the headers.

The folders of include/procpool/detail are rooms. The table "Rooms" in docs/design/architecture.md
lists them from the lowest to the highest, with the public headers that belong to each. A header
includes only headers of its own room or of a lower one, never in a circle. Headers of the row
`optional` are included by nobody. Also checked: the first line, #pragma once, and the sizes below.

    check_rooms.py              says what is wrong; status 1 if anything is
    check_rooms.py --picture    writes the picture of the rooms into architecture.md"""

import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
HEADERS = ROOT / "include" / "procpool"
PAGE = ROOT / "docs" / "design" / "architecture.md"
MOST_LINES = 400  # of a header
MOST_FILES = 14  # of a room
ROW = re.compile(r"^\| `([a-z]+)` \|[^|]*\|([^|]*)\|$", re.MULTILINE)
INCLUDE = re.compile(r"^\s*#\s*include\s*<procpool/([^>]+)>", re.MULTILINE)
OTHER_INCLUDE = re.compile(r'^\s*#\s*include\s*"', re.MULTILINE)
BEGIN, END = "<!-- picture of the rooms, by tests/tools/check_rooms.py --picture -->\n", "<!-- end -->"


class Rooms:
    """The table: rooms in order, and the floor of each header."""

    def __init__(self, page):
        self.names = []
        self.public = {}
        table = page.partition("\n## Rooms\n")[2].partition(BEGIN)[0]
        for name, listed in ROW.findall(table):
            for header in re.findall(r"`([a-z_/*]+(?:\.hpp)?)`", listed):
                self.public[header] = name
            self.names.append(name)
        self.floor = {name: number for number, name in enumerate(self.names)}

    def of(self, header):
        """The room of a header; None if it has none."""
        match = re.match(r"detail/(\w+)/", header)
        if match:
            return match[1] if match[1] in self.floor else None
        folder = header.split("/")[0] + "/*" if "/" in header else header
        return self.public.get(header, self.public.get(folder))


def read_headers():
    return {path.relative_to(HEADERS).as_posix(): path.read_text(encoding="utf-8")
            for path in sorted(HEADERS.rglob("*.hpp"))}


def faults_of(name, text, rooms, headers):
    """What is wrong with one header, as sentences."""
    lines = text.splitlines()
    if not lines or lines[0] != "// SPDX-License-Identifier: MIT":
        yield "the first line is not the SPDX line"
    if "#pragma once" not in lines:
        yield "no #pragma once"
    if OTHER_INCLUDE.search(text):
        yield "own headers are included as <procpool/...>"
    if len(lines) > MOST_LINES:
        yield f"{len(lines)} lines, more than {MOST_LINES}: it is more than one idea"
    room = rooms.of(name)
    if room is None:
        yield "is in no room of the table in docs/design/architecture.md"
        return
    for target in INCLUDE.findall(text):
        if target not in headers:
            yield f"includes {target}, which does not exist"
        elif (other := rooms.of(target)) is not None:
            if rooms.floor[other] > rooms.floor[room]:
                yield f"is in {room} and includes {target} of {other}, which is above it"
            elif other == "optional" and name != target:
                yield f"includes {target}, which is optional"


def circles(headers):
    """The include circles, each found once, as sentences."""
    done, path = set(), []

    def visit(name):
        if name in path:
            yield "circle: " + " -> ".join(path[path.index(name):] + [name])
        elif name not in done and name in headers:
            path.append(name)
            for target in INCLUDE.findall(headers[name]):
                yield from visit(target)
            done.add(path.pop())

    for name in sorted(headers):
        yield from visit(name)


def members(rooms, headers):
    """The headers of each room's folder."""
    found = {name: [] for name in rooms.names}
    for header in headers:
        if header.startswith("detail/") and rooms.of(header):
            found[rooms.of(header)].append(header)
    return found


def picture(rooms, headers):
    """Each room with its files and the rooms that it includes, the highest first."""
    within = members(rooms, headers)
    lines = ["```text", f"{'room':<12} files  includes"]
    for room in reversed(rooms.names):
        if not within[room]:
            continue
        below = {rooms.of(target) for header in within[room]
                 for target in INCLUDE.findall(headers[header]) if target.startswith("detail/")}
        order = sorted(below - {room, None}, key=rooms.floor.get, reverse=True)
        lines.append(f"{room:<12} {len(within[room]):5}  {' '.join(order)}".rstrip())
    return "\n".join(lines + ["```", ""])


def main():
    page = PAGE.read_text(encoding="utf-8")
    rooms, headers = Rooms(page), read_headers()
    drawn = picture(rooms, headers)
    before, _, rest = page.partition(BEGIN)
    old, _, after = rest.partition(END)
    if "--picture" in sys.argv[1:]:
        PAGE.write_text(before + BEGIN + drawn + END + after, encoding="utf-8")
        return 0
    faults = [f"{name}: {fault}" for name, text in headers.items()
              for fault in faults_of(name, text, rooms, headers)]
    faults += circles(headers)
    faults += [f"{room}: {len(found)} headers, more than {MOST_FILES}: it is more than one room"
               for room, found in members(rooms, headers).items() if len(found) > MOST_FILES]
    if old != drawn:
        faults.append("the picture in docs/design/architecture.md is old: check_rooms.py --picture")
    for fault in faults:
        print(fault, file=sys.stderr)
    print(f"{len(headers)} headers, {len(rooms.names)} rooms, {len(faults)} faults")
    return 1 if faults or not headers else 0


if __name__ == "__main__":
    sys.exit(main())
