# runtime/python/attnrt/_torch_operator.py: operators of torch, for graphs that it traces
"""torch.ops.attnrt.attention and attention_out, which torch.compile and torch.export can trace.

attnrt.attention calls these where torch traces it. They use the default runtime. A graph that was
saved needs `import attnrt.torch` before it is loaded.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.autograd import forward_ad

from ._arguments import Layout
from ._arguments import flag as checked_flag
from ._tensors import without_tangent
from .errors import InvalidArgumentError
from .runtime import default_runtime

_WORDS = """
    Tensor? mask=None, bool causal=False, str align="bottom_right", SymInt? window_left=None,
    SymInt? window_right=None, float? scale=None, float? softcap=None, Tensor? alibi_slopes=None,
    Tensor? sinks=None, Tensor? kv_lengths=None, Tensor? offsets_q=None, Tensor? offsets_kv=None,
    Tensor? page_table=None, Tensor? k_scale=None, Tensor? v_scale=None,
    Tensor? diagonal_offset=None, bool return_lse=False, str? backend=None,
    bool deterministic=False, bool batch_invariant=False, bool v_in_k=False, str layout="bshd"
"""
_OPTIONAL = (
    "mask", "alibi_slopes", "sinks", "kv_lengths", "offsets_q", "offsets_kv", "page_table",
    "k_scale", "v_scale", "diagonal_offset", "out",
)  # fmt: skip

_library = torch.library.Library("attnrt", "DEF")
_library.define(
    f"attention(Tensor q, Tensor k, Tensor? v, *, {_WORDS}) -> (Tensor result, Tensor lse)"
)
_library.define(
    # Not named `out`: torch.compile takes no tensor of that name whose memory is not contiguous.
    f"attention_out(Tensor q, Tensor k, Tensor? v, *, Tensor(a!) into, {_WORDS}) -> Tensor"
)

# ---- On tensors ----


def _attention(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor | None, **words: Any
) -> tuple[torch.Tensor, torch.Tensor]:
    # An operator returns as many tensors each time: without return_lse the second one is empty.
    if words.get("return_lse"):
        out, lse = default_runtime().attention(q, k, v, **words)
        return out, lse
    return default_runtime().attention(q, k, v, **words), q.new_empty(0, dtype=torch.float32)


def _attention_out(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor | None, *, into: torch.Tensor, **words: Any
) -> torch.Tensor:
    return _attention(q, k, v, out=into, **words)[1]


# ---- On tensors without memory, while torch traces ----


def _empty_lse(q: torch.Tensor, return_lse: bool, packed: bool, layout: Layout) -> torch.Tensor:
    if not return_lse:
        return q.new_empty(0, dtype=torch.float32)
    if packed:
        return q.new_empty((q.shape[1], q.shape[0]), dtype=torch.float32)
    batch, seq, heads, _ = q.shape
    if layout == "bhsd":
        seq, heads = heads, seq
    return q.new_empty((batch, heads, seq), dtype=torch.float32)


def _expect_dimensions(q: torch.Tensor, packed: bool) -> None:
    expected = 3 if packed else 4
    if q.dim() != expected:
        raise InvalidArgumentError(f"q has {q.dim()} dimensions; expected {expected}")


def _fake_attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor | None,
    *,
    offsets_q: torch.Tensor | None = None,
    return_lse: bool = False,
    layout: Layout = "bshd",
    **_: Any,
) -> tuple[torch.Tensor, torch.Tensor]:
    packed = offsets_q is not None
    _expect_dimensions(q, packed)
    columns = (k if v is None else v).shape[-1]
    return q.new_empty((*q.shape[:-1], columns)), _empty_lse(q, return_lse, packed, layout)


def _fake_attention_out(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor | None,
    *,
    offsets_q: torch.Tensor | None = None,
    return_lse: bool = False,
    layout: Layout = "bshd",
    **_: Any,
) -> torch.Tensor:
    _expect_dimensions(q, offsets_q is not None)
    return _empty_lse(q, return_lse, offsets_q is not None, layout)


# ---- Where torch would record gradients ----


def _refuses_gradients(operator: Any) -> Any:
    """Returns what runs in place of the operator where torch may record gradients."""

    def check(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor | None, **words: Any) -> Any:
        if torch.is_grad_enabled():
            named = {"q": q, "k": k, "v": v, **{name: words.get(name) for name in _OPTIONAL}}
            named["out"] = words.get("into")
            for name, tensor in named.items():
                if tensor is not None and tensor.requires_grad:
                    raise InvalidArgumentError(
                        f"{name} requires grad, and attnrt computes no gradients: call it under "
                        f"torch.no_grad(), or give {name}.detach()"
                    )
        if forward_ad._current_level >= 0:
            for name, tensor in (("q", q), ("k", k), ("v", v)):
                if tensor is not None:
                    without_tangent(name, tensor)
        with torch._C._AutoDispatchBelowAutograd():
            return operator(q, k, v, **words)

    return check


for _name, _run, _fake in (
    ("attention", _attention, _fake_attention),
    ("attention_out", _attention_out, _fake_attention_out),
):
    for _key in ("CPU", "CUDA"):
        _library.impl(_name, _run, _key)
    _library.impl(_name, _refuses_gradients(getattr(torch.ops.attnrt, _name).default), "Autograd")
    torch.library.register_fake(f"attnrt::{_name}", _fake, lib=_library)


# ---- attnrt.attention, traced ----


def why_untraceable(q: Any, k: Any, v: Any, words: dict[str, Any]) -> str | None:
    """Returns why a graph cannot hold this call of attnrt.attention; None: it can."""
    tensors = {"q": q, "k": k, "v": v, **{name: words[name] for name in _OPTIONAL}}
    for name, tensor in tensors.items():
        if tensor is not None and not isinstance(tensor, torch.Tensor):
            return f"{name} is no torch tensor, and a graph has no others"
    if words["runtime"] is not None:
        return "found runtime=, and a graph uses the default runtime"
    if words["stream"] is not None:
        return "found stream=, and a graph runs on torch's current stream"
    return None


def traced_attention(q: Any, k: Any, v: Any, words: dict[str, Any]) -> Any:
    """Does what attnrt.attention does by a call of an operator."""
    del words["runtime"], words["stream"]
    out = words.pop("out")
    for flag in ("causal", "deterministic", "batch_invariant", "v_in_k", "return_lse"):
        words[flag] = checked_flag(flag, words[flag])
    if out is None:
        out, lse = torch.ops.attnrt.attention(q, k, v, **words)
    else:
        lse = torch.ops.attnrt.attention_out(q, k, v, into=out, **words)
    return (out, lse) if words["return_lse"] else out
