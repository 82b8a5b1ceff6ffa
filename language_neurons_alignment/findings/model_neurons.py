"""A model's language neurons as analysis takes them: found again from its counts, or read from a mask alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Bool
from torch import Tensor

from ..autosweep import autosweep
from ..config import DEFAULT_BAR, DEFAULT_LANGUAGES, DEFAULT_RANGE, DEFAULT_TOP_RATE, Selection, SweepRange
from ..core.class_profile import ClassMembers, class_members, mask_members
from ..core.masks import from_mask_list, to_mask_list
from ..errors import ConflictError, MissingArtifactError, SettingsError
from ..identify import Identification, find_neurons, load_answer_counts
from ..store.layout import Layout, layout_of_mask
from ..store.mask_file import REPLACE, MaskDescription, load_description, load_mask_list, refuse_other


@dataclass(frozen=True)
class Choice:
    """Which of a model's neurons are meant; what is None is told by the mask that is there.

    Attributes:
        top_rate: share of neurons selected.
        lam: λ; None: that of the one mask at this top rate, or where there is none AutoSweep's.
        bar: activation bar; None: the mask's, or the default.
        languages: codes; None: the mask's, or the default ten.
        search: where AutoSweep looks for λ.
    """

    top_rate: float = DEFAULT_TOP_RATE
    lam: float | None = None
    bar: float | None = None
    languages: tuple[str, ...] | None = None
    search: SweepRange = DEFAULT_RANGE

    def __post_init__(self) -> None:
        Selection(self.top_rate, 0.0 if self.lam is None else self.lam, DEFAULT_BAR if self.bar is None else self.bar)


DEFAULT_CHOICE = Choice()


@dataclass(frozen=True)
class ModelNeurons:
    """The language neurons of one model.

    Attributes:
        layout: where its results lie.
        description: languages, rates, and what it was made from.
        mask: the neurons that belong to each language.
        members: the classes by name; of a mask alone specific and related, for the others are not in it.
        lam_from: where λ comes from: "given", "mask" or "autosweep".
        found: the identification; None of a mask alone.
        prefix_tokens: language → tokens of its questions; empty of a mask alone.
    """

    layout: Layout
    description: MaskDescription
    mask: Bool[Tensor, "layer neuron lang"]
    members: ClassMembers
    lam_from: str
    found: Identification | None
    prefix_tokens: dict[str, int]

    @property
    def languages(self) -> tuple[str, ...]:
        """Codes, in the order of the mask's last axis."""
        return tuple(self.description.languages)


def open_neurons(layout: Layout, choice: Choice = DEFAULT_CHOICE, *, mask_only: bool = False) -> ModelNeurons:
    """The neurons that were chosen, of one model.

    Args:
        layout: where the model's results lie.
        choice: which of them.
        mask_only: read the mask file and nothing else, as of a mask that was imported.

    Raises:
        SettingsError: several masks and no λ to choose by.
        MissingArtifactError: no counts, or with `mask_only` no mask.
        ConflictError: the mask that is there was made from other counts, languages or another bar.
        SweepError, ArtifactError, IncompatibleError: as the steps it is made of.
    """
    lam = choice.lam if choice.lam is not None else _lambda_of_mask(layout, choice.top_rate)
    lam_from = "given" if choice.lam is not None else "mask"
    if mask_only:
        if lam is None:
            raise MissingArtifactError(
                f"{layout.model} has no mask of top rate {choice.top_rate!r} on {layout.dataset}: make one with "
                "`lna identify`, or bring one with `lna import-mask`"
            )
        return _from_mask(layout, layout.mask(choice.top_rate, lam), lam_from)
    described = None if lam is None else load_description(layout.mask(choice.top_rate, lam))
    languages = choice.languages or (tuple(described.languages) if described else DEFAULT_LANGUAGES)
    bar = choice.bar or (described.bar if described else None) or DEFAULT_BAR
    if lam is None:
        lam_from = "autosweep"
        lam = autosweep(layout, languages, top_rate=choice.top_rate, bar=bar, search=choice.search).lam
    return _from_counts(layout, languages, Selection(choice.top_rate, lam, bar), lam_from)


def neurons_of_file(path: Path, *, mask_only: bool = False) -> ModelNeurons:
    """The neurons of a mask file that lies where `lna identify` puts it, with the counts that it was made from.

    Args:
        path: `…/activation_masks/<dataset>/<top_rate>-<λ>/mask.<Name>-<tag>`.
        mask_only: read the mask file and nothing else.

    Raises:
        SettingsError: it lies elsewhere.
        LNAError: as `open_neurons`.
    """
    layout, top_rate, lam = layout_of_mask(path)
    found = open_neurons(layout, Choice(top_rate, lam), mask_only=mask_only)
    return replace(found, lam_from="mask")


def _lambda_of_mask(layout: Layout, top_rate: float) -> float | None:
    """The λ of the one mask at this top rate; None where there is none."""
    found = layout.lambdas(top_rate)
    if len(found) > 1:
        raise SettingsError(
            f"{layout.model} has {len(found)} masks of top rate {top_rate!r} on {layout.dataset}, at λ "
            f"{', '.join(map(repr, found))}: choose one with -l"
        )
    return found[0] if found else None


def _from_counts(layout: Layout, languages: Sequence[str], selection: Selection, lam_from: str) -> ModelNeurons:
    counts = load_answer_counts(layout, languages)
    found = find_neurons(layout, counts, selection)
    if found.path.exists():
        _check_same(found)
    return ModelNeurons(
        layout,
        found.description,
        found.mask,
        class_members(found.classes),
        lam_from,
        found,
        dict(zip(languages, counts.prefix_tokens.tolist(), strict=True)),
    )


def _check_same(found: Identification) -> None:
    """Raise ConflictError unless the mask on disk, which other steps use, holds the neurons that were found."""
    stored = load_mask_list(found.path)
    ours = to_mask_list(found.mask)
    if len(stored) == len(ours) and all(_same(*pair) for pair in zip(stored, ours, strict=True)):
        return
    refuse_other(found.path, found.description)
    raise ConflictError(f"{found.path} holds other neurons than its counts give: {REPLACE}, or use another --root")


def _same(stored: Sequence[Tensor], ours: Sequence[Tensor]) -> bool:
    """Whether a language has the same neurons in every layer; masks made elsewhere need not be sorted."""
    if len(stored) != len(ours):
        return False
    return all(torch.equal(one.long().sort().values, other) for one, other in zip(stored, ours, strict=True))


def _from_mask(layout: Layout, path: Path, lam_from: str) -> ModelNeurons:
    stored, description = load_mask_list(path), load_description(path)
    if description is None:
        raise MissingArtifactError(
            f"{path} has no description beside it, so its languages and its model's shape are unknown: "
            "bring it in with `lna import-mask`"
        )
    mask = from_mask_list(stored, d_mlp=description.d_mlp)
    return ModelNeurons(layout, description, mask, mask_members(mask), lam_from, None, {})
