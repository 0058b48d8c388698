# tests/runtime/python/layout_test.py: tensors of [batch, heads, seq, head_dim]
import unittest

import attnrt
import numpy
from attention_test import tensors


class Layouts(unittest.TestCase):
    def test_heads_before_seq(self) -> None:
        q, k, v = tensors()
        turned = [tensor.swapaxes(1, 2) for tensor in (q, k, v)]
        expected, expected_lse = attnrt.attention(q, k, v, causal=True, return_lse=True)
        words = dict(causal=True, return_lse=True, layout="bhsd")
        for given in (turned, [numpy.ascontiguousarray(tensor) for tensor in turned]):
            out, lse = attnrt.attention(*given, **words)
            numpy.testing.assert_array_equal(out, expected.swapaxes(1, 2))
            numpy.testing.assert_array_equal(lse, expected_lse)
            self.assertTrue(out.flags.c_contiguous)
            into = numpy.empty_like(out)
            self.assertIs(attnrt.attention(*given, out=into, **words)[0], into)
            numpy.testing.assert_array_equal(into, out)
        plan = attnrt.default_runtime().plan(
            dtype="f32", batch=2, heads_q=4, heads_kv=2, seq_q=9, seq_kv=13, head_dim=24
        )
        numpy.testing.assert_array_equal(
            plan.run(*turned, layout="bhsd"), attnrt.attention(*turned, layout="bhsd")
        )
        schedule = plan.schedule()
        schedule.build(*turned, layout="bhsd")
        plan.run(q, k, v, schedule=schedule)

    def test_heads_before_seq_of_8_bits(self) -> None:
        q, k, _ = tensors(dtype=numpy.float16)
        stored, scale = attnrt.quantize(k, "i8")
        words = dict(k_scale=scale, v_scale=scale)
        expected = attnrt.attention(q, stored, stored, **words)
        turned = [tensor.swapaxes(1, 2) for tensor in (q, stored, stored)]
        words = {name: scale.swapaxes(1, 2) for name, scale in words.items()}
        out = attnrt.attention(*turned, layout="bhsd", **words)
        numpy.testing.assert_array_equal(out.swapaxes(1, 2), expected)

    def test_layouts_that_are_none(self) -> None:
        q, k, v = tensors()
        for layout, text in (
            ("sbhd", "layout: found 'sbhd'; expected 'bshd' or 'bhsd'"),
            (None, "layout: found None; expected"),
        ):
            with self.assertRaisesRegex(attnrt.InvalidArgumentError, text):
                attnrt.attention(q, k, v, layout=layout)  # type: ignore[arg-type]
        with self.assertRaisesRegex(attnrt.InvalidArgumentError, "q has 3 dimensions; layout"):
            attnrt.attention(q[0], k[0], v[0], layout="bhsd")


if __name__ == "__main__":
    unittest.main()
