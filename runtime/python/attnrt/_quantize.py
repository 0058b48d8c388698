# runtime/python/attnrt/_quantize.py: keys and values of 8 bits, and their scales
"""Quantizes numpy arrays and torch tensors without importing either library.

Values divide by scales that have one dimension less, or one dimension. `_spread` gives a scale the
dimensions that make this one division in both libraries.
"""

from __future__ import annotations

import sys
from typing import Any

from ._tensors import Tensor, is_torch, without_gradient
from .errors import InvalidArgumentError

_LIMITS = {"i8": 127.0, "f8_e4m3fn": 448.0, "f8_e4m3fnuz": 240.0}
"""The largest number that each dtype stores. i8 leaves out -128, so that it is symmetric."""
_NAMES = {"i8": "int8", "f8_e4m3fn": "float8_e4m3fn", "f8_e4m3fnuz": "float8_e4m3fnuz"}
_SCALES = ("tensor", "head", "token")
_READ = ("float32", "float16", "bfloat16")
_SMALLEST = 2.0**-126
"""The smallest scale: below it, float32 loses digits, and GPUs may read 0."""


def quantize(x: Tensor, dtype: str, scale: str | Tensor = "token") -> tuple[Any, Any]:
    """Returns (stored, scale): keys or values of 8 bits, so that x is about stored * scale.

        k8, k_scale = attnrt.quantize(k, "f8_e4m3fn")
        v8, v_scale = attnrt.quantize(v, "f8_e4m3fn")
        out = attnrt.attention(q, k8, v8, k_scale=k_scale, v_scale=v_scale)

    x       k or v in float32, float16 or bfloat16, a numpy array or a torch tensor on any device:
            [batch, seq, heads_kv, head_dim], packed [total_kv, heads_kv, head_dim], or pages
            [pages, page_size, heads_kv, head_dim]
    dtype   "i8", "f8_e4m3fn" or "f8_e4m3fnuz"; for numpy, the last two need the package ml_dtypes
    scale   what has a scale of its own: "token" (each row of head_dim numbers), "head" or "tensor".
            Or the scale itself, known beforehand: float32 of one of the shapes below, of x's
            library and device. It is used and returned as it is; its values are not checked

    stored is contiguous and has x's shape, scale is float32:

        "tensor" [1]    "head" [heads_kv]    "token" x's shape without head_dim

    In float32, x is about stored * scale[..., None], whichever shape scale has.

    scale = (largest magnitude under it) / (largest number of dtype: 127, 448 or 240), and
    stored = x / scale, rounded to the nearest, ties to even. There is no zero point. Where all x
    are zeros, scale is 1; otherwise it is at least 2^-126. A scale known beforehand may be too
    small: then stored is dtype's largest number, with x's sign.

    Whether x is finite is not checked, since that would wait for the device. The scale over an inf
    or a NaN is NaN, and so is all that it multiplies. Under a scale known beforehand, an inf
    becomes dtype's largest number; a NaN stays NaN in f8, and becomes 0 in i8.

    Nothing is copied to the host, and torch's work is enqueued on its current stream. Gradients are
    not computed. Raises InvalidArgumentError for anything else than the above.
    """
    _check_words(dtype, scale)
    _check_values(x)
    if is_torch(x):
        return _of_torch(x, dtype, scale)
    return _of_numpy(x, dtype, scale)


def _bad(text: str) -> InvalidArgumentError:
    return InvalidArgumentError(f"quantize: {text}")


def _check_words(dtype: Any, scale: Any) -> None:
    """Checks dtype, and scale if it is a word."""
    if not isinstance(dtype, str) or dtype not in _LIMITS:
        raise _bad(f"dtype is {dtype!r}; expected {_listed(_LIMITS)}")
    if isinstance(scale, str) and scale not in _SCALES:
        raise _bad(f"scale is {scale!r}; expected {_listed(_SCALES)}, or a float32 array of scales")


def _listed(words: Any) -> str:
    *first, last = (f'"{word}"' for word in words)
    return f"{', '.join(first)} or {last}"


def _is_numpy(tensor: Any) -> bool:
    """Whether this is a numpy array; if numpy was never imported, nothing is."""
    numpy = sys.modules.get("numpy")
    return numpy is not None and isinstance(tensor, numpy.ndarray)


def _dtype_name(tensor: Any) -> str:
    """Returns "float32" for float32 of either library."""
    return str(tensor.dtype).removeprefix("torch.") if is_torch(tensor) else str(tensor.dtype.name)


def _check_values(x: Any) -> None:
    """Checks x's type, dtype and number of dimensions."""
    if not is_torch(x) and not _is_numpy(x):
        raise _bad(f"x is a {type(x).__name__}; expected a numpy array or a torch tensor")
    name = _dtype_name(x)
    if name not in _READ:
        convert = "x.float()" if is_torch(x) else 'x.astype("float32")'
        raise _bad(f"x is {name}; expected float32, float16 or bfloat16: give {convert}")
    if len(x.shape) < 3:
        raise _bad(
            f"x has {len(x.shape)} dimensions; expected [batch, seq, heads_kv, head_dim], packed "
            "[total_kv, heads_kv, head_dim] or [pages, page_size, heads_kv, head_dim]"
        )


def _check_given(x: Any, scale: Any) -> None:
    """Checks a scale that is known beforehand."""
    if not (is_torch(scale) if is_torch(x) else _is_numpy(scale)):
        library = "a torch tensor" if is_torch(x) else "a numpy array"
        raise _bad(
            f"scale is a {type(scale).__name__}; expected {_listed(_SCALES)}, or {library}, as x is"
        )
    if _dtype_name(scale) != "float32":
        raise _bad(f"scale is {_dtype_name(scale)}; expected float32")
    if is_torch(x) and scale.device != x.device:
        raise _bad(f"scale is on {scale.device}, x on {x.device}: give scale.to(x.device)")
    tokens, heads = list(x.shape[:-1]), [x.shape[-2]]
    if list(scale.shape) not in ([1], heads, tokens):
        raise _bad(
            f"scale has shape {list(scale.shape)}; expected [1] (tensor), {heads} (head) or "
            f"{tokens} (token)"
        )


def _axes(x: Any, scale: str) -> tuple[int, ...]:
    """Returns the dimensions of x that one scale spans."""
    last = len(x.shape) - 1
    everything = range(last + 1)
    return {
        "tensor": tuple(everything),
        "head": tuple(axis for axis in everything if axis != last - 1),
        "token": (last,),
    }[scale]


def _spread(scale: Any) -> Any:
    """Returns a view of scale that broadcasts to x: [1, 1], [heads, 1] or [..., heads, 1]."""
    return scale[..., None]


def _of_numpy(x: Any, dtype: str, scale: str | Any) -> tuple[Any, Any]:
    numpy = sys.modules["numpy"]
    limit, stored_dtype = numpy.float32(_LIMITS[dtype]), _numpy_dtype(dtype)
    wide = x.astype(numpy.float32, copy=False)
    with numpy.errstate(all="ignore"):
        if isinstance(scale, str):
            largest = numpy.abs(wide).max(axis=_axes(x, scale), initial=0)
            largest = numpy.atleast_1d(largest).astype(numpy.float32, copy=False)
            scale = numpy.maximum(largest / limit, numpy.float32(_SMALLEST))
            scale[largest == 0] = 1
            scale[~numpy.isfinite(largest)] = numpy.nan
        else:
            _check_given(x, scale)
        values = numpy.clip(wide / _spread(scale), -limit, limit)
        if dtype == "i8":
            values = numpy.rint(numpy.nan_to_num(values, copy=False))
        return values.astype(stored_dtype, order="C"), scale


def _numpy_dtype(dtype: str) -> Any:
    """Returns numpy's dtype of this name. Only ml_dtypes has those of 8-bit floats."""
    numpy = sys.modules["numpy"]
    if dtype == "i8":
        return numpy.dtype(numpy.int8)
    try:
        import ml_dtypes
    except ImportError:
        raise _bad(
            f'dtype "{dtype}" in numpy needs the package ml_dtypes, which is not installed: '
            "pip install ml_dtypes"
        ) from None
    return numpy.dtype(getattr(ml_dtypes, _NAMES[dtype]))


def _of_torch(x: Any, dtype: str, scale: str | Any) -> tuple[Any, Any]:
    torch = sys.modules["torch"]
    if x.requires_grad:
        x = without_gradient("x", x)
    limit, stored_dtype = _LIMITS[dtype], getattr(torch, _NAMES[dtype], None)
    if stored_dtype is None:
        raise _bad(f'dtype "{dtype}" needs torch 2.2 or newer; this is torch {torch.__version__}')
    with torch.no_grad():
        if isinstance(scale, str):
            axes = _axes(x, scale)
            kept = [size for axis, size in enumerate(x.shape) if axis not in axes] or [1]
            # torch takes no maximum of nothing.
            largest = x.abs().amax(axes) if x.numel() else x.new_zeros(kept)
            largest = largest.float().reshape(kept)
            # By a plain number a GPU does not divide: it multiplies by the reciprocal.
            scale = (largest / torch.full_like(largest, limit)).clamp_min(_SMALLEST)
            scale = scale.masked_fill(largest == 0, 1.0)
            scale = scale.masked_fill(~torch.isfinite(largest), float("nan"))
        else:
            _check_given(x, scale)
        # float32, also where x is not: scale is.
        values = (x / _spread(scale)).clamp_(-limit, limit)
        if dtype == "i8":
            values = values.nan_to_num_().round_()
        return values.to(stored_dtype).contiguous(), scale
