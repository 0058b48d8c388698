#!/usr/bin/env python3
# tests/docs/blocks.py: runs the code blocks of the README files and docs/ with an installed attnrt
"""python3 tests/docs/blocks.py --source ROOT --tree INSTALL_TREE --work FOLDER [--python PYTHON]

Exit status 1 if a block fails; each failure is a line "page:line: what happened".

A page is a session: its blocks run in order, in one folder that has links to config, docs,
examples and tests.
A fence names the language and, where a later block needs it as a file, its name:

  ```sh             runs in bash and stops at a failure; /opt/attnrt stands for the install tree
  ```c mine.c       compiles, as ```cpp does; a program with main is linked with libattnrt and run
  ```cmake          configures and builds a project of this file and the files named before it
  ```yaml           a manifest (it has `supports`) fits its schema; a grid (`problems`) is measured;
                    the rest are policies: `attnrt check` has no warning, and the schema fits
  ```json           is parsed
  ```python         runs in the Python of --python; without it another test runs these
  ```text           is output, and not run

Two marks may stand before a block: <!-- fragment: why --> (it is not run), and <!-- from: FILE -->
(it is a verbatim part of FILE, which another test runs). A block with neither a language of the
list nor a mark is a failure.
"""

import argparse
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

import core_yaml
import jsonschema
import markdown
import yaml

PREFIX = "/opt/attnrt"  # what the pages write for the folder where attnrt is installed
# A sketch leaves parameters unused.
WARNINGS = ["-Wall", "-Wextra", "-pedantic", "-Werror", "-Wno-unused-parameter"]
# What attnrt_add_plugin defines.
PLUGIN = ['-DATTNRT_PLUGIN_NAME="mine"', '-DATTNRT_PLUGIN_VERSION="1.0.0"']


class Failure(Exception):
    pass


class Session:
    """Runs the blocks of one page, in order, in a folder of its own."""

    def __init__(self, page, options):
        self.options = options
        self.folder = options.work / f"{page.parent.name}-{page.stem}"
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        for name in ("config", "docs", "examples", "tests"):
            (self.folder / name).symlink_to(options.source / name)
        self.library = next(options.tree.glob("lib*/**/libattnrt.so"))
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("ATTNRT_")}
        self.environment = {
            **inherited,
            "PATH": f"{options.tree}/bin:{os.environ['PATH']}",
            "TMPDIR": str(self.folder),
        }
        self.count = 0

    def execute(self, *command):
        done = subprocess.run(
            [str(word) for word in command],
            cwd=self.folder,
            env=self.environment,
            text=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        if done.returncode != 0:
            raise Failure(f"{command[0]} ended with {done.returncode}:\n{done.stdout[-2000:]}")
        return done.stdout

    def write(self, block, suffix):
        self.count += 1
        path = self.folder / (block.name or f"block{self.count}{suffix}")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(block.text.replace(PREFIX, str(self.options.tree)))
        return path

    def run(self, block):
        kind, detail = block.mark or ("", "")
        if kind == "from":
            check_part(block, self.options.source / detail)
        elif kind == "" and block.language != "text":
            runner = getattr(self, "run_" + (block.language or "nothing"), None)
            if runner is None:
                raise Failure(
                    f"the language {block.language or '(none)'} is not known here; name one that "
                    "blocks.py runs, or put <!-- fragment: why --> before the block"
                )
            runner(block)

    def run_sh(self, block):
        self.execute("bash", "-euo", "pipefail", self.write(block, ".sh"))

    def compile(self, block, compiler, standard, suffix):
        source = self.write(block, suffix)
        program = source.with_suffix(".out")
        command = [
            *compiler.split(),
            standard,
            *WARNINGS,
            *PLUGIN,
            "-I",
            self.options.tree / "include",
            source,
        ]
        if not re.search(r"\bmain\s*\(", block.text):
            self.execute(*command, "-fsyntax-only")
            return
        folder = self.library.parent
        self.execute(
            *command, "-o", program, "-L", folder, "-lattnrt", "-lm", f"-Wl,-rpath,{folder}"
        )
        self.execute(program)

    def run_c(self, block):
        self.compile(block, os.environ.get("CC", "cc"), "-std=c11", ".c")

    def run_cpp(self, block):
        self.compile(block, os.environ.get("CXX", "c++"), "-std=c++20", ".cpp")

    def run_cmake(self, block):
        (self.folder / "CMakeLists.txt").write_text(block.text)
        self.execute("cmake", "-S", ".", "-B", "build", f"-DCMAKE_PREFIX_PATH={self.options.tree}")
        self.execute("cmake", "--build", "build")

    def run_yaml(self, block):
        path = self.write(block, ".yaml")
        try:
            document = core_yaml.load(block.text)
        except yaml.YAMLError as error:
            raise Failure(f"not YAML: {error}") from None
        if isinstance(document, dict) and "supports" in document:
            self.check_schema("manifest", document)
        elif isinstance(document, dict) and "problems" in document:
            self.execute("attnrt", "bench", "--grid", path, "--samples", "1", "--backend", "cpu")
        else:
            said = self.execute("attnrt", "check", path)
            if not said.endswith(": ok\n"):
                raise Failure(f"attnrt check warns: {said}")
            self.check_schema("policy", document)

    def check_schema(self, name, document):
        schema = json.loads((self.options.source / f"docs/{name}.schema.json").read_text())
        for error in jsonschema.Draft202012Validator(schema).iter_errors(document):
            raise Failure(f"{name}.schema.json refuses it: {error.json_path}: {error.message}")

    def run_json(self, block):
        try:
            json.loads(block.text)
        except ValueError as error:
            raise Failure(f"not JSON: {error}") from None

    def run_python(self, block):
        if self.options.python:
            self.execute(self.options.python, self.write(block, ".py"))


def check_part(block, file):
    """Checks a block marked `from`: its lines stand in that file, indented in any way."""

    def stripped(text):
        return [line.strip() for line in text.strip().splitlines()]

    if not file.is_file():
        raise Failure(f"{file} does not exist")
    part, whole = stripped(block.text), stripped(file.read_text())
    if not any(whole[i : i + len(part)] == part for i in range(len(whole))):
        raise Failure(f"these lines are not in {file.name}")


def check_page(page, options):
    """Returns what failed, and how many blocks there were."""
    session, failures = Session(page, options), []
    blocks = markdown.blocks(page)
    for block in blocks:
        try:
            session.run(block)
        except Failure as failure:
            failures.append(f"{page.name}:{block.line}: {failure}")
    return failures, len(blocks)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for option in ("--source", "--tree", "--work"):
        parser.add_argument(option, type=lambda text: pathlib.Path(text).resolve(), required=True)
    parser.add_argument("--python", help="an interpreter whose environment has the package attnrt")
    parser.add_argument("pages", nargs="*", type=pathlib.Path)
    options = parser.parse_args()
    pages = options.pages or markdown.pages(options.source)
    if options.python:  # the other blocks of these pages are checked without it
        pages = [
            page
            for page in pages
            if any(block.language == "python" for block in markdown.blocks(page))
        ]
    total, failures = 0, []
    for page in pages:
        found, count = check_page(page, options)
        failures += found
        total += count
    print("\n".join(failures) if failures else f"{total} blocks of {len(pages)} pages are right")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
