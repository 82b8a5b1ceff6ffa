"""Tokens as text that people can read: pieces of whole characters.

A byte-level tokenizer cuts through characters: a Thai letter may be three tokens, none of which is text. Tokens that
hold parts of one character are one piece here:

    tokens   12   87 203 11   9
    pieces   "a"  "ก"         " b"
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from .encode import Tokenizer

UNFINISHED = "\N{REPLACEMENT CHARACTER}"
_LONGEST = 12
"""Tokens that one character can take at most: an emoji of several code points, byte by byte."""
NO_SCRIPT = "none"
"""The script of a token without letters."""
_SCRIPTS = {"cjk": "han", "katakana-hiragana": "katakana", "halfwidth": "katakana", "fullwidth": "latin"}
"""Scripts for which the names of letters begin with another word."""


@dataclass(frozen=True)
class Pieces:
    """A sequence of tokens as text.

    Attributes:
        texts: the pieces; put together they are the decoded text.
        of_token: the piece that each token belongs to.
    """

    texts: tuple[str, ...]
    of_token: tuple[int, ...]


def pieces_of(tokens: Sequence[int], tokenizer: Tokenizer) -> Pieces:
    """Cut the text of tokens where both a token and a character end.

    Each piece is decoded behind the one in front of it, because a tokenizer may drop a space at the beginning of what
    it decodes.

    >>> class Bytes:
    ...     def decode(self, tokens, **_):
    ...         return bytes(tokens).decode(errors="replace")
    >>> pieces_of([97, 0xE0, 0xB8, 0x81, 32], Bytes())
    Pieces(texts=('a', 'ก', ' '), of_token=(0, 1, 1, 1, 2))
    """

    def decode(some: Sequence[int]) -> str:
        return str(tokenizer.decode(list(some), skip_special_tokens=False, clean_up_tokenization_spaces=False))

    texts: list[str] = []
    of_token: list[int] = []
    before: Sequence[int] = ()
    known = ""  # the text of `before`
    start = 0
    for stop in range(1, len(tokens) + 1):
        some = tokens[start:stop]
        whole = decode([*before, *some])
        text = whole[len(known) :] if whole.startswith(known) else decode(some)
        of_token.append(len(texts))
        unfinished = text.endswith(UNFINISHED) and len(some) < _LONGEST
        if unfinished and stop < len(tokens):
            continue
        texts.append(text)
        before, known, start = some, decode(some), stop
    return Pieces(tuple(texts), tuple(of_token))


def token_text(token: int, tokenizer: Any) -> str:
    """One token of the vocabulary as text; the bytes of one that is a part of a character: "⟨e0 b8⟩".

    >>> class Bytes:
    ...     def decode(self, tokens, **_):
    ...         return bytes(tokens).decode(errors="replace")
    ...     def convert_ids_to_tokens(self, token):
    ...         return f"<0x{token:02X}>"
    >>> token_text(97, Bytes()), token_text(0xE0, Bytes())
    ('a', '⟨e0⟩')
    """
    text = str(tokenizer.decode([token], skip_special_tokens=False, clean_up_tokenization_spaces=False))
    if UNFINISHED not in text and text:
        raw = tokenizer.convert_ids_to_tokens(token) if hasattr(tokenizer, "convert_ids_to_tokens") else ""
        # SentencePiece marks a space in front, which decoding drops
        return f" {text}" if isinstance(raw, str) and raw.startswith("▁") and not text.startswith(" ") else text
    raw = str(tokenizer.convert_ids_to_tokens(token)) if hasattr(tokenizer, "convert_ids_to_tokens") else ""
    if raw.startswith("<0x") and raw.endswith(">"):
        return f"⟨{raw[3:-1].lower()}⟩"
    known = _BYTES
    if raw and all(one in known for one in raw):
        return f"⟨{' '.join(f'{known[one]:02x}' for one in raw)}⟩"
    return text or f"⟨token {token}⟩"


def _byte_letters() -> dict[str, int]:
    """How byte-level tokenizers write bytes as letters: printable ones as themselves, the others as those after 255."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + n): byte for n, byte in enumerate(others)}


_BYTES = _byte_letters()


def script_of(text: str) -> str:
    """The script of a text's first letter, in small letters; "none" for a text without letters.

    >>> [script_of(text) for text in (" water", "วัน", "水", "みず", "Вода", " 18.")]
    ['latin', 'thai', 'han', 'hiragana', 'cyrillic', 'none']
    """
    if text.startswith("⟨") and text.endswith("⟩"):  # parts of a character (`token_text`)
        return NO_SCRIPT
    letter = next((one for one in text if one.isalpha()), None)
    return NO_SCRIPT if letter is None else _script(letter)


@lru_cache(maxsize=65536)
def _script(letter: str) -> str:
    first = unicodedata.name(letter, "unknown").split(" ")[0].lower()
    return _SCRIPTS.get(first, first)
