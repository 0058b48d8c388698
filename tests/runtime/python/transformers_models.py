# tests/runtime/python/transformers_models.py: tiny random models of many architectures
import copy
import math
from typing import Any

import torch
import transformers as T

SIZES = {
    "vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16,
    "max_position_embeddings": 128, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
TOKENS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}


def causal_configurations() -> dict[str, Any]:
    """Decoders. Windows are shorter than the prompts, and caps small enough to matter."""
    return {
        "Llama": T.LlamaConfig(**SIZES),
        "Mistral": T.MistralConfig(**SIZES, sliding_window=5),
        "Gemma 2": T.Gemma2Config(
            **SIZES, sliding_window=5, attn_logit_softcapping=1.5, query_pre_attn_scalar=1
        ),
        "Gemma 3": T.Gemma3TextConfig(
            **SIZES,
            sliding_window=5,
            query_pre_attn_scalar=16,
            layer_types=["sliding_attention", "full_attention"],
        ),
        "gpt-oss": T.GptOssConfig(
            **SIZES, sliding_window=5, num_local_experts=4, num_experts_per_tok=2
        ),
        "Qwen 3": T.Qwen3Config(**SIZES),
        "Phi 3": T.Phi3Config(**SIZES, sliding_window=6),
        "GPT-2": T.GPT2Config(
            vocab_size=64, n_embd=32, n_layer=2, n_head=4, n_positions=128, **TOKENS
        ),
    }


def bert_configuration() -> Any:
    sizes = {name: SIZES[name] for name in SIZES if not name.startswith(("num_key", "head_dim"))}
    return T.BertConfig(**sizes)


def t5_configuration() -> Any:
    return T.T5Config(
        vocab_size=64, d_model=32, d_kv=16, d_ff=48, num_layers=2, num_heads=4,
        decoder_start_token_id=0, pad_token_id=0, eos_token_id=2,
    )  # fmt: skip


def whisper_configuration() -> Any:
    return T.WhisperConfig(
        vocab_size=64, d_model=32, num_mel_bins=8, encoder_layers=2, decoder_layers=2,
        encoder_attention_heads=4, decoder_attention_heads=4, encoder_ffn_dim=48,
        decoder_ffn_dim=48, max_source_positions=20, max_target_positions=64,
        decoder_start_token_id=3, suppress_tokens=None, begin_suppress_tokens=None, **TOKENS,
    )  # fmt: skip


def filled(model: Any) -> Any:
    """Gives all matrices values of a size that makes attention differ from a plain mean."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1 or "sinks" in name:
                columns = 1 if "sinks" in name or "relative" in name else parameter.shape[-1]
                values = torch.randn(parameter.shape, generator=generator)
                parameter.copy_(values * 1.5 / math.sqrt(columns))
    return model.eval()


def exact_attention(
    module: Any,
    query: Any,
    key: Any,
    value: Any,
    mask: Any,
    scaling: float | None = None,
    is_causal: bool | None = None,
    softcap: float | None = None,
    s_aux: Any = None,
    position_bias: Any = None,
    **_: Any,
) -> Any:
    """Is transformers' eager attention, but for its softmax in float32, which has no -1e308."""
    groups = query.shape[1] // key.shape[1]
    key, value = (each.repeat_interleave(groups, dim=1) for each in (key, value))
    scores = query @ key.mT * (query.shape[-1] ** -0.5 if scaling is None else scaling)
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    if position_bias is not None:
        scores = scores + position_bias
    if mask is None and (module.is_causal if is_causal is None else is_causal):
        mask = torch.ones(scores.shape[2:], dtype=torch.bool).tril()
    if mask is not None and mask.dtype == torch.bool:
        scores = scores.masked_fill(~mask, -1e300)
    elif mask is not None:
        scores = scores + mask
    if s_aux is not None:
        column = s_aux.view(1, -1, 1, 1).expand(*scores.shape[:-1], 1)
        scores = torch.cat((scores, column), dim=-1)
    weights = scores.softmax(-1)[..., : key.shape[2]]
    return (weights @ value).transpose(1, 2).contiguous(), weights


def exact_mask(**words: Any) -> Any:
    words.update(allow_is_causal_skip=False, allow_is_bidirectional_skip=False)
    return T.masking_utils.sdpa_mask(**words)


T.AttentionInterface.register("exact", exact_attention)
T.AttentionMaskInterface.register("exact", exact_mask)


def use(model: Any, implementation: str) -> None:
    """Does what set_attn_implementation does; that of 5.17 leaves out the two stacks of T5."""
    for each in model.modules():
        if isinstance(each, T.PreTrainedModel):
            each.set_attn_implementation(implementation)


def made(configuration: Any, kind: Any) -> tuple[Any, Any]:
    """Returns a model, and its copy in float64 with the plain formula."""
    model = filled(kind(configuration))
    exact = copy.deepcopy(model).double()
    use(exact, "exact")
    exact.set_experts_implementation("eager")  # the default one has no float64
    return model, exact


def padded(length: int) -> dict[str, Any]:
    """Padding masks of two sequences."""
    real = torch.ones((2, length), dtype=torch.int64)
    left, right = real.clone(), real.clone()
    left[0, :4] = right[1, -5:] = 0
    return {"no mask": None, "no padding": real, "left": left, "right": right}


def error_and_limit(found: Any, eager: Any, exact: Any, seen: Any) -> tuple[float, float]:
    """Returns the largest error of logits, and what it may be.

    transformers' own eager attention in float32 makes the same sums in another order, so its error
    says how a model magnifies roundings: attnrt's may be four times that, since each is one draw of
    a random sum. Where eager happens to be nearly exact, an error of 16 roundings of the largest
    logit is left: a logit is the end of some dozens of roundings that partly cancel.
    """
    seen = torch.ones(exact.shape[:2], dtype=torch.bool) if seen is None else seen.bool()
    error, usual = (float((each.double() - exact)[seen].abs().max()) for each in (found, eager))
    return error, 4 * usual + 16 * torch.finfo(found.dtype).eps * float(exact[seen].abs().max())
