# runtime/python/attnrt/__init__.py: the package's public names, and the function attention
"""Scaled dot-product attention by plugins.

    out = attnrt.attention(q, k, v, causal=True)

Tensors are [batch, seq, heads, head_dim], from numpy, torch or any other library with DLPack; with
layout="bhsd" they are [batch, heads, seq, head_dim], as torch has them. They are read in place,
without copies. The stride of head_dim is 1; all other strides are free. Inference only: no
gradients, no dropout. attnrt.torch has what is for torch alone.

Every failure is an attnrt.Error with one line of text. A Runtime may be used from any threads at
once, and the GIL is released while it works; a Plan runs once at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ._arguments import Align, Layout
from ._load import _attnrt
from ._quantize import quantize
from ._tensors import Tensor, is_traced, leave_graph
from .errors import (
    Error,
    InvalidArgumentError,
    NotFoundError,
    OutOfMemoryError,
    UnsupportedError,
)
from .runtime import Plan, Runtime, Schedule, default_runtime

__all__ = [
    "Align",
    "Error",
    "InvalidArgumentError",
    "Layout",
    "NotFoundError",
    "OutOfMemoryError",
    "Plan",
    "Runtime",
    "Schedule",
    "Tensor",
    "UnsupportedError",
    "attention",
    "default_runtime",
    "merge",
    "quantize",
]
__version__: str = _attnrt.version()
"""The version of the C library that is loaded."""


def __dir__() -> list[str]:
    return [*__all__, "__doc__", "__file__", "__name__", "__path__", "__version__"]


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor | None,
    *,
    mask: Tensor | None = None,
    causal: bool = False,
    align: Align = "bottom_right",
    window_left: int | None = None,
    window_right: int | None = None,
    scale: float | None = None,
    softcap: float | None = None,
    alibi_slopes: Tensor | None = None,
    sinks: Tensor | None = None,
    kv_lengths: Tensor | None = None,
    offsets_q: Tensor | None = None,
    offsets_kv: Tensor | None = None,
    page_table: Tensor | None = None,
    k_scale: Tensor | None = None,
    v_scale: Tensor | None = None,
    diagonal_offset: Tensor | None = None,
    out: Tensor | None = None,
    return_lse: bool = False,
    backend: str | None = None,
    deterministic: bool = False,
    batch_invariant: bool = False,
    v_in_k: bool = False,
    layout: Layout = "bshd",
    stream: Any = None,
    runtime: Runtime | None = None,
) -> Any:
    """out = softmax(scale * q k^T + ...) v, on the backend that the policy chooses.

    q [batch, seq_q, heads_q, head_dim]; k [batch, seq_kv, heads_kv, head_dim];
    v [batch, seq_kv, heads_kv, head_dim_v]; all of one dtype: float32, float16 or bfloat16 (for
    numpy, ml_dtypes has a bfloat16). k and v may also be int8, float8_e4m3fn or float8_e4m3fnuz.
    heads_q is a multiple of heads_kv.

    mask           up to [batch, heads_q, seq_q, seq_kv], broadcast; bool (True: visible), or
                   additive in q's dtype or float32
    causal         key j is visible to query i if j <= diagonal(i)
    align          diagonal(i) is i + seq_kv - seq_q ("bottom_right") or i ("top_left", which
                   torch's is_causal means). With kv_lengths, seq_kv here is the sequence's length
    window_left    j >= diagonal(i) - window_left; None: unbounded
    window_right   j <= diagonal(i) + window_right; None: unbounded
    scale          None or 0: 1 / sqrt(head_dim)
    softcap        s = softcap * tanh(s / softcap); None or 0: none
    alibi_slopes   float32 [heads_q] or [batch, heads_q]: s -= slope * |diagonal(i) - j|
    sinks          float32 [heads_q]: exp(sink) joins the denominator
    kv_lengths     int32 [batch]: keys at or past a sequence's length do not exist. They move the
                   diagonal of "bottom_right": the last query is the last key's. For sequences
                   padded on the right whose q is padded, too, say align="top_left"
    offsets_q, offsets_kv
                   int32 [batch + 1]: q, out [total_q, heads_q, .] and k, v [total_kv, heads_kv, .]
                   are packed
    page_table     int32 [batch, max_pages]: k and v are [pages, page_size, heads_kv, .]; needs
                   kv_lengths
    k_scale, v_scale
                   float32, for k and v of 8 bits: the keys are k_scale * k, the values v_scale * v.
                   [1], [heads_kv], or k's shape without head_dim. attnrt.quantize makes both
    diagonal_offset
                   int32 [batch]: added to diagonal(i) of that sequence; may be negative
    out            [batch, seq_q, heads_q, head_dim_v] in q's dtype or float32; it is written to and
                   shares no memory with an input. None: allocated with q's library (numpy or torch)
    return_lse     also return the log of each softmax denominator, float32
                   [batch, heads_q, seq_q] (packed: [heads_q, total_q])
    backend        this backend or an error; None: the policy decides
    deterministic  the same inputs give the same bits
    batch_invariant
                   a sequence's bits do not depend on the other sequences of the batch
    v_in_k         v is the first columns of k, as many as out has (without out: all); give v=None
    layout         "bhsd": q, k, v and out are [batch, heads, seq, .], and k_scale and v_scale
                   [batch, heads, seq], where they have so many dimensions. Not for packed sequences
    stream         of device tensors: a torch stream, or a pointer as an int. None: torch's current
                   stream for torch tensors, else the default one. The work is enqueued there and
                   not waited for. If the stream is not torch's current one, tell torch's allocator
                   (record_stream), as for any other work there
    runtime        None: default_runtime()

    A row that sees nothing gives zeros. v must be finite also where a mask or causal hides its
    key (0 times NaN is NaN); past kv_lengths it may be anything. k and v of batch 1 serve all
    sequences of q. All tensors live on q's device. Returns out, or (out, lse).

    Raises InvalidArgumentError (tensors or values that do not fit), UnsupportedError (no backend
    supports the problem), NotFoundError (no plugin is named backend), OutOfMemoryError, Error (a
    backend failed, and so did those that were tried after it).
    """
    if is_traced(q):
        from . import _torch_operator

        words = dict(
            mask=mask, causal=causal, align=align, window_left=window_left,
            window_right=window_right, scale=scale, softcap=softcap, alibi_slopes=alibi_slopes,
            sinks=sinks, kv_lengths=kv_lengths, offsets_q=offsets_q, offsets_kv=offsets_kv,
            page_table=page_table, k_scale=k_scale, v_scale=v_scale,
            diagonal_offset=diagonal_offset, out=out, return_lse=return_lse, backend=backend,
            deterministic=deterministic, batch_invariant=batch_invariant, v_in_k=v_in_k,
            layout=layout, stream=stream, runtime=runtime,
        )  # fmt: skip
        why = _torch_operator.why_untraceable(q, k, v, words)
        if why is None:
            return _torch_operator.traced_attention(q, k, v, words)
        leave_graph(f"attnrt.attention: {why}")
    # As in Runtime.attention, which is not called: to pass so many keywords on takes a microsecond.
    return (default_runtime() if runtime is None else runtime)._runtime.attention(
        (
            q, k, v, out, mask, None, alibi_slopes, sinks, kv_lengths, offsets_q, offsets_kv,
            page_table, k_scale, v_scale, diagonal_offset,
        ),
        (
            causal, align, window_left, window_right, scale, softcap, deterministic,
            batch_invariant, v_in_k,
        ),
        backend,
        stream,
        layout,
        bool(return_lse),
    )  # fmt: skip


def merge(
    outs: Sequence[Tensor],
    lses: Sequence[Tensor],
    *,
    out: Tensor | None = None,
    return_lse: bool = False,
    stream: Any = None,
    runtime: Runtime | None = None,
) -> Any:
    """The result over all keys, from results over parts of them.

        lse = log(sum of exp(lses[i]))    out = sum of exp(lses[i] - lse) * outs[i]

    outs        float32 [batch, seq_q, heads_q, head_dim_v], or packed
                [total_q, heads_q, head_dim_v]
    lses        float32 [batch, heads_q, seq_q], or [heads_q, total_q]: what return_lse gave
    out         of the same shape, in float32, float16 or bfloat16; it may be one of outs. None:
                allocated with the library of outs[0], in float32
    return_lse  also return the lse of the whole
    stream      of device tensors, as in attention
    runtime     None: default_runtime()

    A partial whose lse is -inf saw nothing and does not count. Returns out, or (out, lse).

    Raises InvalidArgumentError (tensors that do not fit together), UnsupportedError (no backend of
    the tensors' device merges), Error (the backend failed).
    """
    return (default_runtime() if runtime is None else runtime).merge(
        outs, lses, out=out, return_lse=return_lse, stream=stream
    )
