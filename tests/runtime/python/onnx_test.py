# tests/runtime/python/onnx_test.py: ONNX's published tests of its operator Attention
"""Each case of the package onnx, whose version is pinned, is compared with two references.

The published results: within ONNX's own tolerance. ONNX's formula in float64: within the rounding
errors that follow from the dtype. What is not compared, and why, is the table in docs/onnx.md.
"""

import importlib
import pathlib
import re
import unittest
from collections.abc import Callable
from typing import Any

import attnrt
import numpy
from onnx import helper
from onnx.reference.ops.op_attention import _compute_attention

Array = Any
Tensors = dict[str, Array]

CASES = 93  # of onnx 1.23.2, without those that spell out the same operator in others ("expanded")
INPUTS = ("Q", "K", "V", "attn_mask", "past_key", "past_value", "nonpad_kv_seqlen")
OUTPUTS = ("Y", "present_key", "present_value", "qk_matmul_output")
UNIT_ROUNDOFF = {"float32": 2.0**-24, "float16": 2.0**-11, "bfloat16": 2.0**-8}


def named(names: tuple[str, ...], used: list[str], tensors: list[Array]) -> Tensors:
    """Names tensors by their places; optional ones that a node leaves out have no name in used."""
    present = [name for name, use in zip(names, used, strict=False) if use]
    return dict(zip(present, tensors, strict=True))


def load_cases() -> dict[str, Any]:
    importlib.import_module("onnx.backend.test.case.node.attention")
    from onnx.backend.test.case.node import _NodeTestCases

    return {case.name: case for case in _NodeTestCases if "_expanded" not in case.name}


def read_table() -> dict[str, str]:
    """The table of docs/onnx.md: what is not compared, by case."""
    page = pathlib.Path(__file__).resolve().parents[3] / "docs/onnx.md"
    rows = re.findall(r"^\| `(test_attention\w*)` \| `(\w+)` \| .+ \|$", page.read_text(), re.M)
    return dict(rows)


def run(attention: Callable[..., Array], tensors: Tensors, attributes: dict[str, Any]) -> Tensors:
    """Computes a node Attention by attnrt.attention, or by one like it."""
    q, k, v = tensors["Q"], tensors["K"], tensors["V"]
    heads_in_rows = q.ndim == 3
    if heads_in_rows:
        q = q.reshape(*q.shape[:2], attributes["q_num_heads"], -1)
        k, v = (x.reshape(*x.shape[:2], attributes["kv_num_heads"], -1) for x in (k, v))
    else:
        q, k, v = (x.swapaxes(1, 2) for x in (q, k, v))

    # The diagonal begins at the first key that is not of the past. Where the cache is given whole,
    # it ends at the last key that is not padding.
    diagonal: dict[str, Any] = {"align": "top_left"}
    if "past_key" in tensors:
        past = tensors["past_key"].shape[2]
        k = numpy.concatenate((tensors["past_key"].swapaxes(1, 2), k), axis=1)
        v = numpy.concatenate((tensors["past_value"].swapaxes(1, 2), v), axis=1)
        diagonal["diagonal_offset"] = numpy.full(len(q), past, "int32")
    elif "nonpad_kv_seqlen" in tensors:
        diagonal = {"kv_lengths": tensors["nonpad_kv_seqlen"].astype("int32")}

    mask = tensors.get("attn_mask")
    if mask is not None:  # keys that it does not reach are hidden
        missing = [(0, 0)] * (mask.ndim - 1) + [(0, k.shape[1] - mask.shape[-1])]
        hidden = False if mask.dtype == bool else -numpy.inf
        mask = numpy.pad(mask, missing, constant_values=hidden)

    windows = {side: attributes.get(f"{side}_window_size", -1) for side in ("left", "right")}
    y = attention(
        q,
        k,
        v,
        mask=mask,
        causal=bool(attributes.get("is_causal", 0)),
        scale=attributes.get("scale"),
        softcap=attributes.get("softcap") or None,
        window_left=None if windows["left"] < 0 else windows["left"],
        window_right=None if windows["right"] < 0 else windows["right"],
        **diagonal,
    )
    return {
        "Y": y.reshape(*y.shape[:2], -1) if heads_in_rows else y.swapaxes(1, 2),
        "present_key": k.swapaxes(1, 2),
        "present_value": v.swapaxes(1, 2),
    }


def float64_result(tensors: Tensors, attributes: dict[str, Any]) -> Array:
    """Y by ONNX's formula, without rounding to the dtype of the inputs."""
    wide = {
        name: x if x.dtype in (bool, numpy.int64) else x.astype("float64")
        for name, x in tensors.items()
    }
    # These say how to round, and what qk_matmul_output is.
    unused = ("softmax_precision", "qk_matmul_output_mode")
    return _compute_attention(**wide, **{k: v for k, v in attributes.items() if k not in unused})[0]


def rounding_errors(tensors: Tensors, attributes: dict[str, Any], y: Array) -> Array:
    """Bounds |found - y| to first order, for sums in float32 and a result in the dtype of Q.

    A score is a sum of head_dim products, at most `largest`. It is rounded once a product, and at
    most 8 times by scale, softcap, mask and maximum: e = (head_dim + 8) u largest. An error e of
    the scores changes weights by the factor 1 + 2e. Sums over the keys, of weights and of weighted
    values, add (2 keys + 8) u. In half precision, weights may be rounded to the dtype. All that
    multiplies the largest value. Last, the result is rounded to the dtype.
    """
    u, u_of_dtype = UNIT_ROUNDOFF["float32"], UNIT_ROUNDOFF[tensors["Q"].dtype.name]
    heads = attributes.get("q_num_heads")
    head_dim = tensors["Q"].shape[-1] // (heads or 1)
    keys = tensors["K"].shape[-2] if heads is None else tensors["K"].shape[1]
    all_k, all_v = [tensors["K"]], [tensors["V"]]
    if "past_key" in tensors:
        all_k, all_v = [*all_k, tensors["past_key"]], [*all_v, tensors["past_value"]]
        keys += tensors["past_key"].shape[2]
    largest_k, largest_v = (
        max(float(abs(x.astype("float64")).max()) for x in xs) for xs in (all_k, all_v)
    )
    scale = attributes.get("scale") or head_dim**-0.5
    largest = scale * head_dim * float(abs(tensors["Q"].astype("float64")).max()) * largest_k
    mask = tensors.get("attn_mask")
    if mask is not None and mask.dtype != bool:
        mask = mask.astype("float64")
        largest += float(abs(mask[numpy.isfinite(mask)]).max(initial=0))
    weights = 2 * (head_dim + 8) * u * largest + (2 * keys + 8) * u
    if u_of_dtype > u:
        weights += u_of_dtype
    return weights * largest_v + u_of_dtype * abs(y)


class Cases(unittest.TestCase):
    @classmethod
    def setUpClass(cls) -> None:
        cls.cases, cls.table = load_cases(), read_table()

    def failures(self, name: str, attention: Callable[..., Array]) -> list[str]:
        """What of a case is not as it should be: the outputs, and what they differ from."""
        case = self.cases[name]
        (node,) = case.model.graph.node
        attributes = {one.name: helper.get_attribute_value(one) for one in node.attribute}
        inputs, outputs = case.data_sets[0]
        tensors = named(INPUTS, node.input, inputs)
        found = run(attention, tensors, attributes)
        exact = float64_result(tensors, attributes)
        failures = []
        for output, published in named(OUTPUTS, node.output, outputs).items():
            if output not in found:
                failures.append(output)
            elif output != "Y":
                if not numpy.array_equal(found[output], published):
                    failures.append(output)
            else:
                y = found["Y"].astype("float64")
                if found["Y"].dtype != published.dtype or y.shape != published.shape:
                    failures.append("dtype or shape of Y")
                bound = rounding_errors(tensors, attributes, exact)
                # A backend may round weights to float16, on processors that multiply them so.
                slack = bound if published.dtype == numpy.float16 else 0
                expected = published.astype("float64")
                allowed = case.atol + case.rtol * abs(expected) + slack
                if y.shape == expected.shape and not (abs(y - expected) <= allowed).all():
                    failures.append("Y")
                if not (abs(y - exact) <= bound).all():
                    failures.append("Y in float64")
        return failures

    def test_every_case_passes_or_is_in_the_table(self) -> None:
        self.assertEqual(len(self.cases), CASES, "the pinned package onnx has other cases")
        for name in self.cases:
            with self.subTest(case=name):
                listed = [self.table[name]] if name in self.table else []
                self.assertEqual(self.failures(name, attnrt.attention), listed)

    def test_the_table_has_only_cases_that_are_there(self) -> None:
        self.assertTrue(self.table, "docs/onnx.md has no table")
        self.assertEqual(set(self.table) - set(self.cases), set())

    def test_each_argument_matters(self) -> None:
        """An attnrt that ignored one argument would fail in at least one case."""
        for ignored in (
            "mask", "causal", "scale", "softcap", "window_left", "window_right", "kv_lengths",
            "diagonal_offset", "align",
        ):  # fmt: skip
            with self.subTest(ignored=ignored):

                def wrong(*tensors: Array, ignored: str = ignored, **words: Any) -> Array:
                    words.pop(ignored, None)
                    return attnrt.attention(*tensors, **words)

                failing = [
                    name
                    for name in self.cases
                    if name not in self.table and self.failures(name, wrong)
                ]
                self.assertTrue(failing)


if __name__ == "__main__":
    unittest.main()
