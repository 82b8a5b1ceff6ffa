"""Step 4: perplexity maps. What does each language's text lose when each language's neurons are off?"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from ._controls import controls_for, open_source_and_controls
from ._grid import Condition, Conditions, conditions_of, missing, under
from ._interventions import NeuronSource
from ._loaded import Model
from ._operations import Steps
from ._session import Session, with_stored_answers
from .config import DEFAULT_DO, DEFAULT_MAP, MapSettings
from .core.effects import Effects, Selectivity
from .core.frames import Columns, Framed, html_table
from .core.interventions import Intervention
from .core.model import Progress, StartProgress, silent
from .core.perplexity import (
    Perplexity,
    PerplexityMap,
    TextLikelihood,
    perplexity,
    perplexity_effects,
    perplexity_selectivity,
)
from .corpus.encode import encode_texts
from .corpus.records import Record, Texts, corpus_of, records_hash
from .engines import Engine, each
from .errors import SettingsError
from .languages import parse_languages
from .plots.draw import write_png
from .plots.figures import ppl_heatmap
from .store import maps
from .store.files import Json
from .store.grid import GridFile, Key, precision_of
from .store.layout import Layout, with_ending
from .store.masks import Mask, open_mask

if TYPE_CHECKING:
    from .plots.figures import Figure

_BYTES_A_TEXT = 25
"""What a cell takes on disk for each of its texts: a likelihood in full precision, and a number of tokens."""


DEFAULT_IN_MEMORY = MapSettings(text="answer")
"""What a map of a model in memory measures: the text that is counted, so that prompts are context."""


@dataclass(frozen=True, repr=False)
class MapResult(Framed):
    """A finished map, and its files where it has any.

    Attributes:
        map: the perplexities, with their controls.
        settings: what was measured.
        json: the cells, and what they were made from; None, as are the other files, for a map in memory.
        matched_by: what controls have in common with the neurons that they stand for; empty without.
        computed: cells that this run computed; the others were there.
        controls_computed: the same for cells of controls.
        notes: sentences about the map that a reader must know.
    """

    map: PerplexityMap
    settings: MapSettings
    matched_by: str
    computed: int
    controls_computed: int
    png: Path | None = None
    csv: Path | None = None
    json: Path | None = None
    controls: Path | None = None
    notes: tuple[str, ...] = ()

    def effects(self, *, scale: str = "percent", average: str = "token") -> Effects:
        """Every change with its interval and its control's range."""
        return perplexity_effects(self.map, scale=scale, average=average)

    def selectivity(self, *, average: str = "token") -> Selectivity | None:
        """How selective each language's neurons are; None where rows are no languages."""
        return perplexity_selectivity(self.map, average=average)

    def columns(self) -> Columns:
        """A row for each cell: whose neurons are off, the language of the text, its perplexity, and what changed."""
        return maps.table(self.map)

    def plot(self, *, title: str | None = None) -> Figure:
        """Draw the change of each cell, as `settings` say; `title` replaces the default one, and "" draws none."""
        return _drawn(self.map, self.settings, title=title)

    def __repr__(self) -> str:
        rows, columns = ", ".join(self.map.changed), ", ".join(self.map.languages)
        controls = f", {len(self.map.controls)} control sets" if self.map.controls else ""
        return f"MapResult({rows} off, on texts in {columns}{controls})"

    def _repr_html_(self) -> str:
        shown, average = self.settings.scale, self.settings.average
        change = self.map.change(scale=shown, average=average).T.tolist()
        columns = {"off": list(self.map.changed), **dict(zip(self.map.languages, change, strict=True))}
        return html_table(columns, caption=f"Change of perplexity by language of the text, {shown}")


@overload
def perplexity_map(
    session: Session,
    languages: Sequence[str] | None = None,
    *,
    top_rate: float,
    lam: float | None,
    settings: MapSettings = DEFAULT_MAP,
    overwrite: bool = False,
    start: StartProgress = silent,
) -> MapResult: ...
@overload
def perplexity_map(
    model: Model,
    texts: Texts,
    neurons: Mask,
    /,
    *,
    settings: MapSettings = DEFAULT_IN_MEMORY,
    start: StartProgress = silent,
) -> MapResult: ...


def perplexity_map(
    session: Session | Model,
    languages: Sequence[str] | Texts | None = None,
    neurons: Mask | None = None,
    *,
    top_rate: float | None = None,
    lam: float | None = None,
    settings: MapSettings | None = None,
    overwrite: bool = False,
    start: StartProgress = silent,
) -> MapResult:
    """Compute the perplexity of every language's text under every condition, and draw the map.

    `perplexity_map(model, texts, neurons)` maps a model in memory (`lna.load`) and writes nothing;
    `perplexity_map(session, top_rate=…, lam=…)` keeps every cell in files.

    Conditions are: nothing changed, each language's neurons changed, and random controls of each. Cells of an earlier
    run are kept. A run that was cut off, also by a kill, goes on where it stopped when it is started again.

    >>> import language_neurons_alignment as lna
    >>> with lna.open_session("model", "corpus.json", "toy") as session:
    ...     counted = [lna.collect_activations(session, code) for code in ("en", "es", "fr")]
    ...     found = lna.identify.identify(session.layout, ("en", "es", "fr"), lna.config.Selection(0.1, 0.0, 0.8))
    ...     done = perplexity_map(session, top_rate=0.1, lam=0.0, settings=MapSettings(controls=0))
    >>> tuple(done.map.change().shape)  # percent [neurons off, language of the text]
    (3, 3)

    >>> texts = {"en": ["Two doors, two keys."], "es": ["Dos puertas, dos llaves."], "sw": ["Milango miwili."]}
    >>> model = lna.load("model", device="cpu")
    >>> neurons = model.count(texts).find_neurons(lna.config.Selection(top_rate=0.1, bar=0.8))
    >>> perplexity_map(model, texts, neurons)
    MapResult(en, es, sw off, on texts in en, es, sw, 5 control sets)

    Args:
        session: model, corpus and place; a corpus without answers stands for this model's own (`with_stored_answers`).
            Or a model in memory.
        languages: rows and columns; None for all languages of the mask. Of a model in memory, the texts, as for
            `Model.count`; the columns are their languages.
        neurons: of a model in memory: whose languages are the rows.
        top_rate: of a session's mask.
        lam: λ of a session's mask; None for a method without λ.
        settings: what is done to which neurons, the least number of control sets, what is scored (of a model in memory,
            the answers: plain texts are scored whole) and shown.
        overwrite: compute every cell again; the old map stays until all are finished.
        start: gives the progress bar.

    Raises:
        MissingArtifactError: there is no such mask, or no moments that the steps need.
        IncompatibleError: the mask is another model's.
        ConflictError: the map's file holds cells of other inputs, and not `overwrite`.
    """
    if isinstance(session, Model):
        if languages is None or neurons is None or top_rate is not None or lam is not None or overwrite:
            raise SettingsError(
                "a map of a model in memory takes the model, texts and neurons: perplexity_map(model, texts, neurons); "
                "top_rate=, lam= and overwrite= are a session's"
            )
        texts: Any = languages
        return _in_memory(session, texts, neurons, DEFAULT_IN_MEMORY if settings is None else settings, start)
    if neurons is not None or top_rate is None:
        raise SettingsError(
            "a session's map takes the rates of its mask: perplexity_map(session, top_rate=…, lam=…); neurons go with "
            "a model that lna.load gives"
        )
    settings = DEFAULT_MAP if settings is None else settings
    # read
    session.layout.selection.at(top_rate, lam)
    steps = Steps.parse(settings.do)
    session = with_stored_answers(session)
    layout = session.layout
    mask = open_mask(layout, top_rate=top_rate, lam=lam, checkpoint=session.checkpoint)
    chosen = parse_languages(languages) if languages else mask.languages  # pyright: ignore[reportArgumentType]
    mask.check_languages(chosen)
    source, controls = open_source_and_controls(
        session, mask, steps, classes=settings.classes, sets=settings.controls, seed=settings.seed
    )
    conditions = Conditions(steps, source, controls)
    records = {language: session.corpus.of_language(language) for language in chosen}

    # list the cells, and which are missing
    rows = conditions.rows(chosen)
    cells = [(condition, text) for condition in conditions_of(rows, settings.controls) for text in chosen]
    path = map_path(layout, top_rate, lam, settings)
    wanted = _wanted(cells, conditions, records, session, settings, mask=mask.digest_of(settings.classes))
    file = maps.map_grid(path, wanted, overwrite=overwrite)
    todo = missing(cells, file.read(engine=session.source.explicit))

    # run
    if todo:
        texts = sum(len(records[text]) for columns in todo.values() for text in columns)
        file.prepare(needed=texts * _BYTES_A_TEXT)
        _score(file, todo, conditions, records, session, settings, start)

    # draw, then write the summary: where it is there, so is all the rest
    finished = file.finish()
    stored = file.cells()
    own = {(row, text): stored[row, text] for row in ("none", *rows) for text in chosen}
    result = maps.with_controls(PerplexityMap(chosen, maps.perplexities(own), rows), stored)
    drawn = next(iter(maps.controls_of(stored).values())).made_from if result.controls else {}
    shown = (settings.scale, settings.average)
    name = path if shown == ("percent", "token") else with_ending(path, f".{'-'.join(shown)}")
    figure = _drawn(result, settings, model=layout.title)
    png, csv = maps.save_picture(name, partial(write_png, figure)), maps.save_csv(path, result)
    if finished:
        maps.save_map(path, stored, table=csv)
    file.end()
    return MapResult(
        result,
        settings,
        png=png,
        csv=csv,
        json=with_ending(path, ".json"),
        controls=maps.controls_path(path) if result.controls else None,
        matched_by=drawn.get("control_matched_by", ""),
        computed=sum(len(texts) for condition, texts in todo.items() if not condition.control),
        controls_computed=sum(len(texts) for condition, texts in todo.items() if condition.control),
        notes=(*conditions.notes(rows), *_unchanged(result)),
    )


def _in_memory(model: Model, texts: Texts, neurons: Mask, settings: MapSettings, start: StartProgress) -> MapResult:
    """The map of a model in memory."""
    steps, corpus = Steps.parse(settings.do), corpus_of(texts)
    mask = model.check(neurons)
    source = NeuronSource.open(None, steps, mask=mask, classes=settings.classes, checkpoint=model.checkpoint)
    controls = controls_for(source, mask, mask.counts, sets=settings.controls, seed=settings.seed)
    conditions = Conditions(steps, source, controls)
    rows, columns = conditions.rows(mask.languages), corpus.languages
    if set(columns) == set(mask.languages):
        columns = mask.languages
    records = {language: corpus.of_language(language) for language in columns}
    todo = dict.fromkeys(conditions_of(rows, settings.controls), columns)
    cells = {
        (condition.name, text): found
        for condition, text, found in _scored(model.engine, todo, conditions, records, settings, start)
    }
    result = PerplexityMap(columns, cells, rows)
    if settings.controls:
        result = result.with_controls(cells, sets=settings.controls)
    return MapResult(
        result,
        settings,
        matched_by="" if controls is None else controls.matched_by,
        computed=(1 + len(rows)) * len(columns),
        controls_computed=settings.controls * len(rows) * len(columns),
        notes=(*conditions.notes(rows), *_unchanged(result)),
    )


def _drawn(result: PerplexityMap, settings: MapSettings, *, model: str = "", title: str | None = None) -> Figure:
    shown = {"scale": settings.scale, "average": settings.average, "do": settings.do}
    return ppl_heatmap(result, **shown, model=model, title=settings.title if title is None else title)


def map_path(layout: Layout, top_rate: float, lam: float | None, settings: MapSettings) -> Path:
    """Return where a map lies, without its ending."""
    return layout.perplexity(top_rate, lam, variant=settings.variant + Steps.parse(settings.do).variant(DEFAULT_DO))


def _wanted(
    cells: Sequence[tuple[Condition, str]],
    conditions: Conditions,
    records: Mapping[str, Sequence[Record]],
    session: Session,
    settings: MapSettings,
    *,
    mask: str,
) -> dict[Key, Json]:
    """Return what decides the value of each cell."""
    whole = {
        **({"do": conditions.source.describe(conditions.steps)} if conditions.steps.variant(DEFAULT_DO) else {}),
        "mask": mask,
        "classes": list(settings.classes),
        "text": settings.text,
        "overlong_policy": settings.overlong,
        **session.hashes_of_all,
    }
    drawn = {} if conditions.controls is None else conditions.controls.describe()
    own = {text: {**whole, "corpus": {text: records_hash(of_language)}} for text, of_language in records.items()}
    controlled = {text: {**one, **drawn} for text, one in own.items()}
    return {(one.name, text): controlled[text] if one.control else own[text] for one, text in cells}


def _unchanged(result: PerplexityMap) -> list[str]:
    """Say in which rows no perplexity is any different."""
    still = (result.change() == 0).all(dim=-1).tolist()
    rows = [row for row, one in zip(result.changed, still, strict=True) if one]
    if len(rows) == len(result.changed):
        return [
            "no perplexity in the whole map differs from the undisturbed one, so it shows nothing about these neurons"
        ]
    return [f"no perplexity differs from the undisturbed one in the rows {', '.join(rows)}"] if rows else []


def _score(
    file: GridFile,
    todo: Mapping[Condition, Sequence[str]],
    conditions: Conditions,
    records: Mapping[str, Sequence[Record]],
    session: Session,
    settings: MapSettings,
    start: StartProgress,
) -> None:
    """Score the missing cells; each is on disk as soon as it is done."""
    engine = session.source()
    file.read(engine=precision_of(engine.provenance))
    with closing(_scored(engine, todo, conditions, records, settings, start)) as cells:
        for condition, text, found in cells:
            # stored only now: closing the context has shown that the intervention took hold
            file.append({(condition.name, text): maps.cell_to_json(found)}, engine=engine.provenance)


def _scored(
    engine: Engine,
    todo: Mapping[Condition, Sequence[str]],
    conditions: Conditions,
    records: Mapping[str, Sequence[Record]],
    settings: MapSettings,
    start: StartProgress,
) -> Generator[tuple[Condition, str, Perplexity], None, None]:
    """Score texts under conditions, one cell after the other."""
    changes = conditions.check_model(todo, engine.model)
    choices = {"text": settings.text, "max_length": engine.model.max_length, "overlong": settings.overlong}
    texts = {language: encode_texts(of, engine.tokenizer, **choices) for language, of in records.items()}
    tokens = {language: sum(len(one.tokens) for one in encoded) for language, encoded in texts.items()}
    with engine.reuse(changes, tokens=sum(tokens.values())):
        for label, control in (("perplexity", False), ("controls", True)):
            part = {condition: columns for condition, columns in todo.items() if bool(condition.control) == control}
            if not part:
                continue
            progress = start(label, sum(tokens[text] for columns in part.values() for text in columns))
            cells = (
                (condition, change, text)
                for condition, columns in part.items()
                for change in [conditions.intervention(condition, engine.model)]
                for text in columns
            )

            def score(
                cell: tuple[Condition, Intervention | None, str], progress: Progress = progress
            ) -> list[TextLikelihood]:
                _, change, text = cell
                with under(engine, change):
                    return engine.log_likelihood(texts[text], progress=progress)

            for (condition, _, text), likelihoods in each(engine, score, cells):
                yield condition, text, perplexity(likelihoods)
