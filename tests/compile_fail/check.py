#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Checks one program that must not compile: check.py COMPILER INCLUDE_DIR[;INCLUDE_DIR...] FILE

The file's first line is `// expect: REGEX`, and further such lines may follow it. Compiling must
fail and the compiler's output must match every one. With a line `// errors: one each` there must
be as many errors as such lines and no others: nothing follows from what was explained. If the file mentions PROCPOOL_CONTROL, it must
compile when that macro is defined: the proof that it fails for the one reason only."""

import pathlib
import re
import subprocess
import sys


def compile_it(compiler, include_dirs, file, *flags):
    """The compiler's exit status and what it printed."""
    command = [compiler, "-std=c++20", "-fsyntax-only", "-pthread", *flags]
    for place in include_dirs.split(";"):
        if place and place != "/usr/include":
            command += ["-I", place]
    done = subprocess.run([*command, str(file)], stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, errors="replace", check=False)
    return done.returncode, done.stdout


def faults(compiler, include_dirs, file):
    """Sentences about what is not as the file says."""
    text = file.read_text(encoding="utf-8")
    wanted = re.findall(r"^// expect: (.+)$", text, re.MULTILINE)
    if not text.startswith("// expect: "):
        yield "the first line is not `// expect: REGEX`"
    status, output = compile_it(compiler, include_dirs, file)
    if status == 0:
        yield "it compiles"
    for regex in wanted:
        if not re.search(regex, output):
            yield f"the output does not match: {regex}\n{output}"
    errors = re.findall(r"^.*\berror: .*$", output, re.MULTILINE)
    if "\n// errors: one each\n" in text and len(errors) != len(wanted):
        yield "there are {} errors:\n{}".format(len(errors), "\n".join(errors))
    if "PROCPOOL_CONTROL" in text:
        status, output = compile_it(compiler, include_dirs, file, "-DPROCPOOL_CONTROL")
        if status != 0:
            yield f"it does not compile with -DPROCPOOL_CONTROL either\n{output}"


def main():
    compiler, include_dirs, file = sys.argv[1:]
    found = list(faults(compiler, include_dirs, pathlib.Path(file)))
    for fault in found:
        print(f"{file}: {fault}", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
