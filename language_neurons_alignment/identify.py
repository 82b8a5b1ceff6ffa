"""Step 3: from counts to probabilities, language neurons and masks (SPEC 3, 5)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from .config import ENTROPY_LAMBDA, EQUAL_N, LAPE, MEAN_DIFFERENCE, Selection
from .core.methods import effect_size, equal_n, lape, mean_difference, random_anywhere, random_like
from .core.selection import NeuronClasses, NeuronStatistics, appear, classify, language_mask, rank_of_share, select
from .errors import SettingsError
from .store.counts import AnswerCounts, answer_moments, load_answer_counts
from .store.layout import Layout
from .store.masks import MaskDescription, save_mask
from .version import __version__

# ── The masks of the methods other than entropy-λ: what each reads, and what `core.identifiers` makes of it.


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
    if selection.method == LAPE:
        return MethodMask(lape(statistics, top_rate=selection.top_rate))
    if selection.method == EQUAL_N:
        assert selection.neurons is not None  # Selection gives equal-n its default
        return MethodMask(equal_n(statistics, neurons=selection.neurons), {"neurons": selection.neurons})
    if selection.method == MEAN_DIFFERENCE:
        return _by_mean_difference(layout, languages, selection)
    return _at_random(statistics, selection)


def _by_mean_difference(layout: Layout, languages: Sequence[str], selection: Selection) -> MethodMask:
    """N neurons a language, or an equal part of the top rate's."""
    moments = {language: answer_moments(layout, language) for language in languages}
    mean, variance = (
        torch.stack([getattr(one, name) for one in moments.values()], dim=-1) for name in ("mean", "variance")
    )
    effect = effect_size(mean, variance)
    neurons = selection.neurons or rank_of_share(selection.top_rate / len(languages), mean[..., 0].numel(), "top_rate")
    digests = {language: one.digest for language, one in moments.items()}
    return MethodMask(mean_difference(effect, neurons=neurons), {"neurons": neurons}, digests)


def _at_random(statistics: NeuronStatistics, selection: Selection) -> MethodMask:
    """N neurons a language from anywhere, or as many in each layer as the entropy-λ mask of the same rates has."""
    layers, d_mlp, languages = statistics.member.shape
    neurons, seed = selection.neurons, selection.seed
    if neurons is not None:
        if neurons > layers * d_mlp:
            raise SettingsError(f"--neurons {neurons} is more than the {layers * d_mlp} that the model has: give fewer")
        mask = random_anywhere(layers, d_mlp, languages=languages, neurons=neurons, seed=seed)
        return MethodMask(mask, {"neurons": neurons, "seed": seed})
    assert selection.lam is not None  # find_neurons has checked it
    taken = language_mask(statistics, select(statistics, top_rate=selection.top_rate, lam=selection.lam))
    return MethodMask(random_like(taken.sum(dim=1), d_mlp=d_mlp, seed=seed), {"seed": seed})


@dataclass(frozen=True)
class Identification:
    """Language neurons, found.

    Attributes:
        statistics: of every neuron.
        selected: the neurons of lowest score; of other methods than entropy-λ and LAPE, those of any language.
        mask: the neurons that belong to each language.
        classes: the paper's classes.
        description: everything about it in plain values, as stored beside the mask.
        path: the mask file, whether it is written or not.
    """

    statistics: NeuronStatistics
    selected: Bool[Tensor, "layer neuron"]
    mask: Bool[Tensor, "layer neuron lang"]
    classes: NeuronClasses
    description: MaskDescription
    path: Path


def identify(
    layout: Layout, languages: Sequence[str], selection: Selection, *, overwrite: bool = False
) -> Identification:
    """Find the language neurons and store their masks.

    Raises:
        ConflictError: a mask made from other counts, or with another bar, stands there, and not `overwrite`.
        SettingsError, MissingArtifactError, ArtifactError, IncompatibleError: as the steps it is made of.
    """
    found = find_neurons(layout, load_answer_counts(layout, languages), selection)
    save_mask(found.path, found.mask, found.description, overwrite=overwrite)
    return found


def find_neurons(layout: Layout, counts: AnswerCounts, selection: Selection) -> Identification:
    """Find the language neurons in counts at hand, by the selection's method; nothing is written.

    Raises:
        SettingsError: rates that name no neuron, or no λ.
        MissingArtifactError, IncompatibleError: mean-difference without moments, or with those of another model.
    """
    selection.check_lambda()
    languages, bar = counts.languages, selection.known_bar
    statistics = counts.statistics(bar=bar)
    found, selected, above = _neurons(layout, languages, statistics, selection)
    classes = classify(above, selected, languages=len(languages))
    classes = replace(classes, general=statistics.general & (len(languages) > 1))
    layers, d_mlp = selected.shape
    description = MaskDescription(
        languages=list(languages),
        top_rate=float(selection.top_rate) if selection.has_rate else float(selected.double().mean()),
        lam=None if selection.lam is None else float(selection.lam),
        bar=float(bar),
        threshold=statistics.threshold,
        appear=appear(above, selected, languages=len(languages)).tolist(),
        classes=classes.sizes(),
        neurons=dict(zip(languages, found.mask.sum(dim=(0, 1)).tolist(), strict=True)),
        layers=layers,
        d_mlp=d_mlp,
        counts=counts.hashes,
        config_hash=counts.config_hash,
        weights_hash=counts.weights_hash,
        version=__version__,
        method=selection.method,
        parameters=found.parameters,
        moments=found.moments,
    )
    path = layout.by(selection).mask(selection.top_rate, selection.lam)
    return Identification(statistics, selected, found.mask, classes, description, path)


def _neurons(
    layout: Layout, languages: Sequence[str], statistics: NeuronStatistics, selection: Selection
) -> tuple[MethodMask, Bool[Tensor, "layer neuron"], Int[Tensor, "layer neuron"]]:
    """The mask, the selected neurons, and N, which decides a selected neuron's class.

    N is the number of languages in which the neuron is above τ. The other methods do not all ask for that (random for
    nothing), so theirs is the number of languages whose mask the neuron is in; for LAPE that is the same.
    """
    if selection.method == ENTROPY_LAMBDA:
        assert selection.lam is not None  # find_neurons has checked it
        selected = select(statistics, top_rate=selection.top_rate, lam=selection.lam)
        return MethodMask(language_mask(statistics, selected)), selected, statistics.languages_above
    found = method_mask(layout, languages, statistics, selection)
    return found, found.mask.any(dim=-1), found.mask.sum(dim=-1)
