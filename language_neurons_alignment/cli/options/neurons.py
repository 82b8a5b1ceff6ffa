"""Which neurons are selected, or looked at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import typer

from ...config import DEFAULT_BAR, DEFAULT_RANGE, DEFAULT_TOP_RATE, SweepRange

TopRate = Annotated[float, typer.Option("-r", "--top-rate", help="Share of all neurons to select.")]
Bar = Annotated[float, typer.Option("-b", "--bar", help="Activation bar: share of all probabilities below τ.")]


@dataclass(frozen=True)
class Neurons:
    """Which of a model's neurons are looked at; what is not given is as in the mask that is there."""

    top_rate: TopRate = DEFAULT_TOP_RATE
    lam: Annotated[
        float | None,
        typer.Option("-l", "--lam", help="λ.", show_default="that of the mask that is there, else AutoSweep's"),
    ] = None
    bar: Annotated[
        float | None,
        typer.Option("-b", "--bar", help="Activation bar.", show_default=f"the mask's, else {DEFAULT_BAR}"),
    ] = None
    langs: Annotated[
        str | None,
        typer.Option("--langs", help="Languages, in order: en,es,fr.", show_default="the mask's, else the ten"),
    ] = None
    mask_only: Annotated[
        bool,
        typer.Option("--mask-only", help="Read the mask and no counts: classes specific and related alone."),
    ] = False


@dataclass(frozen=True)
class Search:
    """Where AutoSweep looks for λ."""

    lo: Annotated[float, typer.Option("--lo", help="Smallest λ.")] = DEFAULT_RANGE.lo
    hi: Annotated[float, typer.Option("--hi", help="Largest λ.")] = DEFAULT_RANGE.hi
    eps: Annotated[float, typer.Option("--eps", help="Bisection ends at an interval of this length.")] = (
        DEFAULT_RANGE.eps
    )
    exact: Annotated[bool, typer.Option("--exact", help="Solve for the largest λ instead of bisecting.")] = False

    def range(self) -> SweepRange:
        """As the use-cases take it."""
        return SweepRange(lo=self.lo, hi=self.hi, eps=self.eps, exact=self.exact)
