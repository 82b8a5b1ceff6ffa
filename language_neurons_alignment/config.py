"""Settings that several steps share, validated once."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from .errors import SettingsError
from .languages import DEFAULT_LANGUAGES, LANGUAGE_NAMES, language_code, language_name, parse_languages
from .method import DEFAULT_METHOD, METHODS, Method
from .sampling import GREEDY, Sampling

__all__ = [
    "AVERAGES",
    "CLASSES",
    "DEFAULT_BAR",
    "DEFAULT_CONTROLS",
    "DEFAULT_DO",
    "DEFAULT_LANGUAGES",
    "DEFAULT_MAP",
    "DEFAULT_METHOD",
    "DEFAULT_RANGE",
    "DEFAULT_TOP_RATE",
    "LANGUAGE_NAMES",
    "MASK_CLASSES",
    "METHODS",
    "OVERLONG",
    "SCALES",
    "TEXTS",
    "MapSettings",
    "Method",
    "PipelineSettings",
    "Selection",
    "SweepRange",
    "check_choice",
    "check_controls",
    "check_share",
    "in_order",
    "language_code",
    "language_name",
    "parse_languages",
]

DEFAULT_TOP_RATE = 0.01
DEFAULT_BAR = 0.95
DEFAULT_BLOCKS = 20
"""What `--blocks` is usually given: enough for intervals, and each block still has a dozen questions of MGSM."""

CLASSES = ("specific", "related", "general")
MASK_CLASSES = ("specific", "related")
"""The classes that make up a language's mask."""
TEXTS = ("instruction", "answer", "full")
OVERLONG = ("error", "truncate", "skip")
SCALES = ("percent", "log1p")
AVERAGES = ("token", "text")
DEFAULT_DO = ("zero each",)
DEFAULT_CONTROLS = 5
"""Control sets for each row of a map."""


def check_share(value: float, name: str, example: float) -> None:
    """Raise SettingsError unless `value` is a share in (0, 1]."""
    if not (math.isfinite(value) and 0.0 < value <= 1.0):
        raise SettingsError(f"the {name} must be above 0 and at most 1, got {value!r}: give for example {example}")


def check_choice(value: str, choices: Sequence[str], flag: str) -> None:
    """Raise SettingsError unless `value` is one of `choices`."""
    if value not in choices:
        raise SettingsError(f"{flag} must be one of {', '.join(choices)}; got {value!r}")


def check_block_number(blocks: int) -> None:
    """Raise SettingsError unless a corpus can be kept in so many blocks and vary between them."""
    if blocks < 2:
        raise SettingsError(f"--blocks must be at least 2, got {blocks}: give for example {DEFAULT_BLOCKS}")


def check_controls(sets: int) -> None:
    """Raise SettingsError unless so many control sets have a range."""
    if sets < 0 or sets == 1:
        raise SettingsError(
            f"--controls must be at least 2, for one control has no range, or 0 for none; got {sets}: "
            f"give for example {DEFAULT_CONTROLS}"
        )


def in_order(classes: Sequence[str]) -> tuple[str, ...]:
    """Classes of neurons in the order of `CLASSES`, each once.

    Raises:
        SettingsError: a class that there is not, or none.
    """
    if not classes:
        raise SettingsError(f"--classes names no class: give any of {','.join(CLASSES)}")
    for name in classes:
        check_choice(name, CLASSES, "--classes")
    return tuple(name for name in CLASSES if name in classes)


@dataclass(frozen=True)
class Selection:
    """What decides which neurons are language neurons (SPEC 3).

    Attributes:
        top_rate: share of all neurons that is selected, in (0, 1].
        lam: λ, how much a large peak probability lowers the score; finite, not negative. None for methods without.
        bar: share of all probabilities that τ lies above, in (0, 1].
        method: how neurons are found.

    Raises:
        SettingsError: NaN or out of range; a rate or λ that the method does not have, or lacks.
    """

    top_rate: float
    lam: float | None
    bar: float = DEFAULT_BAR
    method: Method = DEFAULT_METHOD

    def __post_init__(self) -> None:
        check_share(self.top_rate, "top rate (-r)", 0.01)
        check_share(self.bar, "bar (-b)", 0.95)
        self.method.check_lambda(self.lam)
        if not self.method.has_rate and self.top_rate != DEFAULT_TOP_RATE:
            raise SettingsError(
                f"the method {self.method.name} takes {self.method.neurons} neurons per language: "
                f"leave the top rate (-r {self.top_rate!r}) out"
            )
        if self.lam is not None and not (math.isfinite(self.lam) and self.lam >= 0):
            raise SettingsError(
                f"λ (-l) must be a finite number of at least 0, got {self.lam!r}: "
                "take the one that `lna autosweep` prints"
            )


@dataclass(frozen=True)
class SweepRange:
    """Where and how AutoSweep looks for λ (SPEC 4).

    Attributes:
        lo: smallest λ considered.
        hi: largest λ considered.
        eps: bisection stops at an interval of this length.
        exact: solve for the supremum instead of bisecting; eps is not used then.

    Raises:
        SettingsError: not 0 ≤ lo ≤ hi, or an eps that is not above 0.
    """

    lo: float = 0.0
    hi: float = 0.2
    eps: float = 1e-3
    exact: bool = False

    def __post_init__(self) -> None:
        if not (math.isfinite(self.lo) and math.isfinite(self.hi) and 0 <= self.lo <= self.hi):
            raise SettingsError(
                f"the range of λ must be 0 <= lo <= hi, got --lo {self.lo!r} --hi {self.hi!r}: "
                "give for example --lo 0 --hi 0.2"
            )
        if not (math.isfinite(self.eps) and self.eps > 0):
            raise SettingsError(f"--eps must be a finite number above 0, got {self.eps!r}: give for example 1e-3")
        for name in ("lo", "hi", "eps"):  # λ is a float, also where a whole number was given
            object.__setattr__(self, name, float(getattr(self, name)))


DEFAULT_RANGE = SweepRange()


@dataclass(frozen=True)
class MapSettings:
    """What is switched off, what is scored, and how it is shown (SPEC 6).

    Attributes:
        classes: classes of neurons that are deactivated; kept in the order of `CLASSES`, each once.
        text: "instruction", "answer" or "full".
        overlong: "error", "truncate" or "skip".
        scale: of the figure, "percent" or "log1p".
        average: of the figure, "token" or "text".
        do: what is done in each row (`causal.doing`); "each" in it stands for the row's language.
        controls: sets of random neurons that each row is held against; 0: none.
        seed: of the controls.

    Raises:
        SettingsError: a choice that there is not.
    """

    classes: tuple[str, ...] = MASK_CLASSES
    text: str = "instruction"
    overlong: str = "error"
    scale: str = "percent"
    average: str = "token"
    do: tuple[str, ...] = DEFAULT_DO
    controls: int = DEFAULT_CONTROLS
    seed: int = 0

    def __post_init__(self) -> None:
        check_choice(self.text, TEXTS, "--text")
        check_choice(self.overlong, OVERLONG, "--overlong")
        check_choice(self.scale, SCALES, "--scale")
        check_choice(self.average, AVERAGES, "--average")
        check_controls(self.controls)
        object.__setattr__(self, "classes", in_order(self.classes))

    @property
    def variant(self) -> str:
        """What tells this choice of classes and text from the default, in the files' names."""
        classes = "" if self.classes == MASK_CLASSES else f".{'-'.join(self.classes)}"
        return classes + ("" if self.text == TEXTS[0] else f".{self.text}")


DEFAULT_MAP = MapSettings()


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


def parse_shard(text: str) -> tuple[int, int]:
    """The second of four parts: "2/4" → (2, 4).

    Raises:
        SettingsError: not K/N with 1 <= K <= N.
    """
    part, _, parts = text.partition("/")
    if not (part.isdecimal() and parts.isdecimal()):
        raise SettingsError(f"--shard must be K/N, got {text!r}: for example 1/4")
    check_shard(int(part), int(parts))
    return int(part), int(parts)


def check_shard(part: int, parts: int) -> None:
    """Raise SettingsError unless 1 <= part <= parts."""
    if not 1 <= part <= parts:
        raise SettingsError(f"a shard is K/N with 1 <= K <= N, got {part}/{parts}: for example 1/4")
