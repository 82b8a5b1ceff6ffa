"""Methods compared by what their masks do: each finds neurons, each language's are switched off, perplexity tells."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ._session import Session, with_stored_answers
from .analysis import DEFAULT_CHOICE, Choice, open_neurons
from .config import DEFAULT_MAP, DEFAULT_TOP_RATE, MEAN_DIFFERENCE, METHODS, MapSettings, Method, Selection
from .core.model import StartProgress, silent
from .core.perplexity import MethodTable, method_table
from .errors import SettingsError
from .identify import Identification, find_neurons
from .plots.figures import methods_figure
from .ppl import MapResult, perplexity_map
from .store.counts import AnswerCounts, has_moments, load_answer_counts
from .store.files import save_tables
from .store.layout import Layout
from .store.maps import save_figure
from .store.masks import Mask
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
    methods: Sequence[Method] | None = None,
    *,
    choice: Choice = DEFAULT_CHOICE,
    settings: MapSettings = ALONE,
    overwrite: bool = False,
    start: StartProgress = silent,
) -> MethodComparison:
    """Find the neurons by each method, map what they do, and put the methods side by side.

    Masks and maps lie where `lna identify --method` and `lna ppl --method` put them; what is there is kept.

    Args:
        session: model, corpus and place; counts have to be there.
        methods: at least one; None for all that there are counts, or moments, for.
        choice: top rate, λ, bar and languages; what is None as in the entropy-λ mask that is there, else AutoSweep's.
        settings: what is scored, and of which classes.
        overwrite: find and compute all again.
        start: told of the work, for progress bars.

    Raises:
        SettingsError: no methods, the same twice, or steps other than switching each language off.
        LNAError: as `identify` and `perplexity_map`.
    """
    _check(methods, settings)
    session, layout = with_stored_answers(session), session.layout
    reference = open_neurons(layout, choice)
    lam, bar = reference.description.lam, reference.description.bar
    assert lam is not None  # a Choice is of entropy-λ, found from counts
    assert bar is not None
    counts = load_answer_counts(layout, reference.languages)
    chosen, left_out = _chosen(methods, layout, reference.languages)
    found, maps = {}, {}
    for method in chosen:
        selection = _selection(method, choice.top_rate, lam, bar)
        found[method.name] = _identified(layout, counts, selection, overwrite=overwrite)
        maps[method.name] = perplexity_map(
            replace(session, layout=layout.by(method)),
            reference.languages,
            top_rate=selection.top_rate,
            lam=selection.lam,
            settings=settings,
            overwrite=overwrite,
            start=lambda _, tokens, name=method.name: start(f"perplexity, {name}", tokens),
        )
    table = method_table(
        {name: one.map for name, one in maps.items()},
        {name: one.mask for name, one in found.items()},
        reference=reference.mask,
    )
    path = layout.methods(choice.top_rate, lam, variant=settings.variant)
    files = _write(path, table, tuple(found.values()), tuple(maps.values()), title=layout.model)
    return MethodComparison(table, lam, tuple(found.values()), tuple(maps.values()), left_out, files)


def _check(methods: Sequence[Method] | None, settings: MapSettings) -> None:
    if methods is not None:
        names = [method.name for method in methods]
        if not names or len(set(names)) < len(names):
            raise SettingsError(f"--methods must name methods, each once, got {', '.join(names) or 'none'}")
    if settings.do != DEFAULT_MAP.do:
        raise SettingsError(f"methods are compared by switching their neurons off, got {settings.do}: leave do out")


def _chosen(
    methods: Sequence[Method] | None, layout: Layout, languages: Sequence[str]
) -> tuple[tuple[Method, ...], dict[str, str]]:
    """The methods, and those left out; what was named is never left out."""
    if methods is not None:
        return tuple(methods), {}
    without = [language for language in languages if not has_moments(layout, language)]
    left_out = {}
    if without:
        left_out[MEAN_DIFFERENCE] = f"no moments of {', '.join(without)}: collect them with `lna activation --moments`"
    return tuple(Method(name) for name in METHODS if name not in left_out), left_out


def _selection(method: Method, top_rate: float, lam: float, bar: float) -> Selection:
    """The rates that a method has, of those given."""
    rate = top_rate if method.has_rate else DEFAULT_TOP_RATE
    return Selection(rate, lam if method.has_lambda else None, bar, method)


def _identified(layout: Layout, counts: AnswerCounts, selection: Selection, *, overwrite: bool) -> Identification:
    found = find_neurons(layout, counts, selection)
    Mask(tuple(counts.languages), found.mask, found.description).save(found.path, overwrite=overwrite)
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
