"""Commands for more than one machine: plan, what a run needs, and shards, jobs for the parts of a corpus."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..config import Counting, MapSettings
from ..errors import SettingsError
from ..languages import parse_languages
from .options import EngineFlags, Printing, only, only_one
from .output import result, table

if TYPE_CHECKING:
    from .._plan import Plan

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
    return table(["GPUs that share each layer", "weights", "batch", "cache", "logits", "counts", "each GPU"], rows)


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
        lines.append(f"fits in {found.dtype} on one GPU of {one.gib:g} GiB: {answer}")
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
