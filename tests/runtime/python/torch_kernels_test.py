# tests/runtime/python/torch_kernels_test.py: what attnrt computes in the place of torch's kernels
import math
import unittest
import unittest.mock
from collections.abc import Iterator
from typing import Any

try:
    import torch
except ImportError:
    torch = None
else:
    import attnrt.torch
    import torch_reference
    from attnrt import _torch_kernels


@unittest.skipIf(torch is None, "torch is not installed")
class Kernels(unittest.TestCase):
    """Each kernel runs on the CPU's tensors, too: they only differ in what they return."""

    def check(
        self, name: str, kernel: Any, q: Any, k: Any, v: Any, *more: Any, **words: Any
    ) -> Any:
        results = kernel(q, k, v, *more, **words)
        operator = getattr(torch.ops.aten, name).default
        meta = [each.to("meta") if isinstance(each, torch.Tensor) else each for each in more]
        expected = operator(q.to("meta"), k.to("meta"), v.to("meta"), *meta, **words)
        self.assertEqual(len(results), len(expected))
        if expected[0].shape[-1] != v.shape[-1]:
            return results  # this torch has no such kernel where v's width is its own
        for found, wanted in zip(results, expected, strict=True):
            if isinstance(wanted, torch.Tensor):
                self.assertEqual(
                    (found.shape, found.dtype, found.stride()),
                    (wanted.shape, wanted.dtype, wanted.stride()),
                )
            else:
                self.assertEqual(found, wanted)
        return results

    def given(self) -> Iterator[list[Any]]:
        for [q, k, v], words in torch_reference.grid("cpu"):
            if q.dim() == k.dim() == 4 and not words and k.shape[:2] == q.shape[:2]:
                yield [q, k, v]

    def close(self, found: Any, wanted: Any, given: Any) -> None:
        limit = torch_reference.limit(*given)
        torch.testing.assert_close(found.double(), wanted, rtol=0, atol=limit)

    def lse(self, q: Any, k: Any, empty: float) -> Any:
        """empty: what torch's kernel gives a row that sees nothing."""
        scores = q.double() @ k.double().mT / math.sqrt(q.shape[-1])
        lse = scores.logsumexp(-1)
        return lse.masked_fill(lse == -math.inf, empty)

    def test_a_row_that_sees_nothing_has_torchs_lse(self) -> None:
        q, k, v = (torch.randn(1, 2, 4, 8) for _ in range(3))
        hidden = torch.ones(4, 4, dtype=torch.bool).tril(-1)  # row 0 sees nothing
        mask = torch.zeros(4, 4).masked_fill(~hidden, -math.inf)
        for lse in (
            _torch_kernels.flash_for_cpu(q, k, v, attn_mask=mask)[1],
            _torch_kernels.efficient(q, k, v, mask.expand(1, 2, 4, 4), True)[1][..., :4],
        ):
            self.assertEqual(lse[..., 0].tolist(), [[0.0, 0.0]])
            self.assertTrue(lse.isfinite().all())

    def test_a_compiled_step_of_training_has_torchs_gradients(self) -> None:
        hidden = torch.ones(4, 4, dtype=torch.bool).tril(-1)
        for mask in (hidden, torch.zeros(4, 4).masked_fill(~hidden, -math.inf)):
            gradients = []
            given = torch.randn(1, 2, 4, 8)
            for enabled in (False, True):
                q = given.clone().requires_grad_()
                if enabled:
                    attnrt.torch.enable()
                try:
                    torch._dynamo.reset()
                    function = torch.nn.functional.scaled_dot_product_attention
                    compiled = torch.compile(
                        lambda q, mask=mask, function=function: function(q, q, q, mask),
                        backend="aot_eager",
                    )
                    compiled(q).sum().backward()
                finally:
                    attnrt.torch.disable()
                gradients.append(q.grad)
            torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-4, atol=1e-5)

    def test_flash(self) -> None:
        for q, k, v in self.given():
            with self.subTest(q=q.shape, stride=q.stride()):
                for causal in (False, True):
                    out, lse, *_ = self.check(
                        "_scaled_dot_product_flash_attention",
                        _torch_kernels.flash,
                        q, k, v, 0.0, causal,
                    )  # fmt: skip
                    if causal:  # lower right
                        mask = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool)
                        mask = mask.tril(k.shape[2] - q.shape[2])
                        self.close(out, torch_reference.expected(q, k, v, mask), (q, k, v))
                    else:
                        self.close(out, torch_reference.expected(q, k, v), (q, k, v))
                        expected = self.lse(q, k, math.inf)
                        self.close(lse, expected, (q.float(), k, torch.ones(1)))

    def test_flash_on_rocm(self) -> None:
        given = [torch.zeros(1, 1, n, 8) for n in (3, 4, 4)]
        with unittest.mock.patch.object(torch.version, "hip", "6.4"):
            _torch_kernels.flash(*given)
            with self.assertRaisesRegex(_torch_kernels.NotServed, "versions of ROCm"):
                _torch_kernels.flash(*given, is_causal=True)

    def test_efficient_and_cudnn(self) -> None:
        for name, kernel, empty in (
            ("_scaled_dot_product_efficient_attention", _torch_kernels.efficient, 0.0),
            ("_scaled_dot_product_cudnn_attention", _torch_kernels.cudnn, -math.inf),
        ):
            for q, k, v in self.given():
                bias = torch.randn(q.shape[2], k.shape[2]).to(q.dtype)
                bias = bias.expand(*q.shape[:2], -1, -1)
                for more, words in (
                    ((None, False), {}),
                    ((None, True), {"is_causal": True}),
                    ((bias, True), {"scale": 0.5}),
                ):
                    with self.subTest(name=name, q=q.shape, more=more[1], **words):
                        out, lse, *_ = self.check(name, kernel, q, k, v, *more, **words)
                        expected = torch_reference.expected(q, k, v, more[0], **words)
                        self.close(out, expected, (q, k, v))
                out, lse, *_ = kernel(q, k, v, None, True)
                lse = lse.reshape(*q.shape[:2], -1)[..., : q.shape[2]]
                self.close(lse, self.lse(q, k, empty), (q.float(), k, torch.ones(1)))

    def test_flash_for_cpu(self) -> None:
        name = "_scaled_dot_product_flash_attention_for_cpu"
        if not hasattr(torch.library, "get_kernel"):
            self.skipTest("this torch is too old for attnrt.torch.enable")
        self.addCleanup(attnrt.torch.disable)
        attnrt.torch.reset_counters()
        for q, k, v in self.given():
            if q.shape[-1] != v.shape[-1] or not k.numel() or q.stride(-1) != 1:
                continue  # torch's kernel is not called with these
            torchs, torchs_lse = getattr(torch.ops.aten, name)(q, k, v, is_causal=True)
            attnrt.torch.enable()
            out, lse = self.check(name, getattr(torch.ops.aten, name), q, k, v, is_causal=True)
            attnrt.torch.disable()
            limit = 2 * torch_reference.limit(q, k, v)  # of both
            formula = torch_reference.expected(q, k, v, is_causal=True)
            self.close(out, formula, (q, k, v))
            if q.shape[2] == 1 and (torchs - formula).abs().max() > limit:
                continue  # in some versions one query sees all keys
            torch.testing.assert_close(out, torchs, rtol=0, atol=limit)
            limit = 2 * torch_reference.limit(q.float(), k, torch.ones(1))
            torch.testing.assert_close(lse, torchs_lse, rtol=0, atol=limit)
        self.assertGreater(attnrt.torch.counters()["operators"][name], 5)


if __name__ == "__main__":
    unittest.main()
