"""The analysis on real counts of Mistral-7B over MGSM: every number that the design's PAPER page and issue 5 name."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
import torch

from language_neurons_alignment._import_mask import import_mask
from language_neurons_alignment.analysis import Analysis, analysis_of, open_neurons
from language_neurons_alignment.config import Selection
from language_neurons_alignment.core.selection import appear, select
from language_neurons_alignment.languages import DEFAULT_LANGUAGES
from language_neurons_alignment.store.layout import Layout
from tests.core.test_segmentation import cost_of

MODEL = "Mistral-de76d14562b1da1ba0e52d5b245cf9c0859e2af3"
GENERAL = [
    181, 106, 103, 114, 192, 194, 253, 253, 270, 307, 334, 431, 417, 443, 555, 445,
    348, 423, 316, 261, 151, 92, 66, 48, 50, 51, 54, 66, 108, 136, 284, 745,
]  # fmt: skip
ABOVE = [397496, 23235, 9802, 5617, 3693, 2680, 2126, 1982, 2002, 2322, 7797]
SIZES = [142, 556, 523, 821, 941, 412, 676, 948, 622, 666]

pytestmark = pytest.mark.reference


@pytest.fixture(scope="module")
def found(mistral_reference: Path) -> Analysis:
    return analysis_of(open_neurons(Layout(mistral_reference, "mgsm", MODEL), Selection(0.01, 0.109375, 0.95)))


def test_the_classes_have_their_published_sizes(found: Analysis) -> None:
    assert found.classes.totals() == {"specific": 1866, "related": 1353, "general": 7797, "unassigned": 1369}
    assert found.classes.of("general").tolist() == GENERAL
    assert found.languages.per_language.sum(dim=1).tolist() == SIZES
    assert found.overlap.counts.diagonal().tolist() == SIZES


def test_neurons_by_the_number_of_their_languages_are_the_published_row(found: Analysis) -> None:
    assert found.above is not None
    assert found.above.all.sum(dim=0).tolist() == ABOVE
    assert found.above.all[:, -1].tolist() == GENERAL
    assert found.above.selected.sum(dim=0).tolist() == [1369, 1866, 617, 310, 153, 127, 59, 40, 27, 20, 0]
    assert found.sharing.histogram.tolist() == [0, 1866, 617, 310, 153, 127, 59, 40, 27, 20, 0]


def test_layer_tables_add_up(found: Analysis) -> None:
    specific, related = found.languages.counts.unbind(dim=-1)
    assert torch.equal(specific.sum(dim=1), found.classes.of("specific"))
    assert found.above is not None
    assert torch.equal(found.above.selected[:, 1], found.classes.of("specific"))
    assert torch.equal(found.above.selected[:, 2:].sum(dim=1), found.classes.of("related"))
    served = (found.above.selected * torch.arange(11)).sum(dim=1)
    assert torch.equal((specific + related).sum(dim=1), served)
    assert torch.equal(found.above.all.sum(dim=1), torch.full((32,), 14336))


def test_specific_neurons_vanish_in_the_middle_and_peak_late_and_general_ones_peak_last(found: Analysis) -> None:
    specific = found.classes.of("specific")
    assert int(specific[7:18].max()) <= 2
    assert int(specific.argmax()) in range(26, 30)
    assert int(found.classes.of("general").argmax()) == 31


def test_the_path_is_a_separate_identification_at_each_of_20_lambdas(found: Analysis) -> None:
    assert found.path is not None
    assert found.neurons.found is not None
    statistics = found.neurons.found.statistics
    lams = torch.linspace(0.0, 0.2, 20, dtype=torch.float64).tolist()
    for lam in [*lams, 0.109375]:
        chosen = select(statistics, top_rate=0.01, lam=lam)
        expected = appear(statistics.languages_above, chosen, languages=10).tolist()
        assert found.path.at(lam) == expected
        assert found.path.appear[found.path.piece(lam)].tolist() == expected
    assert found.path.appear.sum(dim=1).unique().tolist() == [4588]


def test_around_each_of_forty_edges_the_path_changes_as_identification_does(found: Analysis) -> None:
    assert found.path is not None
    assert found.neurons.found is not None
    statistics = found.neurons.found.statistics
    for piece in range(1, len(found.path.appear), len(found.path.appear) // 40):
        middles = [sum(ends) / 2 for ends in pairwise(found.path.edges[piece - 1 : piece + 2].tolist())]
        for lam, expected in zip(middles, found.path.appear[piece - 1 : piece + 1].tolist(), strict=True):
            chosen = select(statistics, top_rate=0.01, lam=lam)
            assert appear(statistics.languages_above, chosen, languages=10).tolist() == expected


def test_no_other_four_stages_are_better(found: Analysis) -> None:
    counts = found.classes.counts[:, :3].double()
    values = (counts - counts.mean(0)) / counts.std(0, correction=0)
    every = [(a, b, c) for a in range(1, 30) for b in range(a + 1, 31) for c in range(b + 1, 32)]
    costs = [cost_of(values, cuts) for cuts in every]
    assert float(found.stages.cost[3]) == pytest.approx(min(costs))
    assert found.stages.cuts[3] == every[costs.index(min(costs))]


def test_the_published_mask_imported_and_analysed_alone_has_the_same_specific_and_related_neurons(
    found: Analysis, mistral_reference: Path, tmp_path: Path
) -> None:
    (tmp_path / "activations").symlink_to(mistral_reference / "activations")
    layout = Layout(tmp_path, "mgsm", MODEL)
    published = mistral_reference / "activation_masks/mgsm/0.01-0.109375" / f"mask.{MODEL}"
    description, _ = import_mask(
        published, layout, DEFAULT_LANGUAGES, model_path="/nowhere/MODEL", top_rate=0.01, lam=0.109375
    )
    assert description.classes == {"specific": 1866, "related": 1353}
    alone = analysis_of(open_neurons(layout, Selection(0.01), mask_only=True))
    assert alone.classes.classes == ("specific", "related")
    assert torch.equal(alone.classes.counts, found.classes.counts[:, :2])
    assert torch.equal(alone.languages.counts, found.languages.counts)
    assert alone.above is None
    assert alone.path is None
