# tests/runtime/python/transformers_test.py: attnrt.transformers in models of many architectures
import contextlib
import io
import logging
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import unittest
from typing import Any

import attnrt

try:
    import torch
    import transformers
except ImportError:
    transformers = None
else:
    import attnrt.torch
    import attnrt.transformers
    import transformers_models as models

NEW_TOKENS = 8


class Models(unittest.TestCase):
    def setUp(self) -> None:
        if transformers is None:
            self.skipTest("torch and transformers are not installed")
        logging.disable(logging.WARNING)
        self.addCleanup(logging.disable, logging.NOTSET)
        torch.manual_seed(0)
        attnrt.transformers.register()
        attnrt.transformers.reset_counters()

    def prompts(self, length: int = 13) -> Any:
        return torch.randint(4, 64, (2, length), generator=torch.Generator().manual_seed(1))

    def counted(self) -> Any:
        counted = attnrt.transformers.counters()
        self.assertEqual((counted["fell_back"], counted["reasons"]), (0, {}))
        self.assertGreater(counted["served"], 0)
        return counted

    def check_logits(self, model: Any, exact: Any, seen: Any, **inputs: Any) -> Any:
        """Runs the model with attnrt, and compares. Returns how the calls were counted."""
        with torch.no_grad():
            expected = exact(**self.doubled(inputs))[0]
            models.use(model, "eager")
            eager = model(**inputs)[0]
            models.use(model, "attnrt")
            attnrt.transformers.reset_counters()
            found = model(**inputs)[0]
        error, limit = models.error_and_limit(found, eager, expected, seen)
        self.assertLessEqual(error, limit)
        return self.counted()["masks"]

    def doubled(self, inputs: dict[str, Any]) -> dict[str, Any]:
        return {
            name: each.double()
            if name in ("input_features", "attention_mask")
            and each is not None
            and each.is_floating_point()
            else each
            for name, each in inputs.items()
        }

    def generated(self, model: Any, implementation: str, **inputs: Any) -> Any:
        models.use(model, implementation)
        attnrt.transformers.reset_counters()
        with torch.no_grad():
            return model.generate(
                **inputs, max_new_tokens=NEW_TOKENS, min_new_tokens=NEW_TOKENS, do_sample=False,
                pad_token_id=0,
            )  # fmt: skip

    def check_tokens(self, model: Any, **inputs: Any) -> Any:
        expected = self.generated(model, "eager", **inputs)
        found = self.generated(model, "attnrt", **inputs)
        self.assertEqual(found.tolist(), expected.tolist())
        return self.counted()["masks"]


class Decoders(Models):
    def test_prefill(self) -> None:
        for name, configuration in models.causal_configurations().items():
            model, exact = models.made(configuration, transformers.AutoModelForCausalLM.from_config)
            windows = getattr(configuration, "sliding_window", None) is not None
            prompts = self.prompts()
            for padding, mask in models.padded(prompts.shape[1]).items():
                with self.subTest(name, padding=padding):
                    masks = self.check_logits(
                        model, exact, mask, input_ids=prompts, attention_mask=mask
                    )
                    if padding == "left":
                        self.assertEqual(set(masks), {"tensor"})
                    else:
                        self.assertNotIn("tensor", masks)
                        self.assertEqual("words" in masks, windows or padding == "right")

    def test_generate(self) -> None:
        for name, configuration in models.causal_configurations().items():
            model = models.filled(transformers.AutoModelForCausalLM.from_config(configuration))
            prompts = self.prompts()
            for padding in ("no padding", "left"):
                mask = models.padded(prompts.shape[1])[padding]
                for cache in ({}, {"cache_implementation": "static"}):
                    with self.subTest(name, padding=padding, **cache):
                        masks = self.check_tokens(
                            model, input_ids=prompts, attention_mask=mask, **cache
                        )
                        if cache:  # each token's lengths, for two layers
                            self.assertGreaterEqual(masks["words"], 2 * (NEW_TOKENS - 1))

    def test_more_tokens_into_a_cache(self) -> None:
        prompts = self.prompts(17)
        for name in ("Llama", "Mistral", "Gemma 3"):
            configuration = models.causal_configurations()[name]
            model, exact = models.made(configuration, transformers.AutoModelForCausalLM.from_config)
            for static in (False, True):
                with self.subTest(name, static=static), torch.no_grad():
                    expected = exact(prompts)[0]
                    models.use(model, "eager")
                    eager = model(prompts)[0]
                    models.use(model, "attnrt")
                    attnrt.transformers.reset_counters()
                    cache: Any = (
                        transformers.StaticCache(config=configuration, max_cache_len=24)
                        if static
                        else transformers.DynamicCache(config=configuration)
                    )
                    parts = [
                        model(part, past_key_values=cache)[0] for part in prompts.split(6, dim=1)
                    ]
                    found = torch.cat(parts, dim=1)
                    error, limit = models.error_and_limit(found, eager, expected, None)
                    self.assertLessEqual(error, limit)
                    self.assertNotIn("tensor", self.counted()["masks"])

    def test_packed_sequences(self) -> None:
        configuration = models.causal_configurations()["Mistral"]
        model, exact = models.made(configuration, transformers.AutoModelForCausalLM.from_config)
        prompts = self.prompts()[:1]
        positions = torch.tensor([[*range(7), *range(6)]])
        masks = self.check_logits(
            model, exact, None, input_ids=prompts, position_ids=positions, use_cache=False
        )
        self.assertEqual(masks, {"packed": 2})

    def test_a_mask_of_the_users_own(self) -> None:
        configuration = models.causal_configurations()["Llama"]
        model, exact = models.made(configuration, transformers.AutoModelForCausalLM.from_config)
        prompts = self.prompts()
        allowed = torch.rand((2, 1, 13, 13), generator=torch.Generator().manual_seed(2)) < 0.6
        allowed |= torch.eye(13, dtype=torch.bool)
        mask = torch.zeros(allowed.shape).masked_fill(~allowed, torch.finfo(torch.float32).min)
        masks = self.check_logits(model, exact, None, input_ids=prompts, attention_mask=mask)
        self.assertEqual(masks, {"tensor": 2})

    def test_bfloat16(self) -> None:
        for name in ("Gemma 2", "gpt-oss"):
            configuration = models.causal_configurations()[name]
            model, exact = models.made(configuration, transformers.AutoModelForCausalLM.from_config)
            model, exact = model.bfloat16(), exact.bfloat16().double()
            with self.subTest(name):
                self.check_logits(model, exact, None, input_ids=self.prompts())


class Encoders(Models):
    def test_bert(self) -> None:
        model, exact = models.made(models.bert_configuration(), transformers.BertModel)
        prompts = self.prompts()
        for padding, mask in models.padded(prompts.shape[1]).items():
            with self.subTest(padding=padding):
                masks = self.check_logits(
                    model, exact, mask, input_ids=prompts, attention_mask=mask
                )
                expected = {"left": "tensor", "right": "words"}.get(padding, "none")
                self.assertEqual(masks, {expected: 2})

    def test_t5(self) -> None:
        model, exact = models.made(
            models.t5_configuration(), transformers.T5ForConditionalGeneration
        )
        prompts, answers = self.prompts(), self.prompts(7)
        for padding, mask in models.padded(prompts.shape[1]).items():
            with self.subTest(padding=padding):
                inputs = {"input_ids": prompts, "attention_mask": mask}
                self.check_logits(model, exact, None, decoder_input_ids=answers, **inputs)
                self.check_tokens(model, **inputs)

    def test_whisper(self) -> None:
        model, exact = models.made(
            models.whisper_configuration(), transformers.WhisperForConditionalGeneration
        )
        features = torch.randn((2, 8, 40), generator=torch.Generator().manual_seed(3))
        answers = self.prompts(7)
        self.check_logits(model, exact, None, input_features=features, decoder_input_ids=answers)
        self.check_tokens(model, input_features=features)


class OthersInterfaces(Models):
    """Models that call no attention function of transformers."""

    def test_falcon(self) -> None:
        def made(**words: Any) -> Any:
            configuration = transformers.FalconConfig(
                vocab_size=64, hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
                **models.TOKENS,
            )  # fmt: skip
            kind = transformers.FalconForCausalLM
            return models.filled(kind._from_config(configuration, **words))

        with self.assertRaises(KeyError):  # Falcon has a table of its own
            made(attn_implementation="attnrt")
        model, exact = made(), made().double()
        self.assertEqual(model.config._attn_implementation, "sdpa")
        prompts = self.prompts()
        for padding, mask in models.padded(prompts.shape[1]).items():
            with self.subTest(padding=padding), torch.no_grad():
                inputs = {"input_ids": prompts, "attention_mask": mask}
                expected, eager = exact(**inputs)[0], model(**inputs)[0]
                attnrt.torch.reset_counters()
                attnrt.torch.enable()
                self.addCleanup(attnrt.torch.disable)
                found = model(**inputs)[0]
                attnrt.torch.disable()
                self.assertEqual(attnrt.torch.counters()["served"], 2)
                error, limit = models.error_and_limit(found, eager, expected, mask)
                self.assertLessEqual(error, limit)

    def test_mpt(self) -> None:
        configuration = transformers.MptConfig(
            vocab_size=64, d_model=32, n_layers=2, n_heads=4, max_seq_len=64
        )
        with self.assertRaisesRegex(attnrt.UnsupportedError, "MptAttention .*attnrt.torch.enable"):
            transformers.MptForCausalLM._from_config(configuration, attn_implementation="attnrt")(
                self.prompts()
            )


class Package(Models):
    def test_register(self) -> None:
        runtime = attnrt.Runtime()
        attnrt.transformers.register(runtime)
        self.addCleanup(attnrt.transformers.register)
        configuration = models.causal_configurations()["Llama"]
        model = transformers.AutoModelForCausalLM.from_config(
            configuration, attn_implementation="attnrt"
        )
        with torch.no_grad():
            model(self.prompts())
        self.assertEqual(len(runtime.decisions()), 1)
        with self.assertRaisesRegex(attnrt.InvalidArgumentError, "runtime is a int; expected"):
            attnrt.transformers.register(3)  # type: ignore[arg-type]

    def test_the_example_of_the_page(self) -> None:
        page = pathlib.Path(__file__).parents[3] / "docs" / "transformers.md"
        [example] = re.findall("```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
        attnrt.transformers.reset_counters()
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(example, page, "exec"), {})
        self.assertEqual(self.counted()["served"], 16)
        [comment] = re.findall(r"counters\(\)\)  # (.*)", example)
        self.assertEqual(printed.getvalue().splitlines()[-1], comment)

    def test_what_is_not_installed(self) -> None:
        for package in ("torch", "transformers"):
            code = f"import sys; sys.modules[{package!r}] = None; import attnrt.transformers"
            done = subprocess.run(
                [sys.executable, "-c", code], capture_output=True, text=True, check=False
            )
            self.assertRegex(
                done.stderr.splitlines()[-1],
                f"ModuleNotFoundError: attnrt.transformers needs the package {package}: pip",
            )

    def test_a_version_that_is_too_old(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            with open(os.path.join(folder, "transformers.py"), "w", encoding="utf-8") as file:
                file.write("__version__ = '4.57.1'\n")
            done = subprocess.run(
                [sys.executable, "-c", "import attnrt.transformers"], capture_output=True,
                text=True, check=False, env={**os.environ, "PYTHONPATH": folder},
            )  # fmt: skip
        self.assertRegex(done.stderr.splitlines()[-1], "transformers .* or newer; found 4.57.1")


if __name__ == "__main__":
    unittest.main()
