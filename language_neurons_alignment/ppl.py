"""Step 4: perplexity maps, what each language's text loses when each language's neurons are off (SPEC 6)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ._controls import Rows, control_rows
from ._interventions import Steps
from ._session import Session, StartWork, silent, with_stored_answers
from .config import DEFAULT_DO, DEFAULT_MAP, MapSettings
from .core.perplexity import (
    UNDISTURBED,
    MeasuredSelectivity,
    PerplexityEffects,
    PerplexityMap,
    cells_to_do,
    perplexity,
    perplexity_effects,
    perplexity_selectivity,
)
from .corpus.encode import ScoredText, encode_texts
from .corpus.records import Record, records_hash
from .engines import Engine
from .plots.figures import ppl_heatmap
from .store.layout import with_ending
from .store.maps import (
    PerplexityFile,
    controls_path,
    precision_of,
    save_csv,
    save_figure,
    with_stored_controls,
    with_whole_sets,
)
from .store.masks import open_mask

# ── Perplexities, cell by cell: each text under each row's intervention, on disk as soon as it is scored.


@dataclass(frozen=True)
class Part:
    """A file to be completed: the map's own, or that of its controls.

    Attributes:
        name: for the progress bar.
        file: where its cells go.
        todo: row → the columns that are missing in it.
    """

    name: str
    file: PerplexityFile
    todo: Mapping[str, Sequence[str]]

    @property
    def cells(self) -> int:
        """How many are missing."""
        return sum(map(len, self.todo.values()))


def score_missing(
    engine: Engine,
    parts: Sequence[Part],
    *,
    rows: Rows,
    records: Mapping[str, Sequence[Record]],
    settings: MapSettings,
    start: StartWork,
) -> None:
    """Score the missing cells, row by row, each put on disk when it is done. What can be refused is refused first.

    Args:
        engine: the model at work.
        parts: what is missing; also those that miss nothing, whose cells must be of the same engine.
        rows: what is done in each row.
        records: language → its part of the corpus.
        settings: which text is scored.
        start: told of each part's work.

    Raises:
        ConflictError: a file holds cells of another engine or precision.
        LNAError: as `Rows.intervention` and the engine.
    """
    for part in parts:
        part.file.read(engine=precision_of(engine.provenance))
        for row in part.todo:
            rows.intervention(row, engine.model)
    texts = _encode(engine, records, settings)
    tokens = {language: sum(len(one.tokens) for one in encoded) for language, encoded in texts.items()}
    for part in [part for part in parts if part.todo]:
        progress = start(part.name, sum(tokens[column] for columns in part.todo.values() for column in columns))
        for row, columns in part.todo.items():
            change = rows.intervention(row, engine.model)
            for column in columns:
                with nullcontext() if change is None else engine.intervene(change):
                    likelihoods = engine.log_likelihood(texts[column], progress=progress)
                # stored only now: closing the context has shown that the intervention took hold
                part.file.add(row, column, perplexity(likelihoods), engine=engine.provenance)


def _encode(
    engine: Engine, records: Mapping[str, Sequence[Record]], settings: MapSettings
) -> dict[str, list[ScoredText]]:
    length = engine.model.max_length
    return {
        language: encode_texts(
            of_language, engine.tokenizer, text=settings.text, max_length=length, overlong=settings.overlong
        )
        for language, of_language in records.items()
    }


@dataclass(frozen=True)
class MapResult:
    """A finished map and where it lies.

    Attributes:
        map: the perplexities, with their controls.
        png: the heatmap.
        csv: the table.
        json: the cells with their provenance.
        controls: those of the controls; None without.
        matched_by: what the controls have in common with what they are controls for; empty without.
        computed: cells that this run computed; the others were there.
        controls_computed: likewise, of the controls.
    """

    map: PerplexityMap
    png: Path
    csv: Path
    json: Path
    controls: Path | None
    matched_by: str
    computed: int
    controls_computed: int

    def effects(self, *, scale: str = "percent", average: str = "token") -> PerplexityEffects:
        """Every change with its interval and its control's range."""
        return perplexity_effects(self.map, scale=scale, average=average)

    def selectivity(self, *, average: str = "token") -> MeasuredSelectivity | None:
        """How selective each language's neurons are; None where rows are no languages."""
        return perplexity_selectivity(self.map, average=average)


def perplexity_map(
    session: Session,
    languages: Sequence[str] | None = None,
    *,
    top_rate: float,
    lam: float | None,
    settings: MapSettings = DEFAULT_MAP,
    overwrite: bool = False,
    start: StartWork = silent,
) -> MapResult:
    """Compute the cells of a map and of its controls that are missing, and draw it.

    Args:
        session: model, corpus and place; a corpus without answers stands for this model's own (`with_stored_answers`).
        languages: rows and columns; None for all languages of the mask.
        top_rate: of the mask.
        lam: λ of the mask; None of a method without.
        settings: what is done, to which neurons, held against at least how many controls; what is scored and shown.
        overwrite: compute every cell again.
        start: told of the work, for a progress bar.

    Raises:
        MissingArtifactError: there is no such mask, or no moments that the steps need.
        IncompatibleError: the mask is another model's.
        ConflictError: the map's file holds cells of other inputs, and not `overwrite`.
    """
    session.layout.selection.at(top_rate, lam)
    doing = Steps.parse(settings.do)
    session = with_stored_answers(session)
    mask = open_mask(session.layout, top_rate=top_rate, lam=lam, checkpoint=session.checkpoint)
    chosen = tuple(languages or mask.languages)
    mask.check_languages(chosen)
    rows = Rows.open(session.layout, mask, doing, classes=settings.classes, seed=settings.seed)
    records = {language: session.corpus.of_language(language) for language in chosen}
    variant = settings.variant + doing.variant(DEFAULT_DO)
    path = session.layout.perplexity(top_rate, lam, variant=variant)
    parts = _parts(path, session, rows, records, settings, overwrite=overwrite)
    if any(part.todo for part in parts):
        score_missing(session.source(), parts, rows=rows, records=records, settings=settings, start=start)
    result = _read(path, parts, chosen, rows)
    own, *controls = parts
    kept = PerplexityFile(controls_path(path), own.file.provenance)
    return MapResult(
        result,
        png=_draw(path, result, settings, title=session.layout.model),
        csv=save_csv(path, result),
        json=own.file.path,
        controls=kept.path if result.controls else None,
        matched_by=kept.made_from()["control_matched_by"] if result.controls else "",
        computed=own.cells,
        controls_computed=sum(part.cells for part in controls),
    )


def _parts(
    path: Path,
    session: Session,
    rows: Rows,
    records: Mapping[str, Sequence[Record]],
    settings: MapSettings,
    *,
    overwrite: bool,
) -> list[Part]:
    """The map's own file and, where there have to be controls, theirs beside it: a map is whole without them."""
    made_from = _provenance(session, rows, records, settings)
    languages, names = tuple(records), rows.names(tuple(records))
    wanted: list[tuple[str, Path, dict[str, Any], tuple[str, ...]]] = [
        ("perplexity", path, made_from, (UNDISTURBED, *names))
    ]
    if settings.controls:
        controlled = {**made_from, **rows.controls.describe()}
        wanted.append(("controls", controls_path(path), controlled, control_rows(names, settings.controls)))
    parts = []
    for name, place, provenance, some in wanted:
        file = PerplexityFile(place, provenance, replace=overwrite)
        parts.append(Part(name, file, cells_to_do(some, languages, file.read(engine=session.source.explicit))))
    return parts


def _read(path: Path, parts: Sequence[Part], languages: tuple[str, ...], rows: Rows) -> PerplexityMap:
    """The finished map, with every set of its controls that is there: none is lost because fewer were asked for.

    Raises:
        ConflictError: controls that were asked for come from another engine or precision.
    """
    own, *controls = parts
    result, made_by = PerplexityMap(languages, own.file.read(), rows.names(languages)), own.file.engine()
    if not controls:
        return with_stored_controls(result, path, own.file.provenance, made_by)
    return with_whole_sets(result, controls[0].file.read(engine=precision_of(made_by)))


def _provenance(
    session: Session, rows: Rows, records: Mapping[str, Sequence[Record]], settings: MapSettings
) -> dict[str, Any]:
    """What decides the value of a cell."""
    return {
        **({"do": rows.doing.describe(rows.source)} if rows.doing.variant(DEFAULT_DO) else {}),
        "mask": rows.controls.mask.digest_of(settings.classes),
        "classes": list(settings.classes),
        "text": settings.text,
        "overlong_policy": settings.overlong,
        "config_hash": session.checkpoint.config_hash,
        "weights_hash": session.checkpoint.weights_hash,
        "corpus": {language: records_hash(of_language) for language, of_language in records.items()},
    }


def _draw(path: Path, result: PerplexityMap, settings: MapSettings, *, title: str) -> Path:
    """The heatmap; a choice of scale or average stands in its name."""
    shown = (settings.scale, settings.average)
    name = path if shown == ("percent", "token") else with_ending(path, f".{'-'.join(shown)}")
    return save_figure(name, ppl_heatmap(result, scale=settings.scale, average=settings.average, title=title))
