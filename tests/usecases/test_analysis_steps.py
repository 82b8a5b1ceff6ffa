"""analyze, compare and import-mask on made-up counts: what they write, which neurons they take, what they refuse."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from language_neurons_alignment._compare import compare, comparison_of
from language_neurons_alignment._import_mask import import_mask
from language_neurons_alignment.analysis import (
    ModelNeurons,
    analysis_of,
    analyze,
    neurons_of_file,
    open_neurons,
)
from language_neurons_alignment.autosweep import autosweep
from language_neurons_alignment.config import Selection, SweepRange
from language_neurons_alignment.core.selection import to_mask_list
from language_neurons_alignment.engines.describe import model_shape
from language_neurons_alignment.errors import (
    ArtifactError,
    ConflictError,
    IncompatibleError,
    LNAError,
    MissingArtifactError,
    SettingsError,
    UnknownArchitectureError,
)
from language_neurons_alignment.identify import identify
from language_neurons_alignment.store.checkpoint import Checkpoint
from language_neurons_alignment.store.counts import save_counts
from language_neurons_alignment.store.layout import Layout
from language_neurons_alignment.store.masks import open_mask
from tests.tiny_models import ARCHITECTURES, D_MLP, save_tiny_model, tiny_config
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


# ── analyze ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_analysis_is_one_json_and_a_csv_file_for_each_table(layout: Layout) -> None:
    identify(layout, CODES, Selection(0.2, 0.1, 0.6))
    found, files = analyze(layout, Selection(0.2))
    folder = "analysis/mgsm/0.2-0.1"
    tables = ["classes", "languages", "means", "overlap", "sets", "stages", "above", "lambda_path"]
    assert [str(path.relative_to(layout.root)) for path in files] == [
        f"{folder}/analysis.Llama-base.json",
        *(f"{folder}/analysis.Llama-base.{name}.csv" for name in tables),
    ]
    assert leftovers(layout.root) == []
    stored = json.loads(files[0].read_text(encoding="utf-8"))
    assert stored["made_from"]["languages"] == list(CODES)
    assert stored["classes"] == found.neurons.found.description.classes  # type: ignore[union-attr]
    assert stored["lam_from"] == "mask"
    assert stored["lambda_path"] == {"lo": 0.0, "hi": 0.2, "pieces": len(found.path.appear)}  # type: ignore[union-attr]
    with files[1].open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["specific"]) for row in rows] == found.classes.of("specific").tolist()
    for name, table in found.tables().items():
        frame = table.to_frame()
        assert list(frame.columns) == list(table.columns())
        assert len(frame) > 0, name


def test_numbers_that_json_has_not_are_null_and_empty_cells(layout: Layout) -> None:
    _, files = analyze(layout, CHOICE)
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
    alone, files = analyze(layout, Selection(0.2), mask_only=True)
    assert torch.equal(alone.languages.per_language.sum(dim=1), found.mask.sum(dim=(0, 1)))
    assert torch.equal(alone.classes.of("specific"), whole.classes.of("specific"))
    assert alone.above is None
    assert alone.path is None
    assert not [path for path in files if "lambda_path" in path.name]
    with pytest.raises(MissingArtifactError, match="lna activation"):
        open_neurons(layout, Selection(0.2))


def test_a_mask_that_is_not_there_is_told_with_what_to_do(layout: Layout) -> None:
    with pytest.raises(MissingArtifactError, match=r"no mask of top rate 0\.2 on mgsm.*lna identify.*lna import-mask"):
        open_neurons(layout, Selection(0.2), mask_only=True)


# ── compare ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def models(root: Path, *seeds: int) -> list[ModelNeurons]:
    return [open_neurons(made(root, f"Llama-{seed}", seed=seed), CHOICE) for seed in seeds]


def test_a_comparison_of_two_models_is_one_json_and_a_csv_file_for_each_table(tmp_path: Path) -> None:
    pair = models(tmp_path, 0, 1)
    found, files = compare(pair, trained=("zh", "sw"))
    assert [str(path.relative_to(tmp_path)) for path in files] == [
        "comparisons/mgsm/0.2-own/compare.Llama-0..Llama-1.json",
        *(
            f"comparisons/mgsm/0.2-own/compare.Llama-0..Llama-1.{name}.csv"
            for name in ("classes", "languages", "groups", "path", "means")
        ),
    ]
    stored = json.loads(files[0].read_text(encoding="utf-8"))
    assert sum(sum(row.values()) for row in stored["pairs"][0]["flow"].values()) == SHAPE[0] * SHAPE[1]
    english = stored["pairs"][0]["languages"]["en"]
    assert english["before"]["mask"] - english["lost"]["mask"] == english["kept"]["mask"]
    assert stored["pairs"][0]["groups"]["group"] == ["trained", "untrained"]
    with files[1].open(encoding="utf-8") as file:
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
    _, files = compare(pair)
    assert files[0].parent.name == "0.2-0.1"


def test_models_of_the_same_name_are_told_apart_by_their_folder(tmp_path: Path) -> None:
    masks = []
    for k in range(2):
        layout = made(tmp_path / f"run{k}", "Llama-checkpoint-200", seed=k)
        masks.append(identify(layout, CODES, Selection(0.2, 0.1, 0.6)).path)
    found = comparison_of([neurons_of_file(path) for path in masks])
    assert found.names == ("Llama-checkpoint-200@run0-0.1", "Llama-checkpoint-200@run1-0.1")
    with pytest.raises(SettingsError, match="given twice"):
        comparison_of([neurons_of_file(masks[0])] * 2)


def test_a_mask_file_somewhere_else_is_refused(tmp_path: Path) -> None:
    path = identify(made(tmp_path), CODES, Selection(0.2, 0.1, 0.6)).path
    other = path.rename(tmp_path / "mask.Llama-base")
    with pytest.raises(SettingsError, match="lna import-mask"):
        neurons_of_file(other)


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
    pair = [open_neurons(made(tmp_path, f"Llama-{k}", seed=k), replace(CHOICE, lam=0.1 + k / 10)) for k in range(2)]
    assert comparison_of(pair).notes == (
        "Llama-0 and Llama-1 have λ 0.100000 and 0.200000: part of what differs is λ's doing; "
        "compare with -l at one λ too",
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


# ── import-mask ─────────────────────────────────────────────────────────────────────────────────────────────────────


def public_mask(path: Path, *, layers: int = 5, neurons: int = 60) -> Path:
    """A mask as others publish it: no description, some tensors empty floats, indices not sorted."""
    mask = torch.rand(layers, neurons, 3, generator=torch.Generator().manual_seed(1)) > 0.9
    stored = [
        [indices.flip(0) if len(indices) else torch.tensor([]) for indices in rows] for rows in to_mask_list(mask)
    ]
    torch.save(stored, path)
    return path


def test_an_imported_mask_is_found_by_the_other_steps_and_says_where_it_came_from(layout: Layout) -> None:
    file = public_mask(layout.root / "llama.neuron.pth")
    description, path = import_mask(file, layout, ("en", "zh", "fr"), model_path="/x/base", top_rate=0.01, lam=0.0)
    assert path == layout.mask(0.01, 0.0)
    assert description.source is not None
    assert description.source["file"] == "llama.neuron.pth"
    assert (description.layers, description.d_mlp, description.bar) == (5, 60, None)
    opened = open_mask(layout, top_rate=0.01, lam=0.0, checkpoint=Checkpoint("Llama", "", ""))
    assert opened.languages == ("en", "zh", "fr")
    alone = analysis_of(open_neurons(layout, Selection(0.01), mask_only=True))
    assert sum(alone.classes.totals().values()) == sum(description.classes.values())
    assert alone.languages.per_language.sum(dim=1).tolist() == list(description.neurons.values())


def test_the_general_neurons_of_an_imported_mask_are_unknown_and_that_is_said(layout: Layout) -> None:
    file = public_mask(layout.root / "llama.neuron.pth")
    import_mask(file, layout, ("en", "zh", "fr"), model_path="/x/base", top_rate=0.01, lam=0.0)
    opened = open_mask(layout, top_rate=0.01, lam=0.0, checkpoint=Checkpoint("Llama", "", ""))
    with pytest.raises(MissingArtifactError, match="was imported"):
        opened._general()


def test_importing_again_is_nothing_new_and_another_file_is_a_conflict_until_forced(layout: Layout) -> None:
    file, rates = public_mask(layout.root / "one.pth"), {"model_path": "/x/base", "top_rate": 0.01, "lam": 0.0}
    import_mask(file, layout, ("en", "zh", "fr"), **rates)
    before = contents(layout.root)
    import_mask(file, layout, ("en", "zh", "fr"), **rates)
    assert contents(layout.root) == before
    torch.save([[torch.tensor([0])] * 5] * 3, file)
    with pytest.raises(ConflictError, match="another import"):
        import_mask(file, layout, ("en", "zh", "fr"), **rates)
    import_mask(file, layout, ("en", "zh", "fr"), **rates, overwrite=True)


@pytest.mark.parametrize(
    ("shape", "languages", "error", "named"),
    [
        ((4, 60), ("en", "zh", "fr"), IncompatibleError, "4 layers, Llama-base has 5"),
        ((5, 600), ("en", "zh", "fr"), ArtifactError, "the model has 0..59"),
        ((5, 60), ("en", "zh"), IncompatibleError, r"3 languages, --langs names 2 \(en, zh\)"),
    ],
)
def test_a_mask_of_another_model_or_of_other_languages_is_refused(
    layout: Layout, shape: tuple[int, int], languages: tuple[str, ...], error: type[LNAError], named: str
) -> None:
    file = public_mask(layout.root / "other.pth", layers=shape[0], neurons=shape[1])
    with pytest.raises(error, match=named):
        import_mask(file, layout, languages, model_path="/x/base", top_rate=0.01, lam=0.0)
    assert not (layout.root / "activation_masks").exists()


def test_a_missing_file_and_code_in_a_file_are_refused(layout: Layout) -> None:
    rates = {"model_path": "/x/base", "top_rate": 0.01, "lam": 0.0}
    with pytest.raises(MissingArtifactError, match="give a mask file"):
        import_mask(layout.root / "none.pth", layout, ("en",), **rates)
    torch.save([[Path("/tmp")]], layout.root / "code.pth")
    with pytest.raises(ArtifactError, match="cannot be read"):
        import_mask(layout.root / "code.pth", layout, ("en",), **rates)


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_a_models_shape_is_read_off_its_config(kind: str, tmp_path: Path) -> None:
    config = tiny_config(kind)
    config.save_pretrained(tmp_path)
    layers = config.get_text_config().num_hidden_layers
    assert model_shape(str(tmp_path)) == (layers, 4 * 128 if kind == "bloom" else D_MLP)


def test_the_shape_of_a_model_without_counts_comes_from_its_config(tmp_path: Path) -> None:
    folder = save_tiny_model("llama", tmp_path / "tiny")
    file = public_mask(tmp_path / "mask.pth", layers=3, neurons=96)
    layout = Layout(tmp_path, "mgsm", "Llama-tiny")
    description, _ = import_mask(file, layout, ("en", "zh", "fr"), model_path=str(folder), top_rate=0.01, lam=0.0)
    assert (description.layers, description.d_mlp) == (3, D_MLP)
    assert description.weights_hash
    with pytest.raises(LNAError, match="no model at /nowhere/tiny"):
        import_mask(
            file, replace(layout, model="X-y"), ("en", "zh", "fr"), model_path="/nowhere/tiny", top_rate=0.1, lam=0
        )
    (folder / "config.json").write_text('{"model_type": "mamba"}')
    with pytest.raises(UnknownArchitectureError):
        model_shape(str(folder))
