# runtime/python/attnrt/_transformers_masks.py: masks of transformers as words, where words suffice
"""The mask function that transformers calls once a forward for models with "attnrt".

transformers describes a mask by a function of indices, offsets, and a padding mask [batch, keys].
Causal masks, sliding windows, padding on the right, packed sequences and the unused end of a static
cache can be said in words: causal, align, windows, kv_lengths, offsets. Backends then need to read
no mask, and skip what is hidden. Everything else is a boolean mask, as for "sdpa".

A mask in words is a WordsMask: a tensor without memory that becomes the boolean mask as soon as a
model computes with it. Words hold until that mask is changed in place: torch counts such changes.
So the words are never wrong, and cost nothing where they are not used.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from transformers import masking_utils
from transformers.utils.import_utils import is_tracing

from ._arguments import Align
from ._transformers_patterns import Pattern, packed_ids, pattern_of
from .errors import UnsupportedError

# ---- What a mask says ----


@dataclasses.dataclass(slots=True)
class Words:
    """A mask as attnrt.attention takes it."""

    causal: bool = False
    align: Align = "top_left"
    window_left: int | None = None
    window_right: int | None = None
    kv_lengths: Tensor | None = None
    offsets: Tensor | None = None  # the one row of the batch is packed: it ends its sequences here
    mask: Tensor | None = None  # what the words do not say
    version: int = 0  # the words hold while the boolean mask has this one


class WordsMask(torch.Tensor):  # type: ignore[misc]
    """A boolean mask [batch, 1, queries, keys] that is computed when somebody asks for it."""

    attnrt_words: Words
    _compute: Callable[[], Tensor]
    _boolean: Tensor | None  # once somebody has asked for it

    @classmethod
    def make(
        cls, shape: tuple[int, ...], device: Any, words: Words, compute: Callable[[], Tensor]
    ) -> WordsMask:
        nothing = torch.empty((), dtype=torch.bool, device=device)
        mask: WordsMask = nothing.expand(shape).as_subclass(cls)
        mask.attnrt_words, mask._compute, mask._boolean = words, compute, None
        return mask

    @classmethod
    def __torch_function__(
        cls, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        first: Any = args[0] if args else None
        if type(first) is not WordsMask or words_of(first) is not None:  # not changed
            if function is Tensor.contiguous:  # what generate() calls on masks
                words = dataclasses.replace(first.attnrt_words)
                compute = first._compute
                return cls.make(first.shape, first.device, words, lambda: compute().contiguous())
            if function in _METADATA or function in _MAY_CHANGE_NOTHING:
                with torch._C.DisableTorchFunctionSubclass():
                    result = function(*args, **kwargs)
                if function in _METADATA:
                    return result
                if result is first:
                    return first
                if function is _GET_ITEM and _takes_all(args[1], result, first):
                    return first
        args, kwargs = torch.utils._pytree.tree_map(boolean_mask, (args, kwargs))
        return function(*args, **kwargs)


def boolean_mask(value: Any) -> Any:
    """Returns the boolean mask of a WordsMask, and everything else as it is."""
    if type(value) is not WordsMask:
        return value
    if value._boolean is None:
        boolean = _with_version(value._compute())
        value.attnrt_words.version = boolean._version
        value._boolean = boolean
    return value._boolean


def words_of(mask: Tensor) -> Words | None:
    """Returns what the mask says in words, unless it has been changed since."""
    words: Words | None = getattr(mask, "attnrt_words", None)
    if words is None:
        return None
    boolean = mask._boolean if isinstance(mask, WordsMask) else mask
    return words if boolean is None or boolean._version == words.version else None


def _with_version(mask: Tensor) -> Tensor:
    """Returns the tensor, or its copy if it is of inference_mode(): those have no version."""
    if not mask.is_inference():
        return mask
    with torch.inference_mode(False):
        return mask.clone()


_METADATA = frozenset(
    (
        Tensor.shape.__get__, Tensor.dtype.__get__, Tensor.device.__get__, Tensor.ndim.__get__,
        Tensor.requires_grad.__get__, Tensor.is_cuda.__get__, Tensor.size, Tensor.dim,
        Tensor.numel, Tensor.is_floating_point, Tensor.__len__, Tensor.stride,
        Tensor.storage_offset,
    )
)  # fmt: skip
_GET_ITEM = Tensor.__getitem__
_MAY_CHANGE_NOTHING = frozenset((Tensor.to, _GET_ITEM))


def _takes_all(index: Any, result: Tensor, mask: Tensor) -> bool:
    """Whether an index takes the whole mask, as mask[:, :, :, :keys] does."""
    indices = index if isinstance(index, tuple) else (index,)
    return result.shape == mask.shape and all(
        each is Ellipsis or (isinstance(each, slice) and each.step in (None, 1)) for each in indices
    )


# ---- From a pattern and a padding mask to words ----


def _lengths(
    padding: Tensor | None, keys: int, pattern: Pattern, shift: Any, end: Any
) -> Tensor | str:
    """Returns how many keys of each sequence exist, "all", or "" if it takes a mask to say.

    padding [batch, keys] is True for tokens. Keys from end on are hidden from causal queries.
    """
    if padding is None:
        return "all"
    seen = padding.shape[1]
    if not pattern.causal:
        end = keys
    if isinstance(end, int):
        if seen < end:
            padding = torch.nn.functional.pad(padding, (0, end - seen))
        padding = padding[:, :end]
        fits = padding.new_ones(())
    else:
        fits = end <= seen
    in_order = (padding[:, :-1] >= padding[:, 1:]).all()
    all_real, on_the_right, fits = torch.stack((padding.all(), in_order, fits)).tolist()
    if all_real and fits:
        return "all"
    starts_at_zero = isinstance(shift, int) and shift == 0
    unbounded = pattern.left is None and pattern.right is None
    if on_the_right and (starts_at_zero or (unbounded and not pattern.causal)):
        return padding.sum(-1, dtype=torch.int32)
    return ""


def _words(
    batch: int,
    queries: int,
    keys: int,
    shift: Any,
    padding: Tensor | None,
    pattern: Pattern,
    device: Any,
) -> Words | None:
    """Returns the words of a mask in which query i is at key i + shift. None: none say it."""
    end = shift + queries
    lengths = _lengths(padding, keys, pattern, shift, end)
    if isinstance(lengths, str) and not lengths:
        return None
    left = None if pattern.left is None or pattern.left >= keys - 1 else pattern.left
    right = None if pattern.right is None or pattern.right >= keys - 1 else pattern.right
    words = Words(pattern.causal, "top_left", left, right)
    if isinstance(lengths, Tensor):
        return dataclasses.replace(words, kv_lengths=lengths)
    has_diagonal = words.causal or left is not None or right is not None
    if isinstance(shift, int) and (shift == 0 or not has_diagonal):
        return words
    if isinstance(end, int) and end == keys:
        return dataclasses.replace(words, align="bottom_right")
    if not words.causal:
        return None
    # The diagonal of bottom_right ends at the last key that exists.
    return dataclasses.replace(
        words, align="bottom_right", kv_lengths=_same_lengths(end, batch, device)
    )


def _same_lengths(length: Any, batch: int, device: Any) -> Tensor:
    if isinstance(length, int):
        return torch.full((batch,), length, dtype=torch.int32, device=device)
    return length.to(torch.int32).reshape(-1).expand(batch).contiguous()


_with_interface: set[type] = set()  # configurations whose models call what is registered


def _expect_interface(config: Any) -> None:
    """Raises UnsupportedError for models that compute attention without transformers' interface.

    transformers accepts any registered name for these, and they would misread the mask.
    """
    of = type(config)
    name = of.__module__.replace(".configuration_", ".modeling_")
    modeling: Any = sys.modules.get(name)
    if of in _with_interface or modeling is None:
        return
    own = [
        each.__name__
        for each in vars(modeling).values()
        if isinstance(each, type) and each.__module__ == name and "Attention" in each.__name__
    ]
    if own and not hasattr(modeling, "ALL_ATTENTION_FUNCTIONS"):
        raise UnsupportedError(
            f'attn_implementation="attnrt": {own[0]} of {name} does not call transformers\' '
            "attention interface; load the model without it (attnrt.torch.enable() serves models "
            "that call torch's attention; this model may not)"
        )
    _with_interface.add(of)


def mask_in_words(
    batch_size: int,
    q_length: int,
    kv_length: int,
    q_offset: Any = 0,
    kv_offset: int = 0,
    mask_function: Callable[..., Any] = masking_utils.causal_mask_function,
    attention_mask: Tensor | None = None,
    allow_is_causal_skip: bool = True,
    allow_is_bidirectional_skip: bool = False,
    device: Any = "cpu",
    config: Any = None,
    **others: Any,
) -> Tensor | None:
    """Is transformers' mask function for "attnrt".

    Returns None where "sdpa" has None, too: the attention function then goes by is_causal.
    """
    if not torch.compiler.is_compiling():
        _expect_interface(config)
    # A static cache counts up its length in place; in older versions it has one dimension.
    kept = q_offset.clone().reshape(()) if isinstance(q_offset, Tensor) else q_offset

    def boolean(**skips: bool) -> Any:
        skips = skips or dict(allow_is_causal_skip=False, allow_is_bidirectional_skip=False)
        return masking_utils.sdpa_mask(
            batch_size=batch_size, q_length=q_length, kv_length=kv_length, q_offset=kept,
            kv_offset=kv_offset, mask_function=mask_function, attention_mask=attention_mask,
            device=device, **others, **skips,
        )  # fmt: skip

    plain = attention_mask is None or attention_mask.dim() == 2
    pattern = pattern_of(mask_function) if plain and not is_tracing(attention_mask) else None
    if pattern is None or (pattern.remapped and not pattern.packed):
        return boolean(
            allow_is_causal_skip=allow_is_causal_skip,
            allow_is_bidirectional_skip=allow_is_bidirectional_skip,
        )
    shift = kept - kv_offset
    shape = (batch_size, 1, q_length, kv_length)
    if pattern.packed:
        if batch_size != 1 or q_length != kv_length:
            return boolean()
        _, counts = torch.unique_consecutive(packed_ids(mask_function)[0], return_counts=True)
        offsets = torch.nn.functional.pad(counts.cumsum(0, dtype=torch.int32), (1, 0))
        words = Words(pattern.causal, "bottom_right", pattern.left, pattern.right, offsets=offsets)
        return WordsMask.make(shape, device, words, boolean)
    padding = None if attention_mask is None else attention_mask[:, kv_offset:][:, :kv_length]
    found = _words(batch_size, q_length, kv_length, shift, padding, pattern, device)
    if found is not None and _goes_without(
        found, q_length, kv_length,
        allow_is_causal_skip if found.causal else allow_is_bidirectional_skip,
    ):  # fmt: skip
        return None
    decodes_static = isinstance(shift, Tensor) and q_length == 1 and pattern.causal
    if decodes_static or (not allow_is_causal_skip and pattern.causal):
        # A graph of torch.compile may take this mask: it is a plain tensor, and small.
        mask = _with_version(boolean().contiguous())
        if found is None and decodes_static:
            lengths = _same_lengths(shift + q_length, batch_size, device)
            found = Words(kv_lengths=lengths, mask=mask)
        if found is not None:
            found.version = mask._version
            mask.attnrt_words = found
        return mask
    if found is None:
        return boolean()
    return WordsMask.make(shape, device, found, boolean)


def _goes_without(words: Words, queries: int, keys: int, allowed: bool) -> bool:
    """Whether the mask may be None.

    The attention function then computes the same from `is_causal`.
    """
    if not allowed or words.kv_lengths is not None:
        return False
    if words.window_left is not None or words.window_right is not None:
        return False
    if not words.causal:
        return True
    if queries == 1:  # is_causal does not count then
        return words.align == "bottom_right" or keys == 1
    return words.align == "top_left"
