"""Settings that several steps share, validated once."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ._steps import CLASSES as CLASSES
from ._steps import MASK_CLASSES, Steps, in_order
from .errors import SettingsError

# ── What can be chosen, and checks of single values.

TEXTS = ("instruction", "answer", "full")
OVERLONG = ("error", "truncate", "skip")
SCALES = ("percent", "log1p")
AVERAGES = ("token", "text")

DEFAULT_BLOCKS = 20
"""What `--blocks` is usually given: enough for intervals, and each block still has a dozen questions of MGSM."""
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


# ── What a perplexity map shows.

DEFAULT_DO = ("zero each",)


@dataclass(frozen=True)
class MapSettings:
    """What is switched off, what is scored, and how it is shown (SPEC 6).

    Attributes:
        classes: classes of neurons that are deactivated; kept in the order of `CLASSES`, each once.
        text: "instruction", "answer" or "full".
        overlong: "error", "truncate" or "skip".
        scale: of the figure, "percent" or "log1p".
        average: of the figure, "token" or "text".
        do: what is done in each row (`interventions.steps`); "each" in it stands for the row's language.
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
        Steps.parse(self.do)
        object.__setattr__(self, "classes", in_order(self.classes))

    @property
    def variant(self) -> str:
        """What tells this choice of classes and text from the default, in the files' names."""
        classes = "" if self.classes == MASK_CLASSES else f".{'-'.join(self.classes)}"
        return classes + ("" if self.text == TEXTS[0] else f".{self.text}")


DEFAULT_MAP = MapSettings()


# ── Ways to find language neurons: what a mask's folder, and the description beside it, tell of its making.

ENTROPY_LAMBDA, LAPE, EQUAL_N, MEAN_DIFFERENCE, RANDOM = METHODS = (
    "entropy-lambda",
    "lape",
    "equal-n",
    "mean-difference",
    "random",
)
DEFAULT_NEURONS = 400
"""Of equal-n, as published."""


@dataclass(frozen=True)
class Method:
    """A way to find language neurons, with what it has beside top rate, λ and bar.

    Attributes:
        name: one of `METHODS`.
        neurons: N, neurons per language: equal-n's (400 where None), or instead of a share of all neurons
            mean-difference's and random's.
        seed: of random.

    Raises:
        SettingsError: no such method, or a parameter that it does not have.
    """

    name: str = ENTROPY_LAMBDA
    neurons: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.name not in METHODS:
            raise SettingsError(f"--method must be one of {', '.join(METHODS)}; got {self.name!r}")
        if self.name == EQUAL_N and self.neurons is None:
            object.__setattr__(self, "neurons", DEFAULT_NEURONS)
        if self.neurons is not None and self.name in (ENTROPY_LAMBDA, LAPE):
            raise SettingsError(f"{self.name} selects a share of all neurons: give -r, not --neurons {self.neurons}")
        if self.neurons is not None and self.neurons < 1:
            raise SettingsError(f"--neurons must be at least 1, got {self.neurons}: give for example {DEFAULT_NEURONS}")
        if self.seed and self.name != RANDOM:
            raise SettingsError(f"{self.name} draws nothing: leave --mask-seed {self.seed} out")

    @property
    def has_rate(self) -> bool:
        """Whether a top rate decides how many neurons there are."""
        return self.neurons is None

    @property
    def has_lambda(self) -> bool:
        """Whether λ decides which neurons are taken, or as random's model of sizes how many."""
        return self.has_rate and self.name in (ENTROPY_LAMBDA, RANDOM)

    def check_lambda(self, lam: float | None) -> None:
        """Raise SettingsError unless λ is given exactly where it means something."""
        if self.has_lambda and lam is None:
            instead = "" if self.name == ENTROPY_LAMBDA else ", or --neurons to draw so many anywhere"
            raise SettingsError(f"the method {self.name} needs λ: give -l as `lna autosweep` prints it{instead}")
        if not self.has_lambda and lam is not None:
            raise SettingsError(f"the method {self.name} has no λ here: leave -l {lam!r} out")

    def folder(self, top_rate: float, lam: float | None) -> str:
        """The name of the folder of such a mask, and of what is made with it; numbers are written one way.

        <top_rate>-<λ>          entropy-lambda
        lape-<top_rate>         lape
        equal-n-<N>             equal-n
        mean-difference-<N>     mean-difference, or with <top_rate>
        random-<N>-seed<s>      random, or with <top_rate>-<λ>

        Raises:
            SettingsError: a λ that is missing, or one too many.
        """
        self.check_lambda(lam)
        size = repr(float(top_rate)) if self.neurons is None else str(self.neurons)
        if lam is not None:
            size += f"-{abs(float(lam))!r}"  # abs: −0.0 is 0.0
        if self.name == ENTROPY_LAMBDA:
            return size
        return f"{self.name}-{size}" + (f"-seed{self.seed}" if self.name == RANDOM else "")


DEFAULT_METHOD = Method()


# ── Which neurons are selected, and where AutoSweep looks for λ.

DEFAULT_TOP_RATE = 0.01
DEFAULT_BAR = 0.95


@dataclass(frozen=True)
class Selection:
    """What decides which neurons are language neurons (SPEC 3).

    Attributes:
        top_rate: share of all neurons that is selected, in (0, 1].
        lam: λ, how much a large peak probability lowers the score; finite, not negative. None for methods without.
        bar: share of all probabilities that τ lies above, in (0, 1].
        method: how neurons are found.
        search: with λ None, the range in which the largest fine λ is found.

    Raises:
        SettingsError: NaN or out of range; a rate or λ that the method does not have, or lacks.
    """

    top_rate: float
    lam: float | None
    bar: float = DEFAULT_BAR
    method: Method = DEFAULT_METHOD
    search: SweepRange | None = None

    def __post_init__(self) -> None:
        check_share(self.top_rate, "top rate (-r)", 0.01)
        check_share(self.bar, "bar (-b)", 0.95)
        if self.search is None or self.lam is not None:
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


# ── How a model's answers are drawn: what decides an answer, with nothing left to the model's own config.


@dataclass(frozen=True)
class Sampling:
    """What decides an answer, besides the model and the prompt.

    Attributes:
        temperature: 0 is greedy, always the likeliest token; else logits are divided by it before a token is drawn.
        top_p: tokens are drawn from the smallest set of likeliest ones whose probabilities add up to this.
        max_new_tokens: an answer ends here at the latest.
        stop: an answer ends in front of the first of these strings.
        seed: what each answer's own seed is made from (`seed_for`).

    Nothing else applies: neither the temperature nor the penalties of a model's generation_config.json.

    Raises:
        SettingsError: NaN, out of range, or a choice that would do nothing.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    max_new_tokens: int = 256
    stop: tuple[str, ...] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.temperature) and self.temperature >= 0):
            raise SettingsError(
                f"--temperature must be a finite number of at least 0, got {self.temperature!r}: "
                "0 is greedy, 0.7 is usual for samples"
            )
        if not (math.isfinite(self.top_p) and 0 < self.top_p <= 1):
            raise SettingsError(f"--top-p must be above 0 and at most 1, got {self.top_p!r}: 1 leaves all tokens in")
        if self.greedy and self.top_p < 1:
            raise SettingsError(
                f"--top-p {self.top_p!r} would do nothing at --temperature 0, which always takes the likeliest token: "
                "give a --temperature above 0, for example 0.7, or leave --top-p out"
            )
        if self.max_new_tokens < 1:
            raise SettingsError(f"--max-new-tokens must be at least 1, got {self.max_new_tokens}")
        if not all(self.stop):
            raise SettingsError("--stop is an empty string, which stands everywhere: give the text to stop in front of")
        object.__setattr__(self, "temperature", float(self.temperature))
        object.__setattr__(self, "top_p", float(self.top_p))

    @property
    def greedy(self) -> bool:
        """Always the likeliest token."""
        return self.temperature == 0

    def plain(self) -> dict[str, Any]:
        """As it is stored, and read back."""
        return {**asdict(self), "stop": list(self.stop)}

    def check_answers(self, answers: int) -> None:
        """Raise SettingsError unless so many different answers can be drawn for one question."""
        if answers < 1:
            raise SettingsError(f"-n must be at least 1, got {answers}")
        if self.greedy and answers > 1:
            raise SettingsError(
                f"-n {answers} at --temperature 0 would be {answers} times the same answer: greedy decoding has one; "
                "give a --temperature above 0, for example 0.7"
            )

    def seed_for(self, tokens: Sequence[int], number: int) -> int:
        """The seed of the `number`-th answer to a prompt: a digest of (seed, prompt, number), in [0, 2⁶³).

        It depends on nothing else, so an answer is the same in whatever batch it is drawn, after a resumption, and
        whether it was asked for at first or added later.
        """
        content = repr((self.seed, number, tuple(map(int, tokens)))).encode()
        return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "big") >> 1


GREEDY = Sampling()


# ── The choices of a whole run.


@dataclass(frozen=True)
class PipelineSettings:
    """The choices of a whole run.

    Attributes:
        top_rate: share of neurons selected.
        bar: activation bar.
        search: where AutoSweep looks for λ.
        lam: a λ to use instead of AutoSweep's.
        moments: add up the activations too while counting.
        overlong: what to do with sequences to count that are longer than the model allows; the map has its own choice.
        map: what the perplexity map shows.
        answers: where the corpus has questions alone: how many the model answers each with.
        sampling: … and how.
        blocks: keep counts in so many blocks of the corpus too; None: not.
        overwrite: do every step again, whatever is there.

    Raises:
        SettingsError: NaN or out of range; checked here, before hours are spent.
    """

    top_rate: float = DEFAULT_TOP_RATE
    bar: float = DEFAULT_BAR
    search: SweepRange = DEFAULT_RANGE
    lam: float | None = None
    moments: bool = False
    overlong: str = OVERLONG[0]
    map: MapSettings = DEFAULT_MAP
    answers: int = 1
    sampling: Sampling = GREEDY
    blocks: int | None = None
    overwrite: bool = False

    def __post_init__(self) -> None:
        if self.blocks is not None:
            check_block_number(self.blocks)
        check_choice(self.overlong, OVERLONG, "--overlong")
        self.sampling.check_answers(self.answers)
        Selection(self.top_rate, self.search.lo if self.lam is None else self.lam, self.bar)


# ── How a model is asked while its neurons are changed: what evaluations and forcings choose alike.


@dataclass(frozen=True)
class Asking:
    """What is done to a model, and how it is asked.

    Attributes:
        do: steps that are done to the model, in this order.
        classes: of the neurons that a language's name stands for.
        sampling: how answers are drawn, one a question; its seed draws the controls too.
        overlong: "error", "truncate" or "skip" (`generation.generate`).
        controls: random sets of neurons that each change is held against; 0: none.

    Raises:
        SettingsError: a choice that there is not.
    """

    do: tuple[str, ...]
    classes: tuple[str, ...] = MASK_CLASSES
    sampling: Sampling = GREEDY
    overlong: str = OVERLONG[0]
    controls: int = DEFAULT_CONTROLS

    def __post_init__(self) -> None:
        check_choice(self.overlong, OVERLONG, "--overlong")
        check_controls(self.controls)
        Steps.parse(self.do)
        object.__setattr__(self, "classes", in_order(self.classes))

    @property
    def variant(self) -> str:
        """What tells this choice of classes from the default, in the files' names."""
        return "" if self.classes == MASK_CLASSES else f".{'-'.join(self.classes)}"


# ── What `evaluate` does to the model, how it is asked, and what is shown: validated once, before anything is loaded.

MEASURES = ("accuracy", "number", "language")


@dataclass(frozen=True)
class EvaluationSettings(Asking):
    """The choices of an evaluation: those of `Asking`, and what is shown.

    Attributes:
        do: steps that are done to the model in each row, in this order; "each" in them is the row's language.
        show: what the figure and the table show: "accuracy", "number" or "language".

    Raises:
        SettingsError: a choice that there is not.
    """

    do: tuple[str, ...] = DEFAULT_DO
    show: str = MEASURES[0]

    def __post_init__(self) -> None:
        if not self.do:
            raise SettingsError('--do names nothing to do: for example --do "zero each"')
        super().__post_init__()
        check_choice(self.show, MEASURES, "--show")


DEFAULT_EVALUATION = EvaluationSettings()


# ── How a model is steered from one language to another, and asked: validated once, before anything is loaded.

DEFAULT_STEERING = ("zero source", "add:target:1 target")
"""The source's neurons silent, the target's raised by their mean in the target language (decision 0039)."""


@dataclass(frozen=True)
class ForcingSettings(Asking):
    """The choices of a forcing: those of `Asking`, with steps that steer.

    Attributes:
        do: steps that are done to the model, in this order; "source" in them is the language asked in, "target" the
            one steered to.

    Raises:
        SettingsError: a choice that there is not, or steps that name no target.
    """

    do: tuple[str, ...] = DEFAULT_STEERING

    def __post_init__(self) -> None:
        words = Steps.parse(self.do).words
        if "each" in words or "target" not in words:
            raise SettingsError(
                f"--do {' --do '.join(map(repr, self.do)) or 'nothing'} steers to no target: its steps "
                "name `target`, and may name `source`, the language asked in, but not `each`; for example "
                "--do 'mean:target target'"
            )
        super().__post_init__()
