#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""A stream of empty tasks through joblib, one task at a time, two workers: for orientation."""

import json
import sys
import time

import joblib


def nothing():
    return None


def main():
    tasks = 1_000 if "--quick" in sys.argv else 10_000
    with joblib.Parallel(n_jobs=2, batch_size=1, pre_dispatch="all") as parallel:
        parallel(joblib.delayed(nothing)() for _ in range(100))
        begin = time.perf_counter()
        results = parallel(joblib.delayed(nothing)() for _ in range(tasks))
        cost = (time.perf_counter() - begin) / tasks
    if len(results) != tasks:
        sys.exit("wrong: the number of results")
    print(json.dumps({"measure": "stream", "who": "joblib", "value": cost * 1e9, "unit": "ns"}))


if __name__ == "__main__":
    main()
