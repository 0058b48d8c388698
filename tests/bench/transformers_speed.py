#!/usr/bin/env python3
# tests/bench/transformers_speed.py: a language model in transformers, with attnrt and with sdpa
"""python3 tests/bench/transformers_speed.py [--layers N] [--hidden N] [--device cpu] ...

Makes a Llama of about a billion parameters with random weights in bf16, and prints for
attn_implementation="attnrt" and "sdpa":

- the largest difference of logits between the two, and of each from float32 on the same weights,
- tokens per second of a prefill, and of greedy decoding into a static cache.

A ratio is attnrt's speed over that of sdpa in the same round, which run in turn: the median over
the rounds, with quartiles. Decoding runs in eager mode; --compile compiles its steps (mode
"reduce-overhead", which captures graphs on a GPU).

Needs the package attnrt, torch and transformers. With the defaults it takes less than 90 seconds on
an H200; --seconds bounds what the rounds take.
"""

import argparse
import statistics
import sys
import time
import warnings

import attnrt
import attnrt.transformers
import torch
import transformers

NAMES = ("attnrt", "sdpa")
TWINS_TOKENS = 256  # of the comparison of logits


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    numbers = {
        # name: default on a GPU, on a CPU, what it is
        "layers": (16, 2, "layers"),
        "hidden": (2048, 256, "hidden size; heads have 64 columns, and four share a key head"),
        "vocabulary": (32000, 1000, "tokens that there are"),
        "prefill-batch": (4, 1, "sequences of a prefill"),
        "prefill-length": (2048, 256, "tokens of each"),
        "decode-batch": (16, 2, "sequences that are decoded"),
        "context": (1024, 64, "tokens of each before the first new one"),
        "new-tokens": (256, 16, "new tokens of each"),
        "rounds": (7, 3, "rounds at most, at least 2"),
    }
    for name, (on_gpu, on_cpu, text) in numbers.items():
        parser.add_argument(f"--{name}", type=int, help=f"{text} ({on_gpu}; on a CPU {on_cpu})")
    parser.add_argument(
        "--seconds", type=float, default=25, help="of the rounds of each table (25)"
    )
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"), help="(cuda)")
    parser.add_argument("--compile", action="store_true", help="compile the steps of decoding")
    options = parser.parse_args()
    for name, defaults in numbers.items():
        attribute = name.replace("-", "_")
        if getattr(options, attribute) is None:
            setattr(options, attribute, defaults[options.device == "cpu"])
    return options


def make_model(options):
    heads = options.hidden // 64
    configuration = transformers.LlamaConfig(
        vocab_size=options.vocabulary,
        hidden_size=options.hidden,
        intermediate_size=4 * options.hidden,
        num_hidden_layers=options.layers,
        num_attention_heads=heads,
        num_key_value_heads=max(1, heads // 4),
        head_dim=64,
        max_position_embeddings=8192,
        pad_token_id=0,
    )
    torch.manual_seed(0)
    with torch.device(options.device):
        model = transformers.LlamaForCausalLM(configuration).eval()
    # Queries and keys of the default size give scores near 0, and attention a plain mean.
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "q_proj" in name or "k_proj" in name:
                parameter.mul_(2)
    return model.to(torch.bfloat16)


def random_tokens(options, batch, length):
    return torch.randint(1, options.vocabulary, (batch, length), device=options.device)


def wait(options):
    if options.device != "cpu":
        torch.cuda.synchronize()


def largest_differences(options, model):
    """Compares the logits of both names, and those of float32 on the weights of bf16."""
    tokens = random_tokens(options, 2, min(TWINS_TOKENS, options.prefill_length))
    logits = {}
    for name in NAMES:
        model.set_attn_implementation(name)
        logits[name] = model(tokens).logits.float()
    model.set_attn_implementation("sdpa")
    allowed = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = False
    exact = model.float()(tokens).logits
    torch.backends.cuda.matmul.allow_tf32 = allowed
    model.to(torch.bfloat16)  # the same weights as before
    print(f"logits, of which the largest is {float(exact.abs().max()):.2f}; largest difference:")
    errors = {name: float((logits[name] - exact).abs().max()) for name in NAMES}
    for name in NAMES:
        print(f"  {name + ' from float32':22}{errors[name]:.4f}")
    print(f"  {'attnrt from sdpa':22}{float((logits['attnrt'] - logits['sdpa']).abs().max()):.4f}")
    same = (logits["attnrt"].argmax(-1) == logits["sdpa"].argmax(-1)).float().mean()
    print(f"  {'same greedy token':22}{100 * float(same):.1f} %")
    # Both round each layer to bf16, so either may be a little further off than the other.
    return errors["attnrt"] <= 2 * errors["sdpa"]


def prefill(options, model):
    tokens = random_tokens(options, options.prefill_batch, options.prefill_length)

    def run():
        model(tokens, use_cache=False, logits_to_keep=1)

    return run, tokens.numel()


def decode(options, model):
    tokens = random_tokens(options, options.decode_batch, options.context)
    length = options.context + options.new_tokens
    step = model.forward
    if options.compile:
        step = torch.compile(model.forward, mode="reduce-overhead")

    # One cache for all rounds: a compiled step is bound to its addresses.
    cache = transformers.StaticCache(config=model.config, max_cache_len=length)

    def run():
        """Returns the seconds of the new tokens, without those of the context."""
        cache.reset()
        next_token = model(tokens, past_key_values=cache, logits_to_keep=1).logits.argmax(-1)
        wait(options)
        start = time.perf_counter()
        for _ in range(options.new_tokens - 1):
            logits = step(next_token, past_key_values=cache, logits_to_keep=1).logits
            next_token = logits.argmax(-1).clone()
        wait(options)
        return time.perf_counter() - start

    return run, options.decode_batch * (options.new_tokens - 1)


def table(options, model, what, run, tokens):
    """Runs both names in turn, and prints their speeds."""
    seconds = {name: [] for name in NAMES}
    end = None
    while end is None or len(seconds["sdpa"]) < options.rounds:
        for name in NAMES:
            model.set_attn_implementation(name)
            wait(options)
            start = time.perf_counter()
            took = run()
            wait(options)
            took = time.perf_counter() - start if took is None else took
            if end is not None:  # the first round warms up
                seconds[name].append(took)
        if end is None:
            end = time.perf_counter() + options.seconds
        elif time.perf_counter() > end and len(seconds["sdpa"]) > 1:
            break
    speeds = {name: tokens / statistics.median(seconds[name]) for name in NAMES}
    ratios = [b / a for a, b in zip(seconds["attnrt"], seconds["sdpa"], strict=True)]
    low, middle, high = statistics.quantiles(ratios, n=4, method="inclusive")
    print(
        f"{what:34}{speeds['attnrt']:12.0f}{speeds['sdpa']:12.0f}"
        f"   {middle:.3f} ({low:.3f} to {high:.3f}, {len(ratios)} rounds)"
    )


def main():
    options = arguments()
    if options.hidden % 64 or options.hidden // 64 % max(1, options.hidden // 256):
        sys.exit(f"--hidden: found {options.hidden}; expected a multiple of 256")
    if options.rounds < 2:
        sys.exit(f"--rounds: found {options.rounds}; expected at least 2")
    warnings.simplefilter("ignore")
    attnrt.transformers.register()
    started = time.perf_counter()
    with torch.inference_mode():
        model = make_model(options)
        device = "cpu" if options.device == "cpu" else torch.cuda.get_device_name()
        millions = sum(each.numel() for each in model.parameters()) / 1e6
        print(f"{device}, torch {torch.__version__}, transformers {transformers.__version__}")
        print(f"Llama of {millions:.0f} million parameters, bf16; {attnrt.Runtime()}")
        good = largest_differences(options, model)
        print(f"\n{'tokens per second':34}{'attnrt':>12}{'sdpa':>12}   attnrt / sdpa, quartiles")
        for name, make in (("prefill", prefill), ("decode", decode)):
            attnrt.transformers.reset_counters()
            run, tokens = make(options, model)
            batch, length = (
                (options.prefill_batch, options.prefill_length)
                if name == "prefill"
                else (options.decode_batch, options.context)
            )
            table(options, model, f"{name} {batch} x {length}", run, tokens)
            counted = attnrt.transformers.counters()
            if counted["fell_back"] or not counted["served"]:
                print(f"  attnrt served {counted['served']} calls; left: {counted['reasons']}")
                good = False
            else:
                print(f"  calls that attnrt served, by mask: {counted['masks']}")
    print(f"\n{time.perf_counter() - started:.0f} s")
    if not good:
        print(
            "WRONG: attnrt's logits are further from float32 than twice sdpa's, or calls are left"
        )
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
