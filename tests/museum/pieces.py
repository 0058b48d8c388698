# tests/museum/pieces.py: the museum's table: hostile plugins and files, and what must stop each
"""One row for each piece. Its level is the weakest that must stop it:

scan      it is refused without running its code, whatever the policy's admission says
loads     a probe process that loads it, opens it and asks for its devices must refuse it
conforms  a probe process that also checks the rules of supports, plan and run must refuse it
none      it does the host no harm as it is, and may serve; the row says why
"""

import dataclasses
import os
import pathlib
import socket
import stat
from collections.abc import Callable

SCAN, LOADS, CONFORMS, NONE = "scan", "loads", "conforms", "none"

# Rows that no conformance rule notices yet: behind q there is memory, not a protected page.
WAITS_FOR_RULE = {"run_past_q"}

MANIFEST = """\
name: piece
version: 1.0.0
abi: 1
summary: A piece of the museum
devices: [cpu]
supports:
  - dtype: [f32, f16]
    head_dim: {max: 64}
    head_dim_v: {equals: head_dim}
    features: [gqa, causal, lse]
"""
BOMB = "x0: &x0 [1, 1, 1, 1, 1, 1, 1, 1]\n" + "".join(
    f"x{n}: &x{n} [{', '.join([f'*x{n - 1}'] * 8)}]\n" for n in range(1, 12)
)


@dataclasses.dataclass(frozen=True)
class Piece:
    name: str  # for a plugin, PIECE in piece.cpp in small letters, or what `defines` says
    does: str
    level: str
    words: str  # a pattern that the reason in `attnrt list` must match
    # A pattern that must match what becomes of host.c without admission; "": it is not tried.
    unstopped: str = ""
    # ---- How a plugin is built ----
    defines: tuple[str, ...] = ("PIECE=SOUND",)
    options: tuple[str, ...] = ()  # of the compiler, which also links; {} is the folder of pieces
    edit: str = ""  # what becomes of its segments after that (build.py)
    manifest: str = MANIFEST
    # ---- How a file is made ----
    # put(folder, sound): makes the files in the folder, perhaps from a sound plugin. RETURNS False
    # if this user may not make them. Without it, the plugin is copied.
    put: Callable[[pathlib.Path, bytes], bool | None] | None = None


def plugin(name, does, level, words, unstopped="", **how):
    """A row of which piece.cpp has the code."""
    return Piece(name, does, level, words, unstopped, defines=(f"PIECE={name.upper()}",), **how)


def put_bytes(content):
    return lambda folder, sound: (folder / "x.so").write_bytes(content) and None


def put_fifo(folder, _):
    os.mkfifo(folder / "x.so")


def put_socket(folder, _):
    here = os.open(folder, os.O_PATH)
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(f"/proc/self/fd/{here}/x.so")  # a socket's path has at most 107 bytes
    os.close(here)


def put_device_node(folder, _):
    try:
        os.mknod(folder / "x.so", stat.S_IFCHR | 0o666, os.makedev(1, 5))  # /dev/zero
    except PermissionError:
        return False
    return True


def put_link_loop(folder, _):
    (folder / "x.so").symlink_to("y.so")
    (folder / "y.so").symlink_to("x.so")


def put_link_outside(folder, sound):
    (folder / "outside").mkdir()
    (folder / "outside/sound.so").write_bytes(sound)
    (folder / "x.so").symlink_to("outside/sound.so")


def put_mode(mode):
    def put(folder, sound):
        (folder / "x.so").write_bytes(sound)
        (folder / "x.so").chmod(mode)

    return put


def put_unreadable(folder, _):
    put_bytes(b"not a library, since root may read it\n")(folder, None)
    (folder / "x.so").chmod(0)


def put_writable_folder(folder, sound):
    (folder / "open").mkdir()  # the test searches it, too
    (folder / "open/x.so").write_bytes(sound)
    (folder / "open").chmod(0o777)


def put_sparse(folder, _):
    with open(folder / "x.so", "wb") as file:
        file.truncate(2 << 30)


def put_many(folder, _):
    for n in range(10_000):
        (folder / f"{n}.so").touch()


PIECES = [
    # ---- Right, to show that each other piece is stopped for its fault ----
    Piece("sound", "nothing wrong", NONE, "^$", "^right$"),
    # ---- Code that runs when the library is loaded or unloaded ----
    plugin("segfault", "writes to address 0", LOADS, r"signal 11", r"signal 11"),
    plugin("abort", "abort()", LOADS, r"signal 6", r"signal 6"),
    plugin("exit_0", "_exit(0)", LOADS, r"exit\(0\)", r"\Aexit 0\Z"),
    plugin("exit_3", "exit(3)", LOADS, r"exit\(3\)", r"exit 3"),
    plugin("hang", "never returns", LOADS, r"did not end within", r"hang"),
    plugin("child_holds_pipes", "forks a child that keeps all descriptors", LOADS,
           r"process", r"leaves a process"),
    plugin("daemon", "forks a child with a session of its own", LOADS,
           r"process", r"leaves a process"),
    plugin("endless_stdout", "writes to stdout for ever", LOADS,
           r"did not end within|signal 25|printed", r"^hang|signal 25"),
    plugin("endless_stderr", "writes to stderr for ever", LOADS,
           r"did not end within|signal 25|printed", r"^hang|signal 25"),
    plugin("signal_handlers", "handles SIGSEGV and SIGTERM", LOADS,
           r"handler of signal", r"signal handlers: changed"),
    plugin("signal_mask", "blocks all signals", LOADS, r"signal mask", r"signal mask: changed"),
    plugin("alarm", "has SIGALRM sent in a second", LOADS,
           r"timer|alarm|signal 14", r"timer: changed|signal 14"),
    plugin("rounding", "sets another rounding mode", LOADS, r"rounding mode", r"^right$"),
    plugin("flush_to_zero", "sets FTZ and DAZ, as -ffast-math does: load restores them", NONE,
           r"^$", r"^right$"),
    plugin("closed_descriptors", "closes descriptors 0 to 20", LOADS,
           r"descriptor|stream|ended|died", r"descriptors: changed"),
    plugin("limits", "lowers RLIMIT_NOFILE and RLIMIT_FSIZE", LOADS,
           r"limit|signal 25", r"limits: changed|signal 25"),
    plugin("directory", "changes the working directory", LOADS,
           r"directory|folder", r"working directory: changed"),
    plugin("umask", "changes the umask", LOADS, r"umask", r"umask: changed"),
    plugin("environment", "sets LD_PRELOAD and ATTNRT_DISABLE", LOADS,
           r"environment", r"environment: changed"),
    plugin("killed_parent", "kills its parent", LOADS, r"signal 9", r"signal 9"),
    plugin("stack_permission", "makes its stack executable", LOADS,
           r"stack", r"writable code: changed"),
    plugin("late_thread", "starts a thread that crashes 50 ms later", LOADS,
           r"thread|signal 11", r"threads: changed|signal 11"),
    plugin("session", "starts a session", LOADS, r"session", r"session: changed"),
    plugin("nice", "lowers its priority", LOADS, r"priority|nice", r"priority: changed"),
    plugin("atexit", "crashes when the process exits", LOADS, r"signal 11", r"signal 11"),
    plugin("unload_hangs", "its destructor never returns", LOADS, r"did not end within", r"hang",
           manifest=MANIFEST + "unloadable: true\n"),
    # ---- What the loader does with the file ----
    plugin("ifunc", "the resolver of an indirect function crashes", LOADS,
           r"signal 11", r"signal 11", options=("-DPIECE_HAS_IFUNC",)),
    Piece("missing_symbol", "needs a function that nobody has", LOADS,
          r"cannot be loaded: undefined symbol: attnrt_museum_nowhere", r"^right$",
          options=("-DPIECE_MISSES_SYMBOL",)),
    Piece("needs_hostile", "needs a library whose constructor crashes (by LD_LIBRARY_PATH)", LOADS,
          r"signal 11", r"signal 11",
          options=("-DPIECE_NEEDS_LIBRARY", "-L{}/needed", "-lattnrt_museum_needed")),
    Piece("needs_missing", "needs a library that is nowhere", LOADS,
          r"cannot be loaded: libattnrt_museum_missing\.so: cannot open", r"^right$",
          options=("-DPIECE_NEEDS_LIBRARY", "-L{}/missing", "-lattnrt_museum_missing")),
    Piece("search_path", "finds a library in a folder that anybody may write to", SCAN,
          r"^not trusted: its RUNPATH", r"signal 11",
          options=("-DPIECE_NEEDS_LIBRARY", "-L{}/open", "-Wl,-rpath,{}/open",
                   "-lattnrt_museum_open")),
    Piece("exported_malloc", "exports malloc and free, which no other library sees", CONFORMS,
          r"exports", r"^right$",
          options=("-DPIECE_EXPORTS_MALLOC", "-fno-builtin")),
    Piece("text_relocations", "has the loader write to its code", SCAN, r"relocations? that write",
          options=("-DPIECE_HAS_TEXT_RELOCATION", "-Wl,-z,notext")),
    Piece("executable_stack", "asks for an executable stack", SCAN, r"executable stack",
          options=("-Wl,-z,execstack",)),
    Piece("writable_code", "a segment that may be written and executed", SCAN,
          r"writ.*execut|execut.*writ|W\+X", r"writable code: changed", edit="writable_code"),
    Piece("huge_bss", "100 GB of variables", SCAN, r"bytes|GiB|memory", edit="huge_bss"),
    # ---- The table ----
    Piece("other_major", "is built for ABI 2 alone", SCAN,
          r"exports no symbol attnrt_plugin_v1, but attnrt_plugin_v2",
          options=("-DPIECE_SYMBOL=attnrt_plugin_v2",)),
    plugin("table_short", "a table of 8 bytes", LOADS,
           r"struct_size 8|struct_size is 8", r"^right$"),
    plugin("table_name", "another name than the manifest's", LOADS,
           r"manifest says name piece", r"^right$"),
    plugin("table_version", "another version than the manifest's", LOADS,
           r"manifest says version 1\.0\.0", r"^right$"),
    # ---- open, devices, get_extension ----
    plugin("open_fails", "open fails", LOADS, r"the piece does not open", r"^right$"),
    plugin("open_hangs", "open never returns", LOADS, r"did not end within", r"hang"),
    plugin("open_status", "open returns a status that does not exist", LOADS,
           r"unknown status", r"^right$"),
    plugin("open_control", "open fails with control characters in its text", LOADS,
           r"the piece.*does not.*open", r"^right$"),
    plugin("devices_foreign", "has a device that the manifest does not name", LOADS,
           r"manifest", r"^right$"),
    plugin("devices_many", "adds 100,000 devices: the host keeps the first 64", NONE,
           r"^$", r"^right$"),
    plugin("devices_none", "adds no device: it is never a candidate", NONE,
           r"there is none", r"^right$"),
    plugin("extension_segfault", "get_extension crashes", LOADS, r"signal 11", r"signal 11"),
    # ---- supports, plan, run ----
    plugin("supports_segfault", "supports crashes", CONFORMS, r"signal 11", r"signal 11"),
    plugin("supports_hangs", "supports never returns", CONFORMS, r"did not end within", r"hang"),
    plugin("supports_throws", "supports throws an exception", CONFORMS, r"exception", r"^right$"),
    plugin("supports_flips", "supports says yes and no in turns", CONFORMS,
           r"two answers|other answers|AGR-2|ROB-2", r"^right$"),
    plugin("plan_huge", "plan asks for a workspace of 2^62 bytes", CONFORMS,
           r"workspace|memory|bad_alloc", r"^right$"),
    plugin("plan_null", "plan gives NULL: the host never looks at it", NONE, r"^$", r"^right$"),
    plugin("plan_negative", "plan holds less than nothing", CONFORMS, r"holds", r"^right$"),
    plugin("run_segfault", "run crashes", CONFORMS, r"signal 11", r"signal 11"),
    plugin("run_wrong", "run is wrong in one element", CONFORMS, r"\S", r"a wrong result"),
    plugin("run_nan", "run gives NaN in one element", CONFORMS, r"\S", r"a wrong result"),
    plugin("run_past_out", "run writes past the end of out", CONFORMS,
           r"writ|wrote|ROB-9", r"past the end of out"),
    plugin("run_writes_q", "run writes to q", CONFORMS, r"writ|wrote|ROB-8|signal 11",
           r"an input was written to"),
    plugin("run_hangs", "run never returns", CONFORMS, r"did not end within", r"hang"),
    plugin("run_status", "run returns a status that does not exist", CONFORMS,
           r"status", r"^right$"),
    plugin("run_past_q", "run reads past the end of q", CONFORMS, r"signal 11", r"signal 11"),
    # ---- Manifests ----
    Piece("manifest_huge", "a manifest of 16 MB", SCAN, r"has a manifest of 16777\d+ bytes",
          manifest=MANIFEST + "# " + "x" * (1 << 24) + "\n"),
    Piece("manifest_bomb", "aliases of aliases", SCAN, r"aliases included",
          manifest=MANIFEST + BOMB),
    Piece("manifest_control", "control characters in its texts: what shows them escapes them",
          NONE, r"^$", r"^right$",
          manifest=MANIFEST.replace("A piece of the museum",
                                    r'"A \e]0;piece\a\r\n\e[2J of the museum"')),
    # ---- Files ----
    Piece("fifo", "a FIFO that nobody writes to", SCAN, r"not a regular file", put=put_fifo),
    Piece("socket", "a socket", SCAN, r"cannot be opened|not a regular file", put=put_socket),
    Piece("device_node", "a device node", SCAN, r"not a regular file", put=put_device_node),
    Piece("link_loop", "links to each other", SCAN, r"Too many levels", put=put_link_loop),
    Piece("link_outside", "a link to another folder", SCAN, r"is a link to", put=put_link_outside),
    Piece("unreadable", "a file without permissions", SCAN,
          r"cannot be opened|not an ELF file|not trusted", put=put_unreadable),
    Piece("setuid", "a set-user-ID file", SCAN, r"^not trusted: ", put=put_mode(0o4755)),
    Piece("world_writable_file", "a plugin that anybody may change", SCAN, r"^not trusted: ",
          put=put_mode(0o666)),
    Piece("world_writable_folder", "in a folder where anybody may exchange it", SCAN,
          r"^not trusted: ", put=put_writable_folder),
    Piece("folder", "a folder", SCAN, r"is a directory", put=lambda f, _: (f / "x.so").mkdir()),
    Piece("empty", "no bytes", SCAN, r"is empty", put=put_bytes(b"")),
    Piece("one_byte", "one byte", SCAN, r"not an ELF file", put=put_bytes(b"\x7f")),
    Piece("sparse", "2 GiB of nothing", SCAN, r"has 2147483648 bytes", put=put_sparse),
    Piece("many", "10,000 files", SCAN, r"is empty", put=put_many),
]
