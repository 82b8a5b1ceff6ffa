"""Damaged maps, evaluations, forcing tables, journals and descriptions: one line that names the file, no traceback.

The kinds were found by `tests/campaign`.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from language_neurons_alignment._report import gather
from language_neurons_alignment.config import Selection
from language_neurons_alignment.engines import EngineSettings, EngineSource
from language_neurons_alignment.errors import ArtifactError, LNAError
from language_neurons_alignment.store.answers import (
    Journal,
    evaluation_grid,
    forcing_grid,
    save_evaluation,
    save_forcing,
)
from language_neurons_alignment.store.checkpoint import read_checkpoint
from language_neurons_alignment.store.files import differing_files
from language_neurons_alignment.store.grid import cells_path, read_cells
from language_neurons_alignment.store.layout import with_ending
from language_neurons_alignment.store.maps import load_map, save_map
from language_neurons_alignment.store.masks import load_description, load_neurons
from language_neurons_alignment.store.replacing import Replacing
from tests.small_run import layout_of
from tests.tiny_models import save_tiny_model

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


SAVED: dict[str, tuple[Callable[..., None], dict[str, Any], Any]] = {
    "evaluation": (save_evaluation, {"outcomes": "BL", "questions": ["1", "2"]}, MADE_FROM),
    "forcing": (save_forcing, {"languages": ["en", None]}, {"en": MADE_FROM}),
    "map": (save_map, CELL, MADE_FROM),
}


@pytest.mark.parametrize(("save", "cell", "made_from"), SAVED.values(), ids=SAVED)
def test_the_summary_of_a_grid_knows_the_tables_that_were_written_with_it(
    tmp_path: Path, save: Callable[..., None], cell: dict[str, Any], made_from: Any
) -> None:
    path = write_cells(tmp_path / "grid", cell, made_from=made_from)
    whole, table, other = (with_ending(path, ending) for ending in (".json", ".csv", ".text.csv"))
    cells = read_cells(path, lambda _: {})
    for one in (other, table):  # of two measures, by two commands
        one.write_text("row,1\n")
        save(path, cells, table=one)
        assert differing_files(whole) == []
    for one in (other, table):
        one.write_text("row,2\n")
    assert differing_files(whole) == [other, table]
    other.unlink()
    save(path, cells, table=table)
    assert differing_files(whole) == []
    whole.write_text("{")  # damaged: what is written anew does not depend on it
    save(path, cells, table=table)
    assert list(json.loads(whole.read_text())["digests"]) == [table.name]


@pytest.mark.parametrize("languages", [True, "en", ["en", 3], {"en": 1}, None])
def test_a_cell_of_a_forcing_table_needs_a_list_of_languages(tmp_path: Path, languages: Any) -> None:
    wanted, made_from = {("none", "en"): MADE_FROM}, {"en": MADE_FROM}
    sound = write_cells(tmp_path / "sound", {"languages": ["en", None]}, made_from=made_from)
    assert forcing_grid(sound, wanted).read()["none", "en"] == {"languages": ["en", None]}
    path = write_cells(tmp_path / "forcing", {"languages": languages}, made_from=made_from)
    refused(lambda: forcing_grid(path, wanted).read(), cells_path(path))


DEEP = {
    "lists": '{"meta": ' + "[" * 10**6 + "]" * 10**6 + "}\n",
    "objects": '{"provenance": ' * 10**6 + "1" + "}" * 10**6 + "\n",
    "no end": "[" * 10**6 + "\n",
}
READERS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "cells": ("map.cells.jsonl", lambda file: load_map(file.with_name("map"))),
    "map": ("map.json", lambda file: load_map(file.with_name("map"))),
    "evaluation": ("e.json", lambda file: evaluation_grid(file.with_name("e"), {("none", "en"): MADE_FROM}).read()),
    "forcing": ("f.json", lambda file: forcing_grid(file.with_name("f"), {("none", "en"): MADE_FROM}).read()),
    "description": ("mask.json", lambda file: load_description(file.with_name("mask"))),
    "neurons": ("n.json", load_neurons),
    "journal": ("a.json.partial.jsonl", lambda file: Journal(file.with_name("a.json")).start(MADE_FROM)),
    "another result": ("r.json", differing_files),
    "config": ("config.json", lambda file: read_checkpoint(str(file.parent))),
}


@pytest.mark.parametrize("content", DEEP.values(), ids=DEEP)
@pytest.mark.parametrize(("name", "read"), READERS.values(), ids=READERS)
def test_json_nested_too_deep_is_refused_in_one_line(
    tmp_path: Path, name: str, read: Callable[[Path], object], content: str
) -> None:
    (tmp_path / name).write_text(content)
    refused(lambda: read(tmp_path / name), tmp_path / name)


@pytest.mark.parametrize("content", DEEP.values(), ids=DEEP)
def test_so_are_files_beside_a_model_s_weights(tmp_path: Path, content: str) -> None:
    for name in ("config.json", "tokenizer_config.json", "generation_config.json"):
        folder = Path(shutil.copytree(save_tiny_model("llama", tmp_path / "tiny"), tmp_path / name))
        (folder / name).write_text(content)
        with pytest.raises(LNAError) as caught, EngineSource(EngineSettings(str(folder))) as source:
            source()
        assert name in str(caught.value)
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("content", DEEP.values(), ids=DEEP)
def test_such_a_file_of_an_unfinished_run_tells_nothing(tmp_path: Path, content: str) -> None:
    path = tmp_path / "run.replacing.json"
    path.write_text(content)
    assert not Replacing(path, {"languages": ["en"]}, overwrite=False).active
    assert Replacing(path, {"languages": ["en"]}, overwrite=True).again(tmp_path / "result")


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
