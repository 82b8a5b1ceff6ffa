"""Models compared on made-up counts: which files, which names, which refusals and notes."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from language_neurons_alignment._compare import compare, comparison_of
from language_neurons_alignment.analysis import ModelNeurons, open_neurons
from language_neurons_alignment.config import Selection
from language_neurons_alignment.errors import IncompatibleError, SettingsError
from language_neurons_alignment.identify import identify
from language_neurons_alignment.store.counts import save_counts
from language_neurons_alignment.store.layout import Layout
from tests.test_analysis import CHOICE, CODES, SHAPE, made
from tests.workspace import made_up_counts


def models(root: Path, *seeds: int) -> list[ModelNeurons]:
    return [open_neurons(made(root, f"Llama-{seed}", seed=seed), CHOICE) for seed in seeds]


def test_a_comparison_of_two_models_is_one_json_and_a_csv_file_for_each_table(tmp_path: Path) -> None:
    pair = models(tmp_path, 0, 1)
    found = compare(pair, trained=("zh", "sw"))
    assert [str(path.relative_to(tmp_path)) for path in found.files] == [
        "comparisons/mgsm/0.2-own/compare.Llama-0..Llama-1.json",
        *(
            f"comparisons/mgsm/0.2-own/compare.Llama-0..Llama-1.{name}.csv"
            for name in ("classes", "languages", "groups", "path", "means")
        ),
    ]
    stored = json.loads(found.files[0].read_text(encoding="utf-8"))
    assert sum(sum(row.values()) for row in stored["pairs"][0]["flow"].values()) == SHAPE[0] * SHAPE[1]
    english = stored["pairs"][0]["languages"]["en"]
    assert english["before"]["mask"] - english["lost"]["mask"] == english["kept"]["mask"]
    assert stored["pairs"][0]["groups"]["group"] == ["trained", "untrained"]
    with found.files[1].open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert sum(int(row["neurons"]) for row in rows) == SHAPE[0] * SHAPE[1]
    assert found.path.models == ("Llama-0", "Llama-1")


def test_checkpoints_are_compared_with_the_base_and_with_the_one_before(tmp_path: Path) -> None:
    found = comparison_of(models(tmp_path, 0, 1, 2))
    assert [(pair.before, pair.after) for pair in found.pairs] == [("Llama-0", "Llama-1"), ("Llama-0", "Llama-2")]
    assert [(step.before, step.after) for step in found.steps] == [("Llama-0", "Llama-1"), ("Llama-1", "Llama-2")]
    whole, first, second = found.pairs[1], *found.steps
    assert torch.equal(whole.classes.change, first.classes.change + second.classes.change)
    rows = found.tables()["classes"]
    assert set(zip(rows["from"], rows["to"], strict=True)) == {
        ("Llama-0", "Llama-1"), ("Llama-0", "Llama-2"), ("Llama-1", "Llama-2"),
    }  # fmt: skip
    assert len(rows["from"]) == 3 * SHAPE[0] * 25


def test_a_common_lambda_stands_in_the_folders_name(tmp_path: Path) -> None:
    pair = [open_neurons(made(tmp_path, f"Llama-{k}", seed=k), replace(CHOICE, lam=0.1)) for k in range(2)]
    assert compare(pair).files[0].parent.name == "0.2-0.1"


def test_models_of_the_same_name_are_told_apart_by_their_folder(tmp_path: Path) -> None:
    masks = []
    for k in range(2):
        layout = made(tmp_path / f"run{k}", "Llama-checkpoint-200", seed=k)
        masks.append(identify(layout, CODES, Selection(0.2, 0.1, 0.6)).path)
    found = comparison_of([open_neurons(path) for path in masks])
    assert found.names == ("Llama-checkpoint-200@run0-0.1", "Llama-checkpoint-200@run1-0.1")
    with pytest.raises(SettingsError, match="given twice"):
        comparison_of([open_neurons(masks[0])] * 2)


def test_a_mask_file_somewhere_else_is_refused(tmp_path: Path) -> None:
    path = identify(made(tmp_path), CODES, Selection(0.2, 0.1, 0.6)).path
    other = path.rename(tmp_path / "mask.Llama-base")
    with pytest.raises(SettingsError, match="lna import-mask"):
        open_neurons(other)


def other_dataset(root: Path) -> ModelNeurons:
    layout = replace(made(root, "Llama-1", seed=1), dataset="msvamp")
    (root / "activations" / "mgsm").rename(root / "activations" / "msvamp")
    return open_neurons(layout, CHOICE)


@pytest.mark.parametrize(
    ("other", "named"),
    [
        (lambda root: open_neurons(made(root, "Llama-1", shape=(5, 61)), CHOICE), "5 × 60 and 5 × 61; .*architecture"),
        (lambda root: open_neurons(made(root, "Llama-1"), replace(CHOICE, languages=CODES[::-1])), "languages en,es"),
        (lambda root: open_neurons(made(root, "Llama-1"), replace(CHOICE, top_rate=0.1)), "top rate 0.2 and 0.1"),
        (lambda root: open_neurons(made(root, "Llama-1"), replace(CHOICE, bar=0.7)), "bar 0.6 and 0.7"),
        (other_dataset, "dataset mgsm and msvamp"),
    ],
)
def test_what_is_not_comparable_is_refused_and_says_why(tmp_path: Path, other: object, named: str) -> None:
    base = open_neurons(made(tmp_path / "a", "Llama-0"), CHOICE)
    with pytest.raises(IncompatibleError, match=rf"Llama-0 and Llama-1 cannot be compared: .*{named}"):
        compare([base, other(tmp_path / "b")])  # type: ignore[operator]
    assert not (tmp_path / "a" / "comparisons").exists()


def test_a_mask_alone_is_not_compared_with_counts(tmp_path: Path) -> None:
    for k in range(2):
        identify(made(tmp_path, f"Llama-{k}", seed=k), CODES, Selection(0.2, 0.1, 0.6))
    layouts = [Layout(tmp_path, "mgsm", f"Llama-{k}") for k in range(2)]
    counted, alone = open_neurons(layouts[0], Selection(0.2)), open_neurons(layouts[1], Selection(0.2), mask_only=True)
    with pytest.raises(IncompatibleError, match="--mask-only"):
        comparison_of([counted, alone])
    both = comparison_of([open_neurons(layout, Selection(0.2), mask_only=True) for layout in layouts])
    assert both.pairs[0].classes.states == ("specific", "related", "none")


def test_one_model_is_no_comparison(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="at least two models, got 1"):
        comparison_of(models(tmp_path, 0))


def test_models_with_a_lambda_each_are_told_to_be_compared_at_one_too(tmp_path: Path) -> None:
    pair = [open_neurons(made(tmp_path, f"Llama-{k}", seed=k), replace(CHOICE, lam=0.1 + k / 20)) for k in range(2)]
    assert comparison_of(pair).notes == (
        "Llama-0 and Llama-1 have λ 0.100000 and 0.150000: λ causes part of the difference; "
        "compare them at one λ too (-l)",
    )


def test_what_else_than_training_may_differ_is_noted(tmp_path: Path) -> None:
    base, same = models(tmp_path, 0)[0], open_neurons(made(tmp_path, "Llama-copy"), CHOICE)
    assert "same counts" in comparison_of([base, same]).notes[0]
    longer = made(tmp_path, "Llama-1", seed=1)
    save_counts(longer, "sw", made_up_counts(SHAPE, tokens=2000, seed=9), {"config_hash": "c", "language": "sw"})
    one_lambda = [open_neurons(layout, replace(CHOICE, lam=0.1)) for layout in (base.layout, longer)]
    notes = comparison_of(one_lambda).notes
    assert len(notes) == 1
    assert "questions of different length in sw" in notes[0]
