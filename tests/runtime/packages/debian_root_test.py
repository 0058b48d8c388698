#!/usr/bin/env python3
# tests/runtime/packages/debian_root_test.py: installs, uses, upgrades and purges packages
"""debian_root_test.py BUILD_FOLDER PACKAGE_FOLDER

Needs root, debootstrap and a mirror of Debian (ATTNRT_DEBIAN_MIRROR). BUILD_FOLDER is that of a
preset; the packages were made from it. The tests run in order, on one system. A newer hip_flash is
built from a copy of the sources.
"""

from __future__ import annotations

import json
import pathlib
import re
import shutil
import subprocess
import sys
import unittest
from typing import Any

import debian_package
from debian_root import DebianRoot, missing

ROOT = pathlib.Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT / "tests/docs"))
import markdown  # noqa: E402

SIZES = "dtype=f16 heads_q=8 heads_kv=2 seq_q=128 seq_kv=128 head_dim=64 causal=true"
# lintian's tags that stay, and why.
ACCEPTED = {
    "initial-upload-closes-no-bugs": "the packages are not in Debian's archive",
    "bogus-mail-host": "whoever builds packages to hand them on sets DEBEMAIL",
    "bogus-mail-host-in-debian-changelog": "the same",
    "copyright-not-using-common-license-for-lgpl": "NVIDIA's licence names others' parts",
    "package-name-doesnt-match-sonames": "it has the command, too, and provides libattnrt0",
}


def newer_flash(build: pathlib.Path) -> tuple[str, list[pathlib.Path]]:
    """Builds hip_flash with its next patch version: that version, and its packages."""
    scratch = build.parent / "packages-newer"
    shutil.rmtree(scratch, ignore_errors=True)
    source = scratch / "source"
    source.mkdir(parents=True)
    listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listing, cwd=ROOT, capture_output=True, check=True).stdout
    copy = ["tar", "--create", "--null", "--files-from=-", "--file=-"]
    archive = subprocess.run(copy, cwd=ROOT, input=names, capture_output=True, check=True).stdout
    subprocess.run(["tar", "--extract", "--file=-"], cwd=source, input=archive, check=True)
    file = source / "plugins/hip_flash/CMakeLists.txt"
    text = file.read_text()
    found = re.search(r"NAME hip_flash VERSION (\d+\.\d+)\.(\d+)", text)
    assert found is not None
    version = f"{found[1]}.{int(found[2]) + 1}"
    file.write_text(text.replace(found[0], f"NAME hip_flash VERSION {version}"))
    preset = build.name
    packages = [p.stem for p in (build / "packages").glob("attnrt-plugin-hip-flash-*.cmake")]
    targets = {"attnrt-plugin-hip-flash-rocm": "hip_flash"}
    for command in (
        ["cmake", "--preset", preset, "--log-level=NOTICE"],
        ["cmake", "--build", "--preset", preset, "--target"]
        + [targets.get(package, "hip_flash_cuda") for package in packages],
        ["runtime/packages/pack.sh", f"build/{preset}", scratch / "packages", *packages],
    ):
        done = subprocess.run(
            command, cwd=source, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            check=False,
        )  # fmt: skip
        if done.returncode != 0:
            sys.exit(f"debian_root_test: {command} failed:\n{done.stdout[-4000:]}")
    return version, sorted((scratch / "packages").glob("*.deb"))


class InNewDebian(unittest.TestCase):
    build: pathlib.Path
    folder: pathlib.Path

    @classmethod
    def setUpClass(cls) -> None:
        cls.packages = debian_package.packages_in(cls.folder)
        root = cls.build.parent / "packages-root"
        shutil.rmtree(root, ignore_errors=True)
        cls.addClassCleanup(shutil.rmtree, root, ignore_errors=True)
        cls.debian = DebianRoot(root, cls.build.parent / "packages-debs")
        cls.debian.publish(*(package.path for package in cls.packages.values()))
        cls.before = cls.debian.versions()
        cls.gpu = sorted(name for name in cls.packages if "-hip-" in name)

    def listed(self) -> dict[str, Any]:
        """What attnrt list finds, by the package of its file."""
        document = json.loads(self.debian.run("attnrt", "list", "--wait", "--json"))
        found = {}
        for plugin in document["plugins"]:
            owner = self.debian.run("dpkg-query", "--search", plugin["path"])
            found[owner.split(":")[0]] = plugin
        return found

    def explained(self, device: str) -> str:
        return self.debian.run("attnrt", "explain", f"{device} {SIZES}")

    def test_0_lintian(self) -> None:
        if shutil.which("lintian") is None:
            self.fail("found no lintian; install Debian's package lintian")
        files = [str(package.path) for package in self.packages.values()]
        done = subprocess.run(
            ["lintian", "--allow-root", "--tag-display-limit=0", *files],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        tags = [line for line in done.stdout.splitlines() if re.match("[EW]: ", line)]
        left = [line for line in tags if line.split()[2] not in ACCEPTED]
        self.assertEqual(left, [], done.stderr)

    def test_1_install(self) -> None:
        self.debian.apt("install", "attnrt", "attnrt-plugin-cpu", *self.gpu)
        self.assertIn("libattnrt.so.0 ", self.debian.run("ldconfig", "-p"))
        listed = self.listed()
        self.assertEqual(set(listed), {"attnrt-plugin-cpu", *self.gpu})
        for name, plugin in listed.items():
            self.assertEqual(self.packages[name].version, f"{plugin['version']}-1")
            expected = "ready" if name == "attnrt-plugin-cpu" else "no device"
            self.assertEqual(plugin["state"], expected, plugin)
        # It was tried in attnrt-probe first.
        self.assertEqual(listed["attnrt-plugin-cpu"]["admission"]["state"], "admitted")
        self.assertIn("attnrt", self.debian.run("attnrt", "--version"))

    def test_2_the_command(self) -> None:
        data = "smollm2_layer18_decode.safetensors"
        shutil.copy(ROOT / "tests/data" / data, self.debian.folder / "srv")
        said = self.debian.run("attnrt", "run", "--input", f"/srv/{data}")
        self.assertRegex(said, r"backend +cpu 1\.")
        self.assertRegex(said, r"error +out max")  # compared with the file's expected values
        said = self.debian.run("attnrt", "verify", "--cases", "2")
        self.assertRegex(said, r"cpu")
        self.assertEqual(self.debian.attempt("attnrt", "no-such-word").returncode, 2)

    def test_3_development(self) -> None:
        self.debian.apt("install", "attnrt-dev", "gcc", "libc6-dev", "pkg-config", "cmake", "make")
        shutil.copytree(ROOT / "examples", self.debian.folder / "srv/examples")
        compile = "cc -o /srv/embed /srv/examples/embed.c $(pkg-config --cflags --libs attnrt) -lm"
        self.debian.run("sh", "-c", compile)
        self.debian.run("/srv/embed", "cpu")
        # What links the library is packed with the right dependency: by the file shlibs.
        (self.debian.folder / "srv/debian").mkdir()
        (self.debian.folder / "srv/debian/control").touch()
        self.debian.apt("install", "dpkg-dev")
        said = self.debian.run("sh", "-c", "cd /srv && dpkg-shlibdeps -O embed")
        self.assertRegex(said, r"libattnrt0 \(>= 0\.\d+\.\d+\), libattnrt0 \(<< 0\.\d+~\)")
        example, made = "/srv/examples/minimal_plugin", "/srv/made"
        self.debian.run("cmake", "-S", example, "-B", made)
        self.debian.run("cmake", "--build", made)
        self.debian.run("attnrt", "verify", "--plugin", f"{made}/minimal.so")

    def test_4_python(self) -> None:
        self.debian.apt("install", "python3-attnrt", "python3-numpy")
        (block,) = (b for b in markdown.blocks(ROOT / "README.md") if b.language == "python")
        program = f"{block.text}\nprint(out.shape)"
        self.assertEqual(self.debian.run("python3", "-c", program), "(1, 128, 8, 64)\n")
        program = "import importlib.metadata as m; print(m.version('attnrt'))"
        version = self.packages["python3-attnrt"].version.split("-")[0]
        self.assertEqual(self.debian.run("python3", "-c", program), f"{version}\n")
        self.debian.run("python3", "-m", "attnrt", "explain", SIZES)

    def test_5_upgrade_one_plugin(self) -> None:
        flash = [name for name in self.gpu if "-flash-" in name]
        self.assertTrue(flash, "the packages were built without GPU code")
        old = self.packages[flash[0]].version
        questions = {"rocm": "device=rocm arch=gfx1100", "cuda": "device=cuda arch=sm_80"}
        before = self.debian.versions()
        version, newer = newer_flash(self.build)
        self.debian.publish(*newer)
        for name in flash:
            question = questions[name.rpartition("-")[2]]
            said = self.explained(question)
            self.assertRegex(said, rf"decision +hip_flash {re.escape(old.split('-')[0])} ")
            self.debian.apt("install", "--only-upgrade", name)
            self.assertEqual(self.listed()[name]["version"], version)
            self.assertRegex(self.explained(question), rf"decision +hip_flash {version} ")
        after = self.debian.versions()
        changed = {name for name in before | after if before.get(name) != after.get(name)}
        self.assertEqual(changed, set(flash))
        # Back to the old version, and held there.
        self.debian.apt("install", "--allow-downgrades", f"{flash[0]}={old}")
        self.debian.run("apt-mark", "hold", flash[0])
        self.debian.apt("upgrade")
        self.assertEqual(self.listed()[flash[0]]["version"], old.split("-")[0])
        self.debian.run("apt-mark", "unhold", flash[0])
        self.debian.apt("upgrade")
        self.assertEqual(self.listed()[flash[0]]["version"], version)

    def test_6_remove_one_plugin(self) -> None:
        self.debian.apt("remove", "attnrt-plugin-cpu")
        self.assertEqual(set(self.listed()), set(self.gpu))
        data = "/srv/smollm2_layer18_decode.safetensors"
        self.assertNotEqual(self.debian.attempt("attnrt", "run", "--input", data).returncode, 0)
        self.debian.apt("install", "attnrt-plugin-cpu")
        self.debian.run("attnrt", "run", "--input", data)

    def test_7_remove_and_purge(self) -> None:
        mine = sorted(set(self.packages) & set(self.debian.versions()))
        self.assertEqual(mine, sorted(self.packages))
        said = self.debian.apt("remove", *mine)
        self.assertNotIn("not empty", said)
        # What programs wrote stays until the purge.
        info = "/var/lib/dpkg/info/attnrt"
        expected = ["/var/cache/attnrt", f"{info}.list", f"{info}.postrm"]
        self.assertEqual(self.debian.find("*attnrt*"), expected)
        self.debian.apt("purge", *mine)
        self.assertEqual(self.debian.find("*attnrt*"), [])
        self.assertNotIn("libattnrt", self.debian.run("ldconfig", "-p"))
        left = set(self.debian.versions()) & set(self.packages)
        self.assertEqual(left, set())


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit("usage: debian_root_test.py BUILD_FOLDER PACKAGE_FOLDER")
    if lack := missing():
        sys.exit(f"debian_root_test: {lack}")
    InNewDebian.build = pathlib.Path(sys.argv.pop(1)).resolve()
    InNewDebian.folder = pathlib.Path(sys.argv.pop(1)).resolve()
    unittest.main(failfast=True, verbosity=2)
