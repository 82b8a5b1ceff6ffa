"""Methods of finding language neurons, compared by the effect of their masks on perplexity.

Each method finds neurons from the same counts. A perplexity map shows the effect of switching each language's neurons
off, and the table puts the methods side by side.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from ._session import Session, with_stored_answers
from .analysis import open_neurons
from .config import DEFAULT_MAP, DEFAULT_SELECTION, MEAN_DIFFERENCE, METHODS, MapSettings, Selection
from .core.model import StartProgress, silent
from .core.perplexity import MethodTable, method_table
from .errors import SettingsError
from .identify import Identification, find_neurons
from .plots.draw import write_png
from .plots.figures import methods_figure
from .ppl import MapResult, map_path, perplexity_map
from .store.counts import has_moments
from .store.files import Json, check_writable, save_tables
from .store.grid import cells_path
from .store.layout import Layout, with_ending
from .store.maps import save_picture
from .store.masks import Mask
from .store.replacing import Replacing
from .version import __version__

ALONE = replace(DEFAULT_MAP, controls=0)
"""Maps without controls, because random is one of the methods. Maps that already have controls keep them."""


@dataclass(frozen=True)
class MethodComparison:
    """Methods side by side.

    Attributes:
        table: the effects of their masks.
        left_out: methods that were not named and lack their files, each with the reason.
        files: JSON, CSV and PNG of the table.
    """

    table: MethodTable
    lam: float
    found: tuple[Identification, ...]
    maps: tuple[MapResult, ...]
    left_out: dict[str, str]
    files: tuple[Path, ...] = ()

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences about counts, masks and maps that a reader must know; those of one method begin with its name."""
        by_method = {
            one.description.method: [*one.notes, *drawn.notes] for one, drawn in zip(self.found, self.maps, strict=True)
        }
        shared = [note for note in next(iter(by_method.values())) if all(note in of for of in by_method.values())]
        own = [f"{name}: {note}" for name, notes in by_method.items() for note in notes if note not in shared]
        return (*shared, *own)

    def plain(self) -> Json:
        """The results as plain values."""
        return {
            "masks": {one.description.method: one.description.plain() for one in self.found},
            "maps": {one.description.method: str(drawn.json) for one, drawn in zip(self.found, self.maps, strict=True)},
            "notes": list(self.notes),
            "table": self.table.columns(),
            "version": __version__,
        }


def compare_methods(
    session: Session,
    methods: Sequence[Selection] | None = None,
    *,
    selection: Selection = DEFAULT_SELECTION,
    settings: MapSettings = ALONE,
    overwrite: bool = False,
    start: StartProgress = silent,
) -> MethodComparison:
    """Find neurons with each method, compute their perplexity maps, and write one table and one figure.

    Masks and maps are stored where `lna identify --method` and `lna ppl --method` store them, and are reused.

    >>> import language_neurons_alignment as lna
    >>> with lna.open_session("model", "corpus.json", "toy") as session:
    ...     counted = [lna.collect_activations(session, code) for code in ("en", "es", "fr")]
    ...     selection = Selection(0.1, 0.0, 0.8, languages=("en", "es", "fr"))
    ...     methods = [Selection(method="entropy-lambda"), Selection(method="lape")]
    ...     done = compare_methods(session, methods, selection=selection)
    >>> done.table.methods
    ('entropy-lambda', 'lape')

    Args:
        session: model, corpus and place of the results; the counts must exist.
        methods: at least one, with the values that only it has (`neurons`, `seed`); None for all methods whose files
            (counts, moments) exist.
        selection: top rate, λ, bar and languages; a value of None is that of the stored entropy-λ mask, or for λ
            AutoSweep's.
        settings: scored texts, and classes of neurons to switch off.
        overwrite: find and compute everything again.
        start: starts progress bars.

    Raises:
        SettingsError: no methods, one named twice, or another intervention than switching each language off.
        LNAError: as `identify` and `perplexity_map`.
    """
    if methods is not None:
        names = [method.method for method in methods]
        if not names or len(set(names)) < len(names):
            raise SettingsError(f"--methods must name methods, each once, got {', '.join(names) or 'none'}")
    if settings.do != DEFAULT_MAP.do:
        raise SettingsError(f"methods are compared by switching their neurons off, got {settings.do}: leave do out")
    session, layout = with_stored_answers(session), session.layout
    reference = open_neurons(layout, selection)
    counts, lam, bar = reference.counts, reference.description.lam, reference.description.bar
    assert counts is not None  # the neurons were found from counts, by entropy-λ
    assert lam is not None
    chosen, left_out = _with_files(methods, layout, reference.languages)
    rated = [
        replace(
            method,
            top_rate=selection.top_rate if method.has_rate else Selection.top_rate,
            lam=lam if method.has_lambda else None,
            bar=bar,
        )
        for method in chosen
    ]

    run = {"settings": repr((rated, settings)), "languages": list(reference.languages), **session.hashes}
    path = layout.methods(selection.top_rate, lam, variant=settings.variant)
    check_writable(path)
    replacing = Replacing(with_ending(path, ".replacing.json"), run, overwrite=overwrite)
    found, maps = [], []
    for method in rated:
        one = find_neurons(layout, counts, method)
        Mask(counts.languages, one.mask, one.description).save(one.path, overwrite=replacing.active)
        found.append(one)
        own = layout.by(method)
        maps.append(
            perplexity_map(
                replace(session, layout=own),
                reference.languages,
                top_rate=method.top_rate,
                lam=method.lam,
                settings=replace(settings, title=None),
                overwrite=replacing.again(cells_path(map_path(own, method.top_rate, method.lam, settings))),
                start=lambda _, tokens, name=method.method: start(f"perplexity, {name}", tokens),
            )
        )

    table = method_table(
        {method.method: one.map for method, one in zip(chosen, maps, strict=True)},
        {method.method: one.mask for method, one in zip(chosen, found, strict=True)},
        reference=reference.mask,
    )
    done = MethodComparison(table, lam, tuple(found), tuple(maps), left_out)
    figure = methods_figure(table, model=layout.title, title=settings.title)
    picture = save_picture(path, partial(write_png, figure))
    files = save_tables(path, done.plain(), {"methods": table.columns()})
    replacing.end()
    return replace(done, files=(*files, picture))


def _with_files(
    methods: Sequence[Selection] | None, layout: Layout, languages: Sequence[str]
) -> tuple[tuple[Selection, ...], dict[str, str]]:
    """The methods to compare, and those left out with the reason; a method that is named is never left out."""
    if methods is not None:
        return tuple(methods), {}
    without = ", ".join(language for language in languages if not has_moments(layout, language))
    reason = f"no moments of {without}: collect them with `lna activation --moments`"
    left_out = {MEAN_DIFFERENCE: reason} if without else {}
    return tuple(Selection(method=name) for name in METHODS if name not in left_out), left_out
