"""Commands for more than one machine: plan, what a run needs, and shards, jobs for the parts of a corpus."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..config import Counting, MapSettings, check_choice
from ..errors import EngineError, SettingsError
from ..languages import in_default_order, parse_languages
from .options import EngineFlags, Overwrite, Printing, Setup, answered, given_to, only, only_one
from .output import note, notes, result, table

if TYPE_CHECKING:
    from .._plan import Plan
    from .._session import Session

REPLICAS = (1, 2, 4, 8, 16)
"""Replicas that the table of times has columns for."""

Throughput = Annotated[
    float | None,
    typer.Option("--tokens-per-second", help="Tokens that one replica counts in a second.", show_default="no times"),
]


def plan(
    engine: Annotated[
        EngineFlags,
        only("engine", "dtype", "batch_tokens", "tensor_parallel_size", "engine_arg", device="cuda"),
    ],
    printing: Printing,
    counting: Annotated[Counting, only("count", "blocks", "moments")],
    map_settings: Annotated[MapSettings, only("text", "controls")],
    path: Annotated[
        str | None,
        typer.Argument(
            metavar="MODEL", help="Model folder (its config.json is enough) or hub id.", show_default=False
        ),
    ] = None,
    model_path: Annotated[str | None, typer.Option("--model-path", hidden=True)] = None,
    data: Annotated[
        Path | None, typer.Option("-d", "--data", help="Corpus file, whose tokens are counted.", show_default=False)
    ] = None,
    tokens: Annotated[
        int | None, typer.Option("--tokens", help="Tokens of all texts, in place of a corpus.", show_default=False)
    ] = None,
    langs: Annotated[
        str | None,
        typer.Option("--langs", help="Languages: en,es,fr.", show_default="those of the corpus, else ten"),
    ] = None,
    max_new_tokens: Annotated[
        int | None,
        typer.Option(
            "--max-new-tokens",
            help="The model answers the questions first, with at most so many tokens each.",
            show_default=False,
        ),
    ] = None,
    tokens_per_second: Throughput = None,
    answer_tokens_per_second: Annotated[
        float | None,
        typer.Option(
            "--answer-tokens-per-second", help="Tokens of answers that one replica writes in a second.",
            show_default="no time for answers",
        ),
    ] = None,
    measure: Annotated[
        bool, typer.Option("--measure", help="Load the model here and measure what it counts in a second.")
    ] = False,
    gpu_memory: Annotated[
        str, typer.Option("--gpu-memory", help="Memory of one device, in GiB; several sizes may be named.")
    ] = "24,48,80",
) -> None:  # fmt: skip
    """Show what a run needs before a machine is rented: tokens, memory of each GPU, disk and time.

    Reads the model's config.json alone, no weights. What the numbers rest on is printed with them.

    Example: lna plan ./Llama-3.1-70B -d datasets/mgsm.json --tokens-per-second 4000
    """
    path = only_one("the model", path=path, model_path=model_path)
    if path is None:
        raise SettingsError("no model is given: for example `lna plan ./Mistral-7B-v0.1`")
    cards, more = _sizes(gpu_memory), vllm_memory(engine)
    from .._plan import plan as make_plan

    found = make_plan(
        path,
        data,
        tokens=tokens,
        languages=parse_languages(langs) if langs else (),
        engine=engine.engine,
        dtype=engine.dtype,
        device=engine.device or "cuda",
        batch_tokens=engine.batch_tokens,
        tensor_parallel_size=engine.tensor_parallel_size,
        cards=cards,
        count=counting.count,
        blocks=counting.blocks,
        moments=counting.moments,
        map_settings=map_settings,
        max_new_tokens=max_new_tokens,
        tokens_per_second=tokens_per_second,
        answer_tokens_per_second=answer_tokens_per_second,
        measure=measure,
        **more,
    )
    result(
        printing.as_json,
        plan_data(found),
        model_lines(found),
        memory_lines(found),
        fit_lines(found),
        corpus_lines(found),
        time_lines(found),
        disk_line(found),
        ["assumed:", *(f"- {one}" for one in found.assumed)],
    )


def shards(
    context: typer.Context,
    setup: Setup,
    counting: Counting,
    parts: Annotated[int, typer.Option("--parts", help="Number of shards, each a job.", show_default=False)],
    langs: Annotated[
        str | None, typer.Option("--langs", help="Languages: en,es,fr.", show_default="those of the corpus")
    ] = None,
    shell: Annotated[bool, typer.Option("--shell", help="Print a script for a machine without Slurm.")] = False,
    submit: Annotated[
        str | None,
        typer.Option(
            "--submit", metavar="slurm|local",
            help="Submit the jobs with submitit instead: to Slurm, or as processes of this machine.",
            show_default="print the script",
        ),
    ] = None,
    gpus: Annotated[
        int | None, typer.Option("--gpus", help="GPUs of a job.", show_default="those that the engine's flags ask for")
    ] = None,
    memory: Annotated[
        float | None,
        typer.Option("--memory", help="Main memory of a job, in GiB.", show_default="the weights and 8"),
    ] = None,
    minutes: Annotated[
        int | None,
        typer.Option("--time", help="Minutes of a job.", show_default="by --tokens-per-second, else the cluster's"),
    ] = None,
    sbatch: Annotated[
        list[str] | None,
        typer.Option("--sbatch", metavar="K=V", help="Other option of sbatch: partition=gpu, account=lab.",
                     show_default=False),
    ] = None,
    tokens_per_second: Throughput = None,
    overwrite: Overwrite = False,
) -> None:  # fmt: skip
    """Print the script that counts the shards of a corpus as one Slurm array job and then merges them, or submit it.

    A pipe into `bash` submits what it prints. The flags of `lna activation` are passed on. Shards whose counts are
    there and whole are left out, so the same command does what is missing. Without --tokens-per-second a job gets
    the cluster's default time.

    Example: lna shards --parts 8 --model-path ./Llama-3.1-70B -d datasets/mgsm.json -s mgsm --sbatch partition=gpu
    """
    if submit is not None:
        check_choice(submit, ("slurm", "local"), "--submit")
    if submit and shell:
        raise SettingsError("--shell prints a script and --submit submits jobs: give one of the two")
    slurm = tuple(_sbatch_option(one) for one in sbatch or ())
    languages = parse_languages(langs) if langs else None
    from .. import _shards as steps
    from .._session import with_counted_texts

    with answered(with_counted_texts(setup.open(), counting.count)) as session:
        chosen: dict[str, Any] = {"overlong": counting.overlong, "blocks": counting.blocks, "moments": counting.moments}
        languages = languages or in_default_order(session.corpus.languages)
        work = steps.shards_to_count(session, parts, languages, overwrite=overwrite, **chosen)
        found = None
        if memory is None or (minutes is None and tokens_per_second is not None):
            found = _plan_of(setup, session, languages, tokens_per_second)
    given = steps.resources(
        found,
        parts,
        gpus=_gpus(setup.engine) if gpus is None else gpus,
        replicas=setup.engine.replicas or 1,
        memory_gib=memory,
        minutes=minutes,
        slurm=slurm,
    )
    counted, merged = (_passed_on(context, command) for command in ("activation", "merge"))
    notes(steps.told(work, given))
    name, data = setup.model.dataset, {"shards": work, "resources": given}
    if submit is None:
        jobs = (work, counted, merged)
        script = (
            steps.shell_script(*jobs, again=overwrite)
            if shell
            else steps.slurm_script(name, *jobs, given, again=overwrite)
        )
        result(setup.results.as_json, {**data, "script": script}, script)
        return
    logs = setup.results.root / "shard_logs" / name
    note(f"scripts and logs of the jobs: {logs}")
    done = steps.submit(submit, name, work, counted, merged, given, logs=logs, again=overwrite)
    rows = [*([f"shard {part}/{parts}", job] for part, job in done.shards.items()), ["merge", done.merge]]
    lines = table(["job", "done" if done.done else "waiting"], rows)
    result(setup.results.as_json, {**data, "jobs": done}, lines, str(logs))


def _plan_of(setup: Setup, session: Session, languages: tuple[str, ...], tokens_per_second: float | None) -> Plan:
    """The plan of the whole corpus, for what each job is given."""
    from .._plan import plan as make_plan

    try:
        return make_plan(
            setup.model.model_path,
            session.corpus if tokens_per_second is not None else None,
            languages=languages,
            dtype=setup.engine.dtype,
            tokens_per_second=tokens_per_second,
        )
    except EngineError as error:
        raise SettingsError(f"{error}; so the jobs' memory cannot be planned: give --memory and --time") from error


def _gpus(engine: EngineFlags) -> int:
    """The GPUs that one engine takes: none on a CPU, else one for each rank of each replica."""
    if engine.device == "cpu":
        return 0
    ranks = (engine.tensor_parallel_size or 1) * (engine.pipeline_parallel_size or 1)
    return ranks * (engine.replicas or 1)


def _sbatch_option(text: str) -> tuple[str, str]:
    """The option and its value."""
    key, equals, value = text.partition("=")
    key = key.strip().removeprefix("--")
    if not (equals and key and value):
        raise SettingsError(f"--sbatch must be K=V, got {text!r}: for example --sbatch partition=gpu")
    if key in _OF_THE_SCRIPT:
        raise SettingsError(f"--sbatch {key}={value}: the script itself decides that; {_OF_THE_SCRIPT[key]}")
    return key, value


_OF_THE_SCRIPT = {
    "array": "give --parts",
    "dependency": "leave it out",
    "gpus-per-node": "give --gpus",
    "mem": "give --memory",
    "time": "give --time",
    "job-name": "give -s",
}
"""Options of sbatch that are not the caller's → what to do instead."""


def _passed_on(context: typer.Context, command: str) -> list[str]:
    """The flags that were given and that another command has too, as arguments for it."""
    program: Any = context.parent.command if context.parent else None
    known = {flag for one in program.commands[command].params for flag in one.opts}
    passed = []
    for name, value in given_to(context).items():
        flag = f"--{name}"
        if flag not in known or value is False:
            continue
        values = value if isinstance(value, list) else [value]
        passed += [flag] if value is True else [part for one in values for part in (flag, str(one))]
    return passed


def _sizes(text: str) -> tuple[float, ...]:
    """The sizes that `--gpu-memory` names."""
    try:
        sizes = tuple(float(one) for one in text.split(","))
    except ValueError:
        sizes = ()
    if not sizes or not all(0 < one < 10_000 for one in sizes):
        raise SettingsError(f"--gpu-memory must be numbers of GiB, got {text!r}: give for example 24,80")
    return sizes


_VLLM_MEMORY = {"max_model_len": ("longest", int, "4096"), "gpu_memory_utilization": ("usable", float, "0.9")}
"""vLLM's options that change its memory → what they are to a plan, and an example."""


def vllm_memory(engine: EngineFlags) -> dict[str, Any]:
    """What `--engine-arg` says of vLLM's memory: the longest text, and the share of a device."""
    more: dict[str, Any] = {}
    for key, value in engine.engine_arg:
        if key not in _VLLM_MEMORY:
            raise SettingsError(
                f"--engine-arg {key}={value} changes nothing in a plan: only {' and '.join(_VLLM_MEMORY)} do; leave it "
                "out"
            )
        name, kind, example = _VLLM_MEMORY[key]
        try:
            more[name] = kind(value)
        except ValueError:
            more[name] = 0
        if not more[name] > 0:
            raise SettingsError(f"--engine-arg {key}={value} is no number above 0: give for example {key}={example}")
    return more


def plan_data(found: Plan) -> dict[str, Any]:
    """The plan as JSON has it, with the sums that its tables show."""
    data = asdict(found)
    data["memory"] = [{**asdict(one), "total": one.total} for one in found.memory]
    return data


def model_lines(found: Plan) -> list[str]:
    """What is planned."""
    return table(
        ["model", found.path],
        [
            ["family (model_type)", found.family],
            ["parameters", f"{found.parameters:,}"],
            ["neurons", f"{found.neurons:,} in {found.layers} layers"],
            ["runs on", f"{found.engine}, {found.dtype}, batches of {found.batch_tokens:,} tokens"],
        ],
    )


def memory_lines(found: Plan) -> list[str]:
    """The memory of a device, by how many share each layer."""
    from .._model import in_gib

    rows = [
        [one.tensor_parallel_size, *map(in_gib, (one.weights, one.batch, one.cache, one.logits, one.counts, one.total))]
        for one in found.memory
    ]
    shared = "ranks" if found.device == "cpu" else "GPUs"
    header = [f"{shared} that share each layer", "weights", "batch", "cache", "logits", "counts", f"each {shared[:-1]}"]
    return table(header, rows)


def fit_lines(found: Plan) -> list[str]:
    """Whether the model fits, in words."""
    from .._model import in_gib

    lines, tried = [], [one.tensor_parallel_size for one in found.memory]
    for one in found.fits:
        size, takes = one.tensor_parallel_size, in_gib(one.total)
        if size == 1:
            smaller = f", with batches of {one.batch_tokens:,} tokens" if one.batch_tokens < found.batch_tokens else ""
            answer = f"yes, it takes {takes}{smaller}"
        elif size is not None:
            answer = f"no; needs --tensor-parallel-size {size}, {takes} on each of {size}"
        else:
            answer = f"no; {f'each of {tried[-1]} would need' if tried[-1] > 1 else 'it would take'} {takes}"
        where = f"into {one.gib:g} GiB of main memory" if found.device == "cpu" else f"on one GPU of {one.gib:g} GiB"
        lines.append(f"fits in {found.dtype} {where}: {answer}")
    return lines


def corpus_lines(found: Plan) -> list[str]:
    """The tokens of the corpus."""
    if found.corpus is None:
        return []
    tokens = found.corpus
    rows = [["texts", f"{tokens.full:,}"]]
    if tokens.questions:
        rows += [["prefixes", f"{tokens.prefix:,}"], ["questions", f"{tokens.prompts:,}"]]
    return table([f"corpus, {tokens.languages} languages", "tokens"], rows)


def time_lines(found: Plan) -> list[str]:
    """What each step computes, and how long that takes on some replicas."""
    if not found.steps:
        return []
    timed = any(one.seconds is not None for one in found.steps)
    rows = [
        [
            one.name,
            f"{one.read:,}",
            f"{one.written:,}",
            *([_time(one.seconds, replicas) for replicas in REPLICAS] if timed else []),
        ]
        for one in found.steps
    ]
    names = [f"{number} replica{'s' if number > 1 else ''}" for number in REPLICAS] if timed else []
    return table(["step", "tokens read", "tokens written", *names], rows)


def disk_line(found: Plan) -> str:
    """What lies on disk."""
    from .._model import in_gib

    return f"disk: weights {in_gib(found.weight_bytes)}, counts {in_gib(found.count_bytes)}"


def _time(seconds: float | None, replicas: int) -> str:
    """A time to be read.

    >>> _time(7300.0, 2), _time(90.0, 1), _time(None, 1)
    ('1.01 h', '1.5 min', '–')
    """
    if seconds is None:
        return "–"
    each = seconds / replicas
    return f"{each / 3600:.3g} h" if each >= 3600 else f"{each / 60:.2g} min" if each >= 60 else f"{each:.2g} s"
