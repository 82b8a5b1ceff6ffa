"""What a report reads of results, and what it leaves on disk."""

from __future__ import annotations

import csv
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from language_neurons_alignment.core.perplexity import Perplexity
from language_neurons_alignment.errors import ArtifactError, MissingArtifactError
from language_neurons_alignment.store.counts import load_counts, load_origin
from language_neurons_alignment.store.files import save_pictures
from language_neurons_alignment.store.layout import Layout
from language_neurons_alignment.store.maps import cell_to_json, load_map, map_grid
from tests.workspace import leftovers, store_counts


def test_the_origin_of_counts_is_what_reading_them_whole_tells(tmp_path: Path) -> None:
    layout = Layout(tmp_path, "mgsm", "Llama-x")
    store_counts(layout, ["en"])
    counts, meta = load_counts(layout, "en")
    assert load_origin(layout.activation("en")) == (counts.full.total_tokens, meta)
    assert load_origin(layout.activation("en", prefix=True)) == (counts.prefix.total_tokens, meta)


def test_the_origin_of_a_file_in_the_old_format_is_read_too_and_of_another_file_refused(tmp_path: Path) -> None:
    content = {"total_tokens": 7, "over_zero": torch.zeros(2, 3, dtype=torch.int64)}
    torch.save(content, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    assert load_origin(tmp_path / "old.pt") == (7, {})
    torch.save([1, 2], tmp_path / "other.pt")
    with pytest.raises(ArtifactError, match="total_tokens"):
        load_origin(tmp_path / "other.pt")
    with pytest.raises(MissingArtifactError, match="lna activation"):
        load_origin(tmp_path / "none.pt")


def test_a_map_is_read_whoever_made_it_with_what_it_was_made_from(tmp_path: Path) -> None:
    made_from: dict[str, Any] = {"mask": "m1", "corpus": {"sw": "0a", "en": "0b"}}
    cell = Perplexity(math.inf, 2.0, 3.0, 4, 5)
    wanted = {("none", code): {"mask": "m1", "corpus": {code: made_from["corpus"][code]}} for code in ("sw", "en")}
    file = map_grid(tmp_path / "ppl.x", wanted)
    file.append({("none", "sw"): cell_to_json(cell)}, engine={"engine": "made up"})
    found, provenance = load_map(tmp_path / "ppl.x")
    assert found.languages == ("sw", "en")
    assert found.cells == {("none", "sw"): cell}
    assert provenance == {**made_from, "engine": "made up"}
    with pytest.raises(MissingArtifactError, match="lna ppl"):
        load_map(tmp_path / "ppl.y")


def test_pictures_and_their_table_appear_together_or_not_at_all(tmp_path: Path) -> None:
    writers = {".png": lambda file: file.write(b"png"), ".svg": lambda file: file.write(b"svg")}
    written = save_pictures(
        tmp_path / "a" / "v1.5-x", writers, header=("language", "n"), rows=[("en", 1.5), ("sw", math.nan)]
    )
    assert [path.name for path in written] == ["v1.5-x.png", "v1.5-x.svg", "v1.5-x.csv"]
    assert [path.read_bytes() for path in written[:2]] == [b"png", b"svg"]
    with written[2].open(encoding="utf-8", newline="") as file:
        assert list(csv.reader(file)) == [["language", "n"], ["en", "1.5"], ["sw", ""]]

    def broken(_file: object) -> None:
        raise RuntimeError("a renderer failed")

    with pytest.raises(RuntimeError):
        save_pictures(tmp_path / "b" / "x", {**writers, ".svg": broken}, header=(), rows=[])
    assert list((tmp_path / "b").iterdir()) == leftovers(tmp_path) == []
