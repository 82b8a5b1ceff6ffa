"""Step 4: perplexity maps, what each language's text loses when each language's neurons are off (SPEC 6)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .config import DEFAULT_MAP, MapSettings, Selection
from .core.interventions import Intervention
from .core.perplexity import perplexity
from .core.perplexity_map import UNDISTURBED, PerplexityMap, cells_to_do
from .corpus.encode import encode_texts
from .corpus.records import Record, records_hash
from .corpus.sequences import ScoredText
from .engines import Engine
from .masks import StoredMask, open_mask
from .plots.ppl_heatmap import ppl_heatmap
from .session import Session, StartWork, silent, with_stored_answers
from .store.layout import with_ending
from .store.ppl_file import PerplexityFile, precision_of, save_csv, save_figure


@dataclass(frozen=True)
class MapResult:
    """A finished map and where it lies.

    Attributes:
        map: the perplexities.
        png: the heatmap.
        csv: the table.
        json: the cells with their provenance.
        computed: cells that this run computed; the others were there.
    """

    map: PerplexityMap
    png: Path
    csv: Path
    json: Path
    computed: int


def perplexity_map(
    session: Session,
    languages: Sequence[str] | None = None,
    *,
    top_rate: float,
    lam: float,
    settings: MapSettings = DEFAULT_MAP,
    force: bool = False,
    start: StartWork = silent,
) -> MapResult:
    """Compute the cells of a map that are missing, and draw it.

    Args:
        session: model, corpus and place; a corpus without answers stands for this model's own (`with_stored_answers`).
        languages: rows and columns; None for all languages of the mask.
        top_rate: of the mask.
        lam: λ of the mask.
        settings: what is deactivated, scored and shown.
        force: compute every cell again.
        start: told of the work, for a progress bar.

    Raises:
        MissingArtifactError: there is no such mask.
        IncompatibleError: the mask is another model's.
        ConflictError: the map's file holds cells of other inputs, and not `force`.
    """
    Selection(top_rate, lam)
    session = with_stored_answers(session)
    mask = open_mask(session.layout, top_rate=top_rate, lam=lam, checkpoint=session.checkpoint)
    chosen = tuple(languages or mask.languages)
    mask.check_languages(chosen)
    records = {language: session.corpus.of_language(language) for language in chosen}
    path = session.layout.perplexity(top_rate, lam, variant=settings.variant)
    file = PerplexityFile(path, _provenance(session, mask, records, settings), replace=force)
    todo = cells_to_do(chosen, file.read(engine=session.source.explicit))
    if todo:
        _compute(session.source(), file, todo, mask=mask, records=records, settings=settings, start=start)
    result = PerplexityMap(chosen, file.read())
    return MapResult(
        result,
        png=_draw(path, result, settings, title=session.layout.model),
        csv=save_csv(path, result),
        json=file.path,
        computed=sum(len(columns) for columns in todo.values()),
    )


def _compute(
    engine: Engine,
    file: PerplexityFile,
    todo: Mapping[str, Sequence[str]],
    *,
    mask: StoredMask,
    records: Mapping[str, Sequence[Record]],
    settings: MapSettings,
    start: StartWork,
) -> None:
    """Score the missing cells, row by row, each put on disk when it is done. What can be refused is refused first."""
    file.read(engine=precision_of(engine.provenance))
    off = {row: mask.neurons_of(row, settings.classes, engine.model) for row in todo if row != UNDISTURBED}
    texts = _encode(engine, records, settings)
    tokens = {language: sum(len(one.tokens) for one in encoded) for language, encoded in texts.items()}
    progress = start("perplexity", sum(tokens[column] for columns in todo.values() for column in columns))
    for row, columns in todo.items():
        for column in columns:
            with engine.intervene(Intervention.zero(off[row])) if row in off else nullcontext():
                likelihoods = engine.log_likelihood(texts[column], progress=progress)
            # stored only now: closing the context has shown that the intervention took hold
            file.add(row, column, perplexity(likelihoods), engine=engine.provenance)


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


def _provenance(
    session: Session, mask: StoredMask, records: Mapping[str, Sequence[Record]], settings: MapSettings
) -> dict[str, Any]:
    """What decides the value of a cell."""
    return {
        "mask": mask.digest_of(settings.classes),
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
