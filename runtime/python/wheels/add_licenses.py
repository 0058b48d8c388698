#!/usr/bin/env python3
# runtime/python/wheels/add_licenses.py: puts the licence texts of all that is bundled into a wheel
"""add_licenses.py WHEEL: changes the wheel in place, after auditwheel has put libraries into it.

The texts are those of Debian's packages (/usr/share/doc/PACKAGE/copyright) and nanobind's own. A
library whose package is not in LICENSES stops it: then look at its licence, and add a line.
"""

from __future__ import annotations

import importlib.metadata
import pathlib
import re
import subprocess
import sys

import wheel_file

# The licence of what each package puts into the wheel, as an SPDX expression.
LICENSES = {
    # shared libraries that auditwheel copies
    "libelf1": "(LGPL-3.0-or-later OR GPL-2.0-or-later)",
    "libfmt9": "MIT",
    "libmd0": "BSD-3-Clause AND BSD-2-Clause AND ISC AND Beerware",
    "libsodium23": "ISC",
    "libyaml-cpp0.7": "MIT",
    "zlib1g": "Zlib",
    # headers that are compiled into the runtime, the command and the backend cpu
    "libcli11-dev": "BSD-3-Clause",
    "libexpected-dev": "CC0-1.0",
    "libhwy-dev": "Apache-2.0",
    "nlohmann-json3-dev": "MIT",
}
NANOBIND = "BSD-3-Clause"
COMMON = re.compile(r"/usr/share/common-licenses/([\w.+-]*\w)")


def package_of(library: str) -> str:
    """The Debian package of a library that auditwheel copied, as libfmt-1a2b3c4d.so.9.1.0."""
    name = re.sub(r"-[0-9a-f]{8}(?=\.)", "", library)
    command = ["dpkg-query", "--search", f"*/{name}"]
    answer = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    packages = sorted({line.split(":")[0] for line in answer.splitlines()})
    if len(packages) != 1 or packages[0] not in LICENSES:
        found = ", ".join(packages) or "no package"
        sys.exit(f"add_licenses: {library} is of {found}; expected one of {', '.join(LICENSES)}")
    return packages[0]


def version_of(package: str) -> str:
    command = ["dpkg-query", "--show", "--showformat=${Version}", package]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def texts(bundled: dict[str, list[str]]) -> dict[str, bytes]:
    """The licence files, by name. bundled: the libraries of each package; none: only headers."""
    found: dict[str, bytes] = {}
    for package, libraries in bundled.items():
        copyright = pathlib.Path("/usr/share/doc", package, "copyright").read_bytes()
        what = ", ".join(libraries) or "its headers, compiled in"
        head = f"{package} {version_of(package)} (Debian): {what}\n\n"
        found[f"{package}.txt"] = head.encode() + copyright
        for name in COMMON.findall(copyright.decode()):
            found[f"{name}.txt"] = pathlib.Path("/usr/share/common-licenses", name).read_bytes()
    (own,) = (
        file
        for file in importlib.metadata.files("nanobind") or []
        if str(file).endswith(".dist-info/licenses/LICENSE")
    )
    version = importlib.metadata.version("nanobind")
    head = f"nanobind {version}: its headers, compiled into the extension module\n\n"
    found["nanobind.txt"] = head.encode() + own.read_binary()
    return found


def main(wheel: pathlib.Path) -> None:
    entries = wheel_file.read(wheel)
    folder = wheel_file.dist_info(entries)
    bundled: dict[str, list[str]] = {name: [] for name in LICENSES if name.endswith("-dev")}
    for name in entries:
        if name.startswith("attnrt.libs/"):
            library = name.removeprefix("attnrt.libs/")
            bundled.setdefault(package_of(library), []).append(library)
    files = texts(dict(sorted(bundled.items())))
    for name, data in files.items():
        entries[f"{folder}/licenses/third_party/{name}"] = wheel_file.Entry(data)
    licenses = " AND ".join([NANOBIND, *(LICENSES[package] for package in bundled)])
    expression = " AND ".join(["MIT", *sorted(set(licenses.split(" AND ")) - {"MIT"})])
    metadata = entries[f"{folder}/METADATA"].data.decode()
    head, blank, body = metadata.partition("\n\n")
    if head.count("License-Expression: MIT\n") != 1:
        sys.exit(f"add_licenses: {wheel}: found no line License-Expression: MIT in METADATA")
    head = head.replace("License-Expression: MIT\n", f"License-Expression: {expression}\n")
    lines = [head, *(f"License-File: third_party/{name}" for name in files)]
    entries[f"{folder}/METADATA"] = wheel_file.Entry(("\n".join(lines) + blank + body).encode())
    wheel_file.write(wheel, entries)
    print(f"{wheel.name}: {len(files)} licence texts")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: add_licenses.py WHEEL")
    main(pathlib.Path(sys.argv[1]))
