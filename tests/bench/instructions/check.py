#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Counts the instructions of an empty task, part by part, with valgrind's callgrind, and compares
them with the recorded figures: an optimization that is lost again is seen without a clock.

    check.py PROGRAM --compiler "NAME VERSION" [--record]

Status 77: cannot tell here, because valgrind or the compiler of the recorded figures is missing."""

import argparse
import json
import pathlib
import re
import shutil
import subprocess
import sys

RECORDED = pathlib.Path(__file__).resolve().parent / "recorded.json"
TOLERANCE = 0.10
SKIPPED = 77
WORK = "counted_work"  # runs inside the parent's parts, and is not counted with them

# name: what the program does, and whose instructions count
PARTS = {
    "apply, parent": ("apply", ["counted_round_trips", WORK]),
    "apply, worker": ("apply", [WORK]),
    "stream, submit": ("submit", ["counted_submit", WORK]),
    "stream, drain": ("drain", ["counted_finish", WORK]),
    "stream, worker": ("drain", [WORK]),
}


def skip(why):
    print(f"skipped: {why}")
    sys.exit(SKIPPED)


def count(program, word, functions):
    """Instructions for each task."""
    command = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null",
               "--collect-atstart=no", *(f"--toggle-collect={name}" for name in functions),
               program, word]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                          check=False)
    total = re.search(r"Collected : (\d+)", done.stderr)
    tasks = re.search(r"tasks (\d+)", done.stdout)
    if done.returncode != 0 or not total or not tasks:
        sys.exit(f"{' '.join(command)}: status {done.returncode}\n{done.stdout}{done.stderr}")
    return round(int(total[1]) / int(tasks[1]), 1)


def compare(counts, recorded):
    """Prints the table; whether all are within the tolerance."""
    good = True
    for name, now in counts.items():
        before = recorded.get(name)
        if before is None:
            print(f"{name:16} {now:8.1f}  not recorded")
            good = False
            continue
        change = now / before - 1
        verdict = "ok"
        if change > TOLERANCE:
            verdict, good = "MORE than recorded", False
        elif change < -TOLERANCE:
            verdict = "less than recorded: record it with --record"
        print(f"{name:16} {now:8.1f}  recorded {before:8.1f}  {change:+7.1%}  {verdict}")
    return good


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("program")
    parser.add_argument("--compiler", required=True)
    parser.add_argument("--record", action="store_true")
    given = parser.parse_args()
    if shutil.which("valgrind") is None:
        skip("valgrind is not installed")
    recorded = json.loads(RECORDED.read_text(encoding="utf-8")) if RECORDED.exists() else {}
    if not given.record and recorded.get("compiler") != given.compiler:
        skip(f"the figures are of {recorded.get('compiler')}, this is {given.compiler}")
    counts = {name: count(given.program, *part) for name, part in PARTS.items()}
    if given.record:
        whole = {"compiler": given.compiler, "instructions per task": counts}
        RECORDED.write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")
    if not compare(counts, recorded.get("instructions per task", {})) and not given.record:
        sys.exit("an empty task costs more instructions than recorded; if that is intended, record "
                 "the new figures: cmake --build BUILD --target procpool_record_instructions")


if __name__ == "__main__":
    main()
