#!/usr/bin/env python3
# tests/runtime/packages/pack_test.py: what pack.sh leaves behind, also where it fails or is stopped
"""pack_test.py: cpack is replaced by a program that packs nothing, fails, or stops its caller.

Needs dpkg-deb.
"""

from __future__ import annotations

import os
import pathlib
import subprocess
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[3]
NAMES = ("attnrt", "attnrt-dev")
OLD = {f"{name}_0.1.0-1_all.deb" for name in NAMES}
NEW = {f"{name}_0.2.0-1_all.deb" for name in NAMES}
# Called as cpack --config CONFIGURATION -B FOLDER, for attnrt last.
CPACK = """#!/bin/sh
set -e
name=$(basename "$2" .cmake)
if [ "$name" = attnrt ]; then
  echo "$name: from cpack"
  [ -z "${FAIL-}" ] || exit 1
  [ -z "${SIGNAL-}" ] || kill -s "$SIGNAL" "$PPID"
fi
folder=$4/_CPack_Packages/$name
mkdir -p "$folder/DEBIAN"
cat >"$folder/DEBIAN/control" <<TEXT
Package: $name
Version: 0.2.0-1
Architecture: all
Maintainer: A Builder <builder@example.org>
Description: nothing
TEXT
dpkg-deb --build --root-owner-group "$folder" "$4"
"""


class Pack(unittest.TestCase):
    def setUp(self) -> None:
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.scratch = pathlib.Path(scratch.name)
        for folder in ("bin", "tmp", "out", "build/packages"):
            (self.scratch / folder).mkdir(parents=True)
        cpack = self.scratch / "bin/cpack"
        cpack.write_text(CPACK)
        cpack.chmod(0o755)
        for name in NAMES:
            (self.scratch / f"build/packages/{name}.cmake").touch()
        self.other = "attnrt-plugin-cpu_1.0.0-1_all.deb"
        for name in {*OLD, self.other}:
            (self.scratch / "out" / name).touch()

    def pack(self, *packages: str, **environment: str) -> subprocess.CompletedProcess[str]:
        # Also where this test was started with signals ignored.
        command = ["env", "--default-signal=INT,TERM", str(ROOT / "runtime/packages/pack.sh")]
        done = subprocess.run(
            [*command, str(self.scratch / "build"), str(self.scratch / "out"), *packages],
            env={
                **os.environ, **environment, "TMPDIR": str(self.scratch / "tmp"),
                "PATH": f"{self.scratch}/bin:{os.environ['PATH']}",
            },
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        self.assertEqual(list((self.scratch / "tmp").iterdir()), [], "scratch files are left")
        return done

    def files(self) -> set[str]:
        return {path.name for path in (self.scratch / "out").iterdir()}

    def test_new_files_take_the_place_of_old_ones_of_the_same_packages(self) -> None:
        done = self.pack()
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(self.files(), {*NEW, self.other})

    def test_a_package_alone(self) -> None:
        done = self.pack("attnrt")
        self.assertEqual(done.returncode, 0, done.stderr)
        files = {"attnrt_0.2.0-1_all.deb", "attnrt-dev_0.1.0-1_all.deb", self.other}
        self.assertEqual(self.files(), files)

    def test_a_failure_takes_no_file_away(self) -> None:
        done = self.pack(FAIL="1")
        self.assertEqual(done.returncode, 1)
        self.assertIn("attnrt: from cpack", done.stderr)
        self.assertEqual(self.files(), {*OLD, self.other})

    def test_a_signal_takes_no_file_away_and_leaves_none(self) -> None:
        for signal, status in {"INT": 130, "TERM": 143}.items():
            with self.subTest(signal):
                done = self.pack(SIGNAL=signal)
                self.assertEqual(done.returncode, status, done.stderr)
                self.assertEqual(self.files(), {*OLD, self.other})

    def test_a_package_that_is_not_there(self) -> None:
        done = self.pack("attnrt-nothing")
        self.assertEqual(done.returncode, 1)
        self.assertIn("has no package attnrt-nothing", done.stderr)
        self.assertEqual(self.files(), {*OLD, self.other})


if __name__ == "__main__":
    unittest.main()
