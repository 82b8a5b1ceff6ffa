"""Masks published by others, brought in: found by other steps, with their origin; refused if they do not fit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from language_neurons_alignment._import_mask import import_mask
from language_neurons_alignment.analysis import analysis_of, open_neurons
from language_neurons_alignment.config import Selection
from language_neurons_alignment.core.selection import to_mask_list
from language_neurons_alignment.engines.checkpoint import layer_widths
from language_neurons_alignment.errors import (
    ArtifactError,
    ConflictError,
    IncompatibleError,
    LNAError,
    LNAWarning,
    MissingArtifactError,
    UnknownArchitectureError,
)
from language_neurons_alignment.store.checkpoint import Checkpoint
from language_neurons_alignment.store.layout import Layout
from language_neurons_alignment.store.masks import general_neurons, open_mask
from tests.test_analysis import made
from tests.tiny_models import D_MLP, RAGGED_WIDTHS, save_tiny_model, tiny_config
from tests.workspace import contents


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return made(tmp_path)


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
    opened = open_mask(layout, top_rate=0.01, lam=0.0, checkpoint=Checkpoint("", ""))
    assert opened.languages == ("en", "zh", "fr")
    alone = analysis_of(open_neurons(layout, Selection(0.01), mask_only=True))
    assert sum(alone.classes.totals().values()) == sum(description.classes.values())
    assert alone.languages.per_language.sum(dim=1).tolist() == list(description.neurons.values())


def test_an_empty_mask_is_imported_and_that_is_said(layout: Layout) -> None:
    empty = [[torch.tensor([], dtype=torch.int64)] * 5] * 3
    torch.save(empty, layout.root / "empty.pth")
    with pytest.warns(LNAWarning, match="no neuron belongs to any language: every mask is empty"):
        import_mask(layout.root / "empty.pth", layout, ("en", "zh", "fr"), model_path="/x/base", top_rate=0.01, lam=0.0)


def test_the_general_neurons_of_an_imported_mask_are_unknown_and_that_is_said(layout: Layout) -> None:
    file = public_mask(layout.root / "llama.neuron.pth")
    import_mask(file, layout, ("en", "zh", "fr"), model_path="/x/base", top_rate=0.01, lam=0.0)
    opened = open_mask(layout, top_rate=0.01, lam=0.0, checkpoint=Checkpoint("", ""))
    with pytest.raises(MissingArtifactError, match="was imported"):
        general_neurons(opened, layout)


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


@pytest.mark.parametrize(
    ("kind", "widths"),
    [("llama", (96,) * 3), ("bloom", (512,) * 3), ("gemma3", (96,) * 4), *RAGGED_WIDTHS.items()],
)
def test_a_models_shape_is_read_off_its_config(kind: str, widths: tuple[int, ...], tmp_path: Path) -> None:
    tiny_config(kind).save_pretrained(tmp_path)
    assert layer_widths(str(tmp_path)) == widths


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
    (folder / "config.json").write_text('{"model_type": "martian"}')
    with pytest.raises(UnknownArchitectureError):
        layer_widths(str(folder))
