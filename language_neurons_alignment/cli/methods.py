"""`lna methods`: ways to find language neurons, compared by what their masks do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from ..config import (
    DEFAULT_MAP,
    DEFAULT_METHOD,
    DEFAULT_TOP_RATE,
    MASK_CLASSES,
    METHODS,
    MapSettings,
    Method,
    parse_languages,
)
from ..method import EQUAL_N, RANDOM
from . import options
from .output import result, table
from .progress import Bars, note
from .setup import answered, session_of

if TYPE_CHECKING:
    from ..findings.methods import MethodComparison


@dataclass(frozen=True)
class Compared:
    """Which neurons, and what of them is switched off to score which text."""

    lam: Annotated[
        float | None,
        typer.Option("-l", "--lam", help="λ of entropy-lambda.", show_default="that of the mask, else AutoSweep's"),
    ] = None
    bar: Annotated[
        float | None, typer.Option("-b", "--bar", help="Activation bar.", show_default="the mask's, else 0.95")
    ] = None
    langs: options.Languages = None
    classes: Annotated[
        str, typer.Option("--classes", help="Neurons to deactivate: any of specific,related,general.")
    ] = ",".join(MASK_CLASSES)
    text: Annotated[str, typer.Option("--text", help="Text to score: instruction, answer, full.")] = DEFAULT_MAP.text
    overlong: options.Overlong = DEFAULT_MAP.overlong

    def shown(self) -> MapSettings:
        """As the use-cases take it: no controls are drawn, for random is one of the methods."""
        return MapSettings(options.parse_classes(self.classes), self.text, self.overlong, controls=0)


def methods(
    model: options.Model,
    data: options.Data,
    results: options.Results,
    engine: options.Engine,
    search: options.Search,
    settings: Compared,
    top_rate: options.TopRate = DEFAULT_TOP_RATE,
    names: Annotated[
        str | None,
        typer.Option(
            "--methods",
            help=f"Any of {','.join(METHODS)}.",
            show_default="all; mean-difference only with moments",
        ),
    ] = None,
    per_language: Annotated[
        int | None, typer.Option("--neurons", help="Neurons per language of equal-n.", show_default="400")
    ] = None,
    mask_seed: Annotated[int, typer.Option("--mask-seed", help="Of the method random.")] = DEFAULT_METHOD.seed,
    force: options.Force = False,
) -> None:
    """Compare ways to find language neurons: switch each method's neurons off and see which language suffers.

    Each method finds its neurons from the same counts, at the same top rate and bar; each language's are switched off,
    and perplexity tells. What is there from `lna identify --method` and `lna ppl --method` is used.
    """
    wanted, shown = _methods(names, per_language, mask_seed), settings.shown()
    languages = None if settings.langs is None else parse_languages(settings.langs)
    from ..findings.methods import compare_methods
    from ..findings.model_neurons import Choice

    choice = Choice(top_rate, settings.lam, settings.bar, languages, search.range())
    work = answered(session_of(model, data, results, engine, existing=True))
    with work, Bars() as bars:
        done = compare_methods(work, wanted, choice=choice, settings=shown, force=force, start=bars.start)
    for name, why in done.left_out.items():
        note(f"{name} is left out, for there are {why}")
    there = sum(len(one.map.rows) * len(one.map.languages) - one.computed for one in done.maps)
    if there:
        note(f"{there} cells of the perplexity maps were there already (--force computes them again)")
    result(
        [f"λ of entropy-lambda = {done.lam!r}", "", *method_lines(done), "", *map(str, done.files)],
        {"lambda": done.lam, **done.table.columns(), "left_out": done.left_out, "files": done.files},
        as_json=results.as_json,
    )


def _methods(names: str | None, per_language: int | None, seed: int) -> list[Method] | None:
    """The methods named, each with the parameters that it has; None for all that can be had."""
    if names is None and per_language is None and not seed:
        return None
    chosen = METHODS if names is None else [name.strip() for name in names.split(",") if name.strip()]
    return [Method(name, per_language if name == EQUAL_N else None, seed if name == RANDOM else 0) for name in chosen]


def method_lines(done: MethodComparison) -> list[str]:
    """One line a method: sizes, what happens to the language and to the others, selectivity, overlap."""
    columns = done.table.columns()
    rows: list[list[object]] = [
        [
            name,
            f"{columns['neurons'][i]:.0f}",
            _with_interval(columns, "own", i, "+.1f"),
            _with_interval(columns, "elsewhere", i, "+.1f"),
            _with_interval(columns, "f1", i, ".3f"),
            f"{columns['jaccard'][i]:.3f}",
        ]
        for i, name in enumerate(done.table.methods)
    ]
    header = ["method", "neurons", "own change [%]", "change elsewhere [%]", "selectivity F1", "Jaccard"]
    return [
        *table(header, rows),
        "means over languages, with 95 % intervals over texts; Jaccard: with the entropy-lambda mask",
    ]


def _with_interval(columns: dict[str, list[float]], name: str, row: int, how: str) -> str:
    value, low, high = (columns[key][row] for key in (name, f"{name}_low", f"{name}_high"))
    return f"{value:{how}} [{low:{how}}, {high:{how}}]"
