"""The report: all results of a model, or of several compared, on one page, with every figure as picture and table.

`write_report` reads the results of each model (`Evidence`), arranges them in sections (`compose`), and writes the page
and the pictures. If results are missing, the page names the command that makes them.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from itertools import combinations
from pathlib import Path
from urllib.parse import quote

from ._compare import Comparison, comparison_of
from ._operations import CLASSES
from .analysis import ModelNeurons, analysis_of, open_neurons
from .config import DEFAULT_NEURONS, DEFAULT_RANGE, DEFAULT_SELECTION, TEXTS, MapSettings, Selection, SweepRange
from .core.perplexity import PerplexityMap
from .core.selection import language_mask, select
from .errors import MissingArtifactError, SettingsError
from .plots.draw import draw, write_pdf, write_png, write_svg
from .report import comparison, model
from .report.page import render_page
from .report.sections import MissingSection, Part, Report, Section, pictures
from .store.files import Json, read_json, save_pictures, write_text
from .store.layout import Layout, with_ending
from .store.maps import load_map, map_exists
from .store.masks import Mask


@dataclass(frozen=True)
class WrittenReport:
    """A report on disk.

    Attributes:
        pictures: PNG, SVG and CSV of every view of every figure, in the order of reading.
        notes: sentences that a reader must know; the page has them too.
    """

    report: Report
    page: Path
    pictures: list[Path]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Evidence:
    """The results of one model.

    Attributes:
        maps: finished perplexity maps of exactly these neurons, by the ending of their file names.
        missing: by the name of each figure that cannot be drawn.
        looked: the neurons of the page of `lna neurons`, where there is one of exactly this mask.
        sensitivity: a sentence on what masks and effects are at a smaller λ; empty without counts.
    """

    neurons: ModelNeurons
    maps: dict[str, PerplexityMap]
    facts: dict[str, str]
    missing: dict[str, MissingSection]
    sensitivity: str
    looked: tuple[Json, ...] = ()


def write_report(
    layouts: Sequence[Layout],
    selection: Selection = DEFAULT_SELECTION,
    *,
    mask_only: bool = False,
    called: Sequence[str] = (),
    trained: Sequence[str] = (),
    out: Path | None = None,
    title: str | None = None,
    pdf: bool = False,
) -> WrittenReport:
    """Write the report of a model; of several models, that of the first and how the others differ from it.

    >>> import language_neurons_alignment as lna
    >>> with lna.open_session("model", "corpus.json", "toy") as session:
    ...     counted = [lna.collect_activations(session, code) for code in ("en", "es", "fr")]
    >>> selection = Selection(0.1, 0.0, 0.8, languages=("en", "es", "fr"))
    >>> written = write_report([session.layout], selection, called=["model"])
    >>> print(written.page.as_posix())
    reports/toy/0.1-0.0/report.Llama-model.html
    >>> written.report.missing["What breaks when a language's neurons are off"]
    'There is no perplexity map of these neurons. lna ppl --model-path model -s toy -d DATA -r 0.1 -l 0.0'

    Args:
        layouts: where the results of each model are; in the order of training.
        selection: which neurons; its search range is also the range of the λ path.
        mask_only: read masks and no counts.
        called: the models' paths, for the commands that the report suggests.
        trained: languages that the other models were trained on.
        out: the page; by default under the first model's results. The pictures are in a folder of the same name.
        title: the page's heading; by default the models' names. A picture's title is that of its section.
        pdf: write each picture as PDF too, for papers.

    Raises:
        SettingsError: a page whose name does not end in .html.
        MissingArtifactError: a model has neither counts nor a mask.
        IncompatibleError: models that cannot be compared.
        LNAError: results that cannot be used.
    """
    if out is not None and out.suffix != ".html":
        raise SettingsError(f"--out must name a page that ends in .html, got {out}: for example {out.name}.html")
    results = gather(layouts, selection, mask_only=mask_only, called=called)
    if out is None:
        rates = results[0].neurons.description
        others = [one.neurons.layout.model for one in results[1:]]
        out = with_ending(layouts[0].report(rates.top_rate, rates.lam, others=others), ".html")
    report = compose(results, trained=trained, search=selection.search, out=out)
    if title is not None:
        report = replace(report, title=title)
    folder, written = out.with_suffix(""), []
    for title, name, chart in pictures(report):
        drawn = draw(chart, title=title)
        kinds = {".png": write_png, ".svg": write_svg, **({".pdf": write_pdf} if pdf else {})}
        writers = {ending: partial(write, drawn) for ending, write in kinds.items()}
        written += save_pictures(folder / name, writers, header=chart.header, rows=chart.table)
    write_text(out, render_page(report, folder=folder.name))
    several = len(results) > 1
    notes = [
        f"{one.neurons.layout.model}: {note}" if several else note for one in results for note in one.neurons.notes
    ]
    return WrittenReport(report, out, written, tuple(notes))


def gather(
    layouts: Sequence[Layout],
    selection: Selection = DEFAULT_SELECTION,
    *,
    mask_only: bool = False,
    called: Sequence[str] = (),
) -> list[Evidence]:
    """Read the results of each model; without counts, its mask alone."""
    names = called or ["MODEL"] * len(layouts)
    return [
        _evidence(_neurons(layout, selection, mask_only=mask_only), name)
        for layout, name in zip(layouts, names, strict=True)
    ]


def _neurons(layout: Layout, selection: Selection, *, mask_only: bool) -> ModelNeurons:
    """Open the neurons from counts, or without counts from the mask; without both, the error names the counts."""
    try:
        return open_neurons(layout, selection, mask_only=mask_only)
    except MissingArtifactError as no_counts:
        if not mask_only:
            with suppress(MissingArtifactError):
                return open_neurons(layout, selection, mask_only=True)
        raise no_counts from None


def _evidence(neurons: ModelNeurons, called: str) -> Evidence:
    layout, missing = neurons.layout, {}
    if neurons.counts is None:
        reason = "It needs the activation counts, and there is only a mask."
        command = f"lna activation --model-path {called} -s {layout.dataset} -l LANGUAGE -d DATA"
        names = ("corpus", "lambda-path", "shared", *(() if neurons.description.appear else ("appear",)))
        missing = {name: MissingSection(name, model.TITLES[name], reason, command) for name in names}
    maps, mapped, no_maps = _maps(neurons, called)
    if not maps:
        missing["perplexity"] = no_maps
    counted = {}
    if neurons.counts is not None:  # on what the count files of all languages agree
        first, *others = neurons.counts.metas
        own = {"config_hash", "weights_hash", "language", "corpus_hash"}
        common = [key for key in first if key not in own and all(meta.get(key) == first[key] for meta in others)]
        counted = {f"counts: {key.replace('_', ' ')}": str(first[key]) for key in common}
    facts = {**_described(neurons), **counted, **mapped}
    return Evidence(neurons, maps, facts, missing, _sensitivity(neurons, maps, called), _looked(neurons))


def _looked(neurons: ModelNeurons) -> tuple[Json, ...]:
    """The neurons of the page that was made of this very mask."""
    rates = (neurons.description.top_rate, neurons.description.lam)
    path = with_ending(neurons.layout.neurons(*rates), ".json")
    found = read_json(path, lambda content: isinstance(content.get("neurons"), list), command="lna neurons")
    mask = Mask(neurons.languages, neurons.mask, neurons.description)
    if found is None or found.get("mask") != mask.digest_of(DEFAULT_NEURONS.classes):
        return ()
    return tuple(found["neurons"])


def _neurons_page(neurons: ModelNeurons, out: Path) -> str:
    """The page of neurons as a link from the report."""
    page = with_ending(neurons.layout.neurons(neurons.description.top_rate, neurons.description.lam), ".html")
    return quote(Path(os.path.relpath(page.absolute(), out.absolute().parent)).as_posix())


def _sensitivity(neurons: ModelNeurons, maps: dict[str, PerplexityMap], called: str) -> str:
    """The masks and their effects at half of λ, or nearer to λ where only there a perplexity map is stored."""
    described, layout = neurons.description, neurons.layout
    if neurons.found is None or not described.lam:
        return ""
    masks, default = {}, MapSettings()
    half, top_rate = described.lam / 2, described.top_rate
    stored = [lam for lam in layout.lambdas(top_rate) if half < lam < described.lam] if default.variant in maps else []
    for lam in (half, *stored):
        selected = select(neurons.found.statistics, top_rate=top_rate, lam=lam)
        masks[lam] = language_mask(neurons.found.statistics, selected)
        path = layout.perplexity(top_rate, lam)
        if default.variant in maps and map_exists(path):
            found, made_from = load_map(path)
            whole = all((row, text) in found.cells for row in found.rows for text in found.languages)
            mask = Mask(neurons.languages, masks[lam], described)
            both = (found, maps[default.variant])
            alike = found.languages == both[1].languages and all(one.by_language for one in both)
            if whole and alike and made_from.get("mask") == mask.digest_of(default.classes):
                return model.sensitivity(neurons.languages, (masks[lam], neurons.mask), (lam, described.lam), both)
    command = f"--model-path {called} -s {layout.dataset} -r {top_rate!r} -l {half!r}"
    there = f"Effects there: `lna identify {command}`, then `lna ppl {command} -d DATA`."
    return f"{model.sensitivity(neurons.languages, (masks[half], neurons.mask), (half, described.lam))} {there}"


def _maps(neurons: ModelNeurons, called: str) -> tuple[dict[str, PerplexityMap], dict[str, str], MissingSection]:
    """The perplexity maps made from this very mask, where they come from, and the reason if there are none."""
    rates, layout = (neurons.description.top_rate, neurons.description.lam), neurons.layout
    mask = Mask(neurons.languages, neurons.mask, neurons.description)
    command = f"lna ppl --model-path {called} -s {layout.dataset} -d DATA -r {rates[0]!r} -l {rates[1]!r}"
    maps, facts, missing = {}, {}, partial(MissingSection, "perplexity", model.TITLES["perplexity"])
    why = missing("There is no perplexity map of these neurons.", command)
    classes = [chosen for size in range(1, len(CLASSES) + 1) for chosen in combinations(CLASSES, size)]
    every = [MapSettings(classes=chosen, text=text) for text in TEXTS for chosen in classes]
    for settings in sorted(every, key=lambda settings: settings.variant != ""):  # the default first
        path = layout.perplexity(*rates, variant=settings.variant)
        if not map_exists(path):
            continue
        found, made_from = load_map(path)
        todo = sum((row, text) not in found.cells for row in found.rows for text in found.languages)
        if made_from.get("mask") != mask.digest_of(settings.classes):
            why = missing("The stored perplexity map was made from another mask.", f"{command} --force")
        elif todo > 0:
            why = missing(f"The perplexity map is not finished: {todo} cells are missing.", command)
        else:
            maps[settings.variant] = found
            shown = {key: made_from[key] for key in ("engine", "dtype", "overlong_policy") if key in made_from}
            text = ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in shown.items())
            facts[f"perplexity of {settings.text}, {' + '.join(settings.classes)} off"] = text
    return maps, facts, why


def _described(neurons: ModelNeurons) -> dict[str, str]:
    """The mask's description, as rows of a table."""
    described, layout = neurons.description, neurons.layout
    facts = {
        "name in files": layout.model,
        "dataset": layout.dataset,
        "languages": " ".join(described.languages),
        "layers × neurons": described.size,
        "top rate": repr(described.top_rate),
        "λ": f"{described.lam!r} ({neurons.lam_from})",
        "largest λ with appear[K] = 0": "" if described.largest_lam is None else repr(described.largest_lam),
        "bar": "" if described.bar is None else repr(described.bar),
        "τ": "" if described.threshold is None else repr(described.threshold),
        "config digest": described.config_hash,
        "weights digest": described.weights_hash,
        "imported from": ", ".join((described.source or {}).values()),
        **{f"counts digest ({code})": digest for code, digest in described.counts.items()},
        "language_neurons_alignment": described.version,
    }
    return {name: value for name, value in facts.items() if value}


def compose(
    results: Sequence[Evidence],
    *,
    trained: Sequence[str] = (),
    search: SweepRange = DEFAULT_RANGE,
    out: Path = Path("report.html"),
) -> Report:
    """Arrange the results of models in sections; nothing is drawn or written. Links begin at `out`, the page."""
    first = results[0].neurons
    compared = comparison_of([one.neurons for one in results], trained=trained) if len(results) > 1 else None
    names = compared.names if compared else (first.layout.model,)
    title = names[0] if compared else "What was found"
    facts = dict(zip(names, (one.facts for one in results), strict=True))
    origin = model.provenance_section(facts, compared.notes if compared else first.notes)
    return Report(
        title=" → ".join(names),
        subtitle=_subtitle(first),
        facts=_facts(first),
        parts=(
            *(_comparison_parts(compared) if compared else ()),
            Part("model", title, tuple(_model_sections(results[0], search, out))),
            Part("origin", "Where it comes from", (origin,)),
        ),
        languages=first.languages,
        layers=first.description.layers,
    )


def _subtitle(neurons: ModelNeurons) -> str:
    described = neurons.description
    parts = [
        neurons.layout.dataset,
        f"{len(described.languages)} languages",
        f"{described.layers} layers × {described.d_mlp:,} neurons"
        if described.widths is None
        else f"{described.layers} layers × {min(described.widths):,} to {described.d_mlp:,} neurons",
        f"top rate {described.top_rate:g}",
        f"λ {described.lam:.6g}",
        "" if described.bar is None else f"bar {described.bar:g}",
        "" if described.threshold is None else f"τ {described.threshold:.4f}",
    ]
    return " · ".join(filter(None, parts))


def _facts(neurons: ModelNeurons) -> tuple[tuple[str, str], ...]:
    """The sizes of the classes."""
    meaning = {
        "specific": "specific: one language",
        "related": "related: several languages",
        "general": "general: all languages",
        "unassigned": "selected, above τ nowhere",
    }
    return tuple(
        (f"{int(neurons.members[name].sum()):,}", text) for name, text in meaning.items() if name in neurons.members
    )


def _model_sections(results: Evidence, search: SweepRange, out: Path) -> list[Section]:
    """Every figure of one model, in the order of reading; a missing one names the command that makes its results."""
    neurons, described, counts = results.neurons, results.neurons.description, results.neurons.counts
    found, lam = analysis_of(neurons, search=search), described.lam
    assert lam is not None  # `open_neurons` finds neurons by entropy-λ
    corpus = None
    if counts is not None:
        corpus = model.corpus_section(
            neurons.languages,
            questions=counts.prefix_tokens.tolist(),
            answers=counts.tokens.tolist(),
            sequences=[meta.get("sequences") for meta in counts.metas],
        )
    sections: dict[str, Section | None] = {
        "corpus": corpus,
        "lambda-path": None
        if found.path is None
        else model.path_section(
            found.path,
            lam=lam,
            largest=described.largest_lam,
            remarks=(*described.lambda_notes(), *filter(None, [results.sensitivity])),
        ),
        "appear": model.appear_section(described.appear, lam=lam) if described.appear else None,
        "layers": model.layers_section(found.classes, found.stages),
        "stages": model.stages_section(found.stages),
        "languages": model.languages_section(found.languages, found.means),
        "language-layers": model.language_layers_section(found.languages),
        "shared": None if found.above is None else model.shared_section(found.above),
        "overlap": model.overlap_section(found.overlap),
        "sets": model.sets_section(found.sharing),
        **(
            {}
            if found.experts is None or found.routing is None
            else {"experts": model.routing_section(found.experts, found.routing)}
        ),
        "perplexity": model.perplexity_section(results.maps) if results.maps else None,
    }
    if results.looked:
        page = _neurons_page(neurons, out)
        sections["neurons"] = model.neurons_section(results.looked, neurons.languages, page)
    return [section or results.missing[name] for name, section in sections.items()]


def _comparison_parts(compared: Comparison) -> list[Part]:
    """The first model against each other one; for more than two models, before that the course of the training."""
    neurons = dict(zip(compared.names, compared.models, strict=True))
    parts = []
    if len(compared.names) > 2:
        parts.append(Part("training-path", "Along the training", (comparison.training_section(compared.path),)))
    for number, pair in enumerate(compared.pairs, start=1):
        mark = f"pair-{number}-" if len(compared.pairs) > 1 else ""
        above = [neurons[name].languages_above() for name in (pair.before, pair.after)]
        sections = [
            comparison.flow_section(pair.classes),
            comparison.change_section(pair.classes, before=pair.before, after=pair.after),
            comparison.gained_lost_section(pair.languages),
            comparison.alike_section(pair.languages),
            comparison.groups_section(pair.groups, trained=bool(compared.trained)),
            comparison.shared_change_section(*above, names=(pair.before, pair.after)),
        ]
        named = tuple(replace(one, name=mark + one.name) for one in sections)
        parts.append(Part(f"{mark}comparison", f"{pair.before} → {pair.after}", named))
    return parts
