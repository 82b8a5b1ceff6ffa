"""One model's sections."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..core.class_profile import ClassProfile, LanguageProfile
from ..core.groups import GroupMeans
from ..core.lambda_path import LambdaPath
from ..core.languages_above import LanguagesAbove
from ..core.overlap import Overlap
from ..core.perplexity_map import PerplexityMap
from ..core.segmentation import Segmentation
from ..core.sharing import Sharing
from .figures.corpus import CountedText, corpus_section
from .figures.languages import language_layers_section, languages_section
from .figures.layers import layers_section, stages_section
from .figures.perplexity import perplexity_section
from .figures.sharing import overlap_section, sets_section, shared_section
from .figures.sweep import appear_section, path_section
from .sections import MissingSection, Section


@dataclass(frozen=True)
class Gap:
    """Why something is not there, and the command that makes it."""

    reason: str
    command: str


@dataclass(frozen=True)
class ModelResults:
    """What there is of one model.

    Attributes:
        lam: λ of its neurons.
        texts: what was counted; empty of a mask alone.
        appear: the histogram at λ; empty of an imported mask.
        classes: per layer.
        stages: the layers cut into stages.
        languages: per language and layer.
        means: English and the others.
        above: neurons by the number of languages above τ; None of a mask alone.
        overlap: of every two languages.
        sharing: the sets of languages that neurons serve.
        path: the histogram over λ; None of a mask alone.
        maps: perplexity maps, by the variant of classes and text.
        no_counts: what stands in for the figures that need counts.
        no_maps: what stands in for the perplexity map.
    """

    lam: float
    texts: tuple[CountedText, ...]
    appear: tuple[int, ...]
    classes: ClassProfile
    stages: Segmentation
    languages: LanguageProfile
    means: GroupMeans
    above: LanguagesAbove | None
    overlap: Overlap
    sharing: Sharing
    path: LambdaPath | None
    maps: Mapping[str, PerplexityMap]
    no_counts: Gap
    no_maps: Gap


def model_sections(results: ModelResults) -> tuple[Section, ...]:
    """Every figure of one model, in the order of reading; what cannot be drawn says which command makes it."""
    counts, maps = results.no_counts, results.no_maps
    return (
        corpus_section(results.texts) if results.texts else _missing("corpus", "What was counted", counts),
        path_section(results.path, lam=results.lam)
        if results.path is not None
        else _missing("lambda-path", "The λ path", counts),
        appear_section(results.appear, lam=results.lam)
        if results.appear
        else _missing("appear", "How many languages the selected neurons belong to", counts),
        layers_section(results.classes, results.stages),
        stages_section(results.stages),
        languages_section(results.languages, results.means),
        language_layers_section(results.languages),
        shared_section(results.above)
        if results.above is not None
        else _missing("shared", "How many languages share a neuron", counts),
        overlap_section(results.overlap),
        sets_section(results.sharing),
        perplexity_section(results.maps)
        if results.maps
        else _missing("perplexity", "What breaks when a language's neurons are off", maps),
    )


def _missing(name: str, title: str, gap: Gap) -> MissingSection:
    return MissingSection(name, title, gap.reason, gap.command)
