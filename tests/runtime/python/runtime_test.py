# tests/runtime/python/runtime_test.py: Runtime, Plan, and every error: its class and its text
import ctypes
import importlib.metadata
import pathlib
import selectors
import sys
import tempfile
import threading
import time
import types
import unittest
import unittest.mock
from collections.abc import Callable
from typing import Any

import attnrt
import attnrt.errors
import numpy
from attnrt import _torch_memory

WORDS: dict[str, Any] = dict(
    dtype="f32", batch=2, heads_q=4, heads_kv=2, seq_q=9, seq_kv=13, head_dim=24
)


def tensors(dtype: str = "float32") -> list[Any]:
    random = numpy.random.default_rng(0)
    return [
        random.standard_normal((2, seq, heads, 24)).astype(dtype)
        for seq, heads in ((9, 4), (13, 2), (13, 2))
    ]


class Elsewhere:
    """A tensor that says it is on device (type, id) of DLPack; its address is never read."""

    class Struct(ctypes.Structure):  # DLManagedTensor
        _fields_ = [
            ("data", ctypes.c_void_p),
            ("device_type", ctypes.c_int32),
            ("device_id", ctypes.c_int32),
            ("ndim", ctypes.c_int32),
            ("code", ctypes.c_uint8),
            ("bits", ctypes.c_uint8),
            ("lanes", ctypes.c_uint16),
            ("shape", ctypes.POINTER(ctypes.c_int64)),
            ("strides", ctypes.c_void_p),
            ("byte_offset", ctypes.c_uint64),
            ("manager", ctypes.c_void_p),
            ("deleter", ctypes.c_void_p),
        ]

    def __init__(self, shape: tuple[int, ...], device: tuple[int, int] = (2, 0)):
        self.shape, self.device = shape, device

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.device

    def __dlpack__(self, **_: Any) -> Any:
        self.sizes = (ctypes.c_int64 * len(self.shape))(*self.shape)
        self.struct = self.Struct(
            0x1000, *self.device, len(self.shape), 2, 32, 1, self.sizes, None, 0, None, None
        )
        new = ctypes.pythonapi.PyCapsule_New
        new.restype, new.argtypes = (
            ctypes.py_object,
            [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p],
        )
        return new(ctypes.addressof(self.struct), b"dltensor", None)


class Reports(unittest.TestCase):
    def setUp(self) -> None:
        self.runtime = attnrt.Runtime()

    def test_versions_agree(self) -> None:
        self.assertEqual(importlib.metadata.version("attnrt"), attnrt.__version__)

    def test_explain(self) -> None:
        text = self.runtime.explain(**WORDS)
        self.assertRegex(text, r"decision +cpu")
        self.assertEqual(
            self.runtime.explain(
                "dtype=f32 batch=2 heads_q=4 heads_kv=2 seq_q=9 seq_kv=13 head_dim=24"
            ),
            text,
        )
        self.assertEqual(self.runtime.explain(WORDS), text)
        found = self.runtime.explain(WORDS, causal=True, window_left=None, json=True)
        self.assertEqual((found["chosen"], found["problem"]["causal"]), ("cpu", True))

    def test_explain_for_another_machine(self) -> None:
        problem = dict(WORDS, head_dim=20)  # no GPU's backend has it
        for words in (dict(arch="gfx1100", **problem), dict(problem=dict(problem, arch="gfx1100"))):
            found = self.runtime.explain(device="rocm", json=True, **words)
            self.assertEqual((found["arch"], found["chosen"]), ("gfx1100", None))

    def test_plugins(self) -> None:
        rows = {row["name"]: row for row in self.runtime.plugins()}
        self.assertRegex(rows["cpu"]["version"], r"^\d+\.\d+\.\d+")

    def test_policy(self) -> None:
        rows = {row["key"]: row for row in self.runtime.policy()}
        self.assertEqual(rows["staging"]["value"], "never")
        rows = {
            row["key"]: row
            for row in attnrt.Runtime(policy_text="schema: 1\nstaging: allow\n").policy()
        }
        self.assertEqual(rows["staging"]["value"], "allow")

    def test_reload_reads_the_file_again(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            policy = pathlib.Path(folder, "policy.yaml")
            policy.write_text("schema: 1\nbackends: {cpu: {enabled: false}}\n")
            runtime = attnrt.Runtime(policy)
            with self.assertRaises(attnrt.UnsupportedError) as caught:
                runtime.attention(*tensors())
            self.assertIn("cpu", str(caught.exception))
            policy.write_text("schema: 1\n")
            runtime.reload()
            runtime.attention(*tensors())
            policy.write_text("schema: 2\n")
            self.assertRaises(attnrt.InvalidArgumentError, runtime.reload)
            runtime.attention(*tensors())

    def test_watch_in_a_loop(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            policy = pathlib.Path(folder, "policy.yaml")
            policy.write_text("schema: 1\n")
            runtime = attnrt.Runtime(policy)
            self.assertRaises(attnrt.InvalidArgumentError, runtime.handle_events)

            def handle_until(done: Callable[[], bool]) -> None:
                with selectors.DefaultSelector() as selector:
                    selector.register(runtime, selectors.EVENT_READ)
                    end = time.monotonic() + 30
                    while not done():
                        self.assertLess(time.monotonic(), end)
                        if selector.select(1):
                            runtime.handle_events()

            self.assertEqual(runtime.fileno(), runtime.fileno())
            policy.write_text("schema: 1\nstaging: allow\n")
            handle_until(
                lambda: any(
                    value["key"] == "staging" and value["value"] == "allow"
                    for value in runtime.policy()
                )
            )
            policy.write_text("schema: 2\n")
            with self.assertRaises(attnrt.InvalidArgumentError):
                handle_until(lambda: False)
            runtime.attention(*tensors())

    def test_plugin_folders(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            self.assertEqual(attnrt.Runtime(plugins=folder).plugins(), [])
            folders = [pathlib.Path(row["path"]).parent for row in self.runtime.plugins()]
            self.assertEqual(
                len(attnrt.Runtime(plugins=[folder, folders[0]]).plugins()), len(folders)
            )

    def test_counters_and_decisions(self) -> None:
        given = tensors()
        for _ in range(3):
            self.runtime.attention(*given)
        stats = self.runtime.stats()
        self.assertEqual((stats["schema"], stats["kind"]), ("attnrt/1", "stats"))
        [cpu] = stats["candidates"]
        self.assertEqual((cpu["name"], cpu["plans"], cpu["runs"]), ("cpu", 1, 3))
        self.assertEqual(cpu["failures"], [])
        [first] = self.runtime.decisions()
        self.assertEqual((first["sequence"], first["chosen"]), (1, "cpu"))
        self.assertEqual(self.runtime.decisions(after=1), [])
        with self.assertRaises(attnrt.InvalidArgumentError):
            self.runtime.decisions(after=-1)

    def test_default_runtime_is_one(self) -> None:
        found: list[attnrt.Runtime] = []
        threads = [
            threading.Thread(target=lambda: found.append(attnrt.default_runtime()))
            for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(len(set(map(id, found))), 1)


class Plans(unittest.TestCase):
    def test_a_plan_runs_within_its_bounds(self) -> None:
        q, k, v = tensors()
        expected, expected_lse = attnrt.attention(q, k, v, causal=True, return_lse=True)
        plan = attnrt.Runtime(threads=1).plan(WORDS, causal=True, lse=True)
        self.assertEqual(plan.backend, "cpu")
        self.assertRegex(plan.version, r"^\d+\.\d+\.\d+")
        self.assertTrue(plan.kernel)
        self.assertGreaterEqual(plan.workspace_bytes, 0)
        self.assertIn("cpu", repr(plan))
        out, lse = numpy.empty_like(q), numpy.empty((2, 4, 9), "float32")
        self.assertIs(plan.run(q, k, v, out, lse=lse), out)
        numpy.testing.assert_array_equal(out, expected)
        numpy.testing.assert_array_equal(lse, expected_lse)
        first = plan.run(q[:1], k[:1], v[:1], lse=lse[:1])
        numpy.testing.assert_array_equal(first, expected[:1])

    def test_a_plan_explains_itself(self) -> None:
        plan = attnrt.Runtime().plan(WORDS, backend="cpu")
        self.assertRegex(plan.explain(), r"decision  cpu \S+ on cpu: the call asks for it")
        decision = plan.explain(json=True)
        self.assertEqual((decision["kind"], decision["chosen"]), ("decision", "cpu"))
        self.assertEqual(decision["problem"]["seq_kv"], WORDS["seq_kv"])

    def test_a_schedule_serves_equal_plans(self) -> None:
        runtime, given = attnrt.Runtime(), tensors()
        plan = runtime.plan(WORDS)
        expected = plan.run(*given)
        schedule = runtime.plan(WORDS).schedule()  # keeps its plan
        self.assertEqual(schedule.bytes, 0)
        self.assertIn("0 bytes", repr(schedule))
        for run, message in (
            (lambda: plan.run(*given, schedule=schedule), "the schedule is not built"),
            (lambda: plan.run(*given, schedule=3), "schedule is a int"),
            (lambda: schedule.build(given[0], given[1][:, :1], given[2]), "schedule: tensor v"),
        ):
            with self.assertRaises(attnrt.InvalidArgumentError) as raised:
                run()
            self.assertIn(message, str(raised.exception))
        schedule.build(*given)
        out = plan.run(*given, schedule=schedule)
        numpy.testing.assert_array_equal(out, expected)
        with self.assertRaises(attnrt.InvalidArgumentError) as raised:
            runtime.plan(WORDS, causal=True).run(*given, schedule=schedule)
        self.assertIn("found causal=false; expected true", str(raised.exception))

    def test_trim(self) -> None:
        runtime, (q, k, v) = attnrt.Runtime(), tensors()
        for left in (None, 0, 1 << 40):
            runtime.trim() if left is None else runtime.trim(left)
            runtime.attention(q, k, v)
        for wrong in (-1, 0.5, 1 << 63):
            with self.assertRaises(attnrt.InvalidArgumentError):
                runtime.trim(wrong)  # type: ignore[arg-type]

    def test_torch_memory(self) -> None:
        calls: list[Any] = []
        cuda = types.SimpleNamespace(
            is_initialized=lambda: True,
            caching_allocator_alloc=lambda *args: calls.append(args) or 4096,
            caching_allocator_delete=lambda *args: calls.append(args),
        )
        torch = types.SimpleNamespace(cuda=cuda, version=types.SimpleNamespace(hip=None))
        with unittest.mock.patch.dict("sys.modules", torch=torch):  # type: ignore[dict-item]
            self.assertEqual(_torch_memory.allocate(2, 1, 100, 7), 4096)
            _torch_memory.free(2, 1, 4096, 7)
            self.assertEqual(calls, [(100, 1, 7), (4096,)])
            self.assertIsNone(_torch_memory.allocate(10, 0, 100, 0), "torch is CUDA's")
            torch.version.hip = "6.2"
            self.assertEqual(_torch_memory.allocate(10, 0, 100, 0), 4096)
            cuda.is_initialized = lambda: False
            self.assertIsNone(_torch_memory.allocate(10, 0, 100, 0))
        with unittest.mock.patch.dict("sys.modules"):
            sys.modules.pop("torch", None)
            self.assertIsNone(_torch_memory.allocate(2, 0, 100, 0))

    def test_threads_share_a_plan(self) -> None:
        given = tensors()
        plan = attnrt.default_runtime().plan(WORDS)
        expected = plan.run(*given)
        found: list[Any] = []
        threads = [
            threading.Thread(target=lambda: found.extend(plan.run(*given) for _ in range(20)))
            for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(len(found), 80)
        for out in found:
            numpy.testing.assert_array_equal(out, expected)


class Refusals(unittest.TestCase):
    def refused(
        self, kind: type[attnrt.Error], text: str, call: Any, *arguments: Any, **words: Any
    ) -> attnrt.Error:
        with self.assertRaises(kind) as caught:
            call(*arguments, **words)
        self.assertIs(type(caught.exception), kind)
        self.assertRegex(str(caught.exception), text)
        self.assertNotIn("\n", str(caught.exception))
        return caught.exception

    def invalid(self, text: str, call: Any, *arguments: Any, **words: Any) -> None:
        error = self.refused(attnrt.InvalidArgumentError, text, call, *arguments, **words)
        self.assertEqual(error.status, "invalid argument")
        self.assertIsInstance(error, ValueError)

    def test_what_is_no_tensor(self) -> None:
        q, k, v = tensors()
        self.invalid("q is a list; expected a tensor", attnrt.attention, [1.0], k, v)
        self.invalid("v is None", attnrt.attention, q, k, None)
        self.invalid("native byte order", attnrt.attention, q.astype(q.dtype.newbyteorder()), k, v)
        self.invalid(
            "mask has 5 dimensions", attnrt.attention, q, k, v, mask=numpy.ones((1,) * 5, bool)
        )
        self.invalid(
            "q is a Elsewhere; a result without out=",
            attnrt.attention,
            Elsewhere((2, 9, 4, 24)),
            k,
            v,
        )

    def test_tensors_that_disagree(self) -> None:
        q, k, v = tensors()
        self.invalid(r"\bq has 3 dimensions", attnrt.attention, q[0], k, v)
        self.invalid(r"\bk\b.*\b16\b", attnrt.attention, q, k[..., :16], v)
        self.invalid("heads_q.*3", attnrt.attention, q[:, :, :3], k, v)
        self.invalid(r"\bk\b.*f16", attnrt.attention, q, k.astype("float16"), v)
        self.invalid("f32, f16, bf16", attnrt.attention, *tensors("float64"))
        self.invalid("negative stride", attnrt.attention, q[:, ::-1], k, v)
        self.invalid("stride.*2.*head_dim", attnrt.attention, q[..., ::2], k[..., ::2], v)
        self.invalid("kv_lengths.*int32", attnrt.attention, q, k, v, kv_lengths=numpy.array([3, 4]))
        self.invalid(
            "mask is uint8; expected bool",
            attnrt.attention,
            q,
            k,
            v,
            mask=numpy.ones((9, 13), "uint8"),
        )
        self.invalid(
            r"\bout\b.*\b16\b", attnrt.attention, q, k, v, out=numpy.empty_like(q[..., :16])
        )

    def test_out_that_cannot_be_written_to(self) -> None:
        q, k, v = tensors()
        out = numpy.empty_like(q)
        out.flags.writeable = False
        self.invalid("out is read-only", attnrt.attention, q, k, v, out=out)

    def test_words(self) -> None:
        q, k, v = tensors()
        self.invalid(
            "causal: found 'yes'; expected True or False", attnrt.attention, q, k, v, causal="yes"
        )
        self.invalid("align: found 'left'; expected", attnrt.attention, q, k, v, align="left")
        self.invalid("scale: found nan", attnrt.attention, q, k, v, scale=float("nan"))
        self.invalid("window_left: found -2", attnrt.attention, q, k, v, window_left=-2)
        self.invalid("backend is a int", attnrt.attention, q, k, v, backend=1)
        self.invalid("stream is a str", attnrt.attention, q, k, v, stream="0")
        self.invalid("stream is -1", attnrt.attention, q, k, v, stream=-1)
        self.invalid("did you mean heads_q", attnrt.default_runtime().plan, heads=3)
        self.invalid("dtype: found f17", attnrt.default_runtime().explain, "dtype=f17")
        self.invalid("problem is a int", attnrt.default_runtime().explain, 3)
        attnrt.attention(q, k, v, stream=types.SimpleNamespace(cuda_stream=0))

    def test_policies(self) -> None:
        self.invalid(
            r"2:1: thread: unknown key", attnrt.Runtime, policy_text="schema: 1\nthread: 3\n"
        )
        self.invalid("No such file", attnrt.Runtime, "/nowhere/policy.yaml")
        self.invalid("policy and plugins are paths", attnrt.Runtime, 3)
        self.invalid("policy and plugins are paths", attnrt.Runtime, plugins=[3])
        self.invalid("threads is a str", attnrt.Runtime, threads="all")

    def test_names(self) -> None:
        error = self.refused(
            attnrt.NotFoundError,
            "no backend is named nobody",
            attnrt.attention,
            *tensors(),
            backend="nobody",
        )
        self.assertEqual(error.status, "not found")
        self.refused(
            attnrt.NotFoundError, "nobody", attnrt.default_runtime().plan, WORDS, backend="nobody"
        )

    def test_nobody_can(self) -> None:
        runtime = attnrt.Runtime(
            policy_text="schema: 1\nrules: [{when: {seq_q: {min: 2}}, deny: [cpu]}]\n"
        )
        error = self.refused(
            attnrt.UnsupportedError, "cpu", attnrt.attention, *tensors(), runtime=runtime
        )
        self.assertEqual(error.status, "unsupported")

    def test_memory_that_runs_out(self) -> None:
        error = attnrt.errors.error_of("out of memory", "plan: no 1 bytes")
        self.assertIsInstance(error, MemoryError)
        self.assertIs(type(attnrt.errors.error_of("device lost", "")), attnrt.Error)
        self.assertEqual(attnrt.errors.error_of("device lost", "").status, "device lost")

    def test_tensors_of_a_device(self) -> None:
        q, k, v = tensors()
        runtime = attnrt.Runtime()
        far = [Elsewhere(shape.shape) for shape in (q, k, v, q)]
        self.invalid("k is on cuda:0; expected cpu, as q is", runtime.attention, q, far[1], v)
        self.invalid(
            "v is on cuda:1; expected cuda:0",
            runtime.attention,
            far[0],
            far[1],
            Elsewhere(v.shape, (2, 1)),
            out=far[3],
        )
        self.invalid(
            "q is on rocm:0; expected cpu, the plan's device",
            runtime.plan(WORDS).run,
            *(Elsewhere(tensor.shape, (10, 0)) for tensor in (q, k, v, q)),
        )
        only_cpu = attnrt.Runtime(
            policy_text="schema: 1\nunlisted: deny\nbackends: {hip_flash: {enabled: false}, "
            "hip_unfused: {enabled: false}}\n"
        )
        self.refused(
            attnrt.UnsupportedError, "no backend supports", only_cpu.attention, *far[:3], out=far[3]
        )
        self.invalid(
            "device",
            runtime.attention,
            *(Elsewhere(t.shape, (8, 0)) for t in (q, k, v)),
            out=Elsewhere(q.shape, (8, 0)),
        )

    def test_pinned_host_memory_is_the_cpu(self) -> None:
        q, _, v = tensors()
        with self.assertRaisesRegex(attnrt.InvalidArgumentError, r"\bk\b.*\b16\b"):
            attnrt.attention(q, Elsewhere((2, 13, 2, 16), (3, 1)), v)


if __name__ == "__main__":
    unittest.main()
