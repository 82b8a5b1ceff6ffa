"""What other batches change: counts, λ*, τ, masks and classes of a corpus counted whole, in parts and in other batches.

python benchmarks/batches.py [MODEL] [-d datasets/demo.json] [--questions 4] [--dtypes float32 bfloat16]

MODEL is a folder; without one, the demo's SmolLM2 is taken.
"""

from __future__ import annotations

import argparse
import platform
import time
from collections.abc import Callable, Sequence
from functools import reduce
from operator import add
from pathlib import Path

import torch

from language_neurons_alignment._demo import demo_corpus_path, demo_model_path
from language_neurons_alignment.config import Selection, SweepRange
from language_neurons_alignment.core.counts import LanguageCounts, activation_probability, answer_counts
from language_neurons_alignment.core.find import Found, find
from language_neurons_alignment.corpus.encode import PromptGroup, encode_groups
from language_neurons_alignment.corpus.records import read_corpus
from language_neurons_alignment.engines.transformers import TransformersEngine

FIND = Selection(top_rate=0.01, bar=0.95, lam=None, search=SweepRange(0.0, 2.0))
SHARDS = 3
OTHER = 512
"""Tokens per batch of the "other batches"; the engine's own number on a CPU is 2048."""

Corpus = dict[str, list[PromptGroup]]
Counted = dict[str, LanguageCounts]


def seconds(count: Callable[[], Counted]) -> float:
    """Processor seconds of one count: other work on the machine hardly changes them."""
    start = time.process_time()
    count()
    return time.process_time() - start


def whole(engine: TransformersEngine, corpus: Corpus) -> Counted:
    """Each language at once."""
    return {code: engine.count(groups) for code, groups in corpus.items()}


def parts(engine: TransformersEngine, corpus: Corpus, number: int) -> Counted:
    """Each language in as many shards, as `lna activation --shard` and `lna merge` do."""
    shards = {code: [groups[k::number] for k in range(number)] for code, groups in corpus.items()}
    return {code: reduce(add, (engine.count(some) for some in of_it)) for code, of_it in shards.items()}


def found(counts: Counted) -> Found:
    """The language neurons at λ*."""
    over = torch.stack([answer_counts(one.full.over_zero, one.prefix.over_zero) for one in counts.values()], dim=-1)
    tokens = torch.tensor([one.full.total_tokens - one.prefix.total_tokens for one in counts.values()])
    return find(activation_probability(over, tokens=tokens), FIND)


def row(name: str, one: Counted, other: Counted) -> str:
    """How one way of counting differs from another."""
    apart = [
        (getattr(one[code], span).over_zero - getattr(other[code], span).over_zero).abs()
        for code in one
        for span in ("full", "prefix")
    ]
    neurons = apart[0].numel()
    cells = [int((apart[2 * k] > 0).sum()) for k in range(len(one))]
    mine, theirs = found(one), found(other)
    overlap = [
        int((mine.mask[..., k] & theirs.mask[..., k]).sum())
        / max(1, int((mine.mask[..., k] | theirs.mask[..., k]).sum()))
        for k in range(len(one))
    ]
    classes = {key: (vars(mine.classes)[key] ^ vars(theirs.classes)[key]) for key in vars(mine.classes)}
    changed = int(reduce(torch.logical_or, classes.values()).sum())
    largest = max(int(one.max()) for one in apart)
    return (
        f"| {name} | {sum(cells) / len(cells) / neurons:.2%} | {largest} | {mine.lam:.4f} → {theirs.lam:.4f} | "
        f"{mine.threshold:.5f} → {theirs.threshold:.5f} | {sum(overlap) / len(overlap):.3f} ({min(overlap):.3f}) | "
        f"{changed} of {sum(theirs.classes.sizes().values())} |"
    )


def encoded(engine: TransformersEngine, path: Path, questions: int | None) -> Corpus:
    """The first questions of each language, as tokens."""
    corpus = read_corpus(path)
    return {
        code: list(encode_groups(corpus.of_language(code)[:questions], engine.tokenizer, max_length=4096).groups)
        for code in corpus.languages
    }


def measure(model: Path, dtype: str, *, path: Path, questions: int) -> list[str]:
    """The rows of one precision."""
    plain = TransformersEngine.load(model, device="cpu", dtype=dtype)
    corpus = encoded(plain, path, questions)
    base = whole(plain, corpus)
    rows = [row(f"{dtype}, {SHARDS} shards", base, parts(plain, corpus, SHARDS))]
    one = {"en": encoded(plain, path, None)["en"]}
    usual = min(seconds(lambda: whole(plain, one)) for _ in range(2))
    plain.close()
    other = TransformersEngine.load(model, device="cpu", dtype=dtype, batch_tokens=OTHER)
    rows.append(row(f"{dtype}, `--batch-tokens {OTHER}`", base, whole(other, corpus)))
    other.close()
    alone = TransformersEngine.load(model, device="cpu", dtype=dtype, batch_invariant=True)
    rows.append(row(f"{dtype}, `--batch-invariant`, in any parts", base, whole(alone, corpus)))
    invariant = min(seconds(lambda: whole(alone, one)) for _ in range(2))
    alone.close()
    tokens = sum(counts.full.total_tokens for counts in base.values())
    print(
        f"{dtype}: {tokens} tokens; {len(one['en'])} questions in English: {usual:.1f} s of processor time, with "
        f"--batch-invariant {invariant:.1f} s, ratio {invariant / usual:.2f}",
        flush=True,
    )
    return rows


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, nargs="?")
    parser.add_argument("-d", "--data", type=Path, default=demo_corpus_path())
    parser.add_argument("--questions", type=int, default=4)
    parser.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"])
    given = parser.parse_args(arguments)
    model = given.model or demo_model_path()
    torch.set_num_threads(1)
    rows = [
        line for dtype in given.dtypes for line in measure(model, dtype, path=given.data, questions=given.questions)
    ]
    print(f"\n{model.name}, {given.questions} questions in each language, {platform.machine()}, 1 thread, "
          f"torch {torch.__version__}\n")  # fmt: skip
    print("| counted | cells that differ | by at most | λ* | τ | masks' Jaccard: mean (least) | class changes |")
    print("|---|---:|---:|---|---|---:|---:|")
    print(*rows, sep="\n")


if __name__ == "__main__":
    main()
