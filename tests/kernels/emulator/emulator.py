"""tests/kernels/emulator/emulator.py: runs AMD code objects on the CPU, instruction by instruction

It uses the emulator of a tinygrad source tree (test/mockgpu/amd/emu.py), which executes the machine
code that clang made: WMMA and MFMA, LDS, barriers, moves across lanes. It runs gfx11, gfx12 and
gfx942; it cannot decode all of gfx90a.

It does not model the order in which memory becomes visible (waves run one after another, from
barrier to barrier), wait counts, hazards between instructions, or time. Where it is known to differ
from the ISA, its source is repaired as it is loaded (REPAIRS). If the source has changed there, it
is refused, because results would mean nothing.
"""

from __future__ import annotations

import ctypes
import importlib.util
import mmap
import os
import re
import shutil
import struct
import subprocess
import sys
from collections import Counter
from pathlib import Path

# EF_AMDGPU_MACH of a code object -> the emulator's name for its instructions.
INSTRUCTION_SETS = {
    0x41: "rdna3",
    0x46: "rdna3",
    0x47: "rdna3",
    0x44: "rdna3",
    0x43: "rdna3",
    0x4A: "rdna3",
    0x48: "rdna4",
    0x4E: "rdna4",
    0x4C: "cdna",
    0x4F: "cdna",
}

# Instructions that only write back or invalidate caches, and that the emulator cannot decode: first
# word -> bytes.
CACHE_MOVES = {
    0xE0AC0000: 8,
    0xE0B00000: 8,  # gfx11: buffer_gl0_inv, buffer_gl1_inv
    0xEE0B007C: 12,
    0xEE0AC07C: 12,
}  # gfx12: global_wb, global_inv
S_NOP = bytes.fromhex("000080bf")

# (what is wrong, pattern of the source, its replacement)
REPAIRS = (
    (
        "an LDS load of 16 bits overwrites the half that the ISA keeps",
        r"(?m)^( +)bit_width, dword_idx = .*$",
        r"""\g<0>
\1if 'D16' in op_name and bit_width == 16:
\1  old, half = ctx.rvgpr_dyn(vdst_reg, lane), _to_u32(val) & UOp.const(0xFFFF, dtypes.uint32)
\1  high = int(m.group(2)) == 16
\1  kept = old & UOp.const(0x0000FFFF if high else 0xFFFF0000, dtypes.uint32)
\1  joined = kept | ((half << UOp.const(16, dtypes.uint32)) if high else half)
\1  return _write_val(32, joined, _wdata, vdst_reg, lane, exec_mask)""",
    ),
    (
        "a WMMA whose accumulator is the constant 0 reads a register instead",
        r"(?m)^( +)src2_r = \(src2_r >= 256\).*$",
        r"\1src2_is_constant = src2_r < 256\n\g<0>",
    ),
    (
        "the same, where it is read",
        r"mat_c = \[(ctx\.rvgpr_dyn\(src2_r \+ .*?\))\.bitcast\(out_dt\)",
        r"mat_c = [src2_is_constant.where(UOp.const(0, dtypes.uint32), \1).bitcast(out_dt)",
    ),
    (
        "v_permlanex16 ignores a literal lane select",
        r"self\.rsrc_dyn\((src[012]_off), _c\(0, dtypes\.int\)\)",
        r"self.rsrc_dyn(\1, _c(0, dtypes.int), literal=self.optional_field(inst, 'literal'))",
    ),
    (
        "a DPP move whose source is its destination reads lanes that it has written: "
        "copy the source to a spare row first",
        r"(?m)^( +)swizzled = ctx\.rvgpr_dyn\("
        r"ctx\.inst_field\(type\(inst\)\.vsrc0\), safe_src_lane\)$",
        r"""\1at, source = ctx.range(), ctx.inst_field(type(inst).vsrc0)
\1row = _c(256 * ctx.wave_size, dtypes.int)
\1copied = ctx.vgpr.index(row + at.cast(dtypes.int)).store(ctx.rvgpr_dyn(source, at)).end(at)
\1swizzled = ctx.vgpr.after(copied).index(row + safe_src_lane).load()""",
    ),
    (
        "the spare row, in the type",
        r"UOp\.param\(1, dtypes\.uint32, \(256 \* wave_size,\)\)",
        r"UOp.param(1, dtypes.uint32, (257 * wave_size,))",
    ),
    (
        "the spare row, in memory",
        r"(?m)^( +)vgpr_size = 256 \* wave_size$",
        r"\1vgpr_size = 257 * wave_size",
    ),
    (
        "gfx9 has no names for the high halves of registers: in its 16-bit instructions v128 "
        "is not the high half of v0",
        r"write_hi_half = bits\['d'\] == 16 and ",
        r"write_hi_half = ctx.wave_size == 32 and bits['d'] == 16 and ",
    ),
    (
        "the same, where src0 is read",
        r"(?m)^  if bits\['s0'\] == 16:(  # src0 >= 384)",
        r"  if ctx.wave_size == 32 and bits['s0'] == 16:\1",
    ),
    (
        "the same, where src1 is read",
        r"vsrc1_hi = bits\['s0'\] == 16 and ",
        r"vsrc1_hi = ctx.wave_size == 32 and bits['s0'] == 16 and ",
    ),
    (
        "the same, in comparisons",
        r"(?m)^    if bits\['s0'\] == 16:\n      vsrc1_hi = ",
        r"    if ctx.wave_size == 32 and bits['s0'] == 16:\n      vsrc1_hi = ",
    ),
    (
        "an LDS store from accumulation registers (gfx942) stores vector registers",
        r"ctx\.rvgpr_dyn\((vdata_reg|data1_reg)",
        r"(ctx.raccvgpr_dyn if use_acc else ctx.rvgpr_dyn)(\1",
    ),
    (
        "an MFMA takes subnormal f16 numbers for 0, which gfx942 does not",
        r"return exp\.eq\(_c\(0\)\)\.where\(_c\(0\), f32_bits\)",
        "size = mant.cast(dtypes.float32) * UOp.const(2.0 ** -24, dtypes.float32)\n"
        "    small = size.bitcast(dtypes.uint32) | (sign << _c(31))\n"
        "    return exp.eq(_c(0)).where(small, f32_bits)",
    ),
    (
        "the waves of a workgroup share one scratch memory: each gets its own",
        r"(?m)^  scratch_buf = Buffer\('CPU', scratch_size \* wave_size, (.*)$",
        r"  scratch_buf = Buffer('CPU', scratch_size * (total_threads + wave_size), \1",
    ),
    (
        "the same, where a wave is told of it",
        r"ctypes\.c_uint64\(scratch_buf\._buf\.va_addr if scratch_buf else 0\)",
        r"ctypes.c_uint64("
        r"scratch_buf._buf.va_addr + wave_start * scratch_size if scratch_buf else 0)",
    ),
)


class EmulatorError(Exception):
    pass


def run(main):
    """Runs main and exits with its status; prints an EmulatorError as one line, with status 1."""
    try:
        sys.exit(main())
    except EmulatorError as error:
        print(error, file=sys.stderr)
        sys.exit(1)


class Emulator:
    """The emulator of one tinygrad source tree. counts: count the instructions that waves run."""

    def __init__(self, tinygrad_dir: str | os.PathLike, counts: bool = False):
        root = Path(tinygrad_dir).resolve()
        path = root / "test/mockgpu/amd/emu.py"
        if not path.is_file():
            raise EmulatorError(
                f"{root}: no test/mockgpu/amd/emu.py; "
                "TINYGRAD_DIR must name a tinygrad source tree with its tests"
            )
        compiler = next((name for name in ("clang", "clang-19") if shutil.which(name)), None)
        if compiler is None:
            raise EmulatorError(
                "neither clang nor clang-19 was found; the emulator compiles instructions with it"
            )
        os.environ.setdefault("CC", compiler)
        source = path.read_text()
        for wrong, at, repaired in REPAIRS:
            source, found = re.subn(at, repaired, source)
            if not found:
                raise EmulatorError(
                    f"{path}: its source has changed, so this cannot be repaired: {wrong}; "
                    "docs/kernels.md names a commit that works"
                )
        sys.path.insert(0, str(root))
        spec = importlib.util.spec_from_file_location("test.mockgpu.amd.emu", path)
        self.module = importlib.util.module_from_spec(spec)
        sys.modules["test.mockgpu.amd.emu"] = self.module
        exec(compile(source, str(path), "exec"), self.module.__dict__)
        self.counts: Counter | None = Counter() if counts else None
        self.products_checked = 0
        self._decode = self.module._decode_at
        self._decoded: dict[int, tuple] = {}  # by address
        self.launched: set = set()  # code objects, kept so that no other gets their addresses
        self.module._decode_at = self._decode_once

    def _decode_once(self, pc: int, instruction_set: str):
        if pc not in self._decoded:
            (program, runtime), instruction = self._decode(pc, instruction_set)
            name = self.module._op_name(instruction)
            if instruction_set == "rdna3" and "WMMA" in name:
                runtime = ReplicationCheck(self, runtime.fxn, program.arg.globals, instruction)
            if self.counts is not None:
                runtime = Counting(runtime.fxn, name, self.counts)
            self._decoded[pc] = (program, runtime), instruction
        return self._decoded[pc]


class Counting:
    """Counts the executions of an instruction."""

    def __init__(self, function, name: str, counts: Counter):
        self.function, self.name, self.counts = function, name, counts

    def fxn(self, *args):
        self.counts[self.name] += 1
        return self.function(*args)


class ReplicationCheck:
    """Checks that lanes 16-31 of a gfx11 WMMA's operands repeat lanes 0-15.

    The ISA requires it, and the emulator reads lanes 0-15 alone.
    """

    ROW = 32 * 4  # bytes of one register in all lanes

    def __init__(self, emulator: Emulator, function, buffers: list[int], instruction):
        self.emulator, self.function = emulator, function
        self.registers = buffers.index(1)  # the argument that is the register file
        self.text = repr(instruction)
        self.operands = [
            (field, getattr(instruction, field).offset - 256) for field in ("src0", "src1")
        ]

    def fxn(self, *args):
        base = args[self.registers].value
        for field, first in self.operands:
            rows = ctypes.string_at(base + first * self.ROW, 8 * self.ROW)
            for at in range(0, len(rows), self.ROW):
                if rows[at : at + self.ROW // 2] != rows[at + self.ROW // 2 : at + self.ROW]:
                    register = first + at // self.ROW
                    raise EmulatorError(
                        f"{self.text}: {field}: v{register} of lanes 16-31 "
                        "does not repeat lanes 0-15"
                    )
        self.emulator.products_checked += 1
        return self.function(*args)


class CodeObject:
    """A code object, laid out in memory as the loader does it, and the metadata of its kernels."""

    def __init__(self, path: str | os.PathLike):
        data = Path(path).read_bytes()
        if len(data) < 64 or data[:4] != b"\x7fELF":
            raise EmulatorError(f"{path}: is not an ELF file")
        machine = struct.unpack_from("<I", data, 48)[0] & 0xFF
        if machine not in INSTRUCTION_SETS:
            raise EmulatorError(f"{path}: the emulator does not know architecture {machine:#x}")
        self.path, self.instruction_set = path, INSTRUCTION_SETS[machine]
        self._lay_out(data)
        names = ("llvm-readelf", "llvm-readelf-19", "llvm-readelf-20")
        readelf = next((name for name in names if shutil.which(name)), None)
        if readelf is None:
            raise EmulatorError("llvm-readelf was not found (Debian: llvm-19)")
        symbols = subprocess.check_output([readelf, "-s", "-W", str(path)], text=True)
        self.descriptors = {
            m.group(2): int(m.group(1), 16)
            for m in re.finditer(
                r"^\s*\d+:\s+([0-9a-f]+)\s+\d+\s+OBJECT\s+\S+\s+\S+\s+\d+\s+(\S+)\.kd\s*$",
                symbols,
                re.M,
            )
        }
        self.kernels = facts_of(subprocess.check_output([readelf, "--notes", str(path)], text=True))

    def _lay_out(self, data: bytes):
        (first,) = struct.unpack_from("<Q", data, 32)
        size, count = struct.unpack_from("<HH", data, 54)
        headers = [struct.unpack_from("<IIQQQQQQ", data, first + i * size) for i in range(count)]
        loads = [
            (offset, address, in_file, in_memory)
            for kind, _, offset, address, _, in_file, in_memory, _ in headers
            if kind == 1
        ]
        # One page more than needed, because the emulator reads past the last instruction.
        self.size = (max(address + in_memory for _, address, _, in_memory in loads) + 8191) & ~4095
        self.memory = mmap.mmap(-1, self.size, prot=mmap.PROT_READ | mmap.PROT_WRITE)
        self.base = ctypes.addressof(ctypes.c_char.from_buffer(self.memory))
        for offset, address, in_file, _ in loads:
            self.memory[address : address + in_file] = data[offset : offset + in_file]
        for word, length in CACHE_MOVES.items():
            pattern = struct.pack("<I", word)
            at = self.memory.find(pattern)
            while at >= 0:
                self.memory[at : at + length] = S_NOP * (length // 4)
                at = self.memory.find(pattern, at + length)

    def launch(
        self, emulator: Emulator, name: str, grid, block: int, shared_bytes: int, params: bytes
    ):
        """Runs a kernel to its end. params: its argument; grid: workgroups; block: threads."""
        kernel, descriptor = self.kernels[name], self.descriptors[name]
        emulator.launched.add(self)
        if int(kernel["kernarg_segment_size"]) != len(params):
            raise EmulatorError(
                f"{self.path}: {name} takes {kernel['kernarg_segment_size']} bytes of arguments, "
                f"not {len(params)}"
            )
        arguments = ctypes.create_string_buffer(params, len(params) + 64)
        address = ctypes.addressof(arguments)
        lds, scratch, _, _, entry = struct.unpack_from("<IIIIq", self.memory, descriptor)
        (resources,) = struct.unpack_from("<I", self.memory, descriptor + 52)
        (properties,) = struct.unpack_from("<H", self.memory, descriptor + 56)
        # The dispatch packet, from which the kernel may read the sizes of the grid.
        packet = ctypes.create_string_buffer(64)
        struct.pack_into(
            "<HHHHHHIII", packet, 0, 0, 3, block, 1, 1, 0, grid[0] * block, grid[1], grid[2]
        )
        scalars = []
        for bit, words in enumerate(
            ((0,) * 4, ctypes.addressof(packet), (0, 0), address, (0, 0), (0, 0), (0,))
        ):
            if properties >> bit & 1:
                scalars += (
                    [words & 0xFFFFFFFF, words >> 32] if isinstance(words, int) else list(words)
                )
        resources = resources & ~(0x1FF << 15) | (lds + shared_bytes + 511) // 512 << 15
        emulator.module.run_asm(
            self.base + descriptor + entry,
            self.size,
            *grid,
            block,
            1,
            1,
            address,
            resources,
            scratch,
            self.instruction_set,
            scalars,
        )


def facts_of(notes: str) -> dict[str, dict[str, str]]:
    """Returns each kernel's fields (vgpr_count, ...) from the output of llvm-readelf --notes."""
    kernels = {}
    for block in re.split(r"(?m)^  - (?=\.)", notes)[1:]:
        fields = dict(re.findall(r"(?m)^    \.(\w+):\s*(\S.*)$", "    " + block))
        if "symbol" in fields:
            kernels[fields["name"].strip("'\"")] = fields
    return kernels
