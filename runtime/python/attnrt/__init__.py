# runtime/python/attnrt/__init__.py: attention on numpy and torch tensors, by plugins that a policy chooses
"""Scaled dot-product attention by plugins.

    out = attnrt.attention(q, k, v, causal=True)

Tensors are [batch, seq, heads, head_dim], from numpy, torch or anything else with DLPack, and are read where they lie:
no copies. Any strides will do if head_dim's is 1, so torch's usual [batch, heads, seq, head_dim] is q.transpose(1, 2).
Inference only: no gradients, no dropout.

Every failure is an attnrt.Error with one line of text. A Runtime may be used from any threads at once, and the GIL is
released while it works; a Plan runs once at a time.
"""
from __future__ import annotations

import json as _json
import operator as _operator
import os as _os
import sys as _sys
import threading as _threading
from typing import Any, Mapping, Sequence

from . import _attnrt

__all__ = ["Error", "InvalidArgumentError", "NotFoundError", "OutOfMemoryError", "Plan", "Runtime", "UnsupportedError",
           "attention", "default_runtime"]
__version__: str = _attnrt.version()
"""Of the C library that is loaded."""

Tensor = Any
"""A numpy array, a torch tensor, or any other object with __dlpack__."""


class Error(Exception):
    """Something failed; its text is one line: where, what was found, what was expected.

    status is "unsupported", "out of memory", "invalid argument", "internal error", "device lost" or "not found".
    """

    status: str = "internal error"


class UnsupportedError(Error):
    """No backend that the policy allows can do this problem; the text has each one's reasons."""

    status = "unsupported"


class InvalidArgumentError(Error, ValueError):
    """The caller's fault: tensors that disagree, an unknown word, a policy with an error."""

    status = "invalid argument"


class OutOfMemoryError(Error, MemoryError):
    """Memory of the host or of the device ran out."""

    status = "out of memory"


class NotFoundError(Error):
    """No plugin has the name that was asked for."""

    status = "not found"


_ERRORS = {kind.status: kind for kind in (UnsupportedError, InvalidArgumentError, OutOfMemoryError, NotFoundError)}


def _error(status: str, message: str) -> Error:
    error = _ERRORS.get(status, Error)(message)
    error.status = status
    return error


# ---- What a call is given, into what _attnrt takes ----


def _words(words: Mapping[str, Any]) -> str:
    """The problem's words as the C library reads them; None is left out."""
    texts = ((name, str(value)) for name, value in words.items() if value is not None)
    return " ".join(f"{name}={text.lower() if text in ('True', 'False') else text}" for name, text in texts)


def _question(problem: str | Mapping[str, Any] | None, words: Mapping[str, Any]) -> str:
    if problem is None:
        return _words(words)
    if isinstance(problem, str):
        return f"{problem} {_words(words)}"
    if isinstance(problem, Mapping):
        return _words({**problem, **words})
    raise InvalidArgumentError(f"problem is a {type(problem).__name__}; expected words, as a str or a dict")


def _name(name: str, value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    raise InvalidArgumentError(f"{name} is a {type(value).__name__}; expected a str or None")


def _integer(name: str, value: Any, most: int = 2**31 - 1) -> int:
    try:
        number = _operator.index(value)
    except TypeError:
        raise InvalidArgumentError(f"{name} is a {type(value).__name__}; expected an int") from None
    if not 0 <= number <= most:
        raise InvalidArgumentError(f"{name} is {number}; expected 0 to {most}")
    return number


def _is_torch(tensor: Tensor) -> bool:
    torch = _sys.modules.get("torch")
    return torch is not None and isinstance(tensor, torch.Tensor)


def _stream(stream: Any, q: Tensor) -> int:
    """The pointer of a stream; None: torch's current one for a torch tensor, else the default stream."""
    if stream is not None:
        return _integer("stream", getattr(stream, "cuda_stream", stream), 2**64 - 1)
    return _sys.modules["torch"].cuda.current_stream(q.device).cuda_stream if _is_torch(q) and q.is_cuda else 0


_NAMES = ("q", "k", "v", "out", "lse", "mask", "alibi_slopes", "sinks", "kv_lengths", "offsets_q", "offsets_kv",
          "page_table")


def _without_gradients(tensors: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """torch tensors that track gradients only if nobody is recording."""
    torch = _sys.modules.get("torch")
    if torch is None or not any(_is_torch(tensor) and tensor.requires_grad for tensor in tensors):
        return tensors
    if torch.is_grad_enabled():
        name = next(name for name, tensor in zip(_NAMES, tensors) if _is_torch(tensor) and tensor.requires_grad)
        raise InvalidArgumentError(f"{name} requires grad, and attnrt computes no gradients: call it under "
                                   f"torch.no_grad(), or give {name}.detach()")
    return tuple(tensor.detach() if _is_torch(tensor) else tensor for tensor in tensors)


def _allocated(like: Tensor, shape: tuple[int, ...], packed: bool, float32: bool = False) -> Tensor:
    """Memory beside `like`. Packed sequences leave rows past the last offset untouched: those are to be zeros."""
    if _is_torch(like):
        dtype = _sys.modules["torch"].float32 if float32 else like.dtype
        return (like.new_zeros if packed else like.new_empty)(shape, dtype=dtype)
    numpy = _sys.modules.get("numpy")
    if numpy is not None and isinstance(like, numpy.ndarray):
        return (numpy.zeros if packed else numpy.empty)(shape, numpy.float32 if float32 else like.dtype)
    what = "return_lse" if float32 else "a result without out="
    raise InvalidArgumentError(f"q is a {type(like).__name__}; {what} needs a numpy array or a torch tensor")


def _results(q: Tensor, v: Tensor, out: Tensor, packed: bool, with_lse: bool) -> tuple[Tensor, Tensor]:
    """out and lse; None where q and v are no such tensors, which the C library words better."""
    q_shape, v_shape = (tuple(getattr(tensor, "shape", ())) for tensor in (q, v))
    if len(q_shape) != (3 if packed else 4) or not v_shape:
        return out, None
    if out is None:
        out = _allocated(q, (*q_shape[:-1], v_shape[-1]), packed)
    lse_shape = (q_shape[1], q_shape[0]) if packed else (q_shape[0], q_shape[2], q_shape[1])
    return out, _allocated(q, lse_shape, packed, float32=True) if with_lse else None


# ---- The public part ----


class Plan:
    """Prepared work for one problem; Runtime.plan makes it. It keeps its backend also after Runtime.reload().

    THREADS: one run at a time; a second thread waits. On a device, runs follow each other only within one stream, so use
    a plan from one stream, and keep it until its last run has completed (and as long as a graph that captured one).
    """

    def __init__(self, plan: _attnrt.Plan):
        self._plan = plan
        self._device: Any = None  # torch's, once something may be in flight there

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

    def __repr__(self) -> str:
        return f"<attnrt.Plan {self.backend} {self.version}: {self.kernel}>"

    def run(self, q: Tensor, k: Tensor, v: Tensor, out: Tensor = None, *, lse: Tensor = None, mask: Tensor = None,
            alibi_slopes: Tensor = None, sinks: Tensor = None, kv_lengths: Tensor = None, offsets_q: Tensor = None,
            offsets_kv: Tensor = None, page_table: Tensor = None, stream: Any = None) -> Tensor:
        """Runs on tensors as in attention() and returns out (allocated if None).

        batch, seq_q and seq_kv are at most the plan's; everything else agrees with it. lse, if the plan has it, is given:
        float32 [batch, heads_q, seq_q]. For device tensors it enqueues on the stream and returns.

        Raises InvalidArgumentError for tensors that do not fit the plan, and the backend's errors; no other backend is
        tried.
        """
        out, _ = _results(q, v, out, offsets_q is not None, False)
        given = (q, k, v, out, lse, mask, alibi_slopes, sinks, kv_lengths, offsets_q, offsets_kv, page_table)
        on = _stream(stream, q)
        if _is_torch(q) and q.is_cuda:
            self._device = q.device
        self._plan.run(on, *_without_gradients(given))
        return out

    def __del__(self) -> None:
        # What was enqueued may still use the workspace.
        torch = _sys.modules.get("torch")
        if getattr(self, "_device", None) is not None and torch is not None:
            torch.cuda.synchronize(self._device)


class Runtime:
    """A policy and the plugins that it finds.

    policy: the path of a YAML file; policy_text: the YAML itself; neither: $ATTNRT_POLICY, else the built-in policy.
    plugins: directories (a path or a list of them) in place of the policy's and $ATTNRT_PLUGIN_PATH.
    threads: of its pool; 0: as many as the policy says.

    Raises InvalidArgumentError for a policy with an error (file:line:column). A plugin that cannot be used is a row of
    plugins(), not an error. THREADS: any call from any threads at once.
    """

    def __init__(self, policy: str | _os.PathLike[str] | None = None, *, policy_text: str | None = None,
                 plugins: str | _os.PathLike[str] | Sequence[str | _os.PathLike[str]] | None = None, threads: int = 0):
        folders = [plugins] if isinstance(plugins, (str, _os.PathLike)) else plugins
        try:
            path = None if policy is None else _os.fsdecode(policy)
            plugin_path = None if folders is None else ":".join(_os.fsdecode(folder) for folder in folders)
        except TypeError as error:
            raise InvalidArgumentError(f"policy and plugins are paths: {error}") from None
        self._runtime = _attnrt.Runtime(path, _name("policy_text", policy_text), plugin_path,
                                        _integer("threads", threads))

    def attention(self, q: Tensor, k: Tensor, v: Tensor, *, mask: Tensor = None, causal: bool = False,
                  align: str = "bottom_right", window_left: int | None = None, window_right: int | None = None,
                  scale: float | None = None, softcap: float | None = None, alibi_slopes: Tensor = None,
                  sinks: Tensor = None, kv_lengths: Tensor = None, offsets_q: Tensor = None, offsets_kv: Tensor = None,
                  page_table: Tensor = None, out: Tensor = None, return_lse: bool = False, backend: str | None = None,
                  deterministic: bool = False, stream: Any = None) -> Any:
        """out = softmax(scale * q k^T + ...) v, on the backend that the policy chooses; the module's attention()."""
        packed = offsets_q is not None
        out, lse = _results(q, v, out, packed, return_lse)
        given = (q, k, v, out, lse, mask, alibi_slopes, sinks, kv_lengths, offsets_q, offsets_kv, page_table)
        words = _words({"causal": causal or None, "align": None if align == "bottom_right" else align,
                        "window_left": window_left, "window_right": window_right, "scale": scale, "softcap": softcap,
                        "deterministic": deterministic or None})
        self._runtime.attention(words, _name("backend", backend), _stream(stream, q), *_without_gradients(given))
        return (out, lse) if return_lse else out

    def plan(self, problem: str | Mapping[str, Any] | None = None, *, device_id: int = 0, backend: str | None = None,
             **words: Any) -> Plan:
        """Selects and prepares, once for many runs: plan(dtype="f16", batch=1, heads_q=32, heads_kv=8, seq_q=1,
        seq_kv=4096, head_dim=128, kv_lengths=True).

        The problem is in words (a str, a dict, keywords); batch, seq_q and seq_kv are bounds. alibi, sinks, kv_lengths,
        varlen and lse say that a run brings those tensors. alignment_bytes (16): at what multiples rows start.

        Raises UnsupportedError, NotFoundError (backend), InvalidArgumentError (a word), OutOfMemoryError.
        """
        question = _question(problem, words)
        return Plan(self._runtime.plan(question, _integer("device_id", device_id), _name("backend", backend)))

    def explain(self, problem: str | Mapping[str, Any] | None = None, *, arch: str | None = None, json: bool = False,
                backend: str | None = None, **words: Any) -> Any:
        """Which backend would serve a problem, and every other one's reasons; nothing is planned or run.

        arch: decide as if a device of that architecture were here ("gfx1100"). Returns text for people, or with json=True
        a dict of the schema "attnrt/1".
        """
        if arch is not None:
            words["arch"] = arch
        text = self._runtime.explain(_question(problem, words), _name("backend", backend), bool(json))
        return _json.loads(text) if json else text

    def plugins(self) -> list[dict[str, Any]]:
        """Every plugin file that was found: path, name, version, devices, state and, if it cannot be used, the reason."""
        return _json.loads(self._runtime.plugins())["plugins"]

    def policy(self) -> list[dict[str, str]]:
        """The policy in effect, as {"key", "value", "from"}."""
        return _json.loads(self._runtime.policy())["values"]

    def reload(self) -> None:
        """Reads policy, environment and plugin directories again; on an error everything stays as it was."""
        self._runtime.reload()


_default: Runtime | None = None
_default_lock = _threading.Lock()


def default_runtime() -> Runtime:
    """The Runtime that attention() uses, made at its first use."""
    global _default
    if _default is None:
        with _default_lock:
            if _default is None:
                _default = Runtime()
    return _default


def attention(q: Tensor, k: Tensor, v: Tensor, *, mask: Tensor = None, causal: bool = False,
              align: str = "bottom_right", window_left: int | None = None, window_right: int | None = None,
              scale: float | None = None, softcap: float | None = None, alibi_slopes: Tensor = None,
              sinks: Tensor = None, kv_lengths: Tensor = None, offsets_q: Tensor = None, offsets_kv: Tensor = None,
              page_table: Tensor = None, out: Tensor = None, return_lse: bool = False, backend: str | None = None,
              deterministic: bool = False, stream: Any = None, runtime: Runtime | None = None) -> Any:
    """out = softmax(scale * q k^T + ...) v, on the backend that the policy chooses.

    q [batch, seq_q, heads_q, head_dim]; k [batch, seq_kv, heads_kv, head_dim]; v [batch, seq_kv, heads_kv, head_dim_v];
    all float32, float16 or bfloat16 (ml_dtypes' for numpy). heads_q is a multiple of heads_kv.

    mask           up to [batch, heads_q, seq_q, seq_kv], broadcast; bool (True: visible) or additive, q's dtype or float32
    causal         key j is visible to query i if j <= diagonal(i)
    align          diagonal(i) is i + seq_kv - seq_q ("bottom_right") or i ("top_left", which torch's is_causal means)
    window_left    j >= diagonal(i) - window_left; None: unbounded
    window_right   j <= diagonal(i) + window_right; None: unbounded
    scale          None or 0: 1 / sqrt(head_dim)
    softcap        s = softcap * tanh(s / softcap); None or 0: none
    alibi_slopes   float32 [heads_q]: s -= slope * |diagonal(i) - j|
    sinks          float32 [heads_q]: exp(sink) joins the denominator
    kv_lengths     int32 [batch]: keys from there on do not exist
    offsets_q, offsets_kv   int32 [batch + 1]: q, out [total_q, heads_q, .] and k, v [total_kv, heads_kv, .] are packed
    page_table     int32 [batch, max_pages]: k and v are [pages, page_size, heads_kv, .]; needs kv_lengths
    out            [batch, seq_q, heads_q, head_dim_v] in q's dtype, written to, sharing no memory with an input;
                   None: allocated as q is (numpy, torch)
    return_lse     also return the log of each softmax denominator, float32 [batch, heads_q, seq_q] (packed: [heads_q, total_q])
    backend        this backend or an error; None: the policy decides
    deterministic  the same inputs give the same bits
    stream         of device tensors: a pointer as an int, or torch's; None: torch's current stream, else the default one.
                   It is enqueued there and not waited for; on a stream other than torch's current one, tell torch's
                   allocator (record_stream), as for any other work there
    runtime        None: default_runtime()

    A row that sees nothing gives zeros. All tensors live on q's device. Returns out, or (out, lse).

    Raises InvalidArgumentError (tensors or values that do not fit), UnsupportedError (no backend can), NotFoundError
    (backend), OutOfMemoryError, Error (a backend failed, and so did those after it).
    """
    return (default_runtime() if runtime is None else runtime).attention(
        q, k, v, mask=mask, causal=causal, align=align, window_left=window_left, window_right=window_right, scale=scale,
        softcap=softcap, alibi_slopes=alibi_slopes, sinks=sinks, kv_lengths=kv_lengths, offsets_q=offsets_q,
        offsets_kv=offsets_kv, page_table=page_table, out=out, return_lse=return_lse, backend=backend,
        deterministic=deterministic, stream=stream)
