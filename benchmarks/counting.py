"""What counting costs: against the bare decoder forward, and with ten answers per prompt. One table, from one run.

    python benchmarks/counting.py --model ~/.cache/language_neurons_alignment/SmolLM2-135M-Instruct
    python benchmarks/counting.py --shape mistral-7b --device cuda --dtype bfloat16

With --shape the model is random, built on the device, and nothing is downloaded. The tokens are random too.
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import resource
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig, PreTrainedConfig

from language_neurons_alignment.corpus.encode import PromptGroup
from language_neurons_alignment.engines.checkpoint import DTYPES
from language_neurons_alignment.engines.generation import batches
from language_neurons_alignment.engines.transformers import TransformersEngine
from language_neurons_alignment.engines.transformers.loading import describe, pick_device
from language_neurons_alignment.engines.transformers.network import Network
from language_neurons_alignment.engines.transformers.plan import Batch, plan

SHAPES = {
    "tiny": ("llama", 64, 176, 2, 4, 2, 1000),
    "smollm2-135m": ("llama", 576, 1536, 30, 9, 3, 49152),
    "mistral-7b": ("mistral", 4096, 14336, 32, 32, 8, 32000),
    "llama-3.1-8b": ("llama", 4096, 14336, 32, 32, 8, 128256),
    "qwen2.5-32b": ("qwen2", 5120, 27648, 64, 40, 8, 152064),
}
"""model_type, hidden, d_mlp, layers, heads, key-value heads, vocabulary."""


class NoTokenizer:
    """Random tokens need none."""

    def encode(self, text: str) -> list[int]:
        """Never called."""
        raise NotImplementedError(text)

    def decode(self, _tokens: list[int], **_how: bool) -> str:
        """No text."""
        return ""


def shape_config(shape: str) -> PreTrainedConfig:
    """The config of a model of this shape."""
    model_type, hidden, d_mlp, layers, heads, kv_heads, vocabulary = SHAPES[shape]
    return AutoConfig.for_model(
        model_type,
        hidden_size=hidden,
        intermediate_size=d_mlp,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        head_dim=hidden // heads,
        vocab_size=vocabulary,
        max_position_embeddings=8192,
        sliding_window=None,
    )


def random_engine(shape: str, device: str, dtype: str, batch_tokens: int | None) -> TransformersEngine:
    """A model of this shape with random weights, made where it will run."""
    torch.manual_seed(0)
    precision = DTYPES["float32" if dtype == "auto" else dtype]
    with torch.device(pick_device(device)):
        model = AutoModelForCausalLM.from_config(shape_config(shape), dtype=precision).eval()
    model.generation_config = GenerationConfig()  # as a loaded model's: nothing but what is asked for ends an answer
    network = Network.of(model)
    info = describe(network, path=shape, tokenizer=NoTokenizer())
    return TransformersEngine(network, NoTokenizer(), info=info, batch_tokens=batch_tokens)


def random_groups(prompts: int, answers: int, *, prompt: int, answer: int, vocabulary: int) -> list[PromptGroup]:
    """Prompts and answers of about these lengths (± 30 %), of random tokens."""
    rng = random.Random(0)

    def tokens(length: int) -> tuple[int, ...]:
        return tuple(rng.randrange(vocabulary) for _ in range(round(length * rng.uniform(0.7, 1.3))))

    prefixes = [tokens(prompt) for _ in range(prompts)]
    return [PromptGroup(prefix, tuple(prefix + tokens(answer) for _ in range(answers))) for prefix in prefixes]


def bare(engine: TransformersEngine, groups: Sequence[PromptGroup]) -> None:
    """The same batches through the same decoder, with no hook."""
    network = engine._network
    rows = [job.first for group in groups for job in plan(group)]
    with torch.inference_mode():
        for some in batches(rows, length=lambda row: len(row.tokens), budget=engine.batching.budget):
            network.run(Batch.of(some, network.device).tokens)


def seconds(run: Callable[[], object], device: torch.device) -> tuple[float, float]:
    """How long it takes until the device is done: on the clock, and in processor time (steadier on a busy machine)."""
    wait = {"cuda": torch.cuda.synchronize, "mps": torch.mps.synchronize}.get(device.type, lambda: None)
    wait()
    start, busy = time.perf_counter(), time.process_time()
    run()
    wait()
    return time.perf_counter() - start, time.process_time() - busy


def fed(engine: TransformersEngine, run: Callable[[], object]) -> int:
    """How many token positions reach the model's embedding, padding included."""
    seen = []
    embedding = engine._network.decoder.get_input_embeddings()
    handle = embedding.register_forward_hook(lambda _module, inputs, _output: seen.append(inputs[0].numel()))
    run()
    handle.remove()
    return sum(seen)


def overhead(engine: TransformersEngine, args: argparse.Namespace) -> dict[str, float]:
    """Counting against the bare forward of the same batches, alternating."""
    answer = args.length - args.length // 2
    groups = random_groups(
        max(1, args.tokens // args.length), 1, prompt=args.length // 2, answer=answer, vocabulary=args.vocabulary
    )
    tokens, device = sum(group.full_tokens for group in groups), engine._network.device
    bare(engine, groups[:2])
    engine.count(groups[:2])
    times = [
        (seconds(lambda: bare(engine, groups), device), seconds(lambda: engine.count(groups), device))
        for _ in range(args.repeats)
    ]
    ratios = [counted[0] / plain[0] for plain, counted in times]
    counting_s = statistics.median(counted[0] for _, counted in times)
    return {
        "tokens": tokens,
        "bare_s": statistics.median(plain[0] for plain, _ in times),
        "counting_s": counting_s,
        "ratio": statistics.median(ratios),
        "ratio_low": min(ratios),
        "ratio_high": max(ratios),
        "processor_time_ratio": statistics.median(counted[1] / plain[1] for plain, counted in times),
        "tokens_per_s": tokens / counting_s,
    }


def sharing(engine: TransformersEngine, args: argparse.Namespace) -> dict[str, float]:
    """Ten answers per prompt: one pass that shares prefixes, against separate full and prefix passes."""
    groups = random_groups(args.prompts, 10, prompt=args.prompt, answer=args.answer, vocabulary=args.vocabulary)
    apart = [PromptGroup((), group.full) for group in groups]
    apart += [PromptGroup((), ((*group.prefix[:-1], n),)) for group in groups for n in range(10)]
    shared_fed, apart_fed = fed(engine, lambda: engine.count(groups)), fed(engine, lambda: engine.count(apart))
    device = engine._network.device
    times = [
        (seconds(lambda: engine.count(groups), device), seconds(lambda: engine.count(apart), device))
        for _ in range(max(1, args.repeats // 2))
    ]
    wanted = sum(group.full_tokens + group.prefix_tokens for group in groups)
    return {
        "tokens_counted": wanted,
        "fed_shared": shared_fed,
        "fed_apart": apart_fed,
        "fed_share": shared_fed / apart_fed,
        "fed_share_without_padding": shared_fed / wanted,
        "time_share": statistics.median(one[0] / other[0] for one, other in times),
    }


def memory(engine: TransformersEngine) -> dict[str, float]:
    """Peak memory so far, and the model's."""
    network = engine._network
    weights = sum(
        p.numel() * p.element_size() for p in {*network.decoder.parameters(), *network.head.projection.parameters()}
    )
    if network.device.type == "cuda":
        peak = torch.cuda.max_memory_allocated(network.device)
    else:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return {"peak_gib": peak / 2**30, "weights_gib": weights / 2**30}


def table(result: dict) -> str:
    """The result as Markdown."""
    o, s, m = result["overhead"], result["sharing"], result["memory"]
    rows = [
        ("bare decoder forward", f"{o['bare_s']:.3f} s for {o['tokens']:,} tokens"),
        ("the same, counting", f"{o['counting_s']:.3f} s, {o['tokens_per_s']:,.0f} tokens/s"),
        ("**counting / bare**", f"**{o['ratio']:.3f}** (median; {o['ratio_low']:.3f} to {o['ratio_high']:.3f})"),
        ("… the same in processor time of the host", f"{o['processor_time_ratio']:.3f}"),
        ("10 answers per prompt: tokens to count", f"{s['tokens_counted']:,}"),
        ("… fed by separate full and prefix passes", f"{s['fed_apart']:,}"),
        ("… fed with shared prefixes, padding included", f"{s['fed_shared']:,} (**{s['fed_share']:.1%}**)"),
        ("… time of the one against the other", f"{s['time_share']:.1%}"),
        ("peak memory", f"{m['peak_gib']:.2f} GiB, of which weights {m['weights_gib']:.2f} GiB"),
    ]
    title = f"{result['model']} ({result['layers']} × {result['d_mlp']}), {result['dtype']}, {result['device']}, "
    title += (
        f"batches of {result['batch_tokens']} tokens, torch {torch.__version__}, Python {platform.python_version()}"
    )
    return "\n".join([title, "", "| what | measured |", "|---|---|", *(f"| {what} | {how} |" for what, how in rows)])


def main() -> None:
    """Measure, print, and write JSON if asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--model", help="a model folder")
    which.add_argument("--shape", choices=SHAPES, default="tiny", help="a random model of this shape")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--batch-tokens", type=int)
    parser.add_argument("--tokens", type=int, default=16384, help="tokens per repetition")
    parser.add_argument("--length", type=int, default=256, help="mean tokens of a sequence")
    parser.add_argument("--prompts", type=int, default=8, help="prompts with ten answers each")
    parser.add_argument("--prompt", type=int, default=200, help="mean tokens of such a prompt")
    parser.add_argument("--answer", type=int, default=100, help="mean tokens of such an answer")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, help="CPU threads (on a busy machine, 1 measures most steadily)")
    parser.add_argument("--json", type=Path, help="write the numbers here too")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    if args.model:
        engine = TransformersEngine.load(
            args.model, device=args.device, dtype=args.dtype, batch_tokens=args.batch_tokens
        )
    else:
        engine = random_engine(args.shape, args.device, args.dtype, args.batch_tokens)
    args.vocabulary = engine._network.head.vocabulary
    result = {
        "model": args.model or f"{args.shape} (random weights)",
        "layers": engine.model.layers,
        "d_mlp": engine.model.d_mlp,
        **engine.provenance,
        "overhead": overhead(engine, args),
        "sharing": sharing(engine, args),
        "memory": memory(engine),
    }
    print(table(result))
    text = json.dumps(result, indent=1)
    print(f"\n```json\n{text}\n```")
    if args.json:
        args.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
