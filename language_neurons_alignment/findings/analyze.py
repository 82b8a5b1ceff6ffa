"""What counts and a mask tell of a model: classes, layers, languages, stages, the λ path (paper figures 3 and 5)."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..config import DEFAULT_RANGE, SweepRange
from ..core.class_profile import ClassProfile, LanguageProfile, class_profile, language_profile
from ..core.groups import GroupMeans, english_groups, group_means
from ..core.lambda_path import LambdaPath, lambda_path
from ..core.languages_above import LanguagesAbove, count_languages_above
from ..core.overlap import Overlap, language_overlap
from ..core.segmentation import Segmentation, segment_profile
from ..core.sharing import Sharing, language_sets
from ..frames import Framed
from ..store.layout import Layout
from ..store.table_file import save_tables
from ..version import __version__
from .model_neurons import DEFAULT_CHOICE, Choice, ModelNeurons, open_neurons


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
    choice: Choice = DEFAULT_CHOICE,
    *,
    search: SweepRange = DEFAULT_RANGE,
    mask_only: bool = False,
) -> tuple[Analysis, list[Path]]:
    """Analyse a model's language neurons and store what comes out: a JSON file and a CSV file for each table.

    Args:
        layout: where the model's results lie.
        choice: which of its neurons.
        search: range of λ of the λ path.
        mask_only: read the mask file and nothing else.

    Raises:
        LNAError: as `open_neurons`.
    """
    found = analysis_of(open_neurons(layout, choice, mask_only=mask_only), search=search)
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
