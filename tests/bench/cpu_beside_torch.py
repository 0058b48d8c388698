#!/usr/bin/env python3
"""tests/bench/cpu_beside_torch.py: compares the cpu plugin with PyTorch's CPU attention.

    python3 tests/bench/cpu_beside_torch.py --library build/release/lib/libattnrt.so \\
        --plugins build/release/lib/attnrt/plugins --threads 2,16

Every row of the table first checks some rows of the output, which held NaN before. The error of the
plugin may be at most 2 x the error of a plain evaluation in the same dtype, plus the floor of
beside_torch.py, both against float64. A wrong output gets no time.

Then both are timed on the same tensors and number of threads, in one process and in turn, each
after a pause in which the other's threads stop waiting for work. The table has medians and
quartiles. GFLOP/s count 4 heads seq_q seq_kv head_dim: half of it if causal, and with a window the
keys that it sees. GB/s count k and v once.
"""

import argparse
import math
import statistics
import sys
import time

import torch
import torch.nn.functional as F
from attnrt_ctypes import Runtime

DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}
UNIT_ROUNDOFF = {"f16": 2.0**-11, "bf16": 2.0**-8, "f32": 2.0**-24}
CHECKED_ROWS = 30  # random rows of each output that are checked, beside the first and the last
PAUSE_SECONDS = 0.03  # OpenMP's threads spin for about 15 ms after their last work
SAMPLE_SECONDS = 0.01  # of one sample, and of the warm-up before it
MAX_CALLS = 100  # in one sample


def make_tensors(heads_q, heads_kv, seq_q, seq_kv, head_dim, dtype):
    """Returns random q, k and v, and an output that holds NaN; all [1, seq, heads, head_dim].

    In memory heads come before seq, which is the layout that suits PyTorch best.
    """

    def make(seq, heads):
        return torch.randn(1, heads, seq, head_dim).to(DTYPES[dtype]).transpose(1, 2)

    q, k, v = make(seq_q, heads_q), make(seq_kv, heads_kv), make(seq_kv, heads_kv)
    out = torch.full((1, heads_q, seq_q, head_dim), math.nan, dtype=DTYPES[dtype])
    return q, k, v, out.transpose(1, 2)


def visible_keys(seq_q, seq_kv, causal, window, mask, rows):
    """Returns which keys some rows see, and what is added to their scores."""
    diagonal = rows[:, None] + seq_kv - seq_q
    key = torch.arange(seq_kv)[None]
    visible = torch.ones(len(rows), seq_kv, dtype=torch.bool)
    if causal:
        visible &= key <= diagonal
    if window >= 0:
        visible &= key >= diagonal - window
    if mask is None:
        return visible, torch.zeros(1)
    part = mask[0, 0, rows]
    return (visible & part, torch.zeros(1)) if mask.dtype == torch.bool else (visible, part)


def evaluate(q, k, v, dtype, visible, bias):
    """Returns out by its definition.

    In float64 if dtype is None. Else in float32, with weights and out rounded to dtype.
    """
    wide = torch.float64 if dtype is None else torch.float32
    group = q.shape[2] // k.shape[2]
    k, v = k.repeat_interleave(group, 2), v.repeat_interleave(group, 2)
    q, k, v = (t.to(wide).transpose(1, 2) for t in (q, k, v))
    scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1]) + bias.to(wide)
    weights = torch.softmax(scores.masked_fill(~visible, -math.inf), -1)
    if dtype is not None:
        weights = weights.to(dtype).to(wide)
    out = (weights @ v).transpose(1, 2)
    return out if dtype is None else out.to(dtype)


def is_right(q, k, v, out, dtype, causal, window, mask):
    """Checks some rows of out against float64."""
    seq_q, seq_kv = q.shape[1], k.shape[1]
    some = torch.randint(0, seq_q, (CHECKED_ROWS,))
    rows = torch.unique(torch.cat([torch.tensor([0, seq_q - 1]), some]))
    visible, bias = visible_keys(seq_q, seq_kv, causal, window, mask, rows)
    exact = evaluate(q[:, rows], k, v, None, visible, bias)
    plain = evaluate(q[:, rows], k, v, DTYPES[dtype], visible, bias)
    error = float((out[:, rows].double() - exact).abs().max())
    plain_error = float((plain.double() - exact).abs().max())
    norms = float(q[:, rows].float().norm(dim=-1).max() * k.float().norm(dim=-1).max())
    norms /= math.sqrt(q.shape[-1])
    floor = UNIT_ROUNDOFF[dtype] * float(exact.abs().max())
    floor += UNIT_ROUNDOFF["f32"] * float(v.abs().max()) * (10 * norms + math.sqrt(seq_kv) + 8)
    return error <= 2 * plain_error + floor and not torch.isnan(out).any()


def warm_up(call, seconds):
    """Repeats a call for that long. Returns the seconds of one call."""
    start, count = time.perf_counter(), 0
    while count == 0 or time.perf_counter() - start < seconds:
        call()
        count += 1
    return (time.perf_counter() - start) / count


def quartiles_ms(calls, rounds):
    """Returns the quartiles of each call in milliseconds. The calls take turns."""
    samples = [[] for _ in calls]
    for _ in range(rounds):
        for n, call in enumerate(calls):
            time.sleep(PAUSE_SECONDS)
            seconds = warm_up(call, SAMPLE_SECONDS)
            count = max(1, min(MAX_CALLS, int(SAMPLE_SECONDS / seconds)))
            start = time.perf_counter()
            for _ in range(count):
                call()
            samples[n].append((time.perf_counter() - start) * 1e3 / count)
    return [statistics.quantiles(times, n=4) for times in samples]


def torch_call(q, k, v, causal, window, mask):
    """Returns a call of PyTorch's attention. PyTorch has no windows, so that they become a mask."""
    if window >= 0:
        seq_q, seq_kv = q.shape[1], k.shape[1]
        visible, _ = visible_keys(seq_q, seq_kv, causal, window, mask, torch.arange(seq_q))
        mask = visible[None, None]
    q, k, v = (t.transpose(1, 2) for t in (q, k, v))
    is_causal, gqa = causal and mask is None, q.shape[1] != k.shape[1]
    return lambda: F.scaled_dot_product_attention(
        q, k, v, attn_mask=mask, is_causal=is_causal, enable_gqa=gqa
    )


class Table:
    def __init__(self, runtime, threads, rounds):
        self.runtime, self.threads, self.rounds, self.good = runtime, threads, rounds, True

    def row(self, dtype, heads_q, heads_kv, seq_q, seq_kv, head_dim, causal=False, window=-1,
            mask_kind=""):  # fmt: skip
        """Checks and times one problem, and prints its row."""
        q, k, v, out = make_tensors(heads_q, heads_kv, seq_q, seq_kv, head_dim, dtype)
        mask = None
        if mask_kind == "bool":
            mask = torch.rand(1, 1, seq_q, seq_kv) > 0.3
        elif mask_kind == "add":
            mask = torch.randn(1, 1, seq_q, seq_kv).to(DTYPES[dtype])
        own_mask = None if mask is None else mask.expand(1, heads_q, seq_q, seq_kv)
        plan = self.runtime.plan(
            q, k, v, out, backend="cpu", mask=own_mask, causal=int(causal), window_left=window
        )
        plan.run()
        features = f"window {window}" if window >= 0 else mask_kind
        words = (
            f"{self.threads:3} {dtype:5}{heads_q:3}/{heads_kv:<3}{seq_q:6}{seq_kv:6}{head_dim:5} "
            f"{'causal' if causal else '':7}{features:12}"
        )
        if not is_right(q, k, v, out, dtype, causal, window, mask):
            print(words, "WRONG", flush=True)
            self.good = False
            return
        calls = [plan.run, torch_call(q, k, v, causal, window, mask)]
        (low, ours, high), (torch_low, theirs, torch_high) = quartiles_ms(calls, self.rounds)
        if seq_q == 1:
            amount, unit = 2 * heads_kv * seq_kv * head_dim * q.element_size() / 1e6, "GB/s"
        else:
            scores = seq_q * window if window >= 0 else seq_q * seq_kv / (2 if causal else 1)
            amount, unit = 4 * heads_q * head_dim * scores / 1e6, "GFLOP/s"
        print(
            f"{words} {amount / ours:7.0f} {unit:8} torch {amount / theirs:7.0f}"
            f"   ratio {theirs / ours:5.2f}   ms {ours:.3f} ({low:.3f}..{high:.3f})"
            f" torch {theirs:.3f} ({torch_low:.3f}..{torch_high:.3f})",
            flush=True,
        )

    def print_parts(self, dtype, parts, seqs):
        """Prints the rows of the parts that were asked for."""
        if "prefill" in parts:
            for head_dim in (64, 128):
                for seq in seqs:
                    for causal in (False, True):
                        self.row(dtype, 8, 8, seq, seq, head_dim, causal)
        if "decode" in parts:
            for seq in (4096, 32768):
                self.row(dtype, 32, 8, 1, seq, 128)
        if "mask" in parts:
            for head_dim in (64, 128):
                for mask_kind in ("bool", "add"):
                    self.row(dtype, 8, 8, 2048, 2048, head_dim, mask_kind=mask_kind)
                self.row(dtype, 8, 8, 2048, 2048, head_dim, causal=True, window=256)
        if "dims" in parts:
            for head_dim in (40, 64, 72, 80, 96, 128, 192, 256):
                self.row(dtype, 8, 8, 2048, 2048, head_dim)


def main():
    parser = argparse.ArgumentParser(description="Compares the cpu plugin with PyTorch.")
    parser.add_argument("--library", required=True, help="libattnrt.so")
    parser.add_argument("--plugins", required=True, help="the directory of the plugins")
    parser.add_argument("--threads", default="2", help="thread counts, separated by commas")
    parser.add_argument("--what", default="prefill,decode,mask,dims", help="parts to run")
    parser.add_argument("--dtypes", default="f32,bf16,f16")
    parser.add_argument("--seqs", default="512,2048,4096", help="sequence lengths of prefill")
    parser.add_argument("--target", help="an instruction set for the cpu plugin to use")
    parser.add_argument("--rounds", type=int, default=9, help="samples of each call")
    options = parser.parse_args()
    policy = None
    if options.target:
        policy = f"schema: 1\nbackends:\n  cpu: {{options: {{target: {options.target}}}}}\n"
    capability = torch.backends.cpu.get_cpu_capability()
    print("seed", torch.seed(), " torch", torch.__version__, capability)
    good = True
    for threads in map(int, options.threads.split(",")):
        torch.set_num_threads(threads)
        runtime = Runtime(options.library, options.plugins, threads, policy)
        kernel = runtime.plan(*make_tensors(1, 1, 64, 64, 64, "bf16"), backend="cpu").kernel
        print("kernel", kernel, "  threads, dtype, heads, seq_q, seq_kv, head_dim")
        table = Table(runtime, threads, options.rounds)
        seqs = [int(seq) for seq in options.seqs.split(",")]
        for dtype in options.dtypes.split(","):
            table.print_parts(dtype, options.what.split(","), seqs)
        good &= table.good
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
