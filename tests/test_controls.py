"""Controls of a mask's neurons: as many per layer, as active, of no language, the same for the same seed."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jaxtyping import Bool
from torch import Tensor

from language_neurons_alignment._controls import Controls, open_source_and_controls
from language_neurons_alignment._grid import Condition, conditions_of
from language_neurons_alignment._operations import Steps
from language_neurons_alignment._session import Session
from language_neurons_alignment.config import Selection
from language_neurons_alignment.core.model import ModelInfo
from language_neurons_alignment.corpus.records import Corpus
from language_neurons_alignment.errors import IncompatibleError, SettingsError
from language_neurons_alignment.identify import identify
from language_neurons_alignment.store.checkpoint import Checkpoint
from language_neurons_alignment.store.counts import load_answer_counts
from language_neurons_alignment.store.layout import Layout
from language_neurons_alignment.store.masks import Mask, general_neurons, open_mask
from tests.workspace import ForbiddenSource, store_counts

LANGUAGES = ("en", "es", "fr", "sw")
MODEL = ModelInfo("nowhere", "LlamaForCausalLM", layers=3, d_mlp=400, max_length=64, dtype="float32")
MASK = ("specific", "related")


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    layout = Layout(tmp_path_factory.mktemp("controls"), "small", "Llama-x")
    store_counts(layout, LANGUAGES, shape=(3, 400))
    identify(layout, LANGUAGES, Selection(0.05, 0.0, 0.5))
    return layout


def opened(layout: Layout) -> Mask:
    return open_mask(layout, top_rate=0.05, lam=0.0, checkpoint=Checkpoint("", ""))


def controls_of(layout: Layout, *, classes: Sequence[str] = MASK, sets: int = 1, seed: int = 0) -> Controls:
    mask = opened(layout)
    session = Session(layout, Corpus(Path("nowhere"), ()), Checkpoint("", ""), ForbiddenSource())
    steps = Steps.parse("zero each")
    controls = open_source_and_controls(session, mask, steps, classes=classes, sets=sets, seed=seed)[1]
    assert controls is not None
    return controls


def drawn(controls: Controls, row: str, number: int = 1) -> Bool[Tensor, "layer neuron"]:
    neurons = controls.mask.neurons_of(row, MASK)
    return controls.swap(MODEL, row, number)(neurons)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**31), number=st.integers(1, 99), row=st.sampled_from(LANGUAGES))
def test_as_many_per_layer_in_no_language_s_mask_and_as_active(
    layout: Layout, seed: int, number: int, row: str
) -> None:
    mask = opened(layout)
    controls = controls_of(layout, seed=seed)
    own, control = mask.neurons_of(row, MASK), drawn(controls, row, number)
    assert own.any()
    assert torch.equal(control.sum(dim=1), own.sum(dim=1))
    assert not (control & mask.tensor.any(dim=-1)).any()
    counts = load_answer_counts(layout, LANGUAGES)
    activity = (counts.counts.double() / counts.tokens).mean(dim=-1)
    by_layer = (
        activity[layer, some[layer]].mean() for layer in range(3) for some in (own, control) if own[layer].any()
    )
    for one, other in zip(by_layer, by_layer, strict=True):
        assert abs(float(one - other)) < 0.1, "drawn from everything, layers differ by up to 0.4"
    assert torch.equal(control, drawn(controls_of(layout, seed=seed), row, number))


def test_rows_numbers_and_seeds_draw_different_sets(layout: Layout) -> None:
    mask = opened(layout)
    sets = [
        tuple(controls.swap(MODEL, row, number)(mask.neurons_of("fr", MASK)).flatten().tolist())
        for controls in (controls_of(layout, seed=seed) for seed in (0, 1))
        for row in ("fr", "en")
        for number in (1, 2)
    ]
    assert len(set(sets)) == len(sets)


def test_general_neurons_are_in_no_control_where_they_are_changed(layout: Layout) -> None:
    mask = opened(layout)
    general = mask.neurons_of("fr", ("general",), general_neurons(mask, layout))
    some = general & (torch.arange(400) < 200)
    without, allowed = (
        controls_of(layout, classes=classes).swap(MODEL, "fr", 1)(some) for classes in (("general",), MASK)
    )
    assert not (without & general).any()
    assert (allowed & general).any(), "else the test proves nothing"


def test_without_counts_only_the_layer_is_matched_and_that_is_said(layout: Layout, tmp_path: Path) -> None:
    bare = Layout(Path(shutil.copytree(layout.root, tmp_path / "bare")), "small", "Llama-x")
    assert controls_of(bare).matched_by == "layer and activity"
    bare.activation("sw").unlink()
    controls = controls_of(bare)
    assert controls.matched_by == "layer"
    assert controls.describe() == {"control_seed": 0, "control_matched_by": "layer", "control_activity": None}
    own = opened(bare).neurons_of("fr", MASK)
    assert torch.equal(drawn(controls, "fr").sum(dim=1), own.sum(dim=1))


def test_counts_of_another_model_are_refused(layout: Layout, tmp_path: Path) -> None:
    other = Layout(Path(shutil.copytree(layout.root, tmp_path / "other")), "small", "Llama-x")
    store_counts(other, LANGUAGES, shape=(3, 400), weights_hash="w2")
    with pytest.raises(IncompatibleError, match="model with other weights"):
        controls_of(other)
    store_counts(other, LANGUAGES, shape=(3, 401))
    with pytest.raises(IncompatibleError, match=r"\(3, 401\) neurons"):
        controls_of(other).swap(MODEL, "fr", 1)


def test_more_neurons_than_there_are_others_are_refused(layout: Layout) -> None:
    everything = torch.ones(3, 400, dtype=torch.bool)
    with pytest.raises(SettingsError, match="--controls 0"):
        controls_of(layout).swap(MODEL, "fr", 1)(everything)


def test_what_is_drawn_shows_in_the_provenance(layout: Layout) -> None:
    controls = controls_of(layout, seed=3)
    assert controls.describe()["control_seed"] == 3
    assert controls.activity is not None
    changed = replace(controls, activity=controls.activity + 0.1)
    assert controls.describe()["control_activity"] != changed.describe()["control_activity"]


def test_control_rows_come_set_by_set_after_the_others() -> None:
    listed = conditions_of(("en", "fr"), 2)
    assert [one.name for one in listed] == ["none", "en", "fr", "en~1", "fr~1", "en~2", "fr~2"]
    assert [(one.row, one.control) for one in listed[3:]] == [("en", 1), ("fr", 1), ("en", 2), ("fr", 2)]
    assert [Condition(*of).name for of in (("fr", 12), ("do", 1), ("fr", 0))] == ["fr~12", "do~1", "fr"]
