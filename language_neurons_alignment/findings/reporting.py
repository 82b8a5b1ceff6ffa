"""All results of a model, or of several, on one page, and every figure as a picture with its table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ..config import DEFAULT_RANGE, SweepRange
from ..core.languages_above import LanguagesAbove, count_languages_above
from ..errors import SettingsError
from ..plots.draw import draw
from ..plots.write import write_png, write_svg
from ..report.comparison import PairResults, pair_parts
from ..report.figures.training import training_section
from ..report.model import ModelResults, model_sections
from ..report.page import render_page
from ..report.provenance import provenance_section
from ..report.sections import Part, Report, pictures
from ..store.atomic import write_text
from ..store.picture_files import save_pictures
from .analyze import analysis_of
from .compare import Comparison, comparison_of
from .evidence import Evidence, Subject, gather
from .model_neurons import ModelNeurons
from .pair import PairComparison

__all__ = ["Subject", "WrittenReport", "compose", "report"]


@dataclass(frozen=True)
class WrittenReport:
    """A report on disk.

    Attributes:
        report: what it says.
        page: the HTML file.
        pictures: PNG, SVG and CSV of every view of every figure, in the order of reading.
    """

    report: Report
    page: Path
    pictures: list[Path]


def report(
    subjects: Sequence[Subject],
    *,
    trained: Sequence[str] = (),
    search: SweepRange = DEFAULT_RANGE,
    out: Path | None = None,
) -> WrittenReport:
    """Write the report of a model; with several, of the first and of how the others differ from it.

    Args:
        subjects: the model, and those that it is compared with.
        trained: languages that the others were trained on.
        search: range of λ of the λ path.
        out: the page; by default under the first model's results. Pictures lie in a folder of its name.

    Raises:
        SettingsError: a page whose name does not end in .html.
        MissingArtifactError: a model has neither counts nor a mask.
        IncompatibleError: models that cannot be compared.
        LNAError: what is there cannot be used.
    """
    if out is not None and out.suffix != ".html":
        raise SettingsError(f"--out must name a page that ends in .html, got {out}: for example {out.name}.html")
    told = compose(subjects, trained=trained, search=search)
    page = out or _default_page(subjects, told)
    folder = page.with_suffix("")
    written = []
    for title, name, chart in pictures(told):
        drawn = draw(chart, title=title)
        writers = {".png": partial(write_png, drawn), ".svg": partial(write_svg, drawn)}
        written += save_pictures(folder / name, writers, header=chart.header, rows=chart.table)
    write_text(page, render_page(told, folder=folder.name))
    return WrittenReport(told, page, written)


def compose(subjects: Sequence[Subject], *, trained: Sequence[str] = (), search: SweepRange = DEFAULT_RANGE) -> Report:
    """What a report says; nothing is drawn, and nothing written.

    Raises:
        LNAError: as `report`.
    """
    found = [gather(subject) for subject in subjects]
    compared = comparison_of([one.neurons for one in found], trained=trained) if len(found) > 1 else None
    first, described = found[0], found[0].neurons.description
    assert described.lam is not None  # a Choice is of entropy-λ
    names = compared.names if compared else (first.neurons.layout.model,)
    parts = [] if compared is None else _comparison_parts(compared)
    parts.append(Part("model", names[0] if compared else "What was found", model_sections(_results(first, search))))
    facts = dict(zip(names, (one.facts for one in found), strict=True))
    notes = compared.notes if compared else ()
    parts.append(Part("origin", "Where it comes from", (provenance_section(facts, notes),)))
    return Report(
        title=" → ".join(names),
        subtitle=_subtitle(first.neurons),
        rates=(described.top_rate, described.lam),
        facts=_facts(first.neurons),
        parts=tuple(parts),
        languages=first.neurons.languages,
        layers=described.layers,
    )


def _results(evidence: Evidence, search: SweepRange) -> ModelResults:
    """The analysis of a model, as its sections take it."""
    done, lam = analysis_of(evidence.neurons, search=search), evidence.neurons.description.lam
    assert lam is not None  # a Choice is of entropy-λ
    return ModelResults(
        lam=lam,
        texts=evidence.texts,
        appear=tuple(evidence.neurons.description.appear),
        classes=done.classes,
        stages=done.stages,
        languages=done.languages,
        means=done.means,
        above=done.above,
        overlap=done.overlap,
        sharing=done.sharing,
        path=done.path,
        maps=evidence.maps,
        no_counts=evidence.no_counts,
        no_maps=evidence.no_maps,
    )


def _comparison_parts(compared: Comparison) -> list[Part]:
    """The way of the training, where it has more than two stations, and each model against the first."""
    models = dict(zip(compared.names, compared.models, strict=True))
    pairs = pair_parts([_pair(pair, models, trained=bool(compared.trained)) for pair in compared.pairs])
    if len(compared.names) == 2:
        return pairs
    return [Part("training-path", "Along the training", (training_section(compared.path),)), *pairs]


def _pair(pair: PairComparison, models: dict[str, ModelNeurons], *, trained: bool) -> PairResults:
    above = [_above(models[name]) for name in (pair.before, pair.after)]
    return PairResults(
        names=(pair.before, pair.after),
        classes=pair.classes,
        languages=pair.languages,
        groups=pair.groups,
        trained=trained,
        above=tuple(one for one in above if one is not None),
    )


def _above(neurons: ModelNeurons) -> LanguagesAbove | None:
    if neurons.found is None:
        return None
    statistics, selected = neurons.found.statistics, neurons.found.selected
    return count_languages_above(statistics.languages_above, selected, languages=len(neurons.languages))


def _default_page(subjects: Sequence[Subject], told: Report) -> Path:
    first, *others = (subject.layout for subject in subjects)
    path = first.report(*told.rates, others=[other.model for other in others])
    return path.with_name(f"{path.name}.html")


def _subtitle(neurons: ModelNeurons) -> str:
    described = neurons.description
    said = [
        neurons.layout.dataset,
        f"{len(described.languages)} languages",
        f"{described.layers} layers × {described.d_mlp:,} neurons",
        f"top rate {described.top_rate:g}",
        f"λ {described.lam:.6g}",
        "" if described.bar is None else f"bar {described.bar:g}",
        "" if described.threshold is None else f"τ {described.threshold:.4f}",
    ]
    return " · ".join(filter(None, said))


def _facts(neurons: ModelNeurons) -> tuple[tuple[str, str], ...]:
    """The classes' sizes: what one looks for first."""
    meaning = {
        "specific": "specific: one language",
        "related": "related: several languages",
        "general": "general: all languages",
        "unassigned": "selected, above τ nowhere",
    }
    return tuple(
        (f"{int(neurons.members[name].sum()):,}", said) for name, said in meaning.items() if name in neurons.members
    )
