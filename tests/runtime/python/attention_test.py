# tests/runtime/python/attention_test.py: attention() on numpy arrays, compared with float64
import threading
import unittest
from typing import Any

import attnrt
import numpy
import reference

EPSILON = {"float32": 2.0**-23, "float16": 2.0**-10, "bfloat16": 2.0**-7}


def tensors(
    seed: int = 0,
    batch: int = 2,
    seq_q: int = 9,
    seq_kv: int = 13,
    heads_q: int = 4,
    heads_kv: int = 2,
    head_dim: int = 24,
    head_dim_v: int | None = None,
    dtype: Any = "float32",
) -> list[Any]:
    random = numpy.random.default_rng(seed)
    shapes = [
        (batch, seq_q, heads_q, head_dim),
        (batch, seq_kv, heads_kv, head_dim),
        (batch, seq_kv, heads_kv, head_dim_v or head_dim),
    ]
    return [random.standard_normal(shape).astype(dtype) for shape in shapes]


class Values(unittest.TestCase):
    def check(self, q: Any, k: Any, v: Any, **words: Any) -> Any:
        expected, expected_lse = reference.attention(q, k, v, **words)
        out, lse = attnrt.attention(q, k, v, return_lse=True, **words)
        self.assertEqual((out.shape, out.dtype), (expected.shape, q.dtype))
        self.assertEqual((lse.shape, lse.dtype), (expected_lse.shape, numpy.float32))
        limit = reference.tolerance(EPSILON[q.dtype.name], v)
        numpy.testing.assert_allclose(out.astype(numpy.float64), expected, rtol=0, atol=limit)
        numpy.testing.assert_allclose(lse, expected_lse, rtol=1e-5, atol=1e-5)
        return out

    def test_each_dtype(self) -> None:
        import ml_dtypes

        for dtype in (numpy.float32, numpy.float16, ml_dtypes.bfloat16):
            with self.subTest(dtype=numpy.dtype(dtype).name):
                self.check(*tensors(dtype=dtype), causal=True)

    def test_each_number_of_heads(self) -> None:
        for heads_kv in (1, 2, 4):
            with self.subTest(heads_kv=heads_kv):
                self.check(*tensors(heads_kv=heads_kv))

    def test_keys_and_values_of_8_bits(self) -> None:
        import ml_dtypes

        q, k, v = tensors(dtype=numpy.float16)
        k_scale, v_scale = numpy.array([0.5, 0.25], "float32"), numpy.array([2, 0.125], "float32")
        for dtype in (numpy.int8, ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e4m3fnuz):
            with self.subTest(dtype=numpy.dtype(dtype).name):
                stored_k, stored_v = (2 * k).astype(dtype), (4 * v).astype(dtype)
                real_k = stored_k.astype("float32") * k_scale[:, None]
                real_v = stored_v.astype("float32") * v_scale[:, None]
                expected, _ = reference.attention(q, real_k, real_v)
                out = attnrt.attention(q, stored_k, stored_v, k_scale=k_scale, v_scale=v_scale)
                limit = reference.tolerance(EPSILON["float16"], real_v)
                numpy.testing.assert_allclose(out.astype("float64"), expected, rtol=0, atol=limit)

    def test_values_in_the_keys(self) -> None:
        q, k, _ = tensors(head_dim=24)
        expected, _ = reference.attention(q, k, k[..., :16])
        out = numpy.full((*q.shape[:3], 16), numpy.nan, q.dtype)
        attnrt.attention(q, k, None, v_in_k=True, out=out)
        numpy.testing.assert_allclose(out, expected, rtol=0, atol=1e-5)
        whole, _ = reference.attention(q, k, k)
        numpy.testing.assert_allclose(
            attnrt.attention(q, k, None, v_in_k=True), whole, rtol=0, atol=1e-5
        )

    def test_diagonal_offsets(self) -> None:
        offsets = numpy.array([3, -2], "int32")
        for align in ("bottom_right", "top_left"):
            with self.subTest(align=align):
                self.check(*tensors(), causal=True, align=align, diagonal_offset=offsets)

    def test_results_in_float32(self) -> None:
        q, k, v = tensors(dtype=numpy.float16)
        out = numpy.full(q.shape, numpy.nan, "float32")
        attnrt.attention(q, k, v, out=out)
        expected, _ = reference.attention(q, k, v)
        limit = reference.tolerance(EPSILON["float16"], v)
        numpy.testing.assert_allclose(out, expected, rtol=0, atol=limit)

    def test_values_of_another_head_dim(self) -> None:
        self.check(*tensors(head_dim=16, head_dim_v=40))

    def test_causal_in_both_alignments(self) -> None:
        for align in ("bottom_right", "top_left"):
            for seq_q, seq_kv in ((9, 13), (13, 9), (1, 13)):
                with self.subTest(align=align, seq_q=seq_q, seq_kv=seq_kv):
                    self.check(*tensors(seq_q=seq_q, seq_kv=seq_kv), causal=True, align=align)

    def test_windows(self) -> None:
        self.check(*tensors(), window_left=3)
        self.check(*tensors(), window_left=0, window_right=2)
        self.check(*tensors(), window_left=4, causal=True)

    def test_values_that_were_parsed_before(self) -> None:
        q, k, v = tensors()
        # Equal values of other objects and sets of values in turn, more than are kept.
        for times in range(2):
            for number in range(12):
                scale = float(str(number / 16 + 0.25))
                expected, _ = reference.attention(q, k, v, scale=scale, window_left=number + 300)
                out = attnrt.attention(q, k, v, scale=scale, window_left=int(str(number + 300)))
                numpy.testing.assert_allclose(out, expected, rtol=0, atol=1e-5, err_msg=str(times))
        # True and 1 are different objects that mean the same.
        self.check(*tensors(), causal=True)
        numpy.testing.assert_array_equal(
            attnrt.attention(q, k, v, causal=1), attnrt.attention(q, k, v, causal=True)
        )
        # What can change is read again each time.
        scale = numpy.array(0.5)
        first = attnrt.attention(q, k, v, scale=scale)
        scale[()] = 0.125
        numpy.testing.assert_array_equal(
            attnrt.attention(q, k, v, scale=scale), attnrt.attention(q, k, v, scale=0.125)
        )
        self.assertFalse(numpy.array_equal(first, attnrt.attention(q, k, v, scale=scale)))

    def test_masks(self) -> None:
        random = numpy.random.default_rng(1)
        for shape in ((2, 4, 9, 13), (2, 1, 9, 13), (9, 13), (13,)):
            visible = random.random(shape) < 0.7
            with self.subTest(shape=shape):
                self.check(*tensors(), mask=visible)
                self.check(*tensors(), mask=random.standard_normal(shape).astype("float32"))
                self.check(
                    *tensors(dtype="float16"),
                    mask=random.standard_normal(shape).astype("float16"),
                    causal=True,
                )
                self.check(*tensors(), mask=numpy.where(visible, 0, -numpy.inf).astype("float32"))

    def test_a_row_that_sees_nothing_gives_zeros(self) -> None:
        q, k, v = tensors()
        mask = numpy.ones((9, 13), bool)
        mask[4] = False
        self.assertTrue((self.check(q, k, v, mask=mask)[:, 4] == 0).all())

    def test_scale_softcap_alibi_and_sinks(self) -> None:
        slopes = numpy.array([0.5, 0.25, 0.125, 0.0625], "float32")
        self.check(*tensors(), scale=0.3)
        self.check(*tensors(), softcap=5.0)
        self.check(*tensors(), alibi_slopes=slopes, causal=True)
        self.check(*tensors(), sinks=slopes * 8, scale=numpy.float32(0.25))

    def test_kv_lengths(self) -> None:
        self.check(*tensors(), kv_lengths=numpy.array([5, 13], "int32"), causal=True)

    def test_packed_sequences(self) -> None:
        lengths_q, lengths_kv = (3, 0, 5), (4, 2, 5)
        q, k, v = (tensor[0] for tensor in tensors(batch=1, seq_q=10, seq_kv=11))
        ends_q, ends_kv = (
            numpy.cumsum((0, *lengths)).astype("int32") for lengths in (lengths_q, lengths_kv)
        )
        out, lse = attnrt.attention(
            q, k, v, causal=True, offsets_q=ends_q, offsets_kv=ends_kv, return_lse=True
        )
        for b in range(3):
            rows, keys = slice(ends_q[b], ends_q[b + 1]), slice(ends_kv[b], ends_kv[b + 1])
            expected, expected_lse = reference.attention(
                q[None, rows], k[None, keys], v[None, keys], causal=True
            )
            numpy.testing.assert_allclose(out[rows], expected[0], rtol=0, atol=1e-5)
            numpy.testing.assert_allclose(lse[:, rows], expected_lse[0], rtol=1e-5, atol=1e-5)
        self.assertTrue((out[8:] == 0).all(), "rows past the last offset")

    def test_paged_cache(self) -> None:
        q, k, v = tensors(seq_q=1, seq_kv=12)
        table = numpy.array([[4, 1, 0], [2, 5, 3]], "int32")
        k_pages, v_pages = (
            numpy.empty((6, 4, 2, 24), "float32"),
            numpy.empty((6, 4, 2, 24), "float32"),
        )
        for pages, cache in ((k_pages, k), (v_pages, v)):
            pages[table] = cache.reshape(2, 3, 4, 2, 24)
        lengths = numpy.array([7, 12], "int32")
        out = attnrt.attention(q, k_pages, v_pages, kv_lengths=lengths, page_table=table)
        expected, _ = reference.attention(q, k, v, kv_lengths=lengths)
        numpy.testing.assert_allclose(out, expected, rtol=0, atol=1e-5)

    def test_nothing_to_do(self) -> None:
        q, k, v = tensors()
        self.assertEqual(attnrt.attention(q[:, :0], k, v).shape, (2, 0, 4, 24))
        self.assertEqual(attnrt.attention(q[:0], k[:0], v[:0]).shape, (0, 9, 4, 24))
        self.assertTrue((attnrt.attention(q, k[:, :0], v[:, :0]) == 0).all())


class Memory(unittest.TestCase):
    def test_out_is_written_in_place(self) -> None:
        q, k, v = tensors()
        out = numpy.full_like(q, 7)
        self.assertIs(attnrt.attention(q, k, v, out=out), out)
        numpy.testing.assert_array_equal(out, attnrt.attention(q, k, v))

    def test_out_is_no_input(self) -> None:
        q, k, v = tensors(heads_q=2, seq_q=13)
        for words in (
            dict(out=k),
            dict(out=q),
            dict(out=v),
            dict(out=k, kv_lengths=numpy.array([5, 13], numpy.int32)),
        ):
            with self.assertRaisesRegex(
                attnrt.InvalidArgumentError, "tensor out overlaps tensor [qkv]; "
            ):
                attnrt.attention(q, k, v, **words)
        both = numpy.concatenate([k, v])  # one array, but no byte in common
        out = attnrt.attention(q, both[:2], both[:2], out=both[2:])
        numpy.testing.assert_array_equal(out, attnrt.attention(q, k, k))

    def test_any_strides(self) -> None:
        q, k, v = tensors()
        expected = attnrt.attention(q, k, v, causal=True)
        turned = [
            numpy.ascontiguousarray(tensor.swapaxes(1, 2)).swapaxes(1, 2) for tensor in (q, k, v)
        ]
        wide = numpy.zeros((2, 9, 4, 2, 24), "float32")
        out = wide[:, :, :, 1]
        attnrt.attention(*turned, causal=True, out=out)
        numpy.testing.assert_array_equal(out, expected)
        self.assertTrue((wide[:, :, :, 0] == 0).all(), "what lies between the rows of out")
        one = numpy.broadcast_to(q[:1], q.shape)
        numpy.testing.assert_array_equal(
            attnrt.attention(one, k, v)[0], attnrt.attention(q, k, v)[0]
        )

    def test_rows_at_odd_addresses(self) -> None:
        q, k, v = tensors(dtype="float16", head_dim=21)
        expected, _ = reference.attention(q, k, v)
        numpy.testing.assert_allclose(attnrt.attention(q, k, v), expected, rtol=0, atol=0.01)

    def test_inputs_may_be_read_only(self) -> None:
        given = tensors()
        for tensor in given:
            tensor.flags.writeable = False
        lengths = numpy.array([5, 13], "int32")
        lengths.flags.writeable = False
        attnrt.attention(*given, kv_lengths=lengths)

    def test_inputs_are_given_back(self) -> None:
        import sys

        q, k, v = tensors()
        before = [sys.getrefcount(tensor) for tensor in (q, k, v)]
        for _ in range(10):
            attnrt.attention(q, k, v)
        self.assertEqual([sys.getrefcount(tensor) for tensor in (q, k, v)], before)


class Threads(unittest.TestCase):
    def test_several_at_once(self) -> None:
        failures: list[BaseException] = []

        def work(seed: int) -> None:
            try:
                q, k, v = tensors(seed, batch=1, seq_q=17 + seed, seq_kv=40 + seed)
                expected, _ = reference.attention(q, k, v, causal=True)
                for _ in range(20):
                    numpy.testing.assert_allclose(
                        attnrt.attention(q, k, v, causal=True), expected, rtol=0, atol=1e-4
                    )
            except BaseException as failure:  # the thread would swallow it
                failures.append(failure)

        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(failures, [])

    def test_others_run_meanwhile(self) -> None:
        import sys

        q, k, v = tensors(batch=1, seq_q=3000, seq_kv=3000, heads_q=8, head_dim=64)
        began = threading.Event()
        finished: list[bool] = []

        def work() -> None:
            began.set()
            attnrt.attention(q, k, v)
            finished.append(True)

        interval = sys.getswitchinterval()
        try:
            # From here on a thread runs until it releases the GIL by itself.
            sys.setswitchinterval(1000)
            for _ in range(5):
                thread = threading.Thread(target=work)
                thread.start()
                began.wait()
                overlapped = not finished
                thread.join()
                if overlapped:
                    return
                began.clear()
                finished.clear()
        finally:
            sys.setswitchinterval(interval)
        self.fail("no other thread ran while attention computed")


if __name__ == "__main__":
    unittest.main()
