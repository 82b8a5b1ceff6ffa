"""Mask files: the published format, with a description beside it."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from language_neurons_alignment.errors import (
    ArtifactError,
    ConflictError,
    IncompatibleError,
    MissingArtifactError,
    SettingsError,
)
from language_neurons_alignment.store.checkpoint import Checkpoint
from language_neurons_alignment.store.masks import UNNAMED, Mask, MaskDescription, load_description, mask_hash
from tests.neuron_sets import model_of
from tests.workspace import TEN, contents, full_disk

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
DESCRIBED = replace(DESCRIPTION, mask_hash=mask_hash(MASK))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "0.1-0.05" / "mask.Llama-v1.5"


def test_a_mask_and_its_description_come_back_as_they_were(path: Path) -> None:
    STORED.save(path)
    read = Mask.load(path)
    assert torch.equal(read.tensor, MASK)
    assert (read.languages, read.description, read.path) == (("en", "es"), DESCRIBED, path)
    assert load_description(path) == DESCRIBED


def test_a_mask_of_another_tokenizer_is_refused_and_one_that_does_not_tell_is_not(path: Path) -> None:
    STORED.save(path)
    assert "tokenizer_hash" not in json.loads(path.with_name(path.name + ".json").read_text())
    mask = Mask.load(path)
    described = mask.description
    assert described is not None
    in_use = Checkpoint(described.config_hash, described.weights_hash, "t2")
    mask.check_model(in_use)
    replace(mask, description=replace(described, tokenizer_hash="t1")).save(path, overwrite=True)
    with pytest.raises(IncompatibleError, match="made from a model with other tokenizer than the one in use"):
        Mask.load(path).check_model(in_use)


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
    assert load_description(path) == replace(other, mask_hash=mask_hash(~MASK))
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


def published(path: Path, index: int, *, layers: int = 3, languages: int = 1) -> Path:
    torch.save([[torch.tensor([index])] * layers] * languages, path)
    return path


def test_a_published_mask_is_as_wide_as_it_needs_until_it_meets_a_model(tmp_path: Path) -> None:
    mask = Mask.load(published(tmp_path / "mask.X-y", 4))
    assert mask.tensor.shape == (3, 5, 1)
    over = mask.over(model_of((3, 20)))
    assert over.tensor.shape == (3, 20, 1)
    assert over[UNNAMED].tensor.nonzero().tolist() == [[0, 4, 0], [1, 4, 0], [2, 4, 0]]
    assert mask.digest_of(["specific"]) == over.digest_of(["specific"])
    with pytest.raises(ArtifactError, match="another model's mask"):
        mask.over(model_of((3, 4)))
    with pytest.raises(IncompatibleError, match="3 layers, nowhere has 2"):
        mask.over(model_of((2, 20)))


def test_a_described_mask_is_of_one_width(path: Path) -> None:
    STORED.save(path)
    mask = Mask.load(path)
    assert mask.over(model_of((3, 20))) is mask
    for width in (19, 21):
        with pytest.raises(ArtifactError, match="another model's mask"):
            mask.over(model_of((3, width)))


def test_the_languages_of_a_published_mask_are_the_ten_or_those_named(tmp_path: Path) -> None:
    assert Mask.load(published(tmp_path / "ten", 1, languages=10)).languages == TEN
    assert Mask.load(published(tmp_path / "two", 1, languages=2), langs="en,French").languages == ("en", "fr")
    with pytest.raises(IncompatibleError, match="has 2 languages, expected 10"):
        Mask.load(tmp_path / "two")
    with pytest.raises(IncompatibleError, match=r"has 2 languages, --langs names 1 \(en\)"):
        Mask.load(tmp_path / "two", langs="en")


@pytest.mark.parametrize("index", [-1, 2**40])
def test_an_index_that_no_model_has_is_refused(tmp_path: Path, index: int) -> None:
    with pytest.raises(ArtifactError, match=r"not a mask|mask of language number 0"):
        Mask.load(published(tmp_path / "mask.X-y", index))


def test_a_language_is_looked_up_by_its_code(path: Path) -> None:
    assert torch.equal(STORED["es"].tensor, MASK[..., 1:])
    assert STORED["es"].languages == ("es",)
    assert torch.equal(STORED.neurons_of("es", ["specific"]), MASK[..., 1] & ~MASK[..., 0])
    for wrong in (lambda: STORED["fr"], lambda: STORED.neurons_of("fr", ["specific"])):
        with pytest.raises(SettingsError, match="no neurons of fr: choose --langs from en, es"):
            wrong()


def test_a_mask_without_a_description_is_not_stored(path: Path) -> None:
    with pytest.raises(SettingsError, match="without a description"):
        Mask(("en", "es"), MASK).save(path)


def test_the_digest_of_a_mask_is_the_one_that_earlier_results_hold() -> None:
    """Perplexity maps and evaluations name the mask that they were made from by this digest."""
    mask = Mask(("en", "fr"), torch.tensor([[[1, 0], [1, 1]], [[0, 0], [0, 1]]]).bool(), DESCRIPTION)
    assert mask.digest_of(["specific", "related"]) == "0435e39ae4c364de491a1189e9e1800c"
    assert mask.digest_of(["general"]) == "1dbb2d6d512fecd1b5de20663ac4d9e8"


EDITS = {
    "languages": {"languages": ["es", "en"]},
    "λ": {"lam": 0.06},
    "τ": {"threshold": 0.51},
    "bar": {"bar": 0.9},
    "top rate": {"top_rate": 0.2},
    "counts": {"counts": {"en": "aa", "es": "cc"}},
    "model": {"weights_hash": "v"},
    "left out": {"left_out": ["fr"]},
}


@pytest.mark.parametrize("change", EDITS.values(), ids=EDITS)
def test_an_edited_description_is_refused_although_it_is_of_the_same_neurons(
    path: Path, change: dict[str, object]
) -> None:
    STORED.save(path)
    described = path.with_name(path.name + ".json")
    content = json.loads(described.read_text())
    described.write_text(json.dumps({**content, **change}))
    for read in (Mask.load, load_description):
        with pytest.raises(IncompatibleError, match=r"changed after it was written.* `lna identify --force`"):
            read(path)
    described.write_text(json.dumps(dict(reversed(content.items()))))  # its layout means nothing
    assert Mask.load(path).description == DESCRIBED
    del content["description_hash"]  # as earlier versions wrote it
    described.write_text(json.dumps({**content, **change}))
    assert load_description(path) is not None


def moved(path: Path, folder: str) -> Path:
    """The same mask and description, in another folder of masks."""
    other = path.parents[1] / folder / path.name
    other.parent.mkdir(exist_ok=True)
    for ending in ("", ".json"):
        other.with_name(other.name + ending).write_bytes(path.with_name(path.name + ending).read_bytes())
    return other


def test_a_mask_in_the_folder_of_other_rates_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "activation_masks" / "toy" / "0.1-0.05" / "mask.Llama-x"
    STORED.save(path)
    assert Mask.load(path).description == DESCRIBED
    assert Mask.load(moved(path, "0.10-5e-2")).description == DESCRIBED  # the same rates, written otherwise
    for folder in ("0.1-0.06", "0.2-0.05", "lape-0.1", "equal-n-400", "mine"):
        with pytest.raises(IncompatibleError, match=f"λ 0.05 by entropy-lambda and lies in the folder {folder}"):
            Mask.load(moved(path, folder))


@pytest.mark.parametrize(
    ("made", "folders"),
    [
        ({"method": "lape", "lam": None}, ["lape-0.1"]),
        ({"method": "equal-n", "lam": None, "parameters": {"neurons": 7}}, ["equal-n-7"]),
        (
            {"method": "mean-difference", "lam": None, "parameters": {"neurons": 7}},
            ["mean-difference-0.1", "mean-difference-7"],
        ),
        ({"method": "random", "parameters": {"seed": 3}}, ["random-0.1-0.05-seed3"]),
        ({"method": "random", "lam": None, "parameters": {"neurons": 7, "seed": 3}}, ["random-7-seed3"]),
    ],
)
def test_the_folder_of_every_method_is_checked(tmp_path: Path, made: dict[str, Any], folders: list[str]) -> None:
    path = tmp_path / "activation_masks" / "toy" / folders[0] / "mask.Llama-x"
    replace(STORED, description=replace(DESCRIPTION, **made)).save(path)
    for folder in folders:
        assert Mask.load(moved(path, folder) if folder != folders[0] else path).description is not None
    for folder in ("0.1-0.05", "lape-0.2", "equal-n-8", "random-0.1-0.05-seed4"):
        with pytest.raises(IncompatibleError, match="lies in the folder"):
            Mask.load(moved(path, folder))


def test_a_description_says_where_lambda_was_cut_off_also_where_no_lambda_is_the_largest(path: Path) -> None:
    for largest, said in ((0.3707, "the largest λ with appear[K] = 0 is 0.3707"), (math.inf, "none is the largest")):
        described = replace(DESCRIPTION, largest_lam=largest, searched_to=0.05)
        Mask(("en", "es"), MASK, described).save(path, overwrite=True)
        text = path.with_name(path.name + ".json").read_text()
        json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
        read = load_description(path)
        assert read == replace(described, mask_hash=mask_hash(MASK))
        (note,) = read.lambda_notes()
        assert note.startswith("λ = 0.05 is the end of the range that was searched; ")
        assert said in note
    assert DESCRIPTION.lambda_notes() == [], "masks of earlier versions do not know"
    assert replace(DESCRIPTION, largest_lam=0.3707, appear=[1, 1, 1]).lambda_notes() == [], "λ itself has appear[K] > 0"
