# tests/bench/attnrt_ctypes.py: torch tensors into attnrt plans through the C API, without a compiled module
import ctypes as c
import torch

I32, I64, F32, PTR = c.c_int32, c.c_int64, c.c_float, c.c_void_p


class DType(c.Structure):
    _fields_ = [("code", c.c_uint8), ("bits", c.c_uint8), ("lanes", c.c_uint16)]


class Tensor(c.Structure):
    _fields_ = [("data", PTR), ("dtype", DType), ("ndim", I32), ("shape", I64 * 4), ("stride", I64 * 4)]


class Problem(c.Structure):
    _fields_ = [("struct_size", I32), ("device_type", I32), ("device_id", I32), ("dtype", DType),
                *[(n, I64) for n in "batch heads_q heads_kv seq_q seq_kv head_dim head_dim_v".split()],
                ("scale", F32), ("mask", I32), ("mask_dtype", DType), ("causal", I32), ("align", I32), ("softcap", F32),
                ("window_left", I64), ("window_right", I64),
                *[(n, I32) for n in "alibi sinks kv_lengths varlen page_size lse alignment_bytes deterministic".split()]]


TENSORS = "q k v out mask lse alibi_slopes sinks kv_lengths offsets_q offsets_kv page_table".split()


class Args(c.Structure):
    _fields_ = [("struct_size", I32), ("reserved", I32), *[(n, Tensor) for n in TENSORS],
                ("workspace", PTR), ("workspace_bytes", I64), ("stream", PTR)]


class Error(c.Structure):
    _fields_ = [("struct_size", I32), ("code", I32), ("message", c.c_char * 256)]


class Options(c.Structure):
    _fields_ = [("struct_size", I32), ("thread_count", I32), ("policy_path", c.c_char_p), ("policy_text", c.c_char_p),
                ("plugin_path", c.c_char_p), ("log", PTR), ("log_self", PTR), ("parallel_for", PTR), ("parallel_self", PTR)]


class Call(c.Structure):
    _fields_ = [("struct_size", I32), ("reserved", I32), ("backend", c.c_char_p)]


CODES = {torch.float32: (2, 32), torch.float16: (2, 16), torch.bfloat16: (4, 16), torch.bool: (6, 8), torch.int32: (0, 32)}


def view(tensor):
    if tensor is None:
        return Tensor()
    code, bits = CODES[tensor.dtype]
    pad = [0] * (4 - tensor.dim())
    return Tensor(tensor.data_ptr(), DType(code, bits, 1), tensor.dim(), (I64 * 4)(*tensor.shape, *pad),
                  (I64 * 4)(*tensor.stride(), *pad))


class Runtime:
    def __init__(self, library, plugins, thread_count=0, policy_text=None):
        self.lib = c.CDLL(library)
        self.lib.attnrt_plan_kernel.restype = c.c_char_p
        self.lib.attnrt_plan_backend.restype = c.c_char_p
        self.handle = PTR()
        self.check(self.lib.attnrt_runtime_open, c.byref(Options(
            c.sizeof(Options), thread_count, None, policy_text.encode() if policy_text else None, plugins.encode())), c.byref(self.handle))

    def check(self, call, *args):
        error = Error(c.sizeof(Error))
        if call(*args, c.byref(error)) != 0:
            raise RuntimeError(error.message.decode())

    def plugins(self):
        text = c.c_char_p()
        self.check(self.lib.attnrt_plugins, self.handle, 0, c.byref(text))
        return text.value.decode()

    # q, k, v: [batch, seq, heads, head_dim] views; gives the plan, and `run` fills out (and lse).
    def plan(self, q, k, v, out, backend=None, mask=None, lse=None, alibi_slopes=None, sinks=None, **attributes):
        problem = Problem(c.sizeof(Problem), 2 if q.is_cuda else 1, q.device.index or 0, window_left=-1, window_right=-1,
                          alignment_bytes=16)
        for name, value in attributes.items():
            setattr(problem, name, value)
        args = Args(c.sizeof(Args))
        for name, tensor in dict(q=q, k=k, v=v, out=out, mask=mask, lse=lse, alibi_slopes=alibi_slopes, sinks=sinks).items():
            setattr(args, name, view(tensor))
        self.check(self.lib.attnrt_problem_infer, c.byref(problem), c.byref(args))
        return Plan(self, problem, args, backend)


class Plan:
    def __init__(self, runtime, problem, args, backend):
        self.runtime, self.args, self.handle = runtime, args, PTR()
        call = Call(c.sizeof(Call), 0, backend.encode() if backend else None)
        runtime.check(runtime.lib.attnrt_plan_create, runtime.handle, c.byref(problem), c.byref(call), c.byref(self.handle))
        self.kernel = runtime.lib.attnrt_plan_kernel(self.handle).decode()
        self.backend = runtime.lib.attnrt_plan_backend(self.handle).decode()

    def run(self):
        self.args.stream = torch.cuda.current_stream().cuda_stream if torch.cuda.is_available() else None
        self.runtime.check(self.runtime.lib.attnrt_plan_run, self.handle, c.byref(self.args))

    def __del__(self):
        if self.handle:
            self.runtime.lib.attnrt_plan_destroy(self.handle)
