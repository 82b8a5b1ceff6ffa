"""Stability on synthetic counts of a 7B model's shape: seconds, memory, and what one more resampling costs.

python benchmarks/stability.py [--draws 20] [--shape 32 14336 10 20]
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Callable

import torch

from language_neurons_alignment.config import Selection, SweepRange
from language_neurons_alignment.core.counts import AnswerBlocks
from language_neurons_alignment.core.find import find
from language_neurons_alignment.core.stability import inclusion, probability_interval, split_halves

FIND = Selection(top_rate=0.01, bar=0.95, lam=None, search=SweepRange(0.0, 5.0))


def synthetic(layers: int, d_mlp: int, languages: int, blocks: int) -> AnswerBlocks:
    """Counts of neurons most of which hardly fire, some in one language and some in all."""
    generator = torch.Generator().manual_seed(0)
    common = torch.rand(1, 1, layers, d_mlp, generator=generator).pow(4)
    own = torch.rand(1, languages, layers, d_mlp, generator=generator).pow(12)
    counts = torch.empty(blocks, languages, layers, d_mlp)
    for block in counts:
        block.copy_((common + own)[0].clamp(max=0.95) * (0.9 + 0.2 * torch.rand(block.shape, generator=generator)))
        block.mul_(15_000).round_().clamp_(max=15_000)
    return AnswerBlocks(counts, torch.full((blocks, languages), 15_000))


def seconds(work: Callable[[], object]) -> float:
    """Wall time of one call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=20)
    parser.add_argument("--shape", type=int, nargs=4, default=(32, 14336, 10, 20), metavar="N")
    given = parser.parse_args()
    layers, d_mlp, languages, blocks = given.shape
    counts = synthetic(layers, d_mlp, languages, blocks)
    codes = [str(k) for k in range(languages)]
    whole = seconds(lambda: find(counts.probability(), FIND))
    draws = seconds(lambda: inclusion(counts, FIND, languages=codes, draws=given.draws)) / given.draws
    halves = seconds(lambda: split_halves(counts, FIND, languages=codes, splits=3)) / 3
    intervals = seconds(lambda: probability_interval(counts))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{layers} × {d_mlp} neurons × {languages} languages × {blocks} blocks, {torch.get_num_threads()} threads\n")
    print("| what | seconds | of one identification |")
    print("|---|---:|---:|")
    for name, taken in (
        ("one identification, λ found exactly", whole),
        ("one resampling", draws),
        ("one split into halves and quarters", halves),
        ("all intervals of p", intervals),
        ("400 resamplings and 50 splits", 400 * draws + 50 * halves),
    ):
        print(f"| {name} | {taken:.2f} | {taken / whole:.1f} |")
    print(f"\npeak memory {peak:.2f} GiB")


if __name__ == "__main__":
    main()
