# tests/runtime/python/torch_operator_test.py: attnrt in graphs of torch
import pathlib
import tempfile
import threading
import unittest
import unittest.mock
from typing import Any

import attnrt

try:
    import torch
except ImportError:
    torch = None
else:
    import attnrt.torch


def devices() -> list[str]:
    """The devices here that a backend serves."""
    found = ["cpu"]
    if torch.cuda.is_available():
        try:
            attnrt.attention(*tensors("cuda", torch.float16))
        except attnrt.UnsupportedError:
            pass
        else:
            found.append("cuda")
    return found


def tensors(device: str = "cpu", dtype: Any = None) -> list[Any]:
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randn(shape, generator=generator).to(device, dtype or torch.float32)
        for shape in ((2, 9, 4, 32), (2, 13, 2, 32), (2, 13, 2, 32))
    ]


def compiled(function: Any) -> Any:
    """Compiles to one graph. The graph runs as it was traced, so that no compiler is needed."""
    torch._dynamo.reset()
    return torch.compile(function, fullgraph=True, backend="aot_eager")


@unittest.skipIf(torch is None, "torch is not installed")
class Operators(unittest.TestCase):
    def test_as_torch_wants_operators(self) -> None:
        q, k, v = tensors()
        for words in (
            {},
            {"causal": True, "return_lse": True},
            {"mask": torch.rand(9, 13) < 0.8, "scale": 0.25, "return_lse": True},
        ):
            with self.subTest(words=words):
                torch.library.opcheck(torch.ops.attnrt.attention.default, (q, k, v), words)
                torch.library.opcheck(
                    torch.ops.attnrt.attention_out.default,
                    (q, k, v),
                    {"into": torch.empty_like(q), **words},
                )

    def test_what_it_returns(self) -> None:
        for device in devices():
            q, k, v = tensors(device)
            out, lse = torch.ops.attnrt.attention(q, k, v, causal=True, return_lse=True)
            expected, expected_lse = attnrt.attention(q, k, v, causal=True, return_lse=True)
            self.assertTrue(torch.equal(out, expected) and torch.equal(lse, expected_lse))
            _, nothing = torch.ops.attnrt.attention(q, k, v)
            self.assertEqual((nothing.shape, nothing.dtype), ((0,), torch.float32))

    def test_shapes_while_traced(self) -> None:
        q, k, v = tensors()
        packed = [tensor[0] for tensor in (q, k, v)]
        ends = [torch.tensor([0, n], dtype=torch.int32) for n in (9, 13)]
        turned = [tensor.transpose(1, 2) for tensor in (q, k, v)]
        for given, words in (
            ((q, k, v[..., :16]), {}),
            ((q, k, None), {"v_in_k": True}),
            (packed, {"offsets_q": ends[0], "offsets_kv": ends[1]}),
            (turned, {"layout": "bhsd"}),
        ):
            for return_lse in (False, True):
                call = dict(words, return_lse=return_lse)
                real = torch.ops.attnrt.attention(*given, **call)
                meta = [None if t is None else t.to("meta") for t in given]
                fake = torch.ops.attnrt.attention(*meta, **call)
                for one, other in zip(real, fake, strict=True):
                    self.assertEqual(
                        (one.shape, one.dtype, one.stride()),
                        (other.shape, other.dtype, other.stride()),
                    )
        with self.assertRaisesRegex(attnrt.InvalidArgumentError, "q has 3 dimensions; expected 4"):
            torch.ops.attnrt.attention(q[0].to("meta"), k.to("meta"), v.to("meta"))

    def test_gradients(self) -> None:
        q, k, v = tensors()
        k.requires_grad_()
        for operator, words in (
            (torch.ops.attnrt.attention, {}),
            (torch.ops.attnrt.attention_out, {"into": torch.empty_like(q)}),
        ):
            with self.assertRaisesRegex(attnrt.InvalidArgumentError, "^k requires grad"):
                operator(q, k, v, **words)
            with torch.no_grad():
                operator(q, k, v, **words)
        mask = torch.zeros(9, 13, requires_grad=True)
        with self.assertRaisesRegex(attnrt.InvalidArgumentError, "^mask requires grad"):
            torch.ops.attnrt.attention(q, k.detach(), v, mask=mask)


@unittest.skipIf(torch is None, "torch is not installed")
class Traced(unittest.TestCase):
    def check(self, function: Any, *given: Any) -> None:
        torch.testing.assert_close(compiled(function)(*given), function(*given), rtol=0, atol=0)

    def test_one_graph(self) -> None:
        def into(q: Any, k: Any, v: Any) -> Any:
            out = torch.empty_like(q, dtype=torch.float32)
            lse = attnrt.attention(q + 1, k, v, out=out, return_lse=True)[1]
            return out * 2, lse

        def into_a_view(q: Any, k: Any, v: Any) -> Any:
            whole = torch.zeros(2, 4, 9, 32, device=q.device)
            attnrt.attention(q + 1, k, v, out=whole.transpose(1, 2))
            return whole * 2

        for device in devices():
            given = tensors(device)
            self.check(into_a_view, *given)
            self.check(lambda q, k, v: attnrt.attention(2 * q, k, v, causal=True) + 1, *given)
            self.check(lambda q, k, v: attnrt.attention(q, k, v, return_lse=True), *given)
            self.check(lambda q, k, v: attnrt.attention(q, k, None, v_in_k=True) + v.sum(), *given)
            self.check(into, *given)
            with torch.inference_mode():
                self.check(lambda q, k, v: attnrt.attention(q + 0, k, v, scale=0.5), *given)

    def test_sizes_that_change(self) -> None:
        q, k, v = tensors()
        torch._dynamo.reset()
        function = torch.compile(
            lambda q, k, v: attnrt.attention(q, k, v, window_left=k.shape[1] // 2),
            fullgraph=True,
            dynamic=True,
            backend="aot_eager",
        )
        for keys in (13, 8, 5):
            out = function(q, k[:, :keys], v[:, :keys])
            expected = attnrt.attention(q, k[:, :keys], v[:, :keys], window_left=keys // 2)
            self.assertTrue(torch.equal(out, expected))

    def test_export(self) -> None:
        class Layer(torch.nn.Module):  # type: ignore[misc]
            def forward(self, q: Any, k: Any, v: Any) -> Any:
                return attnrt.attention(q, k, v, causal=True) + 1

        given = tensors()
        expected = Layer()(*given)
        for strict in (False, True):
            program = torch.export.export(Layer(), tuple(given), strict=strict)
            self.assertIn("torch.ops.attnrt.attention.default", program.graph_module.code)
            with tempfile.TemporaryDirectory() as folder:
                path = pathlib.Path(folder, "layer.pt2")
                torch.export.save(program, path)
                program = torch.export.load(path)
            self.assertTrue(torch.equal(program.module()(*given), expected))

    def test_gradients(self) -> None:
        q, k, v = tensors()
        q.requires_grad_()
        function = compiled(lambda q, k, v: attnrt.attention(2 * q, k, v))
        with self.assertRaisesRegex(Exception, "q requires grad, and attnrt computes no gradients"):
            function(q, k, v)
        with torch.no_grad():
            self.assertTrue(torch.equal(function(q, k, v), attnrt.attention(2 * q, k, v)))

    def test_what_no_graph_can_hold(self) -> None:
        q, k, v = tensors()
        runtime = attnrt.Runtime()
        plan = runtime.plan(
            dtype="f32", batch=2, heads_q=4, heads_kv=2, seq_q=9, seq_kv=13, head_dim=32
        )
        expected = attnrt.attention(2 * q, k, v) + 1
        lse = torch.zeros(2, 4, 9)  # of the only partial: it does not matter
        for call, text in (
            (lambda q: attnrt.attention(q, k, v, runtime=runtime), "found runtime="),
            (lambda q: attnrt.attention(q, k, v, stream=0), "found stream="),
            (lambda q: runtime.attention(q, k, v), "Runtime.attention is no operator"),
            (lambda q: plan.run(q, k, v), "Plan.run is no operator"),
            (lambda q: attnrt.merge([attnrt.attention(q, k, v)], [lse]), "merge is no operator"),
        ):
            with self.subTest(text=text):
                with self.assertRaisesRegex(
                    torch._dynamo.exc.Unsupported, f"User-inserted graph break.*{text}"
                ):
                    compiled(lambda q, call=call: call(2 * q) + 1)(q)
                torch._dynamo.reset()
                broken = torch.compile(lambda q, call=call: call(2 * q) + 1, backend="aot_eager")
                self.assertTrue(torch.equal(broken(q), expected))

                class Layer(torch.nn.Module):  # type: ignore[misc]
                    def forward(self, q: Any, call: Any = call) -> Any:
                        return call(q)

                with self.assertRaisesRegex(attnrt.InvalidArgumentError, text):
                    torch.export.export(Layer(), (q,), strict=False)

    def test_another_thread_compiles(self) -> None:
        # torch's flag holds for the process; numpy arrays and real tensors here are not traced.
        q, k, v = tensors()
        expected = attnrt.attention(q, k, v)
        results: list[Any] = []

        def elsewhere() -> None:
            runtime = attnrt.default_runtime()
            results.append(torch.from_numpy(attnrt.attention(q.numpy(), k.numpy(), v.numpy())))
            results.append(attnrt.attention(q, k, v, runtime=runtime))

        with unittest.mock.patch.multiple(
            torch.compiler, is_compiling=lambda: True, is_exporting=lambda: True
        ):
            thread = threading.Thread(target=elsewhere)
            thread.start()
            thread.join()
        self.assertEqual([torch.equal(each, expected) for each in results], [True, True])


if __name__ == "__main__":
    unittest.main()
