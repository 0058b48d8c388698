#!/usr/bin/env python3
"""tests/bench/beside_torch.py: compares the CUDA plugins with PyTorch on one GPU.

    python3 tests/bench/beside_torch.py --library build/release/lib/libattnrt.so \\
        --plugins build/release/lib/attnrt/plugins

Accuracy comes first, then speed, in one run. Inputs are random and different in every run; the
output holds NaN before each run. The error of a kernel may be at most

    2 x the error of a plain evaluation by PyTorch in the same dtype + a floor,

both against float64. For speed, calls take turns; the numbers are TFLOP/s of medians. FLOP are
4 batch heads seq_q seq_kv head_dim, half of it if causal.
"""

import argparse
import dataclasses
import math
import statistics
import sys

import torch
import torch.nn.functional as F
from attnrt_ctypes import Runtime
from torch.nn.attention import SDPBackend, sdpa_kernel

DTYPES = {"f16": torch.float16, "bf16": torch.bfloat16, "f32": torch.float32}
UNIT_ROUNDOFF = {"f16": 2.0**-11, "bf16": 2.0**-8, "f32": 2.0**-24}
F32_ROUNDOFF = UNIT_ROUNDOFF["f32"]  # scores and sums are kept in f32
MAX_WRONG_SHOWN = 11  # lines about wrong results, of each backend
ROUNDS = 15  # samples of each call
SAMPLE_MS = 4.0  # milliseconds of one sample, about
MAX_CALLS = 50  # in one sample

# (batch, heads_q, heads_kv, seq_q, seq_kv, head_dim): usual sizes, odd sizes, one query, one key.
SHAPES = [
    (2, 4, 4, 256, 256, 64),
    (1, 6, 2, 129, 257, 128),
    (1, 2, 1, 63, 191, 72),
    (1, 2, 2, 1, 1000, 96),
    (1, 2, 2, 300, 65, 256),
    (2, 3, 1, 127, 640, 40),
    (1, 1, 1, 1, 1, 32),
    (1, 2, 2, 513, 511, 160),
]


@dataclasses.dataclass
class Features:
    """What a problem asks for beyond its shape."""

    causal: bool = False
    top_left: bool = False
    left: int = -1  # keys before the diagonal that are seen; -1: all
    right: int = -1
    softcap: float = 0.0
    scale: float = 0.0  # 0: 1 / sqrt(head_dim)
    mask: str = ""  # bool, broadcast, add (in q's dtype) or add32
    alibi: bool = False
    sinks: bool = False
    magnitude: float = 1.0  # of q, k and v

    def __str__(self):
        default = Features()
        changed = {n: v for n, v in vars(self).items() if v != getattr(default, n)}
        return " ".join(f"{name}={value}" for name, value in changed.items()) or "plain"


FEATURES = [
    Features(),
    Features(causal=True),
    Features(causal=True, top_left=True),
    Features(left=33),
    Features(left=100, right=7),
    Features(causal=True, left=70),
    Features(softcap=20.0),
    Features(alibi=True),
    Features(sinks=True),
    Features(mask="bool"),
    Features(mask="add"),
    Features(mask="add32"),
    Features(mask="bool", causal=True),
    Features(mask="broadcast"),
    Features(magnitude=30.0),
    Features(scale=-0.3),
    Features(mask="add", alibi=True, softcap=15.0, sinks=True, causal=True),
]


def make_tensors(batch, heads_q, heads_kv, seq_q, seq_kv, head_dim, dtype, magnitude=1.0):
    """Returns random q, k and v, and an output that holds NaN."""

    def make(seq, heads):
        numbers = torch.randn(batch, seq, heads, head_dim, device="cuda") * magnitude
        return numbers.to(DTYPES[dtype])

    q, k, v = make(seq_q, heads_q), make(seq_kv, heads_kv), make(seq_kv, heads_kv)
    return q, k, v, torch.full_like(q, math.nan)


def make_mask(kind, batch, heads, seq_q, seq_kv, dtype):
    """Returns a mask [batch, heads, seq_q, seq_kv], or None."""
    if not kind:
        return None
    if kind in ("bool", "broadcast"):
        shape = (batch, 1, 1, seq_kv) if kind == "broadcast" else (batch, heads, seq_q, seq_kv)
        mask = torch.rand(shape, device="cuda") > 0.4
    else:
        mask = torch.randn(batch, heads, seq_q, seq_kv, device="cuda")
        mask[torch.rand_like(mask) > 0.7] = -math.inf
        mask = mask if kind == "add32" else mask.to(DTYPES[dtype])
    return mask.expand(batch, heads, seq_q, seq_kv)


def visible_keys(seq_q, seq_kv, features):
    """Returns which keys each query sees, and the key of each query's diagonal."""
    shift = 0 if features.top_left else seq_kv - seq_q
    diagonal = torch.arange(seq_q, device="cuda")[:, None] + shift
    key = torch.arange(seq_kv, device="cuda")[None]
    visible = torch.ones(seq_q, seq_kv, dtype=torch.bool, device="cuda")
    if features.causal:
        visible &= key <= diagonal
    if features.left >= 0:
        visible &= key >= diagonal - features.left
    if features.right >= 0:
        visible &= key <= diagonal + features.right
    return visible, diagonal - key


def evaluate(q, k, v, dtype, features, mask=None, slopes=None, sinks=None):
    """Returns out and lse by their definition.

    In float64 if dtype is None. Else in float32, with weights and out rounded to dtype.
    """
    wide = torch.float64 if dtype is None else torch.float32
    group = q.shape[2] // k.shape[2]
    k, v = k.repeat_interleave(group, 2), v.repeat_interleave(group, 2)
    q, k, v = (t.to(wide).transpose(1, 2) for t in (q, k, v))  # [batch, heads, seq, head_dim]
    scores = q @ k.transpose(-1, -2) * (features.scale or 1 / math.sqrt(q.shape[-1]))
    if features.softcap:
        scores = features.softcap * torch.tanh(scores / features.softcap)
    visible, distance = visible_keys(q.shape[2], k.shape[2], features)
    if mask is not None and mask.dtype == torch.bool:
        visible = visible & mask
    elif mask is not None:
        scores = scores + mask.to(wide)
    if slopes is not None:
        scores = scores - slopes.to(wide)[None, :, None, None] * distance.abs()
    scores = scores.masked_fill(~visible, -math.inf)

    top = scores.amax(-1, keepdim=True)
    if sinks is not None:
        sinks = sinks.to(wide)[None, :, None, None]
        top = torch.maximum(top, sinks)
    top = top.masked_fill(top == -math.inf, 0)  # a row that sees no key
    weights = torch.exp(scores - top)
    total = weights.sum(-1, keepdim=True)
    if sinks is not None:
        total = total + torch.exp(sinks - top)
    lse = (top + torch.log(total))[..., 0]
    weights = torch.where(total > 0, weights / total, torch.zeros_like(weights))
    if dtype is not None:
        weights = weights.to(dtype).to(wide)
    out = (weights @ v).transpose(1, 2)
    return (out if dtype is None else out.to(dtype)), lse


def largest_error(found, exact):
    return float((found.double() - exact).abs().max())


def check_case(runtime, backend, dtype, shape, features):
    """Runs one problem. Returns its error relative to the bound, and what is wrong, or ""."""
    batch, heads_q, _, seq_q, seq_kv, head_dim = shape
    q, k, v, out = make_tensors(*shape, dtype, features.magnitude)
    lse = torch.full((batch, heads_q, seq_q), math.nan, device="cuda")
    given = {
        "mask": make_mask(features.mask, batch, heads_q, seq_q, seq_kv, dtype),
        "slopes": torch.rand(heads_q, device="cuda") if features.alibi else None,
        "sinks": torch.randn(heads_q, device="cuda") * 3 if features.sinks else None,
    }
    plan = runtime.plan(
        q, k, v, out, backend=backend, mask=given["mask"], lse=lse,
        alibi_slopes=given["slopes"], sinks=given["sinks"], causal=int(features.causal),
        align=int(features.top_left), window_left=features.left, window_right=features.right,
        softcap=features.softcap, scale=features.scale,
    )  # fmt: skip
    plan.run()
    torch.cuda.synchronize()
    exact, exact_lse = evaluate(q, k, v, None, features, **given)
    plain, plain_lse = evaluate(q, k, v, DTYPES[dtype], features, **given)

    scale = abs(features.scale or 1 / math.sqrt(head_dim))
    norms = float(q.double().norm(dim=-1).max() * k.double().norm(dim=-1).max()) * scale
    score_error = F32_ROUNDOFF * 5 * norms
    sum_error = F32_ROUNDOFF * (math.sqrt(seq_kv) + 8)
    floor = UNIT_ROUNDOFF[dtype] * float(exact.abs().max())
    floor += float(v.abs().max()) * (2 * score_error + sum_error)
    error, bound = largest_error(out, exact), 2 * largest_error(plain, exact) + floor

    finite = exact_lse > -math.inf
    lse_error = lse_bound = 0.0
    if finite.any():
        lse_error = largest_error(lse[finite], exact_lse[finite])
        lse_bound = 2 * largest_error(plain_lse[finite], exact_lse[finite])
        lse_bound += score_error + sum_error + F32_ROUNDOFF * norms
    good = error <= bound and lse_error <= lse_bound and not torch.isnan(out).any()
    good = good and bool((lse[~finite] == -math.inf).all())
    wrong = f"error {error:.2e} of {bound:.2e}, lse {lse_error:.2e} of {lse_bound:.2e}"
    return error / bound, "" if good else wrong


def check(runtime, backend):
    """Checks all shapes with all features in all dtypes. Returns whether all results are right."""
    cases, wrong_cases, worst = 0, 0, 0.0
    for dtype in DTYPES:
        for shape in SHAPES:
            for features in FEATURES:
                try:
                    part, wrong = check_case(runtime, backend, dtype, shape, features)
                except RuntimeError as error:
                    print("FAILED", backend, dtype, shape, features, error)
                    return False
                cases += 1
                worst = max(worst, part)
                wrong_cases += bool(wrong)
                if wrong and wrong_cases <= MAX_WRONG_SHOWN:
                    print(f"WRONG {backend} {dtype} {shape} {features}: {wrong}")
    right = cases - wrong_cases
    print(f"{backend}: {right} of {cases} right; worst error / bound {worst:.2f}")
    return wrong_cases == 0


def check_long(runtime, backend, seq=(1 << 20) + 3, head_dim=64, window=500_000):
    """Checks rows at the start, the middle and the end of a causal problem of a million keys."""
    good = True
    for dtype in ("f16", "f32"):
        q, k, v, out = make_tensors(1, 1, 1, seq, seq, head_dim, dtype)
        runtime.plan(q, k, v, out, backend=backend, causal=1, window_left=window).run()
        rows = torch.tensor([0, 1, window - 1, window + 1, seq // 2, seq - 2, seq - 1])
        rows = rows.to("cuda")
        keys = torch.arange(seq, device="cuda")[None]
        mask = ((keys <= rows[:, None]) & (keys >= rows[:, None] - window))[None, None]
        exact, _ = evaluate(q[:, rows], k, v, None, Features(), mask=mask)
        plain, _ = evaluate(q[:, rows], k, v, DTYPES[dtype], Features(), mask=mask)
        error = largest_error(out[:, rows], exact)
        bound = 2 * largest_error(plain, exact) + UNIT_ROUNDOFF[dtype] * float(exact.abs().max())
        bound += F32_ROUNDOFF * (math.sqrt(seq) + 8) * float(v.abs().max())
        right = error <= bound and not torch.isnan(out).any()
        verdict = "right" if right else "WRONG"
        print(f"{backend} {dtype} seq {seq}: error {error:.2e} of {bound:.2e}", verdict)
        good &= bool(right)
    return good


def check_capture(runtime, backend):
    """Checks that a captured graph replays with new inputs in the same memory.

    Also checks a problem with more heads than a grid has blocks in its y dimension.
    """
    q, k, v, out = make_tensors(2, 8, 2, 300, 500, 128, "f16")
    plan = runtime.plan(q, k, v, out, backend=backend, causal=1)
    plan.run()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        plan.run()
    good = True
    for _ in range(3):
        for tensor in (q, k, v):
            tensor.normal_()
        out.fill_(math.nan)
        graph.replay()
        good &= is_right("replayed graph", backend, q, k, v, out, Features(causal=True))
    q, k, v, out = make_tensors(66000, 1, 1, 20, 40, 32, "f16")
    runtime.plan(q, k, v, out, backend=backend).run()
    return is_right("66000 heads", backend, q, k, v, out, Features()) and good


def check_one_shot_capture(options, backend, torch_memory):
    """Checks graphs of one-shot calls: replayed with new inputs, after other calls and trims.

    Each graph has two calls, so that they share a plan and its workspace in the stream's order.
    What a graph uses must survive calls of the same problem, trims, and a reload.
    """
    runtime = Runtime(options.library, options.plugins, torch_memory=torch_memory)
    sets = [make_tensors(2, 8, 2, 300, 500, 128, "f16") for _ in range(4)]
    one = make_tensors(1, 8, 2, 1, 4096, 128, "f16")
    graphs = []
    for first, second in (sets[:2], sets[2:]):
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):  # without a call before: this plans while capturing
            runtime.attention(*first, backend=backend, causal=1)
            runtime.attention(*second, backend=backend, causal=1)
        graphs.append((graph, first, second))
    what = "one-shot graph" + (" with torch's memory" if torch_memory else "")
    good = True
    for round_number in range(4):
        streams = [torch.cuda.Stream() for _ in range(3)]
        for stream in streams:  # calls in flight, on streams that are gone afterwards
            with torch.cuda.stream(stream):
                other = make_tensors(2, 8, 2, 300, 500, 128, "f16")
                runtime.attention(*other, backend=backend, causal=1)
                runtime.attention(*one, backend=backend)
        runtime.trim()
        if round_number == 2:
            runtime.reload()
        del streams
        torch.cuda.empty_cache()
        junk = [torch.full((1 << 22,), math.nan, device="cuda") for _ in range(16)]
        for graph, first, second in graphs:
            for tensor in (*first[:3], *second[:3]):
                tensor.normal_()
            first[3].fill_(math.nan)
            second[3].fill_(math.nan)
            graph.replay()
            for q, k, v, out in (first, second):
                good &= is_right(what, backend, q, k, v, out, Features(causal=True))
        good &= is_right(what + ", beside it", backend, *one, Features())
        good &= is_right(what + ", beside it", backend, *other, Features(causal=True))
        del junk
    torch.cuda.synchronize()
    graphs.clear()
    runtime.close()
    return good


def is_right(what, backend, q, k, v, out, features):
    torch.cuda.synchronize()
    exact, _ = evaluate(q, k, v, None, features)
    plain, _ = evaluate(q, k, v, q.dtype, features)
    error = largest_error(out, exact)
    bound = 2 * largest_error(plain, exact) + UNIT_ROUNDOFF["f16"] * float(exact.abs().max())
    good = error <= bound and not torch.isnan(out).any()
    verdict = "right" if good else "WRONG"
    print(f"{backend} {what}: error {error:.2e} of {bound:.2e}", verdict)
    return bool(good)


def elapsed_ms(call, count):
    """Returns the GPU's milliseconds of `count` calls in a row."""
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    for _ in range(count):
        call()
    end.record()
    torch.cuda.synchronize()
    return start.elapsed_time(end)


def median_ms(calls):
    """Returns the median milliseconds of each call. The calls take turns, one sample each."""
    for call in calls:
        for _ in range(3):  # warms up
            call()
    counts = []  # calls in one sample
    for call in calls:
        once = max(1e-3, elapsed_ms(call, 1))
        counts.append(max(1, min(MAX_CALLS, int(SAMPLE_MS / once))))
    samples = [[] for _ in calls]
    for _ in range(ROUNDS):
        for n, call in enumerate(calls):
            samples[n].append(elapsed_ms(call, counts[n]) / counts[n])
    return [statistics.median(times) for times in samples]


def torch_call(backend, q, k, v, mask, causal):
    """Returns a call of one of PyTorch's backends; None if it does not support the problem."""
    q, k, v = (t.transpose(1, 2) for t in (q, k, v))

    def call():
        with sdpa_kernel(getattr(SDPBackend, backend)):
            F.scaled_dot_product_attention(
                q, k, v, attn_mask=mask, is_causal=causal, enable_gqa=q.shape[1] != k.shape[1]
            )

    try:
        call()
        torch.cuda.synchronize()
    except RuntimeError:
        return None
    return call


def print_row(runtime, backends, dtype, shape, causal=False, mask_kind="", torch_backends=()):
    """Prints the speeds of our and PyTorch's backends on one problem, side by side.

    shape: (batch, heads, seq, head_dim). A backend "hip_flash+nomask" runs without the mask.
    """
    batch, heads, seq, head_dim = shape
    q, k, v, out = make_tensors(batch, heads, heads, seq, seq, head_dim, dtype)
    mask = None
    if mask_kind == "bool":
        mask = torch.rand(1, 1, seq, seq, device="cuda") > 0.3
    elif mask_kind == "add":
        mask = torch.randn(1, 1, seq, seq, device="cuda").to(DTYPES[dtype])
    calls = {}
    for backend in backends:
        name, _, option = backend.partition("+")
        without = mask is None or option == "nomask"
        own_mask = None if without else mask.expand(batch, heads, seq, seq)
        try:
            plan = runtime.plan(q, k, v, out, backend=name, mask=own_mask, causal=int(causal))
        except RuntimeError as error:
            print("   ", backend, error)
            continue
        calls[backend] = plan.run
    for backend in torch_backends:
        call = torch_call(backend, q, k, v, mask, causal)
        if call:
            calls[backend] = call
    flop = 4 * batch * heads * seq * seq * head_dim / (2 if causal else 1)
    medians = dict(zip(calls, median_ms(list(calls.values())), strict=True))
    first = next(iter(medians.values()), 1)
    words = f"{dtype:5}{batch:3}{heads:4}{seq:7}{head_dim:5} "
    words += f"{'causal' if causal else '':7}{mask_kind:5}"
    speeds = (f"{n} {flop / ms / 1e9:.0f} ({ms / first:.2f}x)" for n, ms in medians.items())
    print(words, "  ".join(speeds), flush=True)


def print_speeds(runtime, parts):
    """Prints the tables that `parts` names."""
    if "flash" in parts:
        shapes = ((4, 32, 2048, 64), (1, 32, 8192, 64), (4, 16, 2048, 128), (2, 16, 8192, 128))
        theirs = ("FLASH_ATTENTION", "CUDNN_ATTENTION")
        for dtype in ("f16", "bf16"):
            for shape in shapes:
                for causal in (False, True):
                    print_row(runtime, ["hip_flash"], dtype, shape, causal, torch_backends=theirs)
        theirs = ("FLASH_ATTENTION",)
        print_row(runtime, ["hip_flash"], "f16", (4, 8, 2048, 256), torch_backends=theirs)
    if "mask" in parts:
        ours = ["hip_flash", "hip_flash+nomask"]
        theirs = ("EFFICIENT_ATTENTION", "CUDNN_ATTENTION")
        for kind in ("bool", "add"):
            for shape in ((4, 32, 2048, 64), (4, 16, 2048, 128), (1, 16, 8192, 128)):
                print_row(runtime, ours, "bf16", shape, False, kind, theirs)
    if "f32" in parts:
        torch.backends.cuda.matmul.allow_tf32 = False
        theirs = ("EFFICIENT_ATTENTION",)
        for shape in ((4, 32, 2048, 64), (4, 16, 2048, 128), (2, 8, 2048, 256)):
            for causal in (False, True):
                print_row(runtime, ["hip_flash"], "f32", shape, causal, torch_backends=theirs)
    if "unfused" in parts:
        ours = ["hip_flash", "hip_unfused"]
        for seq in (128, 256, 512, 1024, 2048):
            for head_dim in (64, 128):
                shape = (4, 16, seq, head_dim)
                print_row(runtime, ours, "f16", shape, torch_backends=("MATH",))


def main():
    parser = argparse.ArgumentParser(description="Compares the CUDA plugins with PyTorch.")
    parser.add_argument("--library", required=True, help="libattnrt.so")
    parser.add_argument("--plugins", required=True, help="the directory of the plugins")
    parser.add_argument(
        "--what", default="check,long,capture,flash,mask,f32,unfused", help="parts to run"
    )
    options = parser.parse_args()
    parts = options.what.split(",")
    print("seed", torch.seed())
    runtime = Runtime(options.library, options.plugins)
    print(runtime.plugins())
    print(torch.cuda.get_device_name(), "torch", torch.__version__)
    good = True
    if "check" in parts:
        good &= check(runtime, "hip_flash")
        if "unfused" in parts:
            good &= check(runtime, "hip_unfused")
    if "long" in parts:
        good &= check_long(runtime, "hip_flash")
    if "capture" in parts:
        good &= check_capture(runtime, "hip_flash")
        good &= check_capture(runtime, "hip_unfused")
        for backend in ("hip_flash", "hip_unfused"):
            for torch_memory in (False, True):
                good &= check_one_shot_capture(options, backend, torch_memory)
    print("TFLOP/s (time relative to hip_flash)")
    print_speeds(runtime, parts)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
