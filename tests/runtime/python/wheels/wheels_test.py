#!/usr/bin/env python3
# tests/runtime/python/wheels/wheels_test.py: the wheels of ./dev wheel, installed and used
"""wheels_test.py FOLDER [PYTHON...]: installs FOLDER's wheels in a new environment of each PYTHON.

Needs PyPI (nanobind-backend, numpy, ml_dtypes, onnx). What is installed runs with nothing on the
path but that environment: no compiler and no tool of this machine. Without PYTHON: the one that
runs this.
"""

from __future__ import annotations

import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import unittest
import zipfile
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parents[4]
sys.path.insert(0, str(ROOT / "tests/docs"))
import markdown  # noqa: E402

PROBLEM = "dtype=f32 heads_q=4 heads_kv=2 seq_q=16 seq_kv=16 head_dim=64 causal=true"
# What every Linux has, by the manylinux rules.
SYSTEM = re.compile(r"(ld-linux-x86-64|lib(c|m|dl|rt|pthread|stdc\+\+|gcc_s|z))\.so")


def the_wheel(folder: pathlib.Path) -> pathlib.Path:
    (wheel,) = folder.glob("attnrt-*.whl")
    return wheel


class Contents(unittest.TestCase):
    """What the files are, and are called."""

    folder: pathlib.Path

    def setUp(self) -> None:
        self.archive = zipfile.ZipFile(the_wheel(self.folder))
        self.addCleanup(self.archive.close)
        self.names = self.archive.namelist()

    def test_one_wheel_for_all_pythons(self) -> None:
        self.assertRegex(
            the_wheel(self.folder).name,
            r"^attnrt-\d+\.\d+\.\d+-cp310-abi3-manylinux_2_\d+_x86_64\.whl$",
        )
        modules = [name for name in self.names if name.startswith("attnrt/_attnrt")]
        self.assertEqual(sorted(modules), ["attnrt/_attnrt.abi3.so", "attnrt/_attnrt.pyi"])
        (metadata,) = (name for name in self.names if name.endswith(".dist-info/METADATA"))
        text = self.archive.read(metadata).decode()
        self.assertIn("\nRequires-Python: >=3.10\n", text)
        self.assertRegex(text, r"\nRequires-Dist: nanobind-backend>=1\.0\n")

    def test_the_runtime_is_in_it_once(self) -> None:
        binaries = [
            name
            for name in self.names
            if not name.endswith("/") and self.archive.read(name)[:4] == b"\x7fELF"
        ]
        own = sorted(name for name in binaries if not name.startswith("attnrt.libs/"))
        self.assertEqual(
            own,
            [
                "attnrt/_attnrt.abi3.so",
                "attnrt/bin/attnrt",
                "attnrt/lib/attnrt/plugins/cpu.so",
                "attnrt/lib/libattnrt.so.0",
                "attnrt/libexec/attnrt/attnrt-probe",
            ],
        )
        for name in ("attnrt/bin/attnrt", "attnrt/libexec/attnrt/attnrt-probe"):
            mode = self.archive.getinfo(name).external_attr >> 16
            self.assertTrue(mode & 0o100, name)

    def test_licences_of_all_that_is_bundled(self) -> None:
        texts = {
            name.split("/licenses/")[1]: self.archive.read(name).decode()
            for name in self.names
            if "/licenses/" in name and not name.endswith("/")
        }
        self.assertIn("MIT License", texts["LICENSE"])
        bundled = [name.split("/")[1] for name in self.names if re.match(r"attnrt\.libs/.", name)]
        self.assertTrue(bundled)
        for library in bundled:
            heads = [text for text in texts.values() if library in text.partition("\n")[0]]
            self.assertEqual(len(heads), 1, library)
        for text in texts.values():
            for common in re.findall(r"/usr/share/common-licenses/([\w.+-]*\w)", text):
                self.assertIn(f"third_party/{common}.txt", texts)
        for part in ("nanobind", "libhwy-dev", "nlohmann-json3-dev"):
            self.assertIn(f"third_party/{part}.txt", texts)


class Installed(unittest.TestCase):
    """The wheel in a new environment. A subclass names the Python."""

    folder: pathlib.Path
    python: str

    @classmethod
    def setUpClass(cls) -> None:
        cls.scratch = pathlib.Path(tempfile.mkdtemp())
        cls.addClassCleanup(shutil.rmtree, cls.scratch)
        cls.environment = cls.scratch / "venv"
        cls.registry = cls.scratch / ".cache/attnrt/admission"
        subprocess.run([cls.python, "-m", "venv", cls.environment], check=True)
        others = ("numpy", "ml_dtypes", "onnx==1.23.2")
        cls.pip("install", "--only-binary=:all:", the_wheel(cls.folder), *others)
        where = "import sysconfig; print(sysconfig.get_path('platlib'))"
        cls.package = pathlib.Path(cls.run_python("-c", where).stdout.strip()) / "attnrt"

    @classmethod
    def pip(cls, *words: str | pathlib.Path) -> None:
        command = [cls.environment / "bin/python", "-m", "pip", "--disable-pip-version-check"]
        done = subprocess.run([*command, *words], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise AssertionError(f"pip {words}: {done.stderr}")

    @classmethod
    def run_program(
        cls, program: str, *words: str, cwd: pathlib.Path | None = None, **variables: str
    ) -> subprocess.CompletedProcess[str]:
        """Runs a program of the environment, with nothing else on the path."""
        bin = cls.environment / "bin"
        given = {"PATH": str(bin), "HOME": str(cls.scratch), "PYTHONDONTWRITEBYTECODE": "1"}
        if os.geteuid() == 0:  # whose registry is the machine's
            given["ATTNRT_REGISTRY"] = str(cls.registry)
        return subprocess.run(
            [bin / program, *words],
            cwd=cwd or cls.scratch,
            env={**given, **variables},
            capture_output=True,
            text=True,
            check=False,
        )

    @classmethod
    def run_python(
        cls, *words: str, cwd: pathlib.Path | None = None, **variables: str
    ) -> subprocess.CompletedProcess[str]:
        return cls.run_program("python", *words, cwd=cwd, **variables)

    def expect(self, done: subprocess.CompletedProcess[str]) -> str:
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        return done.stdout

    def listed(self) -> dict[str, Any]:
        """What `attnrt list` finds, by name and devices."""
        document = json.loads(self.expect(self.run_program("attnrt", "list", "--wait", "--json")))
        return {" ".join([p["name"], *p["for_devices"]]): p for p in document["plugins"]}

    def test_the_lines_of_the_readme(self) -> None:
        blocks = [b for b in markdown.blocks(ROOT / "README.md") if b.language == "python"]
        self.assertEqual(len(blocks), 1)
        said = self.expect(self.run_python("-c", blocks[0].text + "\nprint(out.shape)"))
        self.assertEqual(said, "(1, 128, 8, 64)\n")

    def test_the_tests_of_the_package(self) -> None:
        tests = str(ROOT / "tests/runtime/python")
        command = ("-m", "unittest", "discover", "-s", tests, "-p", "*_test.py")
        done = self.run_python(*command)
        self.expect(done)
        self.assertRegex(done.stderr, r"\nRan [1-9]\d+ tests ")

    def test_the_command(self) -> None:
        cpu = self.listed()["cpu cpu"]
        self.assertEqual((cpu["state"], cpu["path"]), (
            "ready", str(self.package.resolve() / "lib/attnrt/plugins/cpu.so")
        ))  # fmt: skip
        # It was tried in attnrt-probe, which is found beside the library.
        self.assertEqual(
            (cpu["admission"]["state"], cpu["admission"]["level"]), ("admitted", "loads")
        )
        said = self.expect(self.run_program("attnrt", "explain", PROBLEM))
        self.assertRegex(said, r"decision +cpu 1\.\d+\.\d+ on cpu")
        said = self.expect(self.run_program("attnrt", "verify", "--cases", "2"))
        self.assertRegex(said, r"cpu")
        self.assertEqual(self.run_python("-m", "attnrt", "explain", PROBLEM).returncode, 0)
        self.assertEqual(self.run_program("attnrt", "no-such-word").returncode, 2)

    def test_the_library_finds_the_same(self) -> None:
        program = (
            "import attnrt, json; runtime = attnrt.Runtime();"
            f"runtime.explain({PROBLEM!r});"
            "print(json.dumps(runtime.plugins()))"
        )
        (cpu,) = json.loads(self.expect(self.run_python("-c", program)))
        self.assertEqual(cpu["admission"]["state"], "admitted")
        self.assertTrue(self.registry.is_dir())

    def test_no_library_of_this_machine(self) -> None:
        program = "import attnrt; attnrt.Runtime(); print(open('/proc/self/maps').read())"
        maps = self.expect(self.run_python("-c", program))
        files = set(re.findall(r"(/\S+\.so\S*)", maps))
        self.assertTrue(any("attnrt.libs/libfmt-" in file for file in files))
        own = {pathlib.Path(self.python).resolve().parents[1], self.environment.resolve()}
        for file in map(pathlib.Path, files):
            if not own & set(file.parents) and "/python3" not in str(file):
                self.assertRegex(file.name, SYSTEM)

    def changed(self, old: bytes, new: bytes) -> bytes:
        """libattnrt.so with new for old, of the same length."""
        whole = (self.package / "lib/libattnrt.so.0").read_bytes()
        self.assertIn(old, whole)
        return whole.replace(old, new)

    def of_other_version(self) -> tuple[bytes, str, str]:
        """libattnrt.so with another version; its own version, and the other."""
        version = the_wheel(self.folder).name.split("-")[1]
        other = "9" * len(version)
        return self.changed(f"\0{version}\0".encode(), f"\0{other}\0".encode()), version, other

    def exchange_library(self, data: bytes) -> None:
        """Puts data in the place of libattnrt.so until the test ends."""
        library = self.package / "lib/libattnrt.so.0"
        self.addCleanup(library.write_bytes, library.read_bytes())
        library.unlink()
        library.write_bytes(data)

    def import_error(self, cwd: pathlib.Path | None = None) -> str:
        """The text of the ImportError; nothing else is chained to it."""
        done = self.run_python("-c", "import attnrt", cwd=cwd)
        self.assertEqual(done.returncode, 1)
        self.assertNotIn("During handling", done.stderr)
        last = done.stderr.rstrip().splitlines()[-1]
        self.assertTrue(last.startswith("ImportError: attnrt: "), done.stderr)
        return last

    def test_a_library_of_another_version(self) -> None:
        data, version, other = self.of_other_version()
        self.exchange_library(data)
        text = self.import_error()
        self.assertIn(f"loaded version {other} of {self.package}", text)
        self.assertIn(f"is of version {version}, ", text)
        self.assertIn("install the package again", text)

    def test_a_library_that_lacks_a_function(self) -> None:
        self.exchange_library(self.changed(b"attnrt_schedule_build\0", b"attnrt_schedule_older\0"))
        text = self.import_error()
        self.assertIn("undefined symbol: attnrt_schedule_build", text)
        self.assertIn("It needs the libattnrt.so of its own version", text)

    def test_a_library_elsewhere(self) -> None:
        data, _, other = self.of_other_version()
        (self.scratch / "elsewhere").mkdir()
        library = self.scratch / "elsewhere/libattnrt.so.0"
        library.write_bytes(data)
        needed = str(self.package.parent / "attnrt.libs")  # what the copy needs
        path = f"{library.parent}:{needed}"
        self.expect(self.run_python("-c", "import attnrt", LD_LIBRARY_PATH=path))  # its own first
        done = self.run_python(
            "-c", "import attnrt", LD_PRELOAD=str(library), LD_LIBRARY_PATH=needed
        )
        self.assertIn(f"loaded version {other} of {library}", done.stderr)

    def test_the_folder_of_the_sources(self) -> None:
        text = self.import_error(cwd=ROOT / "runtime/python")
        self.assertIn(f"{ROOT}/runtime/python/attnrt holds no compiled module", text)
        self.assertIn("run Python from another folder", text)

    def test_without_the_backend_of_nanobind(self) -> None:
        self.pip("uninstall", "--yes", "nanobind-backend")
        self.addCleanup(self.pip, "install", "nanobind-backend")
        self.assertIn("pip install nanobind-backend", self.import_error())

    def test_wheels_of_plugins(self) -> None:
        wheels = sorted(self.folder.glob("attnrt_*.whl"))
        if not wheels:
            self.skipTest("there are none: they were built with --no-gpu-code")
        self.pip("install", "--no-index", *wheels)
        listed = self.listed()
        for wheel in wheels:
            project, version, *_ = wheel.name.split("-")
            key = project.removeprefix("attnrt_")  # hip_flash_cuda
            name, _, device = key.rpartition("_")
            plugin = listed[f"{name} {device}"]
            self.assertEqual(plugin["version"], version)
            self.assertIn(plugin["state"], ("ready", "no device"))
            self.assertEqual(
                pathlib.Path(plugin["path"]).parents[2], self.package.resolve() / "lib"
            )
        self.pip("uninstall", "--yes", *(wheel.name.split("-")[0] for wheel in wheels))
        self.assertEqual(list(self.listed()), ["cpu cpu"])


def load_tests(
    loader: unittest.TestLoader, tests: unittest.TestSuite, pattern: str | None
) -> unittest.TestSuite:
    suite = unittest.TestSuite(loader.loadTestsFromTestCase(Contents))
    for python in PYTHONS:
        case = type(f"Installed[{python}]", (Installed,), {"python": python})
        suite.addTests(loader.loadTestsFromTestCase(case))
    return suite


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit("usage: wheels_test.py FOLDER [PYTHON...]")
    Contents.folder = Installed.folder = pathlib.Path(sys.argv[1]).resolve()
    PYTHONS = [shutil.which(name) or name for name in sys.argv[2:]] or [sys.executable]
    unittest.main(argv=[sys.argv[0]], verbosity=2)
