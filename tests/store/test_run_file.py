"""Run files: values are the text behind a flag, whatever YAML or TOML would make of it; what is wrong is one line."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from language_neurons_alignment.errors import SettingsError
from language_neurons_alignment.store.run_file import read_run_file, save_run_file


def read(folder: Path, text: str, name: str = "run.yaml") -> dict[str, str | list[str]]:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return read_run_file(path)


def test_yaml_gives_what_would_be_typed(tmp_path: Path) -> None:
    text = (
        'langs: [en, no]\neps: 1e-3\nhi: 0.20\nexact: true\nstop: ["\\n", "#"]\n"do":\n- zero each\ncount: text # so\n'
    )
    assert read(tmp_path, text) == {
        "langs": ["en", "no"],
        "eps": "1e-3",
        "hi": "0.20",
        "exact": "true",
        "stop": ["\n", "#"],
        "do": ["zero each"],
        "count": "text",
    }


def test_toml_gives_the_same(tmp_path: Path) -> None:
    text = 'langs = ["en", "no"]\neps = 1e-3\nexact = true\ncontrols = 5\nhi = "auto"\n'
    found = {"langs": ["en", "no"], "eps": "0.001", "exact": "true", "controls": "5", "hi": "auto"}
    assert read(tmp_path, text, "run.toml") == found


WRONG = {
    ("a: 1\na: 2", "run.yaml"): "run.yaml, line 2: a is there twice",
    ("a:", "run.yaml"): "run.yaml, line 1: a has no value",
    ("a: {b: 1}", "run.yaml"): "run.yaml, line 1: a has no value",
    ("a: [1, [2]]", "run.yaml"): "run.yaml, line 1: a has no value",
    ("b: 1\na: [1", "run.yaml"): "run.yaml, line 2: not valid YAML",
    ("a: *x", "run.yaml"): "run.yaml, line 1: not valid YAML",
    ("a: 1\n---\nb: 2", "run.yaml"): "run.yaml, line 2: not valid YAML",
    ("a: \x07", "run.yaml"): "not valid YAML",
    ("[" * 600, "run.yaml"): "run.yaml",
    ("- a", "run.yaml"): "no flags",
    ("", "run.yaml"): "no flags",
    ("a = ", "run.toml"): "run.toml: not valid TOML",
    ("a = 1\na = 2", "run.toml"): "run.toml: not valid TOML",
    ("[model]\na = 1", "run.toml"): "run.toml: model has no value",
    ("a = 1979-05-27", "run.toml"): "run.toml: a has no value",
    ("", "run.toml"): "no flags",
    ("a: 1", "run.json"): "run.json must end in .yaml, .yml, .toml",
}


@pytest.mark.parametrize(("text", "name"), WRONG)
def test_what_is_no_run_file_is_refused_in_one_line(tmp_path: Path, text: str, name: str) -> None:
    with pytest.raises(SettingsError) as raised:
        read(tmp_path, text, name)
    assert WRONG[text, name] in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"absent\.yaml: No such file"):
        read_run_file(tmp_path / "absent.yaml")
    (tmp_path / "latin.yaml").write_bytes(b"langs: \xe9")
    with pytest.raises(SettingsError, match="not UTF-8"):
        read_run_file(tmp_path / "latin.yaml")


@settings(max_examples=25)
@given(st.text() | st.lists(st.text(max_size=9), min_size=1, max_size=3))
@example("no")
@example("é\x85\u2028\U0001f680\x7f")
def test_what_is_stored_is_read_back(tmp_path_factory: pytest.TempPathFactory, value: str | list[str]) -> None:
    path = tmp_path_factory.getbasetemp() / "stored.yaml"
    save_run_file(path, {"data": value, "controls": 5, "exact": False})
    assert read_run_file(path) == {"data": value, "controls": "5", "exact": "false"}
