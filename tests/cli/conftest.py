"""The command line, called in this process, and a tiny model for it."""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import typer.main

from language_neurons_alignment import cli
from tests.tiny_models import save_tiny_model
from tests.workspace import small_records, write_corpus


@dataclass(frozen=True)
class Call:
    """What a call of the program did."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()

    @property
    def json(self) -> dict[str, Any]:
        return json.loads(self.out)


Lna = Callable[..., Call]


@pytest.fixture
def lna(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Lna:
    """Call `main` as the console script does: lna("autosweep", "-r", 0.01) → exit code, stdout, stderr."""

    def call(*arguments: object) -> Call:
        monkeypatch.setattr(sys, "argv", ["lna", *map(str, arguments)])
        capsys.readouterr()
        try:
            cli.main()
            code = 0
        except SystemExit as ended:
            code = int(ended.code or 0)
        said = capsys.readouterr()
        foreign = foreign_flags([*map(str, arguments)], said.err)
        assert not foreign, f"the message names {foreign}, which this command does not have: {said.err}"
        return Call(code, said.out, said.err)

    return call


def foreign_flags(arguments: list[str], err: str) -> set[str]:
    """Flags that our messages tell a user to give, and that the command which was called does not have."""
    command: Any = typer.main.get_command(cli.app)
    for name in arguments:
        if not hasattr(command, "commands"):
            break
        command = command.commands.get(name)
        if command is None:
            return set()
    own = {flag for parameter in command.params for flag in getattr(parameter, "opts", ())}
    ours = [line for line in err.splitlines() if line.startswith("lna: ")]
    advice = re.sub(r"`[^`]*`|'[^']*'", "", " ".join(ours))  # other commands, and what was given
    return set(re.findall(r"(?<![\w/.-])(--[a-z][a-z-]+|-[a-z])(?![\w-])", advice)) - own


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny Llama and a corpus of ten languages."""
    folder = tmp_path_factory.mktemp("cli")
    save_tiny_model("llama", folder / "tiny-llama")
    write_corpus(folder / "datasets" / "mgsm.json", small_records(questions=2))
    return folder


@pytest.fixture
def here(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, which is the current folder."""
    folder = Path(shutil.copytree(tiny, tmp_path / "here"))
    monkeypatch.chdir(folder)
    return folder
