"""λ: how the selected neurons change with it, and what they are at the λ chosen."""

from __future__ import annotations

from collections.abc import Sequence

from ...core.lambda_path import LambdaPath
from ...plots.axes import plain_axis
from ...plots.charts import Bars, Heatmap, Lines, Mark, Panel, Series
from ..sections import FigureSection, View, single

_MOST_PIECES = 1500
_COLUMNS = 33


def appear_section(appear: Sequence[int], *, lam: float) -> FigureSection:
    """The histogram that AutoSweep watches, at the λ of the mask."""
    last = len(appear) - 1
    names = {"unassigned": "above τ nowhere", "specific": "specific", "related": "related", "general": "all languages"}
    series = [
        Series(name, tuple(float(n) if _class_of(j, last) == ink else float("nan") for j, n in enumerate(appear)), ink)
        for ink, name in names.items()
    ]
    chart = Bars(
        plain_axis(range(last + 1), "languages in which a selected neuron is above τ"),
        (Panel("selected neurons", tuple(series)),),
        stacked=True,
        numbers=True,
    )
    return FigureSection(
        "appear",
        "How many languages the selected neurons belong to",
        "The neurons of lowest score, sorted by the number N of languages in which they fire on more than τ of the "
        "answer tokens. N = 1 makes a neuron language-specific, 1 < N < K language-related. N = 0 are selected for "
        "their low entropy, but fire too rarely to belong anywhere: they are in no mask. AutoSweep takes the largest "
        "λ at which the last bar, neurons of all K languages, is empty.",
        single(chart),
        f"At λ = {lam!r}, {appear[last]:,} of {sum(appear):,} selected neurons belong to all {last} languages.",
    )


def path_section(path: LambdaPath, *, lam: float) -> FigureSection:
    """appear[j] as λ runs over the range: by class, and for every j."""
    return FigureSection(
        "lambda-path",
        "The λ path",
        "λ is the method's one free parameter: the larger it is, the more a high activation probability counts "
        "against an even spread over languages. To the left, rare neurons of one language fill the selection; to the "
        "right, neurons that fire often, and at last those that fire in all languages. The λ of this report is the "
        "dashed line. If the curves are flat around it the classes do not hang on its exact value; where they are "
        "steep, they do.",
        (View("classes", "classes", _by_class(path, lam)), View("every-n", "every number of languages", _every(path))),
        f"Over this range the histogram changes at {max(len(path.edges) - 2, 0):,} values of λ.",
    )


def _by_class(path: LambdaPath, lam: float) -> Lines:
    """Exact where there are few pieces; else sampled more finely than a screen shows."""
    if len(path.appear) <= _MOST_PIECES:
        x, rows = path.edges.tolist(), [*path.appear.tolist(), path.appear[-1].tolist()]
    else:
        lams, appear = path.sampled(_MOST_PIECES)
        x, rows = lams.tolist(), appear.tolist()
    parts = {
        "unassigned": ("above τ nowhere", [row[0] for row in rows]),
        "specific": ("specific", [row[1] for row in rows]),
        "related": ("related", [sum(row[2:-1]) for row in rows]),
        "general": ("all languages", [row[-1] for row in rows]),
    }
    series = tuple(Series(name, tuple(map(float, values)), ink) for ink, (name, values) in parts.items())
    return Lines(tuple(x), "λ", "selected neurons", series, steps=True, marks=(Mark(lam, f"λ = {lam:.6g}"),))


def _every(path: LambdaPath) -> Heatmap:
    lams, appear = path.sampled(_COLUMNS)
    numbers = appear.T.tolist()
    return Heatmap(
        rows=plain_axis(range(len(numbers)), "languages above τ"),
        columns=plain_axis([round(lam, 6) for lam in lams.tolist()], "λ", [f"{lam:.3g}" for lam in lams.tolist()]),
        values=tuple(tuple(map(float, row)) for row in numbers),
        label="selected neurons",
        linear_up_to=10.0,
    )


def _class_of(number: int, last: int) -> str:
    """The class of a selected neuron that is above τ in `number` of `last` languages (SPEC 5)."""
    if number == 0:
        return "unassigned"
    return "specific" if number == 1 else "general" if number == last else "related"
