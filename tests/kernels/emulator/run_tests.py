"""tests/kernels/emulator/run_tests.py: runs a library of kernel tests on a GPU's code objects,
emulated on the CPU

    TINYGRAD_DIR=... python3 run_tests.py LIBRARY CODE_OBJECTS ARCH [gtest's options]

Exit status: gtest's, or 77 and a line that says why if the emulator is not available.
"""

import ctypes
import os
import sys
from pathlib import Path

from emulator import CodeObject, Emulator, run

SKIPPED = 77
WHY_SKIPPED = (
    "skipped: TINYGRAD_DIR is not set; set it to a tinygrad source tree, "
    "whose emulator of AMD GPUs runs these tests"
)
# object, kernel, grid, block, shared_bytes, params, params_bytes, message, message_bytes: see
# library.cpp
RUN_KERNEL = ctypes.CFUNCTYPE(
    ctypes.c_int,
    ctypes.c_char_p,
    ctypes.c_char_p,
    ctypes.POINTER(ctypes.c_uint32),
    ctypes.c_uint32,
    ctypes.c_uint32,
    ctypes.c_void_p,
    ctypes.c_uint32,
    ctypes.POINTER(ctypes.c_char),
    ctypes.c_uint32,
)


def main() -> int:
    if len(sys.argv) < 4:
        print(__doc__, file=sys.stderr)
        return 2
    library, folder, arch = sys.argv[1], Path(sys.argv[2]), sys.argv[3]
    directory = os.environ.get("TINYGRAD_DIR")
    if not directory:
        print(WHY_SKIPPED)
        return SKIPPED
    emulator = Emulator(directory)
    objects: dict[str, CodeObject] = {}

    def run_kernel(
        name, kernel, grid, block, shared_bytes, params, params_bytes, message, message_bytes
    ):
        try:
            name = name.decode()
            if name not in objects:
                objects[name] = CodeObject(folder / f"{name}.elf")
            arguments = ctypes.string_at(params, params_bytes)
            objects[name].launch(
                emulator, kernel.decode(), grid[:3], block, shared_bytes, arguments
            )
            return 0
        except Exception as error:  # any exception makes this test fail
            text = f"{type(error).__name__}: {error}".encode()[: message_bytes - 1] + b"\0"
            ctypes.memmove(message, text, len(text))
            return 1

    options = [b"emulator", *(option.encode() for option in sys.argv[4:])]
    arguments = (ctypes.c_char_p * (len(options) + 1))(*options, None)
    run_tests = ctypes.CDLL(library).run_tests
    run_tests.argtypes = [ctypes.c_char_p, ctypes.c_int, ctypes.c_void_p, RUN_KERNEL]
    status = run_tests(arch.encode(), len(options), arguments, RUN_KERNEL(run_kernel))
    if emulator.products_checked:
        print(
            f"{emulator.products_checked} matrix products had operands that repeat in lanes 16-31"
        )
    return status


if __name__ == "__main__":
    run(main)
