"""All results of a model, or of several, on one page, and every figure as a picture with its table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any

from ._compare import Comparison, PairComparison, comparison_of
from .analysis import ModelNeurons, analysis_of, open_neurons
from .config import CLASSES, DEFAULT_RANGE, DEFAULT_SELECTION, TEXTS, MapSettings, Selection, SweepRange
from .core.perplexity import PerplexityMap
from .core.profiles import LanguagesAbove, count_languages_above
from .core.selection import to_mask_list
from .errors import MissingArtifactError, SettingsError
from .plots.draw import draw, write_png, write_svg
from .report.comparison import PairResults, pair_parts, training_section
from .report.model import CountedText, Gap, ModelResults, model_sections, provenance_section
from .report.page import render_page
from .report.sections import Part, Report, pictures
from .store.counts import load_origin
from .store.files import save_pictures, write_text
from .store.layout import Layout, with_ending
from .store.maps import load_map
from .store.masks import StoredMask

# ── What there is of a model, for a report: neurons, counted text, perplexity maps, and where they come from.


@dataclass(frozen=True)
class Subject:
    """A model that is to be reported on.

    Attributes:
        layout: where its results lie.
        selection: which of its neurons.
        called: the model as the caller named it, for the commands that the report suggests.
        mask_only: read its mask and no counts.
    """

    layout: Layout
    selection: Selection = DEFAULT_SELECTION
    called: str = "MODEL"
    mask_only: bool = False


@dataclass(frozen=True)
class Evidence:
    """What there is of it.

    Attributes:
        neurons: its language neurons.
        texts: what was counted, per language; empty where the counts are not there.
        maps: finished perplexity maps of exactly these neurons, by the variant of classes and text.
        no_counts: what to say where counts are missing.
        no_maps: what to say where there is no such map.
        facts: where all this comes from.
    """

    neurons: ModelNeurons
    texts: tuple[CountedText, ...]
    maps: dict[str, PerplexityMap]
    no_counts: Gap
    no_maps: Gap
    facts: dict[str, str] = field(default_factory=dict)


def gather(subject: Subject) -> Evidence:
    """Read what there is of a model; where there are no counts, its mask alone.

    Raises:
        MissingArtifactError: neither counts nor a mask.
        LNAError: what is there cannot be used.
    """
    neurons = _neurons(subject)
    texts, counted = ((), {}) if neurons.found is None else _texts(neurons)
    maps, mapped, no_maps = _maps(subject, neurons)
    called = f"--model-path {subject.called} -s {subject.layout.dataset}"
    no_counts = Gap(
        "It needs the activation counts, and only a mask is there.", f"lna activation {called} -l LANGUAGE -d DATA"
    )
    return Evidence(neurons, texts, maps, no_counts, no_maps, {**_described(neurons), **counted, **mapped})


def _neurons(subject: Subject) -> ModelNeurons:
    """From counts if they are there, else from the mask; the error for neither names the counts, which come first."""
    if subject.mask_only:
        return open_neurons(subject.layout, subject.selection, mask_only=True)
    try:
        return open_neurons(subject.layout, subject.selection)
    except MissingArtifactError as no_counts:
        try:
            return open_neurons(subject.layout, subject.selection, mask_only=True)
        except MissingArtifactError:
            raise no_counts from None


def _texts(neurons: ModelNeurons) -> tuple[tuple[CountedText, ...], dict[str, str]]:
    """How much text was counted, and what its files say of their making where they all say the same."""
    texts, metas = [], []
    for language in neurons.languages:
        full, meta = load_origin(neurons.layout.activation(language))
        prefix, _ = load_origin(neurons.layout.activation(language, prefix=True))
        texts.append(CountedText(language, prefix, full - prefix, meta.get("sequences")))
        metas.append(meta)
    skipped = {"config_hash", "weights_hash", "language", "corpus_hash"}
    common = [key for key in metas[0] if key not in skipped and all(meta.get(key) == metas[0][key] for meta in metas)]
    return tuple(texts), {f"counts: {key.replace('_', ' ')}": str(metas[0][key]) for key in common}


def _maps(subject: Subject, neurons: ModelNeurons) -> tuple[dict[str, PerplexityMap], dict[str, str], Gap]:
    """The perplexity maps made from this very mask; why there is none."""
    rates = neurons.description.top_rate, neurons.description.lam
    layout = subject.layout
    mask = StoredMask(layout, layout.mask(*rates), neurons.languages, to_mask_list(neurons.mask), neurons.description)
    command = f"lna ppl --model-path {subject.called} -s {layout.dataset} -d DATA -r {rates[0]!r} -l {rates[1]!r}"
    maps, facts, gap = {}, {}, Gap("No perplexity map of these neurons is there.", command)
    for settings in _variants():
        path = layout.perplexity(*rates, variant=settings.variant)
        if not with_ending(path, ".json").is_file():
            continue
        found, made_from = load_map(path)
        todo = len(found.rows) * len(found.languages) - len(found.cells)
        if made_from.get("mask") != mask.digest_of(settings.classes):
            gap = Gap("The perplexity map that is there was made from another mask.", f"{command} --force")
        elif todo > 0:
            gap = Gap(f"The perplexity map is not finished: {todo} cells are missing.", command)
        else:
            maps[settings.variant] = found
            facts |= _map_facts(settings, made_from)
    return maps, facts, gap


def _variants() -> list[MapSettings]:
    """Every choice of classes and text that a map may be of, the default first."""
    classes = [chosen for size in range(1, len(CLASSES) + 1) for chosen in combinations(CLASSES, size)]
    every = [MapSettings(classes=chosen, text=text) for text in TEXTS for chosen in classes]
    return sorted(every, key=lambda settings: settings.variant != "")


def _map_facts(settings: MapSettings, made_from: dict[str, Any]) -> dict[str, str]:
    shown = {key: made_from[key] for key in ("engine", "dtype", "overlong_policy") if key in made_from}
    text = ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in shown.items())
    return {f"perplexity of {settings.text}, {' + '.join(settings.classes)} off": text}


def _described(neurons: ModelNeurons) -> dict[str, str]:
    """The mask's description, as a table tells it."""
    described, layout = neurons.description, neurons.layout
    facts = {
        "name in files": layout.model,
        "dataset": layout.dataset,
        "languages": " ".join(described.languages),
        "layers × neurons": f"{described.layers} × {described.d_mlp}",
        "top rate": repr(described.top_rate),
        "λ": f"{described.lam!r} ({neurons.lam_from})",
        "bar": "" if described.bar is None else repr(described.bar),
        "τ": "" if described.threshold is None else repr(described.threshold),
        "config digest": described.config_hash,
        "weights digest": described.weights_hash,
        "imported from": ", ".join((described.source or {}).values()),
        **{f"counts digest ({code})": digest for code, digest in described.counts.items()},
        "language_neurons_alignment": described.version,
    }
    return {name: value for name, value in facts.items() if value}


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


def write_report(
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
        LNAError: as `write_report`.
    """
    found = [gather(subject) for subject in subjects]
    compared = comparison_of([one.neurons for one in found], trained=trained) if len(found) > 1 else None
    first, described = found[0], found[0].neurons.description
    assert described.lam is not None  # of entropy-λ
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
    assert lam is not None  # of entropy-λ
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
