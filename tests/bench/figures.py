# SPDX-License-Identifier: MIT
"""Figures that no program can tell of itself: what an idle pool costs, as seen in /proc, and how
long a compiler takes; and where the tools for that are."""

import functools
import json
import os
import pathlib
import shlex
import shutil
import statistics
import subprocess
import sys
import time

# ------------------------------------------------------------------------ an idle pool

WORKERS = 64


def family(pid):
    """The process and all that come from it."""
    found = [pid]
    for parent in found:
        for thread in pathlib.Path(f"/proc/{parent}/task").iterdir():
            found += [int(child) for child in (thread / "children").read_text().split()]
    return found


def switches_and_cpu(pids):
    """Context switches and nanoseconds of CPU time of all threads so far."""
    switches = cpu = 0
    for pid in pids:
        for thread in pathlib.Path(f"/proc/{pid}/task").iterdir():
            for line in (thread / "status").read_text().splitlines():
                if "ctxt_switches" in line:
                    switches += int(line.split()[1])
            cpu += cpu_of(thread)
    return switches, cpu


def cpu_of(thread):
    """Nanoseconds; in ticks of the kernel where it does not keep schedstat."""
    try:
        return int((thread / "schedstat").read_text().split()[0])
    except OSError:
        words = (thread / "stat").read_text().rpartition(")")[2].split()
        return (int(words[11]) + int(words[12])) * 10**9 // os.sysconf("SC_CLK_TCK")


def dirty_kib(pid):
    for line in pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Private_Dirty:"):
            return int(line.split()[1])
    return 0


def idle_pool(_, settings):
    """What a pool of 64 workers does while it has nothing to do."""
    program = settings.build / "tests/bench/procpool_bench_lives"
    with subprocess.Popen([program, "idle"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                          text=True) as pool:
        if pool.stdout.readline() != "idle\n":
            sys.exit("the pool that was to be idle has failed")
        time.sleep(1)
        pids = family(pool.pid)
        switches, cpu = switches_and_cpu(pids)
        time.sleep(2 if settings.quick else 10)
        switches_after, cpu_after = switches_and_cpu(family(pool.pid))
        workers = [pid for pid in pids if not family(pid)[1:]]  # who have no children themselves
        if len(workers) != WORKERS:
            sys.exit(f"{len(workers)} idle workers instead of {WORKERS}")
        dirty = statistics.median(dirty_kib(pid) for pid in workers)
        pool.communicate("\n")
    return [line("idle_switches", switches_after - switches, ""),
            line("idle_cpu", (cpu_after - cpu) / 1e6, "ms"),
            line("idle_dirty", dirty, "KiB")]


def line(measure, value, unit, who="procpool"):
    return {"measure": measure, "who": who, "value": value, "unit": unit}


# ------------------------------------------------------------------------ compile times

EMPTY = "#include <procpool/procpool.hpp>\nint main() {}\n"
COMPILED = ["-DPROCPOOL_COMPILED"]  # what linking procpool::compiled adds
SOURCES = {
    "header": ("compile_header", "procpool", EMPTY),
    "header_compiled": ("compile_header", "compiled", EMPTY),
    "others": ("compile_header", "fmt+future+regex",
               "#include <fmt/format.h>\n#include <future>\n#include <regex>\nint main() {}\n"),
    "q5": ("compile_q5", "procpool", None),  # tests/package/main.cpp
    "q5_compiled": ("compile_q5", "compiled", None),
}


def compile_time(word, settings):
    """Seconds of user time."""
    measure, who, text = SOURCES[word]
    source = settings.root / "tests/package/main.cpp"
    if text is not None:
        source = settings.build / f"compile_{word}.cpp"
        source.write_text(text, encoding="utf-8")
    mode = COMPILED if who == "compiled" else []
    command = [settings.compiler, "-std=c++20", "-O2", *settings.flags, *mode, "-c", str(source), "-o",
               str(settings.build / "compile.o")]
    compiler = subprocess.Popen(command)  # pylint: disable=consider-using-with
    _, status, usage = os.wait4(compiler.pid, 0)
    compiler.returncode = os.waitstatus_to_exitcode(status)
    if compiler.returncode != 0:
        sys.exit(f"{source} does not compile")
    return [line(measure, usage.ru_utime, "s", who)]


def compiler_of(build):
    """The compiler of the build, without ccache, and where it was told to look for headers."""
    commands = json.loads((build / "compile_commands.json").read_text(encoding="utf-8"))
    words = next(shlex.split(each["command"]) for each in commands
                 if each["file"].endswith("bench/latency.cpp"))
    if "ccache" in words[0]:
        words = words[1:]
    flags = []
    for word, following in zip(words, words[1:]):
        if word == "-isystem":
            flags += [word, following]
        elif word.startswith("-I"):
            flags.append(word)
    return words[0], flags


# ------------------------------------------------------------------------ the other Pythons

NEEDS = {"python_pool.py": "multiprocessing", "joblib_pool.py": "joblib"}


@functools.cache
def python_with(module):
    """A Python that has this module: the first in PATH, or the system's."""
    for program in (sys.executable, "/usr/bin/python3"):
        try:
            done = subprocess.run([program, "-c", f"import {module}"], stderr=subprocess.DEVNULL,
                                  check=False)
        except OSError:
            continue
        if done.returncode == 0:
            return program
    return None


def python_for(program):
    return python_with(NEEDS[program])


def mpi_command(script):
    """Three ranks, because the first one only hands out; [] when it is not installed."""
    program = python_with("mpi4py.futures")
    if program is None or shutil.which("mpirun") is None:
        return []
    root = ["--allow-run-as-root"] if os.geteuid() == 0 else []
    return ["mpirun", *root, "--oversubscribe", "-n", "3", program, "-m", "mpi4py.futures",
            str(script)]
