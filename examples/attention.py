#!/usr/bin/env python3
# examples/attention.py: attention in Python: one call, its decision, and a decode loop on one plan
"""python3 examples/attention.py [BACKEND]

Exit status 0 if the results are right, and BACKEND was chosen.
"""

import sys

import attnrt
import numpy


def plain_attention(q, k, v):
    """Computes causal attention from its definition, in float64.

    Each key head serves a group of query heads.
    """
    group = q.shape[2] // k.shape[2]
    k, v = k.repeat(group, axis=2), v.repeat(group, axis=2)
    scores = numpy.einsum("bihd,bjhd->bhij", q, k, dtype=numpy.float64) / q.shape[3] ** 0.5
    seq_q, seq_kv = scores.shape[2:]
    visible = numpy.arange(seq_kv) <= numpy.arange(seq_q)[:, None] + seq_kv - seq_q
    scores = numpy.where(visible, scores, -numpy.inf)
    weights = numpy.exp(scores - scores.max(-1, keepdims=True))
    return numpy.einsum("bhij,bjhd->bihd", weights / weights.sum(-1, keepdims=True), v)


def main():
    random = numpy.random.default_rng(0)
    q = random.standard_normal((1, 64, 8, 32)).astype("float32")  # [batch, seq, heads, head_dim]
    k = random.standard_normal((1, 64, 2, 32)).astype("float32")  # two heads for eight of q
    v = random.standard_normal((1, 64, 2, 32)).astype("float32")

    out = attnrt.attention(q, k, v, causal=True)
    expected = plain_attention(q, k, v)
    numpy.testing.assert_allclose(out, expected, rtol=0, atol=1e-5)

    runtime = attnrt.default_runtime()
    words = {"dtype": "f32", "heads_q": 8, "heads_kv": 2, "head_dim": 32, "causal": True}
    print(runtime.explain(words, seq_q=64, seq_kv=64))

    # A decode loop on one plan: one query a step. kv_lengths says how much of the cache is filled.
    plan = runtime.plan(words, seq_q=1, seq_kv=64, kv_lengths=True)
    print(f"{plan.backend} {plan.version} runs {plan.kernel}")
    for step in range(64):
        length = numpy.array([step + 1], "int32")
        row = plan.run(q[:, step : step + 1], k, v, kv_lengths=length)
        numpy.testing.assert_allclose(row, expected[:, step : step + 1], rtol=0, atol=1e-5)

    if len(sys.argv) > 1 and plan.backend != sys.argv[1]:
        sys.exit(f"expected the backend {sys.argv[1]}, found {plan.backend}")
    print("right")


if __name__ == "__main__":
    main()
