#!/usr/bin/env python3
# tests/bench/cpu_beside_torch.py: the cpu plugin against PyTorch's CPU attention: accuracy against float64, then speed, in one process
#
#   python3 tests/bench/cpu_beside_torch.py --library build/release/lib/libattnrt.so --plugins build/release/lib/attnrt/plugins --threads 2,16
#
# Accuracy, on some rows of each shape that is timed, with a poisoned output: error of the kernel <= 2 x the error of a plain evaluation in the
# same dtype + the floor of beside_torch.py, both against float64. Speed: both on the same tensors and number of threads, in turn, after
# a pause in which the other's threads stop waiting for work; medians and quartiles. GFLOP/s count 4 b h sq skv d (half if causal; of a window
# what it sees); GB/s count K and V once. Nothing is timed that was not found right.
import argparse
import math
import statistics
import sys
import time
import torch
import torch.nn.functional as F
from attnrt_ctypes import Runtime

DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}
UNIT = {"f16": 2.0**-11, "bf16": 2.0**-8, "f32": 2.0**-24}


def tensors(hq, hkv, sq, skv, d, dtype):
    make = lambda s, h: torch.randn(1, h, s, d).to(DTYPES[dtype]).transpose(1, 2)  # BHSD memory, as torch likes it best
    q, k, v = make(sq, hq), make(skv, hkv), make(skv, hkv)
    out = torch.full((1, hq, sq, d), float("nan"), dtype=DTYPES[dtype]).transpose(1, 2)
    return q, k, v, out


def seen_keys(sq, skv, causal, window, mask, rows):
    """Which keys the rows see, [1, 1 or h, rows, skv], and what is added to their scores."""
    diagonal = rows[:, None] + skv - sq
    j = torch.arange(skv)[None]
    seen = torch.ones(len(rows), skv, dtype=torch.bool)
    if causal:
        seen &= j <= diagonal
    if window >= 0:
        seen &= j >= diagonal - window
    if mask is None:
        return seen, 0
    part = mask[0, 0, rows]
    return (seen & part, 0) if mask.dtype == torch.bool else (seen, part)


def evaluate(q, k, v, dtype, seen, bias):
    """The definition in float64 (dtype None), or in float32 with weights and out rounded to the dtype."""
    wide = torch.float64 if dtype is None else torch.float32
    group = q.shape[2] // k.shape[2]
    Q, K, V = (t.to(wide).transpose(1, 2) for t in (q, k.repeat_interleave(group, 2), v.repeat_interleave(group, 2)))
    s = Q @ K.transpose(-1, -2) / math.sqrt(q.shape[-1])
    s = (s + (bias.to(wide) if torch.is_tensor(bias) else bias)).masked_fill(~seen, float("-inf"))
    w = torch.softmax(s, -1)
    if dtype is not None:
        w = w.to(dtype).to(wide)
    out = (w @ V).transpose(1, 2)
    return out if dtype is None else out.to(dtype)


def right(q, k, v, out, dtype, causal, window, mask):
    sq, skv = q.shape[1], k.shape[1]
    rows = torch.unique(torch.cat([torch.tensor([0, sq - 1]), torch.randint(0, sq, (30,))]))
    seen, bias = seen_keys(sq, skv, causal, window, mask, rows)
    exact = evaluate(q[:, rows], k, v, None, seen, bias)
    plain = evaluate(q[:, rows], k, v, DTYPES[dtype], seen, bias)
    error, bar = (float((t.double() - exact).abs().max()) for t in (out[:, rows], plain))
    norms = float(q[:, rows].float().norm(dim=-1).max() * k.float().norm(dim=-1).max()) / math.sqrt(q.shape[-1])
    floor = UNIT[dtype] * float(exact.abs().max()) + 2.0**-24 * float(v.abs().max()) * (10 * norms + math.sqrt(skv) + 8)
    bar = 2 * bar + floor
    return error <= bar and not torch.isnan(out).any()


def warm(call, seconds):
    """Calls for that long; gives the seconds of one call."""
    start, count = time.perf_counter(), 0
    while count == 0 or time.perf_counter() - start < seconds:
        call()
        count += 1
    return (time.perf_counter() - start) / count


def measure(calls, rounds):
    """Medians and quartiles in milliseconds, timed in turn."""
    times = [[] for _ in calls]
    for _ in range(rounds):
        for n, call in enumerate(calls):
            time.sleep(0.03)  # OpenMP's threads spin for some 15 ms after their last work
            once = max(1, min(100, int(0.01 / warm(call, 0.01))))
            start = time.perf_counter()
            for _ in range(once):
                call()
            times[n].append((time.perf_counter() - start) * 1e3 / once)
    return [statistics.quantiles(t, n=4) for t in times]


class Table:
    def __init__(self, runtime, threads, rounds):
        self.runtime, self.threads, self.rounds, self.good = runtime, threads, rounds, True

    def row(self, dtype, hq, hkv, sq, skv, d, causal=False, window=-1, kind=None):
        q, k, v, out = tensors(hq, hkv, sq, skv, d, dtype)
        mask = None
        if kind == "bool":
            mask = torch.rand(1, 1, sq, skv) > 0.3
        elif kind == "add":
            mask = torch.randn(1, 1, sq, skv).to(DTYPES[dtype])
        plan = self.runtime.plan(q, k, v, out, backend="cpu", mask=None if mask is None else mask.expand(1, hq, sq, skv),
                                 causal=int(causal), window_left=window)
        plan.run()
        what = f"{self.threads:3} {dtype:5}{hq:3}/{hkv:<3}{sq:6}{skv:6}{d:5} {'causal' if causal else '':7}{f'window {window}' if window >= 0 else kind or '':12}"
        if not right(q, k, v, out, dtype, causal, window, mask):
            print(what, "WRONG", flush=True)
            self.good = False
            return
        theirs = mask
        if window >= 0:  # torch has dense masks only
            seen, _ = seen_keys(sq, skv, causal, window, mask, torch.arange(sq))
            theirs = seen[None, None]
        Q, K, V = (t.transpose(1, 2) for t in (q, k, v))
        call = lambda: F.scaled_dot_product_attention(Q, K, V, attn_mask=theirs, is_causal=causal and theirs is None, enable_gqa=hq != hkv)
        (a, ours, b), (c, other, e) = measure([plan.run, call], self.rounds)
        if sq == 1:
            amount, unit = 2 * hkv * skv * d * q.element_size() / 1e6, "GB/s"
        else:
            amount, unit = 4 * hq * d * (sq * window if window >= 0 else sq * skv / (2 if causal else 1)) / 1e6, "GFLOP/s"
        print(f"{what} {amount / ours:7.0f} {unit:8} torch {amount / other:7.0f}   ratio {other / ours:5.2f}"
              f"   ms {ours:.3f} ({a:.3f}..{b:.3f}) torch {other:.3f} ({c:.3f}..{e:.3f})", flush=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--library", required=True)
    parser.add_argument("--plugins", required=True)
    parser.add_argument("--threads", default="2", help="counts, by commas")
    parser.add_argument("--what", default="prefill,decode,mask,dims")
    parser.add_argument("--dtypes", default="f32,bf16,f16")
    parser.add_argument("--seqs", default="512,2048,4096", help="of prefill")
    parser.add_argument("--target", help="forces an instruction set of the cpu backend")
    parser.add_argument("--rounds", type=int, default=9)
    a = parser.parse_args()
    policy = f"schema: 1\nbackends:\n  cpu: {{options: {{target: {a.target}}}}}\n" if a.target else None
    what, good = a.what.split(","), True
    print("seed", torch.seed(), " torch", torch.__version__, torch.backends.cpu.get_cpu_capability())
    for threads in map(int, a.threads.split(",")):
        torch.set_num_threads(threads)
        runtime = Runtime(a.library, a.plugins, threads, policy)
        table = Table(runtime, threads, a.rounds)
        q, k, v, out = tensors(1, 1, 64, 64, 64, "bf16")
        print("kernel", runtime.plan(q, k, v, out, backend="cpu").kernel, "  threads, dtype, heads, seq_q, seq_kv, head_dim")
        for dtype in a.dtypes.split(","):
            if "prefill" in what:
                for d in (64, 128):
                    for seq in map(int, a.seqs.split(",")):
                        for causal in (False, True):
                            table.row(dtype, 8, 8, seq, seq, d, causal)
            if "decode" in what:
                for seq in (4096, 32768):
                    table.row(dtype, 32, 8, 1, seq, 128)
            if "mask" in what:
                for d in (64, 128):
                    for kind in ("bool", "add"):
                        table.row(dtype, 8, 8, 2048, 2048, d, kind=kind)
                    table.row(dtype, 8, 8, 2048, 2048, d, causal=True, window=256)
            if "dims" in what:
                for d in (40, 64, 72, 80, 96, 128, 192, 256):
                    table.row(dtype, 8, 8, 2048, 2048, d)
        good &= table.good
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
