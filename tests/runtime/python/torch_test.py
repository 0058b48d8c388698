# tests/runtime/python/torch_test.py: torch tensors in and out; skipped if torch is missing
import unittest
from typing import Any

import attnrt
import numpy
import reference

try:
    import torch
except ImportError:
    torch = None


@unittest.skipIf(torch is None, "torch is not installed")
class Torch(unittest.TestCase):
    def tensors(self, dtype: Any, device: str = "cpu") -> list[Any]:
        generator = torch.Generator().manual_seed(0)
        # [batch, heads, seq, head_dim], as torch has it
        shapes = ((2, 4, 9, 32), (2, 2, 13, 32), (2, 2, 13, 32))
        return [
            torch.randn(shape, generator=generator).to(device, dtype).transpose(1, 2)
            for shape in shapes
        ]

    def wide(self, tensors: Any) -> list[Any]:
        return [tensor.double().cpu().numpy() for tensor in tensors]

    def test_each_dtype_and_transposed_views(self) -> None:
        for dtype in (torch.float32, torch.float16, torch.bfloat16):
            with self.subTest(dtype=dtype):
                q, k, v = self.tensors(dtype)
                out, lse = attnrt.attention(q, k, v, causal=True, return_lse=True)
                self.assertEqual(
                    (type(out), out.dtype, out.device), (torch.Tensor, dtype, q.device)
                )
                self.assertEqual((lse.dtype, tuple(lse.shape)), (torch.float32, (2, 4, 9)))
                expected, expected_lse = reference.attention(*self.wide((q, k, v)), causal=True)
                limit = reference.tolerance(torch.finfo(dtype).eps, v.double().numpy())
                numpy.testing.assert_allclose(out.double().numpy(), expected, rtol=0, atol=limit)
                numpy.testing.assert_allclose(lse.numpy(), expected_lse, rtol=1e-5, atol=1e-5)

    def test_masks(self) -> None:
        q, k, v = self.tensors(torch.float32)
        visible = torch.rand(9, 13) < 0.8
        for mask in (visible, torch.zeros(9, 13).masked_fill(~visible, float("-inf"))):
            expected, _ = reference.attention(*self.wide((q, k, v)), mask=visible.numpy())
            out = attnrt.attention(q, k, v, mask=mask)
            numpy.testing.assert_allclose(out.numpy(), expected, rtol=0, atol=1e-5)

    def test_out_is_written_in_place(self) -> None:
        q, k, v = self.tensors(torch.float32)
        whole = torch.zeros(2, 4, 9, 32)
        out = whole.transpose(1, 2)
        self.assertIs(attnrt.attention(q, k, v, out=out), out)
        self.assertTrue(torch.equal(whole.transpose(1, 2), attnrt.attention(q, k, v)))

    def test_as_torch_has_it(self) -> None:
        if not hasattr(torch.nn.functional, "scaled_dot_product_attention"):
            self.skipTest("this torch has no scaled_dot_product_attention")
        q, k, v = self.tensors(torch.float32)
        repeated = [tensor.transpose(1, 2).repeat_interleave(2, 1) for tensor in (k, v)]
        expected = torch.nn.functional.scaled_dot_product_attention(
            q.transpose(1, 2), *repeated, is_causal=True
        )
        out = attnrt.attention(q, k, v, causal=True, align="top_left")
        torch.testing.assert_close(out.transpose(1, 2), expected)

    def test_gradients(self) -> None:
        q, k, v = self.tensors(torch.float32)
        expected = attnrt.attention(q, k, v)
        k = k.clone().requires_grad_()
        with self.assertRaisesRegex(attnrt.InvalidArgumentError, "^k requires grad"):
            attnrt.attention(q, k, v)
        with torch.no_grad():
            self.assertTrue(torch.equal(attnrt.attention(q, k, v), expected))

    def test_forward_mode_gradients(self) -> None:
        q, k, v = self.tensors(torch.float32)
        expected = attnrt.attention(q, k, v)
        with torch.autograd.forward_ad.dual_level():
            dual = torch.autograd.forward_ad.make_dual(k, torch.ones_like(k))
            with self.assertRaisesRegex(
                attnrt.InvalidArgumentError, "^k has a forward-mode gradient"
            ):
                attnrt.attention(q, dual, v)
            wanted = torch.autograd.forward_ad.make_dual(
                k.clone().requires_grad_(), torch.ones_like(k)
            )
            with (
                torch.no_grad(),
                self.assertRaisesRegex(attnrt.InvalidArgumentError, "forward-mode gradient"),
            ):
                attnrt.attention(q, wanted, v)
            self.assertTrue(torch.equal(attnrt.attention(q, k, v), expected))

    def test_other_kinds_of_tensors(self) -> None:
        # A subclass is read by __dlpack__ and not by torch's table.
        q, k, v = self.tensors(torch.float32)
        expected = attnrt.attention(q, k, v)

        class Mine(torch.Tensor):  # type: ignore[misc]
            pass

        out = attnrt.attention(q.as_subclass(Mine), k, v)
        self.assertTrue(torch.equal(torch.Tensor(out), expected))
        parameter = torch.nn.Parameter(q)
        with self.assertRaisesRegex(attnrt.InvalidArgumentError, "^q requires grad"):
            attnrt.attention(parameter, k, v)
        with torch.no_grad():
            self.assertTrue(torch.equal(attnrt.attention(parameter, k, v), expected))
        self.assertEqual(attnrt.attention(q[:, :0], k, v).shape, (2, 0, 4, 32))
        broadcast = k[:, :1].expand_as(k)
        out = attnrt.attention(q, broadcast, v)
        self.assertTrue(torch.equal(out, attnrt.attention(q, broadcast.clone(), v)))

    def test_tensors_that_cannot_be_read(self) -> None:
        q, k, v = self.tensors(torch.float32)
        for bad, text in (
            (k.contiguous().to_sparse(), "^k is a torch.Tensor that gives no view of its memory"),
            (torch.empty_like(k, device="meta"), "^k is a torch.Tensor that gives no view"),
            (torch.zeros(1, 1, 1, 1, 1), "^k has 5 dimensions; expected 1 to 4"),
            (torch.tensor(1.0), "^k has 0 dimensions; expected 1 to 4"),
        ):
            with self.assertRaisesRegex(attnrt.InvalidArgumentError, text):
                attnrt.attention(q, bad, v)

    def test_negated_views(self) -> None:
        q, k, v = self.tensors(torch.float32)
        negated = torch._neg_view(k)
        with self.assertRaisesRegex(attnrt.InvalidArgumentError, "^k is a view that torch negates"):
            attnrt.attention(q, negated, v)
        out = attnrt.attention(q, negated.resolve_neg(), v)
        self.assertTrue(torch.equal(out, attnrt.attention(q, -k, v)))

    def test_results_of_other_sizes(self) -> None:
        q, k, v = self.tensors(torch.float32)
        for columns in (16, 32):
            out = attnrt.attention(q, k, v[..., :columns])
            self.assertEqual((tuple(out.shape), out.is_contiguous()), ((2, 9, 4, columns), True))

    def test_plan(self) -> None:
        q, k, v = self.tensors(torch.bfloat16)
        plan = attnrt.default_runtime().plan(
            dtype="bf16", batch=2, heads_q=4, heads_kv=2, seq_q=16, seq_kv=16, head_dim=32
        )
        self.assertTrue(torch.equal(plan.run(q, k, v), attnrt.attention(q, k, v)))

    def test_devices(self) -> None:
        if not torch.cuda.is_available():
            self.skipTest("torch sees no GPU")
        q, k, v = self.tensors(torch.float16, "cuda")
        try:
            out = attnrt.attention(q, k, v, causal=True)
        except attnrt.UnsupportedError as error:
            self.skipTest(f"no backend is installed for it: {error}")
        expected, _ = reference.attention(*self.wide((q, k, v)), causal=True)
        numpy.testing.assert_allclose(out.double().cpu().numpy(), expected, rtol=0, atol=0.01)
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        again = torch.empty_like(out)
        attnrt.attention(q, k, v, causal=True, out=again, stream=side)
        side.synchronize()
        self.assertTrue(torch.equal(again, out))


if __name__ == "__main__":
    unittest.main()
