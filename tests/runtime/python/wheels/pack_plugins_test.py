#!/usr/bin/env python3
# tests/runtime/python/wheels/pack_plugins_test.py: wheels of plugins, without installing them
"""pack_plugins_test.py ATTNRT PLUGIN_FOLDER: packs the plugin `minimal` that lies there."""

from __future__ import annotations

import base64
import csv
import hashlib
import pathlib
import shutil
import subprocess
import sys
import tempfile
import unittest
import zipfile

ROOT = pathlib.Path(__file__).resolve().parents[4]
PACK = ROOT / "runtime/python/wheels/pack_plugins.py"
sys.path.insert(0, str(PACK.parent))
import pack_plugins  # noqa: E402

NAME = "attnrt_minimal_cpu-1.0.0"


class PackPlugins(unittest.TestCase):
    attnrt: str
    plugin: pathlib.Path

    def setUp(self) -> None:
        self.scratch = pathlib.Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.scratch)
        self.folder = self.scratch / "plugins"
        self.folder.mkdir()

    def pack(self, out: str = "out") -> subprocess.CompletedProcess[str]:
        command = [sys.executable, PACK, self.attnrt, self.folder, self.scratch / out]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    def wheel(self, out: str = "out") -> pathlib.Path:
        shutil.copy(self.plugin, self.folder)
        done = self.pack(out)
        self.assertEqual(done.returncode, 0, done.stderr)
        (wheel,) = (self.scratch / out).iterdir()
        self.assertEqual(done.stdout, f"{wheel}\n")
        return wheel

    def test_the_files_and_their_hashes(self) -> None:
        wheel = self.wheel()
        self.assertEqual(wheel.name, f"{NAME}-py3-none-linux_x86_64.whl")
        with zipfile.ZipFile(wheel) as archive:
            files = {name: archive.read(name) for name in archive.namelist()}
        record = files.pop(f"{NAME}.dist-info/RECORD").decode()
        expected = {
            (name, "sha256=" + base64.urlsafe_b64encode(digest).decode().rstrip("="), str(size))
            for name, digest, size in (
                (name, hashlib.sha256(data).digest(), len(data)) for name, data in files.items()
            )
        }
        rows = {tuple(row) for row in csv.reader(record.splitlines())}
        self.assertEqual(rows, expected | {(f"{NAME}.dist-info/RECORD", "", "")})
        self.assertEqual(files["attnrt/lib/attnrt/plugins/minimal.so"], self.plugin.read_bytes())
        self.assertEqual(
            files[f"{NAME}.dist-info/licenses/LICENSE"], (ROOT / "LICENSE").read_bytes()
        )
        self.assertEqual(len(files), 4)

    def test_the_version_is_the_plugin_s(self) -> None:
        with zipfile.ZipFile(self.wheel()) as archive:
            metadata = archive.read(f"{NAME}.dist-info/METADATA").decode()
        for line in ("Name: attnrt-minimal-cpu", "Version: 1.0.0", "Requires-Dist: attnrt>=0.1"):
            self.assertIn(f"\n{line}\n", metadata)

    def test_the_same_plugin_gives_the_same_wheel(self) -> None:
        self.assertEqual(self.wheel("first").read_bytes(), self.wheel("second").read_bytes())

    def test_what_is_no_plugin(self) -> None:
        (self.folder / "text.so").write_text("no library")
        done = self.pack()
        self.assertEqual(done.returncode, 1)
        self.assertRegex(done.stderr, r"^pack_plugins: .*/text\.so is no plugin to ship: ")

    def test_versions(self) -> None:
        for given, expected in (
            ("1.2.0", "1.2.0"),
            ("1.2.0-rc.1", "1.2.0rc1"),
            ("10.0.3-alpha.2", "10.0.3a2"),
            ("1.2.0-beta3", "1.2.0b3"),
        ):
            version = pack_plugins.python_version({"path": "x.so", "version": given})
            self.assertEqual(version, expected)
        for given in ("1.2.0-nightly", "1.2.0+mine", "1.2.0-rc"):
            with self.assertRaises(SystemExit) as raised:
                pack_plugins.python_version({"path": "x.so", "version": given})
            self.assertIn(f"x.so: version {given} cannot be", str(raised.exception))


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit("usage: pack_plugins_test.py ATTNRT PLUGIN_FOLDER")
    PackPlugins.attnrt = sys.argv[1]
    PackPlugins.plugin = pathlib.Path(sys.argv[2]) / "minimal.so"
    unittest.main(argv=sys.argv[:1])
