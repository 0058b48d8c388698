# runtime/python/attnrt/_torch_kernels.py: operators of torch, computed by attnrt
"""What torch.nn.functional.scaled_dot_product_attention is, and what it chooses among.

Each function takes and returns what torch's operator does. It raises NotServed for what attnrt does
not do: gradients, dropout, float64 and so on.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor
from torch._subclasses.functional_tensor import FunctionalTensor

from ._arguments import Align
from ._counts import NotServed, Traced
from .errors import InvalidArgumentError, UnsupportedError
from .runtime import Runtime, default_runtime

DTYPES = (torch.float32, torch.float16, torch.bfloat16)
_PLAIN = (torch.Tensor, torch.nn.Parameter)
_TRACED = (FakeTensor, FunctionalTensor)
_FORWARD_AD = torch.autograd.forward_ad


# ---- What attnrt can serve ----


def expect_plain(tensors: tuple[Tensor | None, ...]) -> None:
    """Raises NotServed for tensors that are more than memory with a dtype."""
    recording = torch.is_grad_enabled()
    for tensor in tensors:
        if tensor is None:
            continue
        if type(tensor) not in _PLAIN:
            traced = isinstance(tensor, _TRACED)
            raise Traced("tensors of a trace") if traced else NotServed("tensor subclass")
        if tensor.is_meta:
            raise Traced("meta tensors")
        if torch._C._functorch.is_functorch_wrapped_tensor(tensor):
            raise NotServed("tensor of torch.func")
        if recording and tensor.requires_grad:
            raise NotServed("gradient")
        if tensor.is_neg():
            raise NotServed("negative view")
    if _FORWARD_AD._current_level >= 0:
        raise NotServed("forward-mode gradient")


def _expect_supported(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, dropout_p: float, scale: float | None
) -> None:
    expect_plain((q, k, v, mask))
    if dropout_p != 0:
        raise NotServed("dropout")
    if q.dtype not in DTYPES:
        raise NotServed(f"dtype {str(q.dtype).removeprefix('torch.')}")
    if k.dtype != q.dtype or v.dtype != q.dtype:
        raise NotServed("dtypes that differ")
    if scale == 0:  # to attnrt, 0 is the default scale
        raise NotServed("scale 0")
    if mask is not None and mask.dtype not in (torch.bool, torch.float32, q.dtype):
        raise NotServed("dtype of attn_mask")


def rows_in_order(tensor: Tensor) -> Tensor:
    """Returns the tensor, or a copy if the elements of a row do not lie side by side."""
    return tensor if tensor.stride(-1) == 1 or tensor.shape[-1] <= 1 else tensor.contiguous()


def _empty_like(q: Tensor, columns: int) -> Tensor:
    """Allocates [*, columns] with q's order of dimensions, as torch's kernels do."""
    if q.shape[-1] == columns:
        return torch.empty_like(q)
    shape = (*q.shape[:-1], columns)
    strides, stride = [0] * q.dim(), 1
    for i in sorted(range(q.dim()), key=lambda i: q.stride(i) or math.inf):
        strides[i] = stride
        stride *= shape[i]
    return q.new_empty_strided(shape, strides)


_runtime: Runtime | None = None


def use(runtime: Runtime | None) -> None:
    """Sets the runtime that computes; None: the default one."""
    global _runtime
    _runtime = runtime


def _compute(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None,
    causal: bool,
    align: Align,
    scale: float | None,
    out: Tensor,
    return_lse: bool,
) -> Tensor | None:
    """Computes [batch, heads, seq, head_dim] into out. Returns the lse if it is wanted."""
    runtime = default_runtime() if _runtime is None else _runtime
    in_order = out.stride(-1) == 1 or out.shape[-1] <= 1
    to = out if in_order else out.new_empty(out.shape)
    try:
        result = runtime.attention(
            rows_in_order(q),
            rows_in_order(k),
            rows_in_order(v),
            mask=mask,
            causal=causal,
            align=align,
            scale=scale,
            out=to,
            return_lse=return_lse,
            deterministic=torch.are_deterministic_algorithms_enabled(),
            layout="bhsd",
        )
    except UnsupportedError as error:
        raise NotServed(f"unsupported: {error}") from None
    except InvalidArgumentError as error:
        raise NotServed(f"invalid argument: {error}") from None
    if not in_order:
        out.copy_(to)
    return result[1] if return_lse else None


# ---- aten::scaled_dot_product_attention ----


def _with_four_dimensions(tensor: Tensor) -> Tensor:
    for _ in range(4 - tensor.dim()):
        tensor = tensor.unsqueeze(0)
    return tensor


def function(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """Computes what torch's function does. Raises NotServed if that is not for attnrt."""
    _expect_supported(q, k, v, attn_mask, dropout_p, scale)
    if torch._C._len_torch_dispatch_stack() > 0:
        raise NotServed("a mode of torch_dispatch")
    allowed = torch.backends.cuda
    if not (
        allowed.flash_sdp_enabled()
        or allowed.mem_efficient_sdp_enabled()
        or allowed.cudnn_sdp_enabled()
    ):
        raise NotServed("sdpa_kernel(MATH)")
    ndim = max(q.dim(), k.dim(), v.dim())
    if min(q.dim(), k.dim(), v.dim()) < 2 or ndim > 4:
        raise NotServed(f"tensors of {ndim} dimensions")
    if is_causal and attn_mask is not None:
        raise NotServed("attn_mask with is_causal")
    q, k, v = _with_four_dimensions(q), _with_four_dimensions(k), _with_four_dimensions(v)
    if (
        q.shape[3] != k.shape[3]
        or k.shape[2] != v.shape[2]
        or k.shape[1] != v.shape[1]
        or q.shape[3] == 0
    ):
        raise NotServed("shapes")
    if q.shape[0] != k.shape[0] or k.shape[0] != v.shape[0]:
        q, k, v = _of_one_batch(q, k, v)
    if q.shape[1] == 1 and not enable_gqa:
        q = q.expand(-1, k.shape[1], -1, -1)
    groups = enable_gqa or k.shape[1] == 1
    if q.shape[1] != k.shape[1] and not (
        groups and k.shape[1] > 0 and q.shape[1] % k.shape[1] == 0
    ):
        raise NotServed("shapes")
    if attn_mask is not None:
        _expect_broadcast(attn_mask, (q.shape[0], q.shape[1], q.shape[2], k.shape[2]))
    out = _empty_like(q, v.shape[3])
    _compute(q, k, v, attn_mask, is_causal, "top_left", scale, out, return_lse=False)
    return out if ndim == 4 else out[0] if ndim == 3 else out[0, 0]


def _of_one_batch(*tensors: Tensor) -> list[Tensor]:
    """Broadcasts the first dimension."""
    sizes = {tensor.shape[0] for tensor in tensors} - {1}
    if len(sizes) != 1:
        raise NotServed("shapes")
    [size] = sizes
    return [tensor.expand(size, -1, -1, -1) for tensor in tensors]


def _expect_broadcast(mask: Tensor, shape: tuple[int, ...]) -> None:
    """Raises NotServed if torch would refuse the mask."""
    if not 2 <= mask.dim() <= 4 or any(
        found not in (1, expected)
        for found, expected in zip(reversed(mask.shape), reversed(shape), strict=False)
    ):
        raise NotServed("shape of attn_mask")


# ---- What the function chooses among. All have four dimensions ----


def _mark_empty_rows(lse: Tensor, value: float) -> None:
    """Gives rows that see nothing the lse that torch's kernel gives them.

    torch's backward runs on this lse in compiled graphs, and would make NaN of attnrt's -inf.
    """
    lse.masked_fill_(lse == -math.inf, value)


def flash_for_cpu(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    attn_mask: Tensor | None = None,
    scale: float | None = None,
) -> tuple[Any, ...]:
    _expect_supported(q, k, v, attn_mask, dropout_p, scale)
    out = _empty_like(q, v.shape[-1])
    lse = _compute(q, k, v, attn_mask, is_causal, "top_left", scale, out, return_lse=True)
    assert lse is not None
    _mark_empty_rows(lse, 0.0)
    batch, heads, seq = lse.shape
    as_torch_has_it = lse.new_empty((batch, seq, heads)).transpose(1, 2)
    return out, as_torch_has_it.copy_(lse)


def flash(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    return_debug_mask: bool = False,
    *,
    scale: float | None = None,
) -> tuple[Any, ...]:
    _expect_supported(q, k, v, None, dropout_p, scale)
    if return_debug_mask:
        raise NotServed("debug mask")
    if is_causal and torch.version.hip is not None and q.shape[2] != k.shape[2]:
        raise NotServed("a diagonal that differs between versions of ROCm")
    out = _empty_like(q, v.shape[-1])
    # This operator's diagonal ends at the last query and the last key, other than is_causal's.
    lse = _compute(q, k, v, None, is_causal, "bottom_right", scale, out, return_lse=True)
    assert lse is not None
    _mark_empty_rows(lse, math.inf)
    seed, offset = q.new_empty(2, dtype=torch.uint64), q.new_empty((), dtype=torch.uint64)
    return out, lse, None, None, q.shape[2], k.shape[2], seed, offset, q.new_empty(0)


def efficient(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    attn_bias: Tensor | None,
    compute_log_sumexp: bool,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
) -> tuple[Any, ...]:
    _expect_supported(q, k, v, attn_bias, dropout_p, scale)
    batch, heads, seq, _ = q.shape
    out = q.new_empty((batch, seq, heads, v.shape[-1])).transpose(1, 2)
    lse = _compute(
        q, k, v, attn_bias, is_causal, "top_left", scale, out, return_lse=compute_log_sumexp
    )
    if lse is not None:
        _mark_empty_rows(lse, 0.0)
    if lse is None:
        lse = q.new_empty((batch, heads, 0), dtype=torch.float32)
    elif torch.version.hip is None:  # torch's has rows of a multiple of 32
        lse = torch.nn.functional.pad(lse, (0, -seq % 32), value=math.inf)
    seed = torch.empty((), dtype=torch.int64)
    return out, lse, seed, torch.empty_like(seed)


def cudnn(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    attn_bias: Tensor | None,
    compute_log_sumexp: bool,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    return_debug_mask: bool = False,
    *,
    scale: float | None = None,
) -> tuple[Any, ...]:
    _expect_supported(q, k, v, attn_bias, dropout_p, scale)
    if return_debug_mask:
        raise NotServed("debug mask")
    out = _empty_like(q, v.shape[-1])
    lse = _compute(
        q, k, v, attn_bias, is_causal, "top_left", scale, out, return_lse=compute_log_sumexp
    )
    lse = q.new_empty((*q.shape[:-1], 1), dtype=torch.float32) if lse is None else lse.unsqueeze(-1)
    seed = q.new_empty((), dtype=torch.int64)
    return out, lse, None, None, q.shape[2], k.shape[2], seed, torch.empty_like(seed), None
