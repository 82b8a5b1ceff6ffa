"""How often the intervals of `lna stability` hold the truth, over corpora simulated from a truth that is known.

    python benchmarks/stability_coverage.py [--corpora 400] [--draws 100] [--splits 25] [--neurons 12000] [--blocks 20]
    python benchmarks/stability_coverage.py --tokens 1500 --correlation 0.002 [--shared 0.2]

Left to itself it prints the two tables of docs/concepts/stability.md; with --tokens, the rows of that one case. Every
corpus has another truth: so many of Mistral-7B's neurons, drawn anew. With one truth for all, one neuron near a
threshold of it would decide how often the interval holds.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch

from language_neurons_alignment.config import Selection, SweepRange
from language_neurons_alignment.core.counts import AnswerBlocks, activation_probability
from language_neurons_alignment.core.find import find
from language_neurons_alignment.core.selection import lowest, neuron_statistics, rank_of_share, score
from language_neurons_alignment.core.stability import (
    STATES,
    inclusion,
    number_interval,
    numbers,
    probability_interval,
    split_halves,
)
from language_neurons_alignment.languages import DEFAULT_LANGUAGES
from language_neurons_alignment.store.counts import load_answer_counts
from language_neurons_alignment.store.layout import Layout

TOP_RATE, BAR = 0.01, 0.95
MODEL = "Mistral-de76d14562b1da1ba0e52d5b245cf9c0859e2af3"
NUMBERS = ("λ*", "τ", *STATES, "masks", "layers")
"""Of `numbers`; the last two are means over languages and over cells of layer and class."""
LAYERS = 4
BANDS = (0.0, 0.002, 0.01, 0.1, 0.5, 0.9, 1.0)
DEFAULTS = {"corpora": 400, "draws": 100, "splits": 25, "neurons": 12_000, "blocks": 20, "seed": 0}
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
OF_NUMBERS = (Case(1500, 0.002), Case(1500, 0.002, 0.2), Case(16_000, 0.001, 0.2))


def simulated(truth: np.ndarray, tokens: np.ndarray, case: Case, *, draw: np.random.Generator) -> AnswerBlocks:
    """One corpus: in each block a neuron has a p of its own, with variance correlation · p (1 − p), and fires by it.

    Args:
        truth: p [layer, neuron, lang].
        tokens: of each block [block, lang].
        case: how p varies: by the beta distribution, or, where neurons share noise, the rarer of firing and not firing
            by the log-normal one. Both have p as their mean; the normal distribution, cut at 0, has not.
        draw: where chance comes from.
    """
    size = (len(tokens), *truth.shape)
    if case.shared:
        common = draw.standard_normal((len(tokens), 1, 1, truth.shape[-1]))
        noise = case.shared**0.5 * common + (1 - case.shared) ** 0.5 * draw.standard_normal(size)
        rarer = np.clip(np.minimum(truth, 1 - truth), 1e-12, None)
        variance = np.log1p(case.correlation * (1 - rarer) / rarer)
        drawn = rarer * np.exp(np.sqrt(variance) * np.where(truth > 0.5, -noise, noise) - variance / 2)
        here = np.clip(np.where(truth > 0.5, 1 - drawn, drawn), 0, 1)
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


def number_row(population: np.ndarray, case: Case, given: argparse.Namespace) -> list[float]:
    """How often an interval holds the number of the endless corpus [%]."""
    draw = np.random.default_rng(given.seed)
    held = []
    for corpus in range(given.corpora):
        truth, how = a_model(population, draw.choice(len(population), given.neurons, replace=False))
        blocks = simulated(truth, np.full((given.blocks, truth.shape[-1]), case.tokens), case, draw=draw)
        again = {"languages": DEFAULT_LANGUAGES, "seed": given.seed + corpus}
        drawn = inclusion(blocks, how, draws=given.draws, **again).numbers
        endless = split_halves(blocks, how, splits=given.splits, **again).endless
        ends = number_interval(numbers(find(blocks.probability(), how), how), drawn, endless, blocks=given.blocks)
        held.append(ends.holds(numbers(find(torch.from_numpy(truth).to(torch.float32), how), how)))
    often = 100 * torch.stack(held).double().mean(dim=0)
    classes, masks = 2 + len(STATES), 2 + len(STATES) + len(DEFAULT_LANGUAGES)
    return [*often[:classes].tolist(), float(often[classes:masks].mean()), float(often[masks:].mean())]


def a_model(population: np.ndarray, chosen: np.ndarray) -> tuple[np.ndarray, Selection]:
    """Some of the neurons as a model: the p of those that matter, and how they are found.

    A neuron far from τ in every language, whose score is far from the lowest whatever λ, is in no class in any corpus.
    Leaving it out and counting it in the ranks gives the same neurons several times faster.

    Args:
        population: p [neuron, lang].
        chosen: positions in it.
    """
    p = population[chosen]
    statistics = neuron_statistics(torch.from_numpy(p).to(torch.float32).unsqueeze(0), bar=BAR)
    selected = rank_of_share(TOP_RATE, len(p), "top_rate")
    matters = p.max(axis=1) > statistics.threshold - 0.08
    for lam in np.linspace(0, 0.3, 7):
        scores = score(statistics.entropy, statistics.peak, lam=float(lam))
        matters |= lowest(scores, count=5 * selected).flatten().numpy()
    others = np.flatnonzero(~matters)[: -int(matters.sum()) % LAYERS]  # so that layers have one size
    kept = np.sort(np.concatenate([np.flatnonzero(matters), others]))
    below = rank_of_share(BAR, p.size, "bar") - p[0].size * (len(p) - len(kept))
    how = Selection(selected / len(kept), lam=None, bar=below / p[kept].size, search=SweepRange(0.0, 1.0))
    return p[kept].reshape(LAYERS, -1, p.shape[1]), how


def real_probabilities(folder: Path) -> np.ndarray:
    """Where truths are drawn from: p of all of Mistral-7B's neurons [neuron, lang]."""
    counts = load_answer_counts(Layout(folder, "mgsm", MODEL), DEFAULT_LANGUAGES)
    p = activation_probability(counts.counts, tokens=counts.tokens)
    return p.flatten(0, 1).double().clamp(0, 1).numpy()


def header(title: str, columns: Sequence[str]) -> None:
    """Print a table's head."""
    print("|".join(("", f" {title} ", *(f" {name} " for name in columns), "")))
    print(f"|---|{'---:|' * len(columns)}")


def line(title: str, shares: Sequence[float]) -> None:
    """Print a table's row as soon as it is there."""
    print("|".join(("", f" {title} ", *(f" {share:.1f} " for share in shares), "")), flush=True)


def main() -> None:
    """Simulate and print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    here = Path(__file__).resolve().parents[2] / "shared/reference/mistral-7b-mgsm"
    parser.add_argument("--counts", type=Path, default=here, help="folder that holds activations/mgsm")
    for name, default in DEFAULTS.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--tokens", type=int, help="in a block")
    parser.add_argument("--correlation", type=float, default=0.002, help="of tokens of one block")
    parser.add_argument("--shared", type=float, default=0.0, help="correlation of neurons in one block")
    given = parser.parse_args()
    case = () if given.tokens is None else (Case(given.tokens, given.correlation, given.shared),)
    header("interval of p holds p [%]", ("all", *(f"{low:g}–{high:g}" for low, high in pairwise(BANDS))))
    for one in case or OF_PROBABILITIES:
        line(str(one), probability_row(one, blocks=given.blocks, seed=given.seed))
    if not given.counts.is_dir():
        print(f"\nstability_coverage: no real counts at {given.counts}, so no numbers from them; give --counts")
        return
    population = real_probabilities(given.counts)
    print(f"\n{given.neurons:,} neurons, {given.blocks} blocks; {given.corpora} corpora\n")
    header("interval of a number holds the endless corpus's [%]", NUMBERS)
    for one in case or OF_NUMBERS:
        line(str(one), number_row(population, one, given))


if __name__ == "__main__":
    main()
