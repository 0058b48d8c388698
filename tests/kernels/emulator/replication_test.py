"""tests/kernels/emulator/replication_test.py: tests the check that a WMMA's operands repeat, on
gfx1100

    TINYGRAD_DIR=... python3 replication_test.py LIBRARY CODE_OBJECTS

The hardware requires that lanes 16-31 of a WMMA's operands repeat lanes 0-15. The emulator reads
lanes 0-15 alone, so a kernel that got this wrong would still be right on it, and wrong on a GPU.
Every run therefore checks operands (emulator.ReplicationCheck). This test shows that the real code
passes that check, and fails it if one bit of one upper lane of one load from workgroup memory is
flipped.
"""

import ctypes
import os
import sys
from pathlib import Path

from emulator import CodeObject, Emulator, EmulatorError, run
from run_tests import RUN_KERNEL, SKIPPED, WHY_SKIPPED


class FaultyEmulator(Emulator):
    """Flips a bit in lane 17 of the nth 16-byte load from workgroup memory."""

    def __init__(self, directory: str, nth: int):
        super().__init__(directory)
        self.left = nth

    def _decode_once(self, pc: int, instruction_set: str):
        (program, runtime), instruction = super()._decode_once(pc, instruction_set)
        if "DS_LOAD_B128" in self.module._op_name(instruction):
            runtime = FaultyLoad(
                self, runtime.fxn, program.arg.globals.index(1), instruction.vdst.offset - 256
            )
        return (program, runtime), instruction


class FaultyLoad:
    def __init__(self, emulator: FaultyEmulator, function, registers: int, register: int):
        self.emulator, self.function, self.registers, self.register = (
            emulator,
            function,
            registers,
            register,
        )

    def fxn(self, *args):
        result = self.function(*args)
        self.emulator.left -= 1
        if self.emulator.left == 0:
            ctypes.c_uint32.from_address(
                args[self.registers].value + (self.register * 32 + 17) * 4
            ).value ^= 1
        return result


def outcome(emulator: Emulator, library, folder: Path, dtype: str, dim: int) -> Exception | None:
    """Runs one workgroup with 64 keys. Returns the error that stopped it, or None."""
    stopped = []

    def run_kernel(name, kernel, grid, block, shared_bytes, params, params_bytes, *_):
        try:
            code = CodeObject(folder / f"{name.decode()}.elf")
            arguments = ctypes.string_at(params, params_bytes)
            code.launch(emulator, kernel.decode(), grid[:3], block, shared_bytes, arguments)
        except Exception as error:
            stopped.append(error)
        return 0

    library.run_workgroup(b"gfx1100", dtype.encode(), dim, 0, 0, 64, RUN_KERNEL(run_kernel))
    return stopped[0] if stopped else None


def main() -> int:
    directory = os.environ.get("TINYGRAD_DIR")
    if not directory:
        print(WHY_SKIPPED)
        return SKIPPED
    library, folder = ctypes.CDLL(sys.argv[1]), Path(sys.argv[2])
    failed = 0
    # hd128 takes K and V from workgroup memory, hd256 Q too.
    for dtype, dim, nth in (("f16", 128, 1), ("f16", 128, 200), ("bf16", 256, 60)):
        whole = Emulator(directory)
        if (
            stopped := outcome(whole, library, folder, dtype, dim)
        ) is not None or whole.products_checked == 0:
            print(f"{dtype} {dim}: {stopped}; {whole.products_checked} products checked")
            failed += 1
        stopped = outcome(FaultyEmulator(directory, nth), library, folder, dtype, dim)
        if not (isinstance(stopped, EmulatorError) and "does not repeat" in str(stopped)):
            print(
                f"{dtype} {dim}: load {nth} was changed in lane 17, "
                f"and the check did not fail: {stopped}"
            )
            failed += 1
        else:
            print(
                f"{dtype} {dim}: {whole.products_checked} products repeat; "
                f"with load {nth} changed: {stopped}"
            )
    return 1 if failed else 0


if __name__ == "__main__":
    run(main)
