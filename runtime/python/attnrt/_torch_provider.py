# runtime/python/attnrt/_torch_provider.py: puts attnrt into torch's dispatcher, and counts calls
"""Makes torch.nn.functional.scaled_dot_product_attention go through attnrt.

The function itself (aten::scaled_dot_product_attention) is replaced for calls in eager mode. What
it chooses among is replaced, too, for compiled graphs and for those who call these by name. Calls
that attnrt does not serve go to the kernels that torch had before.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import torch

from . import _torch_kernels
from ._counts import Counts, NotServed
from .errors import InvalidArgumentError, UnsupportedError
from .runtime import Runtime

# ---- What is counted ----

_counts = Counts("operators")


def counters() -> dict[str, Any]:
    """Returns what enable() has led to, in this process.

    served      calls of torch's operators that attnrt computed
    fell_back   calls that were left to torch
    operators   the served calls of each operator
    reasons     the calls that were left to torch, by reason: "gradient", "dropout", ...
    """
    return _counts.snapshot()


def reset_counters() -> None:
    """Sets all counters to 0."""
    _counts.reset()


# ---- In torch's dispatcher ----

_FUNCTION = "scaled_dot_product_attention"
_KERNELS: tuple[tuple[str, str, Callable[..., Any]], ...] = (
    ("_scaled_dot_product_flash_attention_for_cpu", "CPU", _torch_kernels.flash_for_cpu),
    ("_scaled_dot_product_flash_attention", "CUDA", _torch_kernels.flash),
    ("_scaled_dot_product_efficient_attention", "CUDA", _torch_kernels.efficient),
    ("_scaled_dot_product_cudnn_attention", "CUDA", _torch_kernels.cudnn),
)

_inside = threading.local()  # .function: torch computes a call of the function that was not served


def _function_or_torch(*args: Any, **words: Any) -> Any:
    try:
        out = _torch_kernels.function(*args, **words)
    except NotServed as why:
        _counts.left(why)
    else:
        _counts.served(_FUNCTION)
        return out
    outer = getattr(_inside, "function", False)
    _inside.function = True
    try:
        return torch.ops.aten.scaled_dot_product_attention.default.decompose(*args, **words)
    finally:
        _inside.function = outer


def _kernel_or_torch(name: str, key: str, serve: Callable[..., Any]) -> Callable[..., Any]:
    torchs = torch.library.get_kernel(f"aten::{name}", key)

    def run(keys: Any, *args: Any, **words: Any) -> Any:
        if not getattr(_inside, "function", False):
            try:
                results = serve(*args, **words)
            except NotServed as why:
                _counts.left(why)
            else:
                _counts.served(name)
                return results
        return torchs.call_boxed(keys, *args, **words)

    return run


class Installed:
    """What enable() has put into torch's dispatcher, until remove()."""

    def __init__(self) -> None:
        self._library: Any = torch.library.Library("aten", "IMPL")
        for key in ("CPU", "CUDA", "AutogradCPU", "AutogradCUDA"):
            self._library.impl(_FUNCTION, _function_or_torch, key)
        for name, key, serve in _KERNELS:
            if not torch._C._dispatch_has_kernel_for_dispatch_key(f"aten::{name}", key):
                continue  # a torch without CUDA
            self._library.impl(
                name, _kernel_or_torch(name, key, serve), key, with_keyset=True, allow_override=True
            )

    def remove(self) -> None:
        """Gives torch's operators back. Another call does nothing."""
        global _installed
        if self._library is not None:
            self._library._destroy()
            self._library = None
        if _installed is self:
            _installed = None


# ---- Switching ----

_NAME = "attnrt"
_lock = threading.RLock()
_installed: Installed | None = None
_before: str | None = None  # which implementation of flash attention was active before


def _install() -> Installed:
    """Is what torch calls when somebody activates the implementation "attnrt"."""
    global _installed
    _installed = Installed()
    return _installed


_attention = torch.nn.attention
_HAS_SLOT = hasattr(_attention, "restore_flash_attention_impl")
if _HAS_SLOT:
    _attention.register_flash_attention_impl(_NAME, register_fn=_install)


def enable(runtime: Runtime | None = None) -> None:
    """Makes torch.nn.functional.scaled_dot_product_attention go through attnrt's policy.

    That is so for tensors on the CPU and on CUDA and ROCm devices, in eager mode and in graphs of
    torch.compile, until disable(). Calls with gradients or dropout, and others that attnrt does not
    support, are left to torch; counters() says how many, and why.
    In torch's registry of flash attention this is the implementation "attnrt": it takes the place
    of an active one, and activating another one ends it.

    runtime   None: attnrt.default_runtime(). Another call exchanges it.

    Raises UnsupportedError if torch is older than 2.10.
    """
    global _before
    if runtime is not None and not isinstance(runtime, Runtime):
        raise InvalidArgumentError(
            f"runtime is a {type(runtime).__name__}; expected a Runtime or None"
        )
    if not hasattr(torch.library, "get_kernel"):
        raise UnsupportedError(
            f"attnrt.torch.enable needs torch 2.10 or newer; found {torch.__version__}"
        )
    with _lock:
        _torch_kernels.use(runtime)
        if _installed is not None:
            return
        if _HAS_SLOT:
            _before = _attention.current_flash_attention_impl()
            _attention.activate_flash_attention_impl(_NAME)
        else:
            _install()


def disable() -> None:
    """Gives scaled_dot_product_attention back to torch, and to what was active before enable()."""
    global _before
    with _lock:
        before, _before = _before, None
        _torch_kernels.use(None)
        if _installed is None:
            return
        if not _HAS_SLOT:
            _installed.remove()
            return
        _attention.restore_flash_attention_impl()
        if before is not None:
            _attention.activate_flash_attention_impl(before)


def enabled() -> bool:
    """Whether scaled_dot_product_attention goes through attnrt now."""
    return _installed is not None
