#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The same measures with Python's own multiprocessing.Pool(2), started by fork."""

import array
import json
import multiprocessing
import statistics
import sys
import time

QUICK = "--quick" in sys.argv
LARGE = 64 << 20
kept = None


def nothing(*_):
    return None


def square(x):
    return x * x


def reversed_text(text):
    return text[::-1]


def ends_of(values):
    return values[0] + values[len(values) // 2] + values[-1]


def answer():
    return kept


def require(right, what):
    if not right:
        sys.exit(f"wrong: {what}")


def scaled(full, short):
    return short if QUICK else full


def median(times, work):
    """Seconds."""
    costs = []
    for _ in range(times):
        begin = time.perf_counter()
        work()
        costs.append(time.perf_counter() - begin)
    return statistics.median(costs)


def report(measure, value, unit):
    print(json.dumps({"measure": measure, "who": "Python", "value": value, "unit": unit}))


def apply_awake(pool):
    require(pool.apply(square, (7,)) == 49, "apply")
    report("apply_awake", median(scaled(2000, 200), lambda: pool.apply(nothing)) * 1e9, "ns")


def stream(pool):
    tasks = scaled(200_000, 5_000)

    def once():
        for result in [pool.apply_async(nothing) for _ in range(tasks)]:
            result.get()

    report("stream", median(1, once) / tasks * 1e9, "ns")


def map_single(pool):
    items = range(scaled(200_000, 5_000))
    require(pool.map(square, range(100), chunksize=1) == [i * i for i in range(100)], "map")
    cost = median(1, lambda: pool.map(nothing, items, chunksize=1))
    report("map_single", cost / len(items) * 1e9, "ns")


def map_longs(pool):
    items = list(range(1_000_000))
    require(pool.map(square, items) == [i * i for i in items], "map")
    report("map_longs", median(scaled(5, 1), lambda: pool.map(square, items)) * 1e3, "ns")


def map_strings(pool):
    items = [str(i).ljust(100, "x") for i in range(10_000)]
    require(pool.map(reversed_text, items) == [reversed_text(text) for text in items], "map")
    report("map_strings", median(scaled(9, 3), lambda: pool.map(reversed_text, items)) * 1e5, "ns")


def large_values():
    return array.array("d", range(LARGE // 8))


def large_argument(pool):
    values = large_values()
    require(pool.apply(ends_of, (values,)) == ends_of(values), "argument")
    cost = median(3, lambda: pool.apply(ends_of, (values,)))
    report("large_argument", LARGE / cost / 1e9, "GB/s")


def large_result(pool):
    require(ends_of(pool.apply(answer)) == ends_of(kept), "result")
    report("large_result", LARGE / median(3, lambda: pool.apply(answer)) / 1e9, "GB/s")


def start():
    costs = []
    for _ in range(scaled(11, 3)):
        begin = time.perf_counter()
        with multiprocessing.get_context("fork").Pool(2) as pool:
            require(pool.apply(square, (7,)) == 49, "apply")
            costs.append(time.perf_counter() - begin)
    report("start_small", statistics.median(costs) * 1e3, "ms")


def main():
    global kept
    name = next(word for word in sys.argv[1:] if not word.startswith("--"))
    if name == "start_small":
        return start()
    if name == "large_result":
        kept = large_values()
    with multiprocessing.get_context("fork").Pool(2) as pool:
        globals()[name](pool)
    return None


if __name__ == "__main__":
    main()
