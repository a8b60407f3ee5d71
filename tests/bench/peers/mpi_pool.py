#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""A stream of empty tasks through mpi4py.futures, two workers: for orientation. Run as
`mpirun -n 3 python3 -m mpi4py.futures mpi_pool.py`."""

import json
import sys
import time

from mpi4py.futures import MPIPoolExecutor


def nothing():
    return None


def main():
    tasks = 1_000 if "--quick" in sys.argv else 10_000
    with MPIPoolExecutor(max_workers=2) as pool:
        pool.submit(nothing).result()
        begin = time.perf_counter()
        for future in [pool.submit(nothing) for _ in range(tasks)]:
            future.result()
        cost = (time.perf_counter() - begin) / tasks
    print(json.dumps({"measure": "stream", "who": "mpi4py", "value": cost * 1e9, "unit": "ns"}))


if __name__ == "__main__":
    main()
