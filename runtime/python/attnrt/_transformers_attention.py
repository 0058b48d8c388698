# runtime/python/attnrt/_transformers_attention.py: attention functions as transformers calls them
"""What models call with attn_implementation="attnrt", and continuous batching as "paged|attnrt".

A call that attnrt does not serve is torch's: see _transformers_torch.py.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import torch
from torch import Tensor
from transformers.utils import logging

from . import attention as attnrt_attention
from ._counts import Counts, NotServed, Traced
from ._torch_kernels import DTYPES, expect_plain, rows_in_order
from ._transformers_masks import Words, boolean_mask, words_of
from ._transformers_torch import Call, computed_by_torch
from .errors import InvalidArgumentError, UnsupportedError
from .runtime import Runtime

counts = Counts("masks")
_CAUSAL, _ALL = Words(causal=True), Words()
_logger: Any = logging.get_logger(__name__)
_runtime: Runtime | None = None


def use(runtime: Runtime | None) -> None:
    """Sets the runtime that computes; None: the default one."""
    global _runtime
    _runtime = runtime


# ---- What attnrt can serve ----


def _expect_supported(call: Call) -> None:
    for name in ("dropout", "output_attentions"):
        if getattr(call, name):
            raise NotServed(name)
    if call.head_mask is not None:
        raise NotServed("head_mask")
    query, key, value = call.query, call.key, call.value
    tensors = (query, key, value, call.sinks, call.position_bias)
    if torch.compiler.is_compiling():
        for tensor in tensors:
            if tensor is not None and tensor.requires_grad and torch.is_grad_enabled():
                raise NotServed("gradient")
    else:
        expect_plain(tensors)
        if torch.jit.is_tracing():  # which would keep the result as a constant
            raise Traced("torch.jit.trace")
    if query.dtype not in DTYPES:
        raise NotServed(f"dtype {str(query.dtype).removeprefix('torch.')}")
    if key.dtype != query.dtype or value.dtype != query.dtype:
        raise NotServed("dtypes that differ")
    if call.scaling == 0:  # to attnrt, 0 is the default scale
        raise NotServed("scale 0")


def _cast_by_autocast(call: Call) -> Call:
    """Casts as autocast casts the arguments of torch's own attention."""
    device = call.query.device.type
    if not torch.amp.is_autocast_available(device) or not torch.is_autocast_enabled(device):
        return call
    if call.query.dtype == torch.float64:
        return call
    dtype = torch.get_autocast_dtype(device)
    return dataclasses.replace(
        call, query=call.query.to(dtype), key=call.key.to(dtype), value=call.value.to(dtype)
    )


# ---- Masks ----


def _words(call: Call) -> tuple[str, Words]:
    """Returns under which name the call is counted, and what its mask says."""
    mask, queries = call.mask, call.query.shape[2]
    if mask is None:
        # As for "sdpa": a single query sees all keys; the first of more queries is at key 0.
        return "none", _CAUSAL if call.is_causal and queries > 1 else _ALL
    compiling = torch.compiler.is_compiling()
    if not compiling:
        words = words_of(mask)
        if words is not None:
            return "words", words
        mask = boolean_mask(mask)
        expect_plain((mask,))
    if mask.is_floating_point():
        if mask.dtype not in (torch.float32, call.query.dtype):
            mask = mask.to(torch.float32)
    elif mask.dtype != torch.bool:
        raise NotServed("dtype of attention_mask")
    ends = _last_visible(mask, call) if compiling and queries == 1 else None
    return "tensor", Words(mask=mask, kv_lengths=ends)


def _last_visible(mask: Tensor, call: Call) -> Tensor | None:
    """Returns up to which key a decode step's mask lets each sequence see, if it is one mask.

    A graph of torch.compile computes it once for all layers. Backends then do not read the unused
    end of a static cache.
    """
    batch, keys = call.query.shape[0], call.key.shape[2]
    if mask.dtype != torch.bool or mask.dim() != 4 or mask.shape[1:] != (1, 1, keys):
        return None
    ends = torch.arange(1, keys + 1, dtype=torch.int32, device=mask.device)
    return (mask[:, 0, 0] * ends).amax(-1).to(torch.int32).expand(batch).contiguous()


def _with_bias(mask: Tensor | None, bias: Tensor) -> Tensor:
    """Returns an additive mask that is both."""
    if mask is None:
        return bias
    if mask.dtype == torch.bool:
        return torch.where(mask, bias, -math.inf)
    return mask + bias


def _packed(call: Call, words: Words) -> Words | None:
    """Returns the words of a batch whose one row is many sequences; None: it is no such batch."""
    if words.offsets is not None:
        return words
    if call.cu_seq_lens is None or call.query.shape[0] != 1:
        return None
    if words.mask is not None or words.kv_lengths is not None:
        return None
    left = words.window_left
    if call.mask is None and call.sliding_window is not None:
        left = call.sliding_window - 1
    return dataclasses.replace(words, align="bottom_right", window_left=left)


# ---- With attnrt ----


def _served(call: Call) -> tuple[str, Tensor]:
    """Returns how to count the call, and its result [batch, seq, heads, head_dim_v]."""
    call = _cast_by_autocast(call)
    _expect_supported(call)
    kind, words = _words(call)
    query = call.query
    if query.shape[0] == 1 and call.key.shape[0] > 1:  # learned queries
        query = query.expand(call.key.shape[0], -1, -1, -1)
    q, k, v = rows_in_order(query), rows_in_order(call.key), rows_in_order(call.value)
    packed = _packed(call, words)
    if packed is not None:
        if call.position_bias is not None:
            raise NotServed("position_bias of packed sequences")
        offsets = call.cu_seq_lens if packed.offsets is None else (packed.offsets, packed.offsets)
        q, k, v = (each[0].transpose(0, 1) for each in (q, k, v))
        return "packed", _run_packed(call, q, k, v, packed, offsets).unsqueeze(0)
    try:
        return kind, _run_padded(call, q, k, v, words)
    except NotServed:
        if kind != "words":
            raise
    # No backend takes these words. One may take the tensor that says the same.
    words = Words(mask=boolean_mask(call.mask))
    return "tensor", _run_padded(call, q, k, v, words)


def _run_padded(call: Call, q: Tensor, k: Tensor, v: Tensor, words: Words) -> Any:
    """Computes sequences of one length: [batch, heads, seq, head_dim]."""
    if call.position_bias is not None:
        words = dataclasses.replace(words, mask=_with_bias(words.mask, call.position_bias))
    if q.shape[2] == 1:  # then the result's two orders are the same in memory
        return _run(call, q, k, v, words, layout="bhsd").transpose(1, 2)
    return _run(call, q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), words)


def _run_packed(call: Call, q: Tensor, k: Tensor, v: Tensor, words: Words, offsets: Any) -> Tensor:
    """Computes sequences that lie one after another: [tokens, heads, head_dim]."""
    offsets_q, offsets_kv = (each.to(torch.int32) for each in offsets)
    # Rows past the last sequence are padding, which no backend writes.
    out = q.new_zeros((*q.shape[:-1], v.shape[-1]))
    _run(call, q, k, v, words, offsets_q=offsets_q, offsets_kv=offsets_kv, out=out)
    return out


def _run(call: Call, q: Tensor, k: Tensor, v: Tensor, words: Words, **more: Any) -> Any:
    sinks = call.sinks
    try:
        return attnrt_attention(
            q,
            k,
            v,
            mask=words.mask,
            causal=words.causal,
            align=words.align,
            window_left=words.window_left,
            window_right=words.window_right,
            scale=call.scaling,
            softcap=call.softcap,
            kv_lengths=words.kv_lengths,
            sinks=None if sinks is None else sinks.reshape(-1).to(torch.float32),
            deterministic=torch.are_deterministic_algorithms_enabled(),
            runtime=_runtime,
            **more,
        )
    except UnsupportedError as error:
        raise NotServed(f"unsupported: {error}") from None


# ---- As transformers calls them ----


def attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Any,
    dropout: float = 0.0,
    scaling: float | None = None,
    is_causal: bool | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    position_bias: Tensor | None = None,
    head_mask: Tensor | None = None,
    output_attentions: bool = False,
    cu_seq_lens_q: Tensor | None = None,
    cu_seq_lens_k: Tensor | None = None,
    **others: Any,
) -> tuple[Tensor, Tensor | None]:
    """Is transformers' attention function "attnrt".

    query, key and value are [batch, heads, seq, head_dim]; the result is [batch, seq, heads,
    head_dim_v], and the attention weights where torch computed them. Of sliding_window, the mask
    says it already.
    """
    if attention_mask is not None and not isinstance(attention_mask, Tensor):
        raise InvalidArgumentError(
            f"attention_mask is a {type(attention_mask).__name__}; expected a tensor or None"
        )
    packed = cu_seq_lens_q is not None and cu_seq_lens_k is not None
    call = Call(
        module=module,
        query=query,
        key=key,
        value=value,
        mask=attention_mask,
        dropout=dropout,
        scaling=scaling,
        is_causal=getattr(module, "is_causal", True) if is_causal is None else is_causal,
        sliding_window=sliding_window,
        softcap=softcap,
        sinks=s_aux,
        position_bias=position_bias,
        head_mask=head_mask,
        output_attentions=bool(output_attentions),
        cu_seq_lens=(cu_seq_lens_q, cu_seq_lens_k) if packed else None,
    )
    try:
        kind, out = _served(call)
    except NotServed as why:
        if not torch.compiler.is_compiling() and counts.left(why):
            _logger.warning_once(f"attnrt.transformers leaves calls to torch: {why}")
        return computed_by_torch(call, str(why))
    if not torch.compiler.is_compiling():
        counts.served(kind)
    return out, None


def paged_attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Any,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    cache: Any = None,
    cu_seq_lens_q: Any = None,
    cu_seq_lens_k: Any = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """Is transformers' attention function "paged|attnrt": that of continuous batching.

    The sequences of a step lie one after another: query is [1, heads, tokens, head_dim].
    """
    if cache is None or others.get("block_table") is not None:
        raise InvalidArgumentError(
            "paged|attnrt needs the cache of continuous batching, and no block_table; for other "
            'calls of a model say attn_implementation="attnrt"'
        )
    k, v = cache.update(
        key_states=key,
        value_states=value,
        layer_idx=module.layer_idx,
        read_index=others["read_index"],
        write_index=others["write_index"],
    )
    window = sliding_window or getattr(module, "sliding_window", None)
    if isinstance(cu_seq_lens_k, dict):
        cu_seq_lens_k = cu_seq_lens_k["sliding_attention" if window else "full_attention"]
    sinks = getattr(module, "sinks", None) if s_aux is None else s_aux
    call = Call(
        module=module, query=query, key=key, value=value, scaling=scaling, softcap=softcap,
        sinks=sinks,
    )  # fmt: skip
    words = Words(True, "bottom_right", window - 1 if window else None)
    try:
        _expect_supported(call)
        q = rows_in_order(query)[0].transpose(0, 1)
        out = _run_packed(call, q, k, v, words, (cu_seq_lens_q, cu_seq_lens_k))
    except NotServed as why:
        raise UnsupportedError(f"paged|attnrt: {why}; torch's is paged|sdpa") from None
    if not torch.compiler.is_compiling():
        counts.served("paged")
    return out.unsqueeze(0), None
