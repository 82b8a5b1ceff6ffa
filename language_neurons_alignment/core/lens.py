"""The logit lens: what a model would say next if it stopped behind each layer, by the language of the tokens.

With h_l the residual stream behind layer l at one position of a text, and t the token that stands next in the text:

    z_l        = unembed(norm(h_l)),   p_l = softmax(z_l)      norm and unembedding: the model's own, at its end
    share of k = Σ_{v of group k} p_l(v)                       groups: languages, ambiguous tokens, tokens of none
    entropy    = −Σ_v p_l(v) ln p_l(v)                         in nats
    rank       = 1 + the number of v with z_l(v) > z_l(t)
    loss       = −ln p_l(t)                                    in nats; behind the last layer, the model's own

All are averaged over positions, the rank by its logarithm. Intervals are of the bootstrap over the records of a
language (`resampling`). Source: nostalgebraist (2020); by language, Wendler et al. (2024).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import groupby

import torch
from jaxtyping import Float32, Float64, Int64
from torch import Tensor

from .frames import Columns, Framed
from .resampling import Interval, interval, resampling_weights

AMBIGUOUS, NO_LANGUAGE = "ambiguous", "none"
"""The groups of tokens behind those of the languages: of no single language, and without letters."""
MEASURES = ("entropy", "log_rank", "loss")
"""What is measured of a readout besides the shares of its groups."""
ROLES = ("own", "pivot", "other", AMBIGUOUS, NO_LANGUAGE)
"""The groups as seen from a text: its own language, the pivot, all other languages, ambiguous, none."""


def read_out(
    logits: Float32[Tensor, "position token"],
    targets: Int64[Tensor, " position"],
    members: Float32[Tensor, "token group"],
) -> Float32[Tensor, "position measure"]:
    """The share of each group, then `MEASURES`, of the distribution that each row of logits gives.

    >>> members = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])  # tokens 0 and 1 are of group 0
    >>> found = read_out(torch.tensor([[0.0, 0.0, 0.0]]), torch.tensor([2]), members)[0]
    >>> found[:2].mul(3).round().tolist(), found[2:].exp().round().tolist()
    ([2.0, 1.0], [3.0, 1.0, 3.0])
    """
    log_p = torch.log_softmax(logits, dim=-1)
    p = log_p.exp()
    of_target = log_p.gather(-1, targets[:, None])
    entropy = -(p * log_p.clamp(min=torch.finfo(log_p.dtype).min)).sum(dim=-1, keepdim=True)  # 0 · −∞ is 0 here
    rank = 1 + (logits > logits.gather(-1, targets[:, None])).sum(dim=-1, keepdim=True)
    return torch.cat([p @ members, entropy, rank.log(), -of_target], dim=-1)


@dataclass(frozen=True)
class Lens(Framed):
    """What is read behind every layer from texts in each language; or, as a difference, how that changes.

    Attributes:
        languages: of the texts.
        groups: of the tokens: languages, `AMBIGUOUS`, `NO_LANGUAGE`.
        sums: for each language, the sums over each record's positions of the groups' shares and of `MEASURES`.
        positions: for each language, how many positions of each record were read.
        chance: the share of each group among all tokens: that of a readout that prefers none.
        pivot: the language whose share is followed in texts of the others; None where no token is known to be of it.
    """

    languages: tuple[str, ...]
    groups: tuple[str, ...]
    sums: tuple[Float64[Tensor, "_ layer measure"], ...]  # each language has its own number of records
    positions: tuple[Float64[Tensor, " _"], ...]
    chance: Float64[Tensor, " group"]
    pivot: str | None = None

    @property
    def layers(self) -> int:
        """How many layers there are."""
        return int(self.sums[0].shape[1])

    @property
    def measures(self) -> tuple[str, ...]:
        """What is measured, in the order of the last axis."""
        return (*self.groups, *MEASURES)

    @cached_property
    def values(self) -> Float64[Tensor, "lang layer measure"]:
        """The mean over the positions of each language."""
        return torch.stack([one.sum(dim=0) / n.sum() for one, n in zip(self.sums, self.positions, strict=True)])

    @cached_property
    def interval(self) -> Interval:
        """The intervals of `values` over other records; NaN for a language of a single record."""
        ends = [interval(draws) for draws in self._draws]
        return Interval(torch.stack([one.low for one in ends]), torch.stack([one.high for one in ends]))

    @cached_property
    def _draws(self) -> tuple[Float64[Tensor, "draw layer measure"], ...]:
        """The values in bootstrap samples of the records; languages with as many records share their draws."""
        return tuple(_resampled(sums, n) for sums, n in zip(self.sums, self.positions, strict=True))

    def share(self, group: str) -> Float64[Tensor, "lang layer"]:
        """The share of one group."""
        return self.values[..., self.groups.index(group)]

    @property
    def own(self) -> Float64[Tensor, "lang layer"]:
        """The share of the text's own language."""
        return torch.stack([self.values[k, :, self.groups.index(code)] for k, code in enumerate(self.languages)])

    @property
    def followed(self) -> tuple[str, ...]:
        """The languages whose texts can turn to the pivot: all others."""
        return tuple(code for code in self.languages if code != self.pivot)

    def roles(self) -> tuple[Float64[Tensor, "layer role"], Interval]:
        """The shares of `ROLES`, and their intervals: means over the languages but the pivot.

        Without a pivot its share is NaN.
        """
        draws = [self._roles_of(code, self._draws[self.languages.index(code)]) for code in self.followed]
        values = [self._roles_of(code, self.values[self.languages.index(code)]) for code in self.followed]
        return torch.stack(values).mean(dim=0), interval(torch.stack(draws).mean(dim=0))

    def _roles_of(self, code: str, values: Float64[Tensor, "*any layer measure"]) -> Float64[Tensor, "*any layer role"]:
        shares = {group: values[..., at] for at, group in enumerate(self.groups)}
        own, ambiguous, none = (shares.pop(name) for name in (code, AMBIGUOUS, NO_LANGUAGE))
        pivot = shares.pop(self.pivot) if self.pivot in shares else torch.full_like(own, math.nan)
        other = torch.stack([*shares.values(), torch.zeros_like(own)]).sum(dim=0)
        return torch.stack([own, pivot, other, ambiguous, none], dim=-1)

    def pivot_columns(self) -> Columns:
        """A row for each language but the pivot: where its texts are read in the pivot rather than in itself.

        begin and end are the first and the last layer of the longest run of layers where the pivot's share exceeds both
        the language's own and `chance`, with its whole interval; None where there is none. peak is the layer of the
        pivot's largest share, share that share with its interval (low, high), and own the language's share there.
        """
        rows = []
        for code in self.followed if self.pivot is not None else ():
            k, pivot, own = self.languages.index(code), self.groups.index(str(self.pivot)), self.groups.index(code)
            more = interval(self._draws[k][..., pivot] - self._draws[k][..., own]).low > 0
            begin, end = _longest_run((more & (self.interval.low[k, :, pivot] > self.chance[pivot])).tolist())
            peak = int(self.values[k, :, pivot].argmax())
            ends = (float(one[k, peak, pivot]) for one in (self.interval.low, self.interval.high))
            rows.append((code, begin, end, peak, *(float(self.values[k, peak, at]) for at in (pivot, own)), *ends))
        names = ("language", "begin", "end", "peak", "share", "own", "low", "high")
        return {name: [row[column] for row in rows] for column, name in enumerate(names)}

    def __sub__(self, before: Lens) -> Lens:
        """How each value changed from `before`, on the same positions of the same texts, record by record."""
        same = zip(self.positions, before.positions, strict=True)
        if self.measures != before.measures or not all(torch.equal(one, other) for one, other in same):
            raise ValueError("two lenses can be compared where they read the same positions by the same groups")
        return replace(self, sums=tuple(a - b for a, b in zip(self.sums, before.sums, strict=True)))

    def columns(self) -> Columns:
        """A row for each language of the text, layer and measure: its value and the ends of its interval.

        Measures are `share:<group>`, entropy, rank (the geometric mean; of a difference, its factor) and loss.
        """
        names = [*(f"share:{group}" for group in self.groups), "entropy", "rank", "loss"]
        columns: Columns = {"language": [], "layer": [], "measure": []}
        for code in self.languages:
            for layer in range(self.layers):
                columns["language"] += [code] * len(names)
                columns["layer"] += [layer] * len(names)
                columns["measure"] += names
        at, found = self.measures.index("log_rank"), {"value": self.values, **vars(self.interval)}
        for name, tensor in found.items():
            shown = tensor.clone()
            shown[..., at] = shown[..., at].exp()
            columns[name] = shown.flatten().tolist()
        return columns


def _resampled(
    sums: Float64[Tensor, "record layer measure"], positions: Float64[Tensor, " record"]
) -> Float64[Tensor, "draw layer measure"]:
    weights = resampling_weights(len(positions))
    if len(positions) < 2:  # resampling a single record says nothing
        return torch.full((len(weights), *sums.shape[1:]), math.nan, dtype=torch.float64)
    return (weights @ sums.flatten(1) / (weights @ positions)[:, None]).unflatten(1, sums.shape[1:])


def _longest_run(flags: Sequence[bool]) -> tuple[int | None, int | None]:
    """The first and the last place of the longest run of True; the earliest of equally long ones.

    >>> _longest_run([True, False, True, True, False]), _longest_run([False])
    ((2, 3), (None, None))
    """
    runs = [[place for place, _ in run] for flag, run in groupby(enumerate(flags), key=lambda one: one[1]) if flag]
    longest = max(runs, key=len, default=None)
    return (None, None) if longest is None else (longest[0], longest[-1])
