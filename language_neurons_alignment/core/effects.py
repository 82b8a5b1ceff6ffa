"""Effects of interventions, and what each is compared with: its interval, its controls, a paired test.

Changing any equally large set of neurons has some effect, so an effect alone means little. Perplexity, accuracy and
forcing all report `Effects`, and `Selectivity` where rows and columns are the same languages.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Bool, Float64, Int
from torch import Tensor

from ..errors import IncompatibleError
from .resampling import Interval, adjusted, control_range, interval, one_question


@dataclass(frozen=True)
class Effects:
    """Changes against the undisturbed model; a row for each intervention, a column for each language.

    Attributes:
        change: in percent or log units of perplexity, or in percentage points of a share.
        interval: of the change, by resampling texts or questions; NaN where only sums are known.
        control: where the change by one more control would lie; None without controls.
        p, p_adjusted: of McNemar's exact test, question by question, and adjusted for the number of cells (Benjamini
            and Hochberg); None where there is no test.
    """

    change: Float64[Tensor, "changed lang"]
    interval: Interval
    control: Interval | None
    p: Float64[Tensor, "changed lang"] | None
    p_adjusted: Float64[Tensor, "changed lang"] | None

    @property
    def inside(self) -> Bool[Tensor, "changed lang"] | None:
        """Whether the change lies in the range of its controls; None without controls."""
        return None if self.control is None else self.control.holds(self.change)


def share_effects(
    before: Float64[Tensor, "#changed lang"],
    after: Float64[Tensor, "changed lang"],
    *,
    drawn: tuple[Float64[Tensor, "draw #changed lang"], Float64[Tensor, "draw changed lang"]],
    p: Float64[Tensor, "changed lang"],
    controls: Float64[Tensor, "set changed lang"] | None,
    asked: Int[Tensor, "#changed #lang"],
) -> Effects:
    """Effects on shares of questions in [0, 1], in percentage points.

        change = 100 (after − before)

    The range of controls includes a change by one of the `asked` questions.
    """
    control = None
    if controls is not None:
        control = control_range(100 * (controls - before), least=one_question(asked).expand(after.shape))
    return Effects(100 * (after - before), interval(100 * (drawn[1] - drawn[0])), control, p, adjusted(p))


@dataclass(frozen=True)
class Selectivity:
    """How much of the damage by each language's neurons is done to that language (LangSpec-F1).

        d[t, j]      = max(base[j] − after[t, j], 0)            what language j loses without language t's neurons
        precision[t] = d[t, t] / Σ_j d[t, j]                    share of the damage that is done to t itself
        recall[t]    = d[t, t] / base[t]                        share of t that is lost
        F1[t]        = 2 · precision · recall / (precision + recall)

    A ratio is 0 where its denominator is 0: without damage, nothing is selective. base and after are accuracies, or
    likelihoods per token, 1 / PPL. NaN where a value is unknown. Leading axes, such as draws, are kept. `low` and
    `high` are the ends of the intervals, `controls` the same of each set of controls.
    """

    precision: Float64[Tensor, "*draw lang"]
    recall: Float64[Tensor, "*draw lang"]
    f1: Float64[Tensor, "*draw lang"]
    low: Selectivity | None = field(default=None, kw_only=True)
    high: Selectivity | None = field(default=None, kw_only=True)
    controls: Selectivity | None = field(default=None, kw_only=True)

    @property
    def f1_control(self) -> Interval | None:
        """Where the F1 of one more control would lie, cut to [0, 1]; None without controls."""
        if self.controls is None:
            return None
        span = control_range(self.controls.f1)
        return Interval(span.low.clamp(min=0), span.high.clamp(max=1))


def selectivity(base: Float64[Tensor, "*draw lang"], after: Float64[Tensor, "*draw row column"]) -> Selectivity:
    """Precision, recall and F1 of the damage, from each language's accuracy or likelihood.

    `after[t, j]` is the value of language j with language t's neurons changed; IncompatibleError if rows and columns
    are not the same languages.

    >>> base = torch.tensor([0.8, 0.5]).double()
    >>> after = torch.tensor([[0.2, 0.3], [0.8, 0.5]]).double()  # the first loses 0.6 and takes 0.2 of the other along
    >>> [round(value, 3) for value in selectivity(base, after).f1.tolist()]
    [0.75, 0.0]
    """
    languages = base.shape[-1]
    if after.shape[-2:] != (languages, languages):
        raise IncompatibleError(
            f"selectivity needs a row and a column for each of {languages} languages, got {tuple(after.shape[-2:])}"
        )
    lost = (base.unsqueeze(-2) - after).clamp(min=0)
    unknown = lost.isnan().any(dim=-1)
    own = lost.diagonal(dim1=-2, dim2=-1)
    precision, recall = _ratio(own, lost.sum(dim=-1)), _ratio(own, base)
    scores = (precision, recall, _ratio(2 * precision * recall, precision + recall))
    return Selectivity(*(one.masked_fill(unknown, torch.nan) for one in scores))


def measured_selectivity(
    values: Float64[Tensor, "row lang"],
    *,
    drawn: Float64[Tensor, "draw row lang"],
    controls: Float64[Tensor, "set changed lang"] | None,
) -> Selectivity:
    """Selectivity with its intervals and its controls, from values whose first row is undisturbed."""
    found, resampled = (selectivity(one[..., 0, :], one[..., 1:, :]) for one in (values, drawn))
    ends = [interval(one) for one in (resampled.precision, resampled.recall, resampled.f1)]
    return replace(
        found,
        low=Selectivity(*(one.low for one in ends)),
        high=Selectivity(*(one.high for one in ends)),
        controls=None if controls is None else selectivity(values[0].expand(len(controls), -1), controls),
    )


def _ratio(part: Tensor, whole: Tensor) -> Tensor:
    """part / whole, 0 where whole is 0."""
    return torch.where(whole > 0, part / whole.where(whole > 0, torch.ones_like(whole)), torch.zeros_like(part))
