"""Tables on disk: values come back, numbers that JSON has not become null, all files or none."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import pytest

from language_neurons_alignment.errors import ArtifactError
from language_neurons_alignment.store.files import save_tables
from tests.workspace import contents, full_disk, leftovers

COLUMNS = {"layer": [0, 1], "jaccard": [0.1 + 0.2, math.nan], "languages": ["en+es", 'a,"b"']}


def test_a_table_comes_back_as_it_was(tmp_path: Path) -> None:
    files = save_tables(tmp_path / "a" / "analysis.Llama-v1.5", {"p": 0.5}, {"classes": COLUMNS})
    assert [path.name for path in files] == ["analysis.Llama-v1.5.json", "analysis.Llama-v1.5.classes.csv"]
    with files[1].open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert float(rows[0]["jaccard"]) == 0.1 + 0.2
    assert [row["languages"] for row in rows] == COLUMNS["languages"]
    assert rows[1]["jaccard"] == ""


def test_numbers_that_json_has_not_are_null(tmp_path: Path) -> None:
    content = {"bic": [-math.inf, 1.5], "nested": {"p": math.nan}, "pair": (1, math.inf)}
    save_tables(tmp_path / "x", content, {})
    text = (tmp_path / "x.json").read_text(encoding="utf-8")
    assert json.loads(text) == {"bic": [None, 1.5], "nested": {"p": None}, "pair": [1, None]}
    assert "NaN" not in text


def test_columns_of_different_length_are_never_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"zip\(\)"):
        save_tables(tmp_path / "x", {}, {"t": {"a": [1], "b": [1, 2]}})
    assert contents(tmp_path) == {}


@pytest.mark.parametrize("function", ["fsync", "replace"])
def test_a_full_disk_leaves_the_earlier_tables(tmp_path: Path, function: str) -> None:
    save_tables(tmp_path / "x", {"p": 1}, {"t": COLUMNS})
    before = contents(tmp_path)
    with full_disk(function), pytest.raises(ArtifactError, match="the disk is full"):
        save_tables(tmp_path / "x", {"p": 2}, {"t": {"layer": [7]}})
    assert contents(tmp_path) == before
    assert leftovers(tmp_path) == []
