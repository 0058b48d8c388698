# runtime/python/attnrt/_transformers_patterns.py: what pattern a mask of transformers has
"""transformers writes patterns of masks as functions of indices, made of a few of its own.

Whatever is not made of these alone has no pattern.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from torch import Tensor
from transformers import masking_utils


@dataclasses.dataclass(frozen=True)
class Pattern:
    causal: bool = False
    left: int | None = None
    right: int | None = None
    packed: bool = False
    remapped: bool = False  # indices are those within a packed sequence


def _variables(function: Callable[..., Any]) -> dict[str, Any]:
    cells: Any = getattr(function, "__closure__", None) or ()
    return {
        name: cell.cell_contents
        for name, cell in zip(function.__code__.co_freevars, cells, strict=True)
    }


def pattern_of(function: Callable[..., Any]) -> Pattern | None:
    """Returns what one of transformers' own mask functions computes; None: something else."""
    if function is masking_utils.causal_mask_function:
        return Pattern(causal=True)
    if function is masking_utils.bidirectional_mask_function:
        return Pattern()
    if getattr(function, "__module__", None) != masking_utils.__name__:
        return None
    name, variables = function.__qualname__.split(".")[0], _variables(function)
    if name == "sliding_window_overlay":
        return Pattern(left=variables["sliding_window"] - 1)
    if name == "sliding_window_bidirectional_overlay":
        return Pattern(left=variables["sliding_window"], right=variables["sliding_window"])
    if name == "packed_sequence_mask_function":
        return Pattern(packed=True)
    if name == "remap_positions_for_packed_sequence":
        inner = pattern_of(variables["mask_function"])
        return None if inner is None else dataclasses.replace(inner, remapped=True)
    if name != "and_masks":
        return None
    whole = Pattern()
    for each in map(pattern_of, variables["mask_functions"]):
        if each is None:
            return None
        lefts = [side for side in (whole.left, each.left) if side is not None]
        rights = [side for side in (whole.right, each.right) if side is not None]
        whole = Pattern(
            whole.causal or each.causal,
            min(lefts, default=None),
            min(rights, default=None),
            whole.packed or each.packed,
            whole.remapped or each.remapped,
        )
    return whole


def packed_ids(function: Callable[..., Any]) -> Tensor:
    """Returns which sequence each token of a packed batch [batch, tokens] belongs to."""
    variables = _variables(function)
    if "packed_sequence_mask" in variables:
        ids: Tensor = variables["packed_sequence_mask"]
        return ids
    for each in variables.get("mask_functions", ()):
        found = pattern_of(each)
        if found is not None and found.packed:
            return packed_ids(each)
    raise AssertionError("a packed pattern has ids")
