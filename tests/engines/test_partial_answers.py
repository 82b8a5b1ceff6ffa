"""When an answer ends and what its text is, token by token, for tokenizers of every kind."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from language_neurons_alignment.config import Sampling
from language_neurons_alignment.core.model import ModelInfo
from language_neurons_alignment.corpus.encode import GeneratedAnswer, Prompt
from language_neurons_alignment.engines.checkpoint import end_tokens
from language_neurons_alignment.engines.generation import PartialAnswer, check_prompts
from language_neurons_alignment.errors import EngineError
from tests.tiny_models import tiny_tokenizer, wrap_tokenizer

EOS = 2
MODEL = ModelInfo("m", "LlamaForCausalLM", 1, 1, 100, "float32", (EOS,))
BYTES = tiny_tokenizer()


def sentencepiece() -> PreTrainedTokenizerFast:
    """Words with a mark for the space in front of them, which decoding drops from the first one."""
    words = ["<pad>", "<s>", "</s>", "<unk>", "▁the", "▁house", "▁Q:", "s", "▁"]
    backend = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.decoder = decoders.Metaspace()
    return wrap_tokenizer(backend)


def write(tokens: Sequence[int], prompt: str = "Say:", *, tokenizer=BYTES, model=MODEL, **choices) -> GeneratedAnswer:
    """The answer that comes of these tokens, fed until it has ended."""
    sampling = Sampling(**{"max_new_tokens": 50, **choices})
    partial = PartialAnswer(
        Prompt(tuple(tokenizer.encode(prompt))), sampling=sampling, model=model, tokenizer=tokenizer
    )
    for count, token in enumerate(tokens, start=1):
        if partial.add(token):
            assert partial.add(77), "what comes after the end is not taken"
            assert count == len(tokens), "it ended too early"
    return partial.answer()


def spelt(text: str) -> list[int]:
    return BYTES.encode(text)[1:]


def test_the_model_ends_its_answer_and_the_end_token_is_no_part_of_it() -> None:
    answer = write([*spelt(" five."), EOS])
    assert answer == GeneratedAnswer(" five.", tuple(spelt(" five.")), "eos")


def test_an_answer_that_is_long_enough_ends() -> None:
    assert write(spelt("abcdef"), max_new_tokens=len(spelt("abcdef"))).finish == "length"


def test_an_answer_ends_where_the_model_s_length_does() -> None:
    prompt = "x" * 96  # 97 tokens, of 100
    assert write(spelt("xyz"), prompt) == GeneratedAnswer("xyz", tuple(spelt("xyz")), "length")


@pytest.mark.parametrize("stop", ["\n\n", "。", "nd", "end of it", "you 你"])
def test_text_is_cut_in_front_of_a_stop_string_however_it_is_spelt(stop: str) -> None:
    text = f"Before the {stop}"
    answer = write(spelt(text), stop=("never", stop))
    assert answer == GeneratedAnswer("Before the ", tuple(spelt(text)), "stop")


def test_a_stop_string_in_the_middle_of_a_token_ends_the_answer_there() -> None:
    tokens = [*spelt("to "), *spelt("the")]
    assert len(spelt("the")) == 1
    assert write(tokens, stop=("h",)) == GeneratedAnswer("to t", tuple(tokens), "stop")


def test_the_first_of_several_stop_strings_counts() -> None:
    assert write(spelt("a b the"), stop=("the", "b the", "e")).text == "a "


def test_a_stop_string_far_behind_in_the_prompt_or_across_the_border_is_none() -> None:
    assert write([*spelt("\nb"), EOS], "stop here\n", stop=("\n\n", "stop", "here")).finish == "eos"


def test_a_stop_string_wins_over_the_length_that_it_reaches() -> None:
    assert write(spelt("ax"), max_new_tokens=2, stop=("x",)).finish == "stop"


def test_half_a_character_at_the_end_is_left_out_and_its_tokens_are_told() -> None:
    whole = spelt("你好")
    answer = write(whole[:-1], max_new_tokens=len(whole) - 1)
    assert answer == GeneratedAnswer("你", tuple(whole[:-1]), "length")


def test_the_space_in_front_of_the_first_word_is_kept() -> None:
    tokenizer = sentencepiece()
    assert tokenizer.decode([4]) == "the", "decoded alone it loses the space"
    answer = write([4, 5, EOS], "the house", tokenizer=tokenizer)
    assert answer.text == " the house"
    assert tokenizer.encode("the house" + answer.text) == [*tokenizer.encode("the house"), 4, 5]


@pytest.mark.parametrize("before", [0, 1, 20])
def test_a_stop_string_that_begins_with_a_space_is_seen_wherever_it_comes(before: int) -> None:
    answer = write([4] * before + [6], "the", tokenizer=sentencepiece(), stop=(" Q:",))
    assert (answer.finish, answer.text) == ("stop", " the" * before)


def test_special_tokens_are_no_text() -> None:
    assert write([*spelt("a"), 3, *spelt("b"), EOS]).text == "ab"


def test_an_answer_that_was_cut_off_is_an_error_and_no_answer() -> None:
    with pytest.raises(EngineError, match="cut off after 1 of up to 50"):
        write(spelt("a"))


def test_prompts_without_tokens_or_room_are_refused_by_number_and_length() -> None:
    check_prompts([Prompt((1,) * 99)], longest=100)
    with pytest.raises(EngineError, match="no tokens"):
        check_prompts([Prompt((1,)), Prompt(())], longest=100)
    with pytest.raises(EngineError, match=r"2 prompts .* up to 101 tokens, where the model allows 100"):
        check_prompts([Prompt((1,) * 100), Prompt((1,) * 101), Prompt((1,))], longest=100)


class Named:
    def __init__(self, eos_token_id: object) -> None:
        self.eos_token_id = eos_token_id


def test_every_end_token_that_is_named_anywhere_counts() -> None:
    assert end_tokens(Named(2), Named([128, 2, 9]), Named(7)) == (2, 7, 9, 128)
    assert end_tokens(Named(None), None, Named(7)) == (7,)
    assert end_tokens(Named(None), None, Named(None)) == ()
    assert end_tokens(SimpleNamespace(eos_token_id=151645, vocab_size=320), None, Named(319)) == (319,)


def test_a_follower_sees_whole_characters_and_can_end_the_answer() -> None:
    seen: list[str] = []
    tokens = BYTES.encode("é\N{EURO SIGN}", add_special_tokens=False)

    def follow(text: str) -> bool:
        seen.append(text)
        return "\N{EURO SIGN}" not in text

    (partial,) = PartialAnswer.each(
        [Prompt(tuple(BYTES.encode("Say:")))],
        lambda position, text: position == 0 and follow(text),
        sampling=Sampling(),
        model=MODEL,
        tokenizer=BYTES,
    )
    ended = [partial.add(token) for token in (*tokens, *tokens)]
    assert ended == [False] * (len(tokens) - 1) + [True] * (1 + len(tokens))
    assert (partial.answer().text, partial.answer().finish) == ("é\N{EURO SIGN}", "cancelled")
    assert len(seen) == len(tokens)
    assert set(seen) == {"é", "é\N{EURO SIGN}"}, "no half of a character"
