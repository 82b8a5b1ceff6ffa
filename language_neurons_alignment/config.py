"""The settings of every step: values, validation, and how they are given on the command line.

Each concern is one frozen dataclass, which checks its values when it is made. Its fields are also the flags of the
commands that take it (`_flags`); the help of a flag says what its field means, and docstrings add what help has no room
for. Importing this module loads neither torch nor Typer.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar

from ._flags import flag, flag_of, look, part, split
from ._operations import CLASSES as CLASSES
from ._operations import MASK_CLASSES, Steps, in_order
from .errors import SettingsError
from .languages import DEFAULT_LANGUAGES as DEFAULT_LANGUAGES
from .languages import language_code, parse_languages

TEXTS = ("instruction", "answer", "full")
OVERLONG = ("error", "truncate", "skip")
COUNTED = ANSWERS, TEXT = ("answers", "text")
"""What is counted: the tokens of answers, or of a corpus of texts without answers."""
SCALES = ("percent", "log1p")
AVERAGES = ("token", "text")
MEASURES = ("accuracy", "number", "language")

ENTROPY_LAMBDA, LAPE, EQUAL_N, MEAN_DIFFERENCE, RANDOM = METHODS = (
    "entropy-lambda",
    "lape",
    "equal-n",
    "mean-difference",
    "random",
)
"""Ways to find language neurons."""
EQUAL_N_NEURONS = 400
"""Neurons per language of equal-n, as published."""
DEFAULT_BAR = 0.95
"""The activation bar where neither the caller nor a mask names one."""
DEFAULT_DO = ("zero each",)
"""What a row of a map or of an evaluation does: it switches its language's neurons off."""
DEFAULT_STEERING = ("zero source", "add:target:1 target")
"""Switch the source's neurons off and raise the target's by their mean in the target language."""


def check_share(value: float, name: str, example: float) -> None:
    """Raise SettingsError unless `value` is a share in (0, 1]."""
    if not (math.isfinite(value) and 0.0 < value <= 1.0):
        raise SettingsError(f"the {name} must be above 0 and at most 1, got {value!r}: give for example {example}")


def check_choice(value: str, choices: Sequence[str], flag: str) -> None:
    """Raise SettingsError unless `value` is one of `choices`."""
    if value not in choices:
        raise SettingsError(f"{flag} must be one of {', '.join(choices)}; got {value!r}")


def check_block_number(blocks: int) -> None:
    """Raise SettingsError unless there are at least 2 blocks."""
    if blocks < 2:
        raise SettingsError(f"--blocks must be at least 2, got {blocks}: give for example 20")


def check_controls(sets: int) -> None:
    """Raise SettingsError unless there are no control sets, or enough for a range."""
    if sets < 0 or sets == 1:
        raise SettingsError(
            f"--controls must be at least 2, for one control has no range, or 0 for none; got {sets}: "
            "give for example 5"
        )


def parse_shard(text: str) -> tuple[int, int]:
    """The second of four parts: "2/4" → (2, 4).

    >>> parse_shard("2/4")
    (2, 4)

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


def _parse_hi(text: str) -> float | None:
    """The end of the range of λ; None for auto."""
    if text.strip().lower() == "auto":
        return None
    try:
        return float(text)
    except ValueError:
        raise SettingsError(f"--hi must be a number or auto, got {text!r}: give for example 0.2") from None


FIRST_END = 0.2
"""Where the range of λ ends in the paper's code; where no end is given, the first that is tried."""


@dataclass(frozen=True)
class SweepRange:
    """Where and how AutoSweep looks for λ.

    Attributes:
        lo: the smallest λ.
        hi: the largest λ. None: `FIRST_END`, doubled until the largest λ with appear[K] = 0 lies in the range.
        eps: bisection stops at an interval of this length; not used with `exact`.
        exact: solve for the largest λ instead of bisecting.

    Raises:
        SettingsError: not 0 ≤ lo ≤ hi, or an eps that is not above 0.
    """

    lo: float = flag(0.0, "--lo", help="Smallest λ.", panel="AutoSweep")
    hi: float | None = flag(
        None,
        "--hi",
        help=f"Largest λ; auto: {FIRST_END}, doubled until the largest λ with appear[K] = 0 is in the range.",
        panel="AutoSweep",
        metavar="λ|auto",
        shown="auto",
        read=_parse_hi,
    )
    eps: float = flag(1e-3, "--eps", help="Bisection stops at an interval of this length.", panel="AutoSweep")
    exact: bool = flag(False, "--exact", help="Solve for the largest λ instead of bisecting.", panel="AutoSweep")

    def __post_init__(self) -> None:
        hi = self.lo if self.hi is None else self.hi
        if not (math.isfinite(self.lo) and math.isfinite(hi) and 0 <= self.lo <= hi):
            raise SettingsError(
                f"the range of λ must be 0 <= lo <= hi, got --lo {self.lo!r} --hi {hi!r}: "
                "give for example --lo 0 --hi 0.2"
            )
        if not (math.isfinite(self.eps) and self.eps > 0):
            raise SettingsError(f"--eps must be a finite number above 0, got {self.eps!r}: give for example 1e-3")
        for name in ("lo", "hi", "eps"):  # λ is a float, also where a whole number was given
            if getattr(self, name) is not None:
                object.__setattr__(self, name, float(getattr(self, name)))


DEFAULT_RANGE = SweepRange()


@dataclass(frozen=True)
class Selection:
    """Which neurons are language neurons, and how they are found.

    Attributes:
        top_rate: share of all neurons that is selected, in (0, 1].
        lam: λ, how much a large peak probability lowers the score; finite, not negative. None: still to be found, or a
            method without λ.
        bar: share of all probabilities that lie below τ, in (0, 1]. None: the mask's, or `DEFAULT_BAR`.
        method: one of `METHODS`.
        languages: codes, in the order of the mask. None: the mask's, or those of the corpus, or the ten.
        skip_empty: leave out languages whose answers have no token; without it they are an error.

    >>> Selection(0.01, 0.2).folder
    '0.01-0.2'
    >>> Selection(method="equal-n").folder
    'equal-n-400'

    Raises:
        SettingsError: NaN or out of range, an unknown method or language, or a value that the method does not have.
    """

    top_rate: float = flag(0.01, "-r", "--top-rate", help="Share of all neurons to select.", panel="Neurons")
    lam: float | None = flag(
        None,
        "-l",
        "--lam",
        help="λ, as `lna autosweep` prints it.",
        panel="Neurons",
        shown="the mask's, if there is only one",
    )
    bar: float | None = flag(
        None,
        "-b",
        "--bar",
        help="Activation bar: share of all probabilities below τ.",
        panel="Neurons",
        shown=f"the mask's, else {DEFAULT_BAR}",
    )
    method: str = flag(
        ENTROPY_LAMBDA,
        "--method",
        help="How neurons are found; only entropy-lambda, and random without --neurons, have a λ.",
        panel="Neurons",
        choices=METHODS,
    )
    neurons: int | None = flag(
        None,
        "--neurons",
        help="Neurons per language, for equal-n; for mean-difference and random instead of -r.",
        panel="Neurons",
        shown=f"equal-n: {EQUAL_N_NEURONS}",
    )
    seed: int = flag(0, "--mask-seed", help="Seed for `--method random`.", panel="Neurons")
    languages: tuple[str, ...] | None = flag(
        None,
        "--langs",
        help="Languages, by code or name, in order: en,es,fr.",
        panel="Neurons",
        shown="the mask's",
        read=parse_languages,
    )
    skip_empty: bool = flag(
        False, "--skip-empty", help="Leave out languages whose answers have no token.", panel="Neurons"
    )
    search: SweepRange = DEFAULT_RANGE

    def __post_init__(self) -> None:
        check_share(self.top_rate, "top rate (-r)", 0.01)
        if self.bar is not None:
            check_share(self.bar, "bar (-b)", DEFAULT_BAR)
        self._check_method()
        if self.lam is not None and not self.has_lambda:
            raise SettingsError(f"the method {self.method} has no λ here: leave -l {self.lam!r} out")
        if self.lam is not None and not (math.isfinite(self.lam) and self.lam >= 0):
            raise SettingsError(
                f"λ (-l) must be a finite number of at least 0, got {self.lam!r}: "
                "take the one that `lna autosweep` prints"
            )
        if self.languages is not None:
            object.__setattr__(self, "languages", parse_languages(self.languages))

    def _check_method(self) -> None:
        check_choice(self.method, METHODS, "--method")
        if self.method == EQUAL_N and self.neurons is None:
            object.__setattr__(self, "neurons", EQUAL_N_NEURONS)
        if self.neurons is not None and self.method in (ENTROPY_LAMBDA, LAPE):
            raise SettingsError(f"{self.method} selects a share of all neurons: give -r, not --neurons {self.neurons}")
        if self.neurons is not None and self.neurons < 1:
            raise SettingsError(f"--neurons must be at least 1, got {self.neurons}: give for example {EQUAL_N_NEURONS}")
        if self.seed and self.method != RANDOM:
            raise SettingsError(f"{self.method} draws nothing: leave --mask-seed {self.seed} out")
        if not self.has_rate and self.top_rate != Selection.top_rate:
            raise SettingsError(
                f"the method {self.method} takes {self.neurons} neurons per language: "
                f"leave the top rate (-r {self.top_rate!r}) out"
            )

    @property
    def known_bar(self) -> float:
        """The activation bar: the one given, else the default."""
        return DEFAULT_BAR if self.bar is None else self.bar

    @property
    def has_rate(self) -> bool:
        """Whether a top rate decides how many neurons there are."""
        return self.neurons is None

    @property
    def has_lambda(self) -> bool:
        """Whether λ decides which neurons are selected, or for random how many in each layer."""
        return self.has_rate and self.method in (ENTROPY_LAMBDA, RANDOM)

    def check_lambda(self) -> None:
        """Raise SettingsError where the method needs λ and has none yet."""
        if self.has_lambda and self.lam is None:
            instead = "" if self.method == ENTROPY_LAMBDA else ", or --neurons to draw so many anywhere"
            raise SettingsError(f"the method {self.method} needs λ: give -l as `lna autosweep` prints it{instead}")

    def at(self, top_rate: float, lam: float | None) -> Selection:
        """The same selection at another top rate and λ.

        Raises:
            SettingsError: a λ that is missing, or one too many.
        """
        changed = replace(self, top_rate=top_rate, lam=lam)
        changed.check_lambda()
        return changed

    def of_method(self) -> Selection:
        """The method alone, with the values that only it has: what tells its masks' folders from others."""
        return Selection(method=self.method, neurons=self.neurons, seed=self.seed)

    @property
    def folder(self) -> str:
        """The name of the folder of such a mask, and of results made with it; numbers are written one way.

        <top_rate>-<λ>          entropy-lambda
        lape-<top_rate>         lape
        equal-n-<N>             equal-n
        mean-difference-<N>     mean-difference, or with <top_rate>
        random-<N>-seed<s>      random, or with <top_rate>-<λ>

        Raises:
            SettingsError: λ is missing.
        """
        self.check_lambda()
        size = repr(float(self.top_rate)) if self.neurons is None else str(self.neurons)
        if self.lam is not None:
            size += f"-{abs(float(self.lam))!r}"  # abs: −0.0 is 0.0
        if self.method == ENTROPY_LAMBDA:
            return size
        return f"{self.method}-{size}" + (f"-seed{self.seed}" if self.method == RANDOM else "")


DEFAULT_SELECTION = Selection()


@dataclass(frozen=True)
class MethodChoice:
    """Which methods are compared; their top rate, λ and bar come from one `Selection`.

    Attributes:
        methods: some of `METHODS`; None: all that the stored counts and moments allow.

    Raises:
        SettingsError: an unknown method, or less than one neuron.
    """

    methods: tuple[str, ...] | None = flag(
        None,
        "--methods",
        help=f"Any of {','.join(METHODS)}.",
        panel="Neurons",
        shown="all; mean-difference only with moments",
        read=split,
    )
    neurons: int | None = flag_of(Selection, "neurons", help="Neurons per language of equal-n.", shown="400")
    seed: int = flag_of(Selection, "seed", help="Seed for the method random.")

    def __post_init__(self) -> None:
        self.selections()

    def selections(self) -> list[Selection] | None:
        """Each method with the values that it has; None where the caller named nothing."""
        if self.methods is None and self.neurons is None and not self.seed:
            return None
        return [
            Selection(
                method=name,
                neurons=self.neurons if name == EQUAL_N else None,
                seed=self.seed if name == RANDOM else 0,
            )
            for name in (METHODS if self.methods is None else self.methods)
        ]


@dataclass(frozen=True)
class StabilitySettings:
    """What is found again in resampled corpora, and how often.

    Attributes:
        selection: how neurons are found; λ None: the largest fine one, found again each time.

    Raises:
        SettingsError: out of range.
    """

    selection: Selection = part(
        DEFAULT_SELECTION,
        "top_rate", "lo", "hi", "skip_empty",
        lam="the largest fine one, found again each time", bar=str(DEFAULT_BAR), languages="those counted",
    )  # fmt: skip
    draws: int = flag(400, "--draws", help="Bootstrap draws of the blocks.")
    splits: int = flag(50, "--splits", help="Random splits of the blocks into halves and quarters.")
    seed: int = flag(0, "--seed", help="Seed for draws and splits.")
    title: str | None = look(None, "--title", help="Title of the figures; '' for none.", shown="the model and dataset")

    @property
    def named(self) -> str:
        """λ in the names of files."""
        return "found" if self.selection.lam is None else repr(float(self.selection.lam))


@dataclass(frozen=True)
class Sampling:
    """How an answer is decoded, besides the model and the prompt.

    Attributes:
        temperature: 0 is greedy, always the likeliest token; else logits are divided by it before a token is drawn.
        top_p: tokens are drawn from the smallest set of likeliest ones whose probabilities add up to this.
        seed: each answer's own seed is made from it (`seed_for`).

    Nothing else applies: neither the temperature nor the penalties of a model's generation_config.json.

    Raises:
        SettingsError: NaN, out of range, or a choice that would do nothing.
    """

    temperature: float = flag(0.0, "--temperature", help="0: always the likeliest token (greedy).", panel="Answers")
    top_p: float = flag(
        1.0, "--top-p", help="Draw from the likeliest tokens that make up this probability.", panel="Answers"
    )
    max_new_tokens: int = flag(256, "--max-new-tokens", help="Longest answer, in tokens.", panel="Answers")
    stop: tuple[str, ...] = flag(
        (),
        "--stop",
        help=r"End an answer in front of this text; may be given several times. \n is a line break.",
        panel="Answers",
        metavar="TEXT",
        shown="nothing",
        read=lambda text: text.replace("\\n", "\n"),
        many=True,
    )
    seed: int = flag(0, "--seed", help="Seed for sampled answers and controls.", panel="Answers")

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


@dataclass(frozen=True)
class Answering:
    """How many answers a model writes to each question, and how each is decoded.

    Raises:
        SettingsError: answers that could not differ.
    """

    answers: int = flag(1, "-n", "--answers", help="Answers per question.", panel="Answers")
    sampling: Sampling = GREEDY

    def __post_init__(self) -> None:
        self.sampling.check_answers(self.answers)


@dataclass(frozen=True)
class Counting:
    """How a corpus is counted.

    Raises:
        SettingsError: an unknown choice, or less than 2 blocks.
    """

    overlong: str = flag(OVERLONG[0], "--overlong", help="Sequences longer than the model allows.", choices=OVERLONG)
    count: str = flag(
        COUNTED[0],
        "--count",
        help="The tokens that are counted: those of the answers, or of a corpus of texts without answers.",
        choices=COUNTED,
    )
    blocks: int | None = flag(
        None,
        "--blocks",
        help="Also keep the counts of this many blocks of the corpus, for `lna stability`; 20 is usual.",
        shown="none",
    )
    moments: bool = flag(
        False, "--moments", help="Also store mean activations; needed by `mean`, `add`, `replace`, `diffmean`."
    )

    def __post_init__(self) -> None:
        check_choice(self.overlong, OVERLONG, "--overlong")
        check_choice(self.count, COUNTED, "--count")
        if self.blocks is not None:
            check_block_number(self.blocks)


@dataclass(frozen=True)
class Changes:
    """What is done to which neurons, as every command with `--do` takes it.

    Attributes:
        do: steps of an intervention, applied in this order; none changes nothing.
        classes: classes of the neurons that a language's name stands for, in the order of `CLASSES`, each once.

    Raises:
        SettingsError: an unknown class, a step that cannot be read, or a word that stands for no language.
    """

    do: tuple[str, ...] = flag(
        (),
        "--do",
        help="Step of an intervention: zero, scale:a, set:v, mean:LANG, replace:LANG, add:LANG:α or diffmean:LANG; on "
        "LANG, LANG:classes, layers:A-B, @file, or several with ' + ' and ' - '. May be given several times: they "
        "apply in order.",
        panel="Changed neurons",
        metavar="'OP SET'",
        many=True,
    )
    classes: tuple[str, ...] = flag(
        MASK_CLASSES,
        "--classes",
        help=f"Which neurons of a language: any of {','.join(CLASSES)}.",
        panel="Changed neurons",
        read=split,
    )

    WORDS: ClassVar[tuple[str, ...]] = ()
    """The words that may stand for a language in these steps."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "classes", in_order(self.classes))
        unknown = sorted(self._words() - set(self.WORDS))
        if unknown:
            instead = f", or give {' or '.join(f'`{word}`' for word in self.WORDS)}" if self.WORDS else ""
            raise SettingsError(f"--do: {', '.join(unknown)} stands for no language here: name one{instead}")

    def _words(self) -> frozenset[str]:
        """The words each, source and target that the steps use for a language; reads every step."""
        return Steps.parse(self.do).words

    @property
    def variant(self) -> str:
        """What tells this choice of classes from the default, in the files' names."""
        return "" if self.classes == MASK_CLASSES else f".{'-'.join(self.classes)}"


@dataclass(frozen=True)
class MapSettings(Changes):
    """What a perplexity map measures and shows; "each" in its steps stands for the row's language.

    >>> MapSettings(classes=["related"], text="full").variant
    '.related.full'

    Raises:
        SettingsError: an unknown choice.
    """

    WORDS: ClassVar[tuple[str, ...]] = ("each",)

    do: tuple[str, ...] = flag_of(Changes, "do", default=DEFAULT_DO)
    text: str = flag(TEXTS[0], "--text", help="Text to score.", choices=TEXTS)
    overlong: str = flag_of(Counting, "overlong")
    scale: str = flag(SCALES[0], "--scale", help="Change shown; the paper has log1p.", choices=SCALES)
    average: str = flag(
        AVERAGES[0], "--average", help="Perplexity shown: per token, or the mean over texts.", choices=AVERAGES
    )
    controls: int = flag(5, "--controls", help="Number of random-neuron baselines per row: 0 (none) or at least 2.")
    seed: int = flag_of(Sampling, "seed", help="Seed for controls.", panel=None)
    title: str | None = look(
        None, "--title", help="Title of the figure; '' for none.", shown="the model, and what is shown"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice(self.text, TEXTS, "--text")
        check_choice(self.overlong, OVERLONG, "--overlong")
        check_choice(self.scale, SCALES, "--scale")
        check_choice(self.average, AVERAGES, "--average")
        check_controls(self.controls)

    @property
    def variant(self) -> str:
        """What tells this choice of classes and text from the default, in the files' names."""
        return super().variant + ("" if self.text == TEXTS[0] else f".{self.text}")


DEFAULT_MAP = MapSettings()


@dataclass(frozen=True)
class NeuronSettings:
    """What is shown of neurons.

    >>> NeuronSettings(classes=("specific",)).variant
    '.specific'

    Attributes:
        classes: whose neurons, in the order of `CLASSES`.
        top: None for all of them.

    Raises:
        SettingsError: an unknown class, or a number out of range.
    """

    classes: tuple[str, ...] = flag_of(
        Changes, "classes", help=f"Which neurons: any of {','.join(CLASSES)}.", panel=None
    )
    top: int | None = flag(
        None, "--top", help="Only the N neurons of each language with the largest margin.", metavar="N", shown="all"
    )
    contexts: int = flag(5, "-k", "--contexts", help="Strongest contexts kept for each neuron and language.")
    window: int = flag(10, "--window", help="Tokens shown on each side of a context's token.")
    tokens: int = flag(10, "--tokens", help="Tokens shown that a neuron promotes, and suppresses.")
    effects: bool = flag(
        False, "--effects", help="Also switch each neuron off alone, and measure each language's perplexity."
    )
    controls: int = flag_of(
        MapSettings, "controls", help="With --effects: random neurons per layer to compare with: 0 or at least 2."
    )
    overlong: str = flag_of(Counting, "overlong")
    seed: int = flag_of(Sampling, "seed", help="Seed for ties and controls.", panel=None)

    def __post_init__(self) -> None:
        object.__setattr__(self, "classes", in_order(self.classes))
        for value, name, least in (
            (self.contexts, "-k", 1),
            (self.tokens, "--tokens", 1),
            (self.window, "--window", 0),
        ):
            if not least <= value <= 1000:
                raise SettingsError(f"{name} must be from {least} to 1000, got {value}: give for example 10")
        if self.top is not None and self.top < 1:
            raise SettingsError(f"--top must be at least 1, got {self.top}: give for example 20")
        check_choice(self.overlong, OVERLONG, "--overlong")
        check_controls(self.controls)

    @property
    def variant(self) -> str:
        """What tells this choice of classes from the default, in the files' names."""
        return "" if self.classes == MASK_CLASSES else f".{'-'.join(self.classes)}"


DEFAULT_NEURONS = NeuronSettings()


@dataclass(frozen=True)
class Asking(Changes):
    """How a model is asked while its neurons are changed: what evaluations and forcings share.

    Attributes:
        sampling: how answers are decoded, one per question; its seed draws the controls too.

    Raises:
        SettingsError: an unknown choice.
    """

    sampling: Sampling = GREEDY
    overlong: str = flag_of(Counting, "overlong")
    controls: int = flag_of(MapSettings, "controls")
    title: str | None = flag_of(MapSettings, "title")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice(self.overlong, OVERLONG, "--overlong")
        check_controls(self.controls)


@dataclass(frozen=True)
class EvaluationSettings(Asking):
    """What an evaluation does to the model, how it asks, and what it shows; "each" in its steps is the row's language.

    Raises:
        SettingsError: an unknown choice, or no step.
    """

    WORDS: ClassVar[tuple[str, ...]] = ("each",)

    do: tuple[str, ...] = flag_of(Changes, "do", default=DEFAULT_DO)
    show: str = flag(MEASURES[0], "--show", help="What figure and table show.", choices=MEASURES)

    def __post_init__(self) -> None:
        if not self.do:
            raise SettingsError('--do names nothing to do: for example --do "zero each"')
        super().__post_init__()
        check_choice(self.show, MEASURES, "--show")


DEFAULT_EVALUATION = EvaluationSettings()


@dataclass(frozen=True)
class ForcingSettings(Asking):
    """How answers are steered from the language asked in ("source" in the steps) to another one ("target").

    Raises:
        SettingsError: an unknown choice, or steps that name no target.
    """

    WORDS: ClassVar[tuple[str, ...]] = ("source", "target")

    do: tuple[str, ...] = flag_of(Changes, "do", default=DEFAULT_STEERING)

    def __post_init__(self) -> None:
        words = self._words()
        if "each" in words or "target" not in words:
            raise SettingsError(
                f"--do {' --do '.join(map(repr, self.do)) or 'nothing'} steers to no target: its steps "
                "name `target`, and may name `source`, the language asked in, but not `each`; for example "
                "--do 'mean:target target'"
            )
        super().__post_init__()


@dataclass(frozen=True)
class LensSettings(Changes):
    """What the logit lens reads, and under which intervention; "each" in its steps is the language of the text.

    >>> LensSettings(text="full").read
    16

    Raises:
        SettingsError: an unknown choice, or out of range.
    """

    WORDS: ClassVar[tuple[str, ...]] = ("each",)

    text: str = flag(TEXTS[1], "--text", help=f"Text to read: {', '.join(TEXTS)}.")
    read: int = flag(
        16, "--read", help="Tokens of each text whose prediction is read behind every layer, drawn at random; 0: all."
    )
    records: int = flag(
        0,
        "--records",
        help="Records of each language that are read, drawn at random; 0: all. Tokens are assigned from all of them.",
    )
    pivot: str | None = flag(
        "en",
        "--pivot",
        help="Language that texts in others may be read in, on the way.",
        metavar="LANG",
        read=language_code,
    )
    overlong: str = flag_of(Counting, "overlong")
    seed: int = flag_of(Sampling, "seed", help="Seed for the tokens that are read.", panel=None)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice(self.text, TEXTS, "--text")
        check_choice(self.overlong, OVERLONG, "--overlong")
        for name in ("read", "records"):
            if getattr(self, name) < 0:
                raise SettingsError(f"--{name} must be at least 0, got {getattr(self, name)}: 0 reads all")

    @property
    def variant(self) -> str:
        """What tells these steps and this choice of classes from none, in the files' names."""
        return super().variant + Steps.parse(self.do).variant(())


DEFAULT_LENS = LensSettings()


@dataclass(frozen=True)
class PipelineSettings(Counting, Answering):
    """The settings of a whole run.

    Attributes:
        selection: how neurons are found; λ None: AutoSweep finds it.
        answers, sampling: only for a corpus that has questions alone.
        overlong: of answering and counting; the map has its own.

    >>> PipelineSettings(selection=Selection(0.05), overlong="skip").map.overlong
    'error'

    Raises:
        SettingsError: NaN or out of range; checked here, before hours are spent.
    """

    selection: Selection = part(
        DEFAULT_SELECTION,
        "top_rate", "lo", "hi", "eps", "exact", "skip_empty",
        lam="AutoSweep finds it", bar=str(DEFAULT_BAR), languages="those of the corpus",
    )  # fmt: skip
    map: MapSettings = DEFAULT_MAP
    overwrite: bool = flag(False, "--overwrite", "--force", help="Replace results that are there.")

    def __post_init__(self) -> None:
        Counting.__post_init__(self)
        Answering.__post_init__(self)
        if self.count == TEXT and self.map.text != TEXTS[0]:
            raise SettingsError(
                f"--count text is for texts, which have no answers to score: leave --text {self.map.text} out"
            )
