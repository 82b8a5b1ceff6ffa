"""Step 3: identify the language neurons in counts and store their mask (SPEC 3, 5).

`identify` reads the counts and writes the mask. `find_neurons` is the computation between: it takes counts in memory
and writes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Bool
from torch import Tensor

from .config import ENTROPY_LAMBDA, EQUAL_N, LAPE, MEAN_DIFFERENCE, Selection
from .core.methods import effect_size, equal_n, lape, mean_difference, random_anywhere, random_like
from .core.selection import NeuronClasses, NeuronStatistics, appear, classify, language_mask, rank_of_share, select
from .errors import SettingsError
from .store.counts import AnswerCounts, AnswerMoments, answer_moments, load_answer_counts
from .store.layout import Layout
from .store.masks import Mask, MaskDescription
from .version import __version__


@dataclass(frozen=True)
class Identification:
    """The language neurons that a method found.

    Attributes:
        statistics: of every neuron.
        selected: the neurons of lowest score; for methods other than entropy-λ and LAPE, those of any language.
        mask: the neurons that belong to each language.
        classes: the paper's classes.
        description: what the mask was made from and how, as stored beside it.
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
    """Find the language neurons and store their mask.

        found = identify(results_of("/models/Llama-3-8B", "mgsm"), ("en", "fr", "de"), Selection(0.01, 0.109375))

    Args:
        layout: where the counts lie, and the mask will.
        languages: codes, in the order of the mask file.
        selection: the method and its rates.
        overwrite: replace a mask that was made from something else.

    Raises:
        ConflictError: a mask made from other counts, or with another bar, is there, and not `overwrite`.
        SettingsError: rates that name no neuron.
        MissingArtifactError, ArtifactError, IncompatibleError: counts or moments that are not there, are damaged, or
            come from different models.
    """
    found = find_neurons(layout, load_answer_counts(layout, languages), selection)
    Mask(tuple(languages), found.mask, found.description).save(found.path, overwrite=overwrite)
    return found


def find_neurons(layout: Layout, counts: AnswerCounts, selection: Selection) -> Identification:
    """Find the language neurons in counts in memory; nothing is written.

    Entropy-λ selects the neurons of lowest score s(λ) = e − λ · r, and a selected neuron belongs to the languages in
    which it is above τ; that number, N, decides its class. The other methods do not all ask for τ (random for
    nothing), so for them N is the number of languages whose mask the neuron is in; for LAPE that is the same.

    Args:
        layout: where the moments lie, which mean-difference reads.
        counts: of all languages.
        selection: the method and its rates.

    Raises:
        SettingsError: rates that name no neuron, or more random neurons than the model has.
        MissingArtifactError, IncompatibleError: mean-difference without moments, or with those of other counts.
    """
    languages, method = counts.languages, selection.method
    moments: dict[str, AnswerMoments] = {}
    if method.name == MEAN_DIFFERENCE:
        moments = {language: answer_moments(layout, language, counts=counts) for language in languages}
    statistics = counts.statistics(bar=selection.bar)
    if method.name == ENTROPY_LAMBDA:
        selected = _select(statistics, selection)
        mask, parameters, above = language_mask(statistics, selected), {}, statistics.languages_above
    else:
        mask, parameters = _by_other_method(statistics, selection, tuple(moments.values()))
        selected, above = mask.any(dim=-1), mask.sum(dim=-1)
    classes = replace(
        classify(above, selected, languages=len(languages)), general=statistics.general & (len(languages) > 1)
    )
    layers, d_mlp = selected.shape
    description = MaskDescription(
        languages=list(languages),
        top_rate=float(selection.top_rate) if method.has_rate else float(selected.double().mean()),
        lam=None if selection.lam is None else float(selection.lam),
        bar=float(selection.bar),
        threshold=statistics.threshold,
        appear=appear(above, selected, languages=len(languages)).tolist(),
        classes=classes.sizes(),
        neurons=dict(zip(languages, mask.sum(dim=(0, 1)).tolist(), strict=True)),
        layers=layers,
        d_mlp=d_mlp,
        counts=counts.hashes,
        config_hash=counts.config_hash,
        weights_hash=counts.weights_hash,
        version=__version__,
        method=method.name,
        parameters=parameters,
        moments={language: one.digest for language, one in moments.items()},
    )
    path = layout.by(method).mask(selection.top_rate, selection.lam)
    return Identification(statistics, selected, mask, classes, description, path)


def _select(statistics: NeuronStatistics, selection: Selection) -> Bool[Tensor, "layer neuron"]:
    """The neurons of lowest score."""
    assert selection.lam is not None  # Selection has checked it
    return select(statistics, top_rate=selection.top_rate, lam=selection.lam)


def _by_other_method(
    statistics: NeuronStatistics, selection: Selection, moments: Sequence[AnswerMoments]
) -> tuple[Bool[Tensor, "layer neuron lang"], dict[str, int]]:
    """The mask by a method other than entropy-λ, and its parameters besides top rate, λ and bar."""
    method = selection.method
    layers, d_mlp, languages = statistics.member.shape
    if method.name == LAPE:
        return lape(statistics, top_rate=selection.top_rate), {}
    if method.name == EQUAL_N:
        assert method.neurons is not None  # Method gives equal-n its default
        return equal_n(statistics, neurons=method.neurons), {"neurons": method.neurons}
    if method.name == MEAN_DIFFERENCE:
        mean, variance = (torch.stack([getattr(one, name) for one in moments], dim=-1) for name in ("mean", "variance"))
        # N neurons per language, or an equal part of the top rate's
        neurons = method.neurons or rank_of_share(selection.top_rate / languages, layers * d_mlp, "top_rate")
        return mean_difference(effect_size(mean, variance), neurons=neurons), {"neurons": neurons}
    if method.neurons is None:  # random: as many in each layer as the entropy-λ mask of the same rates has
        sizes = language_mask(statistics, _select(statistics, selection)).sum(dim=1)
        return random_like(sizes, d_mlp=d_mlp, seed=method.seed), {"seed": method.seed}
    if method.neurons > layers * d_mlp:
        raise SettingsError(
            f"--neurons {method.neurons} is more than the {layers * d_mlp} that the model has: give fewer"
        )
    mask = random_anywhere(layers, d_mlp, languages=languages, neurons=method.neurons, seed=method.seed)
    return mask, {"neurons": method.neurons, "seed": method.seed}
