"""A perplexity map, for people and for machines."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from ..config import MapSettings, language_name
from .output import table

if TYPE_CHECKING:
    from ..ppl import MapResult

MARKS = {True: "within control", False: "outside control"}


def map_table(drawn: MapResult, settings: MapSettings) -> list[str]:
    """Each change with its interval and its control's range; then how selective each language's neurons are."""
    effects = _Effects(drawn, settings)
    shown = _own_changes(effects) if drawn.map.by_language else _changes(effects)
    unknown = sum(not cell.likelihoods for cell in drawn.map.cells.values())
    if unknown:
        shown.append(f"{unknown} cells know only their sums, so they have no interval: --force computes them again")
    return [*shown, *_selectivity_table(drawn, settings)]


def map_files(drawn: MapResult) -> dict[str, Any]:
    """Where the map lies."""
    controls = {} if drawn.controls is None else {"controls": drawn.controls}
    return {**controls, "png": drawn.png, "json": drawn.json, "csv": drawn.csv}


def map_data(drawn: MapResult) -> dict[str, Any]:
    """The map as plain values; changes, intervals and ranges are in percent, per token."""
    effects, control = drawn.effects(), None
    if effects.control is not None:
        control = {"sets": len(drawn.map.controls), "matched_by": drawn.matched_by, **_ends(effects.control)}
    return {
        "languages": drawn.map.languages,
        "rows": drawn.map.rows,
        "perplexity": drawn.map.values().tolist(),
        "percent": effects.change.tolist(),
        "interval": _ends(effects.interval),
        "control": control,
        "within_control": None if control is None else effects.inside.tolist(),
        "selectivity": _selectivity_data(drawn),
        "computed": drawn.computed,
        "controls_computed": drawn.controls_computed,
        **map_files(drawn),
    }


class _Effects:
    """The changes of a map, cell by cell in words."""

    def __init__(self, drawn: MapResult, settings: MapSettings) -> None:
        self.map = drawn.map
        effects = drawn.effects(scale=settings.scale, average=settings.average)
        self.change = effects.change.tolist()
        self._digits, self._unit = (1, "%") if settings.scale == "percent" else (3, "")
        self._interval = [effects.interval.low.tolist(), effects.interval.high.tolist()]
        control = effects.control
        self._control = None if control is None else [control.low.tolist(), control.high.tolist()]
        self._inside = effects.inside.tolist()

    def cell(self, i: int, j: int) -> list[object]:
        """Change, interval, control's range, and where the change lies."""
        shown: list[object] = [self.number(i, j), _span(self._interval, i, j, digits=self._digits)]
        if self._control is not None:
            shown += [_span(self._control, i, j, digits=self._digits), MARKS[self._inside[i][j]]]
        return shown

    @property
    def header(self) -> list[str]:
        """Of `cell`, after the change."""
        return ["95 % interval"] if self._control is None else ["95 % interval", "control's range", ""]

    def number(self, i: int, j: int) -> str:
        """A change with its unit."""
        return f"{self.change[i][j]:+.{self._digits}f}{self._unit}"

    def marked(self, i: int, j: int) -> str:
        """A change of another language, and whether it is within control."""
        mark = "" if self._control is None or not self._inside[i][j] else f", {MARKS[True]}"
        return f"{self.number(i, j)} ({language_name(self.map.languages[j])}){mark}"


def _own_changes(effects: _Effects) -> list[str]:
    """Each language's own change, and the largest on any other language."""
    rows = []
    for k, code in enumerate(effects.map.languages):
        others = [j for j in range(len(effects.map.languages)) if j != k]
        worst = max(others, key=lambda j, k=k: effects.change[k][j]) if others else None
        elsewhere = "" if worst is None else effects.marked(k, worst)
        rows.append([language_name(code), *effects.cell(k, k), elsewhere])
    return table(["neurons off", "own perplexity", *effects.header, "largest change elsewhere"], rows)


def _changes(effects: _Effects) -> list[str]:
    """The change of each language's text, row by row."""
    rows = [
        [row, language_name(code), *effects.cell(i, j)]
        for i, row in enumerate(effects.map.changed)
        for j, code in enumerate(effects.map.languages)
    ]
    return table(["row", "text", "perplexity", *effects.header], rows)


def _selectivity_table(drawn: MapResult, settings: MapSettings) -> list[str]:
    """Precision, recall and F1 of each language's neurons, beside what controls reach."""
    found = drawn.selectivity(average=settings.average)
    if found is None:
        return []
    measures = [
        (
            getattr(found.measured, name).tolist(),
            [getattr(found.low, name).tolist(), getattr(found.high, name).tolist()],
        )
        for name in ("precision", "recall", "f1")
    ]
    span = None if found.f1_control is None else [found.f1_control.low.tolist(), found.f1_control.high.tolist()]
    rows = []
    for k, code in enumerate(drawn.map.languages):
        shown = [f"{value[k]:.2f} {_bracketed(ends[0][k], ends[1][k])}".rstrip() for value, ends in measures]
        control = [] if span is None else [_between(span[0][k], span[1][k], "{:.2f}")]
        rows.append([language_name(code), *shown, *control])
    header = ["selectivity", "precision", "recall", "F1", *([] if span is None else ["F1 of controls"])]
    return ["", *table(header, rows)]


def _selectivity_data(drawn: MapResult) -> dict[str, Any] | None:
    found = drawn.selectivity()
    if found is None:
        return None
    return {
        name: {
            "value": _numbers(getattr(found.measured, name)),
            "low": _numbers(getattr(found.low, name)),
            "high": _numbers(getattr(found.high, name)),
            "control": None if found.control is None else _numbers(getattr(found.control, name)),
        }
        for name in ("precision", "recall", "f1")
    } | {"f1_control": None if found.f1_control is None else _ends(found.f1_control)}


def _ends(interval: Any) -> dict[str, Any]:
    return {"low": _numbers(interval.low), "high": _numbers(interval.high)}


def _numbers(values: Any) -> Any:
    """Nested lists, with null for what JSON has not."""
    if isinstance(values, float):
        return values if math.isfinite(values) else None
    return [_numbers(one) for one in (values if isinstance(values, list) else values.tolist())]


def _span(ends: list[list[list[float]]], i: int, j: int, *, digits: int) -> str:
    return _between(ends[0][i][j], ends[1][i][j], f"{{:+.{digits}f}}")


def _between(low: float, high: float, form: str) -> str:
    """Two ends in words; nothing where there are none."""
    return "–" if math.isnan(low) or math.isnan(high) else f"{form.format(low)} to {form.format(high)}"


def _bracketed(low: float, high: float) -> str:
    return "" if math.isnan(low) or math.isnan(high) else f"[{low:.2f}, {high:.2f}]"
