"""What is printed: text from outside steers no terminal, tables stay aligned, and JSON keeps the exact text."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from language_neurons_alignment.cli import output
from language_neurons_alignment.errors import visible
from tests.cli.conftest import Lna
from tests.workspace import write_corpus

HOSTILE = {
    "colour": "\x1b[31m",
    "cursor": "\x1b[2A\x1b[2K",
    "title": "\x1b]0;owned\x07",
    "link": "\x1b]8;;http://x\x1b\\y\x1b]8;;\x1b\\",
    "clipboard": "\x1b]52;c;aGk=\x07",
    "eight-bit control": "\x9b31m",
    "bell and backspace": "\x07\x08\x08",
    "carriage return": "\rlna: all is well",
    "delete": "\x7f",
    "order": "\u202egnp.exe\u202c \u2066x\u2069",
    "zero width": "a\u200bb\ufeff",
    "line separator": "\u2028\u2029\x85",
    "tags": "\U000e0041\U000e007f",
}


def steering(text: str) -> set[str]:
    """The characters of a text that a terminal would obey; line feeds are ours."""
    return {one for one in text if not one.isprintable() and one != "\n"}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_hostile_text_in_a_corpus_reaches_no_terminal(lna: Lna, tmp_path: Path, text: str) -> None:
    records = [
        {"lang": "en", "id": f"7{text}", "instruction": f"1 + 1?{text}", "answers": [{"generated": text}]},
        {"lang": "en", "id": f"7{text}", "instruction": f"1 + 1?{text}", "answers": []},
        {"lang": "fr", "id": f"8{text}", "instruction": "1 + 1 ?", "answers": []},
        {"lang": f"en{text}", "instruction": "x", "answers": []},
        {"lang": "en", "instruction": "x", "answers": [], text: 1, f"{text}2": {"a": 1}},
        {"instruction": text},
    ]
    path = write_corpus(tmp_path / f"c{text.replace('/', '')}.json", records)
    call = lna("dataset", "check", path, "--no-language-id")
    assert call.code == 1
    assert not steering(call.out + call.err)
    assert ascii(text)[1:-1].replace("\\\\", "\\") in call.out or text.startswith("\r")
    machine = lna("dataset", "check", path, "--no-language-id", "--json")
    assert not steering(machine.out + machine.err)
    assert machine.json["path"] == str(path)


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_hostile_arguments_reach_no_terminal(lna: Lna, tmp_path: Path, text: str) -> None:
    model = ("--model-path", tmp_path / "model", "-s", "mgsm")
    calls = [
        (f"x{text}",),
        ("dataset", f"x{text}"),
        ("dataset", "check", tmp_path / f"x{text}"),
        ("autosweep", f"--x{text}"),
        ("autosweep", *model, f"x{text}"),
        ("autosweep", *model, "-r", f"0.1{text}"),
        ("autosweep", *model, "--langs", f"en,x{text}"),
        ("autosweep", *model, "--root", tmp_path / f"x{text}"),
        ("autosweep", *model, "--model-name", f"x{text}"),
        ("autosweep", "--model-path", tmp_path / f"x{text}", "-s", "mgsm"),
        ("autosweep", "--model-path", tmp_path / "model", "-s", f"x{text}"),
        ("ppl", *model, "-d", tmp_path / "c.json", "-r", 0.1, "-l", 0.1, "--do", f"zero x{text}"),
        ("dataset", "build", f"x{text}", "-o", tmp_path / "o.json"),
    ]
    for arguments in calls:
        call = lna(*arguments)
        assert call.code in (1, 2), arguments
        assert not steering(call.out + call.err), arguments


def test_a_traceback_quotes_no_control_characters(capsys: pytest.CaptureFixture[str]) -> None:
    try:
        raise ValueError("\x1b[31mred")
    except ValueError as error:
        output.show_traceback(type(error), error, error.__traceback__)
    shown = capsys.readouterr().err
    assert "Traceback" in shown
    assert r"ValueError: \x1b[31mred" in shown
    assert not steering(shown)


def test_a_progress_bar_shows_its_label_harmlessly(capsys: pytest.CaptureFixture[str]) -> None:
    output.Bar("\x1b[31mfr\n", 10, "tok").close()
    assert r"\x1b[31mfr\n" in capsys.readouterr().err


@pytest.mark.parametrize("seconds", [0, 1, 7, 40])
def test_without_a_terminal_progress_is_a_whole_line_every_30_seconds_at_most_and_the_end(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, seconds: int
) -> None:
    now = [100.0]
    monkeypatch.setattr(output.time, "monotonic", lambda: now[0])
    said: list[float] = []
    monkeypatch.setattr(output, "note", lambda text, note=output.note: (said.append(now[0]), note(text)))
    with output.Bars() as bars:
        for label in ("English", "\x1b[31mfr\r\n"):  # the 30 seconds run on from bar to bar
            advance = bars.start(label, 11)
            advance.spare(1)
            for _ in range(10):
                now[0] += seconds
                advance(1)
    lines = capsys.readouterr().err.splitlines()
    assert not steering("".join(lines))
    gaps = [late - early for early, late in zip([100.0, *said[:-1]], said, strict=True)]
    assert all(gap >= 30 for gap in gaps[:-1]), "all but the last state"
    assert len(lines) == len(said) == {0: 1, 1: 1, 7: 4, 40: 20}[seconds], lines
    assert "\\x1b[31mfr" in lines[-1]
    assert "10.0/10.0" in lines[-1]


def test_on_a_terminal_progress_is_a_bar(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with output.Bars() as bars:
        bars.start("English", 10)(10)
    assert "\r" in capsys.readouterr().err


def test_bars_measure_what_this_process_had_of_the_processors_since_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0, 7.0]
    monkeypatch.setattr(output.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(output.time, "process_time", lambda: now[1])
    with output.Bars() as bars:
        now[:] = 150.0, 9.0  # loading is no part of it
        for label in ("en", "fr"):
            bars.start(label, 10)(10)
            now[0], now[1] = now[0] + 20, now[1] + 5
    assert bars.spent == (40.0, 10.0)
    with output.Bars() as bars:
        pass
    assert bars.spent == (0.0, 0.0)


def test_tables_with_escapes_stay_aligned() -> None:
    lines = output.table(["name", "n"], [["plain", 1], ["\x1b[31mred\r\n", 22], ["数学\u202e", 333], ["\ta", 4]])
    assert not steering("".join(lines))
    assert len(lines) == 6
    from rich.cells import cell_len

    assert {cell_len(line) for line in lines[2:]} == {cell_len(r"\x1b[31mred\r\n") + 5}


def test_notes_and_results_keep_their_line_breaks(capsys: pytest.CaptureFixture[str]) -> None:
    output.note("one\ntwo\x1b[31m")
    output.result(False, {}, ["a", "b\x07"], "c\td")
    said = capsys.readouterr()
    assert said.err == "one\ntwo\\x1b[31m\n"
    assert said.out == "a\nb\\x07\n\nc\td\n"


@given(st.text())
def test_json_on_stdout_is_the_exact_text_with_nothing_that_a_terminal_obeys(text: str) -> None:
    shown = output._visible_json(json.dumps({text: [text]}, ensure_ascii=False))
    assert json.loads(shown) == {text: [text]}
    assert visible(shown) == shown


@given(st.text())
def test_what_is_visible_stays_as_it_is(text: str) -> None:
    once = visible(text)
    assert visible(once) == once
    assert all(one.isprintable() or one in "\n\t" or visible(one) == one for one in once)


@pytest.mark.parametrize("text", ["数学", "मराठी", "می\u200cخواهم", "👩\u200d🚀 naïve", "λ = 0.1", "שלום"])
def test_text_of_any_script_is_shown_as_it_is(text: str) -> None:
    assert visible(text) == text


LONG = ["a" * 300, "é" * 140, "/".join(["d" * 200] * 30)]


@pytest.mark.parametrize("name", [*LONG, "a\0b"], ids=["long", "long in bytes", "deep", "NUL"])
def test_a_path_that_no_system_can_have_is_one_line_whatever_option_it_is_given_to(
    lna: Lna, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    corpus = write_corpus(tmp_path / "c.json")
    model, rates = ("--model-path", tmp_path / "model", "-s", "mgsm"), ("-r", 0.1, "-l", 0.1)
    calls = [
        ("dataset", "check", name),
        ("dataset", "build", name, "-o", "x.json"),
        ("dataset", "build", corpus, "-o", name, "--lang-column", "lang"),
        ("dataset", "build", corpus, "-o", "x.json", "--template", name),
        ("dataset", "build", "mgsm", "--from", name, "-o", "x.json"),
        ("autosweep", *model, "--root", name),
        ("autosweep", "--model-path", name, "-s", "mgsm"),
        ("autosweep", "--model-path", tmp_path / "model", "-s", name),
        ("autosweep", *model, "--model-name", name),
        ("autosweep", *model, "--langs", name),
        ("activation", *model, "-l", "en", "-d", name),
        ("activation", *model, "-l", name, "-d", corpus),
        ("generate", "--model-path", name, "-d", corpus, "-o", "x.json"),
        ("generate", "--model-path", tmp_path / "model", "-d", corpus, "-o", name),
        ("merge", *model, name, name),
        ("import-mask", name, *model, *rates),
        ("ppl", *model, "-d", corpus, *rates, "--do", f"zero @{name}"),
        ("ppl", *model, "-d", corpus, *rates, "--do", f"zero {name}"),
        ("compare", name, name, "-s", "mgsm"),
        ("report", *model, *rates, "--out", name),
    ]
    for arguments in calls:
        call = lna(*arguments)
        assert call.code in (1, 2), arguments
        assert "Traceback" not in call.err, arguments
        ours = [line for line in call.err.splitlines() if line.startswith("lna: ")]
        assert len(ours) == 1 or "Usage:" in call.err, arguments
        assert not steering(call.err), arguments


def test_an_error_that_nothing_explains_is_shown_harmlessly(
    lna: Lna, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("\x1b[31mred")

    monkeypatch.setattr("language_neurons_alignment._dataset.check_dataset", broken)
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    with pytest.raises(ZeroDivisionError) as raised:
        lna("dataset", "check", tmp_path / "c.json")
    sys.excepthook(ZeroDivisionError, raised.value, raised.tb)
    shown = capsys.readouterr().err
    assert r"ZeroDivisionError: \x1b[31mred" in shown
    assert not steering(shown)
