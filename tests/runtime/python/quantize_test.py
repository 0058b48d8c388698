# tests/runtime/python/quantize_test.py: quantize() of numpy arrays and torch tensors
import itertools
import sys
import unittest
import unittest.mock
from typing import Any

import attnrt
import numpy
import reference

try:
    import torch
except ImportError:
    torch = None

LIMITS = {"i8": 127, "f8_e4m3fn": 448, "f8_e4m3fnuz": 240}
NAMES = {"i8": "int8", "f8_e4m3fn": "float8_e4m3fn", "f8_e4m3fnuz": "float8_e4m3fnuz"}
SCALES = ("tensor", "head", "token")
DENSE, PACKED = (2, 5, 3, 16), (7, 3, 16)


def values(shape: tuple[int, ...] = DENSE, dtype: Any = "float32", seed: int = 0) -> Any:
    """Random numbers; heads and rows differ in magnitude, so that a wrong scale is seen."""
    random = numpy.random.default_rng(seed)
    magnitudes = 2.0 ** random.integers(-4, 5, (*shape[:-1], 1))
    return (random.standard_normal(shape) * magnitudes).astype(dtype)


def scale_shape(shape: tuple[int, ...], scale: str) -> tuple[int, ...]:
    return {"tensor": (1,), "head": (shape[-2],), "token": shape[:-1]}[scale]


def group(x: Any, scale: str, row: tuple[int, ...]) -> Any:
    """All of x under the scale of this row."""
    return {"tensor": x, "head": x[..., row[-1], :], "token": x[row]}[scale]


def scale_of(scales: Any, row: tuple[int, ...]) -> float:
    """The scale of this row, of scales of any of the shapes."""
    if scales.shape == (1,):
        return float(scales[0])
    return float(scales[row[-1]] if scales.ndim == 1 else scales[row])


def dequantized(stored: Any, scales: Any) -> Any:
    """stored * scale in float64, row by row."""
    result = stored.astype("float64")
    for row in numpy.ndindex(stored.shape[:-1]):
        result[row] *= scale_of(scales, row)
    return result


def half_step(real: Any, dtype: str, scales: Any) -> Any:
    """Half the distance of two stored numbers around each of real, and float32's rounding."""
    result = numpy.empty(real.shape)
    fraction_bits, smallest = 3, {"f8_e4m3fn": 2.0**-6, "f8_e4m3fnuz": 2.0**-7}.get(dtype)
    for row in numpy.ndindex(real.shape[:-1]):
        scale = scale_of(scales, row)
        if smallest is None:
            result[row] = scale / 2
        else:
            exponents = numpy.floor(numpy.log2(numpy.maximum(abs(real[row]) / scale, smallest)))
            result[row] = scale * 2.0 ** (exponents - fraction_bits) / 2
    return result + abs(real) * 2.0**-22


class Quantize(unittest.TestCase):
    def test_each_dtype_scale_and_layout(self) -> None:
        import ml_dtypes

        for dtype, scale, shape, read in itertools.product(
            LIMITS, SCALES, (DENSE, PACKED), ("float32", "float16", ml_dtypes.bfloat16)
        ):
            with self.subTest(dtype=dtype, scale=scale, shape=shape, read=read):
                x = values(shape, read)
                stored, scales = attnrt.quantize(x, dtype, scale)
                self.assertEqual((stored.dtype.name, stored.shape), (NAMES[dtype], shape))
                self.assertEqual(
                    (scales.dtype, scales.shape), ("float32", scale_shape(shape, scale))
                )
                real = x.astype("float64")
                for row in numpy.ndindex(shape[:-1]):
                    right = abs(group(real, scale, row)).max() / LIMITS[dtype]
                    self.assertAlmostEqual(scale_of(scales, row) / right, 1, delta=1e-6)
                    top = abs(group(stored.astype("float64"), scale, row)).max()
                    self.assertEqual(top, LIMITS[dtype])
                error = abs(dequantized(stored, scales) - real)
                self.assertTrue((error <= half_step(real, dtype, scales)).all())

    def test_a_row_is_the_default(self) -> None:
        x = values()
        for found, right in zip(
            attnrt.quantize(x, "i8"), attnrt.quantize(x, "i8", scale="token"), strict=True
        ):
            numpy.testing.assert_array_equal(found, right)

    def stored(self, numbers: list[float], dtype: str) -> list[float]:
        """What these numbers are stored as, under a scale of 1."""
        x = numpy.array(numbers, "float32").reshape(1, 1, -1)
        result: list[float] = (
            attnrt.quantize(x, dtype, numpy.ones(1, "float32"))[0]
            .astype("float64")
            .ravel()
            .tolist()
        )
        return result

    def test_rounding_to_even(self) -> None:
        self.assertEqual(
            self.stored([0.5, 1.5, 2.5, -0.5, -1.5, -2.5, 1.49, 126.5], "i8"),
            [0, 2, 2, 0, -2, -2, 1, 126],
        )
        for dtype in ("f8_e4m3fn", "f8_e4m3fnuz"):
            self.assertEqual(self.stored([17, 19, -21, 19.1], dtype), [16, 20, -20, 20])

    def test_numbers_beyond_the_largest(self) -> None:
        for dtype, limit in LIMITS.items():
            self.assertEqual(
                self.stored([limit * 1.2, -1e30, numpy.inf, -numpy.inf], dtype),
                [limit, -limit, limit, -limit],
            )

    def test_a_scale_known_beforehand(self) -> None:
        x = values()
        for dtype, scale in itertools.product(LIMITS, SCALES):
            given = numpy.full(scale_shape(DENSE, scale), 0.25, "float32")
            stored, scales = attnrt.quantize(x, dtype, given)
            self.assertIs(scales, given)
            self.assertTrue((given == 0.25).all())
            right = numpy.clip(x.astype("float64"), -LIMITS[dtype] / 4, LIMITS[dtype] / 4)
            error = abs(dequantized(stored, scales) - right)
            self.assertTrue((error <= half_step(right, dtype, scales)).all())

    def test_zeros_and_tiny_numbers(self) -> None:
        x = numpy.zeros(PACKED, "float32")
        x[1] = 1e-40
        x[2] = 2.0**-126 * 100
        for dtype in LIMITS:
            stored, scales = attnrt.quantize(x, dtype)
            self.assertTrue((scales[0] == 1).all() and (scales[3:] == 1).all())
            self.assertTrue((scales[1:3] == 2.0**-126).all())
            self.assertTrue((stored.astype("float32")[[0, 3, 4, 5, 6]] == 0).all())
            numpy.testing.assert_allclose(dequantized(stored, scales), x, rtol=0.1, atol=2.0**-127)

    def test_numbers_that_are_not_finite(self) -> None:
        for dtype, wrong in itertools.product(LIMITS, (numpy.inf, -numpy.inf, numpy.nan)):
            x = values(PACKED)
            x[2, 1, 3] = wrong
            stored, scales = attnrt.quantize(x, dtype)
            real = dequantized(stored, scales)
            self.assertTrue(numpy.isnan(scales[2, 1]) and numpy.isnan(real[2, 1]).all())
            real[2, 1] = 0
            self.assertTrue(numpy.isfinite(real).all())
        self.assertEqual(self.stored([numpy.nan], "i8"), [0])
        self.assertTrue(numpy.isnan(self.stored([numpy.nan], "f8_e4m3fn")).all())

    def test_no_tokens(self) -> None:
        for dtype, scale in itertools.product(LIMITS, SCALES):
            stored, scales = attnrt.quantize(values((0, 3, 16)), dtype, scale)
            self.assertEqual(
                (stored.shape, scales.shape), ((0, 3, 16), scale_shape((0, 3, 16), scale))
            )
            self.assertTrue((scales == 1).all())

    def test_any_strides(self) -> None:
        x = values((5, 16, 3, 2))
        view = x.transpose(3, 0, 2, 1)
        view.flags.writeable = False
        for dtype, scale in itertools.product(LIMITS, SCALES):
            stored, scales = attnrt.quantize(view, dtype, scale)
            right, right_scales = attnrt.quantize(view.copy(order="C"), dtype, scale)
            self.assertTrue(stored.flags.c_contiguous)
            numpy.testing.assert_array_equal(stored.astype("float32"), right.astype("float32"))
            numpy.testing.assert_array_equal(scales, right_scales)

    def test_what_does_not_fit_is_refused(self) -> None:
        x, ones = values(), numpy.ones(1, "float32")
        for wrong, message in (
            (
                lambda: attnrt.quantize(x, "int8"),
                'dtype is \'int8\'; expected "i8", "f8_e4m3fn" or',
            ),
            (lambda: attnrt.quantize(x, ["i8"]), "dtype is ['i8']; expected"),
            (
                lambda: attnrt.quantize(x, "i8", "row"),
                'scale is \'row\'; expected "tensor", "head"',
            ),
            (lambda: attnrt.quantize(x, "i8", 0.5), "scale is a float; expected"),
            (lambda: attnrt.quantize(x, "i8", None), "scale is a NoneType; expected"),
            (lambda: attnrt.quantize([1.0], "i8"), "x is a list; expected a numpy array or"),
            (lambda: attnrt.quantize(x.astype("float64"), "i8"), "x is float64; expected float32"),
            (lambda: attnrt.quantize(x[0, 0], "i8"), "x has 2 dimensions; expected [batch, seq"),
            (
                lambda: attnrt.quantize(x, "i8", ones.astype("float16")),
                "scale is float16; expected",
            ),
            (
                lambda: attnrt.quantize(x, "i8", numpy.ones((2, 3), "float32")),
                "scale has shape [2, 3]; expected [1] (tensor), [3] (head) or [2, 5, 3] (token)",
            ),
        ):
            with self.subTest(message=message):
                with self.assertRaises(attnrt.InvalidArgumentError) as raised:
                    wrong()
                self.assertTrue(str(raised.exception).startswith(f"quantize: {message}"))
                self.assertNotIn("\n", str(raised.exception))

    def test_without_ml_dtypes(self) -> None:
        with unittest.mock.patch.dict(sys.modules, {"ml_dtypes": None}):
            attnrt.quantize(values(), "i8")
            for dtype in ("f8_e4m3fn", "f8_e4m3fnuz"):
                with self.assertRaisesRegex(attnrt.InvalidArgumentError, "pip install ml_dtypes$"):
                    attnrt.quantize(values(), dtype)


class Attention(unittest.TestCase):
    """attention() on what quantize() gives is attention on the numbers that it stands for."""

    def check(self, q: Any, k: Any, v: Any, dtype: str, scale: str, **words: Any) -> None:
        """Compares attention() with a plain evaluation on what is stored."""
        (k8, k_scale), (v8, v_scale) = (attnrt.quantize(x, dtype, scale) for x in (k, v))
        out = attnrt.attention(q, k8, v8, k_scale=k_scale, v_scale=v_scale, **words)
        real_k, real_v = dequantized(k8, k_scale), dequantized(v8, v_scale)
        table, lengths = words.get("page_table"), words.get("kv_lengths")
        if table is not None:
            _, size, heads, dim = k.shape
            real_k, real_v = (
                x[table].reshape(len(table), table.shape[1] * size, heads, dim)
                for x in (real_k, real_v)
            )
        if "offsets_kv" in words:
            rows = zip(words["offsets_q"][:-1], words["offsets_q"][1:], strict=True)
            keys = zip(words["offsets_kv"][:-1], words["offsets_kv"][1:], strict=True)
            right = numpy.concatenate(
                [
                    reference.attention(q[None, a:b], real_k[None, c:d], real_v[None, c:d])[0][0]
                    for (a, b), (c, d) in zip(rows, keys, strict=True)
                ]
            )
        else:
            right, _ = reference.attention(q, real_k, real_v, kv_lengths=lengths)
        limit = reference.tolerance(2.0**-23, real_v)
        numpy.testing.assert_allclose(out, right, rtol=0, atol=limit)

    def test_a_paged_cache(self) -> None:
        q = values((2, 1, 4, 32), seed=1)
        k, v = values((6, 4, 2, 32), seed=2), values((6, 4, 2, 32), seed=3)
        table = numpy.array([[4, 1, 0], [2, 5, 3]], "int32")
        lengths = numpy.array([7, 12], "int32")
        for dtype, scale in itertools.product(LIMITS, SCALES):
            with self.subTest(dtype=dtype, scale=scale):
                self.check(q, k, v, dtype, scale, page_table=table, kv_lengths=lengths)

    def test_dense(self) -> None:
        q = values((2, 9, 4, 32), seed=1)
        k, v = values((2, 13, 2, 32), seed=2), values((2, 13, 2, 32), seed=3)
        for dtype, scale in itertools.product(LIMITS, SCALES):
            with self.subTest(dtype=dtype, scale=scale):
                self.check(q, k, v, dtype, scale)

    def test_packed(self) -> None:
        q = values((9, 4, 32), seed=1)
        k, v = values((13, 2, 32), seed=2), values((13, 2, 32), seed=3)
        offsets = {
            "offsets_q": numpy.array([0, 4, 9], "int32"),
            "offsets_kv": numpy.array([0, 8, 13], "int32"),
        }
        for dtype, scale in itertools.product(LIMITS, SCALES):
            with self.subTest(dtype=dtype, scale=scale):
                self.check(q, k, v, dtype, scale, **offsets)


@unittest.skipIf(torch is None, "torch is not installed")
class Torch(unittest.TestCase):
    def test_as_numpy_has_it(self) -> None:
        devices = ["cpu"] + ["cuda"] * torch.cuda.is_available()
        special = values(PACKED)
        special[0], special[1, 0, 0], special[2, 0, 0] = 0, numpy.inf, numpy.nan
        special[3, 0, 0] = -1e-9  # rounds to zero; f8_e4m3fnuz has none of that sign
        for dtype, scale, device in itertools.product(LIMITS, SCALES, devices):
            for x in (values(), values(PACKED, "float16"), special, values((0, 3, 16))):
                with self.subTest(dtype=dtype, scale=scale, device=device, shape=x.shape):
                    there = torch.from_numpy(x).to(device)
                    stored, scales = attnrt.quantize(there, dtype, scale)
                    self.assertEqual(stored.dtype, getattr(torch, NAMES[dtype]))
                    self.assertEqual((stored.device, scales.device), (there.device,) * 2)
                    right, right_scales = attnrt.quantize(x, dtype, scale)
                    numpy.testing.assert_array_equal(scales.cpu().numpy(), right_scales)
                    numpy.testing.assert_array_equal(
                        stored.cpu().float().numpy(), right.astype("float32")
                    )

    def test_nothing_is_read_by_the_host(self) -> None:
        # Tensors of "meta" have no numbers: whatever reads one fails.
        x = torch.empty(DENSE, dtype=torch.bfloat16, device="meta")
        for dtype, scale in itertools.product(LIMITS, SCALES):
            given = torch.empty(scale_shape(DENSE, scale), device="meta")
            for each in (scale, given):
                stored, scales = attnrt.quantize(x, dtype, each)
                self.assertEqual((stored.device.type, scales.device.type), ("meta", "meta"))
                self.assertEqual(tuple(stored.shape), DENSE)
                self.assertEqual(tuple(scales.shape), scale_shape(DENSE, scale))
                self.assertEqual(scales.dtype, torch.float32)

    def test_any_strides(self) -> None:
        x = torch.from_numpy(values((2, 3, 16, 5))).permute(0, 3, 1, 2)
        stored, scales = attnrt.quantize(x, "i8")
        right, right_scales = attnrt.quantize(x.contiguous(), "i8")
        self.assertTrue(stored.is_contiguous())
        self.assertTrue(torch.equal(stored, right) and torch.equal(scales, right_scales))

    def test_a_scale_known_beforehand(self) -> None:
        x, given = torch.tensor([[[0.5, 1.5, 1e9, float("nan")]]]), torch.ones(1)
        stored, scales = attnrt.quantize(x, "i8", given)
        self.assertIs(scales, given)
        self.assertEqual(stored.flatten().tolist(), [0, 2, 127, 0])

    def test_attention(self) -> None:
        q, k, v = (torch.from_numpy(values((2, n, 2, 32), seed=n)) for n in (3, 5, 7))
        v = v[:, :5]
        for dtype, scale in itertools.product(LIMITS, SCALES):
            (k8, k_scale), (v8, v_scale) = (attnrt.quantize(x, dtype, scale) for x in (k, v))
            out = attnrt.attention(q, k8, v8, k_scale=k_scale, v_scale=v_scale)
            real_k, real_v = (
                dequantized(stored.float().numpy(), scales.numpy())
                for stored, scales in ((k8, k_scale), (v8, v_scale))
            )
            right, _ = reference.attention(q.numpy(), real_k, real_v)
            limit = reference.tolerance(2.0**-23, real_v)
            numpy.testing.assert_allclose(out.numpy(), right, rtol=0, atol=limit)

    def test_what_does_not_fit_is_refused(self) -> None:
        x = torch.from_numpy(values())
        for wrong, message in (
            (
                lambda: attnrt.quantize(x.double(), "i8"),
                r"x is float64; expected .*give x.float\(\)",
            ),
            (lambda: attnrt.quantize(x, "i8", numpy.ones(1, "float32")), "scale is a ndarray"),
            (lambda: attnrt.quantize(x, "i8", torch.ones(1, device="meta")), "scale is on meta"),
            (lambda: attnrt.quantize(x.clone().requires_grad_(), "i8"), "x requires grad"),
        ):
            with self.assertRaisesRegex(attnrt.InvalidArgumentError, message):
                wrong()


if __name__ == "__main__":
    unittest.main()
