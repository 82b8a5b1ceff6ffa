"""Results that are also tables. pandas takes a second to load, so it is imported only when a frame is made."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from html import escape
from itertools import product
from typing import TYPE_CHECKING, Any

from torch import Tensor

if TYPE_CHECKING:
    from pandas import DataFrame

Columns = dict[str, list[Any]]
"""A table as name of a column → its values; all columns are equally long."""


def crossed(axes: Mapping[str, Sequence[Any]], values: Mapping[str, Tensor]) -> Columns:
    """A table with a row for each combination of the axes' labels; the last axis varies fastest.

    >>> import torch
    >>> crossed({"layer": [0, 1], "language": ["en", "fr"]}, {"neurons": torch.tensor([[5, 6], [7, 8]])})
    {'layer': [0, 0, 1, 1], 'language': ['en', 'fr', 'en', 'fr'], 'neurons': [5, 6, 7, 8]}
    """
    labels = zip(*product(*axes.values()), strict=True)
    columns: Columns = {name: list(column) for name, column in zip(axes, labels, strict=True)}
    return columns | {name: one.flatten().tolist() for name, one in values.items()}


def html_table(columns: Columns, *, caption: str) -> str:
    """A table for notebooks: numbers to four digits, everything escaped.

    >>> html_table({"tokens": [1234]}, caption="1 < 2")
    '<table><caption>1 &lt; 2</caption><tr><th>tokens</th></tr><tr><td>1,234</td></tr></table>'
    """

    def shown(value: Any) -> str:
        if isinstance(value, float):
            return f"{value:.4g}"
        return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else escape(str(value))

    head = "".join(f"<th>{escape(name)}</th>" for name in columns)
    rows = ("".join(f"<td>{shown(value)}</td>" for value in row) for row in zip(*columns.values(), strict=True))
    body = "".join(f"<tr>{row}</tr>" for row in rows)
    return f"<table><caption>{escape(caption)}</caption><tr>{head}</tr>{body}</table>"


class Framed(ABC):
    """A result that is also a table with a row for each observation."""

    @abstractmethod
    def columns(self) -> Columns:
        """The table by column, as in the result's CSV file."""

    def to_frame(self) -> DataFrame:
        """The table as a pandas frame."""
        from pandas import DataFrame

        return DataFrame(self.columns())
