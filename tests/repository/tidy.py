#!/usr/bin/env python3
"""tests/repository/tidy.py: runs clang-tidy, as .clang-tidy says, over the shipped sources.

    python3 tests/repository/tidy.py BUILD [SOURCE...]     exit status 1 if it finds something

BUILD holds compile_commands.json. SOURCE narrows the run to files whose path contains one of these
words. A source is skipped if it was clean before and nothing that it includes has changed since:
build/lint/clean holds one empty file for each clean (configuration, command, preprocessed text).
"""

import concurrent.futures
import functools
import hashlib
import json
import os
import pathlib
import shlex
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
SHIPPED = ("runtime/", "kernels/", "plugins/")
GCC_ONLY = ("-fno-gnu-unique",)  # clang refuses them
CLEAN = ROOT / "build/lint/clean"


def shipped_commands(build: pathlib.Path, words: list[str]) -> dict[str, list[str]]:
    """The first compile command of each shipped source, by its path relative to the root."""
    commands: dict[str, list[str]] = {}
    for entry in json.loads((build / "compile_commands.json").read_text()):
        name = os.path.relpath(entry["file"], ROOT)
        if not name.startswith(SHIPPED) or (words and not any(word in name for word in words)):
            continue
        arguments = [word for word in shlex.split(entry["command"]) if word not in GCC_ONLY]
        if pathlib.Path(arguments[0]).name == "ccache":
            arguments = arguments[1:]
        commands.setdefault(name, arguments)
    return commands


def preprocessed(arguments: list[str], directory: pathlib.Path) -> bytes:
    at = arguments.index("-o")
    command = [*arguments[:at], *arguments[at + 2 :], "-E", "-P"]  # -P: no line numbers
    return subprocess.run(command, cwd=directory, capture_output=True, check=True).stdout


@functools.cache
def version() -> bytes:
    return subprocess.run(["clang-tidy", "--version"], capture_output=True, check=True).stdout


def check(name: str, arguments: list[str], build: pathlib.Path) -> str:
    """Returns clang-tidy's output, or "" if the source is clean."""
    configuration = (ROOT / ".clang-tidy").read_bytes()
    source = ROOT / name
    text = b"".join(
        (version(), configuration, " ".join(arguments).encode(), source.read_bytes())
    ) + preprocessed(arguments, build)
    marker = CLEAN / hashlib.sha256(text).hexdigest()
    if marker.exists():
        return ""
    tidy = ["clang-tidy", "--quiet", "--warnings-as-errors=*", str(source), "--", *arguments[1:]]
    run = subprocess.run(tidy, cwd=build, capture_output=True, text=True, check=False)
    if run.returncode == 0:
        marker.touch()
        return ""
    return run.stdout + run.stderr


def main() -> int:
    build = (ROOT / sys.argv[1]).resolve()
    commands = shipped_commands(build, sys.argv[2:])
    if not commands:
        print("tidy: no source to check: is this a build folder with compile_commands.json?")
        return 1
    CLEAN.mkdir(parents=True, exist_ok=True)
    failed = 0
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        jobs = {
            pool.submit(check, name, arguments, build): name for name, arguments in commands.items()
        }
        for count, job in enumerate(concurrent.futures.as_completed(jobs), 1):
            if sys.stderr.isatty():
                print(
                    f"\r\033[K[{count}/{len(jobs)}] {jobs[job]}",
                    end="",
                    file=sys.stderr,
                    flush=True,
                )
            if output := job.result():
                failed += 1
                print(("\n" if sys.stderr.isatty() else "") + output)
    if sys.stderr.isatty():
        print(file=sys.stderr)
    print(f"clang-tidy: {len(commands)} sources, {failed} with findings")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
