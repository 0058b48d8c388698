# tests/runtime/python/reference.py: attention in float64 numpy, straight from its definition
from typing import Any

import numpy

Array = Any  # a numpy array, of any dtype that converts to float64


def attention(
    q: Array,
    k: Array,
    v: Array,
    *,
    mask: Array = None,
    causal: bool = False,
    align: str = "bottom_right",
    window_left: int | None = None,
    window_right: int | None = None,
    scale: float | None = None,
    softcap: float | None = None,
    alibi_slopes: Array = None,
    sinks: Array = None,
    kv_lengths: Array = None,
    diagonal_offset: Array = None,
) -> tuple[Array, Array]:
    """Returns (out, lse) of [batch, seq, heads, head_dim] tensors, row by row."""
    q, k, v = (numpy.asarray(tensor, numpy.float64) for tensor in (q, k, v))
    batch, seq_q, heads_q, head_dim = q.shape
    heads_of_one = heads_q // k.shape[2]
    out = numpy.zeros((batch, seq_q, heads_q, v.shape[3]))
    lse = numpy.full((batch, heads_q, seq_q), -numpy.inf)
    if mask is not None:
        mask = numpy.broadcast_to(mask, (batch, heads_q, seq_q, k.shape[1]))
    for b in range(batch):
        seq_kv = k.shape[1] if kv_lengths is None else int(kv_lengths[b])
        diagonal = numpy.arange(seq_q)[:, None] + (seq_kv - seq_q if align == "bottom_right" else 0)
        diagonal = diagonal + (0 if diagonal_offset is None else int(diagonal_offset[b]))
        j = numpy.arange(seq_kv)[None, :]
        for h in range(heads_q):
            keys, values = k[b, :seq_kv, h // heads_of_one], v[b, :seq_kv, h // heads_of_one]
            s = q[b, :, h] @ keys.T * (scale or head_dim**-0.5)
            if softcap:
                s = softcap * numpy.tanh(s / softcap)
            visible = numpy.ones((seq_q, seq_kv), bool)
            if mask is not None and mask.dtype == bool:
                visible &= mask[b, h, :, :seq_kv]
            elif mask is not None:
                s = s + mask[b, h, :, :seq_kv].astype(numpy.float64)
            if alibi_slopes is not None:
                s = s - float(alibi_slopes[h]) * numpy.abs(diagonal - j)
            if causal:
                visible &= j <= diagonal
            if window_left is not None:
                visible &= j >= diagonal - window_left
            if window_right is not None:
                visible &= j <= diagonal + window_right
            s = numpy.where(visible, s, -numpy.inf)
            for i in range(seq_q):
                terms = s[i] if sinks is None else numpy.append(s[i], float(sinks[h]))
                highest = terms.max(initial=-numpy.inf)
                if highest == -numpy.inf:
                    continue
                lse[b, h, i] = highest + numpy.log(numpy.exp(terms - highest).sum())
                out[b, i, h] = numpy.exp(s[i] - lse[b, h, i]) @ values
    return out, lse


def tolerance(dtype_epsilon: float, v: Array) -> float:
    """Allows for one rounding of the result, and for sums kept in float32."""
    return (dtype_epsilon + 64 * 2.0**-23) * float(numpy.abs(numpy.asarray(v, numpy.float64)).max())
