"""Mask files: the published format, with a description beside it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from language_neurons_alignment.errors import ArtifactError, ConflictError, MissingArtifactError
from language_neurons_alignment.store.masks import UNNAMED, Mask, MaskDescription, load_description
from tests.workspace import contents, full_disk

MASK = torch.rand(3, 20, 2, generator=torch.Generator().manual_seed(0)) < 0.2
DESCRIPTION = MaskDescription(
    languages=["en", "es"],
    top_rate=0.1,
    lam=0.05,
    bar=0.95,
    threshold=0.5,
    appear=[1, 2, 0],
    classes={"specific": 2, "related": 0, "general": 1, "unassigned": 1},
    neurons={"en": 1, "es": 1},
    layers=3,
    d_mlp=20,
    counts={"en": "aa", "es": "bb"},
    config_hash="c",
    weights_hash="w",
    version="0",
)
STORED = Mask(("en", "es"), MASK, DESCRIPTION)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "0.1-0.05" / "mask.Llama-v1.5"


def test_a_mask_and_its_description_come_back_as_they_were(path: Path) -> None:
    STORED.save(path)
    read = Mask.load(path)
    assert torch.equal(read.tensor, MASK)
    assert (read.languages, read.description, read.path) == (("en", "es"), DESCRIPTION, path)
    assert load_description(path) == DESCRIPTION


def test_the_file_is_what_existing_tools_read(path: Path) -> None:
    STORED.save(path)
    stored = torch.load(path, weights_only=True)
    assert isinstance(stored, list)
    assert [len(per_layer) for per_layer in stored] == [3, 3]
    for per_layer in stored:
        for neurons in per_layer:
            assert neurons.dtype == torch.int64
            assert neurons.tolist() == sorted(set(neurons.tolist()))
    assert path.with_name("mask.Llama-v1.5.json").is_file()
    assert json.loads(path.with_name("mask.Llama-v1.5.json").read_text())["languages"] == ["en", "es"]


def test_a_published_mask_has_no_description_and_is_read_all_the_same(tmp_path: Path) -> None:
    published = [[torch.tensor([1, 5]), torch.tensor([]), torch.tensor([0], dtype=torch.int32)]]
    torch.save(published, tmp_path / "mask.X-y")
    assert load_description(tmp_path / "mask.X-y") is None
    read = Mask.load(tmp_path / "mask.X-y", d_mlp=6)
    assert read.tensor.shape == (3, 6, 1)
    assert read.languages == (UNNAMED,)
    assert read.tensor.nonzero().tolist() == [[0, 1, 0], [0, 5, 0], [2, 0, 0]]


@pytest.mark.parametrize(
    "content",
    [
        {"en": []},
        torch.ones(3),
        [torch.ones(3)],
        [[[1, 2]]],
        [[torch.tensor([0.5, 1.0])]],
        [[torch.tensor([[1, 2]])]],
        [[torch.tensor([True, False])]],
    ],
)
def test_what_is_not_a_mask_is_refused(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "mask.X-y")
    with pytest.raises(ArtifactError, match="is not a mask"):
        Mask.load(tmp_path / "mask.X-y")


def test_a_missing_mask_and_a_torn_one_are_told_with_what_to_do(path: Path) -> None:
    with pytest.raises(MissingArtifactError, match=r"mask\.Llama-v1\.5 is not there: make it with `lna identify`"):
        Mask.load(path)
    STORED.save(path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ArtifactError, match="cannot be read"):
        Mask.load(path)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"languages": ["en"]}', "\x00"])
def test_a_description_that_cannot_be_read_is_told_with_what_to_do(path: Path, text: str) -> None:
    STORED.save(path)
    path.with_name(path.name + ".json").write_text(text)
    with pytest.raises(ArtifactError, match=r"\.json cannot be read .* delete it and"):
        load_description(path)


def test_the_same_mask_may_be_written_again(path: Path) -> None:
    STORED.save(path)
    before = contents(path.parent)
    STORED.save(path)
    assert contents(path.parent) == before


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"bar": 0.9}, "bar 0.95, this one 0.9"),
        ({"counts": {"en": "aa", "es": "cc"}}, "other counts"),
        ({"languages": ["es", "en"]}, "languages"),
    ],
)
def test_a_mask_of_other_inputs_is_a_conflict_until_forced(path: Path, change: dict[str, object], named: str) -> None:
    STORED.save(path)
    before = contents(path.parent)
    other = replace(DESCRIPTION, **change)  # type: ignore[arg-type]
    with pytest.raises(ConflictError, match=named) as caught:
        Mask(("en", "es"), ~MASK, other).save(path)
    assert "--force" in str(caught.value)
    assert contents(path.parent) == before
    Mask(("en", "es"), ~MASK, other).save(path, overwrite=True)
    assert load_description(path) == other
    assert torch.equal(Mask.load(path).tensor, ~MASK)


def test_a_mask_without_description_is_never_replaced_silently(path: Path) -> None:
    STORED.save(path)
    path.with_name(path.name + ".json").unlink()
    with pytest.raises(ConflictError, match="without a description"):
        STORED.save(path)


@pytest.mark.parametrize("function", ["fsync", "replace"])
def test_a_full_disk_leaves_the_earlier_mask_and_its_description(path: Path, function: str) -> None:
    STORED.save(path)
    before = contents(path.parent)
    with full_disk(function), pytest.raises(ArtifactError, match="the disk is full"):
        Mask(("en", "es"), ~MASK, replace(DESCRIPTION, bar=0.5)).save(path, overwrite=True)
    assert contents(path.parent) == before
