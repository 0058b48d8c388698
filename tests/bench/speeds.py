"""tests/bench/speeds.py: tables of hip_flash's speed beside that of peers, on one GPU.

Values are TFLOP/s of median times. FLOP are 2 batch heads (head_dim + head_dim_v) for each score
that causal and the window leave visible; causal without a window counts as half of all. A ratio is
the median over rounds of hip_flash's speed over the best peer's in the same round, with its
quartiles; the best peer is the one of the smallest median time.
"""

import dataclasses
import functools

import graph_timing
import peers
import torch
from problems import DTYPES, make_tensors

TOKENS, WIDTH = 16384, 2048  # batch x seq, heads x head_dim
DIMS, SEQS = (64, 96, 128, 192, 256), (512, 2048, 8192, 16384)


@dataclasses.dataclass
class Shape:
    batch: int
    heads_q: int
    heads_kv: int
    seq: int
    head_dim: int
    dtype: str = "bf16"
    causal: bool = False
    window: int = -1  # keys before the diagonal that are seen
    head_dim_v: int = 0  # 0: head_dim

    @property
    def visible(self):
        """Scores that a head computes."""
        if not self.causal:
            return self.seq * self.seq
        if self.window < 0 or self.window >= self.seq:
            return self.seq * self.seq / 2
        return self.seq * (self.window + 1) - self.window * (self.window + 1) / 2

    @property
    def flop(self):
        columns = self.head_dim + (self.head_dim_v or self.head_dim)
        return 2 * self.batch * self.heads_q * self.visible * columns

    def tensors(self):
        return make_tensors(
            self.batch, self.heads_q, self.heads_kv, self.seq, self.seq, self.head_dim, self.dtype,
            head_dim_v=self.head_dim_v,
        )  # fmt: skip

    def __str__(self):
        heads = f"{self.heads_q}"
        if self.heads_kv != self.heads_q:
            heads += f"/{self.heads_kv}"
        dims = f"{self.head_dim}" + (f"/{self.head_dim_v}" if self.head_dim_v else "")
        return f"{self.dtype} {self.batch}, {heads}, {self.seq}, {dims}"


def shape_of(head_dim, seq, **words):
    """Returns the shape of TOKENS tokens and about WIDTH columns."""
    heads = max(1, round(WIDTH / head_dim))
    return Shape(max(1, TOKENS // seq), heads, heads, seq, head_dim, **words)


lines = []  # of the tables printed so far


def emit(text):
    """Prints a part of a table, and keeps it."""
    lines.extend(text.split("\n"))
    print(text, flush=True)


def our_calls(runtimes, q, k, v, out, **words):
    """Returns hip_flash's call in each of the runtimes, by the runtime's name."""
    calls = {}
    for name, runtime in runtimes.items():
        try:
            calls[name] = runtime.plan(q, k, v, out, backend="hip_flash", **words).run
        except RuntimeError as error:
            print(f"{name}: {error}")
    return calls


def time_row(label, shape, ours, theirs, rounds):
    """Times all calls in turn, and prints a row.

    A name in theirs that begins with "+" is shown, but is no peer.
    """
    if not ours:
        return
    times = graph_timing.times_in_turn({**ours, **theirs}, rounds)
    speed = {name: shape.flop / t.median_ms / 1e9 for name, t in times.items()}
    peer_names = [n for n in theirs if not n.startswith("+")]
    best = min(peer_names, key=lambda n: times[n].median_ms) if peer_names else None
    cells = [str(label)]
    for name in ours:
        cell = f"{speed[name]:.0f}"
        if best:
            low, middle, high = graph_timing.ratio(times[name], times[best])
            cell += f" | {middle:.2f} ({low:.2f}-{high:.2f})"
        else:
            cell += " | -"
        cells.append(cell)
    fastest = {}  # of each peer's ways to call it
    for name in theirs:
        peer = name.lstrip("+") if name.startswith("+") else name.split()[0]
        fastest[peer] = max(fastest.get(peer, 0), speed[name])
    cells.append(", ".join(f"{peer} {value:.0f}" for peer, value in fastest.items()))
    cells.append(f"{times[next(iter(ours))].host_us:.0f}")
    emit("| " + " | ".join(cells) + " |")


def print_heading(first, ours):
    cells = [first]
    for name in ours:
        cells += [name, "of the best peer (quartiles)"]
    cells += ["beside", "host us"]
    emit("\n| " + " | ".join(cells) + " |")
    emit("|" + "---|" * len(cells))


def print_flash(runtimes, rounds, dims=DIMS, seqs=SEQS, dtype="bf16"):
    print_heading("dtype batch, heads, seq, head_dim", runtimes)
    for head_dim in dims:
        for seq in seqs:
            for causal in (False, True):
                print_plain(runtimes, shape_of(head_dim, seq, dtype=dtype, causal=causal), rounds)


def print_plain(runtimes, shape, rounds):
    q, k, v, out = shape.tensors()
    theirs = {"cuDNN": peers.torch_call("cuDNN", q, k, v, causal=shape.causal)}
    theirs |= peers.fa3_calls(q, k, v, causal=shape.causal)
    theirs = {name: call for name, call in theirs.items() if call}
    label = f"{shape}{' causal' if shape.causal else ''}"
    time_row(
        label, shape, our_calls(runtimes, q, k, v, out, causal=int(shape.causal)), theirs, rounds
    )


def print_grouped(runtimes, rounds):
    print_heading("grouped queries", runtimes)
    for seq in (2048, 8192):
        for causal in (False, True):
            print_plain(runtimes, Shape(TOKENS // seq, 32, 8, seq, 128, causal=causal), rounds)


def print_values(runtimes, rounds):
    """head_dim 192 with values of 128, as DeepSeek's prefill has."""
    print_heading("head_dim_v", runtimes)
    for seq in (2048, 8192):
        for causal in (False, True):
            shape = Shape(TOKENS // seq, 16, 16, seq, 192, causal=causal, head_dim_v=128)
            print_plain(runtimes, shape, rounds)


def print_large(runtimes, rounds):
    """head_dim 512, which neither cuDNN nor FA3 has."""
    print_heading("large head_dim", runtimes)
    for seq in (2048, 8192):
        for causal in (False, True):
            shape = shape_of(512, seq, causal=causal)
            q, k, v, out = shape.tensors()
            theirs = {"EFFICIENT": peers.torch_call("EFFICIENT", q, k, v, causal=causal)}
            theirs = {name: call for name, call in theirs.items() if call}
            ours = our_calls(runtimes, q, k, v, out, causal=int(causal))
            time_row(f"{shape}{' causal' if causal else ''}", shape, ours, theirs, rounds)


def print_masks(runtimes, rounds):
    """Masks: boolean (30 % hidden), additive, one that hides nothing, and one of documents.

    The documents are 8 of the same length, each of which sees itself alone. Also times hip_flash
    without a mask.
    """
    print_heading("mask", runtimes)
    for kind in ("bool", "add", "nothing hidden", "documents"):
        for shape in (shape_of(64, 2048), shape_of(128, 2048), shape_of(128, 8192)):
            q, k, v, out = shape.tensors()
            size = (1, 1, shape.seq, shape.seq)
            if kind == "add":
                mask = torch.randn(size, device="cuda").to(DTYPES[shape.dtype])
            elif kind == "documents":
                of = torch.arange(shape.seq, device="cuda") // (shape.seq // 8)
                mask = (of[:, None] == of[None])[None, None]
            else:
                mask = torch.rand(size, device="cuda") > (0.3 if kind == "bool" else -1)
            wide = mask.expand(shape.batch, shape.heads_q, shape.seq, shape.seq)
            theirs = {
                "cuDNN": peers.torch_call("cuDNN", q, k, v, mask),
                "EFFICIENT": peers.torch_call("EFFICIENT", q, k, v, mask),
            }
            without = our_calls(runtimes, q, k, v, out)
            theirs |= {f"+{name} without": call for name, call in without.items()}
            theirs = {name: call for name, call in theirs.items() if call}
            ours = our_calls(runtimes, q, k, v, out, mask=wide)
            time_row(f"{shape} {kind}", shape, ours, theirs, rounds)


def print_window(runtimes, rounds, window=256):
    print_heading("causal window", runtimes)
    for dtype in ("bf16", "f16"):
        shape = shape_of(128, 16384, dtype=dtype, causal=True, window=window - 1)
        q, k, v, out = shape.tensors()
        theirs = {"cuDNN": peers.cudnn_window_call(q, k, v, window)}
        theirs = {name: call for name, call in theirs.items() if call}
        ours = our_calls(runtimes, q, k, v, out, causal=1, window_left=window - 1)
        time_row(f"{shape} window {window}", shape, ours, theirs, rounds)


def print_f32(runtimes, rounds):
    torch.backends.cuda.matmul.allow_tf32 = False
    print_heading("f32", runtimes)
    for head_dim in (64, 128, 256):
        for causal in (False, True):
            shape = dataclasses.replace(
                shape_of(head_dim, 2048, dtype="f32", causal=causal), batch=4
            )
            q, k, v, out = shape.tensors()
            theirs = {"EFFICIENT": peers.torch_call("EFFICIENT", q, k, v, causal=causal)}
            ours = our_calls(runtimes, q, k, v, out, causal=int(causal))
            time_row(f"{shape}{' causal' if causal else ''}", shape, ours, theirs, rounds)


def print_unfused(runtimes, rounds):
    """hip_unfused beside hip_flash."""
    runtime = next(iter(runtimes.values()))
    print_heading("unfused", ["hip_unfused"])
    for seq in (128, 512, 2048):
        for head_dim in (64, 128):
            shape = Shape(4, 16, 16, seq, head_dim, dtype="f16")
            q, k, v, out = shape.tensors()
            ours = {"hip_unfused": runtime.plan(q, k, v, out, backend="hip_unfused").run}
            theirs = our_calls({"hip_flash": runtime}, q, k, v, out)
            theirs["MATH"] = peers.torch_call("MATH", q, k, v)
            time_row(str(shape), shape, ours, theirs, rounds)


TABLES = {
    "flash": print_flash,
    "f16": functools.partial(print_flash, dims=(64, 128, 256), seqs=(2048, 8192), dtype="f16"),
    "grouped": print_grouped,
    "values": print_values,
    "large": print_large,
    "mask": print_masks,
    "window": print_window,
    "f32": print_f32,
    "unfused": print_unfused,
}
