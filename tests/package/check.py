#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Builds and runs one small consumer of procpool: check.py WAY --source CHECKOUT --work DIR ...

The ways are the functions below called way_*. Each builds main.cpp (and other.cpp) the way a user
would, from nothing, and the program must print what EXPECTED says."""

import argparse
import os
import pathlib
import shutil
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
EXPECTED = "Squares: [1, 4, 9, 16, 25]\n"
EXPECTED_TWO_UNITS = EXPECTED + "Doubles: [2, 4, 6]\n"


def run(*command, **options):
    """Runs a command, shows it, and ends the check if it fails; what it printed."""
    words = [str(word) for word in command]
    print("$", " ".join(words), flush=True)
    done = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          check=False, stdin=subprocess.DEVNULL, **options)
    if done.returncode != 0:
        sys.exit(f"{done.stdout}\nended with status {done.returncode}")
    return done.stdout


def check_output(program, expected=EXPECTED):
    """Runs the built program."""
    output = run(program)
    if output != expected:
        sys.exit(f"{program} printed\n{output}\ninstead of\n{expected}")


def cmake(args, source, build, *defines):
    """Configures and builds a project, with the compiler and the dependencies of the tests."""
    defines = [*args.define, *defines, f"CMAKE_CXX_COMPILER={args.compiler}"]
    if args.prefix:
        defines.append("CMAKE_PREFIX_PATH=" + ";".join(args.prefix))
    run("cmake", "-G", args.generator, "-S", source, "-B", build,
        *[f"-D{definition}" for definition in defines])
    run("cmake", "--build", build)


def check_compiled(build):
    """The same program with procpool::compiled, which is not built before somebody links it."""
    if list(build.rglob("*procpool_compiled*.o")):
        sys.exit("procpool::compiled was built for nobody")
    run("cmake", "--build", build, "--target", "compiled")
    check_output(build / "compiled", EXPECTED_TWO_UNITS)


def compile_program(args, output, sources, flags, libraries):
    """Compiles without CMake."""
    run(args.compiler, "-std=c++20", *flags, *sources, "-o", output, *libraries)


def install(args):
    """Installs procpool, then moves the tree: nothing in it may name the place."""
    prefix = args.work / "prefix"
    cmake(args, args.source, args.work / "procpool", "PROCPOOL_BUILD_TESTS=OFF",
          "PROCPOOL_BUILD_EXAMPLES=OFF", f"CMAKE_INSTALL_PREFIX={args.work / 'first'}")
    run("cmake", "--install", args.work / "procpool")
    (args.work / "first").rename(prefix)
    return prefix


def clone(args):
    """A git repository that holds the checkout as it is now, committed or not; and its commit."""
    repository = args.work / "repository"
    shutil.copytree(args.source, repository,
                    ignore=shutil.ignore_patterns(".git", "build", "build-*", "*.work"))
    git = ["git", "-c", "user.name=test", "-c", "user.email=test@example.invalid",
           "-c", "commit.gpgsign=false", "-C", repository]
    run(*git, "init", "--quiet")
    run(*git, "add", "--all")
    run(*git, "commit", "--quiet", "--message", "the checkout as it is")
    return repository, run(*git, "rev-parse", "HEAD").strip()


def way_fetch_content(args):
    """FetchContent from a git repository."""
    repository, commit = clone(args)
    cmake(args, HERE / "fetch_content", args.work / "build",
          f"PROCPOOL_REPOSITORY={repository}", f"PROCPOOL_COMMIT={commit}")
    check_output(args.work / "build" / "app")


def way_add_subdirectory(args):
    """add_subdirectory; the project checks that its own settings stay as they were."""
    build = args.work / "build"
    cmake(args, HERE / "add_subdirectory", build, f"PROCPOOL_SOURCE={args.source}",
          f"CMAKE_INSTALL_PREFIX={args.work / 'prefix'}")
    check_output(build / "app", EXPECTED_TWO_UNITS)
    check_compiled(build)
    run("cmake", "--install", build)
    if (args.work / "prefix").exists():
        sys.exit("a parent's install also installs procpool")


def way_find_package(args):
    """install and find_package."""
    prefix = install(args)
    cmake(args, HERE / "find_package", args.work / "build", f"procpool_ROOT={prefix}",
          f"PROCPOOL_WANTED={args.version}")
    check_output(args.work / "build" / "app")
    check_compiled(args.work / "build")


def way_pkg_config(args):
    """install and pkg-config."""
    prefix = install(args)
    found = os.pathsep.join(
        filter(None, [str(prefix / "share" / "pkgconfig"), os.environ.get("PKG_CONFIG_PATH")]))
    environment = {**os.environ, "PKG_CONFIG_PATH": found}
    version = run("pkg-config", "--modversion", "procpool", env=environment).strip()
    if not version.startswith(args.version + "."):
        sys.exit(f"pkg-config gives version {version} instead of {args.version}")
    flags = run("pkg-config", "--cflags", "procpool", env=environment).split()
    libraries = run("pkg-config", "--libs", "procpool", env=environment).split()
    compile_program(args, args.work / "app", [HERE / "main.cpp"], flags, libraries)
    check_output(args.work / "app")


def way_include_path(args):
    """Nothing but -I include and -lfmt."""
    compile_program(args, args.work / "app", [HERE / "main.cpp"],
                    ["-I", args.source / "include"], ["-lfmt"])
    check_output(args.work / "app")


def way_impl(args):
    """What is no template is compiled once, without CMake: two lines."""
    args.work.mkdir(parents=True, exist_ok=True)
    once = args.work / "procpool.cpp"
    once.write_text("#include <procpool/impl.hpp>\n", encoding="utf-8")
    compile_program(args, args.work / "app", [HERE / "main.cpp", HERE / "other.cpp", once],
                    ["-DPROCPOOL_COMPILED", "-DTWO_UNITS", "-I", args.source / "include"],
                    ["-lfmt"])
    check_output(args.work / "app", EXPECTED_TWO_UNITS)


def way_two_units(args):
    """Two translation units in one program: nothing is defined twice."""
    compile_program(args, args.work / "app", [HERE / "main.cpp", HERE / "other.cpp"],
                    ["-DTWO_UNITS", "-I", args.source / "include"], ["-lfmt"])
    check_output(args.work / "app", EXPECTED_TWO_UNITS)


def main():
    ways = {name.removeprefix("way_"): way for name, way in globals().items()
            if name.startswith("way_")}
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("way", choices=sorted(ways))
    parser.add_argument("--source", type=pathlib.Path, required=True)
    parser.add_argument("--work", type=pathlib.Path, required=True)
    parser.add_argument("--version", required=True, help="MAJOR.MINOR of procpool")
    parser.add_argument("--compiler", required=True)
    parser.add_argument("--generator", required=True)
    parser.add_argument("--prefix", action="append", default=[], help="CMAKE_PREFIX_PATH")
    parser.add_argument("--define", action="append", default=[], help="NAME=VALUE for CMake")
    args = parser.parse_args()
    args.work = args.work.resolve()
    args.source = args.source.resolve()
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        del os.environ[name]  # of a hook that runs the tests
    shutil.rmtree(args.work, ignore_errors=True)
    args.work.mkdir(parents=True)
    ways[args.way](args)


if __name__ == "__main__":
    main()
