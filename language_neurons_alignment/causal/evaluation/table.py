"""An evaluation's outcomes as tensors, and its table."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float64
from torch import Tensor

from ...core.accuracy_map import AccuracyMap, Effects
from ...store.evaluation_file import LETTERS, Cells
from .work import EvaluationWork

HEADER = (
    "row", "language", "questions", "right", "unclear", "share", "change", "low", "high", "p", "p_adjusted",
    "control_low", "control_high", "inside_control",
)  # fmt: skip
"""Shares and changes in percentage points; low and high are the ends of the 95 % interval of the change."""


def accuracy_map(work: EvaluationWork, cells: Cells, asked: Mapping[str, Sequence[str]]) -> AccuracyMap:
    """The tensors of what is stored.

    Args:
        work: which rows and languages.
        cells: (row, language) → a letter for each answer.
        asked: language → its questions, in the order of these.
    """
    languages = tuple(work.records)
    items = dict.fromkeys(item for language in languages for item in asked[language])
    place = {item: number for number, item in enumerate(items)}
    number, spoken, unclear, there = torch.zeros(4, len(work.names), len(languages), len(items), dtype=torch.bool)
    by_letter = {letter: (right, known is True, known is None, True) for (right, known), letter in LETTERS.items()}
    for r, row in enumerate(work.names):
        for k, language in enumerate(languages):
            at = torch.tensor([place[item] for item in asked[language]])
            outcomes = torch.tensor([by_letter[letter] for letter in cells[row, language]])
            for side, tensor in enumerate((number, spoken, unclear, there)):
                tensor[r, k, at] = outcomes[:, side]
    return AccuracyMap(work.changed, languages, work.controls, there[0], number, spoken, unclear)


def table_rows(result: AccuracyMap, found: Effects, measure: str) -> list[list[object]]:
    """One line a cell; what a cell has not is NaN: only changes have tests, and controls nothing to be held against."""
    shares, right = 100 * result.shares(measure), result.right(measure).sum(dim=-1)
    unclear, asked = result.unclear.sum(dim=-1), result.asked.sum(dim=-1)
    tested = [found.interval.low, found.interval.high, found.p, found.p_adjusted]
    ranges = [] if found.control is None else [found.control.low, found.control.high]
    table: list[list[object]] = []
    for r, row in enumerate(result.rows):
        for k, language in enumerate(result.languages):
            counts = [asked[k].item(), right[r, k].item(), unclear[r, k].item(), shares[r, k].item()]
            changed = 0 < r <= len(result.changed)
            effect = _cell(tested, r - 1, k) if changed else [math.nan] * 4
            control = _cell(ranges, r - 1, k) if changed and ranges else [math.nan] * 2
            inside = found.inside[r - 1, k].item() if changed and found.inside is not None else math.nan
            table.append([row, language, *counts, (shares[r, k] - shares[0, k]).item(), *effect, *control, inside])
    return table


def _cell(values: Sequence[Float64[Tensor, "changed lang"]], row: int, column: int) -> list[float]:
    return [one[row, column].item() for one in values]
