"""What other batches change: counts, λ*, τ, masks and classes of a corpus counted whole, in parts and in other batches.

python benchmarks/batches.py [MODEL] [-d datasets/demo.json] [--questions 8] [--dtypes float32 bfloat16] [--repeats 5]

MODEL is a folder; without one, the demo's SmolLM2 is taken. `--questions 0` measures the cost of --batch-invariant
only, `--repeats 0` everything else.
"""

from __future__ import annotations

import argparse
import os
import platform
import time
from collections.abc import Sequence
from functools import reduce
from operator import add
from pathlib import Path
from statistics import median

import torch

from language_neurons_alignment._demo import demo_corpus_path, demo_model_path
from language_neurons_alignment.config import Selection, SweepRange
from language_neurons_alignment.core.counts import LanguageCounts, activation_probability, answer_counts
from language_neurons_alignment.core.find import Found, find
from language_neurons_alignment.corpus.encode import PromptGroup, encode_groups
from language_neurons_alignment.corpus.records import Corpus, read_corpus
from language_neurons_alignment.engines.transformers import TransformersEngine

FIND = Selection(top_rate=0.01, bar=0.95, lam=None, search=SweepRange(0.0, 2.0))
SHARDS = 3
OTHER = 512
"""Tokens per batch of the "other batches"; the engine's own number on a CPU is 2048."""

COST_TOKENS = 1250
"""The cost is measured on a language's first questions, as many as have so many tokens at most."""

COST_LANGUAGES = ("en", "bn")

Encoded = dict[str, list[PromptGroup]]
Counted = dict[str, LanguageCounts]


def whole(engine: TransformersEngine, corpus: Encoded) -> Counted:
    """Each language at once."""
    return {code: engine.count(groups) for code, groups in corpus.items()}


def parts(engine: TransformersEngine, corpus: Encoded, *, step: int = 1) -> Counted:
    """Each language in shards, as `lna activation --shard` and `lna merge` do; step -1 reverses each shard."""
    shards = {code: [groups[k::SHARDS][::step] for k in range(SHARDS)] for code, groups in corpus.items()}
    return {code: reduce(add, (engine.count(some) for some in of_it if some)) for code, of_it in shards.items()}


def found(counts: Counted) -> Found:
    """The language neurons at λ*."""
    over = torch.stack([answer_counts(one.full.over_zero, one.prefix.over_zero) for one in counts.values()], dim=-1)
    tokens = torch.tensor([one.full.total_tokens - one.prefix.total_tokens for one in counts.values()])
    return find(activation_probability(over, tokens=tokens), FIND)


class Differences:
    """Two tables, row by row: how one way of counting differs from another."""

    def __init__(self) -> None:
        self._jaccard: list[str] = []

    def row(self, name: str, one: Counted, other: Counted) -> None:
        """Print a row of the first table, and keep one of the second."""
        apart = torch.stack([(one[code].full.over_zero - other[code].full.over_zero).abs() for code in one])
        mine, theirs = found(one), found(other)
        both = (mine.mask & theirs.mask).sum((0, 1)).tolist()
        either = (mine.mask | theirs.mask).sum((0, 1)).tolist()
        overlap = [b / e if e else 1.0 for b, e in zip(both, either, strict=True)]
        before, after = vars(mine.classes), vars(theirs.classes)
        changed, classified = (
            int(reduce(torch.logical_or, some).sum())
            for some in ([before[key] ^ after[key] for key in before], [*before.values(), *after.values()])
        )
        print(
            f"| {name} | {int((apart > 0).sum()):,} of {apart.numel():,} ({float((apart > 0).double().mean()):.2%}) | "
            f"{int(apart.max())} | {mine.lam:.4f} → {theirs.lam:.4f} | {mine.threshold:.5f} → {theirs.threshold:.5f} | "
            f"{sum(overlap) / len(overlap):.3f} ({min(overlap):.3f}) | {changed:,} of {classified:,} |",
            flush=True,
        )
        self._jaccard.append(f"| {name} | {' | '.join(f'{value:.3f}' for value in overlap)} |")

    def print_jaccard(self, languages: Sequence[str]) -> None:
        """The second table: the masks' Jaccard index of each language."""
        print(f"\n| masks' Jaccard | {' | '.join(languages)} |\n|---|{'---:|' * len(languages)}")
        print(*self._jaccard, sep="\n", flush=True)


def encoded(engine: TransformersEngine, corpus: Corpus, questions: int) -> Encoded:
    """The first questions of each language, as tokens."""
    return {
        code: list(encode_groups(corpus.of_language(code)[:questions], engine.tokenizer, max_length=4096).groups)
        for code in corpus.languages
    }


def differences(
    model: Path,
    dtype: str,
    *,
    corpus: Corpus,
    questions: int,
    table: Differences,
    reference: tuple[str, Counted] | None,
) -> tuple[str, Counted]:
    """Print the rows of one precision; its whole counts, for the next one to be compared with."""
    plain = TransformersEngine.load(model, device="cpu", dtype=dtype)
    texts = encoded(plain, corpus, questions)
    base = whole(plain, texts)
    if reference is not None:
        table.row(f"{dtype}, against {reference[0]}", reference[1], base)
    table.row(f"{dtype}, {SHARDS} shards", base, parts(plain, texts))
    plain.close()
    other = TransformersEngine.load(model, device="cpu", dtype=dtype, batch_tokens=OTHER)
    table.row(f"{dtype}, `--batch-tokens {OTHER}`", base, whole(other, texts))
    other.close()
    alone = TransformersEngine.load(model, device="cpu", dtype=dtype, batch_invariant=True)
    exact = whole(alone, texts)
    table.row(f"{dtype}, `--batch-invariant`", base, exact)
    shards = f"{SHARDS} shards in reverse order"
    table.row(f"{dtype}, `--batch-invariant`, {shards}, against it whole", exact, parts(alone, texts, step=-1))
    alone.close()
    return dtype, base


def taken(engine: TransformersEngine, groups: Sequence[PromptGroup]) -> tuple[float, float]:
    """Processor and wall seconds of one count."""
    processor, wall = time.process_time(), time.perf_counter()
    engine.count(groups)
    return time.process_time() - processor, time.perf_counter() - wall


def cost(model: Path, dtype: str, *, corpus: Corpus, repeats: int) -> None:
    """Print how much longer --batch-invariant takes, in pairs of one count without it and one with it."""
    plain = TransformersEngine.load(model, device="cpu", dtype=dtype)
    alone = TransformersEngine.load(model, device="cpu", dtype=dtype, batch_invariant=True)
    for code in [code for code in COST_LANGUAGES if code in corpus.languages]:
        groups = encoded(plain, corpus, len(corpus.of_language(code)))[code]
        while sum(group.full_tokens for group in groups) > COST_TOKENS and len(groups) > 1:
            groups.pop()
        for engine in (plain, alone):
            engine.count(groups[:1])
        pairs = []
        for repeat in range(repeats):
            order = (plain, alone) if repeat % 2 == 0 else (alone, plain)
            pair = {engine is alone: taken(engine, groups) for engine in order}
            pairs.append((pair[False], pair[True]))
        cells = []
        for clock in (0, 1):  # processor, wall
            ratios = sorted(with_it[clock] / without[clock] for without, with_it in pairs)
            without, with_it = (min(pair[way][clock] for pair in pairs) for way in (0, 1))
            cells.append(f"{without:.2f} → {with_it:.2f} | {median(ratios):.2f} ({ratios[0]:.2f}–{ratios[-1]:.2f})")
        tokens = sum(group.full_tokens for group in groups)
        load = os.getloadavg()[0]
        print(f"| {dtype}, {code} | {len(groups)}, {tokens:,} | {cells[0]} | {cells[1]} | {load:.1f} |", flush=True)
    plain.close()
    alone.close()


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, nargs="?")
    parser.add_argument("-d", "--data", type=Path, default=demo_corpus_path())
    parser.add_argument("--questions", type=int, default=8)
    parser.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--repeats", type=int, default=5)
    given = parser.parse_args(arguments)
    model, corpus = given.model or demo_model_path(), read_corpus(given.data)
    torch.set_num_threads(1)
    print(f"{model.name}, {platform.machine()}, 1 thread, torch {torch.__version__}", flush=True)
    if given.questions:
        print(f"\nThe first {given.questions} questions in each language:\n")
        print("| counted | cells that differ | by at most | λ* | τ | masks' Jaccard: mean (least) | class changes |")
        print("|---|---:|---:|---|---|---:|---:|", flush=True)
        table, reference = Differences(), None
        try:
            for dtype in given.dtypes:
                reference = differences(
                    model, dtype, corpus=corpus, questions=given.questions, table=table, reference=reference
                )
        finally:  # also when Ctrl-C ends it: the rows printed so far
            table.print_jaccard(corpus.languages)
    if given.repeats:
        print(f"\nThe cost of --batch-invariant, {given.repeats} pairs of one count without it and one with it:\n")
        print("| | questions, tokens | processor s, least | ratio: median (range) | wall s, least "
              "| ratio: median (range) | load |")  # fmt: skip
        print("|---|---:|---:|---:|---:|---:|---:|", flush=True)
        for dtype in given.dtypes:
            cost(model, dtype, corpus=corpus, repeats=given.repeats)


if __name__ == "__main__":
    main()
