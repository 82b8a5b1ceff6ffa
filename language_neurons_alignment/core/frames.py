"""Results that are also tables. pandas takes a second to load, so it is imported only when a frame is made."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
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


class Framed(ABC):
    """A result that is also a table with a row for each observation."""

    @abstractmethod
    def columns(self) -> Columns:
        """The table by column, as in the result's CSV file."""

    def to_frame(self) -> DataFrame:
        """The table as a pandas frame."""
        from pandas import DataFrame

        return DataFrame(self.columns())
