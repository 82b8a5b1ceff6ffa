"""What a perplexity map shows, held against chance: intervals by resampling texts, ranges of controls, selectivity."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float64
from torch import Tensor

from ..errors import IncompatibleError
from .perplexity import Perplexity
from .perplexity_map import PerplexityMap, change_of
from .resampling import DRAWS, Interval, control_range, interval, resampling_weights
from .selectivity import Selectivity, selectivity


@dataclass(frozen=True)
class PerplexityEffects:
    """The changes of a map, each with what it is held against.

    Attributes:
        change: of perplexity against the undisturbed row.
        interval: where it lies with other texts of the same kind; NaN where a cell knows only its sums.
        control: where the change by another control of the same row would lie; None without controls.
        inside: which changes lie in there, and so may be those of any neurons; none without controls.
    """

    change: Float64[Tensor, "changed lang"]
    interval: Interval
    control: Interval | None
    inside: Bool[Tensor, "changed lang"]


@dataclass(frozen=True)
class MeasuredSelectivity:
    """How selective each language's neurons are, in the map and in its controls.

    Attributes:
        measured: precision, recall and F1.
        low, high: ends of their intervals over other texts; NaN where a cell of the row knows only its sums.
        control: mean over the control sets; None without controls.
        f1_control: where the F1 of another control would lie, within 0 and 1.
    """

    measured: Selectivity
    low: Selectivity
    high: Selectivity
    control: Selectivity | None
    f1_control: Interval | None


def perplexity_effects(result: PerplexityMap, *, scale: str = "percent", average: str = "token") -> PerplexityEffects:
    """A map's changes, their intervals and their controls' ranges, in one scale and average.

    Raises:
        IncompatibleError: a cell is missing, or the rows of a column are not over the same texts.
    """
    change = result.change(scale=scale, average=average)
    drawn = interval(change_of(resampled(result, average=average), scale=scale))
    control = range_of_controls(result, scale=scale, average=average)
    inside = torch.zeros_like(change, dtype=torch.bool) if control is None else control.holds(change)
    return PerplexityEffects(change, drawn, control, inside)


def range_of_controls(result: PerplexityMap, *, scale: str = "percent", average: str = "token") -> Interval | None:
    """Where the change by another control of the same row would lie; None without controls.

    Raises:
        SettingsError: a single control has no range.
    """
    if not result.controls:
        return None
    return control_range(torch.stack([one.change(scale=scale, average=average) for one in result.controls]))


def perplexity_selectivity(result: PerplexityMap, *, average: str = "token") -> MeasuredSelectivity | None:
    """Selectivity of the damage to likelihood, 1 / PPL; None where rows and columns are not the same languages.

    Raises:
        IncompatibleError: as `perplexity_effects`.
    """
    if not result.by_language:
        return None
    measured, drawn = _of_values(result.values(average=average)), _of_values(resampled(result, average=average))
    ends = [interval(getattr(drawn, name)) for name in ("precision", "recall", "f1")]
    low, high = Selectivity(*(one.low for one in ends)), Selectivity(*(one.high for one in ends))
    if not result.controls:
        return MeasuredSelectivity(measured, low, high, None, None)
    sets = _of_values(torch.stack([one.values(average=average) for one in result.controls]))
    mean = Selectivity(sets.precision.mean(dim=0), sets.recall.mean(dim=0), sets.f1.mean(dim=0))
    span = control_range(sets.f1)
    return MeasuredSelectivity(measured, low, high, mean, Interval(span.low.clamp(min=0), span.high.clamp(max=1)))


def resampled(result: PerplexityMap, *, average: str = "token", draws: int = DRAWS) -> Float64[Tensor, "draw row lang"]:
    """The map's perplexities over texts drawn again with replacement, the same texts for every row of a column.

        w[b, i] = how often draw b has text i,   Σ_i w = n
        token   exp(Σ_i w · nll / Σ_i w · tokens)
        text    exp(1/n · Σ_i w · nll / tokens)

    Columns of as many texts get the same draws, so that parallel texts are drawn together. NaN where a cell knows only
    its sums.
    """
    drawn = torch.full((draws, len(result.rows), len(result.languages)), math.nan, dtype=torch.float64)
    for j, language in enumerate(result.languages):
        column = [result.cells[row, language] for row in result.rows]
        known = [i for i, cell in enumerate(column) if cell.likelihoods]
        if known:
            drawn[:, known, j] = _resampled_column([column[i] for i in known], language, average=average, draws=draws)
    return drawn


def _resampled_column(
    cells: list[Perplexity], language: str, *, average: str, draws: int
) -> Float64[Tensor, "draw row"]:
    """The perplexities of one column over resampled texts."""
    tokens = {tuple(one.tokens for one in cell.likelihoods) for cell in cells}
    if len(tokens) > 1:
        raise IncompatibleError(
            f"the rows of the perplexity map are over different texts in {language}: compute it again with --force"
        )
    lengths = torch.tensor(tokens.pop(), dtype=torch.float64)
    nll = torch.tensor([[one.nll for one in cell.likelihoods] for cell in cells], dtype=torch.float64)
    weights = resampling_weights(len(lengths), draws=draws)
    if average == "text":
        return (weights @ (nll / lengths).T / len(lengths)).exp()
    return (weights @ nll.T / (weights @ lengths).unsqueeze(-1)).exp()


def _of_values(values: Float64[Tensor, "*draw row lang"]) -> Selectivity:
    """Selectivity from perplexities; NaN for a language of whose row, or of whose undisturbed text, a number is."""
    likelihood = 1 / values
    base, after = likelihood[..., 0, :], likelihood[..., 1:, :]
    found = selectivity(base, after)
    unknown = (after - base.unsqueeze(-2)).isnan().any(dim=-1)
    return Selectivity(*(one.masked_fill(unknown, math.nan) for one in (found.precision, found.recall, found.f1)))
