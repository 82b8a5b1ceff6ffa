"""What languages have in common: how many share a neuron, which pairs, and which sets (paper figures 5 and 15)."""

from __future__ import annotations

from ...core.languages_above import LanguagesAbove
from ...core.overlap import Overlap
from ...core.sharing import Sharing
from ...languages import language_name
from ...plots.axes import language_axis, plain_axis
from ...plots.charts import Bars, Heatmap, Panel, Series
from ..sections import FigureSection, MissingSection, View, exact, single

_SETS = 20
_SETS_TITLE = "The most common sets of languages"


def shared_section(above: LanguagesAbove) -> FigureSection:
    """How many of all neurons are above τ in N = 1..K languages."""
    counts = above.all.sum(dim=0).tolist()
    last = len(counts) - 1
    chart = Bars(
        plain_axis(range(1, last + 1), "languages in which a neuron is above τ"),
        (Panel("neurons", (Series("all neurons", tuple(map(float, counts[1:])), "only"),)),),
        numbers=True,
    )
    return FigureSection(
        "shared",
        "How many languages share a neuron",
        "All neurons of the model, selected or not, by the number of languages in which they fire on more than τ of "
        "the answer tokens. The curve falls from left to right, and rises again at K: neurons of all languages, the "
        "general ones, are more than those of most. In the paper, alignment makes the first fewer and the last more.",
        single(chart),
        f"Not drawn: {counts[0]:,} of {sum(counts):,} neurons are above τ in no language. General: {counts[last]:,}.",
    )


def shared_change_section(before: LanguagesAbove, after: LanguagesAbove, *, names: tuple[str, str]) -> FigureSection:
    """The same for two models, side by side."""
    counts = [one.all.sum(dim=0).tolist() for one in (before, after)]
    last = len(counts[0]) - 1
    series = [
        Series(name, tuple(map(float, of_one[1:])), ink)
        for name, of_one, ink in zip(names, counts, ("before", "after"), strict=True)
    ]
    chart = Bars(
        plain_axis(range(1, last + 1), "languages in which a neuron is above τ"), (Panel("neurons", tuple(series)),)
    )
    general, specific = (counts[1][n] - counts[0][n] for n in (last, 1))
    return FigureSection(
        "shared-change",
        "How many languages share a neuron, in both models",
        "All neurons, selected or not, by the number N of languages in which they are above τ, in the first model and "
        "in the second. τ is each model's own. In the paper's pairs, fewer neurons are left with one language (N = 1) "
        "and more serve several or all: neurons come to be shared.",
        single(chart),
        f"N = 1: {specific:+,}; N = {last}, the general ones: {general:+,}.".replace("-", "−"),
    )


def overlap_section(overlap: Overlap) -> FigureSection:
    """How alike the masks of two languages are."""
    axis, other = language_axis(overlap.languages), language_axis(overlap.languages, "other language")
    jaccard = tuple(map(tuple, overlap.jaccard.tolist()))
    counts = tuple(tuple(map(float, row)) for row in overlap.counts.tolist())
    return FigureSection(
        "overlap",
        "What languages have in common",
        "Jaccard: of the neurons that either language has, the share that both have; 1 on the diagonal by definition, "
        "0 where two languages share nothing. Relatives may stand out (Spanish and French), and so may languages "
        "whose text the tokenizer cuts up alike. The second view counts the common neurons, with a language's whole "
        "mask on the diagonal: a large mask has more in common with everything, which Jaccard corrects for.",
        (
            View("jaccard", "Jaccard", Heatmap(axis, other, _no_diagonal(jaccard), "Jaccard", digits=2)),
            View("counts", "common neurons", Heatmap(axis, other, counts, "common neurons", diagonal=True)),
        ),
        _closest(overlap),
    )


def sets_section(sharing: Sharing) -> FigureSection | MissingSection:
    """The most common sets of languages that related neurons serve."""
    related = [row for row, size in enumerate(sharing.sets.sum(dim=1).tolist()) if size > 1]
    if not related:
        return MissingSection("sets", _SETS_TITLE, "No neuron is related to several languages.")
    rows = related[:_SETS]
    names = [", ".join(map(language_name, sharing.named(row))) for row in rows]
    counts = sharing.counts.tolist()
    chart = Bars(
        plain_axis(["+".join(sharing.named(row)) for row in rows], "languages", [_cut(name) for name in names]),
        (Panel("related neurons", (Series("related neurons", tuple(float(counts[row]) for row in rows), "related"),)),),
        horizontal=True,
        numbers=True,
    )
    total = sum(counts[row] for row in related)
    shown = sum(counts[row] for row in rows)
    return FigureSection(
        "sets",
        _SETS_TITLE,
        "Each bar is a set of languages that some related neurons serve, exactly this set and no other. Families and "
        "scripts come first where a model has learnt them as such. A long tail of rare sets is usual: where a "
        "probability is near τ, chance decides on which side it falls.",
        single(chart),
        f"{len(related):,} sets occur; the {len(rows)} shown hold {exact(shown)} of {exact(total)} related neurons.",
    )


def _no_diagonal(rows: tuple[tuple[float, ...], ...]) -> tuple[tuple[float, ...], ...]:
    """A language with itself says nothing, and its 1 would dim all else."""
    return tuple(tuple(float("nan") if i == j else value for j, value in enumerate(row)) for i, row in enumerate(rows))


def _closest(overlap: Overlap) -> str:
    """The pair of largest Jaccard."""
    jaccard, names = overlap.jaccard.nan_to_num(), list(map(language_name, overlap.languages))
    pairs = [(float(jaccard[i, j]), i, j) for i in range(len(names)) for j in range(i)]
    value, i, j = max(pairs, default=(0.0, 0, 0))
    return "" if value == 0 else f"Closest: {names[j]} and {names[i]}, with {value:.2f}."


def _cut(name: str, most: int = 48) -> str:
    """A long list of languages, cut."""
    return name if len(name) <= most else f"{name[: most - 1]}…"
