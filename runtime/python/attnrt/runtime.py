# runtime/python/attnrt/runtime.py: the classes Runtime, Plan and Schedule
"""Runtime finds plugins and chooses among them; a Plan is prepared work for one problem.

A Schedule divides the work of many runs once.
"""

from __future__ import annotations

import json as _json
import os
import sys
import threading
from collections.abc import Mapping, Sequence
from typing import Any

from . import _attnrt, _torch_memory
from ._arguments import Align, Layout, integer, problem_text, text_or_none, words_like
from ._tensors import (
    Tensor,
    is_torch,
    is_traced,
    leave_graph,
    merged_results,
    stream_pointer,
)
from .errors import InvalidArgumentError

Path = str | os.PathLike[str]


class _Enqueued:
    """Device memory that work of a torch stream may still use when its owner is collected."""

    _device: Any = None  # torch's device, once work may be in flight there

    def _note_device(self, q: Any) -> None:
        if is_torch(q) and q.is_cuda:
            self._device = q.device

    def __del__(self) -> None:
        # At the end of the process, modules are gone already.
        if self._device is not None and sys is not None:
            torch = sys.modules.get("torch")
            if torch is not None:
                torch.cuda.synchronize(self._device)


class Schedule(_Enqueued):
    """How runs divide their work, built once for the runs of all layers; Plan.schedule makes it.

    Where the lengths of sequences are in device memory, a backend reads them there to divide a
    run's work evenly. All layers of a step have the same lengths: build the schedule once a step,
    and give it to each layer's run. It changes no result. Where the backend needs none, or offers
    none, it does nothing.

    THREADS: a build counts as a run of the plan; no run uses the schedule meanwhile. Runs with it
    are on the stream of its build, or on one that waits for that stream. Keep it until its last run
    has completed, and for as long as you keep a graph that captured its build or one of its runs.
    """

    def __init__(self, schedule: _attnrt.Schedule):
        self._schedule = schedule

    @property
    def bytes(self) -> int:
        """Device memory that it holds, in bytes. 0: it does nothing."""
        return self._schedule.bytes

    def __repr__(self) -> str:
        return f"<attnrt.Schedule of {self.bytes} bytes>"

    def build(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor | None = None,
        out: Tensor | None = None,
        *,
        lse: Tensor | None = None,
        mask: Tensor | None = None,
        alibi_slopes: Tensor | None = None,
        sinks: Tensor | None = None,
        kv_lengths: Tensor | None = None,
        offsets_q: Tensor | None = None,
        offsets_kv: Tensor | None = None,
        page_table: Tensor | None = None,
        k_scale: Tensor | None = None,
        v_scale: Tensor | None = None,
        diagonal_offset: Tensor | None = None,
        layout: Layout = "bshd",
        stream: Any = None,
    ) -> None:
        """Builds it for runs on tensors of these sizes and lengths, in place of the last build's.

        The arguments are those of Plan.run, of any layer: kv_lengths, offsets_q, offsets_kv and
        diagonal_offset are read in the order of the stream; of the others only the shapes count,
        and nothing is written. If the lengths at a run differ, its rows of those sequences are NaN
        (packed: or are not written).

        Raises InvalidArgumentError for tensors that do not fit the plan, and the backend's errors.
        """
        if self._device is None:
            self._note_device(q)
        self._schedule.build(
            (
                q, k, v, out, mask, lse, alibi_slopes, sinks, kv_lengths, offsets_q, offsets_kv,
                page_table, k_scale, v_scale, diagonal_offset,
            ),
            stream,
            layout,
        )  # fmt: skip


class Plan(_Enqueued):
    """Prepared work for one problem; Runtime.plan makes it.

    It keeps its backend, even after Runtime.reload().

    THREADS: one run at a time; a second thread waits. On a device, only runs on the same stream
    wait for each other. So use a plan on one stream only. Keep it until its last run has completed,
    and for as long as you keep a graph that captured one of its runs.
    """

    def __init__(self, plan: _attnrt.Plan):
        self._plan = plan

    @property
    def backend(self) -> str:
        """The plugin's name: "cpu"."""
        return self._plan.backend

    @property
    def version(self) -> str:
        """The plugin's version: "1.0.0"."""
        return self._plan.version

    @property
    def kernel(self) -> str:
        """What runs, in the plugin's words."""
        return self._plan.kernel

    @property
    def workspace_bytes(self) -> int:
        """Memory that the plan holds for its runs, in bytes."""
        return self._plan.workspace_bytes

    def explain(self, *, json: bool = False) -> Any:
        """Says why this backend was chosen, as Runtime.explain does.

        A backend that failed while this plan was made is in there with its reason.
        """
        text = self._plan.explain(bool(json))
        return _json.loads(text) if json else text

    def __repr__(self) -> str:
        return f"<attnrt.Plan {self.backend} {self.version}: {self.kernel}>"

    def run(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor | None = None,
        out: Tensor | None = None,
        *,
        lse: Tensor | None = None,
        mask: Tensor | None = None,
        alibi_slopes: Tensor | None = None,
        sinks: Tensor | None = None,
        kv_lengths: Tensor | None = None,
        offsets_q: Tensor | None = None,
        offsets_kv: Tensor | None = None,
        page_table: Tensor | None = None,
        k_scale: Tensor | None = None,
        v_scale: Tensor | None = None,
        diagonal_offset: Tensor | None = None,
        layout: Layout = "bshd",
        stream: Any = None,
        schedule: Schedule | None = None,
    ) -> Any:
        """Runs on tensors as in attention() and returns out, which is allocated if it is None.

        Give out if the plan has out_dtype, or v_in_k with a head_dim_v below head_dim.
        batch, seq_q and seq_kv are at most the plan's; everything else agrees with the plan. If the
        plan was made with lse, lse must be given: float32 [batch, heads_q, seq_q] (packed:
        [heads_q, total_q]). For device tensors the run is enqueued on the stream, and this returns
        at once. layout: as in attention(). schedule: of this plan, or of another one of an equal
        problem, the same backend and device; it was built for tensors of these sizes.

        Raises InvalidArgumentError for tensors or a schedule that do not fit the plan, and the
        backend's errors; no other backend is tried.
        """
        if is_traced(q):
            leave_graph("Plan.run is no operator of torch; attnrt.attention is one")
        if schedule is not None and not isinstance(schedule, Schedule):
            raise InvalidArgumentError(
                f"schedule is a {type(schedule).__name__}; expected a Schedule or None"
            )
        if self._device is None:
            self._note_device(q)
        return self._plan.run(
            (
                q, k, v, out, mask, lse, alibi_slopes, sinks, kv_lengths, offsets_q, offsets_kv,
                page_table, k_scale, v_scale, diagonal_offset,
            ),
            stream,
            layout,
            None if schedule is None else schedule._schedule,
        )  # fmt: skip

    def schedule(self) -> Schedule:
        """Allocates a schedule for the runs of this plan, and of others of an equal problem.

        It keeps the plan alive. Raises OutOfMemoryError, or the backend's error.
        """
        return Schedule(self._plan.schedule())


class _Closed:
    """What stands in the place of a closed runtime."""

    def __getattr__(self, name: str) -> Any:
        raise InvalidArgumentError(f"{name}: the Runtime is closed")


class Runtime:
    """A policy and the plugins that it finds.

    policy       the path of a YAML file
    policy_text  the YAML itself. If neither is given: $ATTNRT_POLICY, else the built-in policy
    plugins      directories (a path or a list of paths), in place of those of the policy and of
                 $ATTNRT_PLUGIN_PATH
    threads      the number of threads of its pool; 0: as many as the policy says
    torch_memory take workspaces on GPUs from torch's caching allocator, if torch uses that GPU in
                 this process; False: they come from the
                 backend's own memory

    Raises InvalidArgumentError for a policy with an error (file:line:column). A plugin that cannot
    be used is no error here; plugins() lists it with the reason.

    THREADS: any call from any threads at once.
    """

    def __init__(
        self,
        policy: Path | None = None,
        *,
        policy_text: str | None = None,
        plugins: Path | Sequence[Path] | None = None,
        threads: int = 0,
        torch_memory: bool = True,
    ):
        folders = [plugins] if isinstance(plugins, (str, os.PathLike)) else plugins
        try:
            path = None if policy is None else os.fsdecode(policy)
            joined = None if folders is None else ":".join(os.fsdecode(each) for each in folders)
        except TypeError as error:
            raise InvalidArgumentError(f"policy and plugins are paths: {error}") from None
        self._runtime = _attnrt.Runtime(
            path,
            text_or_none("policy_text", policy_text),
            joined,
            integer("threads", threads),
            (_torch_memory.allocate, _torch_memory.free) if torch_memory else None,
        )

    def close(self) -> None:
        """Gives back what the runtime holds. Its plans keep working; other calls raise then.

        A `with` statement does it at its end. Without it, the garbage collector does.
        """
        self._runtime = _Closed()  # type: ignore[assignment]

    def __enter__(self) -> Runtime:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        if isinstance(self._runtime, _Closed):
            return "<attnrt.Runtime: closed>"
        usable = [row["name"] for row in self.plugins() if not row["reason"]]
        return f"<attnrt.Runtime: {', '.join(usable) or 'no plugin'}>"

    def attention(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor | None,
        *,
        mask: Tensor | None = None,
        causal: bool = False,
        align: Align = "bottom_right",
        window_left: int | None = None,
        window_right: int | None = None,
        scale: float | None = None,
        softcap: float | None = None,
        alibi_slopes: Tensor | None = None,
        sinks: Tensor | None = None,
        kv_lengths: Tensor | None = None,
        offsets_q: Tensor | None = None,
        offsets_kv: Tensor | None = None,
        page_table: Tensor | None = None,
        k_scale: Tensor | None = None,
        v_scale: Tensor | None = None,
        diagonal_offset: Tensor | None = None,
        out: Tensor | None = None,
        return_lse: bool = False,
        backend: str | None = None,
        deterministic: bool = False,
        batch_invariant: bool = False,
        v_in_k: bool = False,
        layout: Layout = "bshd",
        stream: Any = None,
    ) -> Any:
        """out = softmax(scale * q k^T + ...) v, on the backend that the policy chooses.

        The arguments are those of the function attnrt.attention.
        """
        if is_traced(q):
            leave_graph("Runtime.attention is no operator of torch; attnrt.attention is one")
        return self._runtime.attention(
            (
                q, k, v, out, mask, None, alibi_slopes, sinks, kv_lengths, offsets_q, offsets_kv,
                page_table, k_scale, v_scale, diagonal_offset,
            ),
            (
                causal, align, window_left, window_right, scale, softcap, deterministic,
                batch_invariant, v_in_k,
            ),
            backend,
            stream,
            layout,
            bool(return_lse),
        )  # fmt: skip

    def merge(
        self,
        outs: Sequence[Tensor],
        lses: Sequence[Tensor],
        *,
        out: Tensor | None = None,
        return_lse: bool = False,
        stream: Any = None,
    ) -> Any:
        """The result over all keys, from results over parts of them.

        The arguments are those of the function attnrt.merge.
        """
        outs, lses = list(outs), list(lses)
        if outs and is_traced(outs[0]):
            leave_graph("attnrt.merge is no operator of torch")
        if not outs or len(outs) != len(lses):
            raise InvalidArgumentError(
                f"found {len(outs)} outs and {len(lses)} lses; expected as many of each, at least 1"
            )
        out, lse = merged_results(outs, out, return_lse)
        self._runtime.merge(outs, lses, out, lse, stream_pointer(stream, outs[0]))
        return (out, lse) if return_lse else out

    def plan(
        self,
        problem: str | Mapping[str, Any] | None = None,
        *,
        like: tuple[Tensor, Tensor, Tensor] | None = None,
        layout: Layout = "bshd",
        device_id: int | None = None,
        backend: str | None = None,
        stream: Any = None,
        **words: Any,
    ) -> Plan:
        """Selects a backend and prepares the work, once for many runs:

            plan(dtype="f16", batch=1, heads_q=32, heads_kv=8, seq_q=1, seq_kv=4096, head_dim=128,
                 kv_lengths=True)
            plan(like=(q, k, v), causal=True)

        The problem is in words: a str, a dict or keywords. like: tensors of [batch, seq, heads,
        head_dim] (layout: as in attention()), whose device, dtype and sizes it has; keywords count
        more. A dtype may also be numpy's or torch's, or its name there. batch, seq_q and seq_kv are
        upper bounds. alibi, sinks, kv_lengths, varlen and lse say that each run brings those
        tensors. Each row starts at a multiple of alignment_bytes (16 if not given).
        stream: a torch stream, or a pointer as an int: the workspace is for runs there, and on
        streams that wait for it. None: for runs on any stream.

        Raises UnsupportedError, NotFoundError (no plugin is named backend), InvalidArgumentError (a
        word or its value is wrong), OutOfMemoryError.
        """
        found = {} if like is None else words_like(like, layout)
        found_id = found.pop("device_id", 0)
        return Plan(
            self._runtime.plan(
                problem_text(problem, words, found),
                integer("device_id", found_id if device_id is None else device_id),
                text_or_none("backend", backend),
                0 if stream is None else stream_pointer(stream, None),
            )
        )

    def explain(
        self,
        problem: str | Mapping[str, Any] | None = None,
        *,
        like: tuple[Tensor, Tensor, Tensor] | None = None,
        layout: Layout = "bshd",
        arch: str | None = None,
        json: bool = False,
        backend: str | None = None,
        **words: Any,
    ) -> Any:
        """Says which backend would serve a problem, and why the others would not.

        Nothing is planned or run. The problem is as in plan(). arch: decide as if a device of that
        architecture ("gfx1100") were here. Returns text for people or, with json=True, a dict of
        the schema "attnrt/1".
        """
        found = {} if like is None else words_like(like, layout)
        found.pop("device_id", None)
        if arch is not None:
            words["arch"] = arch
        text = self._runtime.explain(
            problem_text(problem, words, found), text_or_none("backend", backend), bool(json)
        )
        return _json.loads(text) if json else text

    def plugins(self) -> list[dict[str, Any]]:
        """Lists every plugin file that was found.

        Each has path, name, version, devices, state and, if it cannot be used, the reason.
        """
        rows: list[dict[str, Any]] = _json.loads(self._runtime.plugins())["plugins"]
        return rows

    def policy(self) -> list[dict[str, str]]:
        """Lists the values of the policy in effect, each as {"key", "value", "from"}."""
        values: list[dict[str, str]] = _json.loads(self._runtime.policy())["values"]
        return values

    def stats(self) -> dict[str, Any]:
        """What was counted since the runtime was opened, as a dict of the schema "attnrt/1".

        Each candidate's plans, runs, failures by class, failovers, quarantines and held bytes;
        reloads, decisions and caches. docs/stats.md has the fields.
        """
        counted: dict[str, Any] = _json.loads(self._runtime.stats())
        return counted

    def decisions(self, after: int = 0) -> list[dict[str, Any]]:
        """The last decisions that were made, the oldest first: at most 1,024.

        Each is what explain(json=True) returns, with its number ("sequence") and its time. after:
        only decisions with a higher number.
        """
        lines = self._runtime.decisions(integer("after", after, 2**63 - 1))
        return [_json.loads(line) for line in lines.splitlines()]

    def trim(self, bytes: int = 0) -> None:
        """Gives back what idle plans of attention() hold, until at most so many bytes are left.

        Waits for their last runs. What captured graphs use is kept.
        """
        self._runtime.trim(integer("bytes", bytes, 2**63 - 1))

    def reload(self) -> None:
        """Reads policy and plugin directories again.

        If that fails, everything stays as it was.
        """
        self._runtime.reload()

    def fileno(self) -> int:
        """Returns a descriptor that is readable when handle_events() has something to do.

        So selectors and asyncio take a Runtime as it is: loop.add_reader(runtime,
        runtime.handle_events). From the first call on, it watches the policy file and the plugin
        directories, without a thread. The descriptor belongs to the Runtime: take it out of the
        loop before the Runtime is collected.
        """
        return self._runtime.watch()

    def handle_events(self) -> None:
        """Reloads if watched files have changed and it has been quiet for 500 ms.

        Otherwise it returns at once. If the reload fails, it raises, and everything stays as it
        was. Call fileno() first.
        """
        self._runtime.handle_events()

    def retry(self) -> None:
        """Looks again for devices that were missing or lost. New plans use what is found."""
        self._runtime.retry()

    def promote(self, backend: str) -> None:
        """Ends the rollout of the backend's new versions: they are ranked as if there were none.

        Raises NotFoundError if no version of it has a rollout.
        """
        self._runtime.promote(backend)

    def roll_back(self, backend: str) -> None:
        """Ends the rollout of the backend's new versions: they serve nothing new.

        Raises NotFoundError if no version of it has a rollout.
        """
        self._runtime.roll_back(backend)


_default: Runtime | None = None
_default_lock = threading.Lock()


def default_runtime() -> Runtime:
    """Returns the Runtime that attnrt.attention uses; the first call makes it."""
    global _default
    if _default is None:
        with _default_lock:
            if _default is None:
                _default = Runtime()
    return _default
