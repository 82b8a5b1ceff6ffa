"""`Neuron_Prob` and `Neuron_Mask`, for those who know the paper's own code by these names."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float32
from torch import Tensor

from .autosweep import autosweep
from .config import DEFAULT_BAR, DEFAULT_RANGE, DEFAULT_SELECTION, Selection, SweepRange
from .core.counts import activation_probability
from .core.frames import Framed
from .core.lambda_path import LambdaPath, lambda_path
from .core.profiles import (
    ClassMembers,
    ClassProfile,
    GroupMeans,
    LanguageProfile,
    LanguagesAbove,
    Overlap,
    Sharing,
    class_members,
    class_profile,
    count_languages_above,
    english_groups,
    group_means,
    language_overlap,
    language_profile,
    language_sets,
    mask_members,
)
from .core.segmentation import Segmentation, segment_profile
from .core.selection import NeuronStatistics, from_mask_list, neuron_statistics, to_mask_list
from .errors import ConflictError, MissingArtifactError
from .identify import Identification, find_neurons
from .languages import DEFAULT_LANGUAGES, parse_languages
from .store.counts import load_answer_counts
from .store.files import save_tables
from .store.layout import Layout, layout_of_mask, results_of
from .store.masks import REPLACE, MaskDescription, load_description, load_mask_list, refuse_other
from .version import __version__


@dataclass(frozen=True)
class Neuron_Prob:
    """Activation probabilities of every neuron and language (SPEC 3).

    Attributes:
        languages: codes, in the order of the last axis.
        probability: p.
    """

    languages: tuple[str, ...]
    probability: Float32[Tensor, "layer neuron lang"]

    @classmethod
    def load(
        cls,
        model_name: str,
        model_path: str,
        dataset: str,
        *,
        langs: str | Iterable[str] = DEFAULT_LANGUAGES,
        root: str | Path = ".",
    ) -> Neuron_Prob:
        """Read the count files of a model on a dataset."""
        layout = results_of(model_path, dataset, model_name=model_name, root=root)
        counts = load_answer_counts(layout, parse_languages(langs))
        return cls(counts.languages, activation_probability(counts.counts, tokens=counts.tokens))

    def statistics(self, *, bar: float = 0.95) -> NeuronStatistics:
        """Entropy, peak and membership of every neuron."""
        return neuron_statistics(self.probability, bar=bar)


@dataclass(frozen=True)
class Neuron_Mask:
    """The neurons of each language, from a mask file, ours or a published one.

    Attributes:
        languages: codes, in the order of the last axis.
        mask: whether a neuron belongs to a language.
    """

    languages: tuple[str, ...]
    mask: Bool[Tensor, "layer neuron lang"]

    @classmethod
    def load(cls, path: str | Path, *, d_mlp: int, langs: str | Iterable[str] = DEFAULT_LANGUAGES) -> Neuron_Mask:
        """Read a mask file; `langs` names its languages in their order."""
        return cls(parse_languages(langs), from_mask_list(load_mask_list(Path(path)), d_mlp=d_mlp))


# ── A model's language neurons as analysis takes them: found again from its counts, or read from a mask alone.


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


def open_neurons(layout: Layout, selection: Selection = DEFAULT_SELECTION, *, mask_only: bool = False) -> ModelNeurons:
    """The neurons that were chosen, of one model.

    Args:
        layout: where the model's results lie.
        selection: which of them; λ, bar and languages that are None are those of the one mask at this top rate, or
            where there is none AutoSweep's λ, the default bar and the ten languages.
        mask_only: read the mask file and nothing else, as of a mask that was imported.

    Raises:
        SettingsError: several masks and no λ to choose by.
        MissingArtifactError: no counts, or with `mask_only` no mask.
        ConflictError: the mask that is there was made from other counts, languages or another bar.
        SweepError, ArtifactError, IncompatibleError: as the steps it is made of.
    """
    lam = selection.lam if selection.lam is not None else layout.one_lambda(selection.top_rate)
    lam_from = "given" if selection.lam is not None else "mask"
    if mask_only:
        if lam is None:
            raise MissingArtifactError(
                f"{layout.model} has no mask of top rate {selection.top_rate!r} on {layout.dataset}: make one with "
                "`lna identify`, or bring one with `lna import-mask`"
            )
        return _from_mask(layout, layout.mask(selection.top_rate, lam), lam_from)
    described = None if lam is None else load_description(layout.mask(selection.top_rate, lam))
    languages = selection.languages or (tuple(described.languages) if described else DEFAULT_LANGUAGES)
    bar = selection.bar or (described.bar if described else None) or DEFAULT_BAR
    if lam is None:
        lam_from = "autosweep"
        lam = autosweep(layout, languages, top_rate=selection.top_rate, bar=bar, search=selection.search).lam
    return _from_counts(layout, languages, replace(selection, lam=lam, bar=bar), lam_from)


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
    found = open_neurons(layout, Selection(top_rate, lam), mask_only=mask_only)
    return replace(found, lam_from="mask")


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


# ── What counts and a mask tell of a model: classes, layers, languages, stages, the λ path (paper figures 3 and 5).


@dataclass(frozen=True)
class Analysis:
    """Everything that is counted about one model's language neurons. Each result has a `.to_frame()`.

    Attributes:
        neurons: what was analysed.
        classes: per layer.
        languages: per language and layer.
        means: English, and the mean of the others.
        overlap: of every two languages.
        sharing: the sets of languages that neurons serve.
        stages: the layers cut into stages.
        above: neurons by the number of languages in which they are above τ; None of a mask alone.
        path: the histogram over λ; None of a mask alone.
    """

    neurons: ModelNeurons
    classes: ClassProfile
    languages: LanguageProfile
    means: GroupMeans
    overlap: Overlap
    sharing: Sharing
    stages: Segmentation
    above: LanguagesAbove | None
    path: LambdaPath | None

    def tables(self) -> dict[str, Framed]:
        """The results by the names that their files have."""
        every = {
            "classes": self.classes,
            "languages": self.languages,
            "means": self.means,
            "overlap": self.overlap,
            "sets": self.sharing,
            "stages": self.stages,
            "above": self.above,
            "lambda_path": self.path,
        }
        return {name: table for name, table in every.items() if table is not None}

    def plain(self) -> dict[str, Any]:
        """The results as plain values; of the λ path, which may have many thousand pieces, its range and length."""
        tables = {name: table.columns() for name, table in self.tables().items() if name != "lambda_path"}
        path = self.path and {
            "lo": self.path.edges[0].item(),
            "hi": self.path.edges[-1].item(),
            "pieces": len(self.path.appear),
        }
        return {
            "model": self.neurons.layout.model,
            "dataset": self.neurons.layout.dataset,
            "made_from": asdict(self.neurons.description),
            "lam_from": self.neurons.lam_from,
            "classes": self.classes.totals(),
            "stages": {
                "lowest_bic": self.stages.best,
                "supported": self.stages.supported(),
                "classes": self.stages.classes,
            },
            "lambda_path": path,
            "tables": tables,
            "version": __version__,
        }


def analyze(
    layout: Layout,
    selection: Selection = DEFAULT_SELECTION,
    *,
    search: SweepRange = DEFAULT_RANGE,
    mask_only: bool = False,
) -> tuple[Analysis, list[Path]]:
    """Analyse a model's language neurons and store what comes out: a JSON file and a CSV file for each table.

    Args:
        layout: where the model's results lie.
        selection: which of its neurons.
        search: range of λ of the λ path.
        mask_only: read the mask file and nothing else.

    Raises:
        LNAError: as `open_neurons`.
    """
    found = analysis_of(open_neurons(layout, selection, mask_only=mask_only), search=search)
    description = found.neurons.description
    path = layout.analysis(description.top_rate, description.lam)
    tables = {name: table.columns() for name, table in found.tables().items()}
    return found, save_tables(path, found.plain(), tables)


def analysis_of(neurons: ModelNeurons, *, search: SweepRange = DEFAULT_RANGE) -> Analysis:
    """Analyse neurons that are at hand; nothing is written."""
    languages, mask, found = neurons.languages, neurons.mask, neurons.found
    classes = class_profile(neurons.members)
    by_language = language_profile(mask, members=neurons.members, languages=languages)
    means = group_means(
        by_language.per_language, languages=languages, classes=by_language.classes, groups=english_groups(languages)
    )
    above = path = None
    if found is not None:
        above = count_languages_above(found.statistics.languages_above, found.selected, languages=len(languages))
        path = lambda_path(found.statistics, top_rate=neurons.description.top_rate, lo=search.lo, hi=search.hi)
    return Analysis(
        neurons=neurons,
        classes=classes,
        languages=by_language,
        means=means,
        overlap=language_overlap(mask, languages=languages),
        sharing=language_sets(mask, languages=languages),
        stages=segment_profile(classes),
        above=above,
        path=path,
    )
