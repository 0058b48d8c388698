# tests/museum/museum_test.py: tests that each piece of the museum costs a host at most that piece
"""python3 museum_test.py COMMAND HOST PIECES CPU_PLUGIN INPUT [NAME...]

COMMAND is attnrt, HOST is host.c, PIECES is the folder that build.py filled, INPUT has tensors and
expected results. Without names, every row of pieces.py is tested:

stopped    with the admission of its level, commands and the host give the right results by the
           backend cpu, `attnrt list` shows why the piece is refused, and nothing is left behind
unstopped  without admission, it does to a host what its row says, so it is hostile. Not those of
           level scan, which need no admission to be stopped
"""

import concurrent.futures
import contextlib
import ctypes
import json
import os
import pathlib
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import pieces

WORKERS = 4  # more than cores: a worker whose piece hangs only waits
DEADLINE = 120  # seconds of one command, of which the probe may take 10
HANGS = 2  # seconds after which a host hangs that nothing protects, if its row says so
SETTLES = 1  # seconds that killed processes may take to end
LARGEST_FILE = 32 << 20  # bytes that a command may write to one file
PROBLEM = "dtype=f16 heads_q=9 heads_kv=3 seq_q=1 seq_kv=121 head_dim=64 causal=true"
ADMISSION = {pieces.SCAN: "off", pieces.LOADS: "loads"}  # of other levels: conforms
PR_SET_CHILD_SUBREAPER = 36
LONGEST_FAULT = 400  # characters of one that are printed
WAITS = pieces.WAITS_FOR_RULE


def prepare():
    """Makes this process the parent of its descendants whose parents end, so that it sees them; and
    its umask the usual one, whatever that of its caller is."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    os.umask(0o022)


def children():
    """Returns the children of this process that have not ended."""
    found = []
    for status in pathlib.Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = status.read_text().rpartition(")")[2].split()[:2]
        except OSError:
            continue  # it has ended
        if int(parent) == os.getpid() and state != "Z":
            found.append(int(status.parent.name))
    return found


def end_orphans():
    """Kills what a command left behind. RETURNS whether something ran on after it."""
    until = time.monotonic() + SETTLES
    while children() and time.monotonic() < until:
        time.sleep(0.02)
    ran_on = False
    while found := children():
        ran_on = True
        for process in found:
            os.kill(process, signal.SIGKILL)
        time.sleep(0.02)
    try:
        while os.waitpid(-1, os.WNOHANG)[0] != 0:
            pass
    except ChildProcessError:
        pass
    return ran_on


def before_command():
    resource.setrlimit(resource.RLIMIT_FSIZE, (LARGEST_FILE, LARGEST_FILE))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


class Room:
    """Fresh folders for one piece."""

    def __init__(self, paths, piece, admission, registry=None):
        self.paths, self.faults = paths, []
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="attnrt_museum_")).resolve()
        self.plugins = self.folder / "plugins"
        for name in ["plugins", "work", "home", "tmp", "registry"]:
            (self.folder / name).mkdir(mode=0o700)
        if registry:
            shutil.copytree(registry, self.folder / "registry", dirs_exist_ok=True)
        self.policy = self.folder / "policy.yaml"
        self.policy.write_text(self.policy_text(admission))
        self.put(paths.cpu.read_bytes(), "cpu.so")
        self.placed = self.place(piece)
        self.before = self.files()

    def policy_text(self, admission):
        text = "schema: 1\nbackends: {piece: {priority: 300}, cpu: {priority: 100}}\n"
        text += "on_fallback: allow\n"
        if admission == "off":
            return text + "admission: {level: off}\n"
        registry = self.folder / "registry"
        return text + (f"admission: {{level: {admission}, registry: {registry}, "
                       "without_probe: refuse}\n")

    def put(self, content, name):
        (self.plugins / name).write_bytes(content)
        (self.plugins / name).chmod(0o644)

    def place(self, piece):
        if piece is None:
            return True
        if piece.put is None:
            self.put((self.paths.pieces / f"{piece.name}.so").read_bytes(), "x.so")
            return True
        return piece.put(self.plugins, (self.paths.pieces / "sound.so").read_bytes()) is not False

    def files(self):
        """Returns what lies where no command may write: names, kinds, sizes and times."""
        watched = ["plugins", "work", "home", "tmp"]
        found = [each for name in watched for each in (self.folder / name).rglob("*")]
        stats = [(str(each), each.lstat()) for each in sorted(found)]
        return [(name, s.st_mode, s.st_size, s.st_mtime_ns) for name, s in stats]

    def search_path(self):
        folders = [self.plugins, self.plugins / "open"]
        return ":".join(str(each) for each in folders if each.is_dir())

    def call(self, *words, deadline=DEADLINE):
        """Runs a command, and then ends what it left. RETURNS how it ended, stdout and stderr."""
        out, err = self.folder / "out", self.folder / "err"
        environment = {"PATH": os.environ["PATH"], "HOME": str(self.folder / "home"),
                       "TMPDIR": str(self.folder / "tmp"),
                       "LD_LIBRARY_PATH": str(self.paths.pieces / "needed")}
        # The command's parent is a shell, so that a piece which kills its parent kills that.
        command = ["sh", "-c", '"$@"; exit $?', "sh", *map(str, words)]
        with open(out, "wb") as to_out, open(err, "wb") as to_err:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=to_out,
                                       stderr=to_err, cwd=self.folder / "work", env=environment,
                                       start_new_session=True, preexec_fn=before_command)
        try:
            code = process.wait(deadline)
            ending = f"signal {abs(code) % 128}" if code < 0 or code > 128 else f"exit {code}"
        except subprocess.TimeoutExpired:
            ending = "hang"
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        if end_orphans() and ending != "hang":
            ending += ", leaves a process"
        return ending, out.read_text(errors="replace"), err.read_text(errors="replace")

    def expect(self, holds, fault):
        if not holds:
            self.faults.append(fault)

    def attnrt(self, *words, codes=(0,)):
        """Runs `attnrt words...`, which must exit with one of the codes. RETURNS stdout."""
        ending, out, err = self.call(self.paths.command, *words, "--policy", self.policy,
                                     "--plugins", self.search_path())
        self.expect(ending in [f"exit {code}" for code in codes],
                    f"attnrt {words[0]}: {ending}: {err[:500]}")
        control = re.search(r"[^\n -~\u0080-\uffff]", out + err)
        self.expect(not control, f"attnrt {words[0]}: prints {control and control[0]!r}")
        return out

    def document(self, *words, codes=(0,)):
        out = self.attnrt(*words, "--json", codes=codes)
        try:
            return json.loads(out)
        except ValueError:
            self.faults.append(f"attnrt {words[0]}: no JSON: {out[:200]!r}")
            return None

    def host(self, deadline=DEADLINE):
        ending, _, err = self.call(self.paths.host, self.policy, self.search_path(),
                                   deadline=deadline)
        return f"{ending}\n{err[:1000]}{err[1000:][-1000:]}".strip()

    def close(self):
        shutil.rmtree(self.folder)


def check_run(room, piece):
    ran = room.document("run", "--input", room.paths.input)
    if ran is not None and "backend" in ran:
        room.expect(piece.level == pieces.NONE or ran["backend"]["name"] == "cpu",
                    f"run: by {ran['backend']['name']}")
        room.expect(ran["error"]["out"] and not ran["error"]["off"], f"run: {ran['error']}")
    decision = room.document("explain", PROBLEM)
    if decision is not None and piece.level != pieces.NONE:
        room.expect(decision.get("chosen") == "cpu", f"explain: {decision.get('chosen')}")


def check_list(room, piece):
    harmless = piece.level == pieces.NONE
    codes = (0,) if harmless else (3,)
    text = room.attnrt("list", "--wait", codes=codes)
    listed = room.document("list", "--wait", codes=codes)
    if listed is None:
        return
    states = ["ready", "admitted", "no device"] if harmless else ["broken", "refused"]
    rows = [row for row in listed["plugins"] if not row["path"].endswith("/cpu.so")]
    room.expect(rows, "list: no row")
    wrong = [row for row in rows if row["state"] not in states
             or not re.search(piece.words, row["reason"], re.S)]
    if wrong:
        room.faults.append(f"list: {wrong[0]['state']}: {wrong[0]['reason']!r}; expected one of "
                           f"{states}, with {piece.words!r}")
    name = pathlib.Path(rows[0]["path"]).name if rows else ""
    room.expect(any(name in line and re.search(piece.words.strip("^$"), line)
                    for line in text.splitlines()), f"list: the text lacks {piece.words!r}")


def check_stopped(paths, piece, registries):
    admission = ADMISSION.get(piece.level, "conforms")
    room = Room(paths, piece, admission, registries.get(admission))
    try:
        if not room.placed:
            return None
        check_list(room, piece)  # waits until the piece is probed
        check_run(room, piece)
        host = room.host()
        room.expect(host.startswith("exit 0\n") and host.endswith("\nright"), f"host: {host}")
        room.expect(room.files() == room.before, "files were changed or left")
        return room.faults
    finally:
        room.close()


def check_unstopped(paths, piece):
    room = Room(paths, piece, "off")
    try:
        found = room.host(HANGS if "hang" in piece.unstopped else DEADLINE)
        if re.search(piece.unstopped, found, re.M):
            return []
        return [f"unstopped: {found!r}; expected {piece.unstopped!r}"]
    finally:
        room.close()


def check(paths, name, registries):
    """RETURNS the faults of one row and the seconds that it took; None: it cannot be made here."""
    (piece,) = [each for each in pieces.PIECES if each.name == name]
    begin, faults = time.monotonic(), []
    if name not in WAITS:
        faults = check_stopped(paths, piece, registries)
    scanned = piece.level == pieces.SCAN and name not in WAITS
    if piece.unstopped and faults is not None and not scanned:
        faults = faults + check_unstopped(paths, piece)
    return faults, time.monotonic() - begin


def probe_cpu(paths, folder):
    """Returns registries in which the backend cpu is admitted, so that it is not probed again for
    each row."""
    registries = {}
    for admission in ["loads", "conforms"]:
        room = Room(paths, None, admission)
        room.attnrt("list", "--wait")
        if room.faults:
            sys.exit(f"museum: cpu alone: {room.faults}")
        registries[admission] = folder / admission
        shutil.copytree(room.folder / "registry", registries[admission])
        room.close()
    return registries


class Paths:
    def __init__(self, command, host, folder, cpu, data):
        self.command, self.host, self.pieces, self.cpu, self.input = (
            pathlib.Path(each).resolve() for each in (command, host, folder, cpu, data))


def main(words):
    paths = Paths(*words[:5])
    names = words[5:] or [piece.name for piece in pieces.PIECES]
    unknown = WAITS - {piece.name for piece in pieces.PIECES}
    if unknown:
        sys.exit(f"museum: no piece has the name {', '.join(unknown)}")
    failed = 0
    prepare()
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as after:
        registries = probe_cpu(paths, pathlib.Path(folder))
        pool = after.enter_context(
            concurrent.futures.ProcessPoolExecutor(WORKERS, initializer=prepare))
        results = {name: pool.submit(check, paths, name, registries) for name in names}
        for name, result in results.items():
            faults, seconds = result.result()
            failed += bool(faults)
            outcome = "ok" if faults is not None else "cannot be made here"
            outcome += " unstopped; the rest waits" if name in WAITS else ""
            print(f"{name}: {'WRONG' if faults else outcome} ({seconds:.1f} s)", flush=True)
            for fault in faults or []:
                print("   ", fault[:LONGEST_FAULT].replace("\n", "\n      "), flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
