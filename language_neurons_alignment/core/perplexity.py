"""Perplexity from the likelihood of actual tokens (SPEC 6)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float64, Int64
from torch import Tensor

from ..errors import CorpusError, IncompatibleError, SettingsError
from .frames import Columns, Framed
from .profiles import jaccard
from .resampling import DRAWS, Interval, Selectivity, control_range, interval, resampling_weights, selectivity


@dataclass(frozen=True)
class TextLikelihood:
    """How likely a model finds one text.

    Attributes:
        nll: Σ −ln p(token | tokens before it), over the scored tokens, in nats.
        tokens: how many were scored; 0 where a text has nothing to predict (a single token).
    """

    nll: float
    tokens: int


@dataclass(frozen=True)
class Perplexity:
    """The perplexity of a set of texts, in both of the usual averages.

    Attributes:
        token: exp(Σ nll / Σ tokens), every token with the same weight.
        text: exp(mean over texts of nll / tokens), every text with the same weight: the paper's.
        nll: Σ nll, in nats.
        tokens: Σ tokens.
        texts: texts with at least one scored token.
        likelihoods: theirs, one by one, in the order of the texts; empty where only sums are known.
    """

    token: float
    text: float
    nll: float
    tokens: int
    texts: int
    likelihoods: tuple[TextLikelihood, ...] = ()


def perplexity(likelihoods: Sequence[TextLikelihood]) -> Perplexity:
    """Pool the likelihoods of single texts.

    Raises:
        CorpusError: no text has a token to predict.
    """
    scored = [one for one in likelihoods if one.tokens]
    if not scored:
        raise CorpusError(
            f"no perplexity: none of {len(likelihoods)} texts has a token to predict; texts need at least two tokens"
        )
    nll = math.fsum(one.nll for one in scored)
    tokens = sum(one.tokens for one in scored)
    mean_of_texts = math.fsum(one.nll / one.tokens for one in scored) / len(scored)
    return Perplexity(_exp(nll / tokens), _exp(mean_of_texts), nll, tokens, len(scored), tuple(scored))


def _exp(mean_nll: float) -> float:
    """e^x, infinite where a float cannot hold it: a broken model's perplexity is a result too."""
    try:
        return math.exp(mean_nll)
    except OverflowError:
        return math.inf


# ── A perplexity map: how each language's text suffers when each language's neurons are off (SPEC 6).

UNDISTURBED = "none"
"""The row in which nothing is deactivated."""

SCALES = ("percent", "log1p")
AVERAGES = ("token", "text")


@dataclass(frozen=True)
class PerplexityMap:
    """Perplexities, by what is deactivated (rows) and the language of the text (columns).

    Attributes:
        languages: codes; the columns.
        cells: (row, column) → perplexity.
        changed: the rows after the undisturbed one, each an intervention; where none is given, the languages, each
            with its own neurons changed.
        controls: the same map with other neurons, of no language, in the place of each row's; one for each control set.
    """

    languages: tuple[str, ...]
    cells: Mapping[tuple[str, str], Perplexity]
    changed: tuple[str, ...] = ()
    controls: tuple[PerplexityMap, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "changed", self.changed or self.languages)

    @property
    def rows(self) -> tuple[str, ...]:
        """The undisturbed row, then those in which something is changed."""
        return (UNDISTURBED, *self.changed)

    @property
    def by_language(self) -> bool:
        """Whether each row changes the neurons of the language of its column."""
        return self.changed == self.languages

    def with_controls(self, cells: Mapping[tuple[str, str], Perplexity], *, sets: int) -> PerplexityMap:
        """The same map with its controls, whose rows are named `fr~1`, `fr~2`, … in `cells`."""
        undisturbed = {(UNDISTURBED, text): self.cells[UNDISTURBED, text] for text in self.languages}
        numbered = [
            {(row, text): cells[control_row(row, number), text] for row in self.changed for text in self.languages}
            for number in range(1, sets + 1)
        ]
        controls = tuple(PerplexityMap(self.languages, {**undisturbed, **one}, self.changed) for one in numbered)
        return replace(self, controls=controls)

    def values(self, *, average: str = "token") -> Float64[Tensor, "row lang"]:
        """The perplexities themselves.

        Raises:
            SettingsError: an average that there is not.
            IncompatibleError: a cell is missing.
        """
        if average not in AVERAGES:
            raise SettingsError(f"the average must be one of {', '.join(AVERAGES)}; got {average!r}")
        missing = [(row, text) for row in self.rows for text in self.languages if (row, text) not in self.cells]
        if missing:
            raise IncompatibleError(
                f"the perplexity map misses {len(missing)} cells, the first is {missing[0]}; run `lna ppl` again"
            )
        return torch.tensor(
            [[getattr(self.cells[row, text], average) for text in self.languages] for row in self.rows],
            dtype=torch.float64,
        )

    def change(self, *, scale: str = "percent", average: str = "token") -> Float64[Tensor, "deactivated lang"]:
        """How far each masked row lies from the undisturbed one.

        percent   100 · (PPL / PPL₀ − 1)
        log1p     ln(1 + PPL) − ln(1 + PPL₀), the paper's
        """
        return change_of(self.values(average=average), scale=scale)


def change_of(values: Float64[Tensor, "*draw row lang"], *, scale: str) -> Float64[Tensor, "*draw changed lang"]:
    """How far each row of perplexities lies from the first, the undisturbed one (`PerplexityMap.change`).

    Raises:
        SettingsError: a scale that there is not.
    """
    base, changed = values[..., :1, :], values[..., 1:, :]
    if scale == "percent":
        return 100.0 * (changed / base - 1.0)
    if scale == "log1p":
        return changed.log1p() - base.log1p()
    raise SettingsError(f"the scale must be one of {', '.join(SCALES)}; got {scale!r}")


def control_row(row: str, number: int) -> str:
    """The name of a row's control, counted from 1."""
    return f"{row}~{number}"


def cells_to_do(
    rows: Sequence[str], languages: Sequence[str], done: Mapping[tuple[str, str], Perplexity]
) -> dict[str, list[str]]:
    """Row → the columns that are missing in it; rows with nothing to do are left out."""
    todo = {row: [text for text in languages if (row, text) not in done] for row in rows}
    return {row: texts for row, texts in todo.items() if texts}


# ── What a perplexity map shows, held against chance: intervals by resampling texts, ranges of controls, selectivity.


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


# ── Ways to find language neurons, side by side: what their masks do to perplexity, and what they have in common.

MEASURES = ("own", "elsewhere", "f1")


@dataclass(frozen=True)
class MethodTable(Framed):
    """One row a method; a mean is over languages, and its interval over other texts of the same kind.

    Attributes:
        methods: names.
        languages: codes, in the order of the last axis.
        neurons: of each language's mask.
        means: of each of `MEASURES`: the change of a language's perplexity without its own neurons [%], the change of
            the others' [%], and the selectivity F1.
        intervals: of the means; NaN where cells know only their sums.
        f1: selectivity of each language's neurons.
        jaccard: mean over languages of |A ∩ B| / |A ∪ B| with the reference mask; NaN where all are empty.
    """

    methods: tuple[str, ...]
    languages: tuple[str, ...]
    neurons: Int64[Tensor, "method lang"]
    means: Float64[Tensor, "method measure"]
    intervals: Interval
    f1: Float64[Tensor, "method lang"]
    jaccard: Float64[Tensor, " method"]

    def columns(self) -> Columns:
        """One row a method: means and intervals, then the neurons and the F1 of each language."""
        columns: Columns = {"method": list(self.methods), "neurons": self.neurons.double().mean(dim=1).tolist()}
        for k, name in enumerate(MEASURES):
            columns[name] = self.means[:, k].tolist()
            columns[f"{name}_low"] = self.intervals.low[:, k].tolist()
            columns[f"{name}_high"] = self.intervals.high[:, k].tolist()
        columns["jaccard"] = self.jaccard.tolist()
        for name, values in (("neurons", self.neurons), ("f1", self.f1)):
            columns |= {f"{name}_{code}": values[:, k].tolist() for k, code in enumerate(self.languages)}
        return columns


def method_table(
    maps: Mapping[str, PerplexityMap],
    masks: Mapping[str, Bool[Tensor, "layer neuron lang"]],
    *,
    reference: Bool[Tensor, "layer neuron lang"],
) -> MethodTable:
    """Compare methods by what switching their neurons off does.

        own        mean_k   change[k, k]
        elsewhere  mean_k,j≠k change[k, j]
        F1         mean_k   F1 of language k (`core.selectivity`), of likelihood, 1 / PPL

    Args:
        maps: method → perplexity map, all over the same languages, a row and a column for each.
        masks: method → its mask.
        reference: the mask that overlap is measured with.

    Raises:
        IncompatibleError: a map misses cells.
    """
    languages = next(iter(maps.values())).languages
    means = torch.stack([_means(one.values()) for one in maps.values()])
    ends = [interval(_means(resampled(one))) for one in maps.values()]
    return MethodTable(
        methods=tuple(maps),
        languages=languages,
        neurons=torch.stack([masks[name].sum(dim=(0, 1)) for name in maps]),
        means=means,
        intervals=Interval(torch.stack([one.low for one in ends]), torch.stack([one.high for one in ends])),
        f1=torch.stack([_f1(one.values()) for one in maps.values()]),
        jaccard=torch.stack([mean_jaccard(masks[name], reference) for name in maps]),
    )


def mean_jaccard(
    one: Bool[Tensor, "layer neuron lang"], other: Bool[Tensor, "layer neuron lang"]
) -> Float64[Tensor, ""]:
    """The mean over languages of the Jaccard index of two masks; languages that are empty in both have none."""
    both, size, others = (which.sum(dim=(0, 1)) for which in (one & other, one, other))
    return jaccard(both, size, others).nanmean()


def _means(values: Float64[Tensor, "*draw row lang"]) -> Float64[Tensor, "*draw measure"]:
    """`MEASURES`, from perplexities whose first row is the undisturbed one."""
    change = change_of(values, scale="percent")
    languages = change.shape[-1]
    own = change.diagonal(dim1=-2, dim2=-1).mean(dim=-1)
    elsewhere = change[..., ~torch.eye(languages, dtype=torch.bool)].mean(dim=-1)
    return torch.stack([own, elsewhere, _f1(values).mean(dim=-1)], dim=-1)


def _f1(values: Float64[Tensor, "*draw row lang"]) -> Float64[Tensor, "*draw lang"]:
    likelihood = 1 / values
    found = selectivity(likelihood[..., 0, :], likelihood[..., 1:, :]).f1
    return found.where(~values.isnan().any(dim=-1).any(dim=-1, keepdim=True), torch.nan)
