"""The conditions of a grid: which there are, which texts they miss, and what they do to a model."""

from __future__ import annotations

from pathlib import Path

import torch

from language_neurons_alignment._controls import open_source_and_controls
from language_neurons_alignment._grid import NONE, Condition, Conditions, conditions_of, missing
from language_neurons_alignment._operations import Steps
from language_neurons_alignment.core.model import ModelInfo
from language_neurons_alignment.store.masks import open_mask
from tests.small_run import LANGUAGES, idle, opened

MODEL = ModelInfo("nowhere", "LlamaForCausalLM", layers=3, d_mlp=96, max_length=64, dtype="float32")


def test_only_missing_cells_are_to_do() -> None:
    rows = conditions_of(("es", "fr"), 0)
    cells = [(row, text) for row in rows for text in ("es", "fr")]
    done = {(row.name, text): 1.0 for row, text in cells}
    assert missing(cells, done) == {}
    assert missing(cells, {}) == {row: ["es", "fr"] for row in rows}
    some = {key: done[key] for key in done if key != ("es", "fr")}
    assert missing(cells, some) == {Condition("es"): ["fr"]}


def opened_conditions(work: Path, lam: float, *do: str) -> Conditions:
    session = idle(opened(work))
    mask = open_mask(session.layout, top_rate=0.1, lam=lam, checkpoint=session.checkpoint)
    steps = Steps.parse(do)
    read = open_source_and_controls(session, mask, steps, classes=("specific", "related"), sets=2, seed=0)
    return Conditions(steps, *read)


def test_a_condition_changes_its_own_neurons_and_a_control_as_many_others_in_each_layer(work: Path, lam: float) -> None:
    conditions = opened_conditions(work, lam, "zero each")
    assert conditions.rows(LANGUAGES) == LANGUAGES
    assert conditions.intervention(NONE, MODEL) is None
    assert conditions.describe(NONE) is None
    own, first, second = (conditions.intervention(Condition("es", number), MODEL) for number in range(3))
    assert own is not None
    assert own.touched.any()
    for control in (first, second):
        assert control is not None
        assert not (own.touched & control.touched).any()
        assert torch.equal(own.touched.sum(dim=1), control.touched.sum(dim=1))
    described = conditions.describe(Condition("es"))
    assert described is not None
    assert described["do"] == ["zero es"]
    assert conditions.describe(Condition("es", 2)) == described, "what a control draws is told apart"


def test_steps_that_name_no_language_of_the_row_are_one_condition(work: Path, lam: float) -> None:
    conditions = opened_conditions(work, lam, "zero es", "scale:2 en")
    assert conditions.rows(LANGUAGES) == ("do",)
    changed = conditions.intervention(Condition("do"), MODEL)
    assert changed is not None
    assert set(changed.scale.unique().tolist()) == {0.0, 1.0, 2.0}
