"""How often answers come in the language that the model is steered to, against what it does by itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float64
from torch import Tensor

from .resampling import (
    DRAWS,
    Interval,
    adjusted,
    control_range,
    interval,
    mcnemar,
    one_question,
    resampling_weights,
)


@dataclass(frozen=True)
class Asked:
    """The answers to the questions in one language: which of them are in the target language.

    Attributes:
        undisturbed: by the model as it is.
        steered: by the model steered to the target.
        controls: by the model with the same done to random neurons; no sets without controls.
    """

    undisturbed: Bool[Tensor, "target item"]
    steered: Bool[Tensor, "target item"]
    controls: Bool[Tensor, "set target item"]


@dataclass(frozen=True)
class ForcingTable:
    """A row for each language asked in, a column for each target; shares in [0, 1], changes in percentage points.

    Attributes:
        undisturbed: share of answers in the target language, nothing done.
        steered: the same, steered to it.
        steered_interval: of the steered share, by resampling questions.
        change: 100 (steered − undisturbed).
        interval: of the change, by resampling questions.
        p: McNemar's exact test, question by question.
        p_adjusted: the same, adjusted for the number of cells (Benjamini–Hochberg).
        control: the range of the change under controls; None without controls.
    """

    undisturbed: Float64[Tensor, "asked target"]
    steered: Float64[Tensor, "asked target"]
    steered_interval: Interval
    change: Float64[Tensor, "asked target"]
    interval: Interval
    p: Float64[Tensor, "asked target"]
    p_adjusted: Float64[Tensor, "asked target"]
    control: Interval | None

    @property
    def inside(self) -> Bool[Tensor, "asked target"] | None:
        """Whether the change lies in the range of the controls; None without controls."""
        return None if self.control is None else self.control.holds(self.change)


def forcing_table(answers: Sequence[Asked], *, draws: int = DRAWS, seed: int = 0) -> ForcingTable:
    """The table of the answers in each language asked in, in their order; every cell by the same draws of questions.

        share = answers in the target language / answers

    An answer whose language cannot be told is in none.
    """
    undisturbed, steered = (_shares([getattr(one, name) for one in answers]) for name in ("undisturbed", "steered"))
    before, after = (_drawn(answers, name, draws=draws, seed=seed) for name in ("undisturbed", "steered"))
    p = torch.stack([_p(one) for one in answers])
    control = None
    if answers[0].controls.shape[0]:
        shares = torch.stack([one.controls.double().mean(dim=-1) for one in answers], dim=1)
        asked = torch.tensor([[one.steered.shape[-1]] for one in answers]).expand_as(undisturbed)
        control = control_range(100 * (shares - undisturbed), least=one_question(asked))
    return ForcingTable(
        undisturbed,
        steered,
        interval(after),
        100 * (steered - undisturbed),
        interval(100 * (after - before)),
        p,
        adjusted(p),
        control,
    )


def _shares(answers: Sequence[Bool[Tensor, "target _"]]) -> Float64[Tensor, "asked target"]:
    return torch.stack([one.double().mean(dim=-1) for one in answers])


def _drawn(answers: Sequence[Asked], name: str, *, draws: int, seed: int) -> Float64[Tensor, "draw asked target"]:
    """The shares, had other questions been asked."""
    shares = []
    for one in answers:
        right = getattr(one, name).double()
        shares.append(resampling_weights(right.shape[-1], draws=draws, seed=seed) @ right.T / right.shape[-1])
    return torch.stack(shares, dim=1)


def _p(one: Asked) -> Float64[Tensor, " target"]:
    lost, won = one.undisturbed & ~one.steered, one.steered & ~one.undisturbed
    return mcnemar(lost.sum(dim=-1), won.sum(dim=-1))
