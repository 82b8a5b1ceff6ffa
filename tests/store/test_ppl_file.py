"""Perplexity maps on disk: they grow cell by cell, and hold cells of one origin only."""

from __future__ import annotations

import csv
import errno
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from language_neurons_alignment.core.perplexity import (
    UNDISTURBED,
    Perplexity,
    PerplexityMap,
    TextLikelihood,
    perplexity,
)
from language_neurons_alignment.errors import ArtifactError, ConflictError
from language_neurons_alignment.store.maps import PerplexityFile, save_csv
from tests.workspace import contents, full_disk

ORIGIN = {"mask": "m", "text": "instruction", "corpus": {"en": "1", "es": "2"}}
ENGINE = {"engine": "transformers", "dtype": "float32", "device": "cpu"}
CELL = Perplexity(token=12.5, text=13.25, nll=100.125, tokens=40, texts=3)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "0.1-0.0" / "ppl.Llama-v1.5"


def opened(path: Path, **changes: Any) -> PerplexityFile:
    return PerplexityFile(path, {**ORIGIN, **changes})


def test_a_file_that_is_not_there_has_no_cells(path: Path) -> None:
    assert opened(path).read() == {}
    assert not path.parent.exists(), "reading makes nothing"


def test_cells_come_back_as_they_were_one_by_one(path: Path) -> None:
    opened(path).add(UNDISTURBED, "en", CELL, engine=ENGINE)
    assert opened(path).read() == {(UNDISTURBED, "en"): CELL}
    other = Perplexity(1.0, 1.0, 0.0, 1, 1)
    opened(path).add("es", "en", other, engine=ENGINE)
    assert opened(path).read() == {(UNDISTURBED, "en"): CELL, ("es", "en"): other}


def test_each_text_s_numbers_come_back_to_the_last_digit_and_take_one_line(path: Path) -> None:
    texts = tuple(TextLikelihood(nll, tokens) for nll, tokens in ((0.1 + 0.2, 3), (1e-17, 1), (123.456789, 250)))
    cell = perplexity(texts)
    opened(path).add(UNDISTURBED, "en", cell, engine=ENGINE)
    assert opened(path).read() == {(UNDISTURBED, "en"): cell}
    (stored,) = json.loads(opened(path).path.read_text())["cells"]
    assert stored["text_nll"] == "0.30000000000000004 1e-17 123.456789"
    assert stored["text_tokens"] == "3 1 250"


def test_infinite_perplexities_come_back_and_the_file_is_strict_json(path: Path) -> None:
    broken = Perplexity(math.inf, math.inf, 1e9, 3, 1)
    opened(path).add("en", "en", broken, engine=ENGINE)
    assert opened(path).read() == {("en", "en"): broken}

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    json.loads(path.with_name(path.name + ".json").read_text(), parse_constant=refuse)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"mask": "another"}, "mask"),
        ({"text": "answer"}, "text"),
        ({"corpus": {"en": "1", "es": "changed"}}, r"corpus \(es\)"),
        ({"weights_hash": "unknown before"}, "weights hash"),
    ],
)
def test_cells_of_another_origin_are_a_conflict_and_stay(path: Path, change: dict[str, Any], named: str) -> None:
    opened(path).add(UNDISTURBED, "en", CELL, engine=ENGINE)
    before = contents(path.parent)
    for act in (
        lambda file: file.read(),
        lambda file: file.add("en", "en", CELL, engine=ENGINE),
    ):
        with pytest.raises(ConflictError, match=f"another {named}.*--force"):
            act(opened(path, **change))
    assert contents(path.parent) == before


def test_cells_of_another_engine_or_precision_are_a_conflict_where_one_is_asked_for(path: Path) -> None:
    opened(path).add(UNDISTURBED, "en", CELL, engine=ENGINE)
    assert opened(path).read(engine={"dtype": "float32"})
    assert opened(path).read(engine={})
    with pytest.raises(ConflictError, match=r"dtype \(float32\)"):
        opened(path).read(engine={"dtype": "bfloat16"})
    for other in ({**ENGINE, "dtype": "bfloat16"}, {**ENGINE, "engine": "vllm"}):
        with pytest.raises(ConflictError):
            opened(path).add("en", "en", CELL, engine=other)
    assert len(opened(path).read()) == 1
    opened(path).add("en", "en", CELL, engine={**ENGINE, "device": "cuda"})


def test_a_run_of_fewer_languages_leaves_the_others_and_their_digests(path: Path) -> None:
    opened(path).add(UNDISTURBED, "es", CELL, engine=ENGINE)
    opened(path, corpus={"en": "1"}).add(UNDISTURBED, "en", CELL, engine=ENGINE)
    assert set(opened(path).read()) == {(UNDISTURBED, "es"), (UNDISTURBED, "en")}
    with pytest.raises(ConflictError, match=r"corpus \(es\)"):
        opened(path, corpus={"en": "1", "es": "changed"}).read()


def test_replacing_keeps_the_old_cells_until_the_first_new_one_is_done(path: Path) -> None:
    opened(path).add(UNDISTURBED, "en", CELL, engine=ENGINE)
    before = contents(path.parent)
    anew = PerplexityFile(path, {**ORIGIN, "mask": "another"}, replace=True)
    assert anew.read() == {}
    assert contents(path.parent) == before
    anew.add("es", "es", CELL, engine=ENGINE)
    anew.add("es", "en", CELL, engine=ENGINE)
    assert set(anew.read()) == {("es", "es"), ("es", "en")}


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "{}", '{"cells": [], "provenance": {}}', '{"cells": {}, "provenance": {"corpus": {}}}', "\x00" * 9],
)
def test_a_torn_or_foreign_file_is_an_error_in_one_line(path: Path, text: str) -> None:
    path.parent.mkdir()
    path.with_name(path.name + ".json").write_text(text)
    with pytest.raises(ArtifactError, match=r"\.json cannot be read .*delete it") as caught:
        opened(path).read()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "cell", [{}, {"deactivated": "en"}, 5, {"deactivated": "en", "text_language": "en", "token": "x"},
     {"deactivated": "en", "text_language": "en", "token": 1, "text": 1, "nll": 1, "tokens": 1, "texts": 1,
      "text_nll": "1.0 2.0", "text_tokens": "1"}],
)  # fmt: skip
def test_a_torn_cell_is_an_error_in_one_line(path: Path, cell: object) -> None:
    path.parent.mkdir()
    path.with_name(path.name + ".json").write_text(json.dumps({"provenance": ORIGIN, "cells": [cell]}))
    with pytest.raises(ArtifactError, match="cannot be read"):
        opened(path).read()


@pytest.mark.parametrize("function", ["fsync", "replace"])
def test_a_full_disk_keeps_the_cells_that_are_done(path: Path, function: str) -> None:
    opened(path).add(UNDISTURBED, "en", CELL, engine=ENGINE)
    before = contents(path.parent)
    with full_disk(function), pytest.raises(ArtifactError, match="the disk is full"):
        opened(path).add("en", "en", CELL, engine=ENGINE)
    assert contents(path.parent) == before
    opened(path).add("en", "en", CELL, engine=ENGINE)  # the lock was given back


def test_a_folder_that_cannot_be_made_or_locked_is_an_error_in_one_line(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path.parent.write_text("a file")
    with pytest.raises(ArtifactError, match="cannot write"):
        opened(path).add("en", "en", CELL, engine=ENGINE)
    path.parent.unlink()

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(FileLock, "acquire", refuse)
    with pytest.raises(ArtifactError, match="no permission"):
        opened(path).add("en", "en", CELL, engine=ENGINE)


ADD_CELLS = """
import sys
from pathlib import Path
from language_neurons_alignment.core.perplexity import Perplexity
from language_neurons_alignment.store.ppl_file import PerplexityFile

path, row = Path(sys.argv[1]), sys.argv[2]
file = PerplexityFile(path, {"mask": "m", "corpus": {row: "1"}})
sys.stdin.readline()  # all start together
for number in range(25):
    file.add(row, f"{row}{number}", Perplexity(2.0, 2.0, 1.0, 1, 1), engine={"engine": "x", "dtype": "y"})
"""


def test_two_processes_that_add_cells_at_once_lose_none(path: Path) -> None:
    rows = ("en", "es")
    processes = [
        subprocess.Popen([sys.executable, "-c", ADD_CELLS, str(path), row], stdin=subprocess.PIPE, text=True)
        for row in rows
    ]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    assert [process.wait(timeout=120) for process in processes] == [0, 0]
    for process in processes:
        assert process.stdin is not None
        process.stdin.close()
    cells = PerplexityFile(path, {"mask": "m", "corpus": {"en": "1", "es": "1"}}).read()
    assert set(cells) == {(row, f"{row}{number}") for row in rows for number in range(25)}


def test_the_table_has_every_cell_with_its_change_against_the_undisturbed_row(path: Path) -> None:
    cells = {
        (row, column): Perplexity(10.0 * (1 + i + 2 * k), 11.0, 5.0, 7, 2)
        for i, row in enumerate((UNDISTURBED, "en", "es"))
        for k, column in enumerate(("en", "es"))
    }
    written = save_csv(path, PerplexityMap(("en", "es"), cells))
    assert written.name == "ppl.Llama-v1.5.csv"
    rows = list(csv.DictReader(written.open()))
    assert [(row["deactivated"], row["text_language"]) for row in rows] == list(cells)
    by_cell = {(row["deactivated"], row["text_language"]): row for row in rows}
    assert float(by_cell["en", "en"]["percent"]) == pytest.approx(100.0)
    assert float(by_cell["es", "es"]["percent"]) == pytest.approx(100 * 2 / 3)
    assert float(by_cell["es", "en"]["log1p"]) == pytest.approx(math.log(31 / 11))
    assert {float(by_cell[UNDISTURBED, column]["percent"]) for column in ("en", "es")} == {0.0}
    assert float(by_cell["es", "es"]["ppl_token"]) == 50.0
