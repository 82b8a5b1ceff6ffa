"""Parity with the published results, on real counts of Mistral-7B over MGSM (read in place)."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import pytest
import torch

from language_neurons_alignment.autosweep import autosweep, quick_autosweep
from language_neurons_alignment.config import Selection, SweepRange
from language_neurons_alignment.core.counts import activation_probability
from language_neurons_alignment.core.selection import NeuronStatistics, appear, select
from language_neurons_alignment.errors import SweepError
from language_neurons_alignment.identify import identify
from language_neurons_alignment.languages import DEFAULT_LANGUAGES
from language_neurons_alignment.store.counts import load_answer_counts
from language_neurons_alignment.store.layout import Layout
from tests.lape_reference import lape_by_numpy

MODEL = "Mistral-de76d14562b1da1ba0e52d5b245cf9c0859e2af3"
APPEAR = [1369, 1866, 617, 310, 153, 127, 59, 40, 27, 20, 0]

pytestmark = pytest.mark.reference


@pytest.fixture(scope="module")
def layout(mistral_reference: Path) -> Layout:
    return Layout(mistral_reference, "mgsm", MODEL)


@pytest.fixture
def writable(mistral_reference: Path, tmp_path: Path) -> Layout:
    """The real counts, read in place, with room for results beside them."""
    (tmp_path / "activations").symlink_to(mistral_reference / "activations")
    return Layout(tmp_path, "mgsm", MODEL)


@pytest.fixture(scope="module")
def statistics(layout: Layout) -> NeuronStatistics:
    return load_answer_counts(layout, DEFAULT_LANGUAGES).statistics(bar=0.95)


def test_the_published_mask_comes_out_neuron_for_neuron(writable: Layout, mistral_reference: Path) -> None:
    found = identify(writable, DEFAULT_LANGUAGES, Selection(0.01, 0.109375, 0.95))
    published = torch.load(
        mistral_reference / "activation_masks/mgsm/0.01-0.109375" / f"mask.{MODEL}", weights_only=True
    )
    ours = torch.load(found.path, weights_only=True)
    assert len(ours) == len(published) == 10
    for k, layer in product(range(10), range(32)):
        assert torch.equal(ours[k][layer], published[k][layer].sort().values), (k, layer)
    assert found.description.threshold == 0.5644363164901733
    assert found.description.appear == APPEAR
    assert found.description.classes == {"specific": 1866, "related": 1353, "general": 7797, "unassigned": 1369}
    sizes = [142, 556, 523, 821, 941, 412, 676, 948, 622, 666]
    assert found.description.neurons == dict(zip(DEFAULT_LANGUAGES, sizes, strict=True))


def test_the_number_of_languages_above_the_threshold_is_the_published_histogram(statistics: NeuronStatistics) -> None:
    expected = [397496, 23235, 9802, 5617, 3693, 2680, 2126, 1982, 2002, 2322, 7797]
    assert torch.bincount(statistics.languages_above.flatten()).tolist() == expected
    per_layer = statistics.general.sum(dim=1).tolist()
    assert (per_layer[0], per_layer[14], per_layer[31]) == (181, 555, 745)


@pytest.mark.parametrize(("top_rate", "lam"), [(0.01, 0.109375), (0.05, 0.03671875)])
def test_bisection_finds_the_published_lambda(layout: Layout, top_rate: float, lam: float) -> None:
    found = autosweep(layout, DEFAULT_LANGUAGES, top_rate=top_rate)
    assert found.lam == lam
    assert float(found.shown) == lam
    if top_rate == 0.01:
        assert found.appear == APPEAR


def test_quick_autosweep_gives_the_same_lambda(mistral_reference: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lam = quick_autosweep(
        model_name="Mistral",
        model_path="/ABS/PATH/TO/de76d14562b1da1ba0e52d5b245cf9c0859e2af3",
        dataset="mgsm",
        toprate=0.01,
        lo=0.0,
        hi=0.2,
        eps=1e-3,
        root=mistral_reference,
    )
    assert lam == 0.109375
    assert capsys.readouterr().out == ""


def universal_selected(statistics: NeuronStatistics, top_rate: float, lam: float) -> int:
    chosen = select(statistics, top_rate=top_rate, lam=lam)
    return int(appear(statistics.languages_above, chosen, languages=statistics.member.shape[-1])[-1])


@pytest.mark.parametrize("languages", [DEFAULT_LANGUAGES, ("en", "es", "fr"), ("bn", "th", "sw", "zh", "ja")])
@pytest.mark.parametrize(("bar", "top_rate"), [(0.95, 0.01), (0.95, 0.05), (0.9, 0.01), (0.99, 0.02)])
def test_the_exact_lambda_is_where_the_histogram_turns(
    layout: Layout, languages: tuple[str, ...], bar: float, top_rate: float
) -> None:
    found_in = load_answer_counts(layout, languages).statistics(bar=bar)
    try:
        found = autosweep(layout, languages, top_rate=top_rate, bar=bar, search=SweepRange(hi=3.0, exact=True))
    except SweepError:
        tried = [universal_selected(found_in, top_rate, lam) for lam in torch.linspace(0, 3, 61).tolist()]
        assert min(tried) > 0
        return
    assert universal_selected(found_in, top_rate, found.lam) == 0
    assert universal_selected(found_in, top_rate, max(found.lam - 1e-9, 0)) == 0
    if found.lam < 3.0:
        assert universal_selected(found_in, top_rate, found.lam + 1e-9) > 0


def test_lape_is_its_definition_in_numpy_neuron_for_neuron(writable: Layout) -> None:
    counts = load_answer_counts(writable, DEFAULT_LANGUAGES)
    expected = lape_by_numpy(
        activation_probability(counts.counts, tokens=counts.tokens).numpy(), top_rate=0.01, bar=0.95
    )
    found = identify(writable, DEFAULT_LANGUAGES, Selection(0.01, None, 0.95, "lape"))
    assert found.path.parent.name == "lape-0.01"
    assert int(expected.any(axis=2).sum()) == round(0.01 * 32 * 14336), "no language neuron is missing"
    stored = torch.load(found.path, weights_only=True)
    for k, layer in product(range(10), range(32)):
        assert stored[k][layer].tolist() == expected[layer, :, k].nonzero()[0].tolist(), (k, layer)
