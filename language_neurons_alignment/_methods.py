"""Methods compared by what their masks do: each finds neurons, each language's are switched off, perplexity tells."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ._session import Session, StartWork, silent, with_stored_answers
from .analysis import open_neurons
from .config import DEFAULT_MAP, DEFAULT_SELECTION, MEAN_DIFFERENCE, METHODS, MapSettings, Selection
from .core.perplexity import MethodTable, method_table
from .errors import SettingsError
from .identify import Identification, find_neurons
from .plots.figures import methods_figure
from .ppl import MapResult, perplexity_map
from .store.counts import AnswerCounts, has_moments, load_answer_counts
from .store.files import save_tables
from .store.layout import Layout
from .store.maps import save_figure
from .store.masks import save_mask
from .version import __version__

ALONE = replace(DEFAULT_MAP, controls=0)
"""No controls are drawn: random is a method here, held against the others. Those that a map has stay its own."""


@dataclass(frozen=True)
class MethodComparison:
    """Methods, compared.

    Attributes:
        table: what their masks do.
        lam: λ of entropy-λ.
        found: what each method found.
        maps: their perplexity maps.
        left_out: methods that were not named and could not be used, with the reason.
        files: JSON, CSV and PNG of the table.
    """

    table: MethodTable
    lam: float
    found: tuple[Identification, ...]
    maps: tuple[MapResult, ...]
    left_out: dict[str, str]
    files: tuple[Path, ...]


def compare_methods(
    session: Session,
    methods: Sequence[Selection] | None = None,
    *,
    selection: Selection = DEFAULT_SELECTION,
    settings: MapSettings = ALONE,
    overwrite: bool = False,
    start: StartWork = silent,
) -> MethodComparison:
    """Find the neurons by each method, map what they do, and put the methods side by side.

    Masks and maps lie where `lna identify --method` and `lna ppl --method` put them; what is there is kept.

    Args:
        session: model, corpus and place; counts have to be there.
        methods: at least one, with the values that only they have (`neurons`, `seed`); None for all that there are
            counts, or moments, for.
        selection: their top rate, λ, bar and languages; what is None as in the entropy-λ mask that is there, else
            AutoSweep's.
        settings: what is scored, and of which classes.
        overwrite: find and compute all again.
        start: told of the work, for progress bars.

    Raises:
        SettingsError: no methods, the same twice, or steps other than switching each language off.
        LNAError: as `identify` and `perplexity_map`.
    """
    _check(methods, settings)
    session, layout = with_stored_answers(session), session.layout
    reference = open_neurons(layout, selection)
    lam, bar = reference.description.lam, reference.description.bar
    assert lam is not None  # of entropy-λ, found from counts
    assert bar is not None
    counts = load_answer_counts(layout, reference.languages)
    chosen, left_out = _chosen(methods, layout, reference.languages)
    found, maps = {}, {}
    for method in chosen:
        name = method.method
        one = _rated(method, selection.top_rate, lam, bar)
        found[name] = _identified(layout, counts, one, overwrite=overwrite)
        maps[name] = perplexity_map(
            replace(session, layout=layout.by(method)),
            reference.languages,
            top_rate=one.top_rate,
            lam=one.lam,
            settings=settings,
            overwrite=overwrite,
            start=lambda _, tokens, name=name: start(f"perplexity, {name}", tokens),
        )
    table = method_table(
        {name: one.map for name, one in maps.items()},
        {name: one.mask for name, one in found.items()},
        reference=reference.mask,
    )
    path = layout.methods(selection.top_rate, lam, variant=settings.variant)
    files = _write(path, table, tuple(found.values()), tuple(maps.values()), title=layout.model)
    return MethodComparison(table, lam, tuple(found.values()), tuple(maps.values()), left_out, files)


def _check(methods: Sequence[Selection] | None, settings: MapSettings) -> None:
    if methods is not None:
        names = [method.method for method in methods]
        if not names or len(set(names)) < len(names):
            raise SettingsError(f"--methods must name methods, each once, got {', '.join(names) or 'none'}")
    if settings.do != DEFAULT_MAP.do:
        raise SettingsError(f"methods are compared by switching their neurons off, got {settings.do}: leave do out")


def _chosen(
    methods: Sequence[Selection] | None, layout: Layout, languages: Sequence[str]
) -> tuple[tuple[Selection, ...], dict[str, str]]:
    """The methods, and those left out; what was named is never left out."""
    if methods is not None:
        return tuple(methods), {}
    without = [language for language in languages if not has_moments(layout, language)]
    left_out = {}
    if without:
        left_out[MEAN_DIFFERENCE] = f"no moments of {', '.join(without)}: collect them with `lna activation --moments`"
    return tuple(Selection(method=name) for name in METHODS if name not in left_out), left_out


def _rated(method: Selection, top_rate: float, lam: float, bar: float) -> Selection:
    """The method with the rates that it has, of those given."""
    rate = top_rate if method.has_rate else Selection.top_rate
    return replace(method, top_rate=rate, lam=lam if method.has_lambda else None, bar=bar)


def _identified(layout: Layout, counts: AnswerCounts, selection: Selection, *, overwrite: bool) -> Identification:
    found = find_neurons(layout, counts, selection)
    save_mask(found.path, found.mask, found.description, overwrite=overwrite)
    return found


def _write(
    path: Path, table: MethodTable, found: Sequence[Identification], maps: Sequence[MapResult], *, title: str
) -> tuple[Path, ...]:
    """The table as JSON and CSV, and the figure."""
    content: dict[str, Any] = {
        "masks": {one.description.method: asdict(one.description) for one in found},
        "maps": {one.description.method: str(drawn.json) for one, drawn in zip(found, maps, strict=True)},
        "table": table.columns(),
        "version": __version__,
    }
    written = save_tables(path, content, {"methods": table.columns()})
    return (*written, save_figure(path, methods_figure(table, title=title)))
