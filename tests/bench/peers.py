"""tests/bench/peers.py: calls of what others ship, for comparison on one GPU.

    cuDNN   through torch's scaled_dot_product_attention; windows through the package
            nvidia-cudnn-frontend
    FA3     FlashAttention-3, the package fa3-fwd: bf16, no windows
    EFFICIENT, MATH   torch's other backends

A peer that is not installed, or refuses the problem, is left out.
"""

import functools
import math

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

try:
    from fa3_fwd_interface import flash_attn_func
except ImportError:
    flash_attn_func = None
try:
    import cudnn
except ImportError:
    cudnn = None

TORCH_BACKENDS = {
    "cuDNN": "CUDNN_ATTENTION",
    "EFFICIENT": "EFFICIENT_ATTENTION",
    "MATH": "MATH",
}


def works(call):
    """Whether a call succeeds."""
    try:
        call()
        torch.cuda.synchronize()
    except (RuntimeError, TypeError, ValueError):
        return False
    return True


def torch_call(name, q, k, v, mask=None, causal=False):
    """Returns a call of one of torch's backends; None if it refuses the problem."""
    q, k, v = (t.transpose(1, 2) for t in (q, k, v))

    def call():
        with sdpa_kernel(getattr(SDPBackend, TORCH_BACKENDS[name])):
            F.scaled_dot_product_attention(
                q, k, v, attn_mask=mask, is_causal=causal, enable_gqa=q.shape[1] != k.shape[1]
            )

    return call if works(call) else None


def fa3_calls(q, k, v, causal=False):
    """Returns FA3's calls, by name: each way to pack grouped queries and to split keys."""
    if flash_attn_func is None or q.dtype != torch.bfloat16:
        return {}
    calls = {}
    grouped = q.shape[2] != k.shape[2]
    for pack_gqa in (False, True) if grouped else (None,):
        for num_splits in (1, 0):
            call = functools.partial(
                flash_attn_func, q, k, v, causal=causal, pack_gqa=pack_gqa, num_splits=num_splits
            )
            if works(call):
                packed = "" if pack_gqa is None else f" pack={int(pack_gqa)}"
                calls[f"FA3{packed} splits={num_splits}"] = call
    return calls


def cudnn_window_call(q, k, v, left, causal=True):
    """Returns a call of cuDNN's sliding window; None if it is not installed or refuses.

    A query sees keys (diagonal - left, diagonal].
    """
    if cudnn is None:
        return None
    kind = cudnn.data_type.HALF if q.dtype == torch.float16 else cudnn.data_type.BFLOAT16
    handle = cudnn.create_handle()
    graph = cudnn.pygraph(
        io_data_type=kind, intermediate_data_type=cudnn.data_type.FLOAT,
        compute_data_type=cudnn.data_type.FLOAT, handle=handle,
    )  # fmt: skip
    q, k, v = (t.transpose(1, 2) for t in (q, k, v))
    out = torch.empty_like(q)
    try:
        tensors = [graph.tensor_like(t) for t in (q, k, v)]
        result, _ = graph.sdpa(
            name="sdpa", q=tensors[0], k=tensors[1], v=tensors[2], generate_stats=False,
            attn_scale=1 / math.sqrt(q.shape[-1]), use_causal_mask=causal,
            sliding_window_length=left,
        )  # fmt: skip
        result.set_output(True).set_dim(out.size()).set_stride(out.stride())
        graph.build([cudnn.heur_mode.A])
        workspace = torch.empty(graph.get_workspace_size(), device="cuda", dtype=torch.uint8)
    except Exception as error:  # the package has no common base of its errors
        print("cudnn-frontend:", str(error).splitlines()[0])
        return None
    pack = dict(zip([*tensors, result], [q, k, v, out], strict=True))

    def call():
        cudnn.set_stream(handle=handle, stream=torch.cuda.current_stream().cuda_stream)
        graph.execute(pack, workspace, handle=handle)

    return call if works(call) else None
