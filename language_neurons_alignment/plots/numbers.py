"""Numbers as figures show them: as short as they can be said, and the same in every form of a figure."""

from __future__ import annotations

import math


def short(value: float, *, digits: int = 0, signed: bool = False) -> str:
    """+109, −3, 0, +25k, ∞; – where there is no number.

    Args:
        value: the number.
        digits: decimals.
        signed: write + before what is above 0; changes have a sign, counts have none.
    """
    if math.isnan(value):
        return "–"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    plus = "+" if signed else ""
    if abs(value) >= 1e7:
        return f"{value:{plus}.0e}".replace("e+0", "e").replace("e+", "e").replace("-", "−")
    if abs(value) >= 10_000:
        return f"{value / 1000:{plus},.0f}k".replace("-", "−")
    rounded = round(value, digits)
    return f"{rounded:{plus}.{digits}f}".replace("-", "−") if rounded else "0"


def number_at_bar(value: float) -> str:
    """A count in full, any other number to three digits; nothing where there is none."""
    if not math.isfinite(value):
        return ""
    return (f"{int(value):,}" if float(value).is_integer() else f"{value:.3g}").replace("-", "−")


def tick(value: float, *, signed: bool = False) -> str:
    """A tick of a colour scale, in plain numbers."""
    return "0" if value == 0 else f"{value:{'+' if signed else ''},g}".replace("-", "−")


def symlog(value: float, *, linear_up_to: float | None) -> float:
    """Where a number lies on a scale that is linear up to a size and logarithmic above it.

        v / t                        |v| ≤ t
        sign(v) (1 + ln(|v| / t))    else

    None for `linear_up_to` leaves the number as it is. ∞ and NaN stay what they are.
    """
    if linear_up_to is None or math.isnan(value):
        return value
    size = abs(value) / linear_up_to
    return math.copysign(size if size <= 1 else 1 + math.log(size), value)


def scale_ticks(largest: float, *, linear_up_to: float | None, diverging: bool) -> list[float]:
    """Round numbers for a colour scale from 0, or from −largest, to `largest`: every power of ten, and 0."""
    if linear_up_to is None:
        step = 10 ** math.floor(math.log10(largest / 2))
        step *= next(factor for factor in (1, 2, 5, 10) if largest / (factor * step) <= 5)
        ticks = [step * k for k in range(int(largest / step + 1e-9) + 1)]
    else:
        first, last = math.floor(math.log10(linear_up_to) + 1e-9), math.floor(math.log10(largest) + 1e-9)
        ticks = [0.0, *(10.0**power for power in range(first, last + 1))]
    return [-value for value in reversed(ticks[1:])] + ticks if diverging else ticks
