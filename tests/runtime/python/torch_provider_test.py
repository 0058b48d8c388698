# tests/runtime/python/torch_provider_test.py: attnrt.torch.enable
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
    import torch_reference
    from attnrt import _torch_provider
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch_operator_test import devices

    sdpa = torch.nn.functional.scaled_dot_product_attention

CALL = dict[str, Any]


class Provider(unittest.TestCase):
    def setUp(self) -> None:
        if torch is None:
            self.skipTest("torch is not installed")
        if not hasattr(torch.library, "get_kernel"):
            self.skipTest("this torch is too old for attnrt.torch.enable")
        self.addCleanup(attnrt.torch.disable)
        attnrt.torch.reset_counters()

    def left(self, reason: str, function: Any, *given: Any, **words: Any) -> Any:
        """Calls with the provider, and expects that torch computes for this reason alone."""
        attnrt.torch.reset_counters()
        attnrt.torch.enable()
        result = function(*given, **words)
        counters = attnrt.torch.counters()
        self.assertEqual((counters["served"], counters["reasons"]), (0, {reason: 1}))
        return result


class Values(Provider):
    def check(self, given: Any, words: CALL) -> bool:
        """Returns whether the call was served."""
        attnrt.torch.disable()
        expected = torch_reference.expected(*given, **words)
        attnrt.torch.enable()
        before = attnrt.torch.counters()["served"]
        try:
            out = sdpa(*given, **words)
        except RuntimeError as error:  # torch refuses what attnrt left to it
            attnrt.torch.disable()
            with self.assertRaises(RuntimeError) as torchs:
                sdpa(*given, **words)
            self.assertEqual(str(error), str(torchs.exception))
            return False
        self.assertEqual((out.shape, out.dtype), (expected.shape, given[0].dtype))
        error = float((out.double() - expected).abs().max()) if out.numel() else 0.0
        limit = torch_reference.limit(*given, **words)
        self.assertLessEqual(error, limit, f"{[t.shape for t in given]} {words}")
        return bool(attnrt.torch.counters()["served"] > before)

    def test_a_grid(self) -> None:
        for device in devices():
            attnrt.torch.reset_counters()
            served = [self.check(*call) for call in torch_reference.grid(device)]
            self.assertGreater(len(served), 300)
            share = sum(served) / len(served)
            self.assertGreaterEqual(share, 0.9, attnrt.torch.counters()["reasons"])

    def test_samples_of_torch(self) -> None:
        from torch.testing._internal.common_methods_invocations import op_db

        [info] = [op for op in op_db if op.name == "nn.functional.scaled_dot_product_attention"]
        for device in devices():
            attnrt.torch.reset_counters()
            served = []
            for dtype in (torch.float32, torch.float16, torch.bfloat16):
                for sample in info.sample_inputs(device, dtype):
                    given = (sample.input, *sample.args)
                    if sample.kwargs.get("dropout_p"):
                        self.left("dropout", sdpa, *given, **sample.kwargs)
                    else:
                        served.append(self.check(given, sample.kwargs))
            self.assertGreater(len(served), 30)
            self.assertGreaterEqual(sum(served) / len(served), 0.9)

    def test_graphs_of_torch_compile(self) -> None:
        for device in devices():
            q, k, v = next(torch_reference.grid(device))[0]
            expected = torch_reference.expected(2 * q, k, v, is_causal=True)
            torch._dynamo.reset()
            attnrt.torch.enable()
            function = torch.compile(
                lambda q, k, v: sdpa(2 * q, k, v, is_causal=True),
                fullgraph=True,
                backend="aot_eager",
            )
            with torch.inference_mode():
                for _ in range(3):
                    attnrt.torch.reset_counters()
                    out = function(q, k, v)
                    counters = attnrt.torch.counters()
                    self.assertEqual((counters["served"], counters["fell_back"]), (1, 0))
            limit = torch_reference.limit(2 * q, k, v)
            torch.testing.assert_close(out.double(), expected, rtol=0, atol=limit)

    def test_layers(self) -> None:
        torch.manual_seed(0)
        torch.backends.mha.set_fastpath_enabled(False)  # it would not call the function
        self.addCleanup(torch.backends.mha.set_fastpath_enabled, True)
        for device in devices():
            layer = torch.nn.TransformerDecoderLayer(64, 4, batch_first=True).to(device).eval()
            x, memory = (torch.randn(2, n, 64, device=device) for n in (7, 11))
            mask = torch.nn.Transformer.generate_square_subsequent_mask(7, device=device)
            with torch.no_grad():
                expected = layer(x, memory, tgt_mask=mask, tgt_is_causal=True)
                attnrt.torch.enable()
                out = layer(x, memory, tgt_mask=mask, tgt_is_causal=True)
            attnrt.torch.disable()
            self.assertEqual(attnrt.torch.counters()["served"], 2)
            torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-4)
            attnrt.torch.reset_counters()

    def test_autocast(self) -> None:
        q, k, v = next(torch_reference.grid("cpu"))[0]
        attnrt.torch.enable()
        with torch.autocast("cpu", torch.bfloat16):
            self.assertEqual(sdpa(q, k, v).dtype, torch.bfloat16)
        self.assertEqual(attnrt.torch.counters()["served"], 1)

    def test_deterministic_algorithms(self) -> None:
        q, k, v = next(torch_reference.grid("cpu"))[0]
        runtime = attnrt.Runtime()
        attnrt.torch.enable(runtime)
        torch.use_deterministic_algorithms(True)
        self.addCleanup(torch.use_deterministic_algorithms, False)
        sdpa(q, k, v)
        [decision] = runtime.decisions()
        self.assertTrue(decision["problem"]["deterministic"])


class Left(Provider):
    def test_what_torch_keeps(self) -> None:
        q, k, v = next(torch_reference.grid("cpu"))[0]
        mask = torch.zeros(9, 13)
        double = [each.double() for each in (q, k, v)]

        class Mine(torch.Tensor):  # type: ignore[misc]
            pass

        for reason, given, words in (
            ("dropout", (q, k, v), {"dropout_p": 0.5}),
            ("dtype float64", double, {}),
            ("scale 0", (q, k, v), {"scale": 0.0}),
            ("tensors of 5 dimensions", [each[None] for each in (q, k, v)], {}),
            ("tensor subclass", (q.as_subclass(Mine), k, v), {}),
            ("gradient", (q, k.clone().requires_grad_(), v), {}),
            ("gradient", (q, k, v), {"attn_mask": mask.clone().requires_grad_()}),
            ("negative view", (torch._neg_view(q), k, v), {}),
        ):
            with self.subTest(reason=reason):
                torch.manual_seed(0)
                out = self.left(reason, sdpa, *given, **words)
                attnrt.torch.disable()
                torch.manual_seed(0)
                self.assertTrue(torch.equal(out, sdpa(*given, **words)))
        with sdpa_kernel(SDPBackend.MATH):
            self.left("sdpa_kernel(MATH)", sdpa, q, k, v)

    def test_what_torch_refuses(self) -> None:
        q, k, v = next(torch_reference.grid("cpu"))[0]
        refused = 0
        for given, words in (
            ((q, k, v), {"attn_mask": torch.zeros(9, 12)}),
            ((q, k, v), {"attn_mask": torch.zeros(9, 13, dtype=torch.float64)}),
            ((q, k, v), {"attn_mask": torch.zeros(9, 13), "is_causal": True}),
            ((q, k.half(), v), {}),
            ((q, k[..., :16], v), {}),
            ((q, k[:, :2], v[:, :2]), {}),
            ((q, k[:, :3], v[:, :3]), {"enable_gqa": True}),
            ((q[:, :1], k, v), {"enable_gqa": True}),
            ((q[0, 0, 0], k, v), {}),
            ((q, k.to("meta"), v), {}),
        ):
            with self.subTest(shapes=[each.shape for each in given], **words):
                attnrt.torch.disable()
                try:
                    sdpa(*given, **words)
                except (RuntimeError, ValueError) as error:
                    torchs = error
                else:
                    continue  # not in this version
                refused += 1
                attnrt.torch.enable()
                with self.assertRaises(type(torchs)) as found:
                    sdpa(*given, **words)
                self.assertEqual(str(found.exception), str(torchs))
        self.assertGreater(refused, 7)
        self.assertEqual(attnrt.torch.counters()["served"], 0)

    def test_gradients_are_torchs(self) -> None:
        def gradients() -> list[Any]:
            given = [each.clone().requires_grad_() for each in next(torch_reference.grid("cpu"))[0]]
            sdpa(*given, is_causal=True).square().sum().backward()
            return [each.grad for each in given]

        expected = gradients()
        found = self.left("gradient", gradients)
        for one, other in zip(found, expected, strict=True):
            self.assertTrue(torch.equal(one, other))

    def test_transforms(self) -> None:
        q, k, v = next(torch_reference.grid("cpu"))[0]

        narrow = v[..., :16]

        def tangent() -> Any:
            # v is narrower than q: torch's kernel for equal widths has no such derivative.
            with torch.autograd.forward_ad.dual_level():
                dual = torch.autograd.forward_ad.make_dual(q, torch.ones_like(q))
                return torch.autograd.forward_ad.unpack_dual(sdpa(dual, k, narrow)).tangent

        def jvp() -> Any:
            return torch.func.jvp(lambda q: sdpa(q, k, narrow), (q,), (torch.ones_like(q),))[1]

        def batched() -> Any:
            return torch.func.vmap(sdpa)(q, k, v)

        def functional() -> Any:
            return torch.func.functionalize(sdpa)(q, k, v)

        def gradient() -> Any:
            return torch.func.grad(lambda q: sdpa(q, k, v).sum())(q)

        for function in (tangent, jvp, batched, functional, gradient):
            with self.subTest(function=function.__name__):
                attnrt.torch.disable()
                expected = function()
                attnrt.torch.enable()
                torch.testing.assert_close(function(), expected)

    def test_modes_see_torchs_operators(self) -> None:
        q, k, v = next(torch_reference.grid("cpu"))[0]

        class Names(torch.utils._python_dispatch.TorchDispatchMode):  # type: ignore[misc]
            def __torch_dispatch__(
                self, function: Any, _: Any, args: Any = (), kwargs: Any = None
            ) -> Any:
                names.append(str(function))
                return function(*args, **(kwargs or {}))

        names: list[str] = []
        with Names():
            sdpa(q, k, v)
        expected, names = names, []
        attnrt.torch.enable()
        with Names():
            sdpa(q, k, v)
        self.assertEqual(names, expected)
        self.assertTrue(names)

    def test_an_unserved_problem(self) -> None:
        q, k, v = next(torch_reference.grid("cpu"))[0]
        runtime = attnrt.Runtime(policy_text="schema: 1\nbackends: {cpu: {enabled: false}}\n")
        expected = sdpa(q, k, v)
        attnrt.torch.enable(runtime)
        self.assertTrue(torch.equal(sdpa(q, k, v), expected))
        [(reason, count)] = attnrt.torch.counters()["reasons"].items()
        self.assertRegex(reason, "^unsupported: .*cpu")
        self.assertEqual(count, 1)

    def test_reasons_are_bounded(self) -> None:
        for number in range(1000):
            _torch_provider._counts.left(_torch_provider.NotServed(str(number)))
        counters = attnrt.torch.counters()
        self.assertLessEqual(len(counters["reasons"]), 101)
        self.assertEqual(counters["fell_back"], 1000)


class Handle:
    def __init__(self) -> None:
        self.removed = False

    def remove(self) -> None:
        self.removed = True


class Switching(Provider):
    def served(self) -> bool:
        attnrt.torch.reset_counters()
        sdpa(*next(torch_reference.grid("cpu"))[0])
        return bool(attnrt.torch.counters()["served"] == 1)

    def test_on_and_off(self) -> None:
        self.assertFalse(attnrt.torch.enabled() or self.served())
        for _ in range(2):
            attnrt.torch.enable()
            self.assertTrue(attnrt.torch.enabled() and self.served())
        for _ in range(2):
            attnrt.torch.disable()
            self.assertFalse(attnrt.torch.enabled() or self.served())
        with self.assertRaisesRegex(attnrt.InvalidArgumentError, "runtime is a int; expected"):
            attnrt.torch.enable(3)  # type: ignore[arg-type]
        self.assertFalse(attnrt.torch.enabled())

    def test_a_torch_without_cuda(self) -> None:
        get_kernel = torch.library.get_kernel

        def only_on_the_cpu(name: str, key: str) -> Any:
            self.assertEqual(key, "CPU", name)
            return get_kernel(name, key)

        with (
            unittest.mock.patch.object(torch.library, "get_kernel", only_on_the_cpu),
            unittest.mock.patch.object(
                torch._C, "_dispatch_has_kernel_for_dispatch_key", lambda _, key: key == "CPU"
            ),
        ):
            attnrt.torch.enable()
            self.assertTrue(self.served())

    def test_a_torch_that_is_too_old(self) -> None:
        get_kernel = torch.library.get_kernel
        self.addCleanup(setattr, torch.library, "get_kernel", get_kernel)
        del torch.library.get_kernel
        with self.assertRaisesRegex(attnrt.UnsupportedError, "needs torch 2.10 or newer; found"):
            attnrt.torch.enable()
        self.assertFalse(attnrt.torch.enabled())

    def test_a_runtime_of_its_own(self) -> None:
        runtime = attnrt.Runtime()
        attnrt.torch.enable(runtime)
        self.assertTrue(self.served())
        self.assertEqual(len(runtime.decisions()), 1)
        attnrt.torch.enable()
        self.assertTrue(self.served())
        self.assertEqual(len(runtime.decisions()), 1)

    def test_torchs_registry(self) -> None:
        attention = torch.nn.attention
        if not hasattr(attention, "restore_flash_attention_impl"):
            self.skipTest("this torch has no registry that gives back what was active")
        handles: list[Handle] = []
        attention.register_flash_attention_impl(
            "theirs", register_fn=lambda: handles.append(Handle()) or handles[-1]
        )
        attention.activate_flash_attention_impl("theirs")
        self.addCleanup(attention.restore_flash_attention_impl, False)
        attnrt.torch.enable()
        self.assertTrue(handles[0].removed)
        self.assertEqual(attention.current_flash_attention_impl(), "attnrt")
        attnrt.torch.disable()
        self.assertEqual(attention.current_flash_attention_impl(), "theirs")
        self.assertEqual([handle.removed for handle in handles], [True, False])

        attention.activate_flash_attention_impl("attnrt")
        self.assertTrue(attnrt.torch.enabled() and self.served())
        attention.activate_flash_attention_impl("theirs")
        self.assertFalse(attnrt.torch.enabled() or self.served())
        attnrt.torch.disable()  # is off already
        self.assertEqual(attention.current_flash_attention_impl(), "theirs")


if __name__ == "__main__":
    unittest.main()
