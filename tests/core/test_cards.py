"""Cards as plain values, and the statistics that stand on them."""

from __future__ import annotations

import json

import pytest
import torch
from scipy import stats

from language_neurons_alignment.core.cards import (
    Context,
    Effect,
    LanguageCard,
    NeuronCard,
    TokenLogit,
    ablation_effects,
    parse_place,
    rank_correlation,
)
from language_neurons_alignment.errors import SettingsError

CARD = NeuronCard(
    3,
    7,
    "specific",
    ("fr",),
    {"fr": LanguageCard(0.5, 8, (Context(2, 1, 9, " eau", 1.5, ("de", " eau"), (0.1, 1.5), 1),), (4, 4))},
    (TokenLogit(" eau", 2.0, "fr", "latin"),),
    (TokenLogit("<b>", -1.0),),
    positive=0.2,
)


def test_the_json_of_a_card_is_what_the_documentation_says() -> None:
    context = {"record": 2, "answer": 1, "position": 9, "token": " eau", "activation": 1.5}
    assert json.loads(json.dumps(CARD.as_json())) == {
        "layer": 3,
        "index": 7,
        "class": "specific",
        "languages": {"fr": {"probability": 0.5, "contexts": [context]}},
        "promotes": [{"token": " eau", "logit": 2.0}],
        "suppresses": [{"token": "<b>", "logit": -1.0}],
    }


def test_a_neuron_whose_factor_is_mostly_negative_writes_what_its_column_suppresses() -> None:
    assert CARD.writes == CARD.suppresses
    assert "writes '<b>'" in repr(CARD)
    html = CARD._repr_html_()
    assert "&lt;b&gt;" in html
    assert "<b>" not in html
    assert json.dumps(CARD.as_row())


def test_effects_are_changes_of_the_perplexity_per_token() -> None:
    generator = torch.Generator().manual_seed(1)
    change = torch.randn(700, 12, generator=generator).double()
    tokens = torch.randint(5, 40, (12,), generator=generator).double()
    value, ends = ablation_effects(change, tokens)
    expected = 100 * ((change.sum(1) / tokens.sum()).exp() - 1)
    torch.testing.assert_close(value, expected)
    alone, its_ends = ablation_effects(change[600:601], tokens)
    assert float(value[600]) == pytest.approx(float(alone))
    assert float(ends.low[600]) == pytest.approx(float(its_ends.low)), "blocks do not matter"
    assert bool(((ends.low < value) & (value < ends.high)).all())
    assert Effect(1.0, 0.5, 1.5, 0.0, 2.0).inside is True
    assert Effect(1.0, 0.5, 1.5).inside is None


def test_the_rank_correlation_is_spearmans() -> None:
    generator = torch.Generator().manual_seed(0)
    one = torch.randn(60, generator=generator).round(decimals=1)
    other = one + torch.randn(60, generator=generator)
    found = rank_correlation(one.tolist(), other.tolist())
    assert found.rho == pytest.approx(stats.spearmanr(one, other).statistic)
    assert found.low < found.rho < found.high
    assert found.neurons == 60


@pytest.mark.parametrize("wrong", ["12", "12.", ".5", "a.b", "1.2.3", "-1.2", "１.2"])
def test_a_place_that_is_none_is_refused_in_one_line(wrong: str) -> None:
    with pytest.raises(SettingsError, match=r"give for example 12\.345"):
        parse_place(wrong)
