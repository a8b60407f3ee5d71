#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Runs a program and compares its output: expect_output.py LINE... -- PROGRAM ARGUMENT...

Its status must be 0, and the lines must be in its output, in this order; others may be between
them. In a LINE <n> stands for a number and ... for any text. (CTest's PASS_REGULAR_EXPRESSION
would look at the output only, not at the status.)"""

import re
import subprocess
import sys


def expression(line):
    """The regular expression for one LINE."""
    return re.escape(line).replace("<n>", r"[\d.]+").replace(re.escape("..."), ".*")


def first_missing(wanted, output):
    """The first LINE that is not there, or None."""
    lines = iter(output.splitlines())
    for line in wanted:
        if not any(re.fullmatch(expression(line), found) for found in lines):
            return line
    return None


def main():
    split = sys.argv.index("--")
    wanted, command = sys.argv[1:split], sys.argv[split + 1:]
    done = subprocess.run(command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True,
                          check=False)
    print(done.stdout, end="", flush=True)
    if done.returncode != 0:
        sys.exit(f"ended with status {done.returncode}")
    missing = first_missing(wanted, done.stdout)
    if missing is not None:
        sys.exit(f"this line is not there, or not in this place: {missing}")


if __name__ == "__main__":
    main()
