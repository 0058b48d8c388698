#!/usr/bin/env python3
# tests/bench/beside_torch.py: the CUDA plugins against PyTorch on one GPU: accuracy against float64, then speed, in one run
#
#   python3 tests/bench/beside_torch.py --library build/release/lib/libattnrt.so --plugins build/release/lib/attnrt/plugins
#
# Accuracy: error of the kernel <= 2 x the error of PyTorch's MATH evaluation in the same dtype + a floor, both against float64, on fresh
# random inputs with a poisoned output. Speed: each pair is timed in turn, ratios of medians; TFLOP/s count 4 b h sq skv d (half if
# causal). Nothing is timed that was not found right.
import argparse
import math
import statistics
import sys
import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from attnrt_ctypes import Runtime

DTYPES = {"f16": torch.float16, "bf16": torch.bfloat16, "f32": torch.float32}
UNIT = {"f16": 2.0**-11, "bf16": 2.0**-8, "f32": 2.0**-24}


def tensors(b, hq, hkv, sq, skv, d, dtype, magnitude=1.0):
    make = lambda s, h: (torch.randn(b, s, h, d, device="cuda") * magnitude).to(DTYPES[dtype])
    q, k, v = make(sq, hq), make(skv, hkv), make(skv, hkv)
    return q, k, v, torch.full_like(q, float("nan"))


def evaluate(q, k, v, dtype, mask=None, causal=False, top_left=False, left=-1, right=-1, softcap=0.0, slopes=None, sinks=None,
             scale=None):
    """The definition, in dtype float64, or as a plain evaluation with weights rounded to q's."""
    wide = torch.float64 if dtype is None else torch.float32
    group = q.shape[2] // k.shape[2]
    Q, K, V = (t.to(wide).transpose(1, 2) for t in (q, k.repeat_interleave(group, 2), v.repeat_interleave(group, 2)))
    sq, skv = Q.shape[2], K.shape[2]
    s = Q @ K.transpose(-1, -2) * (scale if scale else 1 / math.sqrt(Q.shape[-1]))
    if softcap:
        s = softcap * torch.tanh(s / softcap)
    if mask is not None and mask.dtype != torch.bool:
        s = s + mask.to(wide)
    diagonal = torch.arange(sq, device="cuda")[:, None] + (0 if top_left else skv - sq)
    j = torch.arange(skv, device="cuda")[None]
    if slopes is not None:
        s = s - slopes.to(wide)[None, :, None, None] * (diagonal - j).abs()
    seen = torch.ones(sq, skv, dtype=torch.bool, device="cuda")
    if causal:
        seen &= j <= diagonal
    if left >= 0:
        seen &= j >= diagonal - left
    if right >= 0:
        seen &= j <= diagonal + right
    if mask is not None and mask.dtype == torch.bool:
        seen = seen & mask
    s = s.masked_fill(~seen, float("-inf"))
    top = s.amax(-1, keepdim=True)
    if sinks is not None:
        top = torch.maximum(top, sinks.to(wide)[None, :, None, None])
    top = top.masked_fill(top == float("-inf"), 0)
    p = torch.exp(s - top)
    total = p.sum(-1, keepdim=True)
    if sinks is not None:
        total = total + torch.exp(sinks.to(wide)[None, :, None, None] - top)
    lse = (top + torch.log(total))[..., 0]
    w = torch.where(total > 0, p / total, torch.zeros_like(p))
    if dtype is not None:
        w = w.to(dtype).to(wide)
    out = (w @ V).transpose(1, 2)
    return (out if dtype is None else out.to(dtype)), lse


def check(runtime, backend):
    cases, bad = 0, 0
    features = [{}, {"causal": True}, {"causal": True, "top_left": True}, {"left": 33}, {"left": 100, "right": 7}, {"causal": True, "left": 70},
                {"softcap": 20.0}, {"slopes": True}, {"sinks": True}, {"mask": "bool"}, {"mask": "add"}, {"mask": "add32"},
                {"mask": "bool", "causal": True}, {"mask": "broadcast"}, {"magnitude": 30.0}, {"scale": -0.3},
                {"mask": "add", "slopes": True, "softcap": 15.0, "sinks": True, "causal": True}]
    shapes = [(2, 4, 4, 256, 256, 64), (1, 6, 2, 129, 257, 128), (1, 2, 1, 63, 191, 72), (1, 2, 2, 1, 1000, 96), (1, 2, 2, 300, 65, 256),
              (2, 3, 1, 127, 640, 40), (1, 1, 1, 1, 1, 32), (1, 2, 2, 513, 511, 160)]
    worst = 0.0
    for dtype in DTYPES:
        for shape in shapes:
            for feature in features:
                b, hq, hkv, sq, skv, d = shape
                f = dict(feature)
                magnitude = f.pop("magnitude", 1.0)
                q, k, v, out = tensors(b, hq, hkv, sq, skv, d, dtype, magnitude)
                lse = torch.full((b, hq, sq), float("nan"), device="cuda")
                kind = f.pop("mask", None)
                mask = None
                if kind in ("bool", "broadcast"):
                    mask = torch.rand(b, 1 if kind == "broadcast" else hq, 1 if kind == "broadcast" else sq, skv, device="cuda") > 0.4
                elif kind:
                    mask = torch.randn(b, hq, sq, skv, device="cuda")
                    mask[torch.rand_like(mask) > 0.7] = float("-inf")
                    mask = mask if kind == "add32" else mask.to(DTYPES[dtype])
                if mask is not None:
                    mask = mask.expand(b, hq, sq, skv)
                slopes = torch.rand(hq, device="cuda") if f.pop("slopes", False) else None
                sinks = torch.randn(hq, device="cuda") * 3 if f.pop("sinks", False) else None
                try:
                    plan = runtime.plan(q, k, v, out, backend=backend, mask=mask, lse=lse, alibi_slopes=slopes, sinks=sinks,
                                        causal=int(f.get("causal", 0)), align=int(f.get("top_left", 0)), window_left=f.get("left", -1),
                                        window_right=f.get("right", -1), softcap=f.get("softcap", 0.0), scale=f.get("scale", 0.0))
                    plan.run()
                    torch.cuda.synchronize()
                except RuntimeError as error:
                    print("FAILED", backend, dtype, shape, feature, error)
                    return False
                exact, exact_lse = evaluate(q, k, v, None, mask=mask, slopes=slopes, sinks=sinks, **f)
                plain, plain_lse = evaluate(q, k, v, DTYPES[dtype], mask=mask, slopes=slopes, sinks=sinks, **f)
                norms = float(q.double().norm(dim=-1).max() * k.double().norm(dim=-1).max()) * abs(f.get("scale", 1 / math.sqrt(d)))
                score_floor = 2.0**-24 * 5 * norms
                floor = UNIT[dtype] * float(exact.abs().max()) + float(v.abs().max()) * (2 * score_floor + 2.0**-24 * (math.sqrt(skv) + 8))
                error = float((out.double() - exact).abs().max())
                bar = 2 * float((plain.double() - exact).abs().max()) + floor
                finite = exact_lse > float("-inf")
                lse_error = float((lse.double() - exact_lse)[finite].abs().max()) if finite.any() else 0.0
                lse_bar = 2 * float((plain_lse.double() - exact_lse)[finite].abs().max()) + score_floor + 2.0**-24 * (math.sqrt(skv) + 8 + norms) if finite.any() else 0
                good = error <= bar and lse_error <= lse_bar and not torch.isnan(out).any() and bool((lse[~finite] == float("-inf")).all())
                cases += 1
                worst = max(worst, error / bar)
                if not good:
                    bad += 1
                    if bad < 12:
                        print(f"WRONG {backend} {dtype} {shape} {feature}: error {error:.2e} of {bar:.2e}, lse {lse_error:.2e} of {lse_bar:.2e}")
    print(f"{backend}: {cases - bad} of {cases} right; worst error / bar {worst:.2f}")
    return bad == 0


def check_long(runtime, backend, seq=(1 << 20) + 3, d=64):
    """More than a million queries and keys, causal, with a window: rows at the start, the middle and the end against float64."""
    good = True
    for dtype in ("f16", "f32"):
        q, k, v, out = tensors(1, 1, 1, seq, seq, d, dtype)
        runtime.plan(q, k, v, out, backend=backend, causal=1, window_left=500_000).run()
        rows = torch.tensor([0, 1, 499_999, 500_001, seq // 2, seq - 2, seq - 1], device="cuda")
        seen = torch.arange(seq, device="cuda")[None] <= rows[:, None]
        seen &= torch.arange(seq, device="cuda")[None] >= rows[:, None] - 500_000
        mask = seen[None, None]
        exact, _ = evaluate(q[:, rows], k, v, None, mask=mask)
        plain, _ = evaluate(q[:, rows], k, v, DTYPES[dtype], mask=mask)
        error, bar = (float((t.double() - exact).abs().max()) for t in (out[:, rows], plain))
        bar = 2 * bar + UNIT[dtype] * float(exact.abs().max()) + 2.0**-24 * (math.sqrt(seq) + 8) * float(v.abs().max())
        right = error <= bar and not torch.isnan(out).any()
        print(f"{backend} {dtype} seq {seq}: error {error:.2e} of {bar:.2e}", "right" if right else "WRONG")
        good &= bool(right)
    return good


def check_capture(runtime, backend):
    """A captured graph replays with new inputs in the same memory; more heads than a grid's y has blocks."""
    q, k, v, out = tensors(2, 8, 2, 300, 500, 128, "f16")
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
        out.fill_(float("nan"))
        graph.replay()
        good &= right("replayed graph", backend, q, k, v, out, causal=True)
    q, k, v, out = tensors(66000, 1, 1, 20, 40, 32, "f16")
    runtime.plan(q, k, v, out, backend=backend).run()
    return good & right("66000 heads", backend, q, k, v, out)


def right(what, backend, q, k, v, out, **features):
    exact, _ = evaluate(q, k, v, None, **features)
    plain, _ = evaluate(q, k, v, q.dtype, **features)
    error, bar = (float((t.double() - exact).abs().max()) for t in (out, plain))
    bar = 2 * bar + UNIT["f16"] * float(exact.abs().max())
    good = error <= bar and not torch.isnan(out).any()
    print(f"{backend} {what}: error {error:.2e} of {bar:.2e}", "right" if good else "WRONG")
    return bool(good)


def median_ms(calls, rounds=15):
    """Medians and quartiles of calls, timed in turn."""
    for call in calls:
        for _ in range(3):
            call()
    times = [[] for _ in calls]
    once = []
    for call in calls:
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record(); call(); end.record(); torch.cuda.synchronize()
        once.append(max(1, min(50, int(4.0 / max(1e-3, start.elapsed_time(end))))))
    for _ in range(rounds):
        for n, call in enumerate(calls):
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            for _ in range(once[n]):
                call()
            end.record()
            torch.cuda.synchronize()
            times[n].append(start.elapsed_time(end) / once[n])
    return [(statistics.median(t), min(t), max(t)) for t in times]


def row(runtime, backends, dtype, b, hq, hkv, s, d, causal, kind=None, torch_backends=("FLASH_ATTENTION",)):
    q, k, v, out = tensors(b, hq, hkv, s, s, d, dtype)
    mask = None
    if kind == "bool":
        mask = (torch.rand(1, 1, s, s, device="cuda") > 0.3)
    elif kind == "add":
        mask = torch.randn(1, 1, s, s, device="cuda").to(DTYPES[dtype])
    names, calls = [], []
    for backend in backends:
        name, _, masked = backend.partition("+")
        m = None if mask is None or masked == "nomask" else mask.expand(b, hq, s, s)
        try:
            plan = runtime.plan(q, k, v, out, backend=name, mask=m, causal=int(causal))
        except RuntimeError as error:
            print("   ", backend, error)
            continue
        names.append(backend), calls.append(plan.run)
    Q, K, V = (t.transpose(1, 2) for t in (q, k, v))
    for backend in torch_backends:
        def call(backend=backend):
            with sdpa_kernel(getattr(SDPBackend, backend)):
                F.scaled_dot_product_attention(Q, K, V, attn_mask=mask, is_causal=causal, enable_gqa=hq != hkv)
        try:
            call(); torch.cuda.synchronize()
        except RuntimeError:
            continue
        names.append(backend), calls.append(call)
    flop = 4 * b * hq * s * s * d / (2 if causal else 1)
    result = median_ms(calls)
    first = result[0][0]
    print(f"{dtype:5}{b:3}{hq:4}{hkv:4}{s:7}{d:5} {'causal' if causal else '':7}{kind or '':5} " + "  ".join(
        f"{n} {flop / m / 1e9:.0f} ({m / first:.2f}x)" for n, (m, lo, hi) in zip(names, result)), flush=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--library", required=True)
    parser.add_argument("--plugins", required=True)
    parser.add_argument("--what", default="check,long,capture,flash,mask,f32,unfused")
    a = parser.parse_args()
    print("seed", torch.seed())
    runtime = Runtime(a.library, a.plugins)
    print(runtime.plugins())
    print(torch.cuda.get_device_name(), "torch", torch.__version__)
    what = a.what.split(",")
    good = True
    if "check" in what:
        good &= check(runtime, "hip_flash")
        if "unfused" in what:
            good &= check(runtime, "hip_unfused")
    if "long" in what:
        good &= check_long(runtime, "hip_flash")
    if "capture" in what:
        good &= check_capture(runtime, "hip_flash")
        good &= check_capture(runtime, "hip_unfused")
    print("TFLOP/s (time of that / time of hip_flash)")
    if "flash" in what:
        for dtype in ("f16", "bf16"):
            for b, h, s, d in ((4, 32, 2048, 64), (1, 32, 8192, 64), (4, 16, 2048, 128), (2, 16, 8192, 128)):
                for causal in (False, True):
                    row(runtime, ["hip_flash"], dtype, b, h, h, s, d, causal, torch_backends=("FLASH_ATTENTION", "CUDNN_ATTENTION"))
        row(runtime, ["hip_flash"], "f16", 4, 8, 8, 2048, 256, False)
    if "mask" in what:
        for kind in ("bool", "add"):
            for b, h, s, d in ((4, 32, 2048, 64), (4, 16, 2048, 128), (1, 16, 8192, 128)):
                row(runtime, ["hip_flash", "hip_flash+nomask"], "bf16", b, h, h, s, d, False, kind, ("EFFICIENT_ATTENTION", "CUDNN_ATTENTION"))
    if "f32" in what:
        torch.backends.cuda.matmul.allow_tf32 = False
        for b, h, s, d in ((4, 32, 2048, 64), (4, 16, 2048, 128), (2, 8, 2048, 256)):
            for causal in (False, True):
                row(runtime, ["hip_flash"], "f32", b, h, h, s, d, causal, torch_backends=("EFFICIENT_ATTENTION",))
    if "unfused" in what:
        for s in (128, 256, 512, 1024, 2048):
            for d in (64, 128):
                row(runtime, ["hip_flash", "hip_unfused"], "f16", 4, 16, 16, s, d, False, torch_backends=("MATH",))
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
