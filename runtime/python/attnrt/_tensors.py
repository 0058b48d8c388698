# runtime/python/attnrt/_tensors.py: what DLPack does not say of numpy arrays and torch tensors
"""Works with numpy arrays and torch tensors without importing either library.

The extension module reads tensors of any library through DLPack. This module adds what DLPack does
not say: which stream a torch tensor is used on, whether it records gradients, and how to allocate
memory of the same kind for results. The extension module calls it where it cannot do so itself.
"""

from __future__ import annotations

import sys
from typing import Any, Protocol

from ._arguments import integer
from .errors import InvalidArgumentError


class Tensor(Protocol):
    """A numpy array, a torch tensor, or any other object with __dlpack__."""

    def __dlpack__(self, *, stream: Any = ...) -> Any: ...
    def __dlpack_device__(self) -> tuple[Any, Any]: ...


def is_torch(tensor: Any) -> bool:
    """Whether this is a torch tensor; if torch was never imported, nothing is."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(tensor, torch.Tensor)


def is_traced(tensor: Any) -> bool:
    """Whether torch.compile or torch.export traces a call with this tensor as its q."""
    torch = sys.modules.get("torch")
    compiler = getattr(torch, "compiler", None)  # not while torch is being imported
    if torch is None or compiler is None or not compiler.is_compiling():
        return False
    # The flag holds for the process: another thread may compile, and this tensor be a real one.
    return compiler.is_dynamo_compiling() or (
        isinstance(tensor, torch.Tensor) and type(tensor) not in (torch.Tensor, torch.nn.Parameter)
    )


def leave_graph(why: str) -> None:
    """Makes torch.compile end its graph before this call, so that the call itself runs.

    It raises where the graph must be whole: with fullgraph=True, and in torch.export.
    """
    torch = sys.modules["torch"]
    if torch.compiler.is_dynamo_compiling():
        torch._dynamo.graph_break(msg=why)
    elif torch.compiler.is_exporting():
        raise InvalidArgumentError(why)


def stream_pointer(stream: Any, q: Any) -> int:
    """Returns a stream's pointer; None: torch's current stream for a torch tensor, else 0."""
    if stream is not None:
        return integer("stream", getattr(stream, "cuda_stream", stream), 2**64 - 1)
    if not (is_torch(q) and q.is_cuda):
        return 0
    current = sys.modules["torch"].cuda.current_stream(q.device)
    return int(current.cuda_stream)


def without_gradient(name: str, tensor: Any) -> Any:
    """Returns a torch tensor that requires gradients detached. Raises while torch records them."""
    if sys.modules["torch"].is_grad_enabled():
        raise InvalidArgumentError(
            f"{name} requires grad, and attnrt computes no gradients: call it under "
            f"torch.no_grad(), or give {name}.detach()"
        )
    return tensor.detach()


def without_tangent(name: str, tensor: Any) -> None:
    """Raises if the tensor has a forward-mode gradient."""
    if sys.modules["torch"].autograd.forward_ad.unpack_dual(tensor).tangent is not None:
        raise InvalidArgumentError(
            f"{name} has a forward-mode gradient, and attnrt computes no gradients"
        )


def allocated(like: Any, shape: tuple[int, ...], packed: bool, float32: bool) -> Any:
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


def merged_results(outs: list[Any], out: Any, return_lse: bool) -> tuple[Any, Any]:
    """Returns out, and an lse if it is wanted: allocated as outs[0] is where they are None."""
    like = outs[0]
    shape = tuple(getattr(like, "shape", ()))
    if len(shape) not in (3, 4):
        raise InvalidArgumentError(f"outs[0] has {len(shape)} dimensions; expected 3 or 4")
    if out is None:
        out = allocated(like, shape, packed=False, float32=True)
    *batch, seq, heads, _ = shape
    lse = allocated(like, (*batch, heads, seq), packed=False, float32=True) if return_lse else None
    return out, lse
