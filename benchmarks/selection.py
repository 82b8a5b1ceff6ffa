"""Scoring, selecting and sweeping on real counts, against a loop over neurons of the same definition.

    python benchmarks/selection.py [--counts ../shared/reference/mistral-7b-mgsm]

Everything is measured in one run; what counts is the ratio.
"""

from __future__ import annotations

import argparse
import math
import platform
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch

from language_neurons_alignment.core.counts import activation_probability
from language_neurons_alignment.core.selection import appear, neuron_statistics, select
from language_neurons_alignment.core.sweep import bisect_lambda, exact_lambda
from language_neurons_alignment.languages import DEFAULT_LANGUAGES
from language_neurons_alignment.store.counts import AnswerCounts, load_answer_counts
from language_neurons_alignment.store.layout import Layout

TOP_RATE, LAM, BAR = 0.01, 0.109375, 0.95
MODEL = "Mistral-de76d14562b1da1ba0e52d5b245cf9c0859e2af3"


def vectorised(counts: AnswerCounts) -> list[int]:
    """From counts to the histogram, as the package does it."""
    statistics = neuron_statistics(activation_probability(counts.counts, tokens=counts.tokens), bar=BAR)
    selected = select(statistics, top_rate=TOP_RATE, lam=LAM)
    return appear(statistics.languages_above, selected, languages=len(counts.languages)).tolist()


def loop(rows: list[list[int]], tokens: list[int]) -> list[int]:
    """The same, neuron by neuron."""
    k = len(tokens)
    m = sum(1 / j for j in range(1, k + 1)) / k
    probabilities, scores = [], []
    for row in rows:
        p = [count / max(total, 1) for count, total in zip(row, tokens, strict=True)]
        total = sum(p)
        q = [value / total for value in p] if total else [1 / k] * k
        entropy = -sum(value * math.log(value) for value in q if value > 0) / math.log(k)
        probabilities.append(p)
        scores.append(entropy - LAM * max(p) / m)
    flat = sorted(value for p in probabilities for value in p)
    threshold = flat[round(BAR * len(flat)) - 1]
    order = sorted(range(len(scores)), key=lambda i: scores[i])[: round(TOP_RATE * len(scores))]
    histogram = [0] * (k + 1)
    for i in order:
        histogram[sum(value > threshold for value in probabilities[i])] += 1
    return histogram


def tensor_loop(probability: torch.Tensor) -> list[float]:
    """The scores alone, neuron by neuron with a tensor per neuron: the loop that one writes first."""
    k = probability.shape[-1]
    m = sum(1 / j for j in range(1, k + 1)) / k
    scores = []
    for row in probability.double().flatten(0, 1):
        total = row.sum()
        q = row / total if total > 0 else torch.full_like(row, 1 / k)
        entropy = torch.special.entr(q).sum() / math.log(k)
        scores.append(float(entropy - LAM * row.max() / m))
    return scores


def seconds(work: Callable[[], object], *, runs: int) -> float:
    """Median wall time."""
    taken = []
    for _ in range(runs):
        start = time.perf_counter()
        work()
        taken.append(time.perf_counter() - start)
    return median(taken)


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    here = Path(__file__).resolve().parents[2] / "shared/reference/mistral-7b-mgsm"
    parser.add_argument("--counts", type=Path, default=here, help="folder that holds activations/mgsm")
    folder = parser.parse_args().counts
    if not folder.is_dir():
        print(f"selection: no real counts at {folder}; give --counts")
        return
    counts = load_answer_counts(Layout(folder, "mgsm", MODEL), DEFAULT_LANGUAGES)
    rows, tokens = counts.counts.flatten(0, 1).tolist(), counts.tokens.tolist()
    if vectorised(counts) != loop(rows, tokens):
        raise SystemExit("the two ways disagree")
    slow = seconds(lambda: loop(rows, tokens), runs=1)
    probability = activation_probability(counts.counts, tokens=counts.tokens)
    tensors = seconds(lambda: tensor_loop(probability), runs=1)
    fast = seconds(lambda: vectorised(counts), runs=7)
    statistics = neuron_statistics(activation_probability(counts.counts, tokens=counts.tokens), bar=BAR)
    again = seconds(lambda: select(statistics, top_rate=TOP_RATE, lam=LAM), runs=7)
    bisection = seconds(lambda: bisect_lambda(statistics, top_rate=TOP_RATE, lo=0, hi=0.2, eps=1e-3), runs=3)
    exact = seconds(lambda: exact_lambda(statistics, top_rate=TOP_RATE, lo=0, hi=0.2), runs=3)
    print(
        f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}, "
        f"{counts.counts.shape[0]} × {counts.counts.shape[1]} neurons × {len(tokens)} languages\n"
    )
    print("| what | seconds | loop with tensors / this | loop with floats / this |")
    print("|---|---:|---:|---:|")
    for name, taken in (
        ("loop over neurons, a tensor each: scores alone", tensors),
        ("loop over neurons, Python floats: score, select, histogram", slow),
        ("vectorised: the same, from counts", fast),
        ("one more λ, statistics at hand", again),
        ("whole bisection, 10 evaluations, statistics at hand", bisection),
        ("whole exact sweep, statistics at hand", exact),
    ):
        print(f"| {name} | {taken:.3f} | {tensors / taken:.0f} | {slow / taken:.0f} |")


if __name__ == "__main__":
    main()
