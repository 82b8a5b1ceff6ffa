"""Steps 2 and 3 on made-up counts, and the names that readers of the paper know."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from language_neurons_alignment.analysis import Neuron_Mask, Neuron_Prob
from language_neurons_alignment.autosweep import autosweep, quick_autosweep, show_lambda
from language_neurons_alignment.config import Selection, SweepRange
from language_neurons_alignment.errors import ConflictError, IncompatibleError, MissingArtifactError, SweepError
from language_neurons_alignment.identify import identify
from language_neurons_alignment.store.counts import save_counts
from language_neurons_alignment.store.layout import Layout, with_ending
from tests.workspace import (
    TEN,
    contents,
    made_up_counts,
    store_counts,
)


@pytest.fixture
def counted(tmp_path: Path) -> Layout:
    """Made-up counts of ten languages."""
    layout = Layout(tmp_path, "mgsm", "Llama-made-up")
    store_counts(layout)
    return layout


def test_quick_autosweep_is_autosweep_as_a_float_and_prints_nothing(
    counted: Layout, capfd: pytest.CaptureFixture[str]
) -> None:
    search = SweepRange(0.0, 5.0)
    expected = autosweep(counted, TEN, top_rate=0.1, bar=0.5, search=search)
    lam = quick_autosweep(
        model_name="Llama", model_path="/ABS/made-up", dataset="mgsm", toprate=0.1, lo=0.0, hi=5.0, eps=1e-3, bar=0.5,
        root=counted.root,
    )  # fmt: skip
    assert type(lam) is float
    assert lam == expected.lam
    whole = quick_autosweep("Llama", "/ABS/made-up", "mgsm", 0.1, 0, 5, 1e-3, 0.0083, root=counted.root)
    assert type(whole) is float, "whole numbers for lo and hi"
    assert expected.appear[-1] == 0
    assert capfd.readouterr() == ("", "")


def test_the_counts_are_found_under_another_family_name(counted: Layout) -> None:
    args = {"model_path": "/ABS/made-up", "dataset": "mgsm", "toprate": 0.1, "hi": 5.0, "root": counted.root}
    assert quick_autosweep("Mistral", **args) == quick_autosweep("Llama", **args)  # type: ignore[arg-type]


def test_autosweep_writes_nothing_and_reads_the_counts_once(counted: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    before, loads = contents(counted.root), []
    load = torch.load
    monkeypatch.setattr(torch, "load", lambda path, **named: loads.append(path) or load(path, **named))
    seen: list[float] = []
    autosweep(counted, TEN, top_rate=0.1, bar=0.5, search=SweepRange(0, 5), observe=lambda lam, _: seen.append(lam))
    assert len(seen) > 1
    assert len(loads) == 20
    assert contents(counted.root) == before


def test_no_lambda_in_range_is_an_error_with_both_ends(counted: Layout) -> None:
    with pytest.raises(SweepError, match=r"appear\[K\] is \d+ at lo and \d+ at hi"):
        autosweep(counted, ("en",), top_rate=1.0, bar=0.1)


@pytest.mark.parametrize("lam", [0.0, 0.109375, 0.03671875, 1e-7, 0.2, 1 / 3, 12.5, 1e-20])
def test_a_lambda_is_shown_in_at_least_six_decimals_and_reads_back_as_itself(lam: float) -> None:
    shown = show_lambda(lam)
    assert float(shown) == lam
    assert len(shown.partition(".")[2]) >= 6
    assert "e" not in shown


def test_a_missing_language_is_an_error_that_names_the_file_and_the_command(counted: Layout) -> None:
    counted.activation("th").unlink()
    for act in (
        lambda: autosweep(counted, TEN, top_rate=0.1),
        lambda: identify(counted, TEN, Selection(0.1, 0.0)),
        lambda: quick_autosweep("Llama", "/ABS/made-up", "mgsm", root=counted.root),
    ):
        with pytest.raises(MissingArtifactError, match=r"activation\.th\.Llama-made-up\.pt .*lna activation"):
            act()
    assert identify(counted, ("en", "sw"), Selection(0.1, 0.0)).description.languages == ["en", "sw"]


def test_counts_of_other_shapes_or_models_are_an_error_that_names_the_language(counted: Layout) -> None:
    save_counts(counted, "bn", made_up_counts((3, 41)), {"config_hash": "c1", "weights_hash": "w1"})
    with pytest.raises(IncompatibleError, match=r"'bn' have shape \(3, 41\), those of 'en' \(3, 40\)"):
        identify(counted, TEN, Selection(0.1, 0.0))
    for key in ("config_hash", "weights_hash"):
        store_counts(counted)
        store_counts(counted, ("bn",), **{key: "another"})
        with pytest.raises(IncompatibleError, match="'en' and 'bn' come from different models"):
            identify(counted, TEN, Selection(0.1, 0.0))
    assert not (counted.root / "activation_masks").exists()


def test_a_mask_of_other_counts_bar_or_languages_is_a_conflict_until_forced(counted: Layout) -> None:
    identify(counted, TEN, Selection(0.1, 0.0, 0.9))
    before = contents(counted.root / "activation_masks")
    for languages, bar in ((TEN, 0.8), (("en", "sw"), 0.9)):
        with pytest.raises(ConflictError, match="--force"):
            identify(counted, languages, Selection(0.1, 0.0, bar))
    store_counts(counted, ("sw", "en"))
    with pytest.raises(ConflictError, match="other counts"):
        identify(counted, TEN, Selection(0.1, 0.0, 0.9))
    assert contents(counted.root / "activation_masks") == before
    identify(counted, TEN, Selection(0.1, 0.0, 0.9), overwrite=True)
    assert contents(counted.root / "activation_masks") != before


def test_the_description_adds_up(counted: Layout) -> None:
    found = identify(counted, TEN, Selection(0.1, 0.05, 0.6))
    described = found.description
    assert sum(described.appear) == round(0.1 * 3 * 40) == int(found.selected.sum())
    assert described.classes["specific"] == described.appear[1]
    assert described.classes["related"] == sum(described.appear[2:-1])
    assert described.classes["unassigned"] == described.appear[0]
    assert sum(described.neurons.values()) == sum(j * count for j, count in enumerate(described.appear))
    assert (described.layers, described.d_mlp, described.languages) == (3, 40, list(TEN))
    assert json.loads(with_ending(found.path, ".json").read_text())["appear"] == described.appear


def test_those_who_know_the_papers_names_find_them(counted: Layout) -> None:
    found = identify(counted, TEN, Selection(0.1, 0.05, 0.6))
    probabilities = Neuron_Prob.load("Llama", "/ABS/made-up", "mgsm", root=counted.root)
    assert probabilities.probability.shape == (3, 40, 10)
    assert torch.equal(probabilities.statistics(bar=0.6).member, found.statistics.member)
    assert torch.equal(Neuron_Mask.load(found.path, d_mlp=40).mask, found.mask)
