"""`lna ppl`: perplexity maps."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..config import DEFAULT_DO, DEFAULT_TOP_RATE, Selection, parse_languages
from . import options
from .doing_options import Do
from .method_options import By, Lam
from .output import result
from .ppl_output import map_data, map_files, map_table
from .progress import Bars, note
from .setup import answered, session_of

if TYPE_CHECKING:
    from ..ppl import MapResult


def ppl(
    model: options.Model,
    data: options.Data,
    results: options.Results,
    engine: options.Engine,
    shown: options.Map,
    against: options.Controls,
    by: By,
    lam: Lam = None,
    top_rate: options.TopRate = DEFAULT_TOP_RATE,
    langs: options.Languages = None,
    do: Do = None,
    force: options.Force = False,
) -> None:
    """Map how each language's perplexity changes when each language's neurons are switched off.

    Every change comes with its 95 % interval over other texts, and with what as many random neurons do: sets of no
    language, matched by layer and by activity. Changes within that range are marked. --do does something else than
    switching neurons off (`zero each`); `each` is the language of the row, and without it there is one row.
    """
    languages = None if langs is None else parse_languages(langs)
    settings = shown.settings(controls=against.controls, seed=against.seed, do=tuple(do or DEFAULT_DO))
    method = by.chosen()
    Selection(top_rate, lam, method=method)
    from ..ppl import perplexity_map

    work = answered(session_of(model, data, results, engine, existing=True, method=method))
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
    whole = len(drawn.map.rows) * len(drawn.map.languages)
    controls = len(drawn.map.controls) * len(drawn.map.changed) * len(drawn.map.languages)
    for what, there in (("map", whole - drawn.computed), ("map's controls", controls - drawn.controls_computed)):
        if there:
            note(f"{there} cells of the perplexity {what} were there already (--force computes them again)")
    if drawn.controls and drawn.matched_by == "layer":
        note(
            "the controls are matched by layer alone: by activity too where all languages are counted (lna activation)"
        )
