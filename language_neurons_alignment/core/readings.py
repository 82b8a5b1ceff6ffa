"""What neurons do on the tokens of one language: their strongest tokens, and how their activations are distributed.

Tokens stream by in batches. A token's *number* is its place among all positions of the language's texts, so that
nothing depends on how they are batched. What is kept is bounded by neurons × K, whatever the corpus:

    strongest     [neuron, K]            8 bytes each: the activation and the token in one integer (`pack`)
    windows       [neuron, K, 2w + 1]    4 bytes each: the activations around each of them
    histogram     [neuron, bin]          8 bytes each
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Float32, Int64
from torch import Tensor

EDGES = tuple(2.0**exponent for exponent in range(-6, 7))
"""Inner edges of the histogram's bins above 0: the first bin is what does not fire, (−∞, 0]."""

BINS = len(EDGES) + 2

_LOW = 2**32 - 1
_EMPTY = torch.iinfo(torch.int64).min
_FACTORS = (0x7FEB352D, 0x846CA68B)
_INVERSES = tuple(pow(factor, -1, 2**32) for factor in _FACTORS)


def _mixed(numbers: Int64[Tensor, "*token"], seed: int) -> Int64[Tensor, "*token"]:
    """A one-to-one map of 32-bit numbers that looks random: it orders tokens of equal activation."""
    x = (numbers ^ seed) & _LOW
    x = ((x ^ (x >> 16)) * _FACTORS[0]) & _LOW
    x = ((x ^ (x >> 15)) * _FACTORS[1]) & _LOW
    return x ^ (x >> 16)


def _unmixed(mixed: Int64[Tensor, "*token"], seed: int) -> Int64[Tensor, "*token"]:
    x = ((mixed ^ (mixed >> 16)) * _INVERSES[1]) & _LOW
    x = ((x ^ (x >> 15) ^ (x >> 30)) * _INVERSES[0]) & _LOW
    return (x ^ (x >> 16) ^ seed) & _LOW


def pack(
    activation: Float[Tensor, "*place"], numbers: Int64[Tensor, "*place"], *, seed: int = 0
) -> Int64[Tensor, "*place"]:
    """Activation and token in one integer: larger for a larger activation; of equal ones, in an order that is drawn.

    The upper 32 bits order float32 as its bits do, with those below 0 turned round; the lower 32 are a random
    permutation of the token's number, which `seed` decides.

    >>> packed = pack(torch.tensor([0.5, -2.0, 0.5]), torch.tensor([7, 8, 9]))
    >>> bool(packed[1] < packed[0] != packed[2]), [one.tolist() for one in unpack(packed)]
    (True, [[0.5, -2.0, 0.5], [7, 8, 9]])
    """
    bits = (activation.float() + 0.0).contiguous().view(torch.int32).to(torch.int64)  # + 0: −0 is 0
    return (torch.where(bits < 0, bits ^ 0x7FFFFFFF, bits) << 32) | _mixed(numbers, seed & _LOW)


def unpack(
    packed: Int64[Tensor, "*place"], *, seed: int = 0
) -> tuple[Float32[Tensor, "*place"], Int64[Tensor, "*place"]]:
    """The activations and the tokens' numbers in what `pack` gave."""
    bits = packed >> 32
    bits = torch.where(bits < 0, bits ^ 0x7FFFFFFF, bits)
    return bits.to(torch.int32).view(torch.float32), _unmixed(packed & _LOW, seed & _LOW)


@dataclass(frozen=True)
class LanguageReadings:
    """What some neurons did on the answer tokens of one language.

    Attributes:
        tokens: how many there were.
        numbers: of the K strongest tokens of each neuron, strongest first; −1 where there are fewer tokens.
        activation: of the neuron on them; NaN where there is none.
        windows: the neuron's activations on the 2w + 1 tokens around each; NaN outside of the text.
        histogram: on how many tokens the activation lies in each bin; the first holds those at or below 0.
        scripts: on how many tokens of each kind (of script) it fires.
        positive: on how many tokens on which it fires the factor beside it, `up x` of a gated MLP, is above 0; None
            where that is not known.
        together: on how many tokens it fires together with each of its partners.
    """

    tokens: int
    numbers: Int64[Tensor, "neuron k"]
    activation: Float32[Tensor, "neuron k"]
    windows: Float32[Tensor, "neuron k window"]
    histogram: Int64[Tensor, "neuron bin"]
    scripts: Int64[Tensor, "neuron kind"]
    positive: Int64[Tensor, " neuron"] | None
    together: Int64[Tensor, "neuron partner"]

    @property
    def fired(self) -> Int64[Tensor, " neuron"]:
        """On how many tokens each neuron fires."""
        return self.histogram[:, 1:].sum(dim=1)

    @property
    def nbytes(self) -> int:
        """The bytes that these take."""
        parts = (self.numbers, self.windows, self.histogram, self.scripts, self.together)
        return sum(one.nbytes for one in parts)


class Readings:
    """Takes the activations of neurons, batch by batch, and keeps what `LanguageReadings` holds.

    >>> readings = Readings(1, keep=2, window=1)
    >>> activation = torch.tensor([[[0.0], [3.0], [1.0], [2.0]]])  # one row of four tokens, one neuron
    >>> readings.add(activation, torch.tensor([[-1, 1, 2, 3]]), lengths=torch.tensor([4]))
    >>> found = readings.result()
    >>> found.numbers.tolist(), found.windows.tolist()  # the first token is not counted, but stands in a window
    ([[1, 3]], [[[0.0, 3.0, 1.0], [1.0, 2.0, nan]]])
    """

    def __init__(
        self,
        neurons: int,
        *,
        keep: int,
        window: int,
        kinds: int = 0,
        partners: Int64[Tensor, "neuron partner"] | None = None,
        factors: bool = False,
        seed: int = 0,
        device: torch.device | None = None,
    ) -> None:
        """Start with nothing.

        Args:
            neurons: how many.
            keep: K.
            window: w, tokens on each side.
            kinds: of tokens, whose firings are counted apart.
            partners: of each neuron, the others with which its firings are counted.
            factors: whether `add` is told what stands beside the activations.
            seed: decides which of equally strong tokens are kept, and in what order.
            device: where the activations are.
        """
        zeros = torch.zeros(neurons, 0, dtype=torch.int64)
        self._seed, self._window = seed, window
        self._partners = (zeros if partners is None else partners).to(device)
        self._packed = torch.full((neurons, keep), _EMPTY, dtype=torch.int64, device=device)
        self._windows = torch.full((neurons, keep, 2 * window + 1), torch.nan, device=device)
        self._histogram = torch.zeros(neurons, BINS, dtype=torch.int64, device=device)
        self._scripts = torch.zeros(neurons, kinds, dtype=torch.int64, device=device)
        self._together = torch.zeros_like(self._partners)
        self._positive = torch.zeros(neurons, dtype=torch.int64, device=device) if factors else None
        self._edges = torch.tensor((0.0, *EDGES), device=device)
        self._tokens = 0

    def add(
        self,
        activation: Float[Tensor, "row position neuron"],
        numbers: Int64[Tensor, "row position"],
        *,
        lengths: Int64[Tensor, " row"],
        kinds: Int64[Tensor, "row position"] | None = None,
        positive: Bool[Tensor, "row position neuron"] | None = None,
    ) -> None:
        """Take a batch: rows of tokens, padded behind `lengths`; −1 numbers a token that is not counted."""
        counted = numbers.flatten() >= 0
        places = counted.nonzero().flatten()
        if not len(places):
            return
        whole = activation.flatten(0, 1)
        values = whole[places].float()  # [token, neuron]
        self._tokens += len(places)
        fired = values > 0
        self._count(values, fired, None if kinds is None else kinds.flatten()[places])
        if self._positive is not None and positive is not None:
            self._positive += (fired & positive.flatten(0, 1)[places]).sum(dim=0)
        packed = pack(values, numbers.flatten()[places, None].expand_as(values), seed=self._seed).T.contiguous()
        best, at = packed.topk(min(self._packed.shape[1], len(places)), dim=1)
        windows = self._around(activation, places[at], lengths)
        merged, which = torch.cat([self._packed, best], dim=1).topk(self._packed.shape[1], dim=1)
        both = torch.cat([self._windows, windows], dim=1)
        self._packed = merged
        self._windows = both.gather(1, which[..., None].expand(-1, -1, both.shape[-1]))

    def _count(self, values: Tensor, fired: Tensor, kinds: Tensor | None) -> None:
        bins = torch.bucketize(values, self._edges)  # edges[i − 1] < value ≤ edges[i]
        neurons = torch.arange(values.shape[1], device=values.device) * BINS
        counts = torch.bincount((bins + neurons).flatten(), minlength=self._histogram.numel())
        self._histogram += counts.view_as(self._histogram)
        if kinds is not None:
            for kind in kinds.unique().tolist():
                if 0 <= kind < self._scripts.shape[1]:
                    self._scripts[:, kind] += fired[kinds == kind].sum(dim=0)
        for partner, others in enumerate(self._partners.T):
            self._together[:, partner] += (fired & fired[:, others]).sum(dim=0)

    def _around(
        self, activation: Tensor, places: Int64[Tensor, "neuron k"], lengths: Tensor
    ) -> Float32[Tensor, "neuron k window"]:
        """The activations of each neuron around places of the batch."""
        positions = activation.shape[1]
        steps = torch.arange(-self._window, self._window + 1, device=places.device)
        row, at = places // positions, (places % positions)[..., None] + steps
        inside = (at >= 0) & (at < lengths[row][..., None])
        neurons = torch.arange(len(places), device=places.device)[:, None, None]
        found = activation[row[..., None], at.clamp(0, positions - 1), neurons].float()
        return found.masked_fill(~inside, torch.nan)

    def result(self) -> LanguageReadings:
        """What was kept, on the CPU."""
        activation, numbers = unpack(self._packed, seed=self._seed)
        empty = self._packed == _EMPTY
        return LanguageReadings(
            self._tokens,
            numbers.masked_fill(empty, -1).cpu(),
            activation.masked_fill(empty, torch.nan).cpu(),
            self._windows.cpu(),
            self._histogram.cpu(),
            self._scripts.cpu(),
            None if self._positive is None else self._positive.cpu(),
            self._together.cpu(),
        )


def nearest(
    directions: Float[Tensor, "neuron hidden"], *, most: int, block: int = 1024
) -> tuple[Int64[Tensor, "neuron near"], Float32[Tensor, "neuron near"]]:
    """Of each neuron, the others that write most nearly the same, and the cosines, the largest first.

        cos(u, v) = u · v / (|u| |v|)        0 where one of them writes nothing

    >>> near, cosine = nearest(torch.tensor([[1.0, 0.0], [0.0, 1.0], [3.0, 4.0]]), most=1)
    >>> near.tolist(), [round(value, 1) for value in cosine.flatten().tolist()]
    ([[2], [2], [1]], [0.6, 0.8, 0.8])
    """
    length = directions.float().norm(dim=1, keepdim=True)
    unit = torch.where(length > 0, directions.float() / length.clamp(min=1e-30), 0.0)
    size = min(most, len(unit) - 1)
    found, cosines = [], []
    for start in range(0, len(unit), block):
        cosine = unit[start : start + block] @ unit.T
        rows = torch.arange(len(cosine))
        cosine[rows, rows + start] = -torch.inf  # not itself
        best = cosine.topk(size, dim=1)
        found.append(best.indices)
        cosines.append(best.values)
    if not found:
        return torch.zeros(0, 0, dtype=torch.int64), torch.zeros(0, 0)
    return torch.cat(found), torch.cat(cosines)


def margins(probability: Float[Tensor, "neuron lang"], own: Bool[Tensor, "neuron lang"]) -> Float[Tensor, " neuron"]:
    """How far the neurons' own languages lie apart from the others: the least of the own less the most of the others.

        margin = min_{k own} p_k − max_{j not own} p_j        the least alone where all are its own, minus the most
                                                              where none is

    >>> margins(torch.tensor([[0.9, 0.2, 0.1]]), torch.tensor([[True, False, False]])).tolist()
    [0.699999988079071]
    """
    least = probability.masked_fill(~own, torch.inf).amin(dim=1)
    most = probability.masked_fill(own, -torch.inf).amax(dim=1)
    return torch.where(own.any(dim=1), least, 0.0) - torch.where(own.all(dim=1), 0.0, most)


def in_order(neurons: Sequence[tuple[int, int]]) -> Int64[Tensor, "neuron 2"]:
    """Places (layer, index), each once, in their order.

    >>> in_order([(2, 5), (0, 7), (2, 5)]).tolist()
    [[0, 7], [2, 5]]
    """
    return torch.tensor(sorted(set(neurons)), dtype=torch.int64).reshape(-1, 2)


@dataclass(frozen=True)
class Readout:
    """What neurons write, as the unembedding reads it.

    Attributes:
        directions: what each writes into the residual stream for an activation of 1 and a factor of 1, times the final
            norm's scale.
        promoted, promoted_logits: the tokens whose logits it raises most, the largest first.
        suppressed, suppressed_logits: those whose logits it lowers most, the lowest first.
        mean_logit: over the vocabulary: what it adds to all of them alike, which changes no probability.
        cosine: of its direction with the mean unembedding of each language, from the mean over languages.
    """

    directions: Float32[Tensor, "neuron hidden"]
    promoted: Int64[Tensor, "neuron token"]
    promoted_logits: Float32[Tensor, "neuron token"]
    suppressed: Int64[Tensor, "neuron token"]
    suppressed_logits: Float32[Tensor, "neuron token"]
    cosine: Float32[Tensor, "neuron lang"]
    mean_logit: Float32[Tensor, " neuron"]


def read_out(
    directions: Float32[Tensor, "neuron hidden"],
    unembedding: Float[Tensor, "vocabulary hidden"],
    *,
    most: int,
    languages: Sequence[Int64[Tensor, "_"]] = (),
    scale: float = 1.0,
) -> Readout:
    """Read directions through an unembedding, a bounded number of logits at a time.

        logit[i, t] = scale · U[t] · d_i              d_i: direction i, the final norm's scale folded in
        cosine[i, k] = cos(d_i, m_k − mean_j m_j)     m_k: mean of U over the tokens of language k; 0 for one language

    >>> found = read_out(torch.tensor([[1.0, 0.0]]), torch.tensor([[2.0, 0.0], [0.0, 1.0], [-1.0, 0.0]]), most=1)
    >>> found.promoted.tolist(), found.promoted_logits.tolist(), found.suppressed.tolist()
    ([[0]], [[2.0]], [[2]])
    """
    vocabulary, most = len(unembedding), min(most, len(unembedding))
    step = max(1024, 2**24 // max(1, len(directions)))
    best: list[tuple[Tensor, Tensor]] = [(torch.empty(len(directions), 0), torch.empty(len(directions), 0).long())] * 2
    best = [(one.to(directions.device), at.to(directions.device)) for one, at in best]
    total = torch.zeros(len(directions), device=directions.device)
    for start in range(0, vocabulary, step):
        logits = scale * directions @ unembedding[start : start + step].float().T
        total += logits.sum(dim=1)
        for side, sign in enumerate((1, -1)):
            values, at = (sign * logits).topk(min(most, logits.shape[1]), dim=1)
            values, at = torch.cat([best[side][0], values], 1), torch.cat([best[side][1], at + start], 1)
            values, which = values.topk(min(most, values.shape[1]), dim=1)
            best[side] = (values, at.gather(1, which))
    means = torch.zeros(len(languages), directions.shape[1], device=directions.device)
    for number, tokens in enumerate(languages):
        if len(tokens):
            means[number] = unembedding[tokens.to(unembedding.device)].float().mean(dim=0)
    means = means - means.mean(dim=0) if len(languages) else means
    cosine = torch.nn.functional.normalize(directions, dim=1) @ torch.nn.functional.normalize(means, dim=1).T
    (up, promoted), (down, suppressed) = best
    parts = (directions, promoted, up, suppressed, -down, cosine, total / vocabulary)
    return Readout(*(one.cpu() for one in parts))
