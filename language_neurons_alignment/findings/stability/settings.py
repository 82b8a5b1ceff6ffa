"""How language neurons are found again, and how often."""

from __future__ import annotations

from dataclasses import dataclass

from ...config import DEFAULT_BAR, DEFAULT_RANGE, DEFAULT_TOP_RATE, Selection, SweepRange
from ...core.procedure import Procedure


@dataclass(frozen=True)
class StabilitySettings:
    """What is found again, and how often.

    Attributes:
        top_rate: share of neurons selected.
        bar: activation bar.
        lam: λ to select by; None: the largest fine one, found anew in every part and resampling of the corpus.
        lo: smallest λ considered.
        hi: largest λ considered.
        draws: resamplings of the blocks.
        splits: random cuts of the blocks into halves and quarters.
        seed: of both.

    Raises:
        SettingsError: out of range.
    """

    top_rate: float = DEFAULT_TOP_RATE
    bar: float = DEFAULT_BAR
    lam: float | None = None
    lo: float = DEFAULT_RANGE.lo
    hi: float = DEFAULT_RANGE.hi
    draws: int = 400
    splits: int = 50
    seed: int = 0

    def __post_init__(self) -> None:
        SweepRange(self.lo, self.hi)
        Selection(self.top_rate, self.lo if self.lam is None else self.lam, self.bar)

    @property
    def procedure(self) -> Procedure:
        """How neurons are found by these settings."""
        return Procedure(self.top_rate, self.bar, self.lam, self.lo, self.hi)

    @property
    def named(self) -> str:
        """λ in the names of files."""
        return "found" if self.lam is None else repr(float(self.lam))
