"""An accuracy map: which questions a model answers right, with nothing and with each language's neurons changed.

Rows are what is done to the model: nothing, then each language, then the controls of each. An item is a question, the
same one in all languages that ask it. An answer has two sides, its number and its language, and what is measured is

    number      the number is right
    language    the answer is in the language of the question; one whose language cannot be told is not
    accuracy    both: the paper's accuracy
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float64
from torch import Tensor

from ..errors import SettingsError
from .perplexity import UNDISTURBED
from .resampling import (
    DRAWS,
    Interval,
    Selectivity,
    adjusted,
    control_range,
    interval,
    mcnemar,
    one_question,
    resampling_weights,
    selectivity,
)

MEASURES = ("accuracy", "number", "language")


@dataclass(frozen=True)
class AccuracyMap:
    """Every answer's outcome.

    Attributes:
        changed: the rows after the undisturbed one and before the controls: language codes, or whatever was done.
        languages: codes of the languages asked in.
        controls: the rows after these: the first control of every change, then the second of every one, ….
        asked: which items are asked in which language.
        number: whether the number is right; the rows are `rows`; False where nothing was asked.
        spoken: whether the answer is in the language of the question.
        unclear: whether its language cannot be told.
    """

    changed: tuple[str, ...]
    languages: tuple[str, ...]
    controls: tuple[str, ...]
    asked: Bool[Tensor, "lang item"]
    number: Bool[Tensor, "row lang item"]
    spoken: Bool[Tensor, "row lang item"]
    unclear: Bool[Tensor, "row lang item"]

    @property
    def rows(self) -> tuple[str, ...]:
        """The names of all rows."""
        return (UNDISTURBED, *self.changed, *self.controls)

    @property
    def sets(self) -> int:
        """How many controls each change has."""
        return len(self.controls) // len(self.changed)

    def right(self, measure: str = "accuracy") -> Bool[Tensor, "row lang item"]:
        """The answers that count.

        Raises:
            SettingsError: a measure that there is not.
        """
        if measure not in MEASURES:
            raise SettingsError(f"the measure must be one of {', '.join(MEASURES)}; got {measure!r}")
        return {"accuracy": self.number & self.spoken, "number": self.number, "language": self.spoken}[measure]

    def shares(self, measure: str = "accuracy") -> Float64[Tensor, "row lang"]:
        """right / asked, in [0, 1]."""
        return self.right(measure).sum(dim=-1).double() / self.asked.sum(dim=-1)

    def drawn_shares(
        self, measure: str = "accuracy", *, draws: int = DRAWS, seed: int = 0
    ) -> Float64[Tensor, "draw row lang"]:
        """The shares of the undisturbed row and of `changed`, had other questions been asked.

            Σ_items w · right / Σ_items w · asked        w: how often an item is drawn

        A draw is the same for every row and language. Items that the same languages ask are drawn among themselves,
        so that each language keeps its number of questions: all together where all languages ask the same.
        """
        weights = _weights(self.asked, draws=draws, seed=seed)
        right = self.right(measure)[: len(self.changed) + 1].double()
        counted = (weights @ right.flatten(0, 1).T).unflatten(-1, right.shape[:2])
        return counted / (weights @ self.asked.double().T).unsqueeze(-2)


@dataclass(frozen=True)
class Effects:
    """What changing neurons does to each language, against the undisturbed row; shares are in percentage points.

    Attributes:
        change: share − undisturbed share.
        interval: of the change, by resampling questions.
        p: McNemar's exact test, question by question.
        p_adjusted: the same, adjusted for the number of cells (Benjamini–Hochberg).
        control: the range of the change under controls; None without controls.
    """

    change: Float64[Tensor, "changed lang"]
    interval: Interval
    p: Float64[Tensor, "changed lang"]
    p_adjusted: Float64[Tensor, "changed lang"]
    control: Interval | None

    @property
    def inside(self) -> Bool[Tensor, "changed lang"] | None:
        """Whether the change lies in the range of the controls; None without controls."""
        return None if self.control is None else self.control.holds(self.change)


@dataclass(frozen=True)
class Selective:
    """How much of the damage of each language's neurons is done to that language.

    Attributes:
        score: precision, recall and F1.
        interval: of F1, by resampling questions.
        controls: the same of each set of controls; None without controls.
    """

    score: Selectivity
    interval: Interval
    controls: Selectivity | None


def effects(accuracy: AccuracyMap, measure: str = "accuracy", *, draws: int = DRAWS, seed: int = 0) -> Effects:
    """What each of the changes does, with its interval, its test, and the range of its controls."""
    rows = len(accuracy.changed)
    shares, drawn = accuracy.shares(measure), accuracy.drawn_shares(measure, draws=draws, seed=seed)
    right = accuracy.right(measure)
    before, after = right[:1], right[1 : rows + 1]
    p = mcnemar((before & ~after).sum(dim=-1), (after & ~before).sum(dim=-1))
    return Effects(
        change=100 * (shares[1 : rows + 1] - shares[0]),
        interval=interval(100 * (drawn[:, 1:] - drawn[:, :1])),
        p=p,
        p_adjusted=adjusted(p),
        control=_range(accuracy, shares),
    )


def selective(accuracy: AccuracyMap, measure: str = "accuracy", *, draws: int = DRAWS, seed: int = 0) -> Selective:
    """LangSpec-F1 of each language's neurons, and of their controls.

    Raises:
        IncompatibleError: the rows are not the languages.
    """
    rows = len(accuracy.changed)
    shares, drawn = accuracy.shares(measure), accuracy.drawn_shares(measure, draws=draws, seed=seed)
    controls = None
    if accuracy.sets:
        controls = selectivity(shares[0].expand(accuracy.sets, -1), _controls(accuracy, shares))
    return Selective(
        selectivity(shares[0], shares[1 : rows + 1]),
        interval(selectivity(drawn[:, 0], drawn[:, 1:]).f1),
        controls,
    )


def _range(accuracy: AccuracyMap, shares: Float64[Tensor, "row lang"]) -> Interval | None:
    if not accuracy.sets:
        return None
    changes = 100 * (_controls(accuracy, shares) - shares[0])
    return control_range(changes, least=one_question(accuracy.asked.sum(dim=-1)).expand(changes.shape[1:]))


def _controls(accuracy: AccuracyMap, shares: Float64[Tensor, "row lang"]) -> Float64[Tensor, "set changed lang"]:
    """The rows of the controls: the first set of every change, then the second, …."""
    return shares[len(accuracy.changed) + 1 :].unflatten(0, (accuracy.sets, len(accuracy.changed)))


def _weights(asked: Bool[Tensor, "lang item"], *, draws: int, seed: int) -> Float64[Tensor, "draw item"]:
    """How often each item is drawn, among those that the same languages ask."""
    groups = torch.unique(asked.T, dim=0, return_inverse=True)[1]
    weights = torch.zeros(draws, asked.shape[1], dtype=torch.float64)
    for group in groups.unique().tolist():
        members = (groups == group).nonzero().flatten()
        weights[:, members] = resampling_weights(len(members), draws=draws, seed=seed + group)
    return weights


# ── How often answers come in the language that the model is steered to, against what it does by itself.


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
