"""From activation probabilities to language neurons: the whole method in one call.

Every step that needs language neurons calls `find`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float32, Float64, Int
from torch import Tensor

from ..config import ENTROPY_LAMBDA, EQUAL_N, LAPE, MEAN_DIFFERENCE, Selection
from ..errors import SettingsError, SweepError
from .methods import equal_n, lape, mean_difference, random_anywhere, random_like
from .selection import (
    NeuronClasses,
    NeuronStatistics,
    classify,
    language_mask,
    neuron_statistics,
    rank_of_share,
    select,
)
from .sweep import exact_lambda, largest_fine_lambda, range_end
from .widths import Widths


@dataclass(frozen=True)
class Found:
    """Language neurons.

    Attributes:
        selected: the neurons of lowest score; for methods without a score, the neurons of any language.
        above: N, which decides the class: the number of languages in which a neuron is above τ; for other methods than
            entropy-λ, which do not all use τ, the number of languages whose mask contains it.
        classes: the paper's classes; the general neurons come from the statistics, whatever the method.
        lam: λ; None for a method without λ; NaN if no λ in the search range is fine, and then nothing is selected.
        neurons: N per language, for methods that take a number of neurons for each language.
    """

    statistics: NeuronStatistics
    selected: Bool[Tensor, "layer neuron"]
    mask: Bool[Tensor, "layer neuron lang"]
    above: Int[Tensor, "layer neuron"]
    classes: NeuronClasses
    lam: float | None
    neurons: int | None

    @property
    def threshold(self) -> float:
        """τ."""
        return self.statistics.threshold


def find(
    probability: Float32[Tensor, "layer neuron lang"],
    selection: Selection,
    *,
    effect: Float64[Tensor, "layer neuron lang"] | None = None,
    widths: Widths | None = None,
) -> Found:
    """Find the language neurons by the selection's method; without λ, by the largest fine λ in the selection's range.

    >>> p = torch.tensor([[[0.9, 0.0], [0.8, 0.7], [0.1, 0.1], [0.2, 0.6]]])  # one layer, four neurons, two languages
    >>> found = find(p, Selection(top_rate=0.5, lam=0.1, bar=0.5))
    >>> found.mask.nonzero().tolist()  # [layer, neuron, language]
    [[0, 0, 0], [0, 3, 1]]
    >>> found.classes.sizes()
    {'specific': 2, 'related': 0, 'general': 1, 'unassigned': 0}

    Mean-difference ranks neurons by `effect` (`methods.effect_size`). `widths` are those of the layers where they
    differ. SettingsError if a rate selects less than one
    neuron, or the model has fewer neurons than requested.
    """
    languages = probability.shape[-1]
    statistics = neuron_statistics(probability, bar=selection.known_bar, widths=widths)
    lam = fine_lambda(statistics, selection) if selection.lam is None and selection.has_lambda else selection.lam
    if lam is None or math.isnan(lam):
        selected = torch.zeros_like(statistics.general)
    else:
        selected = select(statistics, top_rate=selection.top_rate, lam=lam)
    mask, above, neurons = language_mask(statistics, selected), statistics.languages_above, None
    if selection.method != ENTROPY_LAMBDA:
        mask, neurons = _by_other_method(statistics, selection, effect=effect, sizes=mask.sum(dim=1))
        selected, above = mask.any(dim=-1), mask.sum(dim=-1)
    classes = classify(above, selected, languages=languages)
    classes = replace(classes, general=statistics.general & (languages > 1))
    return Found(statistics, selected, mask, above, classes, lam, neurons)


def notes_on(
    statistics: NeuronStatistics, probability: Float32[Tensor, "layer neuron lang"], languages: Sequence[str]
) -> list[str]:
    """Say where probabilities leave the method little to find: one language, silent languages, τ at one of its ends.

    >>> p = torch.tensor([[[1.0, 0.0], [1.0, 0.0]]])
    >>> for note in notes_on(neuron_statistics(p, bar=1.0), p, ("en", "sw")):
    ...     print(note)
    no neuron fires in the answers of sw
    τ = 1 and no probability is above it, so no neuron belongs to any language: lower the bar (-b)
    """
    notes = []
    if len(languages) == 1:
        notes.append(
            f"{languages[0]} is the only language, so nothing is compared: every entropy is 1, and no neuron is "
            "related or general"
        )
    fires = probability.flatten(end_dim=1).any(dim=0).tolist()
    if silent := [language for language, one in zip(languages, fires, strict=True) if not one]:
        notes.append(f"no neuron fires in the answers of {', '.join(silent)}")
    tau, above = statistics.threshold, int(statistics.member.sum())
    if not above:
        notes.append(
            f"τ = {tau:.6g} and no probability is above it, so no neuron belongs to any language: lower the bar (-b)"
        )
    elif tau >= 1:
        notes.append(
            f"τ = {tau:.6g}, the most that a probability can be, and only counting errors are above it ({above} of "
            f"{statistics.neurons * len(languages)} probabilities): lower the bar (-b)"
        )
    elif tau <= 0:
        notes.append("τ = 0, so a neuron that fires once in a language is above it: raise the bar (-b)")
    return notes


def notes_on_masks(neurons: Mapping[str, int]) -> list[str]:
    """Say which languages have no neurons, of how many each has.

    >>> notes_on_masks({"en": 3, "sw": 0}), notes_on_masks({"en": 3})
    (['no neuron belongs to sw: its mask is empty'], [])
    """
    empty = [language for language, count in neurons.items() if not count]
    if len(empty) == len(neurons):
        return ["no neuron belongs to any language: every mask is empty"]
    each = "its mask is empty" if len(empty) == 1 else "their masks are empty"
    return [f"no neuron belongs to {', '.join(empty)}: {each}"] if empty else []


def _by_other_method(
    statistics: NeuronStatistics,
    selection: Selection,
    *,
    effect: Float64[Tensor, "layer neuron lang"] | None,
    sizes: Int[Tensor, "layer lang"],
) -> tuple[Bool[Tensor, "layer neuron lang"], int | None]:
    """The mask of a method other than entropy-λ, whose mask has these `sizes`, and its N if it takes one."""
    layers, d_mlp, languages = statistics.member.shape
    neurons = selection.neurons
    if selection.method == LAPE:
        return lape(statistics, top_rate=selection.top_rate), None
    if selection.method == MEAN_DIFFERENCE:
        if effect is None:
            raise SettingsError("mean-difference needs effect sizes: give effect=effect_size(mean, variance)")
        neurons = neurons or rank_of_share(selection.top_rate / languages, statistics.neurons, "top_rate")
        return mean_difference(effect, neurons=neurons), neurons
    if neurons is None:
        return random_like(sizes, d_mlp=d_mlp, seed=selection.seed, widths=statistics.widths), None
    if selection.method == EQUAL_N:
        return equal_n(statistics, neurons=neurons), neurons
    drawn = {"languages": languages, "neurons": neurons, "seed": selection.seed, "widths": statistics.widths}
    return random_anywhere(layers, d_mlp, **drawn), neurons


def fine_lambda(statistics: NeuronStatistics, selection: Selection) -> float:
    """λ*: the largest λ in the selection's range with appear[K] = 0; NaN if there is none.

    Where the range has no given end and every λ from some point on is fine, the end that AutoSweep takes.
    """
    search, top_rate = selection.search, selection.top_rate
    if search.hi is None:
        largest = largest_fine_lambda(statistics, top_rate=top_rate, lo=search.lo)
        if math.isfinite(largest) or math.isnan(largest):
            return largest
        return range_end(statistics, top_rate=top_rate, lo=search.lo, largest=largest)
    try:
        return exact_lambda(statistics, top_rate=top_rate, lo=search.lo, hi=search.hi).lam
    except SweepError:
        return math.nan
