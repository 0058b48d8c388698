#!/usr/bin/env python3
"""tests/bench/beside_torch.py: compares the CUDA plugins with PyTorch and its peers on one GPU.

    python3 tests/bench/beside_torch.py --library build/release/lib/libattnrt.so \\
        --plugins build/release/lib/attnrt/plugins

Accuracy comes first, then speed. Inputs are random and differ each time the script starts. out
holds NaN before a kernel runs. The error of a kernel may be at most

    2 x the error of a plain evaluation by PyTorch in the same dtype + a floor,

both against float64. The floor is the rounding of the largest output, and that of scores and sums
in f32 (check_case). graph_timing.py says how speed is timed, peers.py beside what.
"""

import argparse
import math
import sys

import graph_timing
import serving
import speeds
import torch
from attnrt_ctypes import Runtime
from problems import (
    DTYPES,
    F32_ROUNDOFF,
    FEATURES,
    SHAPES,
    UNIT_ROUNDOFF,
    Features,
    evaluate,
    largest_error,
    make_mask,
    make_tensors,
)

TABLES = speeds.TABLES | serving.TABLES
PARTS = ("check", "grid", "long", "serving", "capture", *TABLES)
GRID_HEAD_DIMS = (32, 64, 96, 128, 160, 192, 224, 256)
GRID_SEQS = (
    (113, 203), (128, 217), (113, 211), (108, 256), (256, 512), (512, 256), (1024, 1024),
    (1023, 1024), (1024, 1023), (2048, 2048),
)  # fmt: skip
MAX_WRONG_SHOWN = 11  # lines about wrong results, of each backend


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
    first = out.clone()
    out.fill_(math.nan)
    plan.run()
    torch.cuda.synchronize()
    same = torch.equal(first, out)  # a race would show as other bits
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
    good = good and same and bool((lse[~finite] == -math.inf).all())
    wrong = "" if same else "not the same bits twice, "
    wrong += f"error {error:.2e} of {bound:.2e}, lse {lse_error:.2e} of {lse_bound:.2e}"
    return error / bound, "" if good else wrong


def check(runtime, backend, dtypes):
    """Checks all shapes with all features. Returns whether all results are right."""
    cases, wrong_cases, worst = 0, 0, 0.0
    for dtype in dtypes:
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


def check_grid(runtime, backend, dtypes):
    """Checks the shapes of FlashAttention's own tests. Returns whether all results are right."""
    cases, worst, good = 0, 0.0, True
    for dtype in dtypes:
        for head_dim in GRID_HEAD_DIMS:
            for seq_q, seq_kv in GRID_SEQS:
                for heads_kv in (6, 2, 1):
                    window = [int(n) for n in torch.randint(0, seq_kv, (2,))]
                    for features in (
                        Features(),
                        Features(causal=True),
                        Features(left=window[0], right=window[1]),
                    ):
                        shape = (1, 6, heads_kv, seq_q, seq_kv, head_dim)
                        part, wrong = check_case(runtime, backend, dtype, shape, features)
                        cases, worst = cases + 1, max(worst, part)
                        if wrong:
                            good = False
                            print(f"WRONG {backend} {dtype} {shape} {features}: {wrong}")
    print(f"{backend}: grid of {cases}, worst error / bound {worst:.2f}")
    return good


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


def write_tables(page):
    """Replaces what stands between the page's two marks."""
    with open(page, encoding="utf-8") as file:
        before, start, rest = file.read().partition("<!-- tables -->\n")
        _, end, after = rest.partition("<!-- end of tables -->\n")
    if not start or not end:
        sys.exit(f"{page}: found no <!-- tables --> and <!-- end of tables -->")
    head = f"{torch.cuda.get_device_name()}, PyTorch {torch.__version__}"
    head += f", cuDNN {torch.backends.cudnn.version()}."
    with open(page, "w", encoding="utf-8") as file:
        file.write("\n".join([before + start + head, *speeds.lines, "", end + after]))


def numbers(text):
    return [int(word) for word in text.split(",")]


def main():
    parser = argparse.ArgumentParser(description="Compares the CUDA plugins with their peers.")
    parser.add_argument("--library", required=True, help="libattnrt.so")
    parser.add_argument("--plugins", required=True, help="the directory of the plugins")
    parser.add_argument(
        "--also", action="append", default=[], metavar="NAME=DIRECTORY",
        help="other builds of hip_flash, timed in the same run",
    )  # fmt: skip
    parser.add_argument("--what", default=",".join(PARTS), help="parts to run: " + ", ".join(PARTS))
    parser.add_argument(
        "--dtypes", type=lambda text: text.split(","), default=list(DTYPES), help="of part check"
    )
    parser.add_argument("--dims", type=numbers, default=list(speeds.DIMS), help="of part flash")
    parser.add_argument("--seqs", type=numbers, default=list(speeds.SEQS), help="of part flash")
    parser.add_argument("--into", help="the page whose tables become those of this run")
    parser.add_argument("--rounds", type=int, default=graph_timing.ROUNDS)
    options = parser.parse_args()
    parts = options.what.split(",")
    for part in parts:
        if part not in PARTS:
            parser.error(f"--what: found {part!r}; expected some of {', '.join(PARTS)}")
    if options.into and set(parts) != set(PARTS):
        parser.error("--into replaces every table; expected no --what beside it")
    print("seed", torch.seed())
    runtime = Runtime(options.library, options.plugins)
    runtimes = {"hip_flash": runtime}
    for also in options.also:
        name, _, directory = also.partition("=")
        runtimes[name] = Runtime(options.library, directory)
    print(runtime.plugins())
    print(torch.cuda.get_device_name(), "torch", torch.__version__)
    good = True
    if "check" in parts:
        for name, each in runtimes.items():
            print(name, end=": ")
            good &= check(each, "hip_flash", options.dtypes)
        if "unfused" in parts:
            good &= check(runtime, "hip_unfused", options.dtypes)
    if "grid" in parts:
        good &= check_grid(runtime, "hip_flash", [d for d in options.dtypes if d != "f32"])
    if "long" in parts:
        good &= check_long(runtime, "hip_flash")
    if "serving" in parts:
        good &= serving.check(runtime)
    if "capture" in parts:
        good &= check_capture(runtime, "hip_flash")
        good &= check_capture(runtime, "hip_unfused")
        for backend in ("hip_flash", "hip_unfused"):
            for torch_memory in (False, True):
                good &= check_one_shot_capture(options, backend, torch_memory)
    print("TFLOP/s; host us: what the host spends in a call of the first")
    for part in parts:
        if part == "flash":
            speeds.print_flash(runtimes, options.rounds, options.dims, options.seqs)
        elif part in TABLES:
            TABLES[part](runtimes, options.rounds)
    if options.into and good:
        write_tables(options.into)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
