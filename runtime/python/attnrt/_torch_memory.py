# runtime/python/attnrt/_torch_memory.py: workspaces on GPUs from torch's caching allocator
"""Lets workspaces and torch's tensors share one pool, so that torch sees what attnrt holds."""

from __future__ import annotations

import sys
from typing import Any

_CUDA, _ROCM = 2, 10  # DLPack's numbers


def _torch_for(device_type: int) -> Any:
    """Returns torch if the process uses it with this kind of device, else None."""
    torch: Any = sys.modules.get("torch")
    if torch is None or not hasattr(torch, "cuda") or not torch.cuda.is_initialized():
        return None
    kind = _ROCM if torch.version.hip is not None else _CUDA
    return torch if kind == device_type else None


def allocate(device_type: int, device_id: int, size: int, stream: int) -> int | None:
    """Returns the address of device memory for the stream; None: torch does not use this device."""
    torch = _torch_for(device_type)
    if torch is None:
        return None
    return int(torch.cuda.caching_allocator_alloc(size, device_id, stream))


def free(device_type: int, device_id: int, pointer: int, stream: int) -> None:
    """Gives the memory back to torch. Nothing that uses it still runs."""
    del device_id, stream  # torch knows them by the pointer
    torch = _torch_for(device_type)
    if torch is not None:
        torch.cuda.caching_allocator_delete(pointer)
