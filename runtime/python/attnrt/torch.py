# runtime/python/attnrt/torch.py: attention in torch's own terms: operators, and a provider
"""attnrt in torch: import attnrt.torch.

- torch.ops.attnrt.attention and attention_out are operators that torch.compile and torch.export
  take into their graphs. Where torch traces it, attnrt.attention calls them.
- enable() makes torch.nn.functional.scaled_dot_product_attention go through attnrt's policy,
  disable() ends that, and counters() says what was served and what was left to torch.

Forward only: attnrt computes no gradients.
"""

from __future__ import annotations

from . import _torch_operator as _torch_operator
from ._torch_provider import counters, disable, enable, enabled, reset_counters

__all__ = ["counters", "disable", "enable", "enabled", "reset_counters"]
