# runtime/python/wheels/wheel_file.py: reads and writes the files of a wheel
"""A wheel is a zip archive whose RECORD lists the hash and the size of each file."""

from __future__ import annotations

import base64
import hashlib
import pathlib
import re
import zipfile
from typing import NamedTuple

_TIME = (1980, 1, 1, 0, 0, 0)  # the same input gives the same archive


class Entry(NamedTuple):
    data: bytes
    mode: int = 0o644


def read(path: pathlib.Path) -> dict[str, Entry]:
    """All files but RECORD, by name."""
    with zipfile.ZipFile(path) as archive:
        return {
            info.filename: Entry(archive.read(info), (info.external_attr >> 16) & 0o777 or 0o644)
            for info in archive.infolist()
            if not info.is_dir() and not info.filename.endswith(".dist-info/RECORD")
        }


def dist_info(entries: dict[str, Entry]) -> str:
    """The name of the folder with the metadata."""
    (name,) = {n.split("/")[0] for n in entries if re.match(r"[^/]+\.dist-info/METADATA$", n)}
    return name


def write(path: pathlib.Path, entries: dict[str, Entry]) -> None:
    record = f"{dist_info(entries)}/RECORD"
    lines = []
    for name, entry in entries.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(entry.data).digest())
        lines.append(f"{name},sha256={digest.decode().rstrip('=')},{len(entry.data)}\n")
    lines.append(f"{record},,\n")
    everything = {**entries, record: Entry("".join(lines).encode())}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, entry in everything.items():
            info = zipfile.ZipInfo(name, _TIME)
            info.external_attr = (0o100000 | entry.mode) << 16
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, entry.data)
