"""Perplexity by intervention and language of the text, its change by interventions, and comparisons with chance."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float64, Int64
from torch import Tensor

from ..errors import CorpusError, IncompatibleError, SettingsError
from .effects import Effects, Selectivity, measured_selectivity, selectivity
from .frames import Columns, Framed
from .profiles import jaccard
from .resampling import DRAWS, Interval, control_range, interval, resampling_weights

UNDISTURBED = "none"  # the row of the unchanged model
SCALES = ("percent", "log1p")
AVERAGES = ("token", "text")


@dataclass(frozen=True)
class TextLikelihood:
    """How likely a model finds one text: Σ −ln p(token | tokens before it) over the scored tokens, in nats."""

    nll: float
    tokens: int


@dataclass(frozen=True)
class Perplexity:
    """The perplexity of a set of texts, in both of the usual averages; `nll` and `tokens` are sums.

        token   exp(Σ nll / Σ tokens)                      every token has the same weight
        text    exp(mean over texts of nll / tokens)       every text has the same weight, as in the paper

    `likelihoods` are those of the texts with at least one scored token; empty if only the sums are known.
    """

    token: float
    text: float
    nll: float
    tokens: int
    texts: int
    likelihoods: tuple[TextLikelihood, ...] = ()

    def __repr__(self) -> str:
        return f"Perplexity({self.token:.4g} per token, {self.text:.4g} per text; {self.tokens} tokens)"

    def __float__(self) -> float:
        """The perplexity per token."""
        return self.token


def perplexity(likelihoods: Sequence[TextLikelihood]) -> Perplexity:
    """Pool the likelihoods of texts; CorpusError if none has a token to predict.

    >>> found = perplexity([TextLikelihood(nll=2.0, tokens=1), TextLikelihood(nll=3.0, tokens=4)])
    >>> round(found.token, 4), round(found.text, 4)  # e^(5/5), e^((2 + 0.75) / 2)
    (2.7183, 3.9551)
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
    """e^x, or infinity on overflow: a broken model's perplexity is a result too."""
    try:
        return math.exp(mean_nll)
    except OverflowError:
        return math.inf


@dataclass(frozen=True)
class PerplexityMap:
    """Perplexities by intervention (row) and language of the text (column).

    >>> two, four = (perplexity([TextLikelihood(nll=math.log(ppl), tokens=1)]) for ppl in (2, 4))
    >>> cells = {("none", "en"): two, ("none", "fr"): two}  # nothing changed
    >>> cells |= {("en", "en"): four, ("en", "fr"): two, ("fr", "en"): two, ("fr", "fr"): four}
    >>> PerplexityMap(("en", "fr"), cells).change().round().tolist()  # percent
    [[100.0, 0.0], [0.0, 100.0]]

    `changed` names the interventions, the rows after the undisturbed one; by default the languages, each with its own
    neurons changed. Each of `controls` is the same map with random neurons instead of each row's.
    """

    languages: tuple[str, ...]
    cells: Mapping[tuple[str, str], Perplexity]
    changed: tuple[str, ...] = ()
    controls: tuple[PerplexityMap, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "changed", self.changed or self.languages)

    @property
    def rows(self) -> tuple[str, ...]:
        """The undisturbed row, then the interventions."""
        return (UNDISTURBED, *self.changed)

    @property
    def by_language(self) -> bool:
        """Whether the rows are the languages of the columns, each with its own neurons changed."""
        return self.changed == self.languages

    def with_controls(self, cells: Mapping[tuple[str, str], Perplexity], *, sets: int) -> PerplexityMap:
        """The same map with its controls, whose rows are named `fr~1`, `fr~2`, … in `cells`."""
        undisturbed = {(UNDISTURBED, text): self.cells[UNDISTURBED, text] for text in self.languages}
        places = [(row, text) for row in self.changed for text in self.languages]
        numbered = (
            undisturbed | {(row, text): cells[control_row(row, number), text] for row, text in places}
            for number in range(1, sets + 1)
        )
        return replace(self, controls=tuple(replace(self, cells=one, controls=()) for one in numbered))

    def values(self, *, average: str = "token") -> Float64[Tensor, "row lang"]:
        """The perplexities; SettingsError for an unknown average, IncompatibleError if a cell is missing."""
        if average not in AVERAGES:
            raise SettingsError(f"the average must be one of {', '.join(AVERAGES)}; got {average!r}")
        missing = [(row, text) for row in self.rows for text in self.languages if (row, text) not in self.cells]
        if missing:
            raise IncompatibleError(
                f"the perplexity map misses {len(missing)} cells, the first is {missing[0]}; run `lna ppl` again"
            )
        cells = [[getattr(self.cells[row, text], average) for text in self.languages] for row in self.rows]
        return torch.tensor(cells, dtype=torch.float64)

    def change(self, *, scale: str = "percent", average: str = "token") -> Float64[Tensor, "changed lang"]:
        """The change of each row against the undisturbed one, PPL₀.

            percent   100 · (PPL / PPL₀ − 1)
            log1p     ln(1 + PPL) − ln(1 + PPL₀)

        The paper shows log1p.
        """
        return change_of(self.values(average=average), scale=scale)


def change_of(values: Float64[Tensor, "*draw row lang"], *, scale: str) -> Float64[Tensor, "*draw changed lang"]:
    """The change of each row of perplexities against the first (`PerplexityMap.change`).

    >>> change_of(torch.tensor([[10.0], [15.0]]).double(), scale="percent").tolist()
    [[50.0]]
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


def resampled(result: PerplexityMap, *, average: str = "token", draws: int = DRAWS) -> Float64[Tensor, "draw row lang"]:
    """The map's perplexities over resampled texts, the same texts for every row of a column.

        w[b, i] = how often draw b contains text i,   Σ_i w = n
        token   exp(Σ_i w · nll / Σ_i w · tokens)
        text    exp(1/n · Σ_i w · nll / tokens)

    Columns with equally many texts share their draws, so parallel texts are drawn together. NaN where only the sums of
    a cell are known; IncompatibleError if the rows of a column are over different texts.
    """
    missing = [(row, text) for row in result.rows for text in result.languages if (row, text) not in result.cells]
    if missing:
        raise IncompatibleError(
            f"the map is not finished: {len(missing)} cells are missing, the first is {missing[0]}; run `lna ppl` again"
        )
    drawn = torch.full((draws, len(result.rows), len(result.languages)), math.nan, dtype=torch.float64)
    for j, language in enumerate(result.languages):
        known = {i: texts for i, row in enumerate(result.rows) if (texts := result.cells[row, language].likelihoods)}
        if not known:
            continue
        tokens = {tuple(one.tokens for one in texts) for texts in known.values()}
        if len(tokens) > 1:
            raise IncompatibleError(
                f"the rows of the perplexity map are over different texts in {language}: compute it again with --force"
            )
        lengths = torch.tensor(tokens.pop(), dtype=torch.float64)
        nll = torch.tensor([[one.nll for one in texts] for texts in known.values()], dtype=torch.float64)
        weights = resampling_weights(len(lengths), draws=draws)
        if average == "text":
            mean = weights @ (nll / lengths).T / len(lengths)
        else:
            mean = weights @ nll.T / (weights @ lengths).unsqueeze(-1)
        drawn[:, list(known), j] = mean.exp()
    return drawn


def perplexity_effects(result: PerplexityMap, *, scale: str = "percent", average: str = "token") -> Effects:
    """A map's changes with their intervals and the ranges of their controls; there is no test."""
    drawn = change_of(resampled(result, average=average), scale=scale)
    control = range_of_controls(result, scale=scale, average=average)
    return Effects(result.change(scale=scale, average=average), interval(drawn), control, None, None)


def range_of_controls(result: PerplexityMap, *, scale: str = "percent", average: str = "token") -> Interval | None:
    """Where the change by one more control of each row would lie; None without controls."""
    if not result.controls:
        return None
    return control_range(torch.stack([one.change(scale=scale, average=average) for one in result.controls]))


def perplexity_selectivity(result: PerplexityMap, *, average: str = "token") -> Selectivity | None:
    """Selectivity of the damage to the likelihood, 1 / PPL; None unless the rows are the languages."""
    if not result.by_language:
        return None
    controls = [1 / one.values(average=average)[1:] for one in result.controls]
    return measured_selectivity(
        1 / result.values(average=average),
        drawn=1 / resampled(result, average=average),
        controls=torch.stack(controls) if controls else None,
    )


METHOD_MEASURES = ("own", "elsewhere", "f1")


@dataclass(frozen=True)
class MethodTable(Framed):
    """What the neurons of several methods do to perplexity; a row for each method.

    Attributes:
        neurons, f1: size of each language's mask, and selectivity of its neurons.
        means: mean over languages of `METHOD_MEASURES`: the change of a language's perplexity without its own neurons,
            the change of the other languages', both in percent, and the selectivity F1.
        intervals: of the means, by resampling texts; NaN where only sums are known.
        jaccard: mean over languages of |A ∩ B| / |A ∪ B| with the reference mask; NaN if all are empty.
    """

    methods: tuple[str, ...]
    languages: tuple[str, ...]
    neurons: Int64[Tensor, "method lang"]
    means: Float64[Tensor, "method measure"]
    intervals: Interval
    f1: Float64[Tensor, "method lang"]
    jaccard: Float64[Tensor, " method"]

    def columns(self) -> Columns:
        """A row for each method: means and intervals, then the neurons and the F1 of each language."""
        columns: Columns = {"method": list(self.methods), "neurons": self.neurons.double().mean(dim=1).tolist()}
        for k, name in enumerate(METHOD_MEASURES):
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
    """Compare methods by the effect of deactivating their neurons, and by the overlap of their masks with a reference.

        own        mean_k     change[k, k]
        elsewhere  mean_k,j≠k change[k, j]
        F1         mean_k     selectivity F1 of language k, of likelihood, 1 / PPL

    All maps have the same languages as rows and columns.
    """
    chosen = torch.stack([masks[name] for name in maps])
    shared, sizes = (neurons.sum(dim=(1, 2)) for neurons in (chosen & reference, chosen))
    return MethodTable(
        methods=tuple(maps),
        languages=next(iter(maps.values())).languages,
        neurons=sizes,
        means=torch.stack([_means(one.values()) for one in maps.values()]),
        intervals=interval(torch.stack([_means(resampled(one)) for one in maps.values()], dim=1)),
        f1=torch.stack([_f1(one.values()) for one in maps.values()]),
        jaccard=jaccard(shared, sizes, reference.sum(dim=(0, 1))).nanmean(dim=1),
    )


def _means(values: Float64[Tensor, "*draw row lang"]) -> Float64[Tensor, "*draw measure"]:
    """`METHOD_MEASURES` of perplexities whose first row is the undisturbed one."""
    change = change_of(values, scale="percent")
    own = change.diagonal(dim1=-2, dim2=-1).mean(dim=-1)
    elsewhere = change[..., ~torch.eye(change.shape[-1], dtype=torch.bool)].mean(dim=-1)
    return torch.stack([own, elsewhere, _f1(values).mean(dim=-1)], dim=-1)


def _f1(values: Float64[Tensor, "*draw row lang"]) -> Float64[Tensor, "*draw lang"]:
    return selectivity(1 / values[..., 0, :], 1 / values[..., 1:, :]).f1
