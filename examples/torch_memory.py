#!/usr/bin/env python3
# examples/torch_memory.py: attnrt's workspaces in torch's caching allocator
"""python3 examples/torch_memory.py

attnrt takes the workspaces of its plans on a GPU from torch's caching allocator if torch uses that
GPU: they share one pool with torch's tensors, and torch.cuda.memory_allocated() counts them. Exit
status 0 if that is so; 77 if there is no torch or no GPU.
"""

import sys

import attnrt

try:
    import torch
except ImportError:
    torch = None


def main():
    if torch is None or not torch.cuda.is_available():
        print("needs torch and a GPU")
        return 77
    q = torch.randn(1, 1, 32, 128, dtype=torch.float16, device="cuda")
    k, v = (torch.randn(1, 8192, 8, 128, dtype=torch.float16, device="cuda") for _ in range(2))
    out = torch.empty_like(q)
    runtime = attnrt.Runtime()
    plan = runtime.plan(
        dtype="f16", heads_q=32, heads_kv=8, seq_q=1, seq_kv=8192, head_dim=128,
        device="rocm" if torch.version.hip else "cuda", backend="hip_flash",
    )  # fmt: skip
    print(f"{plan.backend} {plan.kernel} needs a workspace of {plan.workspace_bytes} bytes")
    before = torch.cuda.memory_allocated()
    runtime.attention(q, k, v, out=out, backend="hip_flash")
    held = torch.cuda.memory_allocated() - before
    print(f"torch counts {held} bytes more")
    runtime.trim()
    left = torch.cuda.memory_allocated() - before
    print(f"after trim, {left} bytes")
    return 0 if held >= plan.workspace_bytes and left == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
