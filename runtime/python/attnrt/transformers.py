# runtime/python/attnrt/transformers.py: attn_implementation="attnrt" for Hugging Face transformers
"""attnrt in transformers: import attnrt.transformers.

    attnrt.transformers.register()
    model = AutoModelForCausalLM.from_pretrained(name, attn_implementation="attnrt")

register() gives transformers an attention function and a mask function named "attnrt", and
"paged|attnrt" for continuous batching where the version has such names. counters() says what was
served and what was left to torch.

Forward only: calls that need gradients are torch's.
"""

from __future__ import annotations

import re
from typing import Any

try:
    import torch as _torch  # noqa: F401
    import transformers as _transformers
except ModuleNotFoundError as error:
    if error.name not in ("torch", "transformers"):
        raise
    raise ModuleNotFoundError(
        f"attnrt.transformers needs the package {error.name}: pip install torch transformers",
        name=error.name,
    ) from None

from .errors import InvalidArgumentError, UnsupportedError
from .runtime import Runtime

__all__ = ["counters", "register", "reset_counters"]

_OLDEST = (5, 5)  # older mask functions have other arguments
if tuple(int(part) for part in re.findall("[0-9]+", _transformers.__version__)[:2]) < _OLDEST:
    raise UnsupportedError(
        f"attnrt.transformers needs transformers {_OLDEST[0]}.{_OLDEST[1]} or newer; found "
        f"{_transformers.__version__}: pip install --upgrade transformers"
    )

from . import _transformers_attention, _transformers_masks  # noqa: E402

NAME = "attnrt"


def register(runtime: Runtime | None = None) -> None:
    """Makes attn_implementation="attnrt" work in transformers.

    Models that are loaded with it, or for which model.set_attn_implementation("attnrt") is called,
    compute attention by attnrt's policy. Calls that attnrt does not serve are left to torch;
    counters() says how many, and why.

    runtime   None: attnrt.default_runtime(). Another call exchanges it, for all models.

    THREADS: any call from any threads at once.
    """
    if runtime is not None and not isinstance(runtime, Runtime):
        raise InvalidArgumentError(
            f"runtime is a {type(runtime).__name__}; expected a Runtime or None"
        )
    functions = _transformers.AttentionInterface
    _transformers_attention.use(runtime)
    functions.register(NAME, _transformers_attention.attention)
    if "paged|sdpa" in functions().valid_keys():
        functions.register(f"paged|{NAME}", _transformers_attention.paged_attention)
    _transformers.AttentionMaskInterface.register(NAME, _transformers_masks.mask_in_words)


def counters() -> dict[str, Any]:
    """Returns what register() has led to, in this process.

    served      calls of the attention functions that attnrt computed
    fell_back   calls that were left to torch
    masks       the served calls by what they said of their mask: "none" (causal or all visible),
                "words" (windows, lengths), "tensor", "packed" (many sequences in one row), "paged"
    reasons     the calls that were left to torch, by reason: "gradient", "dropout", ...

    Calls in graphs of torch.compile are not counted; Runtime.stats() has these, too.
    """
    return _transformers_attention.counts.snapshot()


def reset_counters() -> None:
    """Sets all counters to 0."""
    _transformers_attention.counts.reset()
