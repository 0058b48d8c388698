#!/usr/bin/env python3
"""tests/kernels/hip/registers_test.py: AMD's kernels spill no more than docs/kernels.md says

    python3 registers_test.py BUILD PAGE ARCH...

A change of shared code can make AMD's compiler spill without a wrong result. Compares the registers
that each fused kernel spills, from its code object in BUILD/kernels/ARCH, with the page's table;
MORE may be added, since compilers differ.
"""

import re
import sys
from pathlib import Path

MORE = 8  # registers of a lane
KERNELS = {
    "no mask": "flash_attention_nocausal_kernel",
    "causal": "flash_attention_causal_kernel",
    "boolean mask": "flash_attention_kernel",
}
# In the notes (MessagePack) a kernel's symbol comes before its spills.
SPILLS = rb"(flash_attention\w*)\.kd.*?\.vgpr_spill_count(?:([\x00-\x7f])|\xcc(.)|\xcd(..))"


def spills_of(path):
    """Returns each kernel's spilled registers, from the code object's notes."""
    spills = {}
    for match in re.finditer(SPILLS, path.read_bytes(), re.S):
        digits = next(group for group in match.groups()[1:] if group is not None)
        spills[match[1].decode()] = int.from_bytes(digits, "big")
    return spills


def table_of(page, arch):
    """Returns (dtype, head_dim, case) and the spills of each row of an architecture's table."""
    section = re.search(rf"(?s)\n{arch}:\n(.*?)(?:\n\w+:\n|<!-- /kernels -->)", page)
    rows = re.findall(r"(?m)^\| (\w+) (\d+) ([a-z ]+) \| \d+ \| (\d+) \|", section[1])
    return [((dtype, dim, case), int(spills)) for dtype, dim, case, spills in rows]


def main():
    build, page = Path(sys.argv[1]), Path(sys.argv[2]).read_text(encoding="utf-8")
    compared, wrong = 0, 0
    for arch in sys.argv[3:]:
        for (dtype, dim, case), allowed in table_of(page, arch):
            path = build / "kernels" / arch / f"flash_attention_{dtype}_{dim}.elf"
            found = spills_of(path)[KERNELS[case]]
            compared += 1
            if found > allowed + MORE:
                wrong += 1
                print(f"{path}: {KERNELS[case]} spills {found} registers; {allowed} in the table")
    print(f"{compared} kernels compared")
    return 1 if wrong or compared < 27 * len(sys.argv[3:]) else 0


if __name__ == "__main__":
    sys.exit(main())
