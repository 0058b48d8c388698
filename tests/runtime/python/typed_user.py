# tests/runtime/python/typed_user.py: a user's program, which `./dev lint` checks with mypy --strict
"""Nothing runs it. Lines with "type: ignore" must be errors: mypy warns of unused ones."""

import attnrt
import attnrt.transformers
import numpy
import numpy.typing

Array = numpy.typing.NDArray[numpy.float32]


class Mine:
    """A tensor of a library that mypy does not know."""

    def __dlpack__(self, *, stream: object = None) -> object:
        return stream

    def __dlpack_device__(self) -> tuple[int, int]:
        return 1, 0


def calls(q: Array, k: Array, v: Array, mine: Mine) -> None:
    attnrt.attention(q, k, v, causal=True, align="top_left", layout="bhsd", scale=0.5)
    attnrt.attention(q, k, None, v_in_k=True, mask=None)
    attnrt.attention(mine, mine, mine, out=mine)
    attnrt.attention(q, k, v, align="left")  # type: ignore[arg-type]
    attnrt.attention(q, k, v, layout="sbhd")  # type: ignore[arg-type]
    attnrt.attention(q, k, 3)  # type: ignore[arg-type]
    attnrt.attention(q, k, v, casual=True)  # type: ignore[call-arg]


def runtimes(q: Array, k: Array, v: Array) -> str:
    align: attnrt.Align = "bottom_right"
    layout: attnrt.Layout = "bshd"
    with attnrt.Runtime(policy_text="schema: 1") as runtime:
        plan = runtime.plan(like=(q, k, v), layout=layout, align=align)
        plan.run(q, k, v, layout=layout)
        plan.run(q, k, v, layout="left")  # type: ignore[arg-type]
        runtime.plan(like=q)  # type: ignore[arg-type]
        stored, scale = attnrt.quantize(k, "i8")
        runtime.attention(q, stored, stored, k_scale=scale, v_scale=scale)
        tensor: attnrt.Tensor = q
        attnrt.merge([tensor], [tensor], return_lse=True, runtime=runtime)
        error: type[attnrt.Error] = attnrt.UnsupportedError
        return f"{plan.backend} {runtime.stats()} {error}"


def transformers(runtime: attnrt.Runtime) -> bool:
    attnrt.transformers.register()
    attnrt.transformers.register(runtime)
    attnrt.transformers.register("cpu")  # type: ignore[arg-type]
    return "gradient" in attnrt.transformers.counters()["reasons"]
