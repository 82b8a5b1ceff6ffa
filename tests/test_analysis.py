"""Opening and analysing language neurons on made-up counts: which neurons, which files, which refusals."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import torch

from language_neurons_alignment.analysis import analysis_of, analyze, open_neurons
from language_neurons_alignment.autosweep import autosweep
from language_neurons_alignment.config import Selection, SweepRange
from language_neurons_alignment.errors import ConflictError, MissingArtifactError, SettingsError
from language_neurons_alignment.identify import identify
from language_neurons_alignment.store.counts import save_counts
from language_neurons_alignment.store.layout import Layout
from tests.workspace import contents, leftovers, made_up_counts

CODES = ("en", "es", "sw", "zh")
SHAPE = (5, 60)
WIDE = SweepRange(0.0, 3.0)
CHOICE = Selection(0.2, bar=0.6, languages=CODES, search=WIDE)


def made(root: Path, model: str = "Llama-base", *, seed: int = 0, shape: tuple[int, int] = SHAPE) -> Layout:
    """A model's made-up counts; another seed is another model."""
    layout = Layout(root, "mgsm", model)
    for k, code in enumerate(CODES):
        save_counts(layout, code, made_up_counts(shape, seed=100 * seed + k), {"config_hash": "c", "language": code})
    return layout


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return made(tmp_path)


def test_an_analysis_is_one_json_and_a_csv_file_for_each_table(layout: Layout) -> None:
    identify(layout, CODES, Selection(0.2, 0.1, 0.6))
    found = analyze(layout, Selection(0.2))
    folder = "analysis/mgsm/0.2-0.1"
    tables = ["classes", "languages", "means", "overlap", "sets", "stages", "above", "lambda_path"]
    assert [str(path.relative_to(layout.root)) for path in found.files] == [
        f"{folder}/analysis.Llama-base.json",
        *(f"{folder}/analysis.Llama-base.{name}.csv" for name in tables),
    ]
    assert leftovers(layout.root) == []
    stored = json.loads(found.files[0].read_text(encoding="utf-8"))
    assert stored["made_from"]["languages"] == list(CODES)
    assert stored["classes"] == found.neurons.found.description.classes  # type: ignore[union-attr]
    assert stored["lam_from"] == "mask"
    assert stored["lambda_path"] == {"lo": 0.0, "hi": 0.2, "pieces": len(found.path.appear)}  # type: ignore[union-attr]
    with found.files[1].open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["specific"]) for row in rows] == found.classes.of("specific").tolist()
    for name, table in found.tables().items():
        frame = table.to_frame()
        assert list(frame.columns) == list(table.columns())
        assert len(frame) > 0, name


def test_numbers_that_json_has_not_are_null_and_empty_cells(layout: Layout) -> None:
    files = analyze(layout, CHOICE).files
    stages = json.loads(files[0].read_text(encoding="utf-8"))["tables"]["stages"]
    assert stages["gain"][0] is stages["p"][0] is None
    text = next(path for path in files if path.name.endswith("stages.csv")).read_text(encoding="utf-8")
    assert "nan" not in text


def test_the_same_analysis_writes_the_same_files(layout: Layout) -> None:
    analyze(layout, CHOICE)
    before = contents(layout.root)
    analyze(layout, CHOICE)
    assert contents(layout.root) == before


def test_lambda_bar_and_languages_are_those_of_the_mask_that_is_there(layout: Layout) -> None:
    identify(layout, CODES, Selection(0.2, 0.07, 0.6))
    neurons = open_neurons(layout, Selection(0.2))
    assert (neurons.lam_from, neurons.description.lam, neurons.description.bar) == ("mask", 0.07, 0.6)
    assert neurons.languages == CODES


def test_without_a_mask_lambda_is_autosweeps_and_no_mask_is_written(layout: Layout) -> None:
    neurons = open_neurons(layout, CHOICE)
    assert neurons.lam_from == "autosweep"
    assert neurons.description.lam == autosweep(layout, CODES, top_rate=0.2, bar=0.6, search=WIDE).lam
    assert not (layout.root / "activation_masks").exists()


def test_between_several_masks_the_caller_chooses(layout: Layout) -> None:
    for lam in (0.05, 0.1):
        identify(layout, CODES, Selection(0.2, lam, 0.6))
    with pytest.raises(SettingsError, match=r"2 masks of top rate 0\.2 on mgsm, at λ 0\.05, 0\.1: choose one with -l"):
        open_neurons(layout, Selection(0.2))
    chosen = open_neurons(layout, Selection(0.2, 0.1))
    assert (chosen.lam_from, chosen.description.lam) == ("given", 0.1)


@pytest.mark.parametrize(
    ("choice", "named"),
    [
        (Selection(0.2, 0.1, bar=0.7), "bar 0.6, this one 0.7"),
        (Selection(0.2, 0.1, languages=CODES[::-1]), "languages"),
    ],
)
def test_an_analysis_of_other_neurons_than_the_masks_is_a_conflict(
    layout: Layout, choice: Selection, named: str
) -> None:
    identify(layout, CODES, Selection(0.2, 0.1, 0.6))
    with pytest.raises(ConflictError, match=named):
        open_neurons(layout, choice)


def test_a_mask_of_counts_that_were_counted_again_is_a_conflict(layout: Layout) -> None:
    identify(layout, CODES, Selection(0.2, 0.1, 0.6))
    made(layout.root, seed=5)
    with pytest.raises(ConflictError, match="was made from other counts"):
        open_neurons(layout, Selection(0.2))


def test_of_a_mask_alone_there_are_specific_and_related_neurons_and_nothing_that_counts_tell(layout: Layout) -> None:
    found = identify(layout, CODES, Selection(0.2, 0.0, 0.6))
    whole = analysis_of(open_neurons(layout, Selection(0.2)))
    for path in (layout.root / "activations").rglob("*.pt"):
        path.unlink()
    alone = analyze(layout, Selection(0.2), mask_only=True)
    assert torch.equal(alone.languages.per_language.sum(dim=1), found.mask.sum(dim=(0, 1)))
    assert torch.equal(alone.classes.of("specific"), whole.classes.of("specific"))
    assert alone.above is None
    assert alone.path is None
    assert not [path for path in alone.files if "lambda_path" in path.name]
    with pytest.raises(MissingArtifactError, match="lna activation"):
        open_neurons(layout, Selection(0.2))


def test_a_mask_that_is_not_there_is_told_with_what_to_do(layout: Layout) -> None:
    with pytest.raises(MissingArtifactError, match=r"no mask of top rate 0\.2 on mgsm.*lna identify.*lna import-mask"):
        open_neurons(layout, Selection(0.2), mask_only=True)
