"""Intervals by resampling, ranges of controls, and paired tests: what an effect is held against.

An effect is measured on questions that stand for all that could have been asked, so its interval comes from drawing as
many questions again, with replacement, many times (the bootstrap; Efron and Tibshirani 1993). One set of draws serves
every cell of a map: then two cells over the same questions are compared question by question.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, Int
from scipy import stats
from torch import Tensor

from ..errors import IncompatibleError, SettingsError

LEVEL = 0.95
"""Of every interval that is shown."""
DRAWS = 2000


@dataclass(frozen=True)
class Interval:
    """Lower and upper ends, cell by cell; NaN where there is none."""

    low: Float64[Tensor, "*cell"]
    high: Float64[Tensor, "*cell"]

    def holds(self, value: Float64[Tensor, "*cell"]) -> Tensor:
        """Whether each value lies in its interval, ends included, also where they were rounded another way."""
        hair = 1e-9 * (self.low.abs() + self.high.abs())
        return (value >= self.low - hair) & (value <= self.high + hair)


def resampling_weights(items: int, *, draws: int = DRAWS, seed: int = 0) -> Float64[Tensor, "draw item"]:
    """How often each item is drawn, of `items` draws with replacement; a mean over a draw is weights @ values / items.

    Args:
        items: questions, texts or blocks.
        draws: resamplings.
        seed: the same seed gives the same draws, whatever else was drawn before.

    Raises:
        SettingsError: nothing to draw from, or no draws.
    """
    if items < 1 or draws < 1:
        raise SettingsError(f"resampling needs at least 1 item and 1 draw, got {items} items and {draws} draws")
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randint(items, (draws, items), generator=generator)
    return torch.zeros(draws, items, dtype=torch.float64).scatter_add_(
        1, drawn, torch.ones(draws, items, dtype=torch.float64)
    )


def interval(draws: Float64[Tensor, "draw *cell"], *, level: float = LEVEL) -> Interval:
    """The percentile interval: what the middle `level` of the draws spans, cell by cell."""
    tail = (1 - level) / 2
    with np.errstate(invalid="ignore"):  # between infinities there is nothing, which NaN says
        low, high = np.quantile(draws.numpy(), [tail, 1 - tail], axis=0)
    return Interval(torch.as_tensor(low), torch.as_tensor(high))


def control_range(
    effects: Float64[Tensor, "set *cell"], *, least: float | Float64[Tensor, "*cell"] = 0.0, level: float = LEVEL
) -> Interval:
    """Where the effect of one more control would lie with probability `level`, were the controls normally distributed.

        mean ± max(t(R − 1, (1 + level) / 2) · sd · √(1 + 1 / R), least)        R sets

    The smallest and the largest of a few controls span far less: one more than 5 lies outside them in 2 of 6 cases.

    Args:
        effects: of the controls.
        least: the smallest step that effects can take, 0 where they take any. Five sets in which no question turned do
            not say that none turns in a sixth: of shares, one question either way is always inside.
        level: of the range.

    Raises:
        SettingsError: fewer than two sets have no spread.
    """
    sets = effects.shape[0]
    if sets < 2:
        raise SettingsError(f"a range of controls needs at least 2 sets, got {sets}: --controls 5")
    reach = float(stats.t.ppf((1 + level) / 2, sets - 1)) * (1 + 1 / sets) ** 0.5
    middle = effects.mean(dim=0)
    around = torch.maximum(reach * effects.std(dim=0), torch.as_tensor(least, dtype=torch.float64))
    return Interval(middle - around, middle + around)


def one_question(asked: Int[Tensor, "*cell"]) -> Float64[Tensor, "*cell"]:
    """The least that a share of so many questions changes by, in percentage points."""
    return 100 / asked.double()


def mcnemar(only_before: Int[Tensor, "*cell"], only_after: Int[Tensor, "*cell"]) -> Float64[Tensor, "*cell"]:
    """The exact two-sided p of McNemar's test, cell by cell: could a fair coin have turned these questions?

        n = only_before + only_after,   p = min(1, 2 · P(Bin(n, ½) ≤ min(only_before, only_after)))        1 where n = 0

    Args:
        only_before: questions that were right before and not after.
        only_after: questions that were right after and not before.
    """
    fewer = torch.minimum(only_before, only_after)
    tail = stats.binom.cdf(fewer.numpy(), (only_before + only_after).numpy(), 0.5)
    return (2 * torch.as_tensor(tail, dtype=torch.float64)).clamp(max=1.0)


def adjusted(p: Float64[Tensor, "*cell"]) -> Float64[Tensor, "*cell"]:
    """p-values adjusted for being many: of those below a bar, that share is false at most (Benjamini–Hochberg 1995)."""
    flat = stats.false_discovery_control(p.flatten().numpy(), method="bh")
    return torch.as_tensor(flat, dtype=torch.float64).reshape(p.shape)


# ── Matched controls: random neurons that a set of neurons is held against.
#
# What many neurons do when they are changed says little, for any as many neurons do something. A control has the same
# number of neurons in each layer, which are as active, and which belong to no language.

NEAREST = 20
"""Of how many eligible neurons of the nearest activity one is drawn."""


def matched_controls(
    neurons: Bool[Tensor, "layer neuron"],
    *,
    activity: Float[Tensor, "layer neuron"] | None,
    eligible: Bool[Tensor, "layer neuron"],
    seed: int,
) -> Bool[Tensor, "layer neuron"]:
    """As many random neurons in each layer, each as active as one of `neurons`.

    In a random order, each of `neurons` takes one of the `NEAREST` eligible neurons of its layer, not taken yet, whose
    activity is nearest to its own.

    Args:
        neurons: what the control is for.
        activity: what is matched, such as the mean activation probability; None: only the layer is.
        eligible: from where it is drawn; those of `neurons` are not, whatever this says.
        seed: the same seed draws the same neurons.

    Raises:
        SettingsError: a layer has fewer eligible neurons than are needed.
    """
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.zeros_like(neurons)
    for layer in neurons.any(dim=1).nonzero().flatten().tolist():
        wanted = neurons[layer].nonzero().flatten()
        pool = (eligible[layer] & ~neurons[layer]).nonzero().flatten()
        if len(pool) < len(wanted):
            raise SettingsError(
                f"layer {layer} has {len(pool)} neurons of no language, a control of {len(wanted)} needs as many: "
                "choose fewer neurons (-r, --classes), or leave controls out (--controls 0)"
            )
        known = None if activity is None else activity[layer].double()
        drawn[layer, _draw(wanted, pool, known, generator)] = True
    return drawn


def _draw(wanted: Tensor, pool: Tensor, activity: Tensor | None, generator: torch.Generator) -> Tensor:
    """As many of `pool` as are wanted, each near in activity to one of them."""
    if activity is None:
        return pool[torch.randperm(len(pool), generator=generator)[: len(wanted)]]
    order = torch.randperm(len(pool), generator=generator)  # so that ties are broken at random, not by index
    pool = pool[order[activity[pool[order]].argsort(stable=True)]]
    levels, free, taken = activity[pool], torch.ones(len(pool), dtype=torch.bool), []
    for neuron in wanted[torch.randperm(len(wanted), generator=generator)].tolist():
        at = int(torch.searchsorted(levels, activity[neuron]))
        # among the nearest places of the sorted pool there are enough that are still free
        near = _nearest_free(free, at)
        distance = (levels[near] - activity[neuron]).abs()
        near = near[distance.argsort(stable=True)[:NEAREST]]
        chosen = int(near[torch.randint(len(near), (1,), generator=generator)])
        free[chosen] = False
        taken.append(chosen)
    return pool[torch.tensor(taken)]


def _nearest_free(free: Bool[Tensor, " place"], at: int) -> Tensor:
    """The places that are free, nearest to `at` on either side, `NEAREST` on each at most."""
    reach = NEAREST
    while True:
        low, high = max(0, at - reach), min(len(free), at + reach)
        left, right = free[low:at].nonzero().flatten() + low, free[at:high].nonzero().flatten() + at
        whole = low == 0 and high == len(free)
        if whole or ((len(left) >= NEAREST or low == 0) and (len(right) >= NEAREST or high == len(free))):
            return torch.cat([left[-NEAREST:], right[:NEAREST]])
        reach *= 2


# ── Selectivity: how much of a language is lost without its neurons, and how little of the others (LangSpec-F1).
#
#     d[t, j]      = max(base[j] − after[t, j], 0)            what language j loses without language t's neurons
#     precision[t] = d[t, t] / Σ_j d[t, j]                    share of the damage that is done to t itself
#     recall[t]    = d[t, t] / base[t]                        share of t that is lost
#     F1[t]        = 2 · precision · recall / (precision + recall)
#
# 0 where a denominator is 0: where nothing is lost, nothing is selective. Of perplexities, what is lost is likelihood per
# token, 1 / PPL.


@dataclass(frozen=True)
class Selectivity:
    """Of each language's neurons; leading axes are those that were given, such as draws."""

    precision: Float64[Tensor, "*draw lang"]
    recall: Float64[Tensor, "*draw lang"]
    f1: Float64[Tensor, "*draw lang"]


def selectivity(base: Float64[Tensor, "*draw lang"], after: Float64[Tensor, "*draw row column"]) -> Selectivity:
    """Precision, recall and F1 of the damage.

    Args:
        base: accuracy (or likelihood) of each language, undisturbed, not below 0.
        after: row t: with language t's neurons changed; column j: accuracy of language j.

    Raises:
        IncompatibleError: rows and columns are not the same languages.
    """
    languages = base.shape[-1]
    if after.shape[-2:] != (languages, languages):
        raise IncompatibleError(
            f"selectivity needs a row and a column for each of {languages} languages, got {tuple(after.shape[-2:])}"
        )
    lost = (base.unsqueeze(-2) - after).clamp(min=0)
    own = lost.diagonal(dim1=-2, dim2=-1)
    precision, recall = _ratio(own, lost.sum(dim=-1)), _ratio(own, base)
    return Selectivity(precision, recall, _ratio(2 * precision * recall, precision + recall))


def _ratio(part: Tensor, whole: Tensor) -> Tensor:
    """part / whole, 0 where whole is 0."""
    return torch.where(whole > 0, part / whole.where(whole > 0, torch.ones_like(whole)), torch.zeros_like(part))
