"""tests/bench/problems.py: random problems on a GPU, and attention by its definition."""

import dataclasses
import math

import torch

DTYPES = {"f16": torch.float16, "bf16": torch.bfloat16, "f32": torch.float32}
UNIT_ROUNDOFF = {"f16": 2.0**-11, "bf16": 2.0**-8, "f32": 2.0**-24}
F32_ROUNDOFF = UNIT_ROUNDOFF["f32"]  # scores and sums are kept in f32

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
    (3, 44, 11, 700, 900, 128),
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


def make_tensors(
    batch, heads_q, heads_kv, seq_q, seq_kv, head_dim, dtype, magnitude=1.0, head_dim_v=None
):
    """Returns random q, k and v, and an output that holds NaN."""
    head_dim_v = head_dim_v or head_dim

    def make(seq, heads, columns):
        numbers = torch.randn(batch, seq, heads, columns, device="cuda") * magnitude
        return numbers.to(DTYPES[dtype])

    q, k = make(seq_q, heads_q, head_dim), make(seq_kv, heads_kv, head_dim)
    v = make(seq_kv, heads_kv, head_dim_v)
    out = torch.full((batch, seq_q, heads_q, head_dim_v), math.nan, device="cuda")
    return q, k, v, out.to(DTYPES[dtype])


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
    """Returns which keys each query sees, and how far each key is before the query's diagonal."""
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
