# tests/museum/build.py: builds the plugins of the museum from piece.cpp and the rows of pieces.py
#
#   python3 build.py TREE FOLDER CC CXX [LAUNCHER]     writes FOLDER/NAME.so for each plugin
import concurrent.futures
import os
import pathlib
import struct
import subprocess
import sys

import pieces

PT_LOAD, PF_X, PF_W = 1, 1, 2
JOBS = 2  # ninja runs other commands beside this one


def compile_with(compiler, *words):
    done = subprocess.run([*compiler, *map(str, words)], capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"tests/museum: {' '.join(map(str, words))}\n{done.stderr}")


def edit_segments(file, change):
    """Changes the program headers of a 64-bit little-endian file. change: gets and returns
    (type, flags, offset, vaddr, paddr, filesz, memsz, align)."""
    content = bytearray(file.read_bytes())
    (start,) = struct.unpack_from("<Q", content, 32)
    size, count = struct.unpack_from("<HH", content, 54)
    header = struct.Struct("<IIQQQQQQ")
    for at in range(start, start + size * count, size):
        header.pack_into(content, at, *change(*header.unpack_from(content, at)))
    file.write_bytes(content)


def writable_code(kind, flags, *rest):
    return (kind, flags | (PF_W if kind == PT_LOAD and flags & PF_X else 0), *rest)


def huge_bss(kind, flags, offset, vaddr, paddr, filesz, memsz, align):
    more = 100 << 30 if kind == PT_LOAD and flags & PF_W else 0
    return (kind, flags, offset, vaddr, paddr, filesz, memsz + more, align)


EDITS = {"writable_code": writable_code, "huge_bss": huge_bss}


class Build:
    def __init__(self, tree, folder, c, cxx):
        self.tree, self.folder, self.c, self.cxx = tree, folder, c, cxx
        self.flags = ["-O1", "-fPIC", "-fvisibility=hidden", "-I", tree / "runtime/include"]

    def answers(self):
        """Compiles the sources of the fakes that compute attention."""
        objects = []
        for name in ["attend", "numbers", "schedule"]:
            objects.append(self.folder / f"{name}.o")
            compile_with(self.c, *self.flags, "-std=c11", "-c", "-o", objects[-1],
                         '-DATTNRT_PLUGIN_NAME="piece"', '-DATTNRT_PLUGIN_VERSION="1.0.0"',
                         self.tree / f"tests/fakes/{name}.c")
        return objects

    def needed(self):
        """Builds the libraries that pieces need. Their constructors crash. The loader finds one by
        LD_LIBRARY_PATH (needed), one by the piece's search path (open), and one not (missing)."""
        source = self.folder / "needed.c"
        source.write_text(
            "int attnrt_museum_needed(void);\nint attnrt_museum_needed(void) { return 1; }\n"
            "__attribute__((constructor)) static void crash(void) { *(volatile int*)0 = 1; }\n")
        for name in ["needed", "open", "missing"]:
            folder = self.folder / name
            folder.mkdir(exist_ok=True)
            folder.chmod(0o777 if name == "open" else 0o755)
            compile_with(self.c, "-shared", "-fPIC", source,
                         "-o", folder / f"libattnrt_museum_{name}.so")

    def piece(self, piece, answers):
        manifest, file = self.folder / f"{piece.name}.yaml", self.folder / f"{piece.name}.so"
        manifest.write_text(piece.manifest)
        compile_with(self.cxx, *self.flags, "-std=c++20", "-shared", "-Wl,--as-needed", "-o", file,
                     f'-DPIECE_MANIFEST="{manifest}"', *[f"-D{each}" for each in piece.defines],
                     self.tree / "tests/museum/piece.cpp", *answers,
                     *[each.replace("{}", str(self.folder)) for each in piece.options], "-lm")
        if piece.edit:
            edit_segments(file, EDITS[piece.edit])


def main(tree, folder, c, cxx, *launcher):
    os.umask(0o022)
    folder = pathlib.Path(folder).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    build = Build(pathlib.Path(tree).resolve(), folder, [*launcher, c], [*launcher, cxx])
    answers = build.answers()
    build.needed()
    plugins = [piece for piece in pieces.PIECES if piece.put is None]
    with concurrent.futures.ThreadPoolExecutor(JOBS) as pool:
        list(pool.map(lambda piece: build.piece(piece, answers), plugins))


if __name__ == "__main__":
    main(*sys.argv[1:])
