"""Tokens become whole characters, whatever a byte-level tokenizer cuts through."""

from __future__ import annotations

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from language_neurons_alignment.corpus.pieces import UNFINISHED, pieces_of, script_of, token_text

TEXTS = (
    "ราคาน้ำ ๓ บาท",
    "বাড়িটির দুটি দরজা",
    "שלום עולם، مرحبا",
    "房子有两扇门。👩‍👩‍👧 é\n\n  x",
    "<script>alert(1)</script>",
)


@pytest.fixture(scope="module")
def bytewise() -> PreTrainedTokenizerFast:
    """Every byte is a token."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE({letter: n for n, letter in enumerate(alphabet)}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=backend)


@pytest.mark.parametrize("text", TEXTS)
def test_pieces_are_whole_characters_and_together_the_text(bytewise: PreTrainedTokenizerFast, text: str) -> None:
    tokens = bytewise.encode(text, add_special_tokens=False)
    assert len(tokens) == len(text.encode())
    found = pieces_of(tokens, bytewise)
    assert "".join(found.texts) == text
    assert found.texts == tuple(text), "one piece for each code point"
    assert found.of_token == tuple(n for n, letter in enumerate(text) for _ in letter.encode())


def test_a_sequence_that_ends_inside_a_character_says_so(bytewise: PreTrainedTokenizerFast) -> None:
    tokens = bytewise.encode("aก", add_special_tokens=False)[:-1]
    found = pieces_of(tokens, bytewise)
    assert found.of_token == (0, 1, 1)
    assert found.texts[0] == "a"
    assert UNFINISHED in found.texts[1]


def test_a_part_of_a_character_is_named_by_its_bytes(bytewise: PreTrainedTokenizerFast) -> None:
    first = bytewise.encode("ก", add_special_tokens=False)[0]
    assert token_text(first, bytewise) == "⟨e0⟩"
    assert script_of("⟨e0 b8⟩") == "none", "its letters are no text"
    assert token_text(bytewise.encode(" ", add_special_tokens=False)[0], bytewise) == " "
