"""`lna stability`: how much of the language neurons is chance."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..config import DEFAULT_BAR, DEFAULT_RANGE, DEFAULT_TOP_RATE, language_name
from . import options
from .output import result, table
from .progress import Bars, note
from .setup import existing_layout, languages_or_default

if TYPE_CHECKING:
    from ..findings.stability.result import Stability

Columns = dict[str, list[Any]]
_FEW = 10
"""With fewer blocks intervals are wide and their spread poorly known."""


def stability(
    model: options.Model,
    results: options.Results,
    top_rate: options.TopRate = DEFAULT_TOP_RATE,
    bar: options.Bar = DEFAULT_BAR,
    lam: Annotated[
        float | None,
        typer.Option("-l", "--lam", help="λ to select by.", show_default="the largest fine one, found again each time"),
    ] = None,
    lo: Annotated[float, typer.Option("--lo", help="Smallest λ.")] = DEFAULT_RANGE.lo,
    hi: Annotated[float, typer.Option("--hi", help="Largest λ.")] = DEFAULT_RANGE.hi,
    langs: options.Languages = None,
    draws: Annotated[int, typer.Option("--draws", help="Resamplings of the blocks.")] = 400,
    splits: Annotated[int, typer.Option("--splits", help="Random cuts of the blocks into halves and quarters.")] = 50,
    seed: Annotated[int, typer.Option("--seed", help="Of resamplings and cuts.")] = 0,
    other: Annotated[
        str | None,
        typer.Option(
            "--with", metavar="DATASET", help="Another dataset counted on this model: do both find the same neurons?"
        ),
    ] = None,
) -> None:
    """Say how far the language neurons would be others on another corpus. Needs counts in blocks, no model.

    `lna activation --blocks 20`, or `lna run --blocks 20`, keeps the counts in blocks.
    """
    languages = languages_or_default(langs)
    from ..findings.stability.settings import StabilitySettings
    from ..findings.stability.stability import stability as examine

    settings = StabilitySettings(top_rate, bar, lam, lo, hi, draws, splits, seed)
    layout = existing_layout(model, results)
    second = (
        None if other is None else existing_layout(options.Model(model.model_path, other, model.model_name), results)
    )
    with Bars("it") as bars:
        found, files = examine(layout, languages, settings, other=second, start=bars.start)
    for remark in remarks(found):
        note(f"note: {remark}")
    tables = found.tables()
    sections = [
        [f"{layout.model} on {layout.dataset}: {found.blocks} blocks, {draws} draws, {splits} splits"],
        number_lines(tables["numbers"]),
        language_lines(tables["inclusion"], tables["halves"], tables["probabilities"]),
        overlap_lines(found),
        [str(path) for path in files],
    ]
    lines = [line for section in sections if section for line in (*section, "")]
    result(lines[:-1], {**found.plain(), "files": files}, as_json=results.as_json)


def remarks(found: Stability) -> list[str]:
    """What a reader must know to read the numbers."""
    notes = []
    if found.blocks < _FEW:
        notes.append(f"{found.blocks} blocks say little about how the corpus varies: count with --blocks 20")
    if found.halves.blocks[1] == 0:
        notes.append("fewer than 4 blocks have no quarters, so λ*, classes and masks have no intervals")
    if found.found.lam >= found.settings.hi:
        notes.append(f"every λ up to {found.settings.hi!r} is fine, so λ* is the range's end and has no interval: --hi")
    if found.without_lambda:
        notes.append(f"in {found.without_lambda} of {found.settings.draws} draws no λ is fine; they are left out")
    return notes


def number_lines(numbers: Columns) -> list[str]:
    """λ*, τ and sizes: of the corpus, of an endless one as its parts say, and the latter's interval."""
    rows: list[list[object]] = []
    for name, value, endless, low, high in zip(*numbers.values(), strict=True):
        digits = 6 if name in ("lambda", "threshold") else 0
        rows.append([name, f"{value:.{digits}f}", f"{endless:.{digits}f}", f"[{low:.{digits}f}, {high:.{digits}f}]"])
    return table(["number", "here", "endless corpus", "its 95 %"], rows)


def language_lines(inclusion: Columns, halves: Columns, probabilities: Columns) -> list[str]:
    """Each language's mask: how sure its neurons are, and what halves agree on."""
    whole = {code: index for index, code in enumerate(inclusion["language"])}
    rows: list[list[object]] = []
    for row, code in enumerate(halves["language"]):
        agreed = f"{halves['jaccard'][row]:.3f} [{halves['low'][row]:.3f}, {halves['high'][row]:.3f}]"
        if code not in whole:
            rows.append([code, "", "", "", "", agreed, ""])
            continue
        own = {name: inclusion[name][whole[code]] for name in ("neurons", "sure", "likely", "likely_outside")}
        width = f"{probabilities['half_width'][whole[code]]:.4f}"
        rows.append([language_name(code), *map(str, own.values()), agreed, width])
    return table(["language", "mask", "sure", "likely", "likely outside", "Jaccard of halves", "p ±"], rows)


def overlap_lines(found: Stability) -> list[str]:
    """What the masks of two corpora have in common."""
    if found.overlap is None:
        return []
    columns = found.overlap.columns()
    rows: list[list[object]] = [
        [code, kind, *(f"{value:.1f}" if code == "mean" else f"{value:.0f}" for value in sizes), *map(_share, shares)]
        for code, kind, *numbers in zip(*columns.values(), strict=True)
        for sizes, shares in [(numbers[:3], numbers[3:])]
    ]
    return table(["language", "set", *found.overlap.datasets, "shared", "of first", "of smaller", "Jaccard"], rows)


def _share(value: float) -> str:
    return "–" if value != value else f"{value:.3f}"
