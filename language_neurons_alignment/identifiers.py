"""The masks of the methods other than entropy-λ: what each reads, and what `core.identifiers` makes of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool
from torch import Tensor

from .config import Selection
from .core.identifiers.equal_n import equal_n
from .core.identifiers.lape import lape
from .core.identifiers.mean_difference import effect_size, mean_difference
from .core.identifiers.random import random_anywhere, random_like
from .core.masks import language_mask
from .core.selection import NeuronStatistics, rank_of_share, select
from .errors import SettingsError
from .means import answer_moments
from .method import EQUAL_N, LAPE, MEAN_DIFFERENCE
from .store.layout import Layout


@dataclass(frozen=True)
class MethodMask:
    """What a method found.

    Attributes:
        mask: the neurons of each language.
        parameters: what it took beside top rate, λ and bar: "neurons" per language, "seed".
        moments: digest of each language's moments, where they were read.
    """

    mask: Bool[Tensor, "layer neuron lang"]
    parameters: dict[str, int] = field(default_factory=dict)
    moments: dict[str, str] = field(default_factory=dict)


def method_mask(
    layout: Layout, languages: Sequence[str], statistics: NeuronStatistics, selection: Selection
) -> MethodMask:
    """The language neurons by a method other than entropy-λ.

    Args:
        layout: where the moments lie that mean-difference reads.
        languages: codes, in the order of the statistics.
        statistics: of the counts, at the selection's bar.
        selection: the method and its rates.

    Raises:
        SettingsError: a top rate of less than one neuron; more random neurons than the model has.
        MissingArtifactError, IncompatibleError: mean-difference without moments, or with those of another model.
    """
    method = selection.method
    if method.name == LAPE:
        return MethodMask(lape(statistics, top_rate=selection.top_rate))
    if method.name == EQUAL_N:
        assert method.neurons is not None  # Method gives equal-n its default
        return MethodMask(equal_n(statistics, neurons=method.neurons), {"neurons": method.neurons})
    if method.name == MEAN_DIFFERENCE:
        return _by_mean_difference(layout, languages, selection)
    return _at_random(statistics, selection)


def _by_mean_difference(layout: Layout, languages: Sequence[str], selection: Selection) -> MethodMask:
    """N neurons a language, or an equal part of the top rate's."""
    moments = {language: answer_moments(layout, language) for language in languages}
    mean, variance = (
        torch.stack([getattr(one, name) for one in moments.values()], dim=-1) for name in ("mean", "variance")
    )
    effect = effect_size(mean, variance)
    neurons = selection.method.neurons or rank_of_share(
        selection.top_rate / len(languages), mean[..., 0].numel(), "top_rate"
    )
    digests = {language: one.digest for language, one in moments.items()}
    return MethodMask(mean_difference(effect, neurons=neurons), {"neurons": neurons}, digests)


def _at_random(statistics: NeuronStatistics, selection: Selection) -> MethodMask:
    """N neurons a language from anywhere, or as many in each layer as the entropy-λ mask of the same rates has."""
    layers, d_mlp, languages = statistics.member.shape
    neurons, seed = selection.method.neurons, selection.method.seed
    if neurons is not None:
        if neurons > layers * d_mlp:
            raise SettingsError(f"--neurons {neurons} is more than the {layers * d_mlp} that the model has: give fewer")
        mask = random_anywhere(layers, d_mlp, languages=languages, neurons=neurons, seed=seed)
        return MethodMask(mask, {"neurons": neurons, "seed": seed})
    assert selection.lam is not None  # Selection has checked it
    taken = language_mask(statistics, select(statistics, top_rate=selection.top_rate, lam=selection.lam))
    return MethodMask(random_like(taken.sum(dim=1), d_mlp=d_mlp, seed=seed), {"seed": seed})
