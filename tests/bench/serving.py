"""tests/bench/serving.py: hip_flash on what an inference server asks for, on one GPU.

Checks results, then measures speed: decoding, sequences of different lengths, packed sequences and
paged caches. Calls that are timed rotate through copies of the inputs until K and V total 256 MiB,
so that these come from memory. GB/s counts the K and V that the lengths leave visible.
"""

import dataclasses
import itertools
import math

import graph_timing
import peers
import speeds
import torch
from problems import DTYPES, F32_ROUNDOFF, UNIT_ROUNDOFF, Features, evaluate, largest_error

ROTATED_BYTES = 256 << 20
STORED = ("f8_e4m3fn", "i8")


@dataclasses.dataclass
class Batch:
    """Sequences of one run: dense q with lengths, or packed; keys dense, packed or in pages."""

    q_lengths: list
    kv_lengths: list
    heads_q: int = 32
    heads_kv: int = 8
    head_dim: int = 128
    dtype: str = "bf16"
    packed: bool = False  # else every sequence has the longest one's queries
    page_size: int = 0
    layout: str = "nhd"  # of pages: nhd, hnd, or pairs ([pages, 2, ...])
    features: Features = dataclasses.field(default_factory=Features)
    stored: str = ""  # of K and V: i8 or f8_e4m3fn; else dtype
    kv_scale: str = "none"  # with stored: tensor, head or token
    values_in_keys: int = 0  # columns of K that are V, as in latent attention (MLA); 0: V is apart

    @property
    def head_dim_v(self):
        return self.values_in_keys or self.head_dim

    @property
    def bytes(self):
        """Of the visible K and V."""
        element = 1 if self.stored else 2
        columns = self.head_dim * (1 if self.values_in_keys else 2)
        return sum(self.kv_lengths) * self.heads_kv * columns * element

    @property
    def flop(self):
        scores = 0
        for q, kv in zip(self.q_lengths, self.kv_lengths, strict=True):
            scores += q * kv - (q * (q - 1) / 2 if self.features.causal else 0)
        return 2 * self.heads_q * (self.head_dim + self.head_dim_v) * scores

    def rows(self, tensor, sequence, starts):
        """Returns a sequence's part [rows, heads, head_dim] of q or out."""
        length = self.q_lengths[sequence]
        if self.packed:
            return tensor[starts[sequence] : starts[sequence] + length]
        return tensor[sequence, :length]


def starts_of(lengths):
    return list(itertools.accumulate(lengths, initial=0))


def store(batch, tensor):
    """Returns k or v in 8 bits, its scales or None, and in float32 what they stand for."""
    kind, most = {"i8": (torch.int8, 127.0), "f8_e4m3fn": (torch.float8_e4m3fn, 448.0)}[
        batch.stored
    ]
    sizes = tensor.float().nan_to_num(0).abs().amax(-1)  # without head_dim
    if batch.kv_scale == "none":
        scale = torch.full((1,), 1 / 32 if batch.stored == "i8" else 1.0, device="cuda")
    elif batch.kv_scale == "tensor":
        scale = (sizes.amax() / most)[None]
    elif batch.kv_scale == "head":
        scale = sizes.amax(tuple(range(sizes.dim() - 1))) / most
    else:
        scale = torch.where(tensor[..., 0].isnan(), math.nan, sizes / most)
    wide = tensor.float() if batch.kv_scale == "none" else tensor.float() / scale[..., None]
    if batch.stored == "i8":
        wide = wide.round().clamp(-128, 127).nan_to_num(-128)
    stored = wide.to(kind)
    if batch.kv_scale == "none":
        return stored, None, stored.float()
    return stored, scale, stored.float() * scale[..., None]


def index_of(numbers):
    return torch.tensor(numbers, dtype=torch.int32, device="cuda")


def make(batch):
    """Returns the tensors of a run by name, and K and V of each sequence.

    What no sequence owns is NaN.
    """
    kind = DTYPES[batch.dtype]
    count, dim = len(batch.q_lengths), batch.head_dim

    def random(*shape):
        return torch.randn(shape, device="cuda", dtype=kind) * batch.features.magnitude

    tensors = {}
    if batch.packed:
        total = sum(batch.q_lengths)
        tensors["q"] = random(total, batch.heads_q, dim)
        tensors["lse"] = torch.full((batch.heads_q, total), math.nan, device="cuda")
        tensors["offsets_q"] = index_of(starts_of(batch.q_lengths))
    else:
        longest = max(batch.q_lengths)
        tensors["q"] = random(count, longest, batch.heads_q, dim)
        tensors["lse"] = torch.full((count, batch.heads_q, longest), math.nan, device="cuda")
    tensors["out"] = torch.full_like(tensors["q"][..., : batch.head_dim_v], math.nan)
    pick = []  # for each sequence, a function that returns its rows of k or v
    if batch.page_size:
        size = batch.page_size
        needed = [(n + size - 1) // size for n in batch.kv_lengths]
        pages = max(1, sum(needed)) + 3
        shape = (pages, size, batch.heads_kv, dim)
        if batch.layout == "pairs":
            both = torch.full((pages, 2, *shape[1:]), math.nan, device="cuda", dtype=kind)
            k, v = both[:, 0], both[:, 1]
        elif batch.layout == "hnd":
            whole = (pages, batch.heads_kv, size, dim)
            k, v = (
                torch.full(whole, math.nan, device="cuda", dtype=kind).transpose(1, 2)
                for _ in range(2)
            )
        else:
            k, v = (torch.full(shape, math.nan, device="cuda", dtype=kind) for _ in range(2))
        if batch.values_in_keys:
            v = k[..., : batch.values_in_keys]
        numbers = torch.randperm(pages, device="cuda").tolist()
        table = torch.full((count, max(1, *needed)), 2**31 - 1, dtype=torch.int32)
        for s, length in enumerate(batch.kv_lengths):
            own = [numbers.pop() for _ in range(needed[s])]
            table[s, : len(own)] = torch.tensor(own, dtype=torch.int32)
            pair = [random(length, batch.heads_kv, n) for n in (dim, batch.head_dim_v)]
            where = torch.tensor(own, device="cuda").repeat_interleave(size)[:length].long()
            row = torch.arange(length, device="cuda") % size
            for tensor, part in zip((k, v), pair, strict=True):
                tensor[where, row] = part
            pick.append(lambda t, where=where, row=row: t[where, row])
        tensors["page_table"] = table.cuda()
        tensors["kv_lengths"] = index_of(batch.kv_lengths)
    elif batch.packed:
        total = sum(batch.kv_lengths)
        k, v = (random(total, batch.heads_kv, dim) for _ in range(2))
        offsets = starts_of(batch.kv_lengths)
        tensors["offsets_kv"] = index_of(offsets)
        pick = [lambda t, a=a, b=b: t[a:b] for a, b in itertools.pairwise(offsets)]
    else:
        longest = max(batch.kv_lengths)
        k, v = (random(count, longest, batch.heads_kv, dim) for _ in range(2))
        if min(batch.kv_lengths) != longest:
            tensors["kv_lengths"] = index_of(batch.kv_lengths)
        for s, length in enumerate(batch.kv_lengths):
            k[s, length:], v[s, length:] = math.nan, math.nan
            pick.append(lambda t, s=s, length=length: t[s, :length])
    if batch.values_in_keys:
        v = k[..., : batch.values_in_keys]
    tensors["k"], tensors["v"] = k, None if batch.values_in_keys else v
    if batch.stored:
        for name in ("k", "v"):
            tensors[name], scale, wide = store(batch, tensors[name])
            if scale is not None:
                tensors[f"{name}_scale"] = scale
            k, v = (wide, v) if name == "k" else (k, wide)
    return tensors, [(rows_of(k), rows_of(v)) for rows_of in pick]


def plan_of(runtime, batch, tensors, **words):
    features = batch.features
    words = dict(words, causal=int(features.causal), window_left=features.left)
    words |= {"softcap": features.softcap, "scale": features.scale}
    if batch.packed:
        words |= {"seq_q": max(batch.q_lengths), "seq_kv": max(batch.kv_lengths)}
    elif batch.page_size:
        words |= {"seq_kv": max(batch.kv_lengths)}
    if batch.values_in_keys:
        words |= {"v_in_k": 1}
    return runtime.plan(backend="hip_flash", **tensors, **words)


def scheduled_call(runtime, batch, tensors):
    """Returns a run that shares a schedule built before, as a model's layers do."""
    plan = plan_of(runtime, batch, tensors)
    schedule = plan.schedule()
    return lambda: plan.run_scheduled(schedule)


def check_batch(runtime, batch):
    """Returns the largest error relative to its bound, and what is wrong, or ""."""
    tensors, keys = make(batch)
    plan = plan_of(runtime, batch, tensors)
    plan.run()
    first = tensors["out"].clone()
    tensors["out"].fill_(math.nan)
    plan.run()
    torch.cuda.synchronize()
    same = torch.equal(first.nan_to_num(7), tensors["out"].nan_to_num(7))
    tensors["out"].fill_(math.nan)
    plan.run_scheduled(plan.schedule())
    torch.cuda.synchronize()
    same &= torch.equal(first.nan_to_num(7), tensors["out"].nan_to_num(7))
    starts, worst, wrong = starts_of(batch.q_lengths), 0.0, "" if same else "other bits, "
    for s, (k, v) in enumerate(keys):
        length = batch.q_lengths[s] if batch.packed else max(batch.q_lengths)
        if length == 0:
            continue
        whole = dataclasses.replace(batch, q_lengths=[length] * len(keys))
        source = batch if batch.packed else whole
        q, out = (source.rows(tensors[n], s, starts)[None] for n in ("q", "out"))
        if k.shape[0] == 0:
            wrong += "" if bool((out == 0).all()) else f"sequence {s} is not 0, "
            continue
        exact, _ = evaluate(q, k[None], v[None], None, batch.features)
        plain, _ = evaluate(q, k[None], v[None], DTYPES[batch.dtype], batch.features)
        scale = abs(batch.features.scale or 1 / math.sqrt(batch.head_dim))
        norms = float(q.double().norm(dim=-1).max() * k.double().norm(dim=-1).max()) * scale
        floor = UNIT_ROUNDOFF[batch.dtype] * float(exact.abs().max())
        sums = F32_ROUNDOFF * (math.sqrt(k.shape[0]) + 8)
        floor += float(v.abs().max()) * (2 * F32_ROUNDOFF * 5 * norms + sums)
        error, bound = largest_error(out, exact), 2 * largest_error(plain, exact) + floor
        worst = max(worst, error / bound)
        if not error <= bound:
            wrong += f"sequence {s}: {error:.2e} of {bound:.2e}, "
    return worst, wrong


def cases():
    """Yields batches whose lengths lie at the ends of pages, tiles and steps."""
    causal, window = Features(causal=True), Features(causal=True, left=100)
    ragged = [0, 1, 15, 16, 17, 63, 64, 65, 300, 4097]
    for dtype in ("bf16", "f16", "f32"):
        for dim in (64, 96, 128, 256):
            word = {"head_dim": dim, "dtype": dtype}
            yield Batch([1] * 3, [1000] * 3, **word)
            yield Batch([1] * 10, ragged, **word)
            yield Batch([4] * 10, ragged, features=causal, **word)
            yield Batch([40] * 10, ragged, features=causal, **word)
            lengths = [5, 1, 0, 300, 17, 1, 64, 9, 2, 1000]
            yield Batch(lengths, ragged, packed=True, features=causal, **word)
            for size in (1, 7, 16, 64, 256):
                yield Batch([1] * 10, ragged, page_size=size, **word)
                yield Batch(lengths, ragged, packed=True, page_size=size, features=window, **word)
    for heads in ((32, 32), (64, 4), (71, 1), (12, 2), (128, 1)):
        pair = {"heads_q": heads[0], "heads_kv": heads[1]}
        yield Batch([1] * 10, ragged, **pair)
        yield Batch([3] * 10, ragged, features=causal, **pair)
    yield from latent_cases(ragged)
    for layout in ("hnd", "pairs"):
        yield Batch([1] * 10, ragged, page_size=16, layout=layout)
    for features in (
        Features(softcap=20.0), Features(scale=-0.3), Features(magnitude=30.0), window,
    ):  # fmt: skip
        yield Batch([2] * 10, ragged, features=features)
    for stored, scale in itertools.product(STORED, ("none", "tensor", "head", "token")):
        word = {"stored": stored, "kv_scale": scale}
        for dtype in ("bf16", "f16"):
            for dim in (64, 96, 128, 256):
                yield Batch([1] * 3, [1000] * 3, head_dim=dim, dtype=dtype, **word)
                yield Batch([4] * 10, ragged, head_dim=dim, dtype=dtype, features=causal, **word)
                yield Batch([300] * 2, [300] * 2, head_dim=dim, dtype=dtype, **word)
            lengths = [5, 1, 0, 300, 17, 1, 64, 9, 2, 1000]
            yield Batch(lengths, ragged, packed=True, features=causal, dtype=dtype, **word)
            for size in (1, 16, 64):
                yield Batch([1] * 10, ragged, page_size=size, dtype=dtype, **word)
                word_of_pages = dict(word, packed=True, page_size=size, features=window)
                yield Batch(lengths, ragged, dtype=dtype, **word_of_pages)
    yield Batch([1] * 100, [1] * 57 + [200_000] + [1] * 42)
    yield Batch([1] * 2000, [5] * 1999 + [70], heads_q=8, heads_kv=2)


def latent_cases(ragged):
    """Yields latent attention (MLA), and head_dim 512, on these lengths."""
    causal = Features(causal=True)
    for dtype, heads in itertools.product(("bf16", "f16"), (16, 128)):
        word = {"dtype": dtype, "heads_q": heads, "heads_kv": 1, "head_dim": 576}
        word |= {"values_in_keys": 512}
        yield Batch([1] * 3, [1000] * 3, **word)
        yield Batch([1] * 10, ragged, **word)
        yield Batch([3] * 10, ragged, features=causal, **word)
        lengths = [5, 1, 0, 300, 17, 1, 64, 9, 2, 1000]
        for size in (0, 4, 16, 64):
            yield Batch(lengths, ragged, packed=True, page_size=size, features=causal, **word)
            if size:
                yield Batch([2] * 10, ragged, page_size=size, features=causal, **word)
        yield Batch([1] * 64, [4000] * 64, features=Features(magnitude=3.0), page_size=64, **word)
        yield Batch([3] * 10, ragged, heads, 8, 512, dtype, features=causal)


def check(runtime):
    """Checks all cases. Returns whether all results are right."""
    count, wrong_count, worst = 0, 0, 0.0
    for batch in cases():
        part, wrong = check_batch(runtime, batch)
        count, worst = count + 1, max(worst, part)
        if wrong:
            wrong_count += 1
            if wrong_count < 12:
                print(f"WRONG {batch}: {wrong[:300]}")
    print(f"serving: {count - wrong_count} of {count} right; worst error / bound {worst:.2f}")
    return wrong_count == 0


# ---- Speed ----


def rotated(batch, call_of):
    """Returns a call that takes the next of several inputs each time, and these inputs' tensors."""
    count = max(1, math.ceil(ROTATED_BYTES / max(1, batch.bytes)))
    sets = [make(batch)[0] for _ in range(min(count, 64))]
    calls = [call_of(tensors) for tensors in sets]
    turn = itertools.cycle([c for c in calls if c])

    def call():
        next(turn)()

    call.inputs = sets  # kept alive: plans hold their addresses
    return call if all(calls) else None


def peers_of(batch):
    """Returns makers of peers' calls, by name."""
    if batch.stored:
        return {}
    makers = {}
    if batch.values_in_keys:
        return latent_peers(batch)
    equal = min(batch.kv_lengths) == max(batch.kv_lengths)
    longest = max(batch.kv_lengths)
    causal = batch.features.causal
    if batch.page_size or not equal:

        def cudnn(t):
            lengths = index_of(batch.kv_lengths)
            return peers.cudnn_lengths_call(
                t["q"], t["k"], t["v"], lengths, t.get("page_table"), longest
            )

        if not batch.packed:
            makers["cuDNN"] = cudnn
    elif not batch.packed:
        makers["cuDNN"] = lambda t: peers.torch_call("cuDNN", t["q"], t["k"], t["v"], causal=causal)
    if batch.dtype != "bf16" or batch.page_size:
        return makers
    sizes = (max(batch.q_lengths), longest)
    for splits in (0, 1):
        if batch.packed:
            makers[f"FA3 splits={splits}"] = lambda t, splits=splits: peers.fa3_packed_call(
                t["q"], t["k"], t["v"], t["offsets_q"], t["offsets_kv"], sizes, causal, splits
            )
        else:
            makers[f"FA3 splits={splits}"] = lambda t, splits=splits: peers.fa3_lengths_call(
                t["q"], t["k"], t["v"], t.get("kv_lengths"), causal, splits
            )
    return makers


def latent_peers(batch):
    """Returns makers of FA3's calls for latent attention with dense keys of one length, by name."""
    if batch.page_size or batch.packed or len(set(batch.kv_lengths)) > 1 or batch.dtype != "bf16":
        return {}
    return {
        f"FA3 {name}": lambda t, maker=maker: maker(
            t["q"], t["k"], batch.values_in_keys, batch.features.causal
        )
        for name, maker in peers.fa3_latent_calls().items()
    }


def copy_gbs():
    """Returns the bytes read and written per second by a copy of 1 GB, in GB/s."""
    a = torch.empty(1 << 28, dtype=torch.float32, device="cuda")
    b = torch.empty_like(a)
    times = graph_timing.times_in_turn({"copy": lambda: torch.mul(a, 1, out=b)}, 5)
    return 2 * a.nbytes / times["copy"].median_ms / 1e6


def print_rows(title, runtimes, batches, rounds, compute=False, scheduled=False):
    """Prints a table: of each batch our GB/s (TFLOP/s if compute), and the ratio to peers.

    scheduled: a column more, of runs that share a schedule.
    """
    speeds.print_heading(title, [*runtimes, *(["scheduled"] if scheduled else [])])
    for label, batch, reference in batches:
        print_row(label, batch, reference, runtimes, rounds, compute, scheduled)
        torch.cuda.empty_cache()


def print_row(label, batch, reference, runtimes, rounds, compute, scheduled):
    """reference: the same work without pages, raggedness or 8 bits, timed as a peer; or None."""

    def ours_for(runtime, of):
        return rotated(of, lambda tensors: plan_of(runtime, of, tensors).run)

    ours = {name: ours_for(runtime, batch) for name, runtime in runtimes.items()}
    theirs = {name: rotated(batch, maker) for name, maker in peers_of(batch).items()}
    if scheduled:
        runtime = next(iter(runtimes.values()))
        ours["scheduled"] = rotated(batch, lambda tensors: scheduled_call(runtime, batch, tensors))
    other = "16 bits" if batch.stored else "dense"
    if reference is not None:
        theirs[other] = ours_for(next(iter(runtimes.values())), reference)
    theirs = {name: call for name, call in theirs.items() if call}
    times = graph_timing.times_in_turn({**ours, **theirs}, rounds)

    def rate(name):
        of = reference if name == other else batch
        amount = of.flop / 1e9 if compute else of.bytes / 1e6
        return amount / times[name].median_ms

    best = min(theirs, key=lambda name: times[name].median_ms) if theirs else None
    cells = [label]
    for name in ours:
        cells.append(f"{rate(name):.0f}, {times[name].median_ms * 1e3:.1f} us")
        if best:
            low, middle, high = graph_timing.ratio(times[name], times[best])
            cells.append(f"{middle:.2f} ({low:.2f}-{high:.2f})")
        else:
            cells.append("-")
    cells.append(", ".join(f"{name} {rate(name):.0f}" for name in theirs) or "no peer")
    cells.append(f"{times[next(iter(ours))].host_us:.0f}")
    speeds.emit("| " + " | ".join(cells) + " |")


DECODES = [  # batch, heads_q, heads_kv, seq_kv, queries
    (1, 32, 8, 8192, 1), (16, 32, 8, 4096, 1), (64, 32, 8, 2048, 1), (1, 64, 8, 131072, 1),
    (1, 32, 32, 4096, 1), (128, 32, 8, 1024, 1), (1, 32, 8, 1024, 1), (16, 32, 8, 4096, 4),
    (8, 128, 1, 8192, 1),
]  # fmt: skip


def print_decode(runtimes, rounds):
    speeds.emit(f"\nA copy of 1 GB reads and writes {copy_gbs():.0f} GB/s.")
    rows = []
    for count, heads_q, heads_kv, seq, queries in DECODES:
        label = f"{count}, {heads_q}/{heads_kv}, {seq}" + (f", {queries} queries" * (queries > 1))
        batch = Batch([queries] * count, [seq] * count, heads_q, heads_kv)
        rows.append((label, batch, None))
    rows.append(("f16 16, 32/8, 4096", Batch([1] * 16, [4096] * 16, dtype="f16"), None))
    for dim in (64, 256):
        batch = Batch([1] * 16, [4096] * 16, head_dim=dim)
        rows.append((f"16, 32/8, 4096, head_dim {dim}", batch, None))
    print_rows("decode: batch, heads, seq_kv; GB/s", runtimes, rows, rounds)


def print_pages(runtimes, rounds):
    rows = []
    for count, seq in ((16, 4096), (64, 2048)):
        dense = Batch([1] * count, [seq] * count)
        for size in (256, 64, 16, 1):
            paged = dataclasses.replace(dense, page_size=size)
            rows.append((f"{count}, 32/8, {seq}, pages of {size}", paged, dense))
    print_rows("paged decode; GB/s, beside dense", runtimes, rows, rounds, scheduled=True)
    ragged = [131072] + [1024] * 63
    rows = [("1 of 128k, 63 of 1k", Batch([1] * 64, ragged, page_size=64), None)]
    rows.append(("1k to 64k", Batch([1] * 64, [1024 * i for i in range(1, 65)]), None))
    print_rows("ragged decode; GB/s", runtimes, rows, rounds, scheduled=True)


def print_packed(runtimes, rounds):
    causal = Features(causal=True)
    rows = []
    for count, seq in ((8, 2048), (2, 8192)):
        dense = Batch([seq] * count, [seq] * count, features=causal)
        rows.append((f"{count} of {seq}", dataclasses.replace(dense, packed=True), dense))
        paged = dataclasses.replace(dense, packed=True, page_size=64)
        rows.append((f"{count} of {seq}, pages of 64", paged, dense))
    lengths = [512] * 4
    batch = Batch(lengths, [16384] * 4, packed=True, page_size=64, features=causal)
    rows.append(("chunks of 512 on 16k, pages of 64", batch, None))
    title = "packed prefill, causal; TFLOP/s, beside dense"
    print_rows(title, runtimes, rows, rounds, compute=True, scheduled=True)


LATENTS = [  # batch, heads_q, seq_kv, queries
    (1, 16, 32768, 1), (64, 16, 4096, 1), (128, 16, 4096, 1), (64, 16, 32768, 1),
    (64, 128, 4096, 1), (128, 128, 4096, 1), (64, 128, 32768, 1), (64, 128, 8192, 2),
]  # fmt: skip


def print_latent(runtimes, rounds):
    """Decode of latent attention (MLA), as GB/s and as TFLOP/s, dense and in pages."""
    for compute in (False, True):
        rows = []
        for count, heads, seq, queries in LATENTS:
            if compute != (heads >= 64):
                continue
            label = f"{count}, {heads}, {seq}" + f", {queries} queries" * (queries > 1)
            features = Features(causal=queries > 1)
            batch = Batch([queries] * count, [seq] * count, heads, 1, 576, features=features)
            dense = dataclasses.replace(batch, values_in_keys=512)
            rows.append((label, dense, None))
            if seq == 4096:
                paged = dataclasses.replace(dense, page_size=64)
                rows.append((f"{label}, pages of 64", paged, dense))
        unit = "TFLOP/s" if compute else "GB/s of K"
        title = f"latent attention (576, 512): batch, heads, seq_kv; {unit}"
        print_rows(title, runtimes, rows, rounds, compute=compute)


def print_stored(runtimes, rounds):
    """K and V of 8 bits, beside the same work on 16 bits. The first ratio is that of the times."""
    rows = []
    shapes = [DECODES[n] for n in (0, 1, 2, 3, 5, 7)]
    for (count, heads_q, heads_kv, seq, queries), stored in itertools.product(shapes, STORED):
        wide = Batch([queries] * count, [seq] * count, heads_q, heads_kv)
        for scale in ("head", "token"):
            label = f"{count}, {heads_q}/{heads_kv}, {seq}" + ", 4 queries" * (queries > 1)
            batch = dataclasses.replace(wide, stored=stored, kv_scale=scale)
            rows.append((f"{label}, {stored}, {scale}", batch, wide))
    wide = Batch([1] * 16, [4096] * 16)
    others = [{"dtype": "f16"}, {"head_dim": 64}, {"head_dim": 256}, {"page_size": 16}]
    others += [{"page_size": 1}]
    for change, stored in itertools.product(others, STORED):
        reference = dataclasses.replace(wide, **change)
        batch = dataclasses.replace(reference, stored=stored, kv_scale="head")
        label = ", ".join(f"{word} {value}" for word, value in change.items())
        rows.append((f"16, 32/8, 4096, {label}, {stored}, head", batch, reference))
    title = "decode on 8 bits: batch, heads, seq_kv; GB/s, beside 16 bits"
    print_rows(title, runtimes, rows, rounds)
    rows = []
    for dim, stored, scale in itertools.product((64, 128, 256), STORED, ("head", "token")):
        lengths = [2048] * 8
        causal = Features(causal=True)
        wide = Batch(lengths, lengths, head_dim=dim, packed=True, features=causal)
        batch = dataclasses.replace(wide, stored=stored, kv_scale=scale)
        rows.append((f"8 of 2048, head_dim {dim}, {stored}, {scale}", batch, wide))
    title = "packed prefill on 8 bits, causal; TFLOP/s, beside 16 bits"
    print_rows(title, runtimes, rows, rounds, compute=True, scheduled=True)


def print_invariant(runtimes, rounds):
    """batch_invariant beside the same work without it: the ratio is that of the speeds."""
    title = "batch_invariant; GB/s or TFLOP/s, beside the same without it"
    runtime = next(iter(runtimes.values()))
    speeds.print_heading(title, ["batch_invariant"])
    causal = Features(causal=True)
    rows = [
        (
            f"{count}, {heads_q}/{heads_kv}, {seq}",
            Batch([1] * count, [seq] * count, heads_q, heads_kv),
        )
        for count, heads_q, heads_kv, seq, queries in DECODES
        if queries == 1
    ]
    rows.append(("64 of 1k to 64k", Batch([1] * 64, [1024 * i for i in range(1, 65)])))
    rows.append(("64, 2048, pages of 16", Batch([1] * 64, [2048] * 64, page_size=16)))
    for count, seq in ((8, 2048), (2, 8192)):
        batch = Batch([seq] * count, [seq] * count, packed=True, features=causal)
        rows.append((f"packed prefill, {count} of {seq}", batch))
    for label, batch in rows:
        print_invariant_row(label, batch, runtime, rounds)
        torch.cuda.empty_cache()


def print_invariant_row(label, batch, runtime, rounds):
    def of(**word):
        return rotated(batch, lambda tensors: plan_of(runtime, batch, tensors, **word).run)

    calls = {"batch_invariant": of(batch_invariant=1), "without": of()}
    times = graph_timing.times_in_turn(calls, rounds)
    amount = batch.flop / 1e9 if batch.packed else batch.bytes / 1e6
    low, middle, high = graph_timing.ratio(times["batch_invariant"], times["without"])
    rates = [amount / times[name].median_ms for name in calls]
    speeds.emit(
        f"| {label} | {rates[0]:.0f}, {times['batch_invariant'].median_ms * 1e3:.1f} us "
        f"| {middle:.2f} ({low:.2f}-{high:.2f}) | without {rates[1]:.0f} "
        f"| {times['batch_invariant'].host_us:.0f} |"
    )


TABLES = {
    "decode": print_decode,
    "pages": print_pages,
    "packed": print_packed,
    "stored": print_stored,
    "invariant": print_invariant,
    "latent": print_latent,
}
