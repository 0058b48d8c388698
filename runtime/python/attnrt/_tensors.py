# runtime/python/attnrt/_tensors.py: what DLPack does not say of numpy arrays and torch tensors
"""Works with numpy arrays and torch tensors without importing either library.

The extension module reads tensors of any library through DLPack. This module adds what DLPack does
not say: which stream a torch tensor is used on, whether it records gradients, and how to allocate
memory of the same kind for results.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from . import _attnrt
from ._arguments import integer
from .errors import InvalidArgumentError

Tensor = Any
"""A numpy array, a torch tensor, or any other object with __dlpack__."""

Tensors = dict[str, Tensor]
"""The tensors of one call by name; None: not given."""


def tensors_of(arguments: Mapping[str, Any]) -> Tensors:
    """Picks the tensors from a call's arguments (its locals()), in the C library's order."""
    return {name: arguments.get(name) for name in _attnrt.tensor_names}


def is_torch(tensor: Tensor) -> bool:
    """Whether this is a torch tensor; if torch was never imported, nothing is."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(tensor, torch.Tensor)


def stream_pointer(stream: Any, q: Tensor) -> int:
    """Returns a stream's pointer; None: torch's current stream for a torch tensor, else 0."""
    if stream is not None:
        return integer("stream", getattr(stream, "cuda_stream", stream), 2**64 - 1)
    if not (is_torch(q) and q.is_cuda):
        return 0
    current = sys.modules["torch"].cuda.current_stream(q.device)
    return int(current.cuda_stream)


def without_gradients(tensors: Tensors) -> Tensors:
    """Returns the tensors detached. Raises if one needs gradients while torch records them."""
    torch = sys.modules.get("torch")
    tracked = [name for name, each in tensors.items() if is_torch(each) and each.requires_grad]
    if torch is None or not tracked:
        return tensors
    if torch.is_grad_enabled():
        raise InvalidArgumentError(
            f"{tracked[0]} requires grad, and attnrt computes no gradients: call it under "
            f"torch.no_grad(), or give {tracked[0]}.detach()"
        )
    return {name: each.detach() if is_torch(each) else each for name, each in tensors.items()}


def _allocated(like: Tensor, shape: tuple[int, ...], packed: bool, float32: bool) -> Tensor:
    """Allocates memory of the kind and on the device of `like`.

    A run of packed sequences leaves rows past the last offset untouched, so those must be zeros.
    """
    if is_torch(like):
        dtype = sys.modules["torch"].float32 if float32 else like.dtype
        return (like.new_zeros if packed else like.new_empty)(shape, dtype=dtype)
    numpy = sys.modules.get("numpy")
    if numpy is not None and isinstance(like, numpy.ndarray):
        dtype = numpy.float32 if float32 else like.dtype
        return (numpy.zeros if packed else numpy.empty)(shape, dtype)
    what = "return_lse" if float32 else "a result without out="
    raise InvalidArgumentError(
        f"q is a {type(like).__name__}; {what} needs a numpy array or a torch tensor"
    )


def merged_results(outs: list[Tensor], out: Tensor, return_lse: bool) -> tuple[Tensor, Tensor]:
    """Returns out, and an lse if it is wanted: allocated as outs[0] is where they are None."""
    like = outs[0]
    shape = tuple(getattr(like, "shape", ()))
    if len(shape) not in (3, 4):
        raise InvalidArgumentError(f"outs[0] has {len(shape)} dimensions; expected 3 or 4")
    if out is None:
        out = _allocated(like, shape, packed=False, float32=True)
    *batch, seq, heads, _ = shape
    lse = _allocated(like, (*batch, heads, seq), packed=False, float32=True) if return_lse else None
    return out, lse


def add_results(tensors: Tensors, with_lse: bool) -> None:
    """Allocates out if it is None, and lse if it is wanted.

    Allocates neither if q and v do not have such shapes: the C library's message says more.
    """
    q, v = tensors["q"], tensors["v"]
    if v is None:  # v is in k, and out says how much of it
        v = tensors["k"]
    packed = tensors["offsets_q"] is not None
    q_shape, v_shape = (tuple(getattr(tensor, "shape", ())) for tensor in (q, v))
    if len(q_shape) != (3 if packed else 4) or not v_shape:
        return
    if tensors["out"] is None:
        tensors["out"] = _allocated(q, (*q_shape[:-1], v_shape[-1]), packed, float32=False)
    if with_lse:
        total_or_batch, *rest = q_shape[:-1]
        shape = (rest[0], total_or_batch) if packed else (total_or_batch, rest[1], rest[0])
        tensors["lse"] = _allocated(q, shape, packed, float32=True)
