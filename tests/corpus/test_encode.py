"""Records → token sequences, by their definitions."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from language_neurons_alignment.corpus.encode import (
    Prompt,
    PromptGroup,
    ScoredText,
    common_length,
    encode_groups,
    encode_prompts,
    encode_texts,
)
from language_neurons_alignment.corpus.records import Record
from language_neurons_alignment.errors import CorpusError, SettingsError

BOS = 0


class LetterTokenizer:
    """A BOS, then one token a character; "ab" is one token, so that it merges across a border."""

    def encode(self, text: str) -> list[int]:
        return [BOS, *map(ord, text.replace("ab", "\u0100"))]


class SpyTokenizer(LetterTokenizer):
    """Remembers what it was given."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def encode(self, text: str) -> list[int]:
        self.seen.append(text)
        return super().encode(text)


def record(instruction: str, *answers: str) -> Record:
    return Record("en", instruction, answers)


def tokens(text: str) -> tuple[int, ...]:
    return tuple(LetterTokenizer().encode(text))


def test_full_is_the_plain_concatenation_and_the_prefix_the_instruction_alone() -> None:
    spy = SpyTokenizer()
    encoded = encode_groups([record("Ask? ", " Yes", "No "), record("Again", "")], spy, max_length=99)
    assert set(spy.seen) - {"", "a", "1"} == {"Ask? ", "Ask?  Yes", "Ask? No ", "Again"}
    assert encoded.groups == (
        PromptGroup(tokens("Ask? "), (tokens("Ask?  Yes"), tokens("Ask? No "))),
        PromptGroup(tokens("Again"), (tokens("Again"),)),
    )


def test_the_prefix_counts_once_for_every_answer() -> None:
    encoded = encode_groups([record("Ask", "1", "22", "333")], LetterTokenizer(), max_length=99)
    assert (encoded.sequences, encoded.full_tokens, encoded.prefix_tokens) == (3, 3 * 4 + 1 + 2 + 3, 3 * 4)


texts = st.text("ab c", max_size=6)


@settings(deadline=None)
@given(st.lists(st.tuples(texts.filter(bool), st.lists(texts, max_size=3)), max_size=5))
def test_totals_are_those_of_the_definition_and_records_without_answers_add_nothing(
    drawn: list[tuple[str, list[str]]],
) -> None:
    records = [record(ask, *answers) for ask, answers in drawn]
    full = sum(len(tokens(ask + answer)) for ask, answers in drawn for answer in answers)
    prefix = sum(len(tokens(ask)) for ask, answers in drawn for _ in answers)
    boundary = sum(tokens(ask + a)[: len(tokens(ask))] != tokens(ask) for ask, answers in drawn for a in answers)
    if not any(answers for _, answers in drawn):
        with pytest.raises(CorpusError, match="has an answer"):
            encode_groups(records, LetterTokenizer(), max_length=99)
        return
    encoded = encode_groups(records, LetterTokenizer(), max_length=99)
    assert (encoded.full_tokens, encoded.prefix_tokens, encoded.boundary_cases) == (full, prefix, boundary)
    without = [one for one in records if one.answers]
    assert encode_groups(without, LetterTokenizer(), max_length=99).groups == encoded.groups


def test_a_merge_across_the_border_is_a_boundary_case_of_that_answer_alone() -> None:
    encoded = encode_groups([record("xa", "b", "c", "bb")], LetterTokenizer(), max_length=99)
    assert encoded.boundary_cases == 2
    assert encoded.groups[0].borders == (2, 3, 2)


LONG = [record("Ask", "1", "22", "4444"), record("Longer ask", "!")]


def test_overlong_sequences_are_an_error_with_how_many_and_how_long() -> None:
    with pytest.raises(
        CorpusError, match=r"2 of 4 sequences .* longest has 12 tokens, the limit is 7; .*truncate.*skip"
    ):
        encode_groups(LONG, LetterTokenizer(), max_length=7)


def test_overlong_sequences_are_truncated_by_choice_and_counted() -> None:
    encoded = encode_groups(LONG, LetterTokenizer(), max_length=7, overlong="truncate")
    assert encoded.overlong == 2
    assert encoded.groups == (
        PromptGroup(tokens("Ask"), (tokens("Ask1"), tokens("Ask22"), tokens("Ask444"))),
        PromptGroup(tokens("Longer"), (tokens("Longer"),)),
    )


def test_overlong_sequences_are_skipped_by_choice_and_counted() -> None:
    encoded = encode_groups(LONG, LetterTokenizer(), max_length=7, overlong="skip")
    assert encoded.overlong == 2
    assert encoded.groups == (PromptGroup(tokens("Ask"), (tokens("Ask1"), tokens("Ask22"))),)


@pytest.mark.parametrize("overlong", ["error", "truncate", "skip"])
def test_sequences_of_exactly_the_limit_are_not_overlong(overlong: str) -> None:
    encoded = encode_groups(LONG, LetterTokenizer(), max_length=12, overlong=overlong)
    assert encoded == encode_groups(LONG, LetterTokenizer(), max_length=10**9)


def test_a_prefix_longer_than_its_merged_text_is_overlong_too() -> None:
    records = [record("xa", "b"), record("x", "y")]  # prefix of 3 tokens, full text of 3; "xya" + "b" is 4 and 4
    records += [record("xya", "b")]
    encoded = encode_groups(records, LetterTokenizer(), max_length=3, overlong="skip")
    assert [len(group.prefix) for group in encoded.groups] == [3, 2]
    assert all(len(group.prefix) <= 3 for group in encoded.groups)


def test_skipping_everything_is_an_error_and_no_empty_result() -> None:
    with pytest.raises(CorpusError, match=r"all 4 sequences .*truncate"):
        encode_groups(LONG, LetterTokenizer(), max_length=2, overlong="skip")
    with pytest.raises(CorpusError, match="all 2 sequences"):
        encode_texts(LONG, LetterTokenizer(), text="instruction", max_length=2, overlong="skip")


@pytest.mark.parametrize("choice", [{"overlong": "drop"}, {"text": "question"}])
def test_a_choice_that_there_is_not_is_refused(choice: dict[str, str]) -> None:
    with pytest.raises(SettingsError, match="must be one of"):
        encode_texts(LONG, LetterTokenizer(), **{"text": "full", "max_length": 99, **choice})  # type: ignore[arg-type]


def test_instructions_are_scored_alone_also_of_records_without_answers() -> None:
    scored = encode_texts([record("Ask", "1"), record("Bid")], LetterTokenizer(), text="instruction", max_length=99)
    assert scored == [ScoredText(tokens("Ask")), ScoredText(tokens("Bid"))]
    assert [one.scored_tokens for one in scored] == [3, 3]


def test_the_first_token_is_never_scored() -> None:
    for start in (0, 1):
        assert ScoredText(tokens("Ask"), start=start).scored_tokens == 3
    assert ScoredText((BOS,)).scored_tokens == 0


def test_an_answer_is_scored_from_the_border_on_in_its_context() -> None:
    scored = encode_texts([record("Ask", "1", "22")], LetterTokenizer(), text="answer", max_length=99)
    assert scored == [ScoredText(tokens("Ask1"), start=4), ScoredText(tokens("Ask22"), start=4)]
    assert [one.scored_tokens for one in scored] == [1, 2]


def test_an_answer_that_merges_with_its_instruction_is_scored_from_the_merged_token_on() -> None:
    (scored,) = encode_texts([record("xa", "bc")], LetterTokenizer(), text="answer", max_length=99)
    assert scored == ScoredText(tokens("xabc"), start=2)
    assert scored.scored_tokens == 2


def test_full_texts_are_scored_whole() -> None:
    scored = encode_texts([record("Ask", "1", "22")], LetterTokenizer(), text="full", max_length=99)
    assert [one.scored_tokens for one in scored] == [4, 5]


@pytest.mark.parametrize("text", ["instruction", "answer", "full"])
def test_overlong_texts_are_refused_truncated_or_skipped(text: str) -> None:
    with pytest.raises(CorpusError, match="longer than the model allows"):
        encode_texts(LONG, LetterTokenizer(), text=text, max_length=7)
    for overlong in ("truncate", "skip"):
        scored = encode_texts(LONG, LetterTokenizer(), text=text, max_length=7, overlong=overlong)
        assert max(len(one.tokens) for one in scored) <= 7
    assert len(encode_texts(LONG, LetterTokenizer(), text=text, max_length=7, overlong="truncate")) == (
        2 if text == "instruction" else 4
    )


@given(st.lists(st.integers(0, 2)), st.lists(st.integers(0, 2)))
def test_the_common_length_is_that_of_the_longest_common_beginning(one: list[int], other: list[int]) -> None:
    shared = common_length(one, other)
    assert one[:shared] == other[:shared]
    assert one[: shared + 1] != other[: shared + 1] or shared == len(one) == len(other)


class Framed(LetterTokenizer):
    """Letters between the special tokens of a tokenizer that says nothing of them."""

    bos_token_id: int | None = None

    def __init__(self, front: str, behind: str) -> None:
        self.front, self.behind = ([ord(one) for one in some] for some in (front, behind))

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        own = [ord(letter) for letter in text]
        return [*self.front, *own, *self.behind] if add_special_tokens else own

    def decode(self, token_ids: list[int], **_: Any) -> str:
        return "".join(map(chr, token_ids))


def ids(text: str) -> tuple[int, ...]:
    return tuple(map(ord, text))


FRAMES = [("", ""), ("^", ""), ("", "$"), ("^", "$"), ("^", "^"), ("^!", "$$%"), ("$", "$")]


@pytest.mark.filterwarnings("ignore::language_neurons_alignment.errors.LNAWarning")
@pytest.mark.parametrize(("front", "behind"), FRAMES)
@pytest.mark.parametrize("instruction", ["Ask? ", "a", "1", "ends in $", "x$", "in it: ^", "   "])
def test_what_a_tokenizer_appends_is_in_no_prompt_and_in_no_text_and_what_a_text_says_stays(
    front: str, behind: str, instruction: str
) -> None:
    tokenizer, asked = Framed(front, behind), record(instruction, "Yes", "No$")
    group = encode_groups([asked], tokenizer, max_length=99).groups[0]
    assert group.prefix == ids(front + instruction)
    assert group.full == (ids(front + instruction + "Yes"), ids(front + instruction + "No$"))
    assert encode_prompts([asked], [(0, 1)], tokenizer, ends=()) == [Prompt(group.prefix, 1)]
    [scored] = encode_texts([asked], tokenizer, text="instruction", max_length=99)
    assert scored.tokens == group.prefix
    answers = encode_texts([asked], tokenizer, text="answer", max_length=99)
    assert [one.scored_tokens for one in answers] == [3, 3]


@pytest.mark.parametrize(("front", "behind"), FRAMES)
def test_what_is_left_out_is_said_and_nothing_where_nothing_is(front: str, behind: str) -> None:
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        encode_prompts([record("Ask")], [(0, 0)], Framed(front, behind), ends=())
    assert [str(one.message) for one in said] == [
        f"the tokenizer appends {behind!r} (tokens {list(map(ord, behind))}) to every text: it is left out of prompts, "
        "and of counted and scored texts, because a model does not go on after its end"
    ] * bool(behind)


@pytest.mark.parametrize("between", ["", " ", "\n\t"])
def test_a_text_with_the_bos_that_the_tokenizer_adds_is_refused(between: str) -> None:
    twice = Record("te", f"{between}^ask", ("x",), id="q7")
    with pytest.raises(CorpusError) as refused:
        encode_groups([record("fine", "x"), twice], Framed("^", ""), max_length=99)
    assert str(refused.value) == (
        f"the instruction of the record id q7 in 'te' begins with '^', which the tokenizer puts in front by itself: "
        f"positions 0 and {1 + len(between)} are both token 94; take it out of the text, or give the record "
        '"add_special_tokens": false'
    )
    whole = replace(twice, add_special_tokens=False)
    assert encode_groups([whole], Framed("^", ""), max_length=99).groups[0].prefix == ids(f"{between}^ask")


@pytest.mark.parametrize(("front", "special"), [("", True), ("", False), ("^", False)])
def test_a_text_that_brings_bos_twice_is_refused_also_where_the_tokenizer_adds_none(front: str, special: bool) -> None:
    tokenizer = Framed(front, "")
    tokenizer.bos_token_id = ord("^")
    for text in ("^ask", " ^^ask", "^ask^^"):
        once = replace(record(text, "x"), add_special_tokens=special)
        assert encode_groups([once], tokenizer, max_length=99).groups[0].prefix == ids(text)
    for text, again in (("^^ask", 1), ("^ \n^", 3)):
        with pytest.raises(CorpusError) as refused:
            encode_groups([replace(record(text, "x"), add_special_tokens=special)], tokenizer, max_length=99)
        assert str(refused.value).endswith(
            f"in 'en' begins with '^' twice: positions 0 and {again} are both token 94; take one out of the text"
        )


def test_a_prompt_that_ends_where_an_answer_would_end_is_refused_by_its_name() -> None:
    with pytest.raises(CorpusError) as refused:
        encode_prompts([record("a"), record("Why?$")], [(0, 0), (1, 0)], Framed("^", ""), ends=(36,))
    assert str(refused.value) == (
        "the prompt of the record 'Why?$' in 'en' ends with '$' (position 5, token 36), which ends an answer, so the "
        "model would begin another text: end the instruction where the answer is to begin"
    )
