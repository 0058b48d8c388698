#!/usr/bin/env python3
# tests/bench/python_host_time.py: what the host spends in a call from Python
"""python3 tests/bench/python_host_time.py [--calls N]

Prints the microseconds that the host spends in attnrt.attention, Plan.run and torch's
scaled_dot_product_attention, on the cpu and, if there is one, on a GPU. Tensors are so small that
the work itself takes next to no time. What is enqueued on a GPU is waited for after each 50 calls,
outside of the time that counts. Each value is the least of several rounds' means, then their
median.

Needs the package attnrt and numpy or torch. The goal for attnrt.attention on the host of an H200
is 12 us.
"""

import argparse
import contextlib
import functools
import statistics
import time

import attnrt

try:
    import torch
except ImportError:
    torch = None
try:
    import numpy
except ImportError:
    numpy = None

ROUND = 50  # calls


def microseconds(call, rounds, wait=lambda: None):
    """Returns the least and the median of the rounds' mean times of a call."""
    for _ in range(ROUND):
        call()
    wait()
    means = []
    for _ in range(rounds):
        start = time.perf_counter()
        for _ in range(ROUND):
            call()
        means.append((time.perf_counter() - start) / ROUND * 1e6)
        wait()
    return min(means), statistics.median(means)


def calls_of(kind, q, k, v):
    """Yields a name and a call without arguments for each way to compute the same."""
    words = {"heads_q": q.shape[2], "heads_kv": k.shape[2], "head_dim": q.shape[3]}
    dtype = {"float32": "f32", "float16": "f16"}[str(q.dtype).rpartition(".")[2]]
    device = kind.partition(" ")[2]
    out = torch.empty_like(q) if kind.startswith("torch") else numpy.empty_like(q)
    attention = functools.partial(attnrt.attention, q, k, v)
    yield "attnrt.attention", attention
    yield (
        "attnrt.attention, causal, scale, out given",
        functools.partial(attention, causal=True, scale=0.125, out=out),
    )
    plan = attnrt.default_runtime().plan(
        words, dtype=dtype, batch=q.shape[0], seq_q=q.shape[1], seq_kv=k.shape[1], device=device
    )
    yield "Plan.run, out given", functools.partial(plan.run, q, k, v, out)
    if kind.startswith("torch"):
        transposed = [tensor.transpose(1, 2) for tensor in (q, k, v)]
        sdpa = functools.partial(torch.nn.functional.scaled_dot_product_attention, *transposed)
        yield "torch's scaled_dot_product_attention", sdpa


def tensors_of(kind):
    """Returns q, k and v of this kind: "numpy cpu", "torch cpu", "torch cuda"."""
    if kind == "numpy cpu":
        return [numpy.ones((1, 1, 2, 64), "float32") for _ in range(3)]
    if kind == "torch cpu":
        return [torch.ones(1, 1, 2, 64) for _ in range(3)]
    q = torch.ones(2, 256, 16, 128, dtype=torch.float16, device="cuda")
    return [q, torch.ones_like(q), torch.ones_like(q)]


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--calls", type=int, default=5000, help="of each kind")
    rounds = max(1, parser.parse_args().calls // ROUND)
    kinds = (["numpy cpu"] if numpy is not None else []) + (["torch cpu"] if torch else [])
    if torch is not None and torch.cuda.is_available():
        kinds.append("torch rocm" if torch.version.hip else "torch cuda")
    for kind in kinds:
        on_gpu = not kind.endswith("cpu")
        for name, call in calls_of(kind, *tensors_of(kind)):
            wait = torch.cuda.synchronize if on_gpu else lambda: None
            with torch.no_grad() if torch is not None else contextlib.nullcontext():
                least, median = microseconds(call, rounds, wait)
            print(f"{kind:10}  {name:45} {least:6.2f} us, median {median:6.2f} us", flush=True)


if __name__ == "__main__":
    main()
