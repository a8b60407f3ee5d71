#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Runs a seed program in both languages and compares what they print.

  compare.py PROGRAM SCRIPT      PROGRAM and python3 SCRIPT print the same
  compare.py --broken SCRIPT     python3 does not accept SCRIPT

Process ids differ from run to run, so each becomes <pid>; that they are as many different ones as
lines is checked. Lines of processes that run at the same time may change places with each other,
not with any other line.
"""

import os
import re
import subprocess
import sys
import tempfile

PID = re.compile(r"(process id: )(\d+)", re.IGNORECASE)
CONCURRENT = re.compile(r"Process (ID: )?\S+ ?(-|,|prints)|Process ID: ")
SECONDS = 60


def run(command):
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    return done.returncode, done.stdout, done.stderr


def check_pids(name, output):
    """Every line that names a process id names another one."""
    pids = [match.group(2) for match in PID.finditer(output)]
    if len(set(pids)) != len(pids):
        sys.exit(f"{name}: the same process id twice: {pids}")


def normalised(output):
    """The lines with ids replaced; each run of concurrent lines sorted."""
    lines = PID.sub(r"\1<pid>", output).splitlines()
    result, together = [], []
    for line in lines:
        if CONCURRENT.match(line):
            together.append(line)
            continue
        result += sorted(together) + [line]
        together = []
    return result + sorted(together)


def outcome(name, command):
    status, output, errors = run(command)
    if status != 0 or errors:
        sys.exit(f"{name}: exit status {status}, stderr:\n{errors}")
    check_pids(name, output)
    return normalised(output)


def compare(program, script):
    ours = outcome("C++", [os.path.abspath(program)])
    theirs = outcome("Python", [sys.executable, script])
    print("\n".join(ours))
    if ours != theirs:
        sys.exit("Python prints something else:\n" + "\n".join(theirs))
    if not ours:
        sys.exit("neither prints anything: nothing was compared")


def expect_broken(script):
    status, _, errors = run([sys.executable, script])
    if status == 0:
        sys.exit(f"Python accepts {script}")
    print("Python says:", errors.strip().splitlines()[-1])


def main(arguments):
    with tempfile.TemporaryDirectory() as folder:
        os.environ["PYTHONPYCACHEPREFIX"] = folder  # nothing is written beside the scripts
        os.environ.pop("PYTHONUNBUFFERED", None)  # it tears lines into pieces, which then mix
        if len(arguments) == 2 and arguments[0] == "--broken":
            expect_broken(arguments[1])
        elif len(arguments) == 2:
            compare(*arguments)
        else:
            sys.exit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])
