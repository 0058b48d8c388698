# tests/runtime/python/transformers_attention_test.py: the attention function against float64
import logging
import unittest
import unittest.mock
from typing import Any

import attnrt

try:
    import torch
    import transformers
except ImportError:
    transformers = None
else:
    import attnrt.transformers
    import torch_reference
    from attnrt import _counts, _transformers_attention, _transformers_masks
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch_operator_test import devices
    from transformers import masking_utils

    attention = _transformers_attention.attention

BATCH, HEADS, KV_HEADS, HEAD_DIM = 2, 6, 2, 32  # what backends of GPUs take, too
CALL = dict[str, Any]


def formula(q: Any, k: Any, v: Any, mask: Any, words: CALL) -> Any:
    """Computes in float64 what a model asks for. mask is boolean, [batch, 1, queries, keys]."""
    k, v = (each.double().repeat_interleave(HEADS // KV_HEADS, dim=1) for each in (k, v))
    scores = q.double() @ k.mT * words.get("scaling", HEAD_DIM**-0.5)
    if "softcap" in words:
        scores = words["softcap"] * torch.tanh(scores / words["softcap"])
    if "position_bias" in words:
        scores = scores + words["position_bias"].double()
    scores = scores.masked_fill(~mask, -1e300)
    if "s_aux" in words:
        column = words["s_aux"].double().view(1, -1, 1, 1).expand(*scores.shape[:-1], 1)
        scores = torch.cat((scores, column), dim=-1)
    return (scores.softmax(-1)[..., : k.shape[2]] @ v).transpose(1, 2)


def error_limit(q: Any, k: Any, v: Any, words: CALL) -> float:
    """Bounds the error as torch_reference does; a bias makes scores, and their errors, larger."""
    limit = torch_reference.limit(q, k, v, scale=words.get("scaling"))
    if "position_bias" in words:
        largest = float(words["position_bias"].abs().max())
        limit += 2 * 2.0**-24 * largest * float(v.double().abs().max())
    return float(limit)


class Module(torch.nn.Module if transformers else object):  # type: ignore[misc]
    """What the functions read of a model's attention module."""

    num_key_value_groups = HEADS // KV_HEADS

    def __init__(self, is_causal: bool = True) -> None:
        super().__init__()
        self.is_causal = is_causal
        self.eval()


class Calls(unittest.TestCase):
    def setUp(self) -> None:
        if transformers is None:
            self.skipTest("torch and transformers are not installed")
        self.generator = torch.Generator().manual_seed(0)
        attnrt.transformers.register()
        attnrt.transformers.reset_counters()
        logging.disable(logging.WARNING)
        self.addCleanup(logging.disable, logging.NOTSET)

    def normal(self, *shape: int, device: str = "cpu", dtype: Any = None) -> Any:
        dtype = dtype or torch.float32
        return torch.randn(shape, generator=self.generator).to(device, dtype)

    def tensors(self, queries: int, keys: int, **where: Any) -> list[Any]:
        return [
            3 * self.normal(BATCH, HEADS, queries, HEAD_DIM, **where),
            self.normal(BATCH, KV_HEADS, keys, HEAD_DIM, **where),
            self.normal(BATCH, KV_HEADS, keys, HEAD_DIM, **where),
        ]


class Attention(Calls):
    def check(self, given: list[Any], mask: Any, boolean: Any, words: CALL) -> None:
        with torch.no_grad():
            out, weights = attention(Module(), *given, mask, **words)
        self.assertIsNone(weights)
        expected = formula(*given, boolean, words)
        self.assertEqual((out.shape, out.dtype), (expected.shape, given[0].dtype))
        self.assertTrue(out.is_contiguous())
        seen = boolean.any(-1)[:, 0, :, None, None]  # rows that see nothing are nobody's
        error = float(((out.double() - expected) * seen).abs().max())
        self.assertLessEqual(error, error_limit(*given, words), str(words.keys()))

    def test_a_grid(self) -> None:
        for device in devices():
            for dtype in (torch.float32, torch.bfloat16):
                for queries, keys, offset in ((9, 9, 0), (4, 13, 9), (1, 13, 12), (1, 20, 12)):
                    self.check_masks(queries, keys, offset, {"device": device, "dtype": dtype})
        counted = attnrt.transformers.counters()
        self.assertEqual((counted["fell_back"], counted["reasons"]), (0, {}))
        self.assertEqual(set(counted["masks"]), {"none", "words", "tensor"})

    def check_masks(self, queries: int, keys: int, offset: int, where: CALL) -> None:
        given = self.tensors(queries, keys, **where)
        sinks = 2 * self.normal(HEADS, **where)
        bias = self.normal(1, HEADS, queries, keys, **where)
        real = torch.ones((BATCH, offset + queries), dtype=torch.bool, device=where["device"])
        left, right = real.clone(), real.clone()
        left[0, :3] = right[0, -3:] = False
        static = keys > offset + queries
        no_padding = torch.zeros(BATCH, dtype=torch.int64, device=where["device"])
        for function in (
            masking_utils.causal_mask_function,
            masking_utils.sliding_window_causal_mask_function(4),
            masking_utils.chunked_causal_mask_function(5, no_padding),
        ):
            for padding in (None, real, left, right):
                made = {
                    "batch_size": BATCH, "q_length": queries, "kv_length": keys,
                    "q_offset": torch.tensor(offset, device=where["device"]) if static else offset,
                    "mask_function": function, "attention_mask": padding,
                    "device": where["device"], "local_size": 5,
                    "allow_is_causal_skip": function is masking_utils.causal_mask_function,
                }  # fmt: skip
                mask = _transformers_masks.mask_in_words(**made)
                boolean = masking_utils.sdpa_mask(**{**made, "allow_is_causal_skip": False})
                for words in (
                    {},
                    {"scaling": 0.7, "is_causal": True},
                    {"softcap": 1.5},
                    {"s_aux": sinks},
                    {"softcap": 2.0, "s_aux": sinks, "sliding_window": 4},
                    {"position_bias": bias},
                ):
                    with self.subTest(queries=queries, offset=offset, words=list(words), **where):
                        self.check(given, mask, boolean, words)

    def test_additive_masks(self) -> None:
        given = self.tensors(5, 8)
        boolean = torch.rand((BATCH, 1, 5, 8), generator=self.generator) < 0.7
        boolean[..., 0] = True
        for dtype in (torch.float32, torch.float64):
            mask = torch.zeros(boolean.shape, dtype=dtype)
            mask = mask.masked_fill(~boolean, torch.finfo(torch.float32).min)
            self.check(given, mask, boolean, {})
            self.check(given, mask, boolean, {"position_bias": self.normal(1, HEADS, 5, 8)})
        self.assertEqual(attnrt.transformers.counters()["masks"], {"tensor": 4})

    def test_packed_sequences(self) -> None:
        q, k, v = (each[:1] for each in self.tensors(11, 11))
        ids = torch.tensor([0, 0, 0, 0, 1, 1, 2, 2, 2, 2, 2])
        offsets = torch.tensor([0, 4, 6, 11])
        for window in (None, 2):
            boolean = (ids[:, None] == ids).tril()[None, None]
            if window:
                boolean = boolean.triu(-window + 1)
            words = {"cu_seq_lens_q": offsets, "cu_seq_lens_k": offsets, "sliding_window": window}
            self.check([q, k, v], None, boolean, words)
            function = masking_utils.and_masks(
                masking_utils.sliding_window_causal_mask_function(window or 99),
                masking_utils.packed_sequence_mask_function(ids[None]),
            )
            mask = _transformers_masks.mask_in_words(
                batch_size=1, q_length=11, kv_length=11, mask_function=function,
                allow_is_causal_skip=False,
            )  # fmt: skip
            self.check([q, k, v], mask, boolean, {})
        self.assertEqual(attnrt.transformers.counters()["masks"], {"packed": 4})

    def test_autocast(self) -> None:
        q, k, v = self.tensors(5, 5)
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            out, _ = attention(Module(), q, k, v.bfloat16(), None)
        self.assertEqual(out.dtype, torch.bfloat16)
        self.assertEqual(attnrt.transformers.counters()["served"], 1)


class Left(Calls):
    """Calls that torch computes."""

    def left(
        self, reason: str, given: Any, words: CALL, module: Any = None, mask: Any = None
    ) -> Any:
        attnrt.transformers.reset_counters()
        results = attention(module or Module(), *given, mask, **words)
        counted = attnrt.transformers.counters()
        self.assertEqual((counted["served"], counted["reasons"]), (0, {reason: 1}))
        return results

    def test_reasons(self) -> None:
        given = self.tensors(6, 6)
        causal = torch.ones((6, 6), dtype=torch.bool).tril()[None, None]
        double = [each.double() for each in given]
        out, _ = self.left("dtype float64", double, {})
        torch.testing.assert_close(out, formula(*double, causal, {}))
        for words in ({}, {"softcap": 1.5}, {"s_aux": self.normal(HEADS)}):
            words = {"output_attentions": True, **words}
            out, weights = self.left("output_attentions", given, words)
            torch.testing.assert_close(
                out.double(), formula(*given, causal, words), atol=1e-5, rtol=0
            )
            self.assertEqual(tuple(weights.shape), (BATCH, HEADS, 6, 6))
            total = weights.sum(-1)
            if "s_aux" in words:
                self.assertTrue(bool((total < 1.0).all()))
            else:
                torch.testing.assert_close(total, torch.ones_like(total))
        head_mask = torch.ones(HEADS)
        head_mask[2] = 0
        out, _ = self.left("head_mask", given, {"head_mask": head_mask})
        self.assertEqual(float(out[:, :, 2].abs().max()), 0.0)
        self.assertGreater(float(out[:, :, 3].abs().max()), 0.0)
        module = Module().train()
        for words in ({}, {"softcap": 1.5}):
            out, _ = self.left("dropout", given, {"dropout": 0.9, **words}, module)
            difference = (out.double() - formula(*given, causal, words)).abs()
            self.assertGreater(float(difference.max()), 0.1)

    def test_gradients(self) -> None:
        causal = torch.ones((6, 6), dtype=torch.bool).tril()[None, None]
        sinks = self.normal(HEADS)
        for words in ({}, {"softcap": 1.5}, {"s_aux": sinks}, {"softcap": 1.5, "s_aux": sinks}):
            for mask in (None, _transformers_masks.mask_in_words(
                batch_size=BATCH, q_length=6, kv_length=6,
                mask_function=masking_utils.sliding_window_causal_mask_function(3),
            )):  # fmt: skip
                boolean = causal if mask is None else mask & True
                given = [each.requires_grad_() for each in self.tensors(6, 6)]
                out, _ = self.left("gradient", given, words, mask=mask)
                out.square().sum().backward()
                found = [each.grad.clone() for each in given]
                again = [each.detach().double().requires_grad_() for each in given]
                formula(*again, boolean, words).square().sum().backward()
                for one, other in zip(found, again, strict=True):
                    torch.testing.assert_close(one.double(), other.grad, rtol=1e-4, atol=1e-4)

    def test_torch_func(self) -> None:
        causal = torch.ones((6, 6), dtype=torch.bool).tril()[None, None]
        given = self.tensors(6, 6)
        with torch.no_grad():
            out = torch.func.vmap(lambda *one: attention(Module(), *one, None)[0])(
                *(each[:, None] for each in given)
            )
        expected = formula(*given, causal, {})[:, None]
        torch.testing.assert_close(out.double(), expected, rtol=0, atol=1e-5)
        counted = attnrt.transformers.counters()
        self.assertEqual((counted["served"], counted["reasons"]), (0, {"tensor of torch.func": 1}))

    def test_what_is_logged(self) -> None:
        def calls(*made: Any) -> list[str]:
            with unittest.mock.patch.object(_transformers_attention, "_logger") as logger:
                for given, words in made:
                    attention(Module(), *given, None, **words)
            return [call.args[0] for call in logger.warning_once.call_args_list]

        given = self.tensors(6, 6)
        double = [each.double() for each in given]
        text = "attnrt.transformers leaves calls to torch: "
        self.assertEqual(
            calls((given, {}), (double, {}), (double, {}), (given, {"output_attentions": True})),
            [text + "dtype float64", text + "output_attentions"],
        )
        with unittest.mock.patch.object(_counts, "MOST_REASONS", 2):  # there are two now
            self.assertEqual(calls((given, {"scaling": 0}), (given, {"scaling": 0})), [])
        counted = attnrt.transformers.counters()
        self.assertEqual(counted["reasons"]["others"], 2)
        meta = [each.to("meta") for each in given]
        with FakeTensorMode(allow_non_fake_inputs=True) as mode:
            fake = [mode.from_tensor(each) for each in given]
            self.assertEqual(calls((fake, {}), (meta, {})), [])
        self.assertEqual(attnrt.transformers.counters(), counted)

    def test_tensors_without_memory(self) -> None:
        meta = [each.to("meta") for each in self.tensors(6, 6)]
        for words in ({}, {"softcap": 1.5}):
            out, _ = attention(Module(), *meta, None, **words)
            self.assertEqual((out.device.type, out.shape), ("meta", (BATCH, 6, HEADS, HEAD_DIM)))
        counted = attnrt.transformers.counters()
        self.assertEqual((counted["served"], counted["fell_back"]), (0, 0))

    def test_a_trace_of_torch_jit(self) -> None:
        def layer(q: Any, k: Any, v: Any) -> Any:
            return attention(Module(), q, k, v, None)[0]

        causal = torch.ones((6, 6), dtype=torch.bool).tril()[None, None]
        with torch.no_grad():
            traced = torch.jit.trace(layer, tuple(self.tensors(6, 6)), check_trace=False)
            self.assertEqual(attnrt.transformers.counters()["served"], 0)
            given = self.tensors(6, 6)
            expected = formula(*given, causal, {})
            torch.testing.assert_close(traced(*given).double(), expected, rtol=0, atol=1e-5)

    def test_what_no_backend_supports(self) -> None:
        given = self.tensors(6, 6)
        causal = torch.ones((6, 6), dtype=torch.bool).tril()[None, None]
        attnrt.transformers.register(
            attnrt.Runtime(policy_text="schema: 1\nbackends: {cpu: {enabled: false}}\n")
        )
        self.addCleanup(attnrt.transformers.register)
        with torch.no_grad():
            out, _ = attention(Module(), *given, None)
        torch.testing.assert_close(out.double(), formula(*given, causal, {}), rtol=0, atol=1e-5)
        [(reason, count)] = attnrt.transformers.counters()["reasons"].items()
        self.assertRegex(reason, "^unsupported: .*cpu")
        self.assertEqual(count, 1)

    def test_words_that_no_backend_supports(self) -> None:
        given = self.tensors(6, 6)
        rule = "{name: no lengths, when: {kv_lengths: true}, deny: [cpu]}"
        attnrt.transformers.register(attnrt.Runtime(policy_text=f"schema: 1\nrules: [{rule}]\n"))
        self.addCleanup(attnrt.transformers.register)
        real = torch.ones((BATCH, 6), dtype=torch.bool)
        real[1, 4:] = False
        made = {"batch_size": BATCH, "q_length": 6, "kv_length": 6, "attention_mask": real}
        mask = _transformers_masks.mask_in_words(**made)
        self.assertIsNotNone(mask.attnrt_words.kv_lengths)
        boolean = masking_utils.sdpa_mask(**made, allow_is_causal_skip=False)
        with torch.no_grad():
            out, _ = attention(Module(), *given, mask)
        torch.testing.assert_close(out.double(), formula(*given, boolean, {}), rtol=0, atol=1e-5)
        self.assertEqual(attnrt.transformers.counters()["masks"], {"tensor": 1})

    def test_wrong_calls(self) -> None:
        given = self.tensors(6, 6)
        offsets = torch.tensor([0, 6])
        for pattern, words in (
            ("attention_mask is a str; expected a tensor", {"attention_mask": "causal"}),
            ("cu_seq_lens_q: .*dropout.*packed", {
                "attention_mask": None, "cu_seq_lens_q": offsets, "cu_seq_lens_k": offsets,
                "dropout": 0.5,
            }),
        ):  # fmt: skip
            with self.assertRaisesRegex(attnrt.InvalidArgumentError, pattern):
                attention(Module(), *given, **words)
        with self.assertRaisesRegex(attnrt.InvalidArgumentError, "needs the cache of continuous"):
            _transformers_attention.paged_attention(Module(), *given, None)


if __name__ == "__main__":
    unittest.main()
