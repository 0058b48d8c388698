"""tests/bench/attnrt_ctypes.py: runs attnrt plans on torch tensors through the C API.

It needs no compiled Python module. The structures are those of attnrt/plugin.h and attnrt/attnrt.h.
"""

import ctypes as c

import torch

I32, I64, F32, POINTER = c.c_int32, c.c_int64, c.c_float, c.c_void_p
MAX_DIMENSIONS = 4
DEVICE_CPU, DEVICE_CUDA = 1, 2  # the device types of DLPack
MIN_ALIGNMENT = 16  # bytes at which every row starts, unless the tensors say more

# The type code and the bits of each dtype, as in DLPack.
DTYPE_CODES = {
    torch.float32: (2, 32),
    torch.float16: (2, 16),
    torch.bfloat16: (4, 16),
    torch.bool: (6, 8),
    torch.int32: (0, 32),
    torch.int8: (0, 8),
    torch.float8_e4m3fn: (10, 8),
}


class DType(c.Structure):
    _fields_ = [("code", c.c_uint8), ("bits", c.c_uint8), ("lanes", c.c_uint16)]


class Tensor(c.Structure):
    _fields_ = [
        ("data", POINTER),
        ("dtype", DType),
        ("ndim", I32),
        ("shape", I64 * MAX_DIMENSIONS),
        ("stride", I64 * MAX_DIMENSIONS),
        ("byte_offset", I64),
        ("reserved", I32 * 2),
    ]


class Problem(c.Structure):
    _fields_ = [
        ("struct_size", I32),
        ("device_type", I32),
        ("device_id", I32),
        ("dtype", DType),
        ("batch", I64),
        ("heads_q", I64),
        ("heads_kv", I64),
        ("seq_q", I64),
        ("seq_kv", I64),
        ("head_dim", I64),
        ("head_dim_v", I64),
        ("scale", F32),
        ("mask", I32),
        ("mask_dtype", DType),
        ("causal", I32),
        ("align", I32),
        ("softcap", F32),
        ("window_left", I64),
        ("window_right", I64),
        ("alibi", I32),
        ("sinks", I32),
        ("kv_lengths", I32),
        ("varlen", I32),
        ("page_size", I32),
        ("lse", I32),
        ("alignment_bytes", I32),
        ("deterministic", I32),
        ("kv_dtype", DType),
        ("kv_scale", I32),
        ("v_in_k", I32),
        ("out_dtype", DType),
        ("diagonal_offset", I32),
        ("batch_invariant", I32),
    ]


# The tensors of attnrt_args, in the order of ATTNRT_TENSORS.
TENSORS = [
    "q", "k", "v", "out", "mask", "lse", "alibi_slopes", "sinks", "kv_lengths", "offsets_q",
    "offsets_kv", "page_table", "k_scale", "v_scale", "diagonal_offset",
]  # fmt: skip


class Args(c.Structure):
    _fields_ = [
        ("struct_size", I32),
        ("reserved", I32),
        *[(name, Tensor) for name in TENSORS],
        ("workspace", POINTER),
        ("workspace_bytes", I64),
        ("stream", POINTER),
        ("schedule", POINTER),
        ("schedule_bytes", I64),
    ]


class Error(c.Structure):
    _fields_ = [("struct_size", I32), ("code", I32), ("message", c.c_char * 256)]


class Options(c.Structure):
    _fields_ = [
        ("struct_size", I32),
        ("thread_count", I32),
        ("policy_path", c.c_char_p),
        ("policy_text", c.c_char_p),
        ("plugin_path", c.c_char_p),
        ("log", POINTER),
        ("log_self", POINTER),
        ("parallel_for", POINTER),
        ("parallel_self", POINTER),
        ("allocate", POINTER),
        ("free", POINTER),
        ("allocator_self", POINTER),
    ]


class Call(c.Structure):
    _fields_ = [
        ("struct_size", I32),
        ("reserved", I32),
        ("backend", c.c_char_p),
        ("stream", POINTER),
    ]


ALLOCATE = c.CFUNCTYPE(I32, POINTER, I32, I32, I64, POINTER, c.POINTER(POINTER), c.POINTER(Error))
FREE = c.CFUNCTYPE(None, POINTER, I32, I32, POINTER, POINTER)
OK, OUT_OF_MEMORY = 0, 2


@ALLOCATE
def torch_allocate(_self, _device_type, device_id, size, stream, pointer, _error):
    """Takes device memory from torch's caching allocator."""
    try:
        pointer[0] = torch.cuda.caching_allocator_alloc(size, device_id, stream or 0)
    except torch.cuda.OutOfMemoryError:
        return OUT_OF_MEMORY
    return OK


@FREE
def torch_free(_self, _device_type, _device_id, pointer, _stream):
    torch.cuda.caching_allocator_delete(pointer)


def view(tensor):
    """Returns a torch tensor as an attnrt_tensor; None is an absent tensor."""
    if tensor is None:
        return Tensor()
    code, bits = DTYPE_CODES[tensor.dtype]
    padding = [0] * (MAX_DIMENSIONS - tensor.dim())
    return Tensor(
        tensor.data_ptr(),
        DType(code, bits, 1),
        tensor.dim(),
        (I64 * MAX_DIMENSIONS)(*tensor.shape, *padding),
        (I64 * MAX_DIMENSIONS)(*tensor.stride(), *padding),
    )


def problem_of(q, attributes):
    """Returns a problem on q's device with these words; tensors say the rest."""
    problem = Problem(
        c.sizeof(Problem),
        DEVICE_CUDA if q.is_cuda else DEVICE_CPU,
        q.device.index or 0,
        window_left=-1,
        window_right=-1,
        alignment_bytes=MIN_ALIGNMENT,
    )
    for name, value in attributes.items():
        setattr(problem, name, value)
    return problem


class Runtime:
    """An open runtime. thread_count 0 leaves the number of threads to the policy.

    torch_memory: workspaces on GPUs come from torch's caching allocator.
    """

    def __init__(self, library, plugins, thread_count=0, policy_text=None, torch_memory=False):
        self.lib = c.CDLL(library)
        self.lib.attnrt_plan_kernel.restype = c.c_char_p
        self.lib.attnrt_plan_backend.restype = c.c_char_p
        self.handle = POINTER()
        text = policy_text.encode() if policy_text else None
        options = Options(c.sizeof(Options), thread_count, None, text, plugins.encode())
        if torch_memory:
            options.allocate = c.cast(torch_allocate, POINTER)
            options.free = c.cast(torch_free, POINTER)
        self.check(self.lib.attnrt_runtime_open, c.byref(options), c.byref(self.handle))

    def check(self, function, *args):
        """Calls a function of the C API, and raises its error as a RuntimeError."""
        error = Error(c.sizeof(Error))
        if function(*args, c.byref(error)) != 0:
            raise RuntimeError(error.message.decode())

    def plugins(self):
        """Returns the plugins that were found, as text."""
        text = c.c_char_p()
        self.check(self.lib.attnrt_plugins, self.handle, 0, c.byref(text))
        return text.value.decode()

    def plan(self, q, k, v, out, backend=None, **words):
        """Returns a plan whose run() fills out, and lse if it is given.

        q, k, v and out are [batch, seq, heads, head_dim] with any strides, or as attnrt_args says
        for packed and paged ones. Words are further tensors by their names in attnrt_args, and
        words of the vocabulary, as in causal=1.
        """
        attributes = {name: word for name, word in words.items() if name not in TENSORS}
        problem = problem_of(q, attributes)
        args = Args(c.sizeof(Args))
        tensors = {"q": q, "k": k, "v": v, "out": out}
        for name, tensor in (tensors | {n: w for n, w in words.items() if n in TENSORS}).items():
            setattr(args, name, view(tensor))
        self.check(self.lib.attnrt_problem_infer, c.byref(problem), c.byref(args))
        return Plan(self, problem, args, backend)

    def attention(self, q, k, v, out, backend=None, **attributes):
        """Fills out in one call, on a GPU by enqueuing it on torch's current stream."""
        problem = problem_of(q, attributes)
        args = Args(c.sizeof(Args))
        args.q, args.k, args.v, args.out = view(q), view(k), view(v), view(out)
        args.stream = torch.cuda.current_stream().cuda_stream if q.is_cuda else None
        call = Call(c.sizeof(Call), 0, backend.encode() if backend else None)
        one_shot = self.lib.attnrt_attention
        self.check(one_shot, self.handle, c.byref(problem), c.byref(args), c.byref(call))

    def trim(self, size=0):
        """Gives back what idle plans hold beyond so many bytes."""
        self.check(self.lib.attnrt_runtime_trim, self.handle, I64(size))

    def reload(self):
        self.check(self.lib.attnrt_runtime_reload, self.handle)

    def close(self):
        self.lib.attnrt_runtime_close(self.handle)


class Plan:
    def __init__(self, runtime, problem, args, backend):
        self.runtime, self.args, self.handle = runtime, args, POINTER()
        call = Call(c.sizeof(Call), 0, backend.encode() if backend else None)
        create = runtime.lib.attnrt_plan_create
        runtime.check(create, runtime.handle, c.byref(problem), c.byref(call), c.byref(self.handle))
        self.kernel = runtime.lib.attnrt_plan_kernel(self.handle).decode()
        self.backend = runtime.lib.attnrt_plan_backend(self.handle).decode()

    def run(self):
        """Runs the plan, on a GPU by enqueuing it on torch's current stream."""
        if torch.cuda.is_available():
            self.args.stream = torch.cuda.current_stream().cuda_stream
        self.runtime.check(self.runtime.lib.attnrt_plan_run, self.handle, c.byref(self.args))

    def schedule(self):
        """Returns a schedule of this plan, built for its tensors' lengths."""
        return Schedule(self)

    def run_scheduled(self, schedule):
        self.args.stream = torch.cuda.current_stream().cuda_stream
        run = self.runtime.lib.attnrt_plan_run_scheduled
        self.runtime.check(run, self.handle, schedule.handle, c.byref(self.args))

    def __del__(self):
        if self.handle:
            self.runtime.lib.attnrt_plan_destroy(self.handle)


class Schedule:
    def __init__(self, plan):
        self.plan, self.handle = plan, POINTER()
        create = plan.runtime.lib.attnrt_schedule_create
        plan.runtime.check(create, plan.handle, c.byref(self.handle))
        self.build()

    def build(self):
        self.plan.args.stream = torch.cuda.current_stream().cuda_stream
        build = self.plan.runtime.lib.attnrt_schedule_build
        self.plan.runtime.check(build, self.handle, c.byref(self.plan.args))

    def __del__(self):
        if self.handle:
            self.plan.runtime.lib.attnrt_schedule_destroy(self.handle)
