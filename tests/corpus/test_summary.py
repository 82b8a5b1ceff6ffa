"""A corpus in numbers."""

from __future__ import annotations

from language_neurons_alignment.corpus.checks import LanguageSummary, summarize
from language_neurons_alignment.corpus.records import Record
from tests.tiny_models import tiny_tokenizer

RECORDS = [Record("en", "xa", ("bx", "y")), Record("en", "été", ()), Record("en", "zz", ("zzzz",))]
"""The tiny tokenizer puts BOS in front, merges a + b, and cuts everything else but é into bytes."""


def test_without_a_tokenizer_texts_are_counted_instructions_once() -> None:
    assert summarize(RECORDS) == LanguageSummary("en", records=3, answers=3, characters=2 + 2 + 1 + 3 + 2 + 4)
    assert summarize(RECORDS).tokens_per_character is None


def test_with_a_tokenizer_tokens_are_counted_as_the_counting_step_sees_them() -> None:
    one = summarize(RECORDS, tokenizer=tiny_tokenizer(), max_length=5)
    prefixes = (1 + 2) + (1 + 3) + (1 + 2)  # été: é is one token of two bytes
    answers = (4 - 3) + (4 - 3) + 4  # x ab x has 4 with BOS: the merge across the border
    assert (one.tokens, one.merges) == (prefixes + answers, 1)
    assert one.tokens_per_character == (prefixes + answers) / 14
    assert one.overlong == 1  # BOS zz zzzz


def test_a_language_with_no_answers_is_counted_all_the_same() -> None:
    one = summarize([RECORDS[1]], tokenizer=tiny_tokenizer(), max_length=3)
    assert (one.answers, one.tokens, one.overlong, one.merges) == (0, 4, 1, 0)
