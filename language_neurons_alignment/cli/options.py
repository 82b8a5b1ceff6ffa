"""From settings to flags and back: how commands get their options, and the groups of options that they share.

A command names the settings that it takes as parameters (`selection: Selection`). `spread` shows Typer one option per
field that carries a flag, and calls the command with the validated settings. Names, help and defaults of those flags
stand in `config`; here stand those of the program itself: the model, the engine, where results lie and how they are
printed.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args, get_origin, get_type_hints

import typer

from .._flags import Flag, FlagPart, flag
from .._importing import importing
from ..config import DEFAULT_SELECTION, PipelineSettings, Selection
from ..errors import SettingsError
from ..languages import DEFAULT_LANGUAGES
from .output import STATE, note

if TYPE_CHECKING:
    from .._session import Session
    from ..store.layout import Layout

Values = dict[str, Any]
"""What Typer read, by the names of the parameters that it was shown."""


def spread(command: Callable[..., None]) -> Callable[..., None]:
    """The command with each parameter of a settings class replaced by that class's flags.

        @dataclass                                lna autosweep --lo 0 --hi 0.2 …
        class SweepRange:
            lo: float = flag(0.0, "--lo", …)      def autosweep(search: SweepRange) -> None: …
            hi: float = flag(0.2, "--hi", …)

    `Annotated[Selection, only("top_rate")]` takes some of the flags only. A flag that two settings have is one option
    that sets both.
    """
    hints = get_type_hints(command, include_extras=True)
    shown, makers = _Shown(), {}
    for name, parameter in inspect.signature(command).parameters.items():
        settings, part = _settings_of(hints[name])
        if settings is None:
            shown.add(parameter.replace(annotation=hints[name], kind=inspect.Parameter.KEYWORD_ONLY))
        else:
            makers[name] = shown.settings(settings, part)

    @functools.wraps(command)
    def flat(**given: Any) -> None:
        for name in vars(STATE):  # as they were given before the command, or are behind it
            setattr(STATE, name, getattr(STATE, name) or bool(given.get(name)))
        for name, value in given.items():
            for one in value if isinstance(value, (list, tuple)) else (value,):
                if isinstance(one, (str, Path)):
                    _check_argument(one, name.replace("_", "-"), written=name in ("out", "output"))
        made = {name: make(given) for name, make in makers.items()}
        command(**made, **{name: given[name] for name in shown.own})

    flat.__signature__ = inspect.Signature(list(shown.parameters.values()))  # pyright: ignore[reportAttributeAccessIssue]
    flat.__annotations__ = {name: parameter.annotation for name, parameter in shown.parameters.items()}
    return flat


_LONGEST_FILE_NAME, _LONGEST_PATH = 255, 4095
"""Bytes that systems allow for a file's name and for a whole path."""
_WHILE_WRITTEN = 32
"""Bytes that the name of a file to be written needs besides, while it is written."""


def _check_argument(value: str | Path, name: str, *, written: bool) -> None:
    """Raise SettingsError for what no text or path can be, before a command begins its work."""
    shown = repr(str(value) if len(str(value)) <= 60 else f"{str(value)[:60]}…")
    if "\0" in str(value):
        raise SettingsError(f"the value {shown} of {name} contains a NUL character: remove it")
    if isinstance(value, Path):
        room = _LONGEST_FILE_NAME - _WHILE_WRITTEN * written
        length = max((len(os.fsencode(part)) for part in value.parts), default=0)
        whole = len(os.fsencode(value.absolute()))
        if length > room or whole > _LONGEST_PATH:
            raise SettingsError(
                f"the path {shown} of {name} has {whole} bytes and a name of {length} in it; there is room for "
                f"{_LONGEST_PATH} and {room}: give a shorter one"
            )


class _Shown:
    """The parameters that Typer is shown, and the flags that they have."""

    def __init__(self) -> None:
        self.parameters: dict[str, inspect.Parameter] = {}
        self.own: list[str] = []
        self._by_flag: dict[tuple[str, ...], str] = {}

    def add(self, parameter: inspect.Parameter) -> None:
        """A parameter of the command itself."""
        self.parameters[parameter.name] = parameter
        self.own.append(parameter.name)

    def settings(self, settings: type[Any], part: FlagPart) -> Callable[[Values], Any]:
        """Show the flags of some settings; gives what makes the settings of the values."""
        hints, makers = get_type_hints(settings), {}
        for field in dataclasses.fields(settings):
            given, inner = field.metadata.get("flag"), field.metadata.get("part")
            if given is not None:
                if part.only is None or field.name in part.only:
                    default = part.shown.get(field.name)
                    told = given if default is None else replace(given, shown=default)
                    makers[field.name] = self._flag(field, told, hints[field.name])
            elif dataclasses.is_dataclass(hints[field.name]):
                makers[field.name] = self.settings(hints[field.name], inner or part)
        return lambda values: settings(**{name: make(values) for name, make in makers.items()})

    def _flag(self, field: dataclasses.Field[Any], told: Flag, hint: Any) -> Callable[[Values], Any]:
        name = self._by_flag.get(told.names)
        if name is None:
            name = field.name if field.name not in self.parameters else told.names[-1].strip("-").replace("-", "_")
            self._by_flag[told.names] = name
            self.parameters[name] = _parameter(name, field.default, told, hint)
        return lambda values: _value(values[name], field.default, told)


def _parameter(name: str, default: Any, told: Flag, hint: Any) -> inspect.Parameter:
    """What Typer reads the option off."""
    required = default is dataclasses.MISSING
    if told.many:
        hint, default = list[str] | None, list(default) or None
    elif told.read is not None:
        hint = str | None if default is None else str
        default = ",".join(default) if isinstance(default, tuple) else default
    option = typer.Option(
        *told.names,
        help=f"{told.help} One of: {', '.join(told.choices)}." if told.choices else told.help,
        metavar=told.metavar,
        autocompletion=_completed(told.choices) if told.choices else None,
        show_default=False if required else told.shown,
        rich_help_panel=told.panel,
    )
    return inspect.Parameter(
        name,
        inspect.Parameter.KEYWORD_ONLY,
        default=inspect.Parameter.empty if required else default,
        annotation=Annotated[hint, option],
    )


def _completed(choices: tuple[str, ...]) -> Callable[[str], list[str]]:
    """What a shell offers for the beginning of a value."""

    def offered(incomplete: str) -> list[str]:
        return [one for one in choices if one.startswith(incomplete)]

    return offered


def _value(given: Any, default: Any, told: Flag) -> Any:
    """The field's value, of what Typer read."""
    if told.many:
        return default if given is None else tuple(told.read(one) if told.read else one for one in given)
    return told.read(given) if told.read is not None and given is not None else given


def _settings_of(hint: Any) -> tuple[type[Any] | None, FlagPart]:
    """The settings class of a parameter and the part of it that is offered; None for a plain parameter."""
    hint, *metadata = get_args(hint) if get_origin(hint) is Annotated else (hint,)
    part = next((one for one in metadata if isinstance(one, FlagPart)), FlagPart())
    return (hint, part) if isinstance(hint, type) and dataclasses.is_dataclass(hint) else (None, part)


def only(*names: str, **shown: str) -> FlagPart:
    """These fields alone; those with a text say so of their default."""
    return FlagPart((*names, *shown), shown)


OTHER_SPELLINGS = {
    "dataset build": {"output": "out", "answers": "answers-column"},
    "demo": {"model-path": "model"},
    "push": {"answers": "with-answers"},
}
"""Command → flag as it was called, or as other commands call it → the flag. They are read, and not shown in help.

Every command but the demo reads `--model` as its `--model-path` too.
"""


def register(program: typer.Typer, command: Callable[..., None], *, group: str = "", panel: str | None = None) -> None:
    """Put a command into a program: its flags from its settings, its help from its docstring."""
    name = command.__name__.replace("_", "-")
    others = OTHER_SPELLINGS.get(f"{group} {name}".strip(), {})
    if "model-path" not in others:
        others = {"model": "model-path", **others}
    program.command(
        name,
        help=help_of(command),
        rich_help_panel=panel,
        context_settings={"token_normalize_func": lambda flag: others.get(flag, flag)},
    )(spread(command))


def read_config(context: typer.Context, path: Path | None) -> Path | None:
    """Take the values of a run file as a command's defaults, which the flags behind it replace.

    Raises:
        SettingsError: a key that is no flag of the command, or a value that the flag cannot have.
    """
    if path is None or context.resilient_parsing:
        return path
    from ..store.run_file import check_keys, read_run_file

    options = {
        flag.removeprefix("--"): one
        for one in context.command.params
        for flag in one.opts
        if flag.startswith("--") and flag not in ("--config", "--help")
    }
    given, values = read_run_file(path), {}
    check_keys(path, given, {key: str(one.name) for key, one in options.items()})
    for key, value in given.items():
        option: Any = options[key]
        if isinstance(value, list) and not option.multiple:
            value = ",".join(value)
        elif option.multiple and not isinstance(value, list):
            value = [value]
        try:
            option.process_value(context, value)
        except Exception as error:
            if not hasattr(error, "format_message"):  # Typer's own errors; their classes are private
                raise
            reason = " ".join(str(error.message).split())  # pyright: ignore[reportAttributeAccessIssue]
            raise SettingsError(f"{path}: {key}: {reason}") from error
        values[option.name] = value
    context.default_map = values
    return path


_OF_ONE_CALL = ("config", "as_json", "quiet", "debug", "overwrite")
"""Options of a call, which its results do not depend on."""


def given_to(context: typer.Context) -> Values:
    """What decides a command's results, of its flags and its run file: flags without their dashes, and their values."""
    given = {}
    for option in context.command.params:
        source, value = context.get_parameter_source(str(option.name)), context.params.get(str(option.name))
        if source is not None and source.name in ("COMMANDLINE", "DEFAULT_MAP") and option.name not in _OF_ONE_CALL:
            given[option.opts[0 if option.opts[0].startswith("--") else -1].removeprefix("--")] = _as_text(value)
    return given


def _as_text(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [_as_text(one) for one in value]
    return str(value) if isinstance(value, Path) else value


def only_one(what: str, **given: Any) -> Any:
    """The one value that was given, of an argument and the flag that other commands have for it; None for none."""
    values = [one for one in given.values() if one is not None]
    if len(values) > 1:
        raise SettingsError(f"{what} is given twice, as {values[0]} and {values[1]}: give it once")
    return values[0] if values else None


def help_of(command: Callable[..., None]) -> str:
    """A command's docstring, each paragraph on one line: Typer would keep its line breaks in any terminal."""
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in (inspect.getdoc(command) or "").split("\n\n"))


def option_of(settings: type[Any], name: str) -> Any:
    """The option of one field, for a command that takes nothing else of its class."""
    (field,) = (one for one in dataclasses.fields(settings) if one.name == name)
    told: Flag = field.metadata["flag"]
    return typer.Option(*told.names, help=told.help, metavar=told.metavar, rich_help_panel=told.panel)


Overwrite = Annotated[bool, option_of(PipelineSettings, "overwrite")]
MaskOnly = Annotated[
    bool, typer.Option("--mask-only", help="Read only the mask, no counts: classes specific and related alone.")
]
Trained = Annotated[
    str | None,
    typer.Option("--trained", help="Languages trained on (zh,de): their mean change beside the others'."),
]

COUNTED = "those counted"
SEARCH = ("lo", "hi", "eps", "exact")
Neurons = Annotated[
    Selection,
    only(
        "top_rate", "bar", "skip_empty", *SEARCH,
        lam="the mask's, if there is only one, else AutoSweep's", languages="the mask's, else those counted",
    ),
]  # fmt: skip
"""The neurons of a model that a finding is about: those of its mask, else those that AutoSweep's λ gives."""
MaskNeurons = Annotated[Selection, only("top_rate", "lam", "method", "neurons", "seed", "languages")]
"""The neurons of a mask that is there, and those of its languages that are wanted."""


@dataclass(frozen=True)
class Model:
    """Which model on which dataset; results are named by both."""

    model_path: str = flag(..., "--model-path", help="Model folder, GGUF file or hub id.")
    dataset: str = flag(..., "-s", "--dataset", help="Dataset name, in the results' paths.")
    model_name: str | None = flag(
        None, "--model-name", help="Name in file names.", shown="the family in the model's config"
    )
    adapter: str | None = flag(
        None,
        "--adapter",
        help="LoRA adapter of this model: folder or hub id. Its last part names the results.",
        metavar="PATH",
        shown=False,
    )


@dataclass(frozen=True)
class Results:
    """Where results lie and how they are printed."""

    root: Path = flag(Path(), "--root", help="Folder under which results lie.", shown="current folder")
    as_json: bool = flag(False, "--json", help="Print the result as JSON.")
    quiet: bool = flag(False, "--quiet", help="No progress and no notes on stderr: errors alone.")
    debug: bool = flag(False, "--debug", help="Show the traceback of an error.")


Printing = Annotated[Results, only("as_json", "quiet", "debug")]
"""How results are printed, for a command that leaves none under --root."""


def _key_value(text: str) -> tuple[str, str]:
    """The key and the value of K=V; what a value means is the engine's to say."""
    key, equals, value = text.partition("=")
    if not (equals and key.strip()):
        raise SettingsError(
            f"--engine-arg must be K=V, got {text!r}: for example --engine-arg gpu_memory_utilization=0.8"
        )
    return key.strip().replace("-", "_"), value


@dataclass(frozen=True)
class EngineFlags:
    """Which engine runs the model, and how; the engine decides what is not given."""

    engine: str = flag(
        "auto", "--engine", help="What runs the model.", panel="Engine", choices=("auto", "transformers", "vllm")
    )
    dtype: str = flag(
        "auto",
        "--dtype",
        help="Precision; auto: the model's own.",
        panel="Engine",
        choices=("auto", "float32", "bfloat16", "float16"),
    )
    device: str | None = flag(
        None, "--device", help="transformers: cpu, cuda, cuda:1, mps.", shown="the best there is", panel="Engine"
    )
    batch_tokens: int | None = flag(None, "--batch-tokens", help="Tokens per batch.", shown="by device", panel="Engine")
    batch_invariant: bool = flag(
        False,
        "--batch-invariant",
        help="Compute each question alone, so that shards and other batches give exactly the same counts; slower.",
        panel="Engine",
    )
    adapter_live: bool = flag(
        False,
        "--adapter-live",
        help="Compute the adapter beside the model's weights, instead of merging it into them.",
        panel="Engine",
    )
    quantization: str | None = flag(
        None,
        "--quantization",
        help="transformers: quantize the weights when they are loaded.",
        choices=("bitsandbytes-8bit", "bitsandbytes-4bit"),
        shown="as they are stored",
        panel="Engine",
    )
    tensor_parallel_size: int | None = flag(
        None, "--tensor-parallel-size", help="vllm: ranks that share each layer.", panel="Engine"
    )
    pipeline_parallel_size: int | None = flag(
        None, "--pipeline-parallel-size", help="vllm: ranks that share the layers.", panel="Engine"
    )
    distributed_executor_backend: str | None = flag(
        None, "--distributed-executor-backend", help="vllm: what runs its ranks.", panel="Engine", choices=("mp", "ray")
    )
    replicas: int | None = flag(
        None,
        "--replicas",
        help="Copies of the model that share the work, on Ray; each has a GPU, or an equal share of the CPUs.",
        metavar="N",
        shown="one, without Ray",
        panel="Engine",
    )
    ray: str | None = flag(
        None,
        "--ray",
        help="Where replicas run: address of a Ray cluster, auto (this machine's), local (this machine alone).",
        metavar="ADDRESS",
        shown="local",
        panel="Engine",
    )
    engine_arg: tuple[tuple[str, str], ...] = flag(
        (),
        "--engine-arg",
        help="vllm: any other of its options.",
        metavar="K=V",
        panel="Engine",
        read=_key_value,
        many=True,
    )

    def choices(self) -> dict[str, Any]:
        """What `open_session` takes: engine, precision, and the options that were given."""
        given = {one.name: getattr(self, one.name) for one in dataclasses.fields(self) if one.name != "engine_arg"}
        if self.engine_arg:
            given["engine_args"] = dict(self.engine_arg)
        return {name: value for name, value in given.items() if value is not None and value is not False}


@dataclass(frozen=True, kw_only=True)
class Setup:
    """A model at work on a corpus: which, where its results lie, and the engine."""

    model: Model
    data: Path = flag(..., "-d", "--data", help="Corpus file: JSON list or JSON lines.")
    results: Results
    engine: EngineFlags

    def open(self, selection: Selection = DEFAULT_SELECTION, *, existing: bool = False) -> Session:
        """The session; `existing` also looks for counts that lie under another name."""
        with importing():
            from .._session import open_session

        named = {"model_name": self.model.model_name, "adapter": self.model.adapter}
        place: dict[str, Any] = {**named, "root": self.results.root, "existing": existing}
        path, dataset = self.model.model_path, self.model.dataset
        return open_session(path, self.data, dataset, selection=selection, **place, **self.engine.choices())


def layout_of(model: Model, results: Results, *, lambda_of: Selection | None = None) -> Layout:
    """Where a model's results lie; notes if that is under another name, and the λ that `lambda_of` gets from a mask."""
    from ..store.layout import results_name, results_of

    named: dict[str, Any] = {"model_name": model.model_name, "adapter": model.adapter}
    layout = results_of(model.model_path, model.dataset, root=results.root, **named)
    wanted = results_name(model.model_path, **named)
    if layout.model != wanted:
        note(f"no counts of {wanted} in {results.root.absolute()}; using those of {layout.model}")
    if lambda_of is not None:
        _stored_lambda(lambda_of, layout)
    return layout


def languages_of(selection: Selection, layout: Layout) -> tuple[str, ...]:
    """The languages named, else those that have counts; says which these are where they are not the paper's ten."""
    if selection.languages:
        return selection.languages
    languages = layout.languages()
    if languages != DEFAULT_LANGUAGES:
        note(f"languages: {', '.join(languages)}, those counted (--langs)")
    return languages


def _stored_lambda(selection: Selection, layout: Layout) -> float | None:
    """The λ of the only mask at this top rate and method, with a note; None where λ is given, or there is no mask."""
    if selection.lam is not None or not selection.has_lambda:
        return None
    from ..store.lambdas import one_lambda

    layout = layout.by(selection)
    lam = one_lambda(layout, selection)
    if lam is not None:
        note(f"λ = {lam!r}, from {layout.mask(selection.top_rate, lam)}")
    return lam


def with_lambda(selection: Selection, model: Model, results: Results, what: str) -> Selection:
    """The selection with a λ that names a mask: the one given, else that of the only mask."""
    if selection.lam is not None or not selection.has_lambda:
        return selection
    layout = layout_of(model, results)
    lam = _stored_lambda(selection, layout)
    if lam is None:
        raise SettingsError(
            f"{what} needs the λ of a mask, and {layout.model} has no mask of top rate {selection.top_rate!r} on "
            f"{layout.dataset}: give -l as `lna autosweep` prints it, here and to `lna identify`"
        )
    return replace(selection, lam=lam)


def answered(work: Session) -> Session:
    """The session with this model's own answers, where the corpus has questions alone; says so."""
    from .._session import with_stored_answers

    stored = with_stored_answers(work)
    if stored.corpus is not work.corpus:
        note(f"{work.corpus.path} has questions alone; using this model's own answers, {stored.corpus.path}")
    return stored
