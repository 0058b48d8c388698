# runtime/python/attnrt/_command.py: the command attnrt, as pip puts it on the path
"""Runs the program bin/attnrt of the same installation as libattnrt.so, in place of Python."""

from __future__ import annotations

import os
import sys
from typing import NoReturn

from ._load import _attnrt


def _is_program(path: str) -> bool:
    """Not the script that pip made, which may lie in the same folder."""
    try:
        with open(path, "rb") as file:
            return file.read(4) == b"\x7fELF"
    except OSError:
        return False


def main() -> NoReturn:
    folder = os.path.dirname(os.path.realpath(_attnrt.library()))
    for _ in range(2):  # PREFIX/lib, or PREFIX/lib/x86_64-linux-gnu
        folder = os.path.dirname(folder)
        program = os.path.join(folder, "bin", "attnrt")
        if _is_program(program):
            os.execv(program, ["attnrt", *sys.argv[1:]])
    sys.exit(f"attnrt: found no bin/attnrt in the installation of {_attnrt.library()}")
