"""tests/bench/peers.py: calls of what others ship, for comparison on one GPU.

    cuDNN   through torch's scaled_dot_product_attention; windows, lengths and pages through the
            package nvidia-cudnn-frontend
    FA3     FlashAttention-3, the package fa3-fwd: bf16, no windows, no pages
    EFFICIENT, MATH   torch's other backends

A peer that is not installed, or refuses the problem, is left out.
"""

import functools
import math

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

try:
    from fa3_fwd_interface import (
        flash_attn_func,
        flash_attn_varlen_func,
        flash_attn_with_kvcache,
    )
except ImportError:
    flash_attn_func = flash_attn_with_kvcache = None
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


def fa3_lengths_call(q, k, v, kv_lengths, causal, num_splits):
    """Returns FA3's call with a length for each sequence of k and v, or None for all of it."""
    if flash_attn_func is None:
        return None
    if kv_lengths is None:
        call = functools.partial(flash_attn_func, q, k, v, causal=causal, num_splits=num_splits)
    else:
        call = functools.partial(
            flash_attn_with_kvcache, q, k, v,
            cache_seqlens=kv_lengths, causal=causal, num_splits=num_splits,
        )  # fmt: skip
    return call if works(call) else None


def fa3_packed_call(q, k, v, offsets_q, offsets_kv, longest, causal, num_splits):
    """Returns FA3's call on packed sequences. longest: the most rows of q, and of k and v."""
    if flash_attn_func is None:
        return None
    call = functools.partial(
        flash_attn_varlen_func, q, k, v, offsets_q, offsets_kv, *longest,
        causal=causal, num_splits=num_splits,
    )  # fmt: skip
    return call if works(call) else None


def cudnn_lengths_call(q, k, v, kv_lengths, page_table, longest):
    """Returns cuDNN's call with a length for each sequence, its keys in pages or not.

    None if the package is not installed or refuses.
    """
    if cudnn is None:
        return None
    handle, graph = new_graph(q.dtype)
    q_turned, k, v = (t.transpose(1, 2) for t in (q, k, v))
    out = torch.empty_like(q_turned)
    batch = q.shape[0]
    index = {
        "seq_len_q": torch.full((batch, 1, 1, 1), q.shape[1], dtype=torch.int32, device="cuda"),
        "seq_len_kv": kv_lengths.reshape(batch, 1, 1, 1),
    }
    if page_table is not None:
        # cuDNN reads the whole table.
        table = page_table.clamp(0, k.shape[0] - 1)[:, None, :, None].contiguous()
        index |= {"paged_attention_k_table": table, "paged_attention_v_table": table.clone()}
    words = {"attn_scale": 1 / math.sqrt(q.shape[-1]), "use_padding_mask": True}
    if page_table is not None:
        words["paged_attention_max_seq_len_kv"] = longest
    return cudnn_call(handle, graph, (q_turned, k, v), out, index, words)


def new_graph(dtype):
    """Returns a handle of cuDNN, and a graph without operations."""
    kind = cudnn.data_type.HALF if dtype == torch.float16 else cudnn.data_type.BFLOAT16
    handle = cudnn.create_handle()
    graph = cudnn.pygraph(
        io_data_type=kind, intermediate_data_type=cudnn.data_type.FLOAT,
        compute_data_type=cudnn.data_type.FLOAT, handle=handle,
    )  # fmt: skip
    return handle, graph


def cudnn_call(handle, graph, inputs, out, index, words):
    """Returns a call of graph.sdpa(*inputs, **index, **words); None if cuDNN refuses.

    inputs: q, k and v, [batch, heads, seq, head_dim]; index: further tensors by parameter.
    """
    try:
        tensors = [graph.tensor_like(t) for t in inputs]
        others = {name: graph.tensor_like(t) for name, t in index.items()}
        result, _ = graph.sdpa(
            name="sdpa", q=tensors[0], k=tensors[1], v=tensors[2], generate_stats=False,
            **others, **words,
        )  # fmt: skip
        result.set_output(True).set_dim(out.size()).set_stride(out.stride())
        graph.build([cudnn.heur_mode.A])
        workspace = torch.empty(graph.get_workspace_size(), device="cuda", dtype=torch.uint8)
    except Exception as error:  # the package has no common base of its errors
        print("cudnn-frontend:", str(error).splitlines()[0])
        return None
    parts = [*zip(tensors, inputs, strict=True), (result, out)]
    parts += [(others[name], tensor) for name, tensor in index.items()]
    pack = dict(parts)

    def call():
        cudnn.set_stream(handle=handle, stream=torch.cuda.current_stream().cuda_stream)
        graph.execute(pack, workspace, handle=handle)

    return call if works(call) else None


def fa3_latent_calls():
    """Returns makers of FA3's calls for latent attention (MLA), by name.

    maker(q, k, values, causal): values: how many of K's first columns are V. RETURNS None if FA3
    refuses. FA3 takes these columns of q as qv, and the others of q and of K as q and k.
    """

    def maker(q, k, values, causal, splits, cache):
        latent, rest = q[..., :values], q[..., values:]
        words = {"qv": latent, "causal": causal, "softmax_scale": 1 / math.sqrt(q.shape[-1])}
        words["num_splits"] = splits
        keys, v = k[..., values:], k[..., :values]
        if cache:
            lengths = torch.full((k.shape[0],), k.shape[1], dtype=torch.int32, device=k.device)
            call = functools.partial(
                flash_attn_with_kvcache, rest, keys, v, cache_seqlens=lengths, **words
            )
        else:
            call = functools.partial(flash_attn_func, rest, keys, v, **words)
        return call if works(call) else None

    found = {"": flash_attn_func, "cache ": flash_attn_with_kvcache}
    return {
        f"{name}splits={splits}": functools.partial(maker, splits=splits, cache=bool(name))
        for name, function in found.items()
        for splits in (0, 1)
        if function is not None
    }


def cudnn_window_call(q, k, v, left, causal=True):
    """Returns a call of cuDNN's sliding window; None if it is not installed or refuses.

    A query sees keys (diagonal - left, diagonal].
    """
    if cudnn is None:
        return None
    handle, graph = new_graph(q.dtype)
    inputs = [t.transpose(1, 2) for t in (q, k, v)]
    words = {"attn_scale": 1 / math.sqrt(q.shape[-1]), "use_causal_mask": causal}
    words["sliding_window_length"] = left
    return cudnn_call(handle, graph, inputs, torch.empty_like(inputs[0]), {}, words)
