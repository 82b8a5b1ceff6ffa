"""Results as tables: columns of plain values, and the pandas frame of them.

A room of its own, so that pandas, which takes a second to load, is imported here alone and only when a frame is made.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pandas import DataFrame

Columns = dict[str, list[Any]]
"""A table by column, every column equally long."""


class Framed(ABC):
    """A result that is also a table, one row an observation."""

    @abstractmethod
    def columns(self) -> Columns:
        """The table, column by column: what the CSV file of this result holds."""

    def to_frame(self) -> DataFrame:
        """The table as a pandas frame."""
        from pandas import DataFrame

        return DataFrame(self.columns())
