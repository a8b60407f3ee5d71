#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Runs the benchmark programs and their peers in turn and compares them: a table on stdout, a JSON
file beside it. `run` calls this; see there for the options."""

import argparse
import dataclasses
import datetime
import json
import os
import pathlib
import platform
import re
import statistics
import subprocess
import sys
import time

import figures

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
LIMIT = 300  # seconds for one program
WITHOUT_PEER = 77


# ------------------------------------------------------------------------ what is measured

@dataclasses.dataclass
class Contender:
    """What prints figures: a program with the name of a measure, or a function that gives lines."""
    program: object
    word: str
    most_rounds: int = 1000


@dataclasses.dataclass
class Group:
    """Contenders that take turns."""
    name: str
    contenders: list


@dataclasses.dataclass
class Row:
    """One line of the table: a measure of procpool and what is asked of it."""
    measure: str
    title: str
    peer: str = ""  # whose figure the target is relative to; none: the target is a number
    most: float | None = None  # procpool's figure is at most that many times the peer's ...
    plus: float = 0  # ... and that much more,
    least: float | None = None  # or at least that many times
    who: str = "procpool"


def ours(program, word, **more):
    return Contender(f"procpool_bench_{program}", word, **more)


def python(word, most_rounds=3):
    return Contender("python_pool.py", word, most_rounds)


CROWD = (1, 2, 4, 16, 64, 256)
RESULTS = (10_000, 100_000, 1_000_000)
WAITS = {"as_completed": "as_completed", "wait": "wait", "first_exception": "wait, FIRST_EXCEPTION"}


def all_groups():
    return [
        Group("apply_awake", [ours("latency", "apply_awake"), ours("raw", "apply_awake"),
                              python("apply_awake")]),
        Group("apply_idle", [ours("latency", "apply_idle"), ours("raw", "apply_idle")]),
        Group("stream", [ours("throughput", "stream"), ours("tbb", "stream"),
                         ours("threads", "stream"), python("stream", 2)]),
        Group("continuations", [ours("continuations", "continuations", most_rounds=3)]),
        Group("map_single", [ours("throughput", "map_single"), python("map_single", 2)]),
        Group("map_longs", [ours("throughput", "map_longs"), ours("threads", "map_longs"),
                            ours("raw", "map_longs"), python("map_longs")]),
        Group("map_strings", [ours("throughput", "map_strings"), python("map_strings")]),
        Group("large", [ours("large", "large_argument"), ours("large", "large_argument_again"),
                        ours("large", "large_view"), ours("large", "large_result"),
                        ours("large", "large_result_again"), ours("large", "large_kept"),
                        ours("raw", "large_argument"),
                        python("large_argument"), python("large_result")]),
        Group("arrays", [ours("arrays", "array_handover", most_rounds=3),
                         ours("arrays", "array_map", most_rounds=3)]),
        Group("synchronize", [ours("synchronize", measure, most_rounds=3) for measure in (
            "lock_uncontended", "lock_contended_2", "lock_contended_8", "event_wakeup", "condition_wakeup",
            "value_increment")]),
        Group("vectors", [ours("arrays", "vector_copy"), ours("arrays", "vector_sealed"),
                          ours("arrays", "vector_live")]),
        Group("busy", [ours("busy", "busy_50_us"), ours("tbb", "busy_50_us"),
                       ours("busy", "busy_1_ms"), ours("tbb", "busy_1_ms")]),
        Group("mixed", [ours("busy", "mixed"), ours("tbb", "mixed")]),
        Group("connection", [ours("connection", "connection_8", most_rounds=3),
                             ours("connection", "connection_1024", most_rounds=3),
                             ours("connection", "connection_65536", most_rounds=3)]),
        Group("manager", [ours("manager", "manager_call", most_rounds=3)]),
        Group("queue", [ours("queue", "queue_stream", most_rounds=3),
                        ours("queue", "queue_batches", most_rounds=3),
                        ours("queue", "queue_texts", most_rounds=3),
                        ours("queue", "queue_round_trip", most_rounds=3)]),
        Group("start", [ours("lives", "start_small"), python("start_small")]),
        Group("start_1_gib", [ours("lives", "start_1_gib")]),
        Group("death", [ours("lives", "death")]),
        Group("idle", [Contender(figures.idle_pool, "idle", most_rounds=1)]),
        Group("compile", [Contender(figures.compile_time, word, most_rounds=3)
                          for word in figures.SOURCES]),
        Group("crowd", [ours("throughput", f"crowd_{workers}") for workers in CROWD]),
        Group("wait", [ours("wait", f"{how}_{number}", most_rounds=3)
                       for how in WAITS for number in RESULTS]),
        Group("scheduler", [ours("scheduler", "scheduler_time", most_rounds=3),
                            ours("scheduler", "pending_bytes", most_rounds=1)]),
        Group("orientation", [Contender("joblib_pool.py", "stream", 1),
                              Contender("mpi_pool.py", "stream", 1)]),
    ]


def all_rows():
    rows = [
        Row("apply_awake", "apply, worker awake", "ping-pong", most=1.5),
        Row("apply_awake", "", "Python"),
        Row("apply_idle", "apply after 10 ms of idleness", "futex", most=1.2),
        Row("stream", "apply_async + get, each of 200,000", "oneTBB", most=1.0),
        Row("stream", "", "mutex queue", most=0.3),
        Row("stream", "", "Python"),
        Row("stream", "", "joblib"),
        Row("stream", "", "mpi4py"),
        Row("continuation", "the same, counted by done callbacks", "get", most=1, plus=300,
            who="callback"),
        Row("continuation", "the same, co_await in 200 coroutines", "get", most=1, plus=300,
            who="co_await"),
        Row("continuation", "the same, co_await of one after the other", "get", most=1, plus=300,
            who="co_await of all"),
        Row("continuation", "the same, a new coroutine for each", "get", most=1, plus=300,
            who="new coroutine"),
        Row("map_single", "map, chunksize 1, each item", most=100),
        Row("map_single", "", "Python"),
        Row("map_longs", "map of 1,000,000 longs, each", "two threads", most=1.5),
        Row("map_longs", "", "copies"),
        Row("map_longs", "", "Python"),
        Row("map_longs", "the same, a lambda", "two threads", most=1.5, who="lambda"),
        Row("map_longs", "", "copies", who="lambda"),
        Row("map_strings", "map of 10,000 strings, each", "Python", most=0.1),
        Row("large_argument", "64 MiB as argument, a vector", "memcpy", least=0.4),
        Row("large_argument", "", "Python", least=10),
        Row("large_argument_again", "the same, keep_memory", "memcpy", least=0.4),
        Row("large_view", "64 MiB as argument, a view", "memcpy", least=0.4),
        Row("large_result", "64 MiB as result", "memcpy", least=0.4),
        Row("large_result", "", "Python", least=10),
        Row("large_result_again", "the same, keep_memory", "memcpy", least=0.4),
        Row("large_kept", "the same, of a vector that is there", "memcpy", least=0.4),
        Row("array_handover", "SharedArray of 1 GiB as argument", "1 KiB", most=1.1, who="1 GiB"),
        Row("lock_uncontended", "Lock, nobody else wants it", "pthread mutex", most=0.6),
        Row("lock_contended_2", "Lock, 2 processes", "pthread mutex", most=1.0),
        Row("lock_contended_8", "Lock, 8 processes", "pthread mutex", most=1.0),
        Row("event_wakeup", "Event, wake-up of another process", "futex", most=1.2),
        Row("condition_wakeup", "Condition, the same", "futex", most=1.2),
        Row("array_map", "map over the slices of 1 GiB, in place", "two threads", most=1.1),
        Row("vector_sealed", "64 MiB as result, shared_vector", "memcpy", least=2,
            who="handed over"),
        Row("vector_sealed", "the same, each page read", "memcpy", who="and read"),
        Row("vector_live", "64 MiB as result, SharedArray", "memcpy", least=2, who="handed over"),
        Row("vector_live", "the same, each page read", "memcpy", who="and read"),
        Row("busy_50_us", "tasks of 50 us, speed-up on 2", "oneTBB", least=0.97),
        Row("busy_1_ms", "tasks of 1 ms, speed-up on 2", "oneTBB", least=0.97),
        Row("mixed", "mixed lengths, time / ideal", most=1.05),
        Row("mixed", "", "oneTBB"),
        Row("connection_8", "Connection, 8 bytes there and back", "socketpair", most=1.05,
            who="procpool bytes"),
        Row("connection_8", "the same as a value", "socketpair"),
        Row("connection_1024", "1 KiB there and back", "socketpair", most=1.05,
            who="procpool bytes"),
        Row("connection_1024", "the same as a value", "socketpair"),
        Row("connection_65536", "64 KiB there and back", "socketpair", most=1.05,
            who="procpool bytes"),
        Row("connection_65536", "the same as a value", "socketpair"),
        Row("queue_stream", "Queue, put and get of a long", "two lines", most=1.36),
        Row("queue_stream", "", "message_queue", most=0.33),
        Row("queue_stream", "", "Python", most=0.01),
        Row("queue_batches", "the same in batches of 64", "two lines", most=0.27),
        Row("queue_texts", "Queue, strings of 64 KiB", "memcpy", least=0.5),
        Row("queue_texts", "the same, at most 1 MiB waits", "memcpy", least=0.5,
            who="procpool, at most 1 MiB"),
        Row("queue_round_trip", "a long there and back, two Queues", "two lines"),
        Row("start_small", "Pool(2) to first result", most=1.5),
        Row("start_small", "", "fork"),
        Row("start_small", "", "Python"),
        Row("start_small", "the same by spawn", most=10, who="spawn"),
        Row("start_1_gib", "the same, parent with 1 GiB", "fork", most=1.3, plus=1),
        Row("start_1_gib", "the same by spawn", "fork", most=1.3, plus=1, who="spawn"),
        Row("death", "SIGKILL to the next worker's answer", most=3),
        Row("idle_switches", "64 idle workers: context switches", most=0),
        Row("idle_cpu", "64 idle workers: CPU time", most=0),
        Row("idle_dirty", "64 idle workers: private memory of each", most=300),
        Row("compile_header", "compiling <procpool/procpool.hpp>", "fmt+future+regex", most=1),
        Row("compile_header", "the same with procpool::compiled", "fmt+future+regex", most=1,
            who="compiled"),
        Row("compile_q5", "compiling the Q5 program, -O2", most=2.5),
        Row("compile_q5", "the same with procpool::compiled", most=2.5, who="compiled"),
    ]
    rows += [Row("crowd", f"empty task, {workers} worker{'s'[:workers > 1]}", "procpool 2", most=3,
                 who=f"procpool {workers}") for workers in CROWD]
    for how, title in WAITS.items():
        rows += [Row(how, f"apply_async and {title}, each of {number:,}", "procpool 10000", most=3,
                     who=f"procpool {number}") for number in RESULTS]
        rows += [Row(f"{how}_ready", f"{title}, all ready, each of {number:,}", "procpool 10000",
                     who=f"procpool {number}") for number in RESULTS]
    return rows + [
        Row("scheduler_time", "10,000 workers: scheduler per task", most=150),
        Row("pending_bytes", "memory of a task that waits", most=200),
    ]


# ------------------------------------------------------------------------ running

def others_cpus(seconds):
    """How many CPUs were busy during that time, in which this program sleeps."""
    def idle():
        words = pathlib.Path("/proc/stat").read_text(encoding="utf-8").split()[1:9]
        return int(words[3]) + int(words[4]), sum(map(int, words))
    idle_before, all_before = idle()
    time.sleep(seconds)
    idle_after, all_after = idle()
    return (1 - (idle_after - idle_before) / max(all_after - all_before, 1)) * os.cpu_count()


class Runner:
    def __init__(self, settings):
        self.settings = settings
        self.per_us = None
        self.missing = set()
        self.patience = settings.patience

    def lines_of(self, contender):
        """The figures that it gives this time."""
        self.wait_for_quiet()
        if callable(contender.program):
            return contender.program(contender.word, self.settings)
        if contender.program in self.missing:
            return []
        return self.run(contender.program, contender.word)

    def wait_for_quiet(self):
        """Not before others leave the machine alone, or the patience is over."""
        while self.patience > 0:
            began = time.monotonic()
            if others_cpus(0.1) < 0.15:
                return
            self.patience -= time.monotonic() - began
            if self.patience <= 0:
                print("no more patience: others use this machine from here on", file=sys.stderr)

    def command(self, program):
        if not program.endswith(".py"):
            return [str(self.settings.build / "tests/bench" / program)]
        if program == "mpi_pool.py":
            return figures.mpi_command(HERE / "peers" / program)
        return [figures.python_for(program), str(HERE / "peers" / program)]

    def run(self, program, *words):
        words = [*words, *(["--quick"] if self.settings.quick else [])]
        if self.per_us and not program.endswith(".py"):
            words = ["--per-us", str(self.per_us), *words]
        command = self.command(program)
        if not command:
            return self.leave_out(program, "not installed")
        done = subprocess.run([*command, *words], stdout=subprocess.PIPE, text=True, timeout=LIMIT,
                              stdin=subprocess.DEVNULL, check=False)
        if done.returncode == WITHOUT_PEER:
            return self.leave_out(program, done.stdout.strip())
        if done.returncode != 0:
            sys.exit(f"{program} {' '.join(words)} ended with status {done.returncode}")
        return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]

    def leave_out(self, program, why):
        print(f"without {program}: {why}", file=sys.stderr)
        self.missing.add(program)
        return []

    def calibrate(self):
        self.per_us = self.run("procpool_bench_raw", "calibrate")[0]["value"]


def measure(settings, groups):
    """{measure: {who: {"unit": ..., "values": [...]}}}"""
    runner = Runner(settings)
    runner.calibrate()
    found = {}
    for group in groups:
        began = time.monotonic()
        for turn in range(settings.rounds):
            for contender in group.contenders:
                if turn >= contender.most_rounds:
                    continue
                for line in runner.lines_of(contender):
                    of_measure = found.setdefault(line["measure"], {})
                    entry = of_measure.setdefault(line["who"], {"unit": line["unit"], "values": []})
                    entry["values"].append(line["value"])
        print(f"{group.name}: {time.monotonic() - began:.1f} s", file=sys.stderr)
    for of_measure in found.values():
        for entry in of_measure.values():
            entry["median"] = statistics.median(entry["values"])
    return found


# ------------------------------------------------------------------------ comparing

def limit_of(row, peer):
    """The value that is asked for."""
    factor = row.most if row.most is not None else row.least
    if factor is None:
        return None
    return factor * peer + row.plus if row.peer else factor


def judge(row, found):
    """A line of the table, or None when it was not measured."""
    entry = found.get(row.measure, {}).get(row.who)
    peer = found.get(row.measure, {}).get(row.peer) if row.peer else None
    if entry is None or (row.peer and peer is None):
        return None
    value = entry["median"]
    line = {"measure": row.measure, "title": row.title, "who": row.who, "unit": entry["unit"],
            "median": value, "least": min(entry["values"]), "most": max(entry["values"]),
            "peer": row.peer, "peer_median": peer and peer["median"],
            "peer_least": peer and min(peer["values"]), "peer_most": peer and max(peer["values"]),
            "ratio": value / peer["median"] if peer else None,
            "ratio_at_best": ratio_at_best(entry, peer) if peer else None,
            "target": target_text(row, entry["unit"]), "of_target": None, "met": None}
    limit = limit_of(row, peer and peer["median"])
    if limit is not None:
        line["met"] = value >= limit if row.least is not None else value <= limit
        line["of_target"] = None if 0 in (limit, value) else (
            limit / value if row.least is not None else value / limit)
    return line


def ratio_at_best(entry, peer):
    """Of the best rounds of both: what others did on the machine meanwhile matters less."""
    best = max if entry["unit"] in ("GB/s", "x") else min
    return best(entry["values"]) / best(peer["values"])


def target_text(row, unit):
    if row.most is None and row.least is None:
        return ""
    sign, factor = ("<=", row.most) if row.most is not None else (">=", row.least)
    if not row.peer:
        return f"{sign} {factor:g} {unit}"
    return f"{sign} {factor:g} x" + (f" + {row.plus:g} {unit}" if row.plus else "")


def short(value, unit=""):
    if value is None:
        return ""
    text = f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return f"{text} {unit}".strip()


def span(least, most):
    return "" if least is None else f"{short(least)} .. {short(most)}"


def print_table(lines):
    heads = ["measure", "procpool", "least .. most", "peer", "its figure", "least .. most", "ratio",
             "at best", "target", "of target", "met"]
    table = [heads]
    for line in lines:
        unit = line["unit"]
        table.append([
            line["title"], short(line["median"], unit) if line["title"] else "",
            span(line["least"], line["most"]) if line["title"] else "",
            line["peer"], short(line["peer_median"], unit) if line["peer"] else "",
            span(line["peer_least"], line["peer_most"]), short(line["ratio"]),
            short(line["ratio_at_best"]), line["target"], short(line["of_target"]),
            {True: "yes", False: "NO", None: ""}[line["met"]]])
    widths = [max(len(row[column]) for row in table) for column in range(len(heads))]
    for row in table:
        print("  ".join(text.ljust(width) for text, width in zip(row, widths)).rstrip())


# ------------------------------------------------------------------------ the whole

def machine(settings):
    info = pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8")
    names = [line.partition(":")[2].strip() for line in info.splitlines() if "model name" in line]
    text = subprocess.run([settings.compiler, "--version"], stdout=subprocess.PIPE, text=True,
                          check=True).stdout.splitlines()[0]
    compiler = ("clang " if "clang" in text else "g++ ") + re.search(r"\d+\.[\d.]+\d", text)[0]
    return {"cpu": names[0] if names else platform.machine(),
            "cpus": len(os.sched_getaffinity(0)), "kernel": platform.release().split("-")[0],
            "compiler": compiler, "python": platform.python_version()}


def arguments():
    parser = argparse.ArgumentParser(prog="tests/bench/run", description=__doc__)
    parser.add_argument("names", nargs="*", help="groups to run, by a part of their name")
    parser.add_argument("--rounds", type=int, help="how often each program runs (default 5)")
    parser.add_argument("--quick", action="store_true", help="little of everything, 1 round")
    parser.add_argument("--patience", type=float, default=0, metavar="SECONDS",
                        help="to wait, all in all, for others to leave the machine alone")
    parser.add_argument("--json", type=pathlib.Path, help="default: results.json in the build")
    parser.add_argument("--build", type=pathlib.Path, required=True, help=argparse.SUPPRESS)
    settings = parser.parse_args()
    settings.rounds = settings.rounds or (1 if settings.quick else 5)
    settings.json = settings.json or settings.build / "results.json"
    settings.root = ROOT
    settings.compiler, settings.flags = figures.compiler_of(settings.build)
    return settings


def main():
    settings = arguments()
    groups = [group for group in all_groups()
              if not settings.names or any(name in group.name for name in settings.names)]
    if not groups:
        sys.exit("no such measure; there are " + ", ".join(group.name for group in all_groups()))
    before = os.getloadavg()[0]
    if before > 0.5:
        print(f"others use this machine (load {before:.2f}): the figures will not mean much",
              file=sys.stderr)
    began = time.monotonic()
    found = measure(settings, groups)
    lines = [line for row in all_rows() if (line := judge(row, found))]
    print_table(lines)
    result = {"date": datetime.date.today().isoformat(), "machine": machine(settings),
              "rounds": settings.rounds, "quick": settings.quick,
              "load_before": before, "load_after": os.getloadavg()[0],
              "seconds": round(time.monotonic() - began), "rows": lines, "measures": found}
    settings.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    asked = [line for line in lines if line["met"] is not None]
    print(f"\n{sum(line['met'] for line in asked)} of {len(asked)} targets met; "
          f"load {before:.2f} before, {result['load_after']:.2f} after; "
          f"{result['seconds']} s; {settings.json}")


if __name__ == "__main__":
    main()
