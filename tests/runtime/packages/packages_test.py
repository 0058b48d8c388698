#!/usr/bin/env python3
# tests/runtime/packages/packages_test.py: the Debian packages of a build tree: fields and files
"""packages_test.py BUILD_FOLDER: packs what is built there, installs nothing.

Needs dpkg-dev and file. debian_root_test.py installs packages.
"""

from __future__ import annotations

import gzip
import itertools
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import unittest

import debian_package
from debian_package import Package

ROOT = pathlib.Path(__file__).resolve().parents[3]
# The package of each plugin file.
PLUGINS = {
    "cpu.so": "attnrt-plugin-cpu",
    "hip_flash.so": "attnrt-plugin-hip-flash-rocm",
    "hip_flash_cuda.so": "attnrt-plugin-hip-flash-cuda",
    "hip_unfused.so": "attnrt-plugin-hip-unfused-rocm",
    "hip_unfused_cuda.so": "attnrt-plugin-hip-unfused-cuda",
}
# The files of each control archive beside control and md5sums.
CONTROL = {
    "attnrt": {"shlibs", "triggers", "postrm"},
    "python3-attnrt": {"postinst", "prerm"},
}
BUILDER = {"DEBFULLNAME": "A Builder", "DEBEMAIL": "builder@example.org"}


def run(*words: str | pathlib.Path, **environment: str) -> str:
    done = subprocess.run(
        words, env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise AssertionError(f"{words}: status {done.returncode}: {done.stdout}{done.stderr}")
    return done.stdout


class Packages(unittest.TestCase):
    build: pathlib.Path

    @classmethod
    def setUpClass(cls) -> None:
        scratch = tempfile.TemporaryDirectory()
        cls.addClassCleanup(scratch.cleanup)
        cls.scratch = pathlib.Path(scratch.name)
        out = cls.scratch / "packages"
        # Where the builder says nothing of himself, and without the time that compression takes.
        cls.table = run(
            ROOT / "runtime/packages/pack.sh", cls.build, out,
            ATTNRT_PACKAGE_COMPRESSION="none", SOURCE_DATE_EPOCH="1700000000", **BUILDER,
        )  # fmt: skip
        cls.packages = debian_package.packages_in(out)
        cls.installed = cls.scratch / "installed"
        run("cmake", "--install", cls.build, "--prefix", cls.installed / "usr")
        plugins = list(cls.installed.glob("usr/**/attnrt/plugins/*.so"))
        note = cls.build / "packages/left_out"  # without the licence of what is linked in
        left_out = note.read_text().split() if note.exists() else []
        for plugin in plugins:
            if plugin.name in left_out:
                plugin.unlink()
        cls.plugins = {plugin.name for plugin in plugins if plugin.exists()}
        cls.has_python = any(cls.installed.glob("usr/lib/python3/dist-packages/attnrt"))
        text = (ROOT / "CMakeLists.txt").read_text()
        found = re.search(r"project\(attnrt VERSION ([0-9.]+)", text)
        assert found is not None
        cls.project_version = found[1]

    def expect_each(self, holds: bool, package: Package, what: object) -> None:
        self.assertTrue(holds, f"{package.name}: {what}")

    def test_one_package_for_each_plugin_and_part(self) -> None:
        expected = {"attnrt", "attnrt-dev", *(PLUGINS[name] for name in self.plugins)}
        if self.has_python:
            expected.add("python3-attnrt")
        self.assertEqual(set(self.packages), expected)
        self.assertIn("cpu.so", self.plugins)

    def test_a_table_of_what_was_packed(self) -> None:
        lines = [line.split() for line in self.table.splitlines()]
        self.assertEqual(lines[0], ["package", "version", "size"])
        versions = {name: package.version for name, package in self.packages.items()}
        self.assertEqual({line[0]: line[1] for line in lines[1:]}, versions)

    def test_each_plugin_keeps_its_own_version(self) -> None:
        folder = self.scratch / "plugins"
        folder.mkdir()
        for package in self.packages.values():
            for name, data in package.elf_files.items():
                if "/attnrt/plugins/" in name:
                    (folder / pathlib.Path(name).name).write_bytes(data)
        attnrt = next(self.build.glob("bin/attnrt"))
        # Also stripped, it says what it is.
        listed = json.loads(
            run(attnrt, "list", "--json", "--plugins", folder, ATTNRT_ADMISSION="off")
        )["plugins"]
        self.assertEqual(len(listed), len(self.plugins))
        for plugin in listed:
            self.assertIn(plugin["state"], ("ready", "no device", "not loaded"), plugin)
            package = self.packages[PLUGINS[pathlib.Path(plugin["path"]).name]]
            self.assertEqual(package.version, f"{plugin['version']}-1")
        for package in self.packages.values():
            if package.name not in PLUGINS.values():
                self.assertEqual(package.version, f"{self.project_version}-1", package.name)

    def test_versions_sort_as_semantic_versions_do(self) -> None:
        script = self.scratch / "version.cmake"
        script.write_text(
            f'include("{ROOT}/runtime/packages/debian_version.cmake")\n'
            "attnrt_debian_version(version ${SEMVER} ${REVISION})\n"
            "execute_process(COMMAND ${CMAKE_COMMAND} -E echo ${version})\n"
        )
        rising = ["1.2.9", "1.3.0-alpha-x", "1.3.0-rc.1", "1.3.0-rc.2", "1.3.0", "1.3.1", "1.10.0"]
        found = [
            run("cmake", f"-DSEMVER={version}", "-DREVISION=1", "-P", script).strip()
            for version in rising
        ]
        self.assertEqual(found[2], "1.3.0~rc.1-1")
        for older, newer in itertools.pairwise(found):
            run("dpkg", "--compare-versions", older, "lt", newer)
        again = run("cmake", "-DSEMVER=1.3.0", "-DREVISION=2", "-P", script).strip()
        run("dpkg", "--compare-versions", "1.3.0-1", "lt", again)

    def test_every_installed_file_is_in_exactly_one_package(self) -> None:
        owners: dict[str, list[str]] = {}
        for package in self.packages.values():
            for name, member in package.members.items():
                if not member.isdir():
                    owners.setdefault(name, []).append(package.name)
        twice = {name: owner for name, owner in owners.items() if len(owner) != 1}
        self.assertEqual(twice, {})
        # What Debian asks for beside what is installed elsewhere.
        added = {f"/usr/share/doc/{name}/copyright" for name in self.packages}
        added |= {f"/usr/share/doc/{name}/changelog.Debian.gz" for name in self.packages}
        added |= {"/usr/share/doc/attnrt/changelog.gz", "/usr/share/man/man1/attnrt.1.gz"}
        left_out = {"/usr/share/doc/attnrt/LICENSE", "/usr/share/man/man1/attnrt.1"}
        installed = {
            "/" + path.relative_to(self.installed).as_posix()
            for path in self.installed.rglob("*")
            if path.is_symlink() or not path.is_dir()
        }
        self.assertGreaterEqual(installed, left_out)
        self.assertEqual(set(owners), (installed - left_out) | added)

    def test_who_depends_on_whom(self) -> None:
        attnrt = self.packages["attnrt"]
        exactly = f"= {attnrt.version}"
        self.assertEqual(self.packages["attnrt-dev"].relations("Depends"), {"attnrt": exactly})
        self.assertEqual(
            attnrt.relations("Provides"),
            {"libattnrt0": exactly, "attnrt-plugin-abi-1": "= 1.0"},
        )
        for name in set(self.packages) & set(PLUGINS.values()):
            relations = self.packages[name].relations("Depends")
            # Nothing of a version of attnrt: each is upgraded alone.
            self.assertEqual(relations.pop("attnrt-plugin-abi-1"), "", name)
            self.assertNotIn("attnrt", relations, name)
            self.assertTrue(set(relations) <= {"libc6", "libgcc-s1"}, relations)
        if self.has_python:
            relations = self.packages["python3-attnrt"].relations("Depends")
            self.assertEqual(relations["attnrt"], exactly)
            self.assertRegex(relations["python3"], r"^>= 3\.\d+~ << 3\.\d+$")

    def test_every_linked_library_is_depended_on(self) -> None:
        for package in self.packages.values():
            relations = package.relations("Depends")
            for name, data in package.elf_files.items():
                file = self.scratch / "elf"
                file.write_bytes(data)
                needed = re.findall(r"NEEDED.*\[(.+)\]", run("readelf", "--dynamic", file))
                self.assertTrue(needed, name)
                for library in needed:
                    if library == "libattnrt.so.0":
                        owners = {"attnrt"}
                    else:  # more than one, if foreign architectures have it, too
                        lines = run("dpkg-query", "--search", f"*/{library}").splitlines()
                        owners = {line.split(":")[0] for line in lines}
                    held = bool(owners & set(relations))
                    self.expect_each(held, package, f"{library} of {owners}")

    def test_who_links_the_library_depends_on_its_soname(self) -> None:
        major, minor, _ = self.project_version.split(".")
        self.assertEqual(
            self.packages["attnrt"].control["shlibs"],
            f"libattnrt {major} libattnrt{major} (>= {self.project_version}), "
            f"libattnrt{major} (<< {major}.{int(minor) + 1}~)\n",
        )

    def test_scripts_only_where_they_are_needed(self) -> None:
        for package in self.packages.values():
            members = set(package.control) - {"control", "md5sums"}
            self.assertEqual(members, CONTROL.get(package.name, set()), package.name)
        control = self.packages["attnrt"].control
        self.assertEqual(control["triggers"], "activate-noawait ldconfig\n")

    def test_no_configuration_files(self) -> None:
        """The runtime reads no file of /etc. Who adds one there must name it in conffiles."""
        for package in self.packages.values():
            etc = {name for name in package.files if name.startswith("/etc/")}
            listed = set(package.control.get("conffiles", "").split())
            self.assertEqual(etc, listed, package.name)
            self.assertTrue(all(name.startswith("/usr/") for name in package.files))

    def test_no_path_of_the_build_machine(self) -> None:
        forbidden = {str(ROOT), str(self.build), str(self.scratch), "/_CPack_Packages"}
        if pathlib.Path.home() != pathlib.Path("/"):
            forbidden.add(f"{pathlib.Path.home()}/")
        for package in self.packages.values():
            files = {**package.files, **{n: t.encode() for n, t in package.control.items()}}
            for name, data in files.items():
                text = gzip.decompress(data) if name.endswith(".gz") else data
                found = [path for path in forbidden if path.encode() in text]
                self.expect_each(not found, package, f"{name}: {found}")
            for name, data in package.elf_files.items():
                file = self.scratch / "elf"
                file.write_bytes(data)
                dynamic = run("readelf", "--dynamic", file)
                self.expect_each("RUNPATH" not in dynamic, package, name)
                self.expect_each("RPATH" not in dynamic, package, name)
                sections = run("readelf", "--section-headers", "--wide", file)
                self.expect_each(".symtab" not in sections, package, f"{name} is not stripped")

    def test_modes_and_owners(self) -> None:
        for package in self.packages.values():
            for name, member in package.members.items():
                owner = (member.uname, member.gname, member.uid, member.gid)
                self.assertEqual(owner, ("root", "root", 0, 0), name)
                if member.issym():
                    continue
                runs = member.isdir() or re.search(r"/(bin|libexec)/", name)
                expected = 0o755 if runs else 0o644
                self.expect_each(
                    member.mode & 0o777 == expected, package, f"{name}: {oct(member.mode)}"
                )

    def test_documents_of_each_package(self) -> None:
        for package in self.packages.values():
            doc = f"/usr/share/doc/{package.name}"
            copyright = package.files[f"{doc}/copyright"].decode()
            self.assertIn("MIT License", copyright)
            self.assertIn("attnrt authors", copyright)
            changelog = gzip.decompress(package.files[f"{doc}/changelog.Debian.gz"])
            file = self.scratch / "changelog"
            file.write_bytes(changelog)
            read = run("dpkg-parsechangelog", "--file", file)
            self.assertIn(f"\nVersion: {package.version}\n", read)
            self.assertIn("\nDate: Tue, 14 Nov 2023 22:13:20 +0000\n", read)
            self.assertIn("\nMaintainer: A Builder <builder@example.org>\n", read)
            # It names no file of another package, which may be of another version.
            where = "CHANGELOG.md of the sources of this version"
            if package.name == "attnrt":
                where = f"{doc}/changelog.gz"
            self.assertIn(f"What changed is in {where}.\n", read)
        attnrt = self.packages["attnrt"].files
        self.assertIn("nlohmann", attnrt["/usr/share/doc/attnrt/copyright"].decode())
        upstream = gzip.decompress(attnrt["/usr/share/doc/attnrt/changelog.gz"])
        self.assertEqual(upstream, (ROOT / "CHANGELOG.md").read_bytes())
        for name, package in self.packages.items():
            if name.endswith("-cuda"):
                self.assertIn("NVIDIA", package.files[f"/usr/share/doc/{name}/copyright"].decode())
                self.assertEqual(package.field("Section"), "non-free/science")

    def test_fields_that_a_user_reads(self) -> None:
        architecture = run("dpkg", "--print-architecture").strip()
        triplet = run("dpkg-architecture", "--query", "DEB_HOST_MULTIARCH").strip()
        for package in self.packages.values():
            self.assertEqual(package.field("Maintainer"), "A Builder <builder@example.org>")
            self.assertEqual(package.field("Architecture"), architecture)
            self.assertEqual(package.field("Priority"), "optional")
            self.assertRegex(package.field("Section"), r"^[\w/-]+$")
            self.assertGreater(int(package.field("Installed-Size")), 0)
            synopsis, *lines = package.field("Description").splitlines()
            self.assertTrue(20 < len(synopsis) <= 80, synopsis)
            self.assertTrue(lines)
            for line in lines:
                self.assertTrue(line.startswith(" ") and len(line) <= 80, line)
            same = any(name.startswith(f"/usr/lib/{triplet}/") for name in package.members)
            same &= package.name != "attnrt"  # has the command, too
            self.assertEqual(package.field("Multi-Arch") == "same", same, package.name)


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit("usage: packages_test.py BUILD_FOLDER [TEST...]")
    Packages.build = pathlib.Path(sys.argv.pop(1)).resolve()
    unittest.main()
