# runtime/python/attnrt/_arguments.py: checks arguments, and writes a problem in words
from __future__ import annotations

import operator
from collections.abc import Mapping
from typing import Any, Literal, get_args

from .errors import InvalidArgumentError

Align = Literal["bottom_right", "top_left"]
"""Where the diagonal of causal and of windows lies: see attnrt.attention."""
Layout = Literal["bshd", "bhsd"]
"""The order of dimensions: [batch, seq, heads, head_dim], or [batch, heads, seq, head_dim]."""


def integer(name: str, value: Any, most: int = 2**31 - 1) -> int:
    """Returns value as an int from 0 to most. Anything else is an InvalidArgumentError."""
    try:
        number = operator.index(value)
    except TypeError:
        raise InvalidArgumentError(f"{name} is a {type(value).__name__}; expected an int") from None
    if not 0 <= number <= most:
        raise InvalidArgumentError(f"{name} is {number}; expected 0 to {most}")
    return number


def text_or_none(name: str, value: Any) -> str | None:
    """Returns value, which is a str or None. Anything else is an InvalidArgumentError."""
    if value is None or isinstance(value, str):
        return value
    raise InvalidArgumentError(f"{name} is a {type(value).__name__}; expected a str or None")


_FLAGS = frozenset(
    (
        "causal", "deterministic", "batch_invariant", "v_in_k", "alibi", "sinks", "kv_lengths",
        "varlen", "lse", "diagonal_offset",
    )
)  # fmt: skip
_CHOICES: dict[str, tuple[str, ...]] = {"align": get_args(Align)}
_DTYPES = {
    "float64": "f64",
    "float32": "f32",
    "float16": "f16",
    "half": "f16",
    "bfloat16": "bf16",
    "float8_e4m3fn": "f8_e4m3fn",
    "float8_e4m3fnuz": "f8_e4m3fnuz",
    "int8": "i8",
}


def flag(name: str, value: Any) -> bool:
    """Returns value, which is True, False, 1, 0 or numpy's, as a bool."""
    known = isinstance(value, (bool, int)) or type(value).__name__ in ("bool", "bool_")
    if known and value in (0, 1):
        return bool(value)
    raise InvalidArgumentError(f"{name}: found {value!r}; expected True or False")


def _number(name: str, value: Any) -> float:
    """Returns a number as a float: also one of numpy, or a tensor of one element."""
    if not isinstance(value, str):
        try:
            return float(value)
        except (TypeError, ValueError, RuntimeError):
            pass
    raise InvalidArgumentError(f"{name}: found {value!r}; expected a number")


def dtype_word(value: Any) -> Any:
    """Returns "f16" for torch.float16, numpy.float16, numpy.dtype("float16") and "float16"."""
    name = value if isinstance(value, str) else getattr(value, "name", None)
    if not isinstance(name, str):
        name = getattr(value, "__name__", None) or str(value)
    return _DTYPES.get(name.removeprefix("torch."), name.removeprefix("torch."))


def _word(name: str, value: Any) -> str:
    """Writes one value. A str is one word, so that it cannot say anything of other words."""
    if name.endswith("dtype"):
        value = dtype_word(value)
    if name in _FLAGS and not isinstance(value, str):
        value = flag(name, value)
    if isinstance(value, bool):
        return str(value).lower()
    text = str(value)
    if not text or "=" in text or any(letter.isspace() for letter in text):
        raise InvalidArgumentError(f"{name}: found {value!r}; expected one word or a number")
    return text


def words_text(words: Mapping[str, Any]) -> str:
    """Writes words as the C library reads them: "dtype=f16 causal=true". Omits None."""
    for name in words:
        if not (isinstance(name, str) and name.isidentifier()):
            raise InvalidArgumentError(f"problem: found {name!r}; expected the name of a word")
    return " ".join(
        f"{name}={_word(name, value)}" for name, value in words.items() if value is not None
    )


ATTRIBUTES = (
    "causal",
    "align",
    "window_left",
    "window_right",
    "scale",
    "softcap",
    "deterministic",
    "batch_invariant",
    "v_in_k",
)


def attribute_words(attributes: tuple[Any, ...]) -> str:
    """Writes what attention() asks for, in the order of ATTRIBUTES, as the C library reads it."""
    words: dict[str, Any] = {}
    for name, value in zip(ATTRIBUTES, attributes, strict=True):
        if name in _FLAGS:
            words[name] = flag(name, value) or None
        elif name in _CHOICES:
            if value not in _CHOICES[name]:
                expected = " or ".join(repr(each) for each in _CHOICES[name])
                raise InvalidArgumentError(f"{name}: found {value!r}; expected {expected}")
            words[name] = value
        elif value is None:
            continue
        elif name.startswith("window"):
            try:
                words[name] = operator.index(value)
            except TypeError:
                raise InvalidArgumentError(
                    f"{name}: found {value!r}; expected an int, or None: unbounded"
                ) from None
        else:
            words[name] = _number(name, value)
    return words_text(words)


def problem_text(
    problem: str | Mapping[str, Any] | None, words: Mapping[str, Any], like: Mapping[str, Any] = {}
) -> str:
    """Writes a problem as the C library reads it.

    It is given as a str or a dict, keywords, and what example tensors say. Keywords count most.
    """
    if problem is None:
        return words_text({**like, **words})
    if isinstance(problem, Mapping):
        return words_text({**like, **problem, **words})
    if not isinstance(problem, str):
        raise InvalidArgumentError(
            f"problem is a {type(problem).__name__}; expected words, as a str or a dict"
        )
    if like:
        raise InvalidArgumentError("problem: found a str and like=; expected keywords beside like=")
    return f"{problem} {words_text(words)}"


# ---- Problems of example tensors ----

_DEVICES = {1: "cpu", 2: "cuda", 3: "cpu", 10: "rocm", 11: "cpu", 13: "cuda"}  # of DLPack


def words_like(tensors: Any, layout: str) -> dict[str, Any]:
    """Returns the words that q, k and v say, and device_id."""
    try:
        q, k, v = tensors
        shapes = [[int(size) for size in tensor.shape] for tensor in (q, k, v)]
        dtypes = [dtype_word(tensor.dtype) for tensor in (q, k, v)]
        device_type, device_id = q.__dlpack_device__()
    except (TypeError, ValueError, AttributeError) as error:
        raise InvalidArgumentError(f"like: expected the tensors (q, k, v): {error}") from None
    if layout not in get_args(Layout):
        raise InvalidArgumentError(f"layout: found {layout!r}; expected 'bshd' or 'bhsd'")
    for name, shape in zip("qkv", shapes, strict=True):
        if len(shape) != 4:
            raise InvalidArgumentError(f"like: {name} has {len(shape)} dimensions; expected 4")
    if layout == "bhsd":
        shapes = [[batch, seq, heads, size] for batch, heads, seq, size in shapes]
    (batch, seq_q, heads_q, head_dim), (_, seq_kv, heads_kv, _), (_, _, _, head_dim_v) = shapes
    expected = ([batch, seq_kv, heads_kv, head_dim], [batch, seq_kv, heads_kv, head_dim_v])
    for name, found, wanted in zip("kv", shapes[1:], expected, strict=True):
        if found[1:] != wanted[1:] or found[0] not in (1, batch):
            raise InvalidArgumentError(
                f"like: {name} is {found} as [batch, seq, heads, head_dim]; expected {wanted}"
            )
    return dict(
        device=_DEVICES.get(int(device_type), f"device {int(device_type)}"),
        device_id=int(device_id),
        dtype=dtypes[0],
        kv_dtype=None if dtypes[1] == dtypes[0] else dtypes[1],
        batch=batch,
        heads_q=heads_q,
        heads_kv=heads_kv,
        seq_q=seq_q,
        seq_kv=seq_kv,
        head_dim=head_dim,
        head_dim_v=head_dim_v,
    )
