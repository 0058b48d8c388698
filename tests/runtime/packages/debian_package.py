# tests/runtime/packages/debian_package.py: reads the fields and the files of a .deb
"""One package, as dpkg-deb shows it."""

from __future__ import annotations

import functools
import io
import pathlib
import subprocess
import tarfile


class Package:
    def __init__(self, path: pathlib.Path) -> None:
        self.path = path
        self.name = self.field("Package")
        self.version = self.field("Version")

    def _dpkg_deb(self, *words: str) -> bytes:
        command = ["dpkg-deb", words[0], str(self.path), *words[1:]]
        return subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout

    def field(self, name: str) -> str:
        """The field's text; "" if there is none."""
        return self._dpkg_deb("--field", name).decode().strip()

    def relations(self, name: str) -> dict[str, str]:
        """Depends and its like: the condition on the version, by package; "" is any."""
        found: dict[str, str] = {}
        for relation in filter(None, self.field(name).split(", ")):
            package, _, condition = relation.partition(" ")
            found[package] = (found.get(package, "") + " " + condition.strip("()")).strip()
        return found

    @functools.cached_property
    def members(self) -> dict[str, tarfile.TarInfo]:
        """All files, links and folders, by absolute path."""
        with self._tar("--fsys-tarfile") as archive:
            return {_absolute(member.name): member for member in archive}

    @functools.cached_property
    def files(self) -> dict[str, bytes]:
        """The bytes of each regular file, by absolute path."""
        return self._contents("--fsys-tarfile")

    @functools.cached_property
    def control(self) -> dict[str, str]:
        """The files of the control archive, by name."""
        found = self._contents("--ctrl-tarfile")
        return {name.lstrip("/"): data.decode() for name, data in found.items()}

    @property
    def elf_files(self) -> dict[str, bytes]:
        return {name: data for name, data in self.files.items() if data[:4] == b"\x7fELF"}

    def _tar(self, which: str) -> tarfile.TarFile:
        return tarfile.open(fileobj=io.BytesIO(self._dpkg_deb(which)))

    def _contents(self, which: str) -> dict[str, bytes]:
        found = {}
        with self._tar(which) as archive:
            for member in archive:
                file = archive.extractfile(member) if member.isreg() else None
                if file is not None:
                    found[_absolute(member.name)] = file.read()
        return found


def _absolute(name: str) -> str:
    return "/" + name.removeprefix("./").strip("/")


def packages_in(folder: pathlib.Path) -> dict[str, Package]:
    """The packages of the folder, by name."""
    found = [Package(path) for path in sorted(folder.glob("*.deb"))]
    return {package.name: package for package in found}
