"""Results that are also tables. pandas takes a second to load, so it is imported only when a frame is made."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pandas import DataFrame

Columns = dict[str, list[Any]]
"""A table as name of a column → its values; all columns are equally long."""


class Framed(ABC):
    """A result that is also a table with a row for each observation."""

    @abstractmethod
    def columns(self) -> Columns:
        """The table by column, as in the result's CSV file."""

    def to_frame(self) -> DataFrame:
        """The table as a pandas frame."""
        from pandas import DataFrame

        return DataFrame(self.columns())
