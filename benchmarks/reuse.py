"""How much faster a perplexity map is where conditions start at the first layer that they change.

python benchmarks/reuse.py [MODEL] [-d datasets/demo.json] [--questions 1] [--controls 1] [--mask FILE] [--tiny]

MODEL is a folder; without one, the demo's SmolLM2 is taken, or with --tiny a random one of three layers. Without
--mask, masks and controls are made of counts of the same questions as the map. The map is scored cell by cell, each
cell once with kept states and once without, in turns, so that other work on the machine slows both; all likelihoods
must be equal bit for bit. A line in front of it scores the texts with the log-softmax in pieces and in one.
"""

from __future__ import annotations

import argparse
import os
import platform
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from language_neurons_alignment._demo import demo_corpus_path, demo_model_path
from language_neurons_alignment.config import Selection
from language_neurons_alignment.core.counts import activation_probability, answer_counts
from language_neurons_alignment.core.find import find
from language_neurons_alignment.core.interventions import Intervention, matched_controls
from language_neurons_alignment.core.perplexity import TextLikelihood
from language_neurons_alignment.corpus.encode import ScoredText, encode_groups, encode_texts
from language_neurons_alignment.corpus.records import Corpus, read_corpus
from language_neurons_alignment.engines.transformers import TransformersEngine, loading, network
from language_neurons_alignment.engines.transformers.network import Network
from language_neurons_alignment.store.masks import Mask

Texts = Mapping[str, Sequence[ScoredText]]


def random_model() -> TransformersEngine:
    """A model of three layers with random weights, and the demo's tokenizer."""
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(demo_model_path())
    sizes = {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 3, "num_attention_heads": 4}
    config = LlamaConfig(**sizes, num_key_value_heads=2, vocab_size=len(tokenizer), max_position_embeddings=4096)
    parts = Network.of(LlamaForCausalLM(config).eval())
    return TransformersEngine(parts, tokenizer, info=loading.describe(parts, path="tiny", tokenizer=tokenizer))


def found_masks(
    engine: TransformersEngine, corpus: Corpus, questions: int
) -> tuple[Bool[Tensor, "layer neuron lang"], Float[Tensor, "layer neuron"]]:
    """The languages' neurons at λ* of the demo's range, and each neuron's mean probability."""
    counted = [
        engine.count(encode_groups(corpus.of_language(code)[:questions], engine.tokenizer, max_length=4096).groups)
        for code in corpus.languages
    ]
    over = torch.stack([answer_counts(one.full.over_zero, one.prefix.over_zero) for one in counted], dim=-1)
    tokens = torch.tensor([one.full.total_tokens - one.prefix.total_tokens for one in counted])
    probability = activation_probability(over, tokens=tokens)
    return find(probability, Selection(top_rate=0.01, bar=0.95, lam=None)).mask, probability.mean(dim=-1)


def conditions_of(
    masks: Bool[Tensor, "layer neuron lang"], activity: Tensor | None, *, controls: int, first: int
) -> list[Intervention | None]:
    """Nothing, each language's neurons from layer `first` on, and controls of them."""
    late = masks.clone()
    late[:first] = False
    rows = [*late.unbind(dim=-1)]
    eligible = ~masks.any(dim=-1)
    drawn = [
        matched_controls(row, activity=activity, eligible=eligible, seed=1000 * number + k)
        for number in range(controls)
        for k, row in enumerate(rows)
    ]
    return [None, *map(Intervention.zero, [*rows, *drawn])]


def cell(
    engine: TransformersEngine, change: Intervention | None, texts: Sequence[ScoredText]
) -> tuple[float, list[TextLikelihood]]:
    """Processor seconds of one cell, and its likelihoods."""
    begun = time.process_time()
    with nullcontext() if change is None else engine.intervene(change):
        likelihoods = engine.log_likelihood(texts)
    return time.process_time() - begun, likelihoods


def row(name: str, engine: TransformersEngine, conditions: Sequence[Intervention | None], texts: Texts) -> None:
    """Score a map in both ways, and print a line."""
    nothing = Intervention.identity(engine.model.layers, engine.model.d_mlp)
    changes = [one for one in conditions if one is not None]
    firsts = [one.first_change(nothing) for one in changes]
    tokens = sum(len(one.tokens) for some in texts.values() for one in some)
    begun = time.process_time()
    keeping = engine.reuse(changes, tokens=tokens)
    keeping.__enter__()
    reused, spent = engine._reused, {True: time.process_time() - begun, False: 0.0}
    assert reused is not None
    try:
        for condition in conditions:
            for some in texts.values():
                given = {}
                for way in (True, False):
                    engine._reused = reused if way else None
                    seconds, given[way] = cell(engine, condition, some)
                    spent[way] += seconds
                assert given[True] == given[False], "likelihoods differ"
    finally:
        engine._reused = reused
        keeping.__exit__(None, None, None)
    layers, runs = engine.model.layers, len(conditions)
    saved = sum(max((start for start in reused.starts if start <= first), default=0) for first in firsts)
    print(
        f"| {name} | {', '.join(map(str, sorted(firsts[: len(texts)])))} | {', '.join(map(str, reused.starts))} | "
        f"{saved / (layers * runs):.0%} | {runs} × {tokens:,} | {spent[False]:.1f} | {spent[True]:.1f} | "
        f"{spent[False] / spent[True]:.2f} | {os.getloadavg()[0]:.1f} |",
        flush=True,
    )


def losses_in_one(hidden: Tensor, targets: Tensor, head: network.Head) -> Tensor:
    """−ln p of each target, with no piece smaller than memory asks for."""
    size, losses = network.LOGITS["cpu"] // head.vocabulary, []
    for some, wanted in zip(hidden.split(size), targets.split(size), strict=True):
        logits = head.projection(some).float() * head.scale
        losses.append(torch.logsumexp(logits, dim=-1) - logits.gather(-1, wanted[:, None]).squeeze(-1))
    return torch.cat(losses)


def pieces(name: str, engine: TransformersEngine, texts: Sequence[ScoredText], repeats: int) -> None:
    """Score texts with the log-softmax in pieces and in one, and print a line."""
    in_pieces, spent, found = network.token_losses, {True: 0.0, False: 0.0}, {}
    for repeat in range(-1, repeats):  # once without being measured
        for way in (True, False):
            network.token_losses = in_pieces if way else losses_in_one
            seconds, found[way] = cell(engine, None, texts)
            spent[way] += seconds * (repeat >= 0)
    network.token_losses = in_pieces
    assert found[True] == found[False], "likelihoods differ"
    print(
        f"| {name}, log-softmax in pieces | | | | {repeats} × {sum(len(one.tokens) for one in texts):,} | "
        f"{spent[False]:.1f} | {spent[True]:.1f} | {spent[False] / spent[True]:.2f} | {os.getloadavg()[0]:.1f} |",
        flush=True,
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, nargs="?")
    parser.add_argument("-d", "--data", type=Path, default=demo_corpus_path())
    parser.add_argument("--questions", type=int, default=1)
    parser.add_argument("--controls", type=int, default=1)
    parser.add_argument("--dtypes", nargs="+", default=["float32"])
    parser.add_argument("--mask", type=Path, help="a mask of this model, in place of one of these questions")
    parser.add_argument(
        "--parts", type=int, default=2, choices=(0, 1, 2), help="1: no map of the upper half; 0: no map"
    )
    parser.add_argument("--repeats", type=int, default=3, help="of scoring with the log-softmax in pieces")
    parser.add_argument("--tiny", action="store_true")
    given = parser.parse_args(arguments)
    corpus = read_corpus(given.data)
    torch.set_num_threads(1)
    print(f"{platform.machine()}, 1 thread, torch {torch.__version__}\n")
    print("| map | first layers of the rows | kept | layers saved | tokens | s, whole | s, reused | ratio | load |")
    print("|---|---|---|---:|---:|---:|---:|---:|---:|", flush=True)
    for dtype in given.dtypes:
        path = given.model or demo_model_path()
        engine = random_model() if given.tiny else TransformersEngine.load(path, device="cpu", dtype=dtype)
        name = f"{'random' if given.tiny else path.name}, {engine.model.dtype}"
        if given.mask is None:
            languages = corpus.languages
            masks, activity = found_masks(engine, corpus, given.questions)
        else:
            mask = Mask.load(given.mask)
            languages, masks, activity = mask.languages, mask.tensor, None
        texts = {
            code: encode_texts(
                corpus.of_language(code)[: given.questions], engine.tokenizer, text="instruction", max_length=4096
            )
            for code in languages
        }
        if given.repeats:
            pieces(name, engine, [text for some in texts.values() for text in some], given.repeats)
        for which, first in (("its masks", 0), ("their upper half", engine.model.layers // 2))[: given.parts]:
            conditions = conditions_of(masks, activity, controls=given.controls, first=first)
            row(f"{name}, {which}", engine, conditions, texts)
        engine.close()


if __name__ == "__main__":
    main()
