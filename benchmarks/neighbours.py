"""What counting costs with other tools: the same counts of the same texts by plain hooks, nnsight and TransformerLens.

    python benchmarks/neighbours.py [MODEL] [-d datasets/demo.json] [--languages en …] [--questions 1] [--repeats 5]
    python benchmarks/neighbours.py --tiny

MODEL is a folder; without one, the demo's SmolLM2 is taken, or with --tiny a random one. Every tool runs the decoder
alone, without its lm_head, on the same batches of whole texts, and must give the engine's counts to the last firing
before anything is timed. TransformerLens computes attention in its own way ("eager"), so counting is measured with that
too. All run once in each round, in turns; ratios are medians over the rounds. A tool that is not installed is left out,
and a line says so. Both can be had beside an environment, without a change to it:

    python -m venv --system-site-packages /tmp/tools && /tmp/tools/bin/pip install nnsight transformer-lens
"""

from __future__ import annotations

import argparse
import copy
import importlib.metadata
import os
import platform
import statistics
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from counting import random_engine, random_groups, seconds
from gpu import SIZES, Bench, attended, bare, by_hand, by_nnsight
from torch import Tensor

from language_neurons_alignment._demo import demo_corpus_path, demo_model_path
from language_neurons_alignment.corpus.encode import PromptGroup, encode_groups
from language_neurons_alignment.corpus.records import read_corpus
from language_neurons_alignment.engines.transformers import TransformersEngine
from language_neurons_alignment.engines.transformers.network import Network
from language_neurons_alignment.engines.transformers.plan import Batch

LIBRARY, EAGER = "sdpa", "eager"
"""Attention as the transformers library computes it where nothing else is asked for, and as TransformerLens does."""


@dataclass(frozen=True)
class Way:
    """One way to run the texts: its attention, and what it counts; nothing for the bare decoder."""

    name: str
    attention: str
    run: Callable[[], Tensor | None]


def count(bench: Bench) -> Tensor:
    """By the engine."""
    return bench.engine.count(bench.groups).full.over_zero


def by_transformer_lens(bench: Bench, bridge: Any) -> Tensor:
    """With hooks on the gates' outputs, which are above 0 exactly where act(gate) is."""
    over_zero = torch.zeros(bench.engine._network.shape, dtype=torch.int64)
    inside = torch.empty(0)

    def counting(gate: Tensor, hook: object, *, layer: int) -> None:
        del hook  # TransformerLens gives it by this name
        over_zero[layer] += ((gate > 0) & inside[..., None]).sum(dim=(0, 1)).cpu()

    hooks = [(f"blocks.{layer}.mlp.gate.hook_out", partial(counting, layer=layer)) for layer in range(len(over_zero))]
    with torch.inference_mode(), bridge.hooks(fwd_hooks=hooks):
        for rows in bench.batched:
            inside = attended(rows, bench.device)
            bridge.original_model.model(input_ids=Batch.of(rows, bench.device).tokens, use_cache=False)
    return over_zero


def copied(bench: Bench) -> Bench:
    """The same with a copy of the model, for tools that leave their own code in what they are given."""
    engine = bench.engine
    network = Network.of(copy.deepcopy(engine._network.model))
    return replace(bench, engine=TransformersEngine(network, engine.tokenizer, info=engine.model))


def bridge_of(bench: Bench, model: Path) -> Any:
    """A copy of the model in TransformerLens."""
    from transformer_lens.model_bridge import TransformerBridge

    own = bench.engine._network.model
    return TransformerBridge.boot_transformers(str(model), hf_model=copy.deepcopy(own), dtype=own.dtype)


def ways(bench: Bench, model: Path) -> list[Way]:
    """What is compared."""
    found = [
        Way("bare decoder", LIBRARY, lambda: bare(bench, bench.batched)),
        Way("counting", LIBRARY, lambda: count(bench)),
        Way("plain hooks", LIBRARY, lambda: by_hand(bench, bench.batched)),
    ]
    if name := installed("nnsight"):
        own = copied(bench)
        found.append(Way(name, LIBRARY, lambda: by_nnsight(own, own.batched)))
    if name := installed("transformer-lens"):
        bridge = bridge_of(bench, model)
        found += [
            Way("bare decoder", EAGER, lambda: bare(bench, bench.batched)),
            Way("counting", EAGER, lambda: count(bench)),
            Way(name, EAGER, lambda: by_transformer_lens(bench, bridge)),
        ]
    return found


def installed(package: str) -> str:
    """A tool's name with its version; where it is not there, a line says so."""
    try:
        return f"{package} {importlib.metadata.version(package)}"
    except importlib.metadata.PackageNotFoundError:
        print(f"left out: {package} is not installed (pip install {package})\n")
        return ""


def check(compared: list[Way], bench: Bench) -> None:
    """Refuse to time what does not count the same."""
    for attention in dict.fromkeys(way.attention for way in compared):
        bench.engine._network.model.set_attn_implementation(attention)
        wanted = count(bench)
        for way in compared:
            given = way.run() if way.attention == attention else None
            if given is not None and not torch.equal(given, wanted):
                sys.exit(f"{way.name} gives other counts for {int((given != wanted).sum())} neurons: nothing is timed")


def timed(compared: list[Way], bench: Bench, repeats: int) -> list[dict[Way, tuple[float, float]]]:
    """Wall and processor seconds of each way in each round."""
    rounds = []
    for _ in range(repeats):
        took = {}
        for way in compared:
            bench.engine._network.model.set_attn_implementation(way.attention)
            took[way] = seconds(way.run, bench.device)
        rounds.append(took)
    return rounds


def table(compared: list[Way], rounds: list[dict[Way, tuple[float, float]]], tokens: int) -> str:
    """A row for each way: tokens a processor second, and its time as multiples of counting's with its attention."""
    rows = ["| attention | what runs | tokens/processor s | processor time / counting's: median (range) | wall time |"]
    rows.append("|---|---|---:|---:|---:|")
    for way in compared:
        counting = next(one for one in compared if (one.name, one.attention) == ("counting", way.attention))
        wall, busy = ([one[way][clock] / one[counting][clock] for one in rounds] for clock in (0, 1))
        speed = tokens / statistics.median(one[way][1] for one in rounds)
        rows.append(
            f"| {way.attention} | {way.name} | {speed:,.0f} | {statistics.median(busy):.2f} "
            f"({min(busy):.2f}–{max(busy):.2f}) | {statistics.median(wall):.2f} |"
        )
    return "\n".join(rows)


def main() -> None:
    """Check, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, nargs="?")
    parser.add_argument("-d", "--data", type=Path, default=demo_corpus_path())
    parser.add_argument("--languages", nargs="+", help="of the corpus; all of them where none is named")
    parser.add_argument("--questions", type=int, default=1, help="of each language")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--tiny", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.tiny:
        engine, size = random_engine("tiny", "cpu", given.dtype, SIZES["tiny"].batch), SIZES["tiny"]
        groups = random_groups(2, 1, prompt=30, answer=30, vocabulary=1000)
        path = Path("tiny")
    else:
        path = given.model or demo_model_path()
        size = SIZES["mistral-7b"]
        engine = TransformersEngine.load(path, device="cpu", dtype=given.dtype, batch_tokens=size.batch)
        corpus = read_corpus(given.data)
        groups = [
            PromptGroup((), group.full)
            for code in given.languages or corpus.languages
            for group in encode_groups(
                corpus.of_language(code)[: given.questions], engine.tokenizer, max_length=4096
            ).groups
        ]
    bench = Bench(engine, size, groups)
    compared = ways(bench, path)
    check(compared, bench)
    rounds = timed(compared, bench, given.repeats)
    print(
        f"{path.name}, {engine.model.dtype}, {platform.machine()}, 1 thread, torch {torch.__version__}: "
        f"{bench.tokens:,} tokens in {len(groups)} texts, {given.repeats} rounds, load {os.getloadavg()[0]:.1f}; "
        "all count the same\n"
    )
    print(table(compared, rounds, bench.tokens))


if __name__ == "__main__":
    main()
