"""`lna ppl`: perplexity maps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..config import DEFAULT_TOP_RATE, MapSettings, Selection, language_name, parse_languages
from . import options
from .output import result, table
from .progress import Bars, note
from .setup import answered

if TYPE_CHECKING:
    from ..ppl import MapResult


def ppl(
    model: options.Model,
    data: options.Data,
    lam: options.Lam,
    results: options.Results,
    engine: options.Engine,
    shown: options.Map,
    top_rate: options.TopRate = DEFAULT_TOP_RATE,
    langs: options.Languages = None,
    force: options.Force = False,
) -> None:
    """Map how each language's perplexity changes when each language's neurons are switched off."""
    languages, settings = None if langs is None else parse_languages(langs), shown.settings()
    Selection(top_rate, lam)
    from ..ppl import perplexity_map
    from ..session import open_session

    named = {"model_name": model.model_name, "root": results.root, "existing": True}
    work = answered(open_session(model.model_path, data, model.dataset, **named, **engine.choices()))
    with work, Bars() as bars:
        drawn = perplexity_map(
            work, languages, top_rate=top_rate, lam=lam, settings=settings, force=force, start=bars.start
        )
    report_map_reuse(drawn)
    result(
        [*map_table(drawn, settings), "", *map(str, map_files(drawn).values())],
        map_data(drawn),
        as_json=results.as_json,
    )


def report_map_reuse(drawn: MapResult) -> None:
    """Say how many cells were there already: doing nothing is never silent."""
    there = len(drawn.map.rows) * len(drawn.map.languages) - drawn.computed
    if there:
        note(f"{there} cells of the perplexity map were there already (--force computes them again)")


def map_table(drawn: MapResult, settings: MapSettings) -> list[str]:
    """Each language's own change beside the largest on any other language, and on English."""
    change = drawn.map.change(scale=settings.scale, average=settings.average).tolist()
    languages = drawn.map.languages
    unit = "%" if settings.scale == "percent" else ""
    rows = []
    for k, code in enumerate(languages):
        others = {other: change[k][j] for j, other in enumerate(languages) if j != k}
        worst = max(others, key=lambda other: others[other]) if others else None
        shown = f"{others[worst]:+.1f}{unit} ({language_name(worst)})" if worst else ""
        rows.append([language_name(code), f"{change[k][k]:+.1f}{unit}", shown])
    return table(["neurons off", "own perplexity", "largest change elsewhere"], rows)


def map_files(drawn: MapResult) -> dict[str, Any]:
    """Where the map lies."""
    return {"png": drawn.png, "json": drawn.json, "csv": drawn.csv}


def map_data(drawn: MapResult) -> dict[str, Any]:
    """The map as plain values."""
    values = drawn.map.values().tolist()
    return {
        "languages": drawn.map.languages,
        "rows": drawn.map.rows,
        "perplexity": values,
        "percent": drawn.map.change().tolist(),
        "computed": drawn.computed,
        **map_files(drawn),
    }
