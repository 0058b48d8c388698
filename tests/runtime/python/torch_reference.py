# tests/runtime/python/torch_reference.py: calls of torch, and their results in float64
import itertools
import math
from collections.abc import Iterator
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel


def expected(q: Any, k: Any, v: Any, attn_mask: Any = None, **words: Any) -> Any:
    """Computes in float64 what torch's function returns, by its plain formula."""
    if attn_mask is not None and attn_mask.dtype != torch.bool:
        attn_mask = attn_mask.double()
    with sdpa_kernel(SDPBackend.MATH):
        return torch.nn.functional.scaled_dot_product_attention(
            q.double(), k.double(), v.double(), attn_mask, **words
        )


def limit(q: Any, k: Any, v: Any, scale: float | None = None, **_: Any) -> float:
    """Bounds the error of a result that was computed in float32 and rounded to q's dtype.

    A score is a sum of head_dim products, rounded that often, and some roundings more for scale,
    mask and exponent. An error e of the scores changes each weight by a factor of at most exp(2 e).
    """
    head_dim = q.shape[-1]
    if not (q.numel() and k.numel() and v.numel()):
        return 0.0
    longest = [float(tensor.double().norm(dim=-1).max()) for tensor in (q, k)]
    largest_score = abs(head_dim**-0.5 if scale is None else scale) * longest[0] * longest[1]
    of_scores = (head_dim + 8) * 2.0**-24 * max(largest_score, 1.0)
    return float(v.double().abs().max()) * (
        torch.finfo(q.dtype).eps + 64 * 2.0**-23 + 2 * of_scores
    )


CALL = dict[str, Any]


def grid(device: str) -> Iterator[tuple[list[Any], CALL]]:
    """Calls of torch's function, as models make them."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Any:
        return torch.randn(shape, generator=generator)

    shapes = (
        # q, k, v
        ((2, 4, 9, 32), (2, 4, 13, 32), (2, 4, 13, 32)),
        ((1, 8, 1, 64), (1, 8, 70, 64), (1, 8, 70, 64)),
        ((2, 6, 33, 40), (2, 2, 33, 40), (2, 2, 33, 40)),  # grouped heads
        ((1, 4, 16, 24), (1, 4, 8, 24), (1, 4, 8, 56)),
        ((3, 17, 20), (3, 17, 20), (3, 17, 20)),
        ((5, 16), (7, 16), (7, 16)),
        ((4, 3, 8), (2, 4, 6, 8), (2, 4, 6, 8)),  # broadcast
        ((2, 4, 5, 16), (2, 1, 5, 16), (2, 1, 5, 16)),
        ((2, 4, 5, 16), (1, 4, 5, 16), (1, 4, 5, 16)),
        ((2, 4, 3, 16), (2, 4, 0, 16), (2, 4, 0, 16)),
    )
    for dtype, (shape_q, shape_k, shape_v) in itertools.product(
        (torch.float32, torch.float16, torch.bfloat16), shapes
    ):
        q, k, v = (normal(*shape).to(device, dtype) for shape in (shape_q, shape_k, shape_v))
        words: CALL = {"enable_gqa": True} if shape_k[-3:-2] == (2,) else {}
        rows, keys = shape_q[-2], shape_k[-2]
        visible = torch.rand((rows, keys), generator=generator) < 0.7
        hidden_row = visible.clone()
        hidden_row[rows // 2] = False
        bias = normal(rows, keys).to(device, dtype)
        masks: list[CALL] = [
            {},
            {"is_causal": True},
            {"scale": 0.3},
            {"attn_mask": visible.to(device)},
            {"attn_mask": hidden_row.to(device)},
            {"attn_mask": bias},
            {"attn_mask": bias.masked_fill(~hidden_row.to(device), -math.inf)},
            {"attn_mask": visible[:1].to(device)},
            {"attn_mask": visible.to(device).t().contiguous().t()},
        ]
        if len(shape_q) == 4 and len(shape_k) == 4:
            padding = torch.rand((shape_q[0], 1, 1, keys), generator=generator) < 0.8
            masks.append({"attn_mask": padding.to(device)})
            masks.append({"attn_mask": padding.to(device).expand(-1, shape_q[1], rows, -1)})
            masks.append({"attn_mask": normal(1, shape_q[1], rows, 1).to(device, dtype)})
        for mask in masks:
            yield [q, k, v], {**words, **mask}
        if q.dim() == 4:
            # [batch, seq, heads, head_dim] in memory, as a projection gives them
            turned = [each.transpose(1, 2).contiguous().transpose(1, 2) for each in (q, k, v)]
            yield turned, words
            yield [each.mT.contiguous().mT for each in (q, k, v)], words
