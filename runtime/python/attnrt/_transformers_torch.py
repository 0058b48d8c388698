# runtime/python/attnrt/_transformers_torch.py: calls of transformers that attnrt leaves to torch
"""Computes with torch what attnrt does not serve: training, dropout, attention weights, float64.

transformers' function for "sdpa" does so where it can. It knows no softcap, no sinks and no
weights; with these, torch computes the plain formula.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from ._transformers_masks import boolean_mask
from .errors import InvalidArgumentError


@dataclasses.dataclass(slots=True)
class Call:
    """One call of an attention function of transformers."""

    module: Any
    query: Tensor
    key: Tensor
    value: Tensor
    mask: Tensor | None = None
    dropout: float = 0.0
    scaling: float | None = None
    is_causal: bool = True
    sliding_window: int | None = None
    softcap: float | None = None
    sinks: Tensor | None = None
    position_bias: Tensor | None = None
    head_mask: Tensor | None = None
    output_attentions: bool = False
    cu_seq_lens: tuple[Tensor | None, Tensor | None] | None = None


def computed_by_torch(call: Call, why: str) -> tuple[Tensor, Tensor | None]:
    """Returns what the call asks for, with gradients, and weights if it asks for these."""
    if call.cu_seq_lens is not None and call.mask is None:
        raise InvalidArgumentError(
            f"cu_seq_lens_q: attnrt leaves this call to torch ({why}), and "
            "torch has no attention for packed sequences without a mask"
        )
    call = dataclasses.replace(call, mask=boolean_mask(call.mask))
    if not (
        call.softcap or call.sinks is not None or call.head_mask is not None
        or call.output_attentions
    ):  # fmt: skip
        bias = {} if call.position_bias is None else {"position_bias": call.position_bias}
        out: tuple[Tensor, None] = sdpa_attention_forward(
            call.module, call.query, call.key, call.value, call.mask, dropout=call.dropout,
            scaling=call.scaling, is_causal=call.is_causal, **bias,
        )  # fmt: skip
        return out
    return _plain_formula(call)


def _plain_formula(call: Call) -> tuple[Tensor, Tensor]:
    groups = call.query.shape[1] // call.key.shape[1]
    key, value = (each.repeat_interleave(groups, dim=1) for each in (call.key, call.value))
    queries, keys = call.query.shape[2], key.shape[2]
    scale = call.query.shape[3] ** -0.5 if call.scaling is None else call.scaling
    scores = call.query @ key.transpose(2, 3) * scale
    if call.softcap:
        scores = call.softcap * torch.tanh(scores / call.softcap)
    if call.position_bias is not None:
        scores = scores + call.position_bias
    mask = call.mask
    if mask is None and call.is_causal and queries > 1:
        mask = torch.ones((queries, keys), dtype=torch.bool, device=scores.device).tril()
    if mask is not None and mask.dtype == torch.bool:
        scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    elif mask is not None:
        scores = scores + mask
    if call.sinks is not None:
        column = call.sinks.reshape(1, -1, 1, 1).expand(scores.shape[0], -1, queries, 1)
        scores = torch.cat((scores, column.to(scores.dtype)), dim=-1)
    at_least_float32 = torch.promote_types(scores.dtype, torch.float32)
    weights = scores.softmax(-1, dtype=at_least_float32).to(call.query.dtype)[..., :keys]
    weights = torch.nn.functional.dropout(weights, call.dropout, call.module.training)
    if call.head_mask is not None:
        heads = call.head_mask
        weights = weights * (heads if heads.dim() > 1 else heads.reshape(1, -1, 1, 1))
    return (weights @ value).transpose(1, 2).contiguous(), weights
