# tests/runtime/packages/debian_root.py: a new Debian system in a folder, with a repository
"""debootstrap makes it; commands run there by chroot, in namespaces that end with the command."""

from __future__ import annotations

import os
import pathlib
import shutil
import subprocess
import sys

MIRROR = os.environ.get("ATTNRT_DEBIAN_MIRROR", "http://deb.debian.org/debian")
SUITE = "bookworm"
REPOSITORY = "/srv/packages"  # in the system
ENVIRONMENT = {
    "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LC_ALL": "C.UTF-8",
    "DEBIAN_FRONTEND": "noninteractive",
}


def missing() -> str | None:
    """What this test needs and does not have, as one line."""
    if os.geteuid() != 0:
        return "found no root; debootstrap and chroot need it"
    for tool, package in {
        "debootstrap": "debootstrap",
        "dpkg-scanpackages": "dpkg-dev",
        "unshare": "util-linux",
    }.items():
        if shutil.which(tool) is None:
            return f"found no {tool}; install Debian's package {package}"
    return None


class DebianRoot:
    def __init__(self, folder: pathlib.Path, cache: pathlib.Path) -> None:
        self.folder = folder
        cache.mkdir(parents=True, exist_ok=True)
        command = ["debootstrap", "--variant=minbase", f"--cache-dir={cache}", SUITE]
        done = subprocess.run(
            [*command, folder, MIRROR], capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            sys.exit(
                f"debian_root: debootstrap failed with the mirror {MIRROR}; set "
                f"ATTNRT_DEBIAN_MIRROR to one that this machine reaches:\n{done.stdout[-2000:]}"
            )
        shutil.copy("/etc/resolv.conf", folder / "etc/resolv.conf")
        policy = folder / "usr/sbin/policy-rc.d"  # nothing of it is started
        policy.write_text("#!/bin/sh\nexit 101\n")
        policy.chmod(0o755)
        (folder / "srv/packages").mkdir()
        (folder / "etc/apt/sources.list.d/packages.list").write_text(
            f"deb [trusted=yes] file:{REPOSITORY} ./\n"
        )

    def attempt(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Runs a command in the system. Nothing that it starts outlives it."""
        enter = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--ipc", "--uts"]
        script = 'mount -t proc proc "$0/proc" && exec chroot "$0" "$@"'
        return subprocess.run(
            [*enter, "sh", "-c", script, str(self.folder), *words],
            env=ENVIRONMENT, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
        )  # fmt: skip

    def run(self, *words: str) -> str:
        """Runs a command that must succeed, and returns its standard output."""
        done = self.attempt(*words)
        if done.returncode != 0:
            raise AssertionError(
                f"{' '.join(words)}: status {done.returncode}\n{done.stdout}{done.stderr}"
            )
        return done.stdout

    def publish(self, *packages: pathlib.Path) -> None:
        """Adds packages to the repository, beside those that are there."""
        repository = self.folder / REPOSITORY.lstrip("/")
        for package in packages:
            shutil.copy(package, repository)
        index = subprocess.run(
            ["dpkg-scanpackages", "--multiversion", "."],
            cwd=repository, capture_output=True, check=True,
        ).stdout  # fmt: skip
        (repository / "Packages").write_bytes(index)
        self.run("apt-get", "update", "--quiet")

    def apt(self, *words: str) -> str:
        return self.run("apt-get", "--yes", "--quiet", "--no-install-recommends", *words)

    def versions(self) -> dict[str, str]:
        """The version of each installed package."""
        format = "${db:Status-Abbrev} ${Package} ${Version}\n"
        lines = self.run("dpkg-query", "--show", f"--showformat={format}").splitlines()
        rows = [line.split() for line in lines]
        return {row[1]: row[2] for row in rows if row[0] == "ii"}

    def find(self, name: str) -> list[str]:
        """Every path with that name, without what apt keeps of repositories and its logs."""
        found = self.run("find", "/", "-xdev", "-iname", name).splitlines()
        kept = ("/proc", "/srv/", "/var/lib/apt/", "/var/log/", "/var/cache/apt/", "/tmp/")
        return [path for path in found if not path.startswith(kept)]
