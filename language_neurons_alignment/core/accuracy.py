"""Which questions a model answers right under interventions, and how often it answers in the language it is steered to.

An *accuracy map* has a row for each intervention: none, then each language's neurons, then the controls of each. An
item is a question, the same in all languages that ask it. Three measures are told apart:

    number      the number is right
    language    the answer is in the language of the question; an answer in an unclear language is not
    accuracy    both, as in the paper

A *forcing table* has a row for each language asked in and a column for each language steered to.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float64
from torch import Tensor

from ..config import MEASURES
from ..errors import SettingsError
from .effects import Effects, Selectivity, measured_selectivity, share_effects
from .perplexity import UNDISTURBED
from .resampling import DRAWS, Interval, interval, mcnemar, resampling_weights


@dataclass(frozen=True)
class AccuracyMap:
    """The outcome of every answer.

    Attributes:
        changed: names of the interventions: language codes, or another name.
        controls: names of the control rows: the first control of every intervention, then the second of each, ….
        number: whether the number is right; False where nothing was asked. The rows are `rows`.
        spoken, unclear: whether the answer is in the language of the question; whether its language is unclear.
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

    def right(self, measure: str = "accuracy") -> Bool[Tensor, "row lang item"]:
        """The answers that count by one measure; SettingsError if there is no such measure."""
        if measure not in MEASURES:
            raise SettingsError(f"the measure must be one of {', '.join(MEASURES)}; got {measure!r}")
        return {"accuracy": self.number & self.spoken, "number": self.number, "language": self.spoken}[measure]

    def shares(self, measure: str = "accuracy") -> Float64[Tensor, "row lang"]:
        """right / asked, in [0, 1]."""
        return self.right(measure).sum(dim=-1).double() / self.asked.sum(dim=-1)

    def drawn_shares(
        self, measure: str = "accuracy", *, draws: int = DRAWS, seed: int = 0
    ) -> Float64[Tensor, "draw row lang"]:
        """The shares of the undisturbed row and of `changed` over resampled questions.

            Σ_items w · right / Σ_items w · asked        w: how often a draw contains the item

        All rows and languages share a draw. Items are drawn among those that the same languages ask, so each language
        keeps its number of questions; where all languages ask the same items, all are drawn together.
        """
        groups = torch.unique(self.asked.T, dim=0, return_inverse=True)[1]
        weights = torch.zeros(draws, len(groups), dtype=torch.float64)
        for group in groups.unique().tolist():
            members = (groups == group).nonzero().flatten()
            weights[:, members] = resampling_weights(len(members), draws=draws, seed=seed + group)
        right = self.right(measure)[: len(self.changed) + 1].double()
        counted = (weights @ right.flatten(0, 1).T).unflatten(-1, right.shape[:2])
        return counted / (weights @ self.asked.double().T).unsqueeze(-2)

    def control_shares(self, measure: str = "accuracy") -> Float64[Tensor, "set changed lang"] | None:
        """The shares under the controls; None without controls."""
        if not self.controls:
            return None
        return self.shares(measure)[len(self.changed) + 1 :].unflatten(0, (-1, len(self.changed)))


def accuracy_effects(accuracy: AccuracyMap, measure: str = "accuracy", *, draws: int = DRAWS, seed: int = 0) -> Effects:
    """The effect of each intervention on each language, in percentage points, with its interval, test and controls."""
    rows = len(accuracy.changed) + 1
    shares, drawn = accuracy.shares(measure)[:rows], accuracy.drawn_shares(measure, draws=draws, seed=seed)
    right, asked = accuracy.right(measure)[:rows], accuracy.asked.sum(dim=-1).unsqueeze(0)
    p, controls = _paired_test(right[:1], right[1:]), accuracy.control_shares(measure)
    return share_effects(
        shares[:1], shares[1:], drawn=(drawn[:, :1], drawn[:, 1:]), p=p, controls=controls, asked=asked
    )


def accuracy_selectivity(
    accuracy: AccuracyMap, measure: str = "accuracy", *, draws: int = DRAWS, seed: int = 0
) -> Selectivity:
    """Selectivity of each language's neurons; IncompatibleError if the interventions are not the languages."""
    return measured_selectivity(
        accuracy.shares(measure)[: len(accuracy.changed) + 1],
        drawn=accuracy.drawn_shares(measure, draws=draws, seed=seed),
        controls=accuracy.control_shares(measure),
    )


def _paired_test(before: Bool[Tensor, "*#cell item"], after: Bool[Tensor, "*cell item"]) -> Float64[Tensor, "*cell"]:
    return mcnemar((before & ~after).sum(dim=-1), (after & ~before).sum(dim=-1))


@dataclass(frozen=True)
class Asked:
    """Whether each answer to the questions in one language is in the target language; zero sets without controls."""

    undisturbed: Bool[Tensor, "target item"]
    steered: Bool[Tensor, "target item"]
    controls: Bool[Tensor, "set target item"]


@dataclass(frozen=True)
class ForcingTable(Effects):
    """The effect of steering on the share of answers in the target language, and the shares themselves, in [0, 1]."""

    undisturbed: Float64[Tensor, "asked target"]
    steered: Float64[Tensor, "asked target"]
    steered_interval: Interval


def forcing_table(answers: Sequence[Asked], *, draws: int = DRAWS, seed: int = 0) -> ForcingTable:
    """Tabulate the answers to each language's questions; all cells of a row share their draws of questions.

        share = answers in the target language / answers

    An answer in an unclear language is in none.
    """
    asked = [one.steered.shape[-1] for one in answers]
    weights = [resampling_weights(items, draws=draws, seed=seed) for items in asked]
    before, after = ([getattr(one, name).double() for one in answers] for name in ("undisturbed", "steered"))
    undisturbed, steered = (torch.stack([right.mean(dim=-1) for right in rows]) for rows in (before, after))
    drawn_before, drawn_after = (
        torch.stack([w @ right.T / w.shape[1] for w, right in zip(weights, rows, strict=True)], dim=1)
        for rows in (before, after)
    )
    controls = torch.stack([one.controls.double().mean(dim=-1) for one in answers], dim=1)
    effects = share_effects(
        undisturbed,
        steered,
        drawn=(drawn_before, drawn_after),
        p=torch.stack([_paired_test(one.undisturbed, one.steered) for one in answers]),
        controls=controls if len(controls) else None,
        asked=torch.tensor(asked).unsqueeze(1),
    )
    return ForcingTable(
        **vars(effects), undisturbed=undisturbed, steered=steered, steered_interval=interval(drawn_after)
    )
