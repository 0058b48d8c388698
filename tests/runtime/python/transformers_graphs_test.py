# tests/runtime/python/transformers_graphs_test.py: torch.compile, training, continuous batching
import unittest
import unittest.mock
from typing import Any

from transformers_test import NEW_TOKENS, Models

try:
    import torch
    import transformers
except ImportError:
    pass
else:
    import attnrt.torch
    import attnrt.transformers
    import transformers_models as models


class Graphs(Models):
    def test_torch_compile(self) -> None:
        for name in ("Gemma 2", "gpt-oss"):
            configuration = models.causal_configurations()[name]
            model, exact = models.made(configuration, transformers.AutoModelForCausalLM.from_config)
            prompts = self.prompts()
            mask = models.padded(prompts.shape[1])["left"]
            torch._dynamo.reset()
            with self.subTest(name), torch.no_grad():
                expected = exact(prompts, attention_mask=mask)[0]
                models.use(model, "eager")
                eager = model(prompts, attention_mask=mask)[0]
                models.use(model, "attnrt")
                compiled = torch.compile(model, backend="aot_eager")
                found = compiled(prompts, attention_mask=mask)[0]
                error, limit = models.error_and_limit(found, eager, expected, mask)
                self.assertLessEqual(error, limit)

    def test_a_compiled_decode_step(self) -> None:
        for name in ("Llama", "Gemma 3"):
            configuration = models.causal_configurations()[name]
            model = models.filled(transformers.AutoModelForCausalLM.from_config(configuration))
            prompts = self.prompts()
            mask = models.padded(prompts.shape[1])["left"]
            words = {
                "input_ids": prompts, "attention_mask": mask, "cache_implementation": "static",
            }  # fmt: skip
            expected = self.generated(model, "eager", **words)
            graphs: list[Any] = []

            def keep(graph: Any, _: Any, graphs: list[Any] = graphs) -> Any:
                graphs.append(graph)
                return graph

            torch._dynamo.reset()
            eager_forward = model.forward
            model.forward = torch.compile(eager_forward, fullgraph=True, backend=keep)
            with self.subTest(name):
                found = self.generated(model, "attnrt", **words)
                self.assertEqual(found.tolist(), expected.tolist())
                calls = [node for graph in graphs for node in graph.graph.nodes]
                names = [str(node.target) for node in calls]
                self.assertIn("attnrt.attention", names)

    def test_a_compiled_layer(self) -> None:
        configuration = models.causal_configurations()["Mistral"]
        model, exact = models.made(configuration, transformers.AutoModelForCausalLM.from_config)
        prompts = self.prompts()
        torch._dynamo.reset()
        with torch.no_grad():
            expected = exact(prompts)[0]
            models.use(model, "eager")
            eager = model(prompts)[0]
            models.use(model, "attnrt")
            for layer in model.model.layers:
                layer.forward = torch.compile(layer.forward, backend="aot_eager")
            found = model(prompts)[0]  # the mask, made outside the graphs, is one in words
        error, limit = models.error_and_limit(found, eager, expected, None)
        self.assertLessEqual(error, limit)


class Training(Models):
    def test_gradients_are_torchs(self) -> None:
        for name in ("Llama", "Gemma 2", "gpt-oss"):
            configuration = models.causal_configurations()[name]
            model = models.filled(transformers.AutoModelForCausalLM.from_config(configuration))
            prompts = self.prompts()
            gradients = []
            for implementation in ("eager", "attnrt"):
                models.use(model, implementation)
                model.zero_grad()
                model(prompts, labels=prompts).loss.backward()
                gradients.append([each.grad.clone() for each in model.parameters()])
            with self.subTest(name):
                for one, other in zip(*gradients, strict=True):
                    torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)
                counted = attnrt.transformers.counters()
                self.assertEqual((counted["served"], set(counted["reasons"])), (0, {"gradient"}))

    def test_attention_weights(self) -> None:
        configuration = models.causal_configurations()["Llama"]
        model = models.filled(transformers.AutoModelForCausalLM.from_config(configuration))
        prompts = self.prompts()
        with torch.no_grad():
            models.use(model, "eager")
            expected = model(prompts, output_attentions=True).attentions
            models.use(model, "attnrt")
            attnrt.transformers.reset_counters()
            found = model(prompts, output_attentions=True).attentions
        counted = attnrt.transformers.counters()
        self.assertEqual(counted["reasons"], {"output_attentions": 2})
        for one, other in zip(found, expected, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


class ContinuousBatching(Models):
    def test_requests(self) -> None:
        prompts = [self.prompts(n)[0].tolist() for n in (13, 3, 21, 8)]
        words = {"max_new_tokens": NEW_TOKENS, "do_sample": False, "eos_token_id": -1}
        generation = transformers.GenerationConfig(**words, pad_token_id=0)
        names = transformers.AttentionInterface().valid_keys()
        for name in ("Llama", "Mistral", "Gemma 2", "gpt-oss"):
            configuration = models.causal_configurations()[name]
            model = models.filled(transformers.AutoModelForCausalLM.from_config(configuration))
            expected = []
            models.use(model, "eager")
            for prompt in prompts:
                tokens = torch.tensor([prompt])
                with torch.no_grad():
                    out = model.generate(tokens, **words, pad_token_id=0)
                expected.append(out[0, len(prompt) :].tolist())
            attnrt.transformers.reset_counters()
            models.use(model, "attnrt")
            with self.subTest(name):
                if "paged|attnrt" in names:
                    self.assertEqual(self.batched(model, prompts, generation), expected)
                    self.assertEqual(set(self.counted()["masks"]), {"paged"})
                    continue
                # Newer versions allow only names of their own.
                with self.assertRaisesRegex(ValueError, "attnrt is not supported for continuous"):
                    self.batched(model, prompts, generation)
                if model._supports_sdpa and name != "Gemma 2":  # their sdpa has no softcap
                    models.use(model, "sdpa")
                    attnrt.torch.reset_counters()
                    attnrt.torch.enable()
                    self.addCleanup(attnrt.torch.disable)
                    self.assertEqual(self.batched(model, prompts, generation), expected)
                    attnrt.torch.disable()
                    self.assertGreater(attnrt.torch.counters()["served"], 0)

    def batched(self, model: Any, prompts: list[list[int]], generation: Any) -> list[list[int]]:
        batching = transformers.generation.ContinuousBatchingConfig(
            num_blocks=16, block_size=16, max_batch_tokens=64
        )
        memory = transformers.generation.continuous_batching.cache.PagedAttentionMemoryHandler
        with unittest.mock.patch.object(memory, "get_available_memory", lambda *_: 1 << 30):
            outputs = model.generate_batch(  # without the patch, a CPU has no memory
                inputs=prompts, generation_config=generation, continuous_batching_config=batching
            )
        return [outputs[key].generated_tokens for key in sorted(outputs)]


if __name__ == "__main__":
    unittest.main()
