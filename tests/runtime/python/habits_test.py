# tests/runtime/python/habits_test.py: what users of numpy and torch are used to
import math
import subprocess
import sys
import unittest
from typing import Any

import attnrt
import numpy
from attention_test import tensors

WORDS: dict[str, Any] = dict(
    dtype="f32", batch=2, heads_q=4, heads_kv=2, seq_q=9, seq_kv=13, head_dim=24
)


class Habits(unittest.TestCase):
    def same(self, one: Any, other: Any) -> None:
        numpy.testing.assert_array_equal(one, other)

    def invalid(self, text: str, call: Any, *given: Any, **words: Any) -> None:
        with self.assertRaises(attnrt.InvalidArgumentError) as caught:
            call(*given, **words)
        self.assertEqual(str(caught.exception)[: len(text)], text)


class Values(Habits):
    def test_a_text_is_one_value(self) -> None:
        given = tensors()
        runtime = attnrt.Runtime()
        for name in ("align", "scale", "softcap", "window_left", "causal"):
            text = "top_left causal=true"
            self.invalid(f"{name}: found {text!r}", attnrt.attention, *given, **{name: text})
        self.invalid("dtype: found 'f32 causal=true'", runtime.plan, WORDS, dtype="f32 causal=true")
        self.invalid("dtype: found 'f32 f16'", runtime.plan, WORDS, dtype="f32 f16")
        self.invalid("scale: found '0.5'; expected a number", attnrt.attention, *given, scale="0.5")
        self.invalid("align: found None; expected 'bottom", attnrt.attention, *given, align=None)
        self.invalid("arch: found 'a=b'", runtime.explain, WORDS, arch="a=b")
        self.invalid("align: found ''", runtime.explain, WORDS, align="")
        self.invalid("problem: found 'a b'", runtime.explain, {**WORDS, "a b": 1})

    def test_flags(self) -> None:
        given = tensors()
        expected = attnrt.attention(*given, causal=True)
        for true in (1, numpy.True_, numpy.bool_(True)):
            self.same(attnrt.attention(*given, causal=true), expected)
        for false in (0, False, numpy.False_):
            self.same(attnrt.attention(*given, causal=false), attnrt.attention(*given))
        for wrong in (2, -1, None, 0.0, "true"):
            self.invalid(f"causal: found {wrong!r}", attnrt.attention, *given, causal=wrong)
        problem = attnrt.Runtime().explain(WORDS, causal=1, lse=numpy.True_, json=True)["problem"]
        self.assertEqual((problem["causal"], problem["lse"]), (True, True))

    def test_numbers(self) -> None:
        given = tensors()
        expected = attnrt.attention(*given, scale=0.25, softcap=2.0, window_left=3)
        for scale, softcap, window in (
            (numpy.float32(0.25), 2, numpy.int64(3)),
            (numpy.array(0.25), numpy.float16(2), numpy.array(3)),
        ):
            self.same(
                attnrt.attention(*given, scale=scale, softcap=softcap, window_left=window),
                expected,
            )
        self.invalid("window_left: found 1.5", attnrt.attention, *given, window_left=1.5)
        self.invalid("scale: found [1, 2]", attnrt.attention, *given, scale=[1, 2])
        self.invalid("scale: found nan", attnrt.attention, *given, scale=math.nan)

    def test_dtypes(self) -> None:
        runtime = attnrt.Runtime()
        names: list[Any] = ["f16", "float16", numpy.float16, numpy.dtype("float16"), "half"]
        if "torch" in sys.modules:
            names.append(sys.modules["torch"].float16)
        for name in names:
            found = runtime.explain(WORDS, dtype=name, json=True)
            self.assertEqual(found["problem"]["dtype"], "f16", name)
        import ml_dtypes

        for name in ("bfloat16", ml_dtypes.bfloat16, numpy.dtype(ml_dtypes.bfloat16)):
            found = runtime.explain(WORDS, dtype=name, kv_dtype=numpy.int8, json=True)["problem"]
            self.assertEqual((found["dtype"], found["kv_dtype"]), ("bf16", "i8"))
        self.invalid("dtype: found f17", runtime.explain, WORDS, dtype="f17")


class Tensors(Habits):
    def test_one_cache_for_a_batch(self) -> None:
        q, k, v = tensors()
        k, v = k[:1], v[:1]
        expected = attnrt.attention(q, k.repeat(2, 0), v.repeat(2, 0))
        self.same(attnrt.attention(q, k, v), expected)
        turned = [tensor.swapaxes(1, 2) for tensor in (q, k, v)]
        self.same(attnrt.attention(*turned, layout="bhsd").swapaxes(1, 2), expected)
        self.same(attnrt.default_runtime().plan(WORDS).run(q, k, v), expected)
        stored, scale = attnrt.quantize(k, "i8")
        self.same(
            attnrt.attention(q, stored, stored, k_scale=scale, v_scale=scale),
            attnrt.attention(
                q,
                *[stored.repeat(2, 0)] * 2,
                k_scale=scale.repeat(2, 0),
                v_scale=scale.repeat(2, 0),
            ),
        )
        three = numpy.concatenate([q, q[:1]])
        self.invalid(
            "run: tensors q and k disagree: batch is 3 and 2",
            attnrt.attention,
            three,
            *tensors()[1:],
        )

    def test_scales_without_dimensions(self) -> None:
        q, k, _ = tensors()
        stored = (8 * k).astype("int8")
        one, number = numpy.array([0.125], "float32"), numpy.array(0.125, "float32")
        self.same(
            attnrt.attention(q, stored, stored, k_scale=number, v_scale=number),
            attnrt.attention(q, stored, stored, k_scale=one, v_scale=one),
        )
        self.invalid(
            "alibi_slopes has 0 dimensions", attnrt.attention, q, k, k, alibi_slopes=number
        )

    def test_integers_of_64_bits_are_refused_by_name(self) -> None:
        q, k, v = tensors()
        self.invalid(
            "run: tensor kv_lengths is int64; expected int32",
            attnrt.attention,
            q,
            k,
            v,
            kv_lengths=numpy.array([3, 4]),
        )
        self.invalid(
            "run: tensor offsets_q is int64; expected int32",
            attnrt.attention,
            *(tensor[0] for tensor in (q, k, v)),
            offsets_q=numpy.array([0, 9]),
            offsets_kv=numpy.array([0, 13], "int32"),
        )

    def test_what_a_library_raises(self) -> None:
        _, k, v = tensors()

        class Raises:
            def __init__(self, error: BaseException):
                self.error = error

            def __dlpack_device__(self) -> tuple[int, int]:
                return 1, 0

            def __dlpack__(self, **_: Any) -> Any:
                raise self.error

        class OfMine(Exception):
            pass

        for error in (OfMine("mine"), KeyboardInterrupt(), MemoryError("none")):
            with self.assertRaises(type(error)) as caught:
                attnrt.attention(Raises(error), k, v)
            self.assertIs(caught.exception, error)
        self.invalid(
            f"q is a {__name__}.Raises that gives no view of its memory: not now",
            attnrt.attention,
            Raises(BufferError("not now")),
            k,
            v,
        )


class Runtimes(Habits):
    def test_problems_of_tensors(self) -> None:
        q, k, v = tensors(head_dim_v=40)
        runtime = attnrt.Runtime()
        plan = runtime.plan(like=(q, k, v), causal=True)
        self.same(plan.run(q, k, v), attnrt.attention(q, k, v, causal=True))
        turned = tuple(tensor.swapaxes(1, 2) for tensor in (q, k, v))
        for given, layout in (((q, k, v), "bshd"), (turned, "bhsd")):
            found = runtime.explain({"seq_kv": 64}, like=given, layout=layout, batch=8, json=True)[
                "problem"
            ]
            expected = {**WORDS, "batch": 8, "seq_kv": 64, "head_dim_v": 40, "device": "cpu"}
            self.assertEqual({name: found[name] for name in expected}, expected)
        one = runtime.explain(like=(q, k[:1], v[:1]), json=True)["problem"]
        self.assertEqual(one["batch"], 2)
        for wrong, text in (
            ((q, k), "like: expected the tensors (q, k, v)"),
            ((q[0], k, v), "like: q has 3 dimensions; expected 4"),
            ((q, k[..., :8], v), "like: k is [2, 13, 2, 8]"),
            ((q, k, v[:, :5]), "like: v is [2, 5, 2, 40]"),
        ):
            self.invalid(text, runtime.plan, like=wrong)
        self.invalid("layout: found 'x'", runtime.plan, like=(q, k, v), layout="x")
        self.invalid("problem: found a str and like=", runtime.plan, "batch=1", like=(q, k, v))

    def test_a_with_statement_closes(self) -> None:
        given = tensors()
        with attnrt.Runtime() as runtime:
            self.assertRegex(repr(runtime), "^<attnrt.Runtime: .*cpu.*>$")
            plan = runtime.plan(WORDS)
            expected = runtime.attention(*given)
        self.assertEqual(repr(runtime), "<attnrt.Runtime: closed>")
        self.invalid("attention: the Runtime is closed", runtime.attention, *given)
        self.invalid("stats: the Runtime is closed", runtime.stats)
        self.same(plan.run(*given), expected)
        runtime.close()

    def test_public_names(self) -> None:
        names = [name for name in dir(attnrt) if not name.startswith("__")]
        self.assertEqual(names, attnrt.__all__)

    def test_nothing_is_said_at_the_end(self) -> None:
        code = (
            "import attnrt, ctypes; held = attnrt.default_runtime()._runtime; "
            "ctypes.pythonapi.Py_IncRef(ctypes.py_object(held))"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
        self.assertEqual(done.stderr, b"")


if __name__ == "__main__":
    unittest.main()
