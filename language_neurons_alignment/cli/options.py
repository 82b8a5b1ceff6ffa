"""The flags that commands share, each described once, in groups that belong together."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from ..config import (
    DEFAULT_BAR,
    DEFAULT_CONTROLS,
    DEFAULT_DO,
    DEFAULT_MAP,
    DEFAULT_METHOD,
    DEFAULT_RANGE,
    DEFAULT_TOP_RATE,
    GREEDY,
    MASK_CLASSES,
    METHODS,
    MapSettings,
    Method,
    Sampling,
    Selection,
    SweepRange,
    in_order,
)
from ..errors import SettingsError
from ..languages import DEFAULT_LANGUAGES

if TYPE_CHECKING:
    from .._interventions import NeuronSource
    from .._session import Session
    from .._steps import Steps


# ── How a model writes its answers.


@dataclass(frozen=True)
class Decoding:
    """How a model writes its answers."""

    temperature: Annotated[
        float,
        typer.Option("--temperature", help="0: always the likeliest token (greedy).", rich_help_panel="Answers"),
    ] = GREEDY.temperature
    top_p: Annotated[
        float,
        typer.Option(
            "--top-p", help="Draw from the likeliest tokens that make up this probability.", rich_help_panel="Answers"
        ),
    ] = GREEDY.top_p
    max_new_tokens: Annotated[
        int, typer.Option("--max-new-tokens", help="An answer ends here at the latest.", rich_help_panel="Answers")
    ] = GREEDY.max_new_tokens
    stop: Annotated[
        list[str] | None,
        typer.Option(
            "--stop",
            metavar="TEXT",
            help=r"End an answer in front of this text; may be given several times. \n is a line break.",
            show_default="nothing",
            rich_help_panel="Answers",
        ),
    ] = None
    seed: Annotated[
        int, typer.Option("--seed", help="Of sampled answers, and of controls.", rich_help_panel="Answers")
    ] = GREEDY.seed

    def sampling(self) -> Sampling:
        """As the use-cases take it."""
        return Sampling(
            temperature=self.temperature,
            top_p=self.top_p,
            max_new_tokens=self.max_new_tokens,
            stop=tuple(text.replace("\\n", "\n") for text in self.stop or ()),
            seed=self.seed,
        )


@dataclass(frozen=True)
class Answers(Decoding):
    """How many answers a model writes, and how."""

    answers: Annotated[
        int, typer.Option("-n", "--answers", help="Answers per question.", rich_help_panel="Answers")
    ] = 1

    def sampling(self) -> Sampling:
        """As the use-cases take it, and refused here where so many answers cannot differ."""
        chosen = super().sampling()
        chosen.check_answers(self.answers)
        return chosen


# ── How a corpus is counted.

Overlong = Annotated[
    str, typer.Option("--overlong", help="Sequences longer than the model allows: error, truncate, skip.")
]
Blocks = Annotated[
    int | None,
    typer.Option(
        "--blocks",
        help="Keep the counts in so many blocks of the corpus too, for `lna stability`.",
        show_default="none",
    ),
]
Moments = Annotated[
    bool,
    typer.Option("--moments", help="Add up the activations too: their means are what some interventions put in place."),
]


# ── Which engine runs the model, and how.


@dataclass(frozen=True)
class Engine:
    """Which engine runs the model, and how; what is not given is left to the engine."""

    engine: Annotated[str, typer.Option("--engine", help="transformers, vllm, or auto.", rich_help_panel="Engine")] = (
        "auto"
    )
    dtype: Annotated[
        str,
        typer.Option("--dtype", help="auto (the model's own), float32, bfloat16, float16.", rich_help_panel="Engine"),
    ] = "auto"
    device: Annotated[
        str | None,
        typer.Option(
            "--device",
            help="transformers: cpu, cuda, cuda:1, mps.",
            show_default="the best there is",
            rich_help_panel="Engine",
        ),
    ] = None
    batch_tokens: Annotated[
        int | None,
        typer.Option("--batch-tokens", help="Tokens per batch.", show_default="by device", rich_help_panel="Engine"),
    ] = None
    tensor_parallel_size: Annotated[
        int | None,
        typer.Option("--tensor-parallel-size", help="vllm: ranks that share each layer.", rich_help_panel="Engine"),
    ] = None
    pipeline_parallel_size: Annotated[
        int | None,
        typer.Option("--pipeline-parallel-size", help="vllm: ranks that share the layers.", rich_help_panel="Engine"),
    ] = None
    distributed_executor_backend: Annotated[
        str | None,
        typer.Option("--distributed-executor-backend", help="vllm: mp or ray.", rich_help_panel="Engine"),
    ] = None
    engine_arg: Annotated[
        list[str] | None,
        typer.Option("--engine-arg", metavar="K=V", help="vllm: any other of its options.", rich_help_panel="Engine"),
    ] = None

    def choices(self) -> dict[str, Any]:
        """What `open_session` takes: engine, precision, and the options that were given."""
        options = {
            "device": self.device,
            "batch_tokens": self.batch_tokens,
            "tensor_parallel_size": self.tensor_parallel_size,
            "pipeline_parallel_size": self.pipeline_parallel_size,
            "distributed_executor_backend": self.distributed_executor_backend,
            "engine_args": dict(_key_value(one) for one in self.engine_arg or []) or None,
        }
        given = {name: value for name, value in options.items() if value is not None}
        return {"engine": self.engine, "dtype": self.dtype, **given}


def _key_value(text: str) -> tuple[str, str]:
    """The key and the value of K=V; what a value means is the engine's to say."""
    key, equals, value = text.partition("=")
    if not (equals and key.strip()):
        raise SettingsError(
            f"--engine-arg must be K=V, got {text!r}: for example --engine-arg gpu_memory_utilization=0.8"
        )
    return key.strip().replace("-", "_"), value


# ── Which model, on which text, in which languages.

Data = Annotated[Path, typer.Option("-d", "--data", help="Corpus file: JSON list or JSON lines.", show_default=False)]
Languages = Annotated[
    str | None,
    typer.Option(
        "--langs", help="Languages, by code or name, in order: en,es,fr.", show_default=",".join(DEFAULT_LANGUAGES)
    ),
]


@dataclass(frozen=True)
class Model:
    """Which model on which dataset: what results are named by."""

    model_path: Annotated[str, typer.Option("--model-path", help="Model folder or hub id.", show_default=False)]
    dataset: Annotated[
        str, typer.Option("-s", "--dataset", help="Dataset name, in the results' paths.", show_default=False)
    ]
    model_name: Annotated[
        str | None,
        typer.Option("--model-name", help="Name in file names.", show_default="the family in the model's config"),
    ] = None


# ── What a perplexity map shows, and what effects are held against.

ControlSets = Annotated[
    int,
    typer.Option("--controls", help="Random sets of neurons that each row is held against; 0: draw none.", min=0),
]


@dataclass(frozen=True)
class Controls:
    """What effects are held against."""

    controls: ControlSets = DEFAULT_CONTROLS
    seed: Annotated[int, typer.Option("--seed", help="Of the random sets of neurons.")] = DEFAULT_MAP.seed


@dataclass(frozen=True)
class Map:
    """What a perplexity map shows."""

    classes: Annotated[
        str, typer.Option("--classes", help="Neurons to deactivate: any of specific,related,general.")
    ] = ",".join(MASK_CLASSES)
    text: Annotated[str, typer.Option("--text", help="Text to score: instruction, answer, full.")] = DEFAULT_MAP.text
    scale: Annotated[str, typer.Option("--scale", help="Change shown: percent, or log1p as in the paper.")] = (
        DEFAULT_MAP.scale
    )
    average: Annotated[
        str, typer.Option("--average", help="Perplexity shown: per token, or the mean over texts (text).")
    ] = DEFAULT_MAP.average
    overlong: Overlong = DEFAULT_MAP.overlong

    def settings(self, *, controls: int, seed: int, do: tuple[str, ...] = DEFAULT_DO) -> MapSettings:
        """As the use-cases take it."""
        return MapSettings(
            classes=parse_classes(self.classes),
            text=self.text,
            overlong=self.overlong,
            scale=self.scale,
            average=self.average,
            do=do,
            controls=controls,
            seed=seed,
        )


def parse_classes(names: str) -> tuple[str, ...]:
    """The classes of "specific,related"."""
    return tuple(name.strip() for name in names.split(",") if name.strip())


# ── Which neurons are selected, or looked at.

TopRate = Annotated[float, typer.Option("-r", "--top-rate", help="Share of all neurons to select.")]
Bar = Annotated[float, typer.Option("-b", "--bar", help="Activation bar: share of all probabilities below τ.")]


@dataclass(frozen=True)
class Neurons:
    """Which of a model's neurons are looked at; what is not given is as in the mask that is there."""

    top_rate: TopRate = DEFAULT_TOP_RATE
    lam: Annotated[
        float | None,
        typer.Option("-l", "--lam", help="λ.", show_default="that of the mask that is there, else AutoSweep's"),
    ] = None
    bar: Annotated[
        float | None,
        typer.Option("-b", "--bar", help="Activation bar.", show_default=f"the mask's, else {DEFAULT_BAR}"),
    ] = None
    langs: Annotated[
        str | None,
        typer.Option("--langs", help="Languages, in order: en,es,fr.", show_default="the mask's, else the ten"),
    ] = None
    mask_only: Annotated[
        bool,
        typer.Option("--mask-only", help="Read the mask and no counts: classes specific and related alone."),
    ] = False


@dataclass(frozen=True)
class Search:
    """Where AutoSweep looks for λ."""

    lo: Annotated[float, typer.Option("--lo", help="Smallest λ.")] = DEFAULT_RANGE.lo
    hi: Annotated[float, typer.Option("--hi", help="Largest λ.")] = DEFAULT_RANGE.hi
    eps: Annotated[float, typer.Option("--eps", help="Bisection ends at an interval of this length.")] = (
        DEFAULT_RANGE.eps
    )
    exact: Annotated[bool, typer.Option("--exact", help="Solve for the largest λ instead of bisecting.")] = False

    def range(self) -> SweepRange:
        """As the use-cases take it."""
        return SweepRange(lo=self.lo, hi=self.hi, eps=self.eps, exact=self.exact)


# ── What holds for one call of the program.


@dataclass
class State:
    """Attributes: debug: show tracebacks."""

    debug: bool = False


STATE = State()


class Interrupted(Exception):
    """Ctrl-C, while a command was at work."""


def enable_debug(value: bool) -> bool:
    """Callback of `--debug`."""
    STATE.debug = value
    return value


# ── Where results lie, and how they are told.

Force = Annotated[bool, typer.Option("--force", help="Replace results that are there.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Debug = Annotated[
    bool, typer.Option("--debug", help="Show the traceback of an error.", callback=enable_debug, is_eager=True)
]


@dataclass(frozen=True)
class Telling:
    """How a result is told, of a command that leaves none under --root."""

    as_json: AsJson = False
    debug: Debug = False


@dataclass(frozen=True)
class Results:
    """Where results lie and how they are told."""

    root: Annotated[
        Path, typer.Option("--root", help="Folder under which results lie.", show_default="current folder")
    ] = Path()
    as_json: AsJson = False
    debug: Debug = False


# ── The flags that say what is done to which neurons, the same for every command that changes some.

PANEL = "Changed neurons"


Do = Annotated[
    list[str] | None,
    typer.Option(
        "--do",
        metavar="'OP SET'",
        help="zero, scale:a, set:v, mean:LANG, replace:LANG, add:LANG:α or diffmean:LANG; on LANG, LANG:classes, "
        "@file, or several with ' + ' and ' - '. May be given several times: done in that order.",
        show_default=False,
        rich_help_panel=PANEL,
    ),
]


@dataclass(frozen=True)
class NeuronChanges:
    """What is done to neurons, and the mask that tells which are a language's."""

    do: Do = None
    classes: Annotated[
        str, typer.Option("--classes", help="Of a LANG: any of specific,related,general.", rich_help_panel=PANEL)
    ] = ",".join(MASK_CLASSES)
    top_rate: Annotated[float, typer.Option("-r", "--top-rate", help="Of the mask.", rich_help_panel=PANEL)] = (
        DEFAULT_TOP_RATE
    )
    lam: Annotated[
        float | None, typer.Option("-l", "--lam", help="λ of the mask.", show_default=False, rich_help_panel=PANEL)
    ] = None

    def steps(self, *default: str, method: Method = DEFAULT_METHOD) -> Steps:
        """What `--do` says, or the default; refused here, before a model is named, where it cannot be."""
        from .._steps import Steps

        steps = Steps.parse(self.do or default)
        if steps.needs_mask:
            self.check_lambda(f"--do {steps.texts[0]!r}", method)
        in_order(parse_classes(self.classes))
        if self.lam is not None or not method.has_lambda:
            Selection(self.top_rate, self.lam, method=method)
        return steps

    def check_lambda(self, what: str, method: Method) -> None:
        """Raise SettingsError where there is no λ and the mask that `what` needs has one in its name."""
        if self.lam is None and method.has_lambda:
            raise SettingsError(f"{what} needs the λ of a mask: give -l as it was given to `lna identify`")

    def neurons(self, work: Session, steps: Steps) -> NeuronSource:
        """Where the neurons that the steps name come from; the mask is read only where they need it."""
        from .._interventions import neuron_source

        steps.check_bound()
        lam = self.lam if steps.needs_mask else None
        return neuron_source(work, steps, top_rate=self.top_rate, lam=lam, classes=parse_classes(self.classes))


# ── Groups of flags: a dataclass whose fields are flags, spread into the commands that take it.


def spread(command: Callable[..., None]) -> Callable[..., None]:
    """A command whose parameters of a dataclass type are replaced by that dataclass's fields.

        @dataclass                                   lna run --lo 0 --hi 0.2 …
        class Search:
            lo: Annotated[float, Option("--lo")]     def run(search: Search) -> None: …
            hi: Annotated[float, Option("--hi")]

    Typer reads flags off a function's signature, so what it is shown is the signature with the fields in place.
    """
    hints = get_type_hints(command, include_extras=True)
    groups: dict[str, type[Any]] = {}
    shown: list[inspect.Parameter] = []
    for name, parameter in inspect.signature(command).parameters.items():
        if dataclasses.is_dataclass(hints[name]):
            groups[name] = hints[name]
            shown += _fields(hints[name])
        else:
            shown.append(parameter.replace(annotation=hints[name], kind=inspect.Parameter.KEYWORD_ONLY))

    @functools.wraps(command)
    def flat(**given: Any) -> None:
        for name, group in groups.items():
            given[name] = group(**{field.name: given.pop(field.name) for field in dataclasses.fields(group)})
        command(**given)

    flat.__signature__ = inspect.Signature(shown)  # pyright: ignore[reportAttributeAccessIssue]
    flat.__annotations__ = {parameter.name: parameter.annotation for parameter in shown}
    return flat


def help_of(command: Callable[..., None]) -> str:
    """A command's docstring, each paragraph on one line: Typer would keep its line breaks in any terminal."""
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in (inspect.getdoc(command) or "").split("\n\n"))


def _fields(group: type[Any]) -> list[inspect.Parameter]:
    hints = get_type_hints(group, include_extras=True)
    return [
        inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=inspect.Parameter.empty if field.default is dataclasses.MISSING else field.default,
            annotation=hints[field.name],
        )
        for field in dataclasses.fields(group)
    ]


# ── The flags that name a mask by the method that made it.

Lam = Annotated[
    float | None,
    typer.Option(
        "-l",
        "--lam",
        help="λ, as `lna autosweep` prints it; entropy-lambda needs it, and random without --neurons.",
        show_default=False,
    ),
]


@dataclass(frozen=True)
class By:
    """How the neurons were, or are to be, found."""

    method: Annotated[
        str, typer.Option("--method", help=f"What finds the neurons: {', '.join(METHODS)}.", rich_help_panel="Method")
    ] = DEFAULT_METHOD.name
    neurons: Annotated[
        int | None,
        typer.Option(
            "--neurons",
            help="Neurons per language, of equal-n; of mean-difference and random instead of -r.",
            show_default="equal-n: 400",
            rich_help_panel="Method",
        ),
    ] = None
    mask_seed: Annotated[int, typer.Option("--mask-seed", help="Of the method random.", rich_help_panel="Method")] = (
        DEFAULT_METHOD.seed
    )

    def chosen(self) -> Method:
        """As the use-cases take it."""
        return Method(self.method, self.neurons, self.mask_seed)
