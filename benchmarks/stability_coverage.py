"""How often the intervals of `lna stability` hold the truth, over corpora simulated from a truth that is known.

    python benchmarks/stability_coverage.py [--corpora 70] [--draws 60] [--neurons 12000] [--blocks 20] [--seed 0]
    python benchmarks/stability_coverage.py --tokens 1500 --correlation 0.002 [--shared 0.2]

Left to itself it prints the two tables of docs/concepts/stability.md; with --tokens, the rows of that one case.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch

from language_neurons_alignment.config import DEFAULT_LANGUAGES
from language_neurons_alignment.core.blocks import AnswerBlocks
from language_neurons_alignment.core.inclusion import inclusion, number_interval
from language_neurons_alignment.core.probability import activation_probability
from language_neurons_alignment.core.probability_interval import probability_interval
from language_neurons_alignment.core.procedure import Procedure
from language_neurons_alignment.identify import load_answer_counts
from language_neurons_alignment.store.layout import Layout

FIND = Procedure(top_rate=0.01, bar=0.95, lam=None, lo=0.0, hi=1.0)
MODEL = "Mistral-de76d14562b1da1ba0e52d5b245cf9c0859e2af3"
NUMBERS = ("λ*", "τ", "specific", "related", "general")
"""The first of `Found.numbers`."""
LAYERS = 4
BANDS = (0.0, 0.002, 0.01, 0.1, 0.5, 0.9, 1.0)
MADE_UP = 40_000
"""Neurons with p between 0.001 and 0.99, their logits uniform."""


@dataclass(frozen=True)
class Case:
    """A kind of corpus.

    Attributes:
        tokens: in a block.
        correlation: of a neuron's firing on two tokens of one block.
        shared: of the noise of two neurons in one block.
    """

    tokens: int
    correlation: float
    shared: float = 0.0

    def __str__(self) -> str:
        together = f", neurons correlated {self.shared:g}" if self.shared else ""
        return f"{self.tokens:,} tokens a block, correlation {self.correlation:g}{together}"


OF_PROBABILITIES = (Case(1500, 0.002), Case(16_000, 0.002), Case(300, 0.0002), Case(1500, 0.02))
OF_NUMBERS = (Case(1500, 0.002), Case(16_000, 0.001, 0.2))


def simulated(truth: np.ndarray, tokens: np.ndarray, case: Case, *, draw: np.random.Generator) -> AnswerBlocks:
    """One corpus: in each block a neuron has a p of its own, with variance correlation · p (1 − p), and fires by it.

    Args:
        truth: p [layer, neuron, lang].
        tokens: of each block [block, lang].
        case: how p varies: by the beta distribution, or, where neurons share noise, by the normal one cut at 0 and 1.
        draw: where chance comes from.
    """
    size = (len(tokens), *truth.shape)
    if case.shared:
        common = draw.standard_normal((len(tokens), 1, 1, truth.shape[-1]))
        noise = case.shared**0.5 * common + (1 - case.shared) ** 0.5 * draw.standard_normal(size)
        here = np.clip(truth + np.sqrt(case.correlation * truth * (1 - truth)) * noise, 0, 1)
    else:
        spread = 1 / case.correlation - 1
        here = draw.beta(np.maximum(truth * spread, 1e-12), np.maximum((1 - truth) * spread, 1e-12), size=size)
    counts = torch.from_numpy(draw.binomial(tokens[:, None, None, :], here).astype(np.float32))
    return AnswerBlocks(counts.permute(0, 3, 1, 2).contiguous(), torch.from_numpy(tokens))


def probability_row(case: Case, *, blocks: int, seed: int) -> list[float]:
    """How often p lies in its interval [%]: of all neurons, and band by band of p. Blocks are of unequal length."""
    draw = np.random.default_rng(seed)
    truth = 1 / (1 + np.exp(-draw.uniform(-7, 5, (1, MADE_UP, 1))))
    tokens = draw.integers(case.tokens // 2, case.tokens * 3 // 2, (blocks, 1))
    p = torch.from_numpy(truth)
    held = probability_interval(simulated(truth, tokens, case, draw=draw)).holds(p)
    bands = [(p >= low) & (p < high) for low, high in pairwise(BANDS)]
    return [100 * float(held[band].double().mean()) for band in (torch.ones_like(held), *bands)]


def number_rows(truth: np.ndarray, case: Case, given: argparse.Namespace) -> tuple[list[float], list[float]]:
    """How often an interval holds the mean of all simulated corpora, and the number of the endless one [%]."""
    draw = np.random.default_rng(given.seed)
    tokens = np.full((given.blocks, truth.shape[-1]), case.tokens)
    found, low, high = [], [], []
    for corpus in range(given.corpora):
        blocks = simulated(truth, tokens, case, draw=draw)
        again = inclusion(blocks, FIND, languages=DEFAULT_LANGUAGES, draws=given.draws, seed=given.seed + corpus)
        found.append(FIND(blocks.probability()).numbers)
        ends = number_interval(found[-1], again.numbers, blocks=given.blocks)
        low.append(ends.low)
        high.append(ends.high)
    endless = FIND(torch.from_numpy(truth).to(torch.float32)).numbers
    ends = torch.stack(low), torch.stack(high)
    held = [(ends[0] <= value) & (value <= ends[1]) for value in (torch.stack(found).nanmean(dim=0), endless)]
    mean, truly = ((100 * one.double().mean(dim=0))[: len(NUMBERS)].tolist() for one in held)
    return mean, truly


def real_probabilities(folder: Path, *, neurons: int, seed: int) -> np.ndarray:
    """The truth that corpora are simulated from: so many of Mistral-7B's neurons, in a few layers."""
    counts = load_answer_counts(Layout(folder, "mgsm", MODEL), DEFAULT_LANGUAGES)
    p = activation_probability(counts.counts, tokens=counts.tokens).flatten(0, 1).double().clamp(0, 1).numpy()
    chosen = np.random.default_rng(seed).choice(len(p), neurons - neurons % LAYERS, replace=False)
    return p[chosen].reshape(LAYERS, -1, len(DEFAULT_LANGUAGES))


def header(title: str, columns: Sequence[str]) -> None:
    """Print a table's head."""
    print("|".join(("", f" {title} ", *(f" {name} " for name in columns), "")))
    print(f"|---|{'---:|' * len(columns)}")


def line(title: str, shares: Sequence[float], *, digits: int) -> None:
    """Print a table's row as soon as it is there."""
    print("|".join(("", f" {title} ", *(f" {share:.{digits}f} " for share in shares), "")), flush=True)


def main() -> None:
    """Simulate and print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    here = Path(__file__).resolve().parents[2] / "shared/reference/mistral-7b-mgsm"
    parser.add_argument("--counts", type=Path, default=here, help="folder that holds activations/mgsm")
    for name, default in (("corpora", 70), ("draws", 60), ("neurons", 12_000), ("blocks", 20), ("seed", 0)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--tokens", type=int, help="in a block")
    parser.add_argument("--correlation", type=float, default=0.002, help="of tokens of one block")
    parser.add_argument("--shared", type=float, default=0.0, help="correlation of neurons in one block")
    given = parser.parse_args()
    case = () if given.tokens is None else (Case(given.tokens, given.correlation, given.shared),)
    header("interval of p holds p [%]", ("all", *(f"{low:g}–{high:g}" for low, high in pairwise(BANDS))))
    for one in case or OF_PROBABILITIES:
        line(str(one), probability_row(one, blocks=given.blocks, seed=given.seed), digits=1)
    if not given.counts.is_dir():
        print(f"\nstability_coverage: no real counts at {given.counts}, so no numbers from them; give --counts")
        return
    truth = real_probabilities(given.counts, neurons=given.neurons, seed=given.seed)
    print(f"\n{given.neurons:,} neurons, {given.blocks} blocks, {given.corpora} corpora, {given.draws} resamplings\n")
    header("interval of a number holds [%]", NUMBERS)
    for one in case or OF_NUMBERS:
        for what, row in zip(("mean of such corpora", "endless corpus"), number_rows(truth, one, given), strict=True):
            line(f"{what}: {one}", row, digits=0)


if __name__ == "__main__":
    main()
