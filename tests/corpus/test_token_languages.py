"""Which language is a token of, and how often is that right on text that was held out?"""

from __future__ import annotations

import numpy as np
import pytest

from language_neurons_alignment.corpus import token_languages as module
from language_neurons_alignment.corpus.language_id import Verdict
from language_neurons_alignment.corpus.token_languages import (
    OUTCOMES,
    TokenLanguages,
    languages_of_tokens,
    token_languages,
)

WORDS = ["", "7", "…", "Haus", "house", "both", "Wetter", "weather", "答案", "\ufffd", "nobody"]


class Words:
    def decode(self, tokens: list[int], **_: object) -> str:
        return WORDS[tokens[0]]


def of(texts: dict[str, list[list[tuple[int, ...]]]]) -> TokenLanguages:
    return token_languages(texts, Words(), vocabulary=len(WORDS))  # type: ignore[arg-type]


@pytest.fixture
def guessed(monkeypatch: pytest.MonkeyPatch) -> dict[str, Verdict]:
    """What stands in for lingua, which tests of `language_id` look at."""
    verdicts: dict[str, Verdict] = {}
    monkeypatch.setattr(
        module, "identify_languages", lambda texts, _, *, shortest: [verdicts.get(one) for one in texts]
    )
    return verdicts


def test_the_corpus_decides_then_lingua_and_what_is_left_is_ambiguous(guessed: dict[str, Verdict]) -> None:
    guessed["Wetter"], guessed["weather"] = Verdict("de", 0.9), Verdict("en", 0.5)
    guessed["house"], guessed["nobody"] = Verdict("de", 1.0), Verdict("fr", 1.0)
    found = of({"de": [[(3, 3, 3, 5, 1, 2, 9, 9, 9)]] * 5, "en": [[(4, 4, 4, 5, 1, 2)]] * 5})
    named = dict(zip(WORDS, found.group.tolist(), strict=True))
    assert named == {
        "": 3, "7": 3, "…": 3, "Haus": 0, "house": 1, "both": 2, "Wetter": 0, "weather": 2, "答案": 2, "\ufffd": 0,
        "nobody": 2,
    }  # fmt: skip
    assert [WORDS[token] for token in found.by_lingua.nonzero()[0]] == ["Wetter"]


def test_lingua_is_not_believed_against_the_corpus(guessed: dict[str, Verdict]) -> None:
    guessed["Wetter"] = Verdict("de", 1.0)
    found = of({"de": [[(3,) * 9]] * 2, "en": [[(4,) * 8], [(4,) * 8 + (6,)]]})
    assert found.group[6] == 1 or not found.by_lingua[6]


def test_the_accuracy_is_that_of_tokens_in_records_that_were_held_out(guessed: dict[str, Verdict]) -> None:
    """Token 5 stands in one German record often: it is right only where another record has told of it."""
    guessed["Wetter"], guessed["weather"] = Verdict("de", 0.9), Verdict("de", 0.9)
    german = [[(3,) * 8], [(3,) * 8 + (5,) * 9], [(3,) * 8 + (6,)]]
    english = [[(4,) * 9], [(4,) * 9], [(4,) * 8 + (7,)]]
    found = of({"de": german, "en": english})
    rows = [dict(zip(OUTCOMES, row, strict=True)) for row in found.held_out.tolist()]
    assert rows[0] == {"right": 24, "wrong": 0, "right_by_lingua": 1, "wrong_by_lingua": 0, "ambiguous": 9}
    assert rows[1] == {"right": 26, "wrong": 0, "right_by_lingua": 0, "wrong_by_lingua": 1, "ambiguous": 0}
    assert found.accuracy == pytest.approx(51 / 52)
    assert found.coverage == pytest.approx(52 / 61)
    alone = of({"de": german[:1], "en": english})
    assert not alone.held_out.any()
    assert np.isnan([alone.accuracy, *alone.columns()["accuracy"]]).all()


def test_chinese_characters_alone_are_neither_chinese_nor_japanese_where_both_are_read(
    guessed: dict[str, Verdict],
) -> None:
    """And a language that is written in two ways is told by the corpus alone."""
    guessed["答案"] = Verdict("zh", 1.0)
    texts = {code: [[(1,)]] for code in ("zh", "ja")}
    assert of(texts).group[8] == 2
    assert of({"zh": [[(1,)]], "en": [[(1,)]]}).group[8] == 0
    assert of({"zh": [[(1,)]], "zh-Hant": [[(1,)]]}).group[8] == 2


@pytest.mark.parametrize("german", [1, 40])
def test_a_token_that_is_in_no_text_is_not_of_the_language_with_the_fewest_tokens(
    guessed: dict[str, Verdict], german: int
) -> None:
    """Its quarter of a token is a large rate there; nor is everything English where only English is read."""
    guessed["weather"] = Verdict("en", 0.9)
    found = of({"de": [[(3,)] * german] * 2, "en": [[(4,) * 10]] * 2})
    assert [found.group[WORDS.index(one)] for one in ("Wetter", "weather")] == [2, 1]
    assert of({"en": [[(4,)]] * 2}).group[WORDS.index("Wetter")] == 1, "ambiguous"


def test_single_tokens_are_told_as_the_whole_vocabulary_is(guessed: dict[str, Verdict]) -> None:
    guessed["Wetter"], guessed["weather"] = Verdict("de", 0.9), Verdict("en", 0.9)
    german, english = [(3, 3, 3, 5, 1, 2, 9)] * 5, [(4, 4, 4, 5, 1, 2, 7)] * 5
    whole = of({"de": [german], "en": [english]}).group.tolist()
    asked = [7, 0, 6, 9, 1, 3, 5, 10]
    found = languages_of_tokens(asked, {"de": german, "en": english}, Words())  # type: ignore[arg-type]
    assert found == [("de", "en", None, None)[whole[token]] for token in asked]
    assert found == ["en", None, "de", "de", None, "de", None, None]
    assert languages_of_tokens([], {"de": german}, Words()) == []  # type: ignore[arg-type]
