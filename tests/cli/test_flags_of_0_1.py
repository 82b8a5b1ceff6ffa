"""Every command and flag of version 0.1 keeps working: what scripts and notebooks use is never taken away."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from typing import Any

import pytest
import typer.main

from language_neurons_alignment.cli.app import app

FLAGS = {
    "demo": """
        --root --json --debug --engine --dtype --device --batch-tokens --tensor-parallel-size
        --pipeline-parallel-size --distributed-executor-backend --engine-arg --model --fast --controls -r
        --top-rate --force
    """,
    "run": """
        --model-path -s --dataset --model-name -d --data --root --json --debug --lo --hi --eps --exact --classes
        --text --scale --average --overlong --temperature --top-p --max-new-tokens --stop --seed -n --answers
        --engine --dtype --device --batch-tokens --tensor-parallel-size --pipeline-parallel-size
        --distributed-executor-backend --engine-arg --controls --langs -r --top-rate -b --bar -l --lam --blocks
        --moments --force
    """,
    "generate": """
        --model-path -d --data -o --out --langs --overlong --overwrite --temperature --top-p --max-new-tokens
        --stop --seed -n --answers --root --json --debug --engine --dtype --device --batch-tokens
        --tensor-parallel-size --pipeline-parallel-size --distributed-executor-backend --engine-arg --do
        --classes -r --top-rate -l --lam --method --neurons --mask-seed -s --dataset --model-name --deactivate
    """,
    "activation": """
        --model-path -s --dataset --model-name -l --lang -d --data --root --json --debug --engine --dtype
        --device --batch-tokens --tensor-parallel-size --pipeline-parallel-size --distributed-executor-backend
        --engine-arg --shard --overlong --blocks --moments --force
    """,
    "autosweep": """
        --model-path -s --dataset --model-name --root --json --debug --lo --hi --eps --exact -r --top-rate -b
        --bar --langs
    """,
    "identify": """
        --model-path -s --dataset --model-name --root --json --debug --method --neurons --mask-seed -l --lam -r
        --top-rate -b --bar --langs --force
    """,
    "ppl": """
        --model-path -s --dataset --model-name -d --data --root --json --debug --engine --dtype --device
        --batch-tokens --tensor-parallel-size --pipeline-parallel-size --distributed-executor-backend
        --engine-arg --classes --text --scale --average --overlong --controls --seed --method --neurons
        --mask-seed -l --lam -r --top-rate --langs --do --force
    """,
    "evaluate": """
        --model-path -s --dataset --model-name -d --data --do --classes -r --top-rate -l --lam --method
        --neurons --mask-seed --temperature --top-p --max-new-tokens --stop --seed --root --json --debug
        --engine --dtype --device --batch-tokens --tensor-parallel-size --pipeline-parallel-size
        --distributed-executor-backend --engine-arg --controls --show --langs --overlong --force
    """,
    "methods": """
        --model-path -s --dataset --model-name -d --data --root --json --debug --engine --dtype --device
        --batch-tokens --tensor-parallel-size --pipeline-parallel-size --distributed-executor-backend
        --engine-arg --lo --hi --eps --exact -l --lam -b --bar --langs --classes --text --overlong -r --top-rate
        --methods --neurons --mask-seed --force
    """,
    "force": """
        --model-path -s --dataset --model-name -d --data --do --classes -r --top-rate -l --lam --method
        --neurons --mask-seed --temperature --top-p --max-new-tokens --stop --seed --root --json --debug
        --engine --dtype --device --batch-tokens --tensor-parallel-size --pipeline-parallel-size
        --distributed-executor-backend --engine-arg --controls --langs --targets --overlong --force
    """,
    "merge": """
        --model-path -s --dataset --model-name --root --json --debug <shards> --force
    """,
    "analyze": """
        --model-path -s --dataset --model-name --root --json --debug -r --top-rate -l --lam -b --bar --langs
        --mask-only --lo --hi --eps --exact
    """,
    "compare": """
        <models> --root --json --debug -r --top-rate -l --lam -b --bar --langs --mask-only --lo --hi --eps
        --exact -s --dataset --model-name --trained
    """,
    "stability": """
        --model-path -s --dataset --model-name --root --json --debug -r --top-rate -b --bar -l --lam --lo --hi
        --langs --draws --splits --seed --with
    """,
    "report": """
        --model-path -s --dataset --model-name --root --json --debug -r --top-rate -l --lam -b --bar --langs
        --mask-only --lo --hi --eps --exact <others> --trained -o --out
    """,
    "import-mask": """
        <file> --model-path -s --dataset --model-name --root --json --debug --langs -r --top-rate -l --lam
        --force
    """,
    "dataset build": """
        <source> -o --output --from --split --revision --answers --instruction-column --lang-column --lang
        --id-column --target-column --no-header --no-quotes --unaligned --json --debug --langs --limit --seed
        --template --model-path --force
    """,
    "dataset check": """
        <file> --json --debug --model-path --no-language-id
    """,
    "dataset templates": """
        --json --debug --model-path
    """,
    "": """
        --version
    """,
}
"""Command → its flags, and its arguments in angle brackets, as of commit dc3d973; the program's own stand under ""."""

REPLACING = ("run", "demo", "generate", "activation", "merge", "identify", "import-mask", "ppl", "evaluate", "force",
             "methods", "dataset build")  # fmt: skip


def commands() -> Iterator[tuple[str, Any]]:
    """Every command by its words, and the program itself as ""."""
    whole: Any = typer.main.get_command(app)
    yield "", whole
    for name, command in whole.commands.items():
        yield name, command
        yield from ((f"{name} {below}", one) for below, one in getattr(command, "commands", {}).items())


COMMANDS = dict(commands())


def flags_of(command: Any) -> set[str]:
    """Its flags, and its arguments in angle brackets."""
    every = (one for parameter in command.params for one in (*parameter.opts, *parameter.secondary_opts))
    return {one if one.startswith("-") else f"<{one}>" for one in every}


@pytest.mark.parametrize("command", FLAGS)
def test_every_flag_of_0_1_is_still_read(command: str) -> None:
    own = COMMANDS[command]
    respelled = own.context_settings.get("token_normalize_func", str)
    read = {f"--{respelled(one[2:])}" if one.startswith("--") else one for one in FLAGS[command].split()}
    assert read <= flags_of(own)


def parsed(command: str, *words: str) -> dict[str, Any]:
    """What a command reads of some words."""
    with COMMANDS[command].make_context(command, [*words]) as context:
        return dict(context.params)


SAME = {
    "dataset build": ("mgsm --output a.json --answers gold", "mgsm -o a.json --answers-column=gold"),
    "push": ("me/x --model m -s mgsm --answers", "me/x --model-path m -s mgsm --with-answers"),
    "demo": ("--model-path gemma3-270m", "--model=gemma3-270m"),
    "autosweep": ("--model=m -s mgsm", "--model-path m -s mgsm"),
}


@pytest.mark.parametrize("command", SAME)
def test_other_spellings_of_a_flag_are_read_and_not_shown(command: str) -> None:
    old, new = SAME[command]
    assert parsed(command, *old.split()) == parsed(command, *new.split())
    before, now = (set(re.findall("--[a-z-]+", words)) for words in (old, new))
    assert now <= flags_of(COMMANDS[command])
    assert before - now
    assert not (before - now) & flags_of(COMMANDS[command])


ONE_MEANING = {
    "-b": "bar", "-d": "data", "-n": "answers", "-o": "out", "-r": "top_rate", "-s": "dataset", "--root": "root",
    "--out": "out", "--data": "data", "--dataset": "dataset", "--langs": "languages", "--adapter": "adapter",
    "--model-path": "model_path", "--model-name": "model_name", "--answers": "answers", "--json": "as_json",
    "--quiet": "quiet", "--debug": "debug",
}  # fmt: skip
"""The flags that many commands have, and the one thing that each sets; -l is λ, and in the seed a language too."""


@pytest.mark.parametrize("flag", ONE_MEANING)
def test_a_flag_sets_the_same_thing_in_every_command(flag: str) -> None:
    sets = {one.name for command in COMMANDS.values() for one in command.params if flag in one.opts}
    assert sets <= {ONE_MEANING[flag], *(["langs"] if flag == "--langs" else [])}
    assert sets


@pytest.mark.parametrize("command", REPLACING)
def test_every_command_that_replaces_takes_overwrite_and_force(command: str) -> None:
    (parameter,) = (one for one in COMMANDS[command].params if "--overwrite" in one.opts)
    assert set(parameter.opts) == {"--overwrite", "--force"}
    assert parameter.name == "overwrite"


@pytest.mark.parametrize("command", [name for name in COMMANDS if name not in ("", "dataset")])
def test_help_is_a_sentence_then_details_and_an_example_that_can_be_typed(command: str) -> None:
    sentence, *_, example = (COMMANDS[command].help or "").split("\n\n")
    assert re.fullmatch(r"[A-Z].*\.", sentence)
    assert example.startswith(f"Example: lna {command}")
    words = shlex.split(example.removeprefix(f"Example: lna {command}"))
    COMMANDS[command].make_context(command, words).close()


@pytest.mark.parametrize("flag", ["--json", "--quiet", "--debug"])
def test_every_command_has_the_flags_of_the_program(flag: str) -> None:
    assert [name for name, one in COMMANDS.items() if name not in ("", "dataset") and flag not in flags_of(one)] == []
