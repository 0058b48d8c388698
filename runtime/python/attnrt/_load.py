# runtime/python/attnrt/_load.py: imports the extension module, or says in one line why it cannot be
"""Imports _attnrt. It must be linked with the libattnrt.so of its own version, and no other."""

from __future__ import annotations

import importlib.util
import os


def _why(error: ImportError) -> str:
    if importlib.util.find_spec("._attnrt", __package__) is None:
        folder = os.path.dirname(os.path.abspath(__file__))
        return (
            f"{folder} holds no compiled module _attnrt, as in the source tree; run Python from "
            "another folder, where it finds the package that pip installed"
        )
    text = str(error)
    if "nanobind" in text:  # nanobind says itself what to do
        return text
    return (
        f"the module _attnrt cannot be loaded: {text}. It needs the libattnrt.so of its own "
        "version: is another one preloaded, in LD_LIBRARY_PATH, or loaded before? If not, install "
        "the package again"
    )


try:
    from . import _attnrt
except ImportError as error:
    raise ImportError(f"attnrt: {_why(error)}") from None

if _attnrt.version() != _attnrt.built_for:
    raise ImportError(
        f"attnrt: the module {_attnrt.__file__} is of version {_attnrt.built_for}, and loaded "
        f"version {_attnrt.version()} of {_attnrt.library()}; both must be the same: install the "
        "package again, or take the other library out of LD_LIBRARY_PATH and LD_PRELOAD"
    )

__all__ = ["_attnrt"]
