"""Damaged maps, evaluations, forcing tables, journals and descriptions: one line that names the file, no traceback.

The kinds were found by `tests/campaign`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from language_neurons_alignment._report import gather
from language_neurons_alignment.config import Selection
from language_neurons_alignment.errors import ArtifactError
from language_neurons_alignment.store.answers import evaluation_grid, forcing_grid
from language_neurons_alignment.store.grid import cells_path
from language_neurons_alignment.store.layout import with_ending
from language_neurons_alignment.store.maps import load_map
from language_neurons_alignment.store.masks import load_description
from tests.small_run import layout_of

MADE_FROM = {"mask": "m", "corpus": {"en": "c"}}
ENGINE = {"engine": "transformers", "dtype": "float32"}
CELL = {"token": 2.5, "text": 2.4, "nll": 9.1, "tokens": 10, "texts": 2, "text_nll": "4.0 5.1", "text_tokens": "4 6"}


def write_cells(path: Path, content: Any, *, made_from: Any = MADE_FROM, key: tuple[str, str] = ("none", "en")) -> Path:
    origin = {"id": "o", "made_from": made_from, "engine": ENGINE}
    cell = {"cell": list(key), "made_from": "o", **content}
    cells_path(path).write_text("".join(json.dumps(one) + "\n" for one in (origin, cell)), encoding="utf-8")
    return path


def refused(call: Any, file: Path) -> None:
    with pytest.raises(ArtifactError) as caught:
        call()
    assert file.name in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize(
    "damage",
    [
        {"token": True},
        {"nll": "9.1"},
        {"tokens": float("inf")},
        {"tokens": -10},
        {"tokens": 10.5},
        {"texts": "2"},
        {"texts": 3},
        {"tokens": 11},
        {"text_tokens": "4 7"},
    ],
)
def test_a_cell_of_a_map_that_says_what_cannot_be_is_refused(tmp_path: Path, damage: dict[str, Any]) -> None:
    assert load_map(write_cells(tmp_path / "sound", CELL))[0].cells["none", "en"].tokens == 10
    path = write_cells(tmp_path / "map", {**CELL, **damage})
    refused(lambda: load_map(path), cells_path(path))


def test_a_map_made_from_no_corpus_is_refused(tmp_path: Path) -> None:
    path = write_cells(tmp_path / "map", CELL, made_from={"mask": "m", "corpus": ["en"]})
    refused(lambda: load_map(path), cells_path(path))


@pytest.mark.parametrize(
    "damage",
    [
        {"engine": 3},
        {"cells": [{"deactivated": 1, "text_language": "en", **CELL}]},
        {"cells": [{"deactivated": "none", "text_language": "en", **CELL, "tokens": float("inf")}]},
    ],
)
def test_a_damaged_map_of_version_0_1_is_refused(tmp_path: Path, damage: dict[str, Any]) -> None:
    path = tmp_path / "map"
    sound = {
        "provenance": MADE_FROM,
        "engine": ENGINE,
        "cells": [{"deactivated": "none", "text_language": "en", **CELL}],
    }
    with_ending(path, ".json").write_text(json.dumps(sound))
    assert load_map(path)[0].languages == ("en",)
    with_ending(path, ".json").write_text(json.dumps({**sound, **damage}))
    refused(lambda: load_map(path), with_ending(path, ".json"))


@pytest.mark.parametrize(
    "damage",
    [
        {"outcomes": "B百"},
        {"outcomes": "B"},
        {"outcomes": ["B", "L"]},
        {"questions": 2},
        {"questions": ["1", "1"]},
        {"questions": ["1", None]},
    ],
)
def test_a_cell_of_an_evaluation_needs_an_outcome_for_each_question(tmp_path: Path, damage: dict[str, Any]) -> None:
    sound = {"outcomes": "BL", "questions": ["1", "2"]}
    wanted = {("none", "en"): MADE_FROM}
    assert evaluation_grid(write_cells(tmp_path / "sound", sound), wanted).read()["none", "en"] == sound
    path = write_cells(tmp_path / "evaluation", {**sound, **damage})
    refused(lambda: evaluation_grid(path, wanted).read(), cells_path(path))


@pytest.mark.parametrize("languages", [True, "en", ["en", 3], {"en": 1}, None])
def test_a_cell_of_a_forcing_table_needs_a_list_of_languages(tmp_path: Path, languages: Any) -> None:
    wanted, made_from = {("none", "en"): MADE_FROM}, {"en": MADE_FROM}
    sound = write_cells(tmp_path / "sound", {"languages": ["en", None]}, made_from=made_from)
    assert forcing_grid(sound, wanted).read()["none", "en"] == {"languages": ["en", None]}
    path = write_cells(tmp_path / "forcing", {"languages": languages}, made_from=made_from)
    refused(lambda: forcing_grid(path, wanted).read(), cells_path(path))


@pytest.mark.parametrize("ending", [".cells.jsonl", ".json"])
def test_json_nested_too_deep_is_refused_in_one_line(tmp_path: Path, ending: str) -> None:
    file = with_ending(tmp_path / "map", ending)
    file.write_text('{"provenance": ' + "[" * 100_000 + "]" * 100_000 + "}\n")
    refused(lambda: load_map(tmp_path / "map"), file)


@pytest.mark.parametrize(
    "damage",
    [
        {"lam": {"a": 1}},
        {"lam": "0.0"},
        {"bar": [0.8]},
        {"threshold": "x"},
        {"d_mlp": {"a": 1}},
        {"d_mlp": 10**12},
        {"layers": -3},
        {"layers": True},
        {"appear": 3.5},
        {"appear": ["1"]},
        {"languages": "en"},
        {"languages": ["en", "en", "sw"]},
        {"languages": []},
        {"classes": []},
        {"neurons": {"en": "3"}},
        {"counts": ["x"]},
        {"config_hash": 7},
        {"method": "guessed"},
        {"top_rate": 2},
        {"source": "x"},
    ],
)
def test_a_damaged_description_is_refused_by_whatever_reads_it(work: Path, lam: float, damage: dict[str, Any]) -> None:
    layout = layout_of(work)
    path = layout.mask(0.1, lam)
    described = with_ending(path, ".json")
    described.write_text(json.dumps({**json.loads(described.read_text()), **damage}))
    refused(lambda: load_description(path), described)
    refused(lambda: gather([layout], Selection(0.1, lam, 0.8), mask_only=True), described)
