"""What `lna evaluate` and `lna force` tell alike: changes with their tests, their controls, and where all lies."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .progress import note

if TYPE_CHECKING:
    from ..causal.evaluation.evaluate import Effects, Evaluated
    from ..causal.forcing.force import Forced, ForcingTable


def effect_header(found: Effects | ForcingTable) -> list[str]:
    """What stands over the columns of `effect_cells`."""
    return ["points [95 %]", "p", *([] if found.control is None else ["control's range", ""])]


def effect_cells(found: Effects | ForcingTable, row: int, column: int) -> list[object]:
    """One change with its interval, its p value, and its control's range where there are controls."""
    at = row, column
    p = found.p_adjusted[at].item()
    cells: list[object] = [
        f"{found.change[at]:+.1f} [{found.interval.low[at]:+.1f}, {found.interval.high[at]:+.1f}]",
        "<0.001" if p < 0.001 else f"{p:.3f}",
    ]
    if found.control is not None and found.inside is not None:
        cells.append(f"{found.control.low[at]:+.1f} … {found.control.high[at]:+.1f}")
        cells.append("within control" if found.inside[at] else "")
    return cells


def effect_data(found: Effects | ForcingTable, matched_by: str | None) -> dict[str, Any]:
    """The same for every cell, as plain values."""
    data: dict[str, Any] = {
        "change": found.change.tolist(),
        "low": found.interval.low.tolist(),
        "high": found.interval.high.tolist(),
        "p": found.p.tolist(),
        "p_adjusted": found.p_adjusted.tolist(),
    }
    if found.control is not None and found.inside is not None:
        data |= {
            "control_low": found.control.low.tolist(),
            "control_high": found.control.high.tolist(),
            "inside_control": found.inside.tolist(),
            "control_matched_by": matched_by,
        }
    return data


def answer_files(done: Evaluated | Forced) -> dict[str, Any]:
    """Where all lies."""
    return {"png": done.png, "csv": done.csv, "json": done.json, "answers": done.answers}


def report_answered(answered: int, whole: int) -> None:
    """Say how many answers were there already: doing nothing is never silent."""
    if answered < whole:
        note(f"{whole - answered} of {whole} answers were there already (--force answers again)")


def report_matching(matched_by: str | None) -> None:
    """Say so where controls have less in common with what they are controls for than they might."""
    if matched_by == "layer":
        note("there are no counts beside the mask, so the controls are matched by layer alone, not by activity")
