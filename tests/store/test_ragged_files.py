"""Files of models whose layers differ in width: the widths come back, and what lies beyond them is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from language_neurons_alignment.config import Selection
from language_neurons_alignment.core.counts import LanguageBlocks, LanguageCounts, LanguageMoments, SpanMoments
from language_neurons_alignment.core.model import ModelInfo
from language_neurons_alignment.core.widths import is_neuron
from language_neurons_alignment.errors import ArtifactError, IncompatibleError
from language_neurons_alignment.identify import identify
from language_neurons_alignment.store.counts import (
    answer_moments,
    load_answer_counts,
    load_blocks,
    load_counts,
    save_blocks,
    save_counts,
)
from language_neurons_alignment.store.layout import Layout
from language_neurons_alignment.store.masks import Mask, load_description
from tests.workspace import META, made_up_counts

WIDTHS, SHAPE = (7, 20, 12), (3, 20)
REAL = is_neuron(WIDTHS, 20)
MODEL = ModelInfo("nowhere", "X", *SHAPE, max_length=9, dtype="float32", widths=WIDTHS)
CODES = ("en", "fr")


def ragged_counts(seed: int) -> LanguageCounts:
    counts = made_up_counts(SHAPE, seed=seed)
    spans = [replace(span, over_zero=span.over_zero * REAL) for span in (counts.full, counts.prefix)]
    sums = [SpanMoments(span.total_tokens, span.over_zero.double(), span.over_zero.double() * 2) for span in spans]
    return LanguageCounts(*spans, LanguageMoments(*sums))


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    layout = Layout(tmp_path, "mgsm", "Llama-tiny")
    for seed, code in enumerate(CODES):
        parts, meta = [ragged_counts(10 * seed + one) for one in range(3)], {**META, "widths": list(WIDTHS)}
        save_blocks(layout, code, LanguageBlocks.of(parts), meta)
        save_counts(layout, code, parts[0] + parts[1] + parts[2], meta)
    return layout


def change(path: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    content = torch.load(path, weights_only=True)
    edit(content)
    torch.save(content, path)


def test_widths_come_back_with_counts_moments_and_blocks(layout: Layout) -> None:
    assert load_counts(layout, "en", moments=True)[1]["widths"] == list(WIDTHS)
    counts = load_answer_counts(layout, CODES)
    assert counts.widths == WIDTHS == counts.statistics(bar=0.5).widths
    assert counts.statistics(bar=0.5).neurons == sum(WIDTHS)
    assert not answer_moments(layout, "en").mean[~REAL].any()
    assert len(load_blocks(layout, "en")) == 3


@pytest.mark.parametrize("kind", ["activation", "blocks", "moments"])
def test_a_number_beyond_a_layer_s_width_is_impossible(layout: Layout, kind: str) -> None:
    name = {"activation": "over_zero", "blocks": "over_zero", "moments": "sum_of_squares"}[kind]
    path = getattr(layout, kind)("en")
    change(path, lambda content: content[name][..., 2, 12].fill_(1))
    read = {
        "activation": lambda: load_counts(layout, "en"),
        "blocks": lambda: load_blocks(layout, "en"),
        "moments": lambda: load_counts(layout, "en", moments=True),
    }[kind]
    with pytest.raises(ArtifactError, match=r"layer 2 has 12 neurons \(0\.\.11\), but a number at place 12"):
        read()


@pytest.mark.parametrize("widths", [[7, 20], [7, 20, 21], [7, 19, 12], [20, 20, 20], [7, 20, -1], [], [7, 20, 12.0], 7])
def test_widths_that_are_not_the_table_s_are_refused(layout: Layout, widths: object) -> None:
    for prefix in (False, True):
        change(layout.activation("en", prefix=prefix), lambda content: content["meta"].update(widths=widths))
    with pytest.raises(ArtifactError, match=r"its widths are .*, expected those of 3 layers") as error:
        load_counts(layout, "en")
    assert "\n" not in str(error.value)


def test_no_other_list_is_a_plain_value_of_meta(layout: Layout) -> None:
    change(layout.activation("en"), lambda content: content["meta"].update(version=[1]))
    with pytest.raises(ArtifactError, match="its meta holds a list under 'version'"):
        load_counts(layout, "en")


def test_languages_of_other_widths_come_from_another_model(layout: Layout) -> None:
    save_counts(layout, "fr", replace(ragged_counts(5), moments=None), {**META, "widths": [7, 20, 13]})
    with pytest.raises(IncompatibleError, match="'en' and 'fr' are of layers of different widths"):
        load_answer_counts(layout, CODES)


def test_a_mask_says_the_widths_of_its_model_and_fits_no_other(layout: Layout) -> None:
    found = identify(layout, CODES, Selection(0.5, 0.1, 0.5))
    read = Mask.load(found.path)
    assert read.description is not None
    assert read.description.widths == WIDTHS
    assert read.description.top_rate == 0.5
    assert json.loads(Path(f"{found.path}.json").read_text())["widths"] == list(WIDTHS)
    assert read.over(MODEL) is read
    for other in (None, (8, 20, 12)):
        with pytest.raises(ArtifactError, match=r"it is another model's mask"):
            read.over(replace(MODEL, widths=other))
    identify(layout, CODES, Selection(0.5, 0.1, 0.5))  # the same may be written again


def test_a_share_of_all_neurons_is_of_the_real_ones(layout: Layout) -> None:
    found = identify(layout, CODES, Selection(method="random", neurons=39))
    assert found.mask.sum(dim=(0, 1)).tolist() == [39, 39]
    assert found.description.top_rate == 1.0


def test_a_mask_with_an_index_beyond_a_width_does_not_belong_to_its_description(layout: Layout) -> None:
    path = identify(layout, CODES, Selection(0.5, 0.1, 0.5)).path
    stored = torch.load(path, weights_only=True)
    stored[0][0] = torch.tensor([7])
    torch.save(stored, path)
    content = json.loads(Path(f"{path}.json").read_text())
    content.pop("description_hash", None)  # whoever makes up a description gives it none
    Path(f"{path}.json").write_text(json.dumps({**content, "mask_hash": ""}))
    with pytest.raises(ArtifactError, match=r"layer 0 has 7 neurons \(0\.\.6\), but a neuron of the mask at place 7"):
        Mask.load(path)
    for wrong in ([7, 20], [7, 21, 12], [20, 20, 20], "7", [7, "20", 12]):
        Path(f"{path}.json").write_text(json.dumps({**content, "widths": wrong}))
        with pytest.raises(ArtifactError, match="its widths"):
            load_description(path)


def test_a_mask_without_a_description_meets_the_widths_of_a_model(tmp_path: Path) -> None:
    torch.save([[torch.tensor([6]), torch.tensor([3, 15]), torch.tensor([], dtype=torch.int64)]], tmp_path / "mask")
    mask = Mask.load(tmp_path / "mask").over(MODEL)
    assert mask.tensor.shape == (3, 20, 1)
    assert mask.tensor.nonzero().tolist() == [[0, 6, 0], [1, 3, 0], [1, 15, 0]]
    torch.save([[torch.tensor([7]), torch.tensor([3]), torch.tensor([5])]], tmp_path / "mask")
    with pytest.raises(ArtifactError, match=r"layer 0 has 7 neurons \(0\.\.6\), but a neuron of the mask at place 7"):
        Mask.load(tmp_path / "mask").over(MODEL)


def test_files_of_models_with_layers_alike_say_nothing_of_widths(tmp_path: Path) -> None:
    layout = Layout(tmp_path, "mgsm", "Llama-tiny")
    for seed, code in enumerate(CODES):
        save_counts(layout, code, made_up_counts(SHAPE, seed=seed), META)
    found = identify(layout, CODES, Selection(0.5, 0.1, 0.5))
    assert "widths" not in json.loads(Path(f"{found.path}.json").read_text())
    assert "widths" not in torch.load(layout.activation("en"), weights_only=True)["meta"]
    assert Mask.load(found.path).over(replace(MODEL, widths=None)).tensor.shape == (3, 20, 2)
