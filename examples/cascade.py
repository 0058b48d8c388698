#!/usr/bin/env python3
# examples/cascade.py: a prompt that all sequences share, read once for all of them
"""python3 examples/cascade.py

Sequences that begin with the same system prompt have the same keys there. One run over prefix and
suffix reads the prefix once for each sequence. Two runs and a merge read it once for all:

    prefix    the queries of all sequences, as those of one sequence, against the one prefix
    suffixes  each sequence's query against its own keys
    merge     both results become one by their lse

Exit status 0 if that gives what one run gives. It runs on a GPU if torch sees one, else on the cpu.
"""

import sys

import attnrt
import numpy

try:
    import torch
except ImportError:
    torch = None

BATCH, HEADS, KV_HEADS, DIM = 6, 8, 2, 64
PREFIX, SUFFIX = 500, 40  # keys of the prefix, and the most keys of a suffix
ON_GPU = torch is not None and torch.cuda.is_available()


def to_device(array):
    return torch.from_numpy(array).cuda() if ON_GPU else array


def to_host(tensor):
    return tensor.cpu().numpy() if ON_GPU else tensor


def cascade(q, prefix, suffix, lengths):
    """Attention of one query a sequence. prefix and suffix: each a pair of k and v."""
    # [batch, 1, heads, dim] --> [1, batch, heads, dim]: one sequence with a query of each. The
    # prefix is before all of them, so nothing is causal.
    as_one = q.reshape(1, BATCH, HEADS, DIM)
    shared, shared_lse = attnrt.attention(as_one, *prefix, return_lse=True)
    own, own_lse = attnrt.attention(q, *suffix, kv_lengths=lengths, return_lse=True)
    # Back to the shape of the suffixes' results: [batch, 1, heads, dim], and lse [batch, heads, 1].
    shared, shared_lse = shared.reshape(BATCH, 1, HEADS, DIM), shared_lse[0].T[:, :, None]
    return attnrt.merge([shared, own], [shared_lse, own_lse])


def main():
    random = numpy.random.default_rng(0)

    def normal(*shape):
        return random.standard_normal(shape).astype("float32")

    q = normal(BATCH, 1, HEADS, DIM)
    prefix = [normal(1, PREFIX, KV_HEADS, DIM) for _ in "kv"]
    suffix = [normal(BATCH, SUFFIX, KV_HEADS, DIM) for _ in "kv"]
    lengths = random.integers(1, SUFFIX, BATCH, "int32", endpoint=True)
    whole = [
        numpy.concatenate([numpy.repeat(shared, BATCH, axis=0), own], axis=1)
        for shared, own in zip(prefix, suffix, strict=True)
    ]

    q, lengths = to_device(q), to_device(lengths)
    prefix, suffix, whole = ([to_device(each) for each in pair] for pair in (prefix, suffix, whole))
    expected = to_host(attnrt.attention(q, *whole, kv_lengths=lengths + PREFIX))
    found = to_host(cascade(q, prefix, suffix, lengths))

    error = abs(found - expected).max()
    print(f"{BATCH} sequences of {PREFIX} shared keys and up to {SUFFIX} of their own:")
    own = int(lengths.sum())
    print(f"keys read: {PREFIX + own} instead of {BATCH * PREFIX + own}")
    print(f"largest difference from one run: {error:.1e}")
    right = bool(error <= 1e-5)
    print("right" if right else "wrong")
    return 0 if right else 1


if __name__ == "__main__":
    sys.exit(main())
