"""Step 3: from counts to probabilities, language neurons and masks (SPEC 3, 5)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from .config import Selection
from .core.masks import NeuronClasses, classify, language_mask
from .core.probability import activation_probability, answer_counts
from .core.selection import NeuronStatistics, appear, neuron_statistics, select
from .errors import IncompatibleError
from .identifiers import MethodMask, method_mask
from .method import ENTROPY_LAMBDA
from .store.counts_file import counts_hash, load_counts
from .store.layout import Layout
from .store.mask_file import MaskDescription, save_mask
from .version import __version__


@dataclass(frozen=True)
class AnswerCounts:
    """The answer counts of several languages side by side.

    Attributes:
        languages: codes, in the order of the last axis.
        counts: c_full − c_prefix.
        tokens: t_full − t_prefix.
        prefix_tokens: t_prefix, which the answers do not change.
        hashes: digest of each language's files.
        config_hash: of the model's config; "" where the files do not tell.
        weights_hash: of the model's weights; likewise.
    """

    languages: tuple[str, ...]
    counts: Int[Tensor, "layer neuron lang"]
    tokens: Int[Tensor, " lang"]
    prefix_tokens: Int[Tensor, " lang"]
    hashes: dict[str, str]
    config_hash: str
    weights_hash: str

    def statistics(self, *, bar: float) -> NeuronStatistics:
        """Entropy, peak and membership of every neuron."""
        return neuron_statistics(activation_probability(self.counts, tokens=self.tokens), bar=bar)


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


def load_answer_counts(layout: Layout, languages: Sequence[str]) -> AnswerCounts:
    """Read the counts of several languages and put them side by side.

    Raises:
        MissingArtifactError, ArtifactError: a file is missing or torn.
        IncompatibleError: the languages were not counted on the same model.
    """
    table: Tensor | None = None
    tokens, prefix_tokens, hashes, origins = [], [], {}, {}
    for k, language in enumerate(languages):
        counts, meta = load_counts(layout, language)
        answers = answer_counts(counts.full.over_zero, counts.prefix.over_zero)
        if table is None:
            # one language after the other in memory: what runs over languages then reads memory in order
            table = torch.empty(len(languages), *answers.shape, dtype=torch.int64).permute(1, 2, 0)
        if answers.shape != table.shape[:2]:
            raise IncompatibleError(
                f"the counts of {language!r} have shape {tuple(answers.shape)}, those of {languages[0]!r} "
                f"{tuple(table.shape[:2])}: they come from different models; collect {language!r} again"
            )
        table[..., k] = answers
        tokens.append(counts.full.total_tokens - counts.prefix.total_tokens)
        prefix_tokens.append(counts.prefix.total_tokens)
        hashes[language] = counts_hash(counts)
        origins[language] = (str(meta.get("config_hash") or ""), str(meta.get("weights_hash") or ""))
    config_hash, weights_hash = _common_origin(origins)
    assert table is not None  # languages are never empty: parse_languages
    return AnswerCounts(
        tuple(languages), table, torch.tensor(tokens), torch.tensor(prefix_tokens), hashes, config_hash, weights_hash
    )


def identify(layout: Layout, languages: Sequence[str], selection: Selection, *, force: bool = False) -> Identification:
    """Find the language neurons and store their masks.

    Raises:
        ConflictError: a mask made from other counts, or with another bar, stands there, and not `force`.
        SettingsError, MissingArtifactError, ArtifactError, IncompatibleError: as the steps it is made of.
    """
    found = find_neurons(layout, load_answer_counts(layout, languages), selection)
    save_mask(found.path, found.mask, found.description, force=force)
    return found


def find_neurons(layout: Layout, counts: AnswerCounts, selection: Selection) -> Identification:
    """Find the language neurons in counts at hand, by the selection's method; nothing is written.

    Raises:
        SettingsError: rates that name no neuron.
        MissingArtifactError, IncompatibleError: mean-difference without moments, or with those of another model.
    """
    languages, method = counts.languages, selection.method
    statistics = counts.statistics(bar=selection.bar)
    found, selected, above = _neurons(layout, languages, statistics, selection)
    classes = classify(above, selected, languages=len(languages))
    classes = replace(classes, general=statistics.universal & (len(languages) > 1))
    layers, d_mlp = selected.shape
    description = MaskDescription(
        languages=list(languages),
        top_rate=float(selection.top_rate) if method.has_rate else float(selected.double().mean()),
        lam=None if selection.lam is None else float(selection.lam),
        bar=float(selection.bar),
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
        method=method.name,
        parameters=found.parameters,
        moments=found.moments,
    )
    path = layout.by(method).mask(selection.top_rate, selection.lam)
    return Identification(statistics, selected, found.mask, classes, description, path)


def _neurons(
    layout: Layout, languages: Sequence[str], statistics: NeuronStatistics, selection: Selection
) -> tuple[MethodMask, Bool[Tensor, "layer neuron"], Int[Tensor, "layer neuron"]]:
    """The mask, the selected neurons, and N, which decides a selected neuron's class.

    N is the number of languages in which the neuron is above τ. The other methods do not all ask for that (random for
    nothing), so theirs is the number of languages whose mask the neuron is in; for LAPE that is the same.
    """
    if selection.method.name == ENTROPY_LAMBDA:
        assert selection.lam is not None  # Selection has checked it
        selected = select(statistics, top_rate=selection.top_rate, lam=selection.lam)
        return MethodMask(language_mask(statistics, selected)), selected, statistics.languages_above
    found = method_mask(layout, languages, statistics, selection)
    return found, found.mask.any(dim=-1), found.mask.sum(dim=-1)


def _common_origin(origins: dict[str, tuple[str, str]]) -> tuple[str, str]:
    """The one model that all languages were counted on."""
    first, *others = origins
    for other in others:
        if origins[other] != origins[first]:
            raise IncompatibleError(
                f"the counts of {first!r} and {other!r} come from different models (config or weights differ): "
                "collect one of them again with `lna activation --force`"
            )
    return origins[first]
