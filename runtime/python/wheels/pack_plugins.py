#!/usr/bin/env python3
# runtime/python/wheels/pack_plugins.py: makes a wheel of each plugin of this tree
"""pack_plugins.py ATTNRT PLUGIN_FOLDER OUT_FOLDER [TOOLKIT]: packs what ATTNRT finds there.

hip_flash_cuda.so becomes attnrt_hip_flash_cuda-VERSION-py3-none-linux_x86_64.whl. VERSION is the
plugin's own, from its manifest. The wheel puts the file into the plugin folder of the package
attnrt, beside libattnrt.so. `auditwheel repair` gives it its real tag afterwards. TOOLKIT is the
CUDA toolkit, whose run-time library is a part of plugins for NVIDIA GPUs, and so its licence.
"""

from __future__ import annotations

import json
import os
import pathlib
import platform
import re
import subprocess
import sys
from typing import Any

import wheel_file

ROOT = pathlib.Path(__file__).resolve().parents[3]
PLUGINS = "attnrt/lib/attnrt/plugins"  # in site-packages; what tool.scikit-build installs there
SHORT = {"alpha": "a", "beta": "b"}
IN_ATTNRT = {"cpu"}  # what the package attnrt has itself
SINCE = "0.1"  # the first attnrt whose plugin ABI is 1
README = """\
# {project}

{summary}: the backend {name} {version} for {devices}, a plugin of attnrt. pip puts it where the
package attnrt looks for plugins; `attnrt list` then shows it. It keeps its own version, and works
with every attnrt of plugin ABI {abi}.
"""


def found_plugins(attnrt: str, folder: str) -> list[dict[str, Any]]:
    # Nothing of the caller's environment decides what is found.
    environment = {n: v for n, v in os.environ.items() if not n.startswith("ATTNRT_")}
    command = [attnrt, "list", "--json", "--plugins", folder]
    answer = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True).stdout
    plugins: list[dict[str, Any]] = json.loads(answer)["plugins"]
    return plugins


def python_version(plugin: dict[str, Any]) -> str:
    """The plugin's semantic version as Python writes it: 1.2.0-rc.1 becomes 1.2.0rc1."""
    form = r"(\d+\.\d+\.\d+)(?:-(a|alpha|b|beta|rc)\.?(\d+))?"
    match = re.fullmatch(form, plugin["version"])
    if match is None:
        sys.exit(
            f"pack_plugins: {plugin['path']}: version {plugin['version']} cannot be that of a "
            "Python package; expected one such as 1.2.0 or 1.2.0-rc.1"
        )
    release, kind, number = match.groups()
    return release if kind is None else release + SHORT.get(kind, kind) + number


def cuda_license(toolkit: pathlib.Path | None) -> bytes:
    """NVIDIA's licence: of a toolkit as NVIDIA installs it, or as its Python packages do."""
    runtime = "dist-info/nvidia_cuda_runtime-*/licenses/License.txt"
    files = [] if toolkit is None else [*toolkit.glob("EULA.txt"), *toolkit.glob(runtime)]
    if files:
        return files[0].read_bytes()
    sys.exit(
        f"pack_plugins: found neither EULA.txt nor {runtime} in the CUDA toolkit {toolkit}; a "
        "plugin for NVIDIA GPUs has NVIDIA's run-time library in it, and needs its licence"
    )


def pack(
    plugin: dict[str, Any], out: pathlib.Path, toolkit: pathlib.Path | None = None
) -> pathlib.Path:
    file, name = pathlib.Path(plugin["path"]), plugin["name"]
    devices = plugin["for_devices"]
    project = "-".join(["attnrt", name.replace("_", "-"), *devices])
    version, tag = python_version(plugin), f"py3-none-linux_{platform.machine()}"
    stem = f"{project.replace('-', '_')}-{version}"
    licenses = {"LICENSE": (ROOT / "LICENSE").read_bytes()}
    expression = "MIT"
    if "cuda" in devices:
        licenses["third_party/CUDA.txt"] = cuda_license(toolkit)
        expression += " AND LicenseRef-NVIDIA-CUDA-EULA"
    files = "".join(f"License-File: {name}\n" for name in licenses)
    fields = {**plugin, "project": project, "devices": ", ".join(devices)}
    metadata = (
        f"Metadata-Version: 2.4\nName: {project}\nVersion: {version}\n"
        f"Summary: {plugin['summary']}\nLicense-Expression: {expression}\n{files}"
        f"Requires-Python: >=3.10\nRequires-Dist: attnrt>={SINCE}\n"
        f"Description-Content-Type: text/markdown\n\n{README.format(**fields)}"
    )
    wheel = f"Wheel-Version: 1.0\nGenerator: attnrt\nRoot-Is-Purelib: false\nTag: {tag}\n"
    path = out / f"{stem}-{tag}.whl"
    wheel_file.write(
        path,
        {
            f"{PLUGINS}/{file.name}": wheel_file.Entry(file.read_bytes()),
            f"{stem}.dist-info/METADATA": wheel_file.Entry(metadata.encode()),
            f"{stem}.dist-info/WHEEL": wheel_file.Entry(wheel.encode()),
            **{
                f"{stem}.dist-info/licenses/{name}": wheel_file.Entry(text)
                for name, text in licenses.items()
            },
        },
    )
    return path


def main(attnrt: str, folder: str, out: pathlib.Path, toolkit: pathlib.Path | None) -> None:
    out.mkdir(parents=True, exist_ok=True)
    for plugin in found_plugins(attnrt, folder):
        if plugin["name"] is None or plugin["state"] == "broken":
            sys.exit(f"pack_plugins: {plugin['path']} is no plugin to ship: {plugin['reason']}")
        if plugin["name"] not in IN_ATTNRT:
            print(pack(plugin, out, toolkit))


if __name__ == "__main__":
    if len(sys.argv) not in (4, 5):
        sys.exit("usage: pack_plugins.py ATTNRT PLUGIN_FOLDER OUT_FOLDER [TOOLKIT]")
    toolkit = pathlib.Path(sys.argv[4]) if len(sys.argv) == 5 else None
    main(sys.argv[1], sys.argv[2], pathlib.Path(sys.argv[3]), toolkit)
