"""Step 2: AutoSweep, the largest λ for which no selected neuron belongs to every language.

    λ* = max {λ in [lo, hi] : appear[K](λ) = 0}

appear[K] counts the selected neurons above τ in all K languages. If no hi is given, it lies beyond the largest such λ;
a hi that cuts λ* off is told of. `autosweep` takes a layout, `quick_autosweep` the flags of the command line.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

from .config import DEFAULT_BAR, DEFAULT_RANGE, FIRST_END, Selection, SweepRange, check_share
from .core.find import notes_on
from .core.selection import neuron_statistics
from .core.sweep import Observer, find_lambda, fine_from, notes_on_lambda, unobserved
from .languages import DEFAULT_LANGUAGES, parse_languages
from .store.counts import AnswerCounts, load_answer_counts
from .store.layout import Layout, results_of


@dataclass(frozen=True)
class AutoSweep:
    """The λ that AutoSweep found.

    Attributes:
        shown: λ in at least 6 decimals; read back, it is exactly λ.
        appear: the histogram at λ: selected neurons above τ in exactly j languages, j = 0..K.
        languages: those compared, without the ones left out.
        notes: sentences about λ and the counts that a reader must know.
        hi: the end of the range that was searched.
        largest: the largest λ with appear[K] = 0, in the range or beyond it; ∞ if there is no largest.
    """

    lam: float
    shown: str
    appear: list[int]
    evaluations: int
    languages: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    hi: float = math.nan
    largest: float = math.nan

    @property
    def at_end(self) -> bool:
        """Whether λ is the end of the range, and a larger λ has appear[K] = 0 too."""
        return self.lam == self.hi < self.largest


def autosweep(
    layout: Layout,
    languages: Sequence[str],
    *,
    top_rate: float,
    bar: float = DEFAULT_BAR,
    search: SweepRange = DEFAULT_RANGE,
    observe: Observer = unobserved,
    counts: AnswerCounts | None = None,
    skip_empty: bool = False,
) -> AutoSweep:
    """Find λ from the stored counts, which are read once; nothing is written.

    Args:
        layout: where the counts lie.
        languages: codes.
        top_rate: share of neurons selected.
        bar: activation bar.
        search: range of λ, and whether to bisect or to solve.
        observe: called at each evaluation with λ and its histogram.
        counts: the counts, if they have been read already.
        skip_empty: leave out languages whose answers have no token.

    Raises:
        SweepError: no λ in the range has appear[K] = 0; the message has appear[K] at both ends.
        SettingsError: a rate out of range.
        CorpusError: a language has no answer token, and not `skip_empty`.
        MissingArtifactError, ArtifactError, IncompatibleError: counts that are not there, are damaged, or come from
            different models.
    """
    check_share(top_rate, "top rate (-r)", Selection.top_rate)
    check_share(bar, "bar (-b)", DEFAULT_BAR)
    counts = counts or load_answer_counts(layout, languages, skip_empty=skip_empty)
    probability = counts.probability
    statistics = neuron_statistics(probability, bar=bar, widths=counts.widths)
    found = find_lambda(statistics, top_rate=top_rate, search=search, observe=observe)
    endless = fine_from(statistics, top_rate=top_rate) if math.isinf(found.largest) else None
    notes = (
        *counts.notes,
        *notes_on(statistics, probability, counts.languages),
        *notes_on_lambda(found.lam, largest=found.largest, end=search.hi, endless_from=endless),
    )
    return AutoSweep(
        found.lam,
        show_lambda(found.lam),
        found.appear,
        found.evaluations,
        counts.languages,
        notes,
        hi=found.hi,
        largest=found.largest,
    )


def quick_autosweep(
    model_name: str | None = None,
    model_path: str = "",
    dataset: str = "",
    toprate: float = Selection.top_rate,
    lo: float = 0.0,
    hi: float | None = FIRST_END,
    eps: float = 1e-3,
    bar: float = DEFAULT_BAR,
    *,
    langs: str | Iterable[str] = DEFAULT_LANGUAGES,
    exact: bool = False,
    root: str | Path = ".",
    skip_empty: bool = False,
) -> float:
    """Return λ as a float, from the counts under `root`; prints nothing.

    >>> import language_neurons_alignment as lna
    >>> with lna.open_session("model", "corpus.json", "toy") as session:
    ...     counted = [lna.collect_activations(session, code) for code in ("en", "es", "fr")]
    >>> 0 <= quick_autosweep("Llama", "model", "toy", 0.1, hi=2.0, bar=0.8, langs="en,es,fr") <= 2
    True

    Args:
        model_name: as in file names; None: the family in the model's config.
        model_path: folder or hub id; only its last part is needed.
        dataset: name of the dataset.
        toprate: share of neurons selected.
        lo: smallest λ considered.
        hi: largest λ considered; None: as far as it needs to be (`SweepRange`).
        eps: precision of the bisection.
        bar: activation bar.
        langs: languages, by code or name; the paper's ten by default.
        exact: solve for the supremum instead of bisecting.
        root: folder under which results lie.
        skip_empty: leave out languages whose answers have no token.
    """
    layout = results_of(model_path, dataset, model_name=model_name, root=root)
    search = SweepRange(lo=lo, hi=hi, eps=eps, exact=exact)
    return autosweep(
        layout, parse_languages(langs), top_rate=toprate, bar=bar, search=search, skip_empty=skip_empty
    ).lam


def show_lambda(lam: float) -> str:
    """Write λ in decimals, at least 6 and as many as it has: read back, it is the same λ, and so itself fine.

    >>> show_lambda(0.109375), show_lambda(1e-7)
    ('0.109375', '0.0000001')
    """
    whole, _, decimals = format(Decimal(repr(lam)), "f").partition(".")
    return f"{whole}.{decimals.ljust(6, '0')}"
