"""Which neurons are selected, and where AutoSweep looks for λ."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..errors import SettingsError
from ..method import DEFAULT_METHOD, Method
from .checks import check_share

DEFAULT_TOP_RATE = 0.01
DEFAULT_BAR = 0.95


@dataclass(frozen=True)
class Selection:
    """What decides which neurons are language neurons (SPEC 3).

    Attributes:
        top_rate: share of all neurons that is selected, in (0, 1].
        lam: λ, how much a large peak probability lowers the score; finite, not negative. None for methods without.
        bar: share of all probabilities that τ lies above, in (0, 1].
        method: how neurons are found.

    Raises:
        SettingsError: NaN or out of range; a rate or λ that the method does not have, or lacks.
    """

    top_rate: float
    lam: float | None
    bar: float = DEFAULT_BAR
    method: Method = DEFAULT_METHOD

    def __post_init__(self) -> None:
        check_share(self.top_rate, "top rate (-r)", 0.01)
        check_share(self.bar, "bar (-b)", 0.95)
        self.method.check_lambda(self.lam)
        if not self.method.has_rate and self.top_rate != DEFAULT_TOP_RATE:
            raise SettingsError(
                f"the method {self.method.name} takes {self.method.neurons} neurons per language: "
                f"leave the top rate (-r {self.top_rate!r}) out"
            )
        if self.lam is not None and not (math.isfinite(self.lam) and self.lam >= 0):
            raise SettingsError(
                f"λ (-l) must be a finite number of at least 0, got {self.lam!r}: "
                "take the one that `lna autosweep` prints"
            )


@dataclass(frozen=True)
class SweepRange:
    """Where and how AutoSweep looks for λ (SPEC 4).

    Attributes:
        lo: smallest λ considered.
        hi: largest λ considered.
        eps: bisection stops at an interval of this length.
        exact: solve for the supremum instead of bisecting; eps is not used then.

    Raises:
        SettingsError: not 0 ≤ lo ≤ hi, or an eps that is not above 0.
    """

    lo: float = 0.0
    hi: float = 0.2
    eps: float = 1e-3
    exact: bool = False

    def __post_init__(self) -> None:
        if not (math.isfinite(self.lo) and math.isfinite(self.hi) and 0 <= self.lo <= self.hi):
            raise SettingsError(
                f"the range of λ must be 0 <= lo <= hi, got --lo {self.lo!r} --hi {self.hi!r}: "
                "give for example --lo 0 --hi 0.2"
            )
        if not (math.isfinite(self.eps) and self.eps > 0):
            raise SettingsError(f"--eps must be a finite number above 0, got {self.eps!r}: give for example 1e-3")
        for name in ("lo", "hi", "eps"):  # λ is a float, also where a whole number was given
            object.__setattr__(self, name, float(getattr(self, name)))


DEFAULT_RANGE = SweepRange()
