"""What holds for all commands: what stands before them, choices, completion, no colours where none are wanted."""

from __future__ import annotations

import re
import runpy
import sys
from pathlib import Path

import pytest

from language_neurons_alignment.store.layout import Layout
from tests.cli.conftest import Lna
from tests.workspace import store_counts

SWEEP = ("autosweep", "--model-path", "/m/MODEL", "--model-name", "M", "-s", "mgsm", "-r", 0.1)


def test_the_package_is_the_program(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["lna", "--version"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_module("language_neurons_alignment", run_name="__main__")
    assert ended.value.code == 0
    assert capsys.readouterr().out == "0.1.0\n"


def test_quiet_leaves_results_and_errors(lna: Lna, tmp_path: Path) -> None:
    store_counts(Layout(tmp_path, "mgsm", "M-MODEL"))
    usual = lna(*SWEEP, "--root", tmp_path)
    assert "[autosweep] evaluating" in usual.err
    for words in (("--quiet", *SWEEP), (*SWEEP, "--quiet")):
        call = lna(*words, "--root", tmp_path)
        assert (call.code, call.out, call.err) == (0, usual.out, "")
    failed = lna("--quiet", *SWEEP, "--root", tmp_path / "nothing")
    assert failed.err.startswith("lna: ")
    assert "[autosweep]" in lna(*SWEEP, "--root", tmp_path).err, "it holds for one call"


def test_debug_stands_before_the_command_or_behind_it(lna: Lna, tmp_path: Path) -> None:
    for words in (("--debug", *SWEEP), (*SWEEP, "--debug")):
        with pytest.raises(Exception, match="is not there"):
            lna(*words, "--root", tmp_path)
    assert lna(*SWEEP, "--root", tmp_path).code == 1


CHOICES = {
    "identify": ("--method", "entropy-lambda", "lape", "equal-n", "mean-difference", "random"),
    "run": ("--count", "answers", "text"),
    "model": ("--dtype", "auto", "float32", "bfloat16", "float16"),
}


@pytest.mark.parametrize("command", CHOICES)
def test_choices_are_shown_in_help_and_completed_by_a_shell(
    lna: Lna, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    flag, *choices = CHOICES[command]
    monkeypatch.setenv("COLUMNS", "300")
    help_ = lna(command, "--help").out
    (line,) = (line for line in help_.splitlines() if re.match(rf"│ +{flag} ", line))
    assert f"One of: {', '.join(choices)}." in line
    monkeypatch.setenv("_LNA_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", f"lna {command} {flag} ")
    monkeypatch.setenv("COMP_CWORD", "3")
    assert lna().out.split() == choices
    monkeypatch.setenv("COMP_WORDS", f"lna {command} {flag} {choices[0][:2]}")
    assert choices[0] in lna().out.split()
    assert len(lna().out.split()) < len(choices)


COLOUR = re.compile("\x1b\\[[0-9;]*3[0-7]m")


def test_colours_are_for_terminals_and_not_where_the_user_wants_none(
    lna: Lna, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    store_counts(Layout(tmp_path, "mgsm", "M-MODEL"))
    wrong, machine = ("check", "--nonsense"), (*SWEEP, "--root", tmp_path, "--json")
    monkeypatch.setattr("typer.rich_utils.FORCE_TERMINAL", None)  # what some CI sets
    assert not any("\x1b" in done.out + done.err for done in (lna(*words) for words in (wrong, machine)))

    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert COLOUR.search(lna(*wrong).err)
    assert "\x1b" not in lna(*machine).out
    monkeypatch.setenv("NO_COLOR", "1")
    assert not COLOUR.search(lna(*wrong).err)
