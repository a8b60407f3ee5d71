#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Draws the main comparisons from the figures of `run`:

    tests/bench/picture.py build/bench/results.json docs/performance.svg

Bars on one logarithmic scale of time: shorter is faster. All figures come from the file."""

import json
import math
import pathlib
import sys
from xml.sax.saxutils import escape

# measure, title, and how a figure becomes nanoseconds of one unit of work
SIZE = 64 << 20
TIMES = {"ns": 1, "us": 1e3, "ms": 1e6, "s": 1e9}
PANELS = [
    ("apply_awake", "apply of an empty function: there and back"),
    ("apply_idle", "the same after 10 ms of idleness"),
    ("stream", "one of 200,000 apply_async + get"),
    ("map_single", "one item of a map, chunksize 1"),
    ("map_longs", "one long of a map over 1,000,000"),
    ("map_strings", "one string of a map over 10,000"),
    ("large_argument", "64 MiB vector<double> as argument"),
    ("large_result", "64 MiB vector<double> as result, made anew for each call"),
    ("start_small", "Pool(2) to first result"),
]
OURS = {"procpool", "lambda", "spawn"}
NAMES = {"lambda": "procpool, a lambda", "spawn": "procpool, by spawn",
         "copies": "the copies that it takes, alone", "fork": "a bare fork", "ping-pong": "two processes, bare cache lines",
         "futex": "two processes, bare futex", "memcpy": "memcpy", "mutex queue":
         "std::packaged_task, mutex queue", "two threads": "loop split over two std::threads"}

LEFT, WIDTH, RIGHT = 230, 400, 100  # names, bars, figures
BAR, GAP, TITLE = 15, 5, 24
STYLE = """
  text { font: 12px system-ui, sans-serif; fill: #24292f }
  .title { font-weight: 600 } .head { font-size: 16px; font-weight: 600 }
  .small { font-size: 11px; fill: #57606a } .name { text-anchor: end }
  .grid { stroke: #d0d7de; stroke-width: 1 } .tick { text-anchor: middle }
  .ours { fill: #0969da } .peer { fill: #afb8c1 }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3 } .small { fill: #9198a1 } .grid { stroke: #30363d }
    .ours { fill: #4493f8 } .peer { fill: #656c76 }
  }
"""


def nanoseconds(entry):
    value = entry["median"]
    if entry["unit"] == "GB/s":
        return SIZE / value
    return value * TIMES[entry["unit"]]


def readable(value):
    for unit, size in (("s", 1e9), ("ms", 1e6), ("µs", 1e3), ("ns", 1)):
        if value >= size:
            break
    return f"{value / size:.3g} {unit}"


def panels(measures):
    """[(title, [(name, nanoseconds, whether it is procpool)])], the fastest first."""
    found = []
    for measure, title in PANELS:
        bars = [(NAMES.get(who, who), nanoseconds(entry), who in OURS)
                for who, entry in measures.get(measure, {}).items()]
        if any(ours for _, _, ours in bars):
            found.append((title, sorted(bars, key=lambda bar: bar[1])))
    return found


class Picture:
    def __init__(self, shown):
        values = [value for _, bars in shown for _, value, _ in bars]
        self.low = math.floor(math.log10(min(values)))
        self.high = math.ceil(math.log10(max(values)))
        self.high += self.high == self.low
        self.parts = []

    def x(self, value):
        return LEFT + WIDTH * (math.log10(value) - self.low) / (self.high - self.low)

    def text(self, x, y, text, kind=""):
        attribute = f' class="{kind}"' if kind else ""
        self.parts.append(f'<text x="{x:.0f}" y="{y:.0f}"{attribute}>{escape(text)}</text>')

    def grid(self, top, bottom):
        for power in range(self.low, self.high + 1):
            x = self.x(10.0 ** power)
            self.parts.append(
                f'<line x1="{x:.1f}" y1="{top}" x2="{x:.1f}" y2="{bottom}" class="grid"/>')
            self.text(x, top - 6, readable(10.0 ** power), "small tick")

    def panel(self, y, title, bars):
        self.text(LEFT, y + TITLE - 8, title, "title")
        y += TITLE
        for name, value, ours in bars:
            self.text(LEFT - 8, y + BAR - 3, name, "name title" if ours else "name")
            width = max(self.x(value) - LEFT, 1)
            self.parts.append(f'<rect x="{LEFT}" y="{y}" width="{width:.1f}" height="{BAR}" rx="2" '
                              f'class="{"ours" if ours else "peer"}"/>')
            self.text(LEFT + width + 6, y + BAR - 3, readable(value), "title" if ours else "")
            y += BAR + GAP
        return y + GAP


def draw(results):
    shown = panels(results["measures"])
    if not shown:
        sys.exit("none of the measures of the picture is in the file")
    picture = Picture(shown)
    top = 84
    bottom = top + sum(TITLE + len(bars) * (BAR + GAP) + GAP for _, bars in shown)
    machine = results["machine"]
    picture.text(12, 24, "What a task costs: shorter is faster, each line is ten times more", "head")
    picture.text(12, 44, f'{results["date"]}: {machine["cpu"]}, {machine["cpus"]} CPUs, Linux '
                 f'{machine["kernel"]}, {machine["compiler"]}, Python {machine["python"]}', "small")
    picture.grid(top, bottom)
    y = top
    for title, bars in shown:
        y = picture.panel(y, title, bars)
    width = LEFT + WIDTH + RIGHT
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {bottom + 8}" '
        f'width="{width}" height="{bottom + 8}" role="img" aria-label="what a task costs">',
        "<!-- made by tests/bench/picture.py -->", f"<style>{STYLE}</style>", *picture.parts,
        "</svg>", ""])


def main():
    if len(sys.argv) != 3:
        sys.exit("usage: picture.py RESULTS.json PICTURE.svg")
    results = json.loads(pathlib.Path(sys.argv[1]).read_text(encoding="utf-8"))
    pathlib.Path(sys.argv[2]).write_text(draw(results), encoding="utf-8")


if __name__ == "__main__":
    main()
