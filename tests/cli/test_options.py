"""Flags made of settings, tables, and what a wrong flag must be refused before."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import pytest
import typer
import typer.main
from rich.cells import cell_len

from language_neurons_alignment._flags import flag
from language_neurons_alignment.cli.app import PANELS, app
from language_neurons_alignment.cli.options import only, spread
from language_neurons_alignment.cli.output import table
from language_neurons_alignment.config import (
    METHODS,
    Answering,
    MapSettings,
    MethodChoice,
    PipelineSettings,
    Sampling,
    Selection,
    StabilitySettings,
    SweepRange,
)
from language_neurons_alignment.errors import SettingsError
from tests.cli.conftest import Lna


def called(command: Any, *words: str) -> Any:
    """Call a command by the words typed after it; gives what it returned through its list."""
    program = typer.Typer()
    program.command()(spread(command))
    typer.main.get_command(program).main(list(words), standalone_mode=False)


@dataclass(frozen=True)
class Inner:
    number: float = flag(0.5, "-x", "--number", help="A number.")
    seed: int = flag(1, "--seed", help="Of the inner settings.")


@dataclass(frozen=True)
class Outer:
    names: tuple[str, ...] = flag(("a", "b"), "--names", help="Names.", read=lambda text: tuple(text.split("+")))
    texts: tuple[str, ...] = flag((), "--text", help="Texts.", many=True, read=str.upper)
    inner: Inner = Inner()


@dataclass(frozen=True)
class Other:
    seed: int = flag(2, "--seed", help="Of the other settings.")
    number: int = flag(7, "--other-number", help="Another number.")


def test_a_command_receives_the_settings_of_its_flags() -> None:
    seen: list[Any] = []

    def command(outer: Outer, other: Other, own: Annotated[int, typer.Option("--own")] = 3) -> None:
        seen.append((outer, other, own))

    called(command)
    called(command, "--names", "c+d", "--text", "x", "--text", "y", "-x", "2", "--other-number", "8", "--own", "4")
    called(command, "--seed", "9")
    assert seen[0] == (Outer(("a,b",), (), Inner(0.5, 1)), Other(1, 7), 3)
    assert seen[1] == (Outer(("c", "d"), ("X", "Y"), Inner(2.0, 1)), Other(1, 8), 4)
    assert (seen[2][0].inner.seed, seen[2][1].seed) == (9, 9), "a flag that two settings have sets both"


def test_a_command_may_take_some_of_the_flags() -> None:
    seen: list[Selection] = []

    def command(selection: Annotated[Selection, only("top_rate", "hi", lam="found")]) -> None:
        seen.append(selection)

    called(command, "-r", "0.1", "--hi", "3", "-l", "0.2")
    assert seen == [Selection(0.1, 0.2, search=SweepRange(hi=3.0))]
    with pytest.raises(Exception, match=r"No such option: --bar"):
        called(command, "--bar", "0.9")


def test_one_overlong_flag_of_run_sets_counting_and_the_map_and_in_python_they_are_two() -> None:
    seen: list[PipelineSettings] = []

    def run(settings: PipelineSettings) -> None:
        seen.append(settings)

    called(run, "--overlong", "skip", "--seed", "4")
    assert (seen[0].overlong, seen[0].map.overlong) == ("skip", "skip")
    assert (seen[0].sampling.seed, seen[0].map.seed) == (4, 4)
    own = PipelineSettings(overlong="truncate", map=MapSettings(overlong="skip"))
    assert (own.overlong, own.map.overlong) == ("truncate", "skip")
    with pytest.raises(SettingsError, match="--overlong"):
        PipelineSettings(overlong="drop")


@pytest.mark.parametrize(
    ("selection", "folder"),
    [
        (Selection(0.01, 0.2), "0.01-0.2"),
        (Selection(0.1, -0.0), "0.1-0.0"),
        (Selection(1, 1), "1.0-1.0"),
        (Selection(method="lape"), "lape-0.01"),
        (Selection(method="equal-n"), "equal-n-400"),
        (Selection(0.05, method="mean-difference"), "mean-difference-0.05"),
        (Selection(method="mean-difference", neurons=6), "mean-difference-6"),
        (Selection(0.05, 0.1, method="random"), "random-0.05-0.1-seed0"),
        (Selection(method="random", neurons=5, seed=3), "random-5-seed3"),
    ],
)
def test_a_selection_names_the_folder_of_its_results(selection: Selection, folder: str) -> None:
    assert selection.folder == folder


def test_languages_are_codes_however_they_are_given() -> None:
    assert Selection(languages=("English", "es")).languages == ("en", "es")
    with pytest.raises(SettingsError, match="given twice"):
        Selection(languages=("en", "English"))


def test_the_methods_compared_have_the_values_that_they_can_have() -> None:
    assert MethodChoice().selections() is None
    every = MethodChoice(neurons=5, seed=2).selections()
    assert every is not None
    assert [one.method for one in every] == list(METHODS)
    assert [one.neurons for one in every] == [None, None, 5, None, None]
    assert [one.seed for one in every] == [0, 0, 0, 0, 2]
    with pytest.raises(SettingsError, match="--method must be one of"):
        MethodChoice(methods=("nearest",))


def test_settings_are_checked_when_they_are_made() -> None:
    with pytest.raises(SettingsError, match="-n 2 at --temperature 0"):
        Answering(answers=2)
    assert Answering(2, Sampling(temperature=0.7)).answers == 2
    with pytest.raises(SettingsError, match="--lo"):
        StabilitySettings(Selection(search=SweepRange(lo=2, hi=1)))
    with pytest.raises(SettingsError, match="target stands for no language here: name one, or give `each`"):
        MapSettings(do=("zero target",))


TYPOS = {
    "generate": ("-o", "out.json"),
    "ppl": ("-s", "words"),
    "evaluate": ("-s", "words"),
    "force": ("-s", "words"),
    "run": ("-s", "words"),
}


@pytest.mark.parametrize("command", TYPOS)
@pytest.mark.parametrize("step", ["zoro fr", "zero xx-nothing", "scale:much fr", "zero fr:typo"])
def test_a_typo_in_do_is_refused_before_weights_are_hashed_or_the_corpus_is_read(
    lna: Lna, command: str, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def opened(*_: object, **__: object) -> None:
        raise AssertionError("the session was opened")

    monkeypatch.setattr("language_neurons_alignment._session.open_session", opened)
    call = lna(command, "--model-path", "nowhere", "-d", "nothing.json", *TYPOS[command], "-l", 0.1, "--do", step)
    assert (call.code, call.out) == (2, "")
    assert step in call.err
    assert len(call.err.splitlines()) == 1


def test_a_table_is_plain_and_nothing_in_it_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"COLUMNS": "20", "FORCE_COLOR": "1", "TERM": "xterm-256color"}.items():
        monkeypatch.setenv(name, value)
    long = "[bold]no markup[/bold] :smile: " + "x" * 300
    assert table(["name", "数", "last"], [["ab", 1, long], ["c", 20, "日本"]]) == [
        "name  数  last",
        "-" * (4 + 2 + 2 + 2 + len(long)),
        f"ab     1  {long}",
        "c     20  日本",
    ]
    assert table(["a", "b"], []) == ["a  b", "----"]


def test_on_a_narrow_terminal_columns_that_do_not_fit_stand_in_a_table_below(monkeypatch: pytest.MonkeyPatch) -> None:
    header = ["off", "text", "change", "range", "", "largest"]
    rows = [
        [code, "fr", "+1.0 %", "-1 to +1", "outside control", f"+{n}.5 % (Sp)"] for n, code in enumerate(("en", "数"))
    ]
    whole = table(header, rows)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    for columns in range(36, 90, 3):  # 36: columns that are never apart
        monkeypatch.setenv("COLUMNS", str(columns))
        lines = table(header, rows, keys=2)
        assert max(map(cell_len, lines)) <= columns
        parts = "\n".join(lines).split("\n\n")
        assert all(part.startswith("off  text  ") for part in parts)
        assert sum(len(part.splitlines()) for part in parts) == len(parts) * len(whole), "a row is a line"
        for cell in rows[1]:
            assert any(str(cell) in line for line in lines)
    assert table(header, rows, keys=2) == whole, "wide enough"
    monkeypatch.setenv("COLUMNS", "20")
    assert "".join(table(["name"], [["x" * 50]])[2:]) == "x" * 50, "nothing is cut"


def test_the_commands_stand_under_four_headings(lna: Lna) -> None:
    assert list(PANELS) == ["Corpus", "Neurons", "Effects", "Findings"]
    listed = [command.__name__.replace("_", "-") for commands in PANELS.values() for command in commands]
    assert sorted(listed) == sorted(str(one.name) for one in app.registered_commands)
    shown = lna("--help").out
    places = [shown.index(f"─ {panel} ─") for panel in PANELS]
    assert places == sorted(places)


def test_every_command_that_draws_takes_a_title() -> None:
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    titled = {name for name, one in commands.items() if any("--title" in option.opts for option in one.params)}
    assert titled == {"run", "demo", "ppl", "evaluate", "force", "methods", "stability", "report"}


def test_a_title_makes_no_other_settings() -> None:
    assert MapSettings(title="Figure 1") == MapSettings()
    assert repr(MapSettings(title="Figure 1")) == repr(MapSettings()), "nor another run, which would start anew"
