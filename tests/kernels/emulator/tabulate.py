"""tests/kernels/emulator/tabulate.py: makes a table of the resources and instructions of the fused
kernels

    TINYGRAD_DIR=... python3 tabulate.py BUILD [--into FILE] [ARCH...]

BUILD: a build tree with kernels_emulator_test. Without --into, the table is printed. With it, the
table replaces the text in FILE between the lines <!-- kernels --> and <!-- /kernels -->.

Counts are one wave's, of the main loop alone: those of 512 keys less those of 256, so that what
comes before and after the loop cancels. matrix_share, for gfx11 only, is the WMMAs' share of the
cycles in which a SIMD issues vector instructions, at 32 cycles a WMMA, 4 a transcendental
instruction and 1 any other vector instruction. It is an upper bound of the share of WMMA peak that
the loop can reach if vector instructions do not overlap WMMAs.
"""

import argparse
import ctypes
import os
import re
import sys
from collections import Counter
from pathlib import Path

from emulator import CodeObject, Emulator, EmulatorError, run
from run_tests import RUN_KERNEL

CASES = (
    ("no mask", "nocausal", 0, 0),
    ("causal", "causal", 0, 1),
    ("boolean mask", "generic", 1, 0),
)
HEADER = (
    "| kernel | VGPRs | spills | scratch B | LDS B | waves (LDS too) | matrix | vector "
    "| transc. | LDS | memory "
    "| scalar | LDS / matrix | matrix_share |\n|" + "---|" * 14
)
TRANSCENDENTAL = ("V_EXP", "V_LOG", "V_RCP", "V_RSQ", "V_SQRT", "V_SIN", "V_COS")


def class_of(name: str) -> str:
    if "WMMA" in name or "MFMA" in name:
        return "matrix"
    if name.startswith(TRANSCENDENTAL):
        return "transcendental"
    if name.startswith("V_"):
        return "vector"
    if name.startswith("DS_"):
        return "LDS"
    return "memory" if name.startswith(("GLOBAL_", "BUFFER_", "FLAT_", "SCRATCH_")) else "scalar"


def waves(arch: str, registers: int, shared_bytes: int, waves_of_group: int) -> tuple[int, float]:
    """Returns the waves of a SIMD, limited by registers alone, and by workgroup memory too.

    gfx11, gfx12: 4 SIMDs of a workgroup processor share 128 KiB. gfx942: 4 of a compute unit share
    64 KiB.
    """
    total, granule, most, memory = (
        (512, 8, 8, 64 << 10) if arch.startswith("gfx9") else (1536, 24, 16, 128 << 10)
    )
    by_registers = min(most, total // (-(-registers // granule) * granule))
    groups = min(by_registers * 4 // waves_of_group, memory // shared_bytes)
    return by_registers, groups * waves_of_group / 4


class LoopCounter:
    """Runs workgroups of one architecture's kernels and counts their instructions."""

    def __init__(self, build: Path, emulator: Emulator, arch: str):
        self.folder, self.emulator, self.arch = build / "kernels" / arch, emulator, arch
        self.library = ctypes.CDLL(
            str(build / "tests/kernels/emulator/libkernels_emulator_test.so")
        )
        self.objects: dict[str, CodeObject] = {}

    def run(self, dtype: str, dim: int, mask: int, causal: int, seq_kv: int):
        """Returns (code object, kernel, threads, bytes of workgroup memory, counts of one wave)."""
        seen, failed = [], []

        def run_kernel(name, kernel, grid, block, shared_bytes, params, params_bytes, *_):
            try:
                name, kernel = name.decode(), kernel.decode()
                if name not in self.objects:
                    self.objects[name] = CodeObject(self.folder / f"{name}.elf")
                self.emulator.counts.clear()
                arguments = ctypes.string_at(params, params_bytes)
                self.objects[name].launch(
                    self.emulator, kernel, grid[:3], block, shared_bytes, arguments
                )
                wave = 64 if self.arch.startswith("gfx9") else 32
                counts = Counter()
                for instruction, n in self.emulator.counts.items():
                    counts[class_of(instruction)] += n / (block // wave)
                seen.append((self.objects[name], kernel, block, shared_bytes, counts))
            except Exception as error:
                failed.append(error)
            return 0

        callback = RUN_KERNEL(run_kernel)
        self.library.run_workgroup(
            self.arch.encode(), dtype.encode(), dim, mask, causal, seq_kv, callback
        )
        if failed:
            raise failed[0]
        return seen[0]

    def row(self, dtype: str, dim: int, case: str, kind: str, mask: int, causal: int) -> str:
        *_, short = self.run(dtype, dim, mask, causal, 256)
        code, kernel, block, shared_bytes, long = self.run(dtype, dim, mask, causal, 512)
        n = {
            c: round(long[c] - short[c])
            for c in ("matrix", "vector", "transcendental", "LDS", "memory", "scalar")
        }
        facts = code.kernels[kernel]
        registers = int(facts["vgpr_count"])
        in_group = block // (64 if self.arch.startswith("gfx9") else 32)
        by_registers, by_both = waves(self.arch, registers, shared_bytes, in_group)
        share = per = "-"
        if n["matrix"]:
            per = f"{n['LDS'] / n['matrix']:.2f}"
            if self.arch.startswith("gfx11"):
                matrix = 32 * n["matrix"]
                share = f"{matrix / (matrix + n['vector'] + 4 * n['transcendental']):.3f}"
        columns = [
            f"{dtype} {dim} {case}",
            registers,
            facts["vgpr_spill_count"],
            facts["private_segment_fixed_size"],
            shared_bytes,
            f"{by_registers} ({by_both:g})",
            *n.values(),
            per,
            share,
        ]
        return "| " + " | ".join(map(str, columns)) + " |"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("build", type=Path)
    parser.add_argument("--into", type=Path)
    parser.add_argument("--dtypes", default="f16,bf16,f32")
    parser.add_argument("--dims", default="64,128,256")
    parser.add_argument("archs", nargs="*")
    options = parser.parse_args()
    if "TINYGRAD_DIR" not in os.environ:
        raise EmulatorError("TINYGRAD_DIR is not set; set it to a tinygrad source tree")
    emulator = Emulator(os.environ["TINYGRAD_DIR"], counts=True)
    text = ""
    for arch in options.archs or ("gfx1100", "gfx1201", "gfx942"):
        text += f"\n{arch}:\n\n{HEADER}\n"
        counter = LoopCounter(options.build.resolve(), emulator, arch)
        for dtype in options.dtypes.split(","):
            for dim in map(int, options.dims.split(",")):
                for case in CASES:
                    text += counter.row(dtype, dim, *case) + "\n"
                    print(text.splitlines()[-1], file=sys.stderr)
    if not options.into:
        print(text)
        return 0
    page = options.into.read_text()
    page, found = re.subn(
        r"(?s)(<!-- kernels -->\n).*?(<!-- /kernels -->)", lambda m: m[1] + text + "\n" + m[2], page
    )
    if found != 1:
        raise EmulatorError(
            f"{options.into}: no pair of lines <!-- kernels --> and <!-- /kernels -->"
        )
    options.into.write_text(page)
    return 0


if __name__ == "__main__":
    run(main)
