# runtime/python/attnrt/_arguments.py: checks arguments, and writes a problem in words
from __future__ import annotations

import operator
from collections.abc import Mapping
from typing import Any, Literal

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


def words_text(words: Mapping[str, Any]) -> str:
    """Writes words as the C library reads them: "dtype=f16 causal=true". Omits None."""
    texts = ((name, str(value)) for name, value in words.items() if value is not None)
    return " ".join(
        f"{name}={text.lower() if text in ('True', 'False') else text}" for name, text in texts
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
_DEFAULTS = {"align": "bottom_right"}


def attribute_words(attributes: tuple[Any, ...]) -> str:
    """Writes what attention() asks for, in the order of ATTRIBUTES, as the C library reads it."""
    flags = {"causal", "deterministic", "batch_invariant", "v_in_k"}
    words = {}
    for name, value in zip(ATTRIBUTES, attributes, strict=True):
        is_default = not value if name in flags else value == _DEFAULTS.get(name)
        words[name] = None if is_default else value
    return words_text(words)


def problem_text(problem: str | Mapping[str, Any] | None, words: Mapping[str, Any]) -> str:
    """Writes a problem given as a str or a dict, and its keywords, as the C library reads it."""
    if problem is None:
        return words_text(words)
    if isinstance(problem, str):
        return f"{problem} {words_text(words)}"
    if isinstance(problem, Mapping):
        return words_text({**problem, **words})
    raise InvalidArgumentError(
        f"problem is a {type(problem).__name__}; expected words, as a str or a dict"
    )
