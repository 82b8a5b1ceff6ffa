"""Step 3: from counts to probabilities, language neurons and masks (SPEC 3, 5)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float64
from torch import Tensor

from .config import MEAN_DIFFERENCE, RANDOM, Selection
from .core.counts import activation_probability
from .core.find import Found, find
from .core.methods import effect_size
from .core.selection import appear
from .store.counts import AnswerCounts, answer_moments, load_answer_counts
from .store.layout import Layout
from .store.masks import MaskDescription, save_mask
from .version import __version__


@dataclass(frozen=True)
class Identification(Found):
    """Language neurons of a model, and the place of their mask.

    Attributes:
        description: everything about the mask in plain values, as stored beside it.
        path: the mask file, whether it is written or not.
    """

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
        SettingsError: rates that name no neuron.
        MissingArtifactError, IncompatibleError: mean-difference without moments, or with those of another model.
    """
    languages, method = counts.languages, selection.method
    effect, digests = _effects(layout, languages) if method.name == MEAN_DIFFERENCE else (None, {})
    found = find(activation_probability(counts.counts, tokens=counts.tokens), selection, effect=effect)
    layers, d_mlp = found.selected.shape
    parameters = {} if found.neurons is None else {"neurons": found.neurons}
    description = MaskDescription(
        languages=list(languages),
        top_rate=float(selection.top_rate) if method.has_rate else float(found.selected.double().mean()),
        lam=None if found.lam is None else float(found.lam),
        bar=float(selection.bar),
        threshold=found.threshold,
        appear=appear(found.above, found.selected, languages=len(languages)).tolist(),
        classes=found.classes.sizes(),
        neurons=dict(zip(languages, found.mask.sum(dim=(0, 1)).tolist(), strict=True)),
        layers=layers,
        d_mlp=d_mlp,
        counts=counts.hashes,
        config_hash=counts.config_hash,
        weights_hash=counts.weights_hash,
        version=__version__,
        method=method.name,
        parameters={**parameters, "seed": method.seed} if method.name == RANDOM else parameters,
        moments=digests,
    )
    path = layout.by(method).mask(selection.top_rate, found.lam)
    return Identification(**vars(found), description=description, path=path)


def _effects(layout: Layout, languages: Sequence[str]) -> tuple[Float64[Tensor, "layer neuron lang"], dict[str, str]]:
    """The effect sizes that mean-difference ranks neurons by, and the digest of each language's moments."""
    moments = {language: answer_moments(layout, language) for language in languages}
    mean, variance = (
        torch.stack([getattr(one, name) for one in moments.values()], dim=-1) for name in ("mean", "variance")
    )
    return effect_size(mean, variance), {language: one.digest for language, one in moments.items()}
