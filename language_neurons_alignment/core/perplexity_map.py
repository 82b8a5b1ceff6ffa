"""A perplexity map: how each language's text suffers when each language's neurons are off (SPEC 6)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

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
        languages: codes; the columns.
        cells: (row, column) → perplexity.
        changed: the rows after the undisturbed one, each an intervention; where none is given, the languages, each
            with its own neurons changed.
        controls: the same map with other neurons, of no language, in the place of each row's; one for each control set.
    """

    languages: tuple[str, ...]
    cells: Mapping[tuple[str, str], Perplexity]
    changed: tuple[str, ...] = ()
    controls: tuple[PerplexityMap, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "changed", self.changed or self.languages)

    @property
    def rows(self) -> tuple[str, ...]:
        """The undisturbed row, then those in which something is changed."""
        return (UNDISTURBED, *self.changed)

    @property
    def by_language(self) -> bool:
        """Whether each row changes the neurons of the language of its column."""
        return self.changed == self.languages

    def with_controls(self, cells: Mapping[tuple[str, str], Perplexity], *, sets: int) -> PerplexityMap:
        """The same map with its controls, whose rows are named `fr~1`, `fr~2`, … in `cells`."""
        undisturbed = {(UNDISTURBED, text): self.cells[UNDISTURBED, text] for text in self.languages}
        numbered = [
            {(row, text): cells[control_row(row, number), text] for row in self.changed for text in self.languages}
            for number in range(1, sets + 1)
        ]
        controls = tuple(PerplexityMap(self.languages, {**undisturbed, **one}, self.changed) for one in numbered)
        return replace(self, controls=controls)

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
        return change_of(self.values(average=average), scale=scale)


def change_of(values: Float64[Tensor, "*draw row lang"], *, scale: str) -> Float64[Tensor, "*draw changed lang"]:
    """How far each row of perplexities lies from the first, the undisturbed one (`PerplexityMap.change`).

    Raises:
        SettingsError: a scale that there is not.
    """
    base, changed = values[..., :1, :], values[..., 1:, :]
    if scale == "percent":
        return 100.0 * (changed / base - 1.0)
    if scale == "log1p":
        return changed.log1p() - base.log1p()
    raise SettingsError(f"the scale must be one of {', '.join(SCALES)}; got {scale!r}")


def control_row(row: str, number: int) -> str:
    """The name of a row's control, counted from 1."""
    return f"{row}~{number}"


def cells_to_do(
    rows: Sequence[str], languages: Sequence[str], done: Mapping[tuple[str, str], Perplexity]
) -> dict[str, list[str]]:
    """Row → the columns that are missing in it; rows with nothing to do are left out."""
    todo = {row: [text for text in languages if (row, text) not in done] for row in rows}
    return {row: texts for row, texts in todo.items() if texts}
