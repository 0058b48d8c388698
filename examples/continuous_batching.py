#!/usr/bin/env python3
# examples/continuous_batching.py: the loop of an inference server, on a paged cache
"""python3 examples/continuous_batching.py [--requests N]

Requests of different lengths share a few slots. Each step of the loop admits requests to free
slots, prefills one chunk of one prompt, and decodes one token of every other slot:

    pages      keys and values lie in pages, which a sequence takes as it grows
    chunks     a long prompt does not hold up those that decode
    schedule   the lengths are divided among the GPU's workgroups once a step, for all layers
    graph      on a GPU a decode step is captured once, and launched with other lengths each time

Prints tokens per second, and those of the same loop on padded caches with torch's
scaled_dot_product_attention if torch is there. It runs on a GPU if torch sees one, else on the cpu,
with numpy if there is no torch. The "model" is random, and so are the tokens that it would choose.
Exit status 0 if the states agree with a plain evaluation of each sequence alone (on a GPU: of the
first four).
"""

import argparse
import collections
import contextlib
import dataclasses
import sys
import time

import attnrt
import numpy

try:
    import torch
except ImportError:
    torch = None

ON_GPU = torch is not None and torch.cuda.is_available()
LAYERS, HEADS, KV_HEADS, DIM = (8, 32, 8, 128) if ON_GPU else (2, 8, 2, 64)
SLOTS, CHUNK, MOST_TOKENS, PAGE = (32, 512, 4096, 64) if ON_GPU else (4, 32, 256, 16)
WIDTH = HEADS * DIM
DEVICE = "cpu" if not ON_GPU else "rocm" if torch.version.hip else "cuda"


# ---- Arrays of torch or numpy ----
def device_array(values):
    """Returns numbers of numpy on the device: floats in the model's dtype."""
    if torch is None:
        return values
    tensor = torch.from_numpy(values).to("cuda" if ON_GPU else "cpu")
    return tensor.half() if ON_GPU and tensor.is_floating_point() else tensor


def zeros(*shape, dtype="float32"):
    return device_array(numpy.zeros(shape, dtype))


def stack(rows):
    return numpy.stack(rows) if torch is None else torch.stack(rows)


def to_numpy(array):
    return array if torch is None else array.double().cpu().numpy()


# ---- Requests and the model ----
@dataclasses.dataclass
class Request:
    tokens: object  # [tokens, WIDTH]: the embeddings of prompt and answer
    prompt: int  # tokens of the prompt
    done: int = 0  # tokens that are in the cache
    states: list = dataclasses.field(default_factory=list)


def make_weights(random):
    """Returns the projections of each layer: to q, k and v, and back from their attention."""
    columns = HEADS * DIM, KV_HEADS * DIM, KV_HEADS * DIM, WIDTH
    shapes = [(WIDTH, n) for n in columns]
    return [[random.standard_normal(s) / WIDTH**0.5 for s in shapes] for _ in range(LAYERS)]


def forward(weights, x, attend):
    """Runs the layers on x [rows, WIDTH]. attend(layer, q, k, v): rows of [heads, DIM]."""
    for layer, (to_q, to_k, to_v, to_out) in enumerate(weights):
        normal = x / ((x * x).mean(-1) + 1e-6)[:, None] ** 0.5  # as language models do (RMSNorm)
        q, k, v = ((normal @ w).reshape(len(x), -1, DIM) for w in (to_q, to_k, to_v))
        x = x + attend(layer, q, k, v).reshape(len(x), WIDTH) @ to_out
    return x


def plain_attention(_layer, q, k, v):
    """Computes causal attention of a whole sequence from its definition."""
    k, v = (tensor.repeat(HEADS // KV_HEADS, axis=1) for tensor in (k, v))
    scores = q.transpose(1, 0, 2) @ k.transpose(1, 2, 0) / DIM**0.5
    scores = numpy.where(numpy.tri(len(q), dtype=bool), scores, -numpy.inf)
    weights = numpy.exp(scores - scores.max(-1, keepdims=True))
    out = weights / weights.sum(-1, keepdims=True) @ v.transpose(1, 0, 2)
    return out.transpose(1, 0, 2)


# ---- The two engines: where keys are kept, and who computes attention ----
class Engine:
    def __init__(self, weights):
        self.weights = weights
        self.x = zeros(SLOTS, WIDTH)  # what a decode step reads: a graph keeps its address
        self.graph = None

    def decode(self, rows, lengths):
        """Decodes a token of some slots. rows: by slot, the token. Returns the states of all slots.

        lengths: of all slots, that token included; 0: the slot decodes nothing.
        """
        self.x[list(rows)] = stack(list(rows.values()))
        self.prepare(lengths)
        if not ON_GPU:
            return self.step()
        if self.graph is None:
            side, self.graph = torch.cuda.Stream(), torch.cuda.CUDAGraph()
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):  # once before the capture, as torch asks for
                self.step()
            side.synchronize()
            with torch.cuda.graph(self.graph, stream=side):
                self.states = self.step()
        self.graph.replay()
        return self.states + 0  # a copy, since the next step writes to the same memory


class Paged(Engine):
    """attnrt, on pages. Page 0 belongs to nobody: slots that decode nothing write there."""

    def __init__(self, weights):
        super().__init__(weights)
        columns = MOST_TOKENS // PAGE
        shape = (1 + SLOTS * columns, PAGE, KV_HEADS, DIM)
        self.k, self.v = ([zeros(*shape) for _ in range(LAYERS)] for _ in range(2))
        self.free = list(range(1, shape[0]))
        self.pages = [[] for _ in range(SLOTS)]
        self.table = zeros(SLOTS, columns, dtype="int32")
        self.lengths = zeros(SLOTS, dtype="int32")
        self.where = zeros(SLOTS, dtype="int64")
        words = {"dtype": "f16" if ON_GPU else "f32", "device": DEVICE, "heads_q": HEADS,
                 "heads_kv": KV_HEADS, "head_dim": DIM, "page_size": PAGE, "kv_lengths": True,
                 "causal": True, "seq_kv": MOST_TOKENS}  # fmt: skip
        runtime = attnrt.default_runtime()
        self.prefill_plan = runtime.plan(words, batch=1, seq_q=CHUNK)
        self.decode_plan = runtime.plan(words, batch=SLOTS, seq_q=1)
        self.schedule = self.decode_plan.schedule()

    def place(self, slot, first, end):
        """Takes pages for the tokens from first to end. Returns their rows in the cache."""
        pages = self.pages[slot]
        while len(pages) * PAGE < end:
            pages.append(self.free.pop())
            self.table[slot, len(pages) - 1] = pages[-1]
        return [pages[n // PAGE] * PAGE + n % PAGE for n in range(first, end)]

    def release(self, slot):
        self.free += self.pages[slot]
        self.pages[slot] = []

    def write(self, layer, where, k, v):
        self.k[layer].reshape(-1, KV_HEADS, DIM)[where] = k
        self.v[layer].reshape(-1, KV_HEADS, DIM)[where] = v

    def prefill(self, slot, x, first):
        """Runs a chunk of a prompt, x, whose first token is `first`. Returns its states."""
        end = first + len(x)
        where = device_array(numpy.array(self.place(slot, first, end)))
        words = {"kv_lengths": device_array(numpy.array([end], "int32")),
                 "page_table": self.table[slot : slot + 1]}  # fmt: skip

        def attend(layer, q, k, v):
            self.write(layer, where, k, v)
            return self.prefill_plan.run(q[None], self.k[layer], self.v[layer], **words)

        return forward(self.weights, x, attend)

    def prepare(self, lengths):
        where = [self.place(s, n - 1, n)[0] if n else 0 for s, n in enumerate(lengths)]
        self.where[:] = device_array(numpy.array(where))
        self.lengths[:] = device_array(numpy.array(lengths, "int32"))

    def step(self):
        words = {"kv_lengths": self.lengths, "page_table": self.table}

        def attend(layer, q, k, v):
            self.write(layer, self.where, k, v)
            tensors = q[:, None], self.k[layer], self.v[layer]
            if layer == 0:  # all layers have the same lengths
                self.schedule.build(*tensors, **words)
            return self.decode_plan.run(*tensors, **words, schedule=self.schedule)

        return forward(self.weights, self.x, attend)


class Padded(Engine):
    """torch's scaled_dot_product_attention, on a cache of the most tokens for each slot."""

    def __init__(self, weights):
        super().__init__(weights)
        shape = (SLOTS, KV_HEADS, MOST_TOKENS, DIM)
        self.k, self.v = ([zeros(*shape) for _ in range(LAYERS)] for _ in range(2))
        self.slots = torch.arange(SLOTS, device=self.x.device)
        self.columns = torch.arange(MOST_TOKENS, device=self.x.device)
        self.last = zeros(SLOTS, dtype="int64")

    def attend(self, q, k, v, mask):
        out = torch.nn.functional.scaled_dot_product_attention(q, k, v, mask, enable_gqa=True)
        return out.transpose(1, 2)

    def release(self, slot):
        pass

    def prefill(self, slot, x, first):
        end = first + len(x)
        mask = self.columns[:end] <= self.columns[first:end, None]

        def attend(layer, q, k, v):
            cache = self.k[layer][slot, :, :end], self.v[layer][slot, :, :end]
            for all_keys, new in zip(cache, (k, v), strict=True):
                all_keys[:, first:] = new.transpose(0, 1)
            return self.attend(q.transpose(0, 1)[None], cache[0][None], cache[1][None], mask)

        return forward(self.weights, x, attend)

    def prepare(self, lengths):
        # A slot that decodes nothing writes to its last row, which no request reaches.
        self.last[:] = torch.tensor([n - 1 if n else MOST_TOKENS - 1 for n in lengths])

    def step(self):
        mask = (self.columns <= self.last[:, None])[:, None, None]

        def attend(layer, q, k, v):
            self.k[layer][self.slots, :, self.last] = k
            self.v[layer][self.slots, :, self.last] = v
            return self.attend(q[:, :, None], self.k[layer], self.v[layer], mask)

        return forward(self.weights, self.x, attend)


# ---- The server ----
def serve(requests, engine):
    """Serves all requests. Leaves the states of their tokens in them."""
    waiting, slots = collections.deque(requests), [None] * SLOTS
    while waiting or any(slots):
        for slot in range(SLOTS):
            if slots[slot] is None and waiting:
                slots[slot] = waiting.popleft()
        decoding = {s: r for s, r in enumerate(slots) if r and r.done >= r.prompt}
        for slot, request in enumerate(slots):
            if request and request.done < request.prompt:
                first, end = request.done, min(request.done + CHUNK, request.prompt)
                request.states.append(engine.prefill(slot, request.tokens[first:end], first))
                request.done = end
                break
        if decoding:
            rows = {slot: request.tokens[request.done] for slot, request in decoding.items()}
            lengths = [slots[s].done + 1 if s in decoding else 0 for s in range(SLOTS)]
            states = engine.decode(rows, lengths)
            for slot, request in decoding.items():
                request.states.append(states[slot : slot + 1])
                request.done += 1
                if request.done == len(request.tokens):
                    engine.release(slot)
                    slots[slot] = None


def measure(requests, engine, expected):
    """Serves the requests twice. Returns tokens per second, and the largest error of any state."""
    for _ in range(2):  # the first time prepares: kernels, graphs, memory
        served = [dataclasses.replace(each, done=0, states=[]) for each in requests]
        start = time.perf_counter()
        serve(served, engine)
        if ON_GPU:
            torch.cuda.synchronize()
        seconds = time.perf_counter() - start
    worst = 0.0
    for request, states in zip(served, expected, strict=False):
        found = numpy.concatenate([to_numpy(each) for each in request.states])
        worst = max(worst, float(abs(found - states).max() / abs(states).max()))
    return sum(len(each.tokens) for each in requests) / seconds, worst


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--requests", type=int, default=16 if ON_GPU else 12)
    options = parser.parse_args()
    random = numpy.random.default_rng(0)
    plain_weights = make_weights(random)
    weights = [[device_array(w.astype("float32")) for w in layer] for layer in plain_weights]
    requests = []
    for _ in range(options.requests):
        prompt = int(random.integers(2, MOST_TOKENS // 2))
        count = prompt + int(random.integers(2, MOST_TOKENS // 16))
        tokens = device_array(random.standard_normal((count, WIDTH)).astype("float32"))
        requests.append(Request(tokens, prompt))
    checked = requests[:4] if ON_GPU else requests  # a plain evaluation takes its time
    expected = [forward(plain_weights, to_numpy(r.tokens), plain_attention) for r in checked]

    paged = Paged(weights)
    engines = {f"attnrt, {paged.decode_plan.backend}": paged}
    if torch is not None:
        engines["torch, padded"] = Padded(weights)
    limit, right = 1e-2 if ON_GPU else 1e-4, True
    for name, engine in engines.items():
        speed, error = measure(requests, engine, expected)
        print(f"{name}: {speed:.0f} tokens per second; error {error:.1e} of the largest state")
        right = right and error <= limit
    print("right" if right else "wrong")
    return 0 if right else 1


if __name__ == "__main__":
    with torch.inference_mode() if torch is not None else contextlib.nullcontext():
        sys.exit(main())
