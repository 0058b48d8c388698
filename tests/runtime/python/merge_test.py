# tests/runtime/python/merge_test.py: merge() of results over parts of the keys
import unittest
from typing import Any

import attnrt
import numpy


def partials(rows: tuple[int, ...] = (2, 3, 4), count: int = 3, dim: int = 16) -> Any:
    """Random outs [*rows, dim], and lses with seq and heads exchanged; one partial saw nothing."""
    random = numpy.random.default_rng(0)
    outs = [random.standard_normal((*rows, dim)).astype("float32") for _ in range(count)]
    *batch, seq, heads = rows
    lses = [random.uniform(-9, 9, (*batch, heads, seq)).astype("float32") for _ in range(count)]
    lses[1][..., 0] = -numpy.inf
    return outs, lses


def expected(outs: Any, lses: Any) -> tuple[Any, Any]:
    exact = numpy.array(lses, dtype="float64")
    lse = numpy.log(numpy.exp(exact).sum(axis=0))
    weights = numpy.swapaxes(numpy.exp(exact - lse), -1, -2)[..., None]
    return (weights * numpy.array(outs, dtype="float64")).sum(axis=0), lse


class Merge(unittest.TestCase):
    def test_dense_and_packed(self) -> None:
        for rows in ((2, 3, 4), (7, 4)):
            with self.subTest(rows=rows):
                outs, lses = partials(rows)
                out, lse = attnrt.merge(outs, lses, return_lse=True)
                right, right_lse = expected(outs, lses)
                self.assertEqual((out.dtype, lse.dtype), (numpy.float32, numpy.float32))
                numpy.testing.assert_allclose(out, right, rtol=0, atol=4e-6)
                numpy.testing.assert_allclose(lse, right_lse, rtol=0, atol=4e-6)

    def test_into_given_memory(self) -> None:
        outs, lses = partials()
        right = expected(outs, lses)[0]
        half = numpy.empty(outs[0].shape, "float16")
        self.assertIs(attnrt.merge(outs, lses, out=half), half)
        numpy.testing.assert_allclose(half.astype("float64"), right, rtol=0, atol=4e-3)
        attnrt.merge(outs, lses, out=outs[0])
        numpy.testing.assert_allclose(outs[0], right, rtol=0, atol=4e-6)

    def test_parts_of_the_keys_are_the_whole(self) -> None:
        random = numpy.random.default_rng(1)
        q, k, v = (random.standard_normal((1, n, 2, 8)).astype("float32") for n in (5, 12, 12))
        whole = attnrt.attention(q, k, v)
        parts = [
            attnrt.attention(q, k[:, some], v[:, some], return_lse=True)
            for some in (slice(0, 7), slice(7, 12))
        ]
        merged = attnrt.merge([out for out, _ in parts], [lse for _, lse in parts])
        numpy.testing.assert_allclose(merged, whole, rtol=0, atol=4e-6)

    def test_what_does_not_fit_is_refused(self) -> None:
        outs, lses = partials()
        for wrong, message in (
            (lambda: attnrt.merge([], []), "found 0 outs and 0 lses"),
            (lambda: attnrt.merge(outs, lses[:1]), "found 3 outs and 1 lses"),
            (lambda: attnrt.merge([outs[0].astype("float16")], lses[:1]), "outs[0] is f16"),
            (lambda: attnrt.merge(outs, [each[:1] for each in lses]), "lses[0] has 1"),
            (lambda: attnrt.merge(outs, lses, out=outs[1][:, :, ::-1]), "stride"),
            (lambda: attnrt.merge([3], [4]), "outs[0] has 0 dimensions"),
        ):
            with self.assertRaises(attnrt.InvalidArgumentError) as raised:
                wrong()
            self.assertIn(message, str(raised.exception))


if __name__ == "__main__":
    unittest.main()
