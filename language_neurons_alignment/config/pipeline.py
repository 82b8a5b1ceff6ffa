"""The choices of a whole run."""

from __future__ import annotations

from dataclasses import dataclass

from ..sampling import GREEDY, Sampling
from .checks import check_block_number
from .map import DEFAULT_MAP, MapSettings
from .selection import DEFAULT_BAR, DEFAULT_RANGE, DEFAULT_TOP_RATE, Selection, SweepRange


@dataclass(frozen=True)
class PipelineSettings:
    """The choices of a whole run.

    Attributes:
        top_rate: share of neurons selected.
        bar: activation bar.
        search: where AutoSweep looks for λ.
        lam: a λ to use instead of AutoSweep's.
        moments: add up the activations too while counting.
        map: what the perplexity map shows.
        answers: where the corpus has questions alone: how many the model answers each with.
        sampling: … and how.
        blocks: keep counts in so many blocks of the corpus too; None: not.
        force: do every step again, whatever is there.

    Raises:
        SettingsError: NaN or out of range; checked here, before hours are spent.
    """

    top_rate: float = DEFAULT_TOP_RATE
    bar: float = DEFAULT_BAR
    search: SweepRange = DEFAULT_RANGE
    lam: float | None = None
    moments: bool = False
    map: MapSettings = DEFAULT_MAP
    answers: int = 1
    sampling: Sampling = GREEDY
    blocks: int | None = None
    force: bool = False

    def __post_init__(self) -> None:
        if self.blocks is not None:
            check_block_number(self.blocks)
        self.sampling.check_answers(self.answers)
        Selection(self.top_rate, self.search.lo if self.lam is None else self.lam, self.bar)
