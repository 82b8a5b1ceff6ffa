"""A perplexity map: how each language's text suffers when each language's neurons are off (SPEC 6)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float64
from torch import Tensor

from ..errors import IncompatibleError, SettingsError
from .perplexity import Perplexity

UNDISTURBED = "none"
"""The row in which nothing is deactivated."""

SCALES = ("percent", "log1p")
AVERAGES = ("token", "text")


@dataclass(frozen=True)
class PerplexityMap:
    """Perplexities, by what is deactivated (rows) and the language of the text (columns).

    Attributes:
        languages: codes; the columns, and the rows after the undisturbed one.
        cells: (row, column) → perplexity; rows are `UNDISTURBED` and the codes.
    """

    languages: tuple[str, ...]
    cells: Mapping[tuple[str, str], Perplexity]

    @property
    def rows(self) -> tuple[str, ...]:
        """The undisturbed row, then one per language."""
        return (UNDISTURBED, *self.languages)

    def values(self, *, average: str = "token") -> Float64[Tensor, "row lang"]:
        """The perplexities themselves.

        Raises:
            SettingsError: an average that there is not.
            IncompatibleError: a cell is missing.
        """
        if average not in AVERAGES:
            raise SettingsError(f"the average must be one of {', '.join(AVERAGES)}; got {average!r}")
        missing = [(row, text) for row in self.rows for text in self.languages if (row, text) not in self.cells]
        if missing:
            raise IncompatibleError(
                f"the perplexity map misses {len(missing)} cells, the first is {missing[0]}; run `lna ppl` again"
            )
        return torch.tensor(
            [[getattr(self.cells[row, text], average) for text in self.languages] for row in self.rows],
            dtype=torch.float64,
        )

    def change(self, *, scale: str = "percent", average: str = "token") -> Float64[Tensor, "deactivated lang"]:
        """How far each masked row lies from the undisturbed one.

        percent   100 · (PPL / PPL₀ − 1)
        log1p     ln(1 + PPL) − ln(1 + PPL₀), the paper's
        """
        values = self.values(average=average)
        base, masked = values[0], values[1:]
        if scale == "percent":
            return 100.0 * (masked / base - 1.0)
        if scale == "log1p":
            return masked.log1p() - base.log1p()
        raise SettingsError(f"the scale must be one of {', '.join(SCALES)}; got {scale!r}")


def cells_to_do(languages: Sequence[str], done: Mapping[tuple[str, str], Perplexity]) -> dict[str, list[str]]:
    """Row → the columns that are missing in it; rows with nothing to do are left out."""
    rows = (UNDISTURBED, *languages)
    todo = {row: [text for text in languages if (row, text) not in done] for row in rows}
    return {row: texts for row, texts in todo.items() if texts}
