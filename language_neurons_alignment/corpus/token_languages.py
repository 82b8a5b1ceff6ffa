"""Which language is a token of? Asked of a corpus, and of lingua where that does not tell; tested on held-out text.

With c_k(v) the number of times that token v stands in the texts of language k, which have n_k tokens:

    r_k(v) = (c_k(v) + ¼) / n_k,      v is of language k if c_k(v) > 0 and r_k(v) / Σ_j r_j(v) ≥ 0.7

A token that this leaves open is of the language that lingua finds in its letters, if it does so with a confidence of at
least 0.6 and the token stands in no text of another language. Every other token with letters is ambiguous, and a
token without letters (digits, signs, special tokens) is of no language. The bounds were measured: decision 0068.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int64

from .encode import Tokenizer, Tokens
from .language_id import base_language, identify_languages
from .language_id import letters as weigh_letters

EVIDENCE, SHARE = 0.25, 0.7
"""The ¼ and the 0.7 above."""
SURE, SHORTEST = 0.6, 3
"""Of lingua's verdict: the least confidence, and the least letters as `language_id.letters` counts them."""
FOLDS = 5
"""Parts of the corpus, each of which is held out once."""


@dataclass(frozen=True)
class TokenLanguages:
    """The group of every token of a vocabulary, and how far that is right on held-out text.

    Attributes:
        languages: the first groups; behind them stand the ambiguous tokens and those of no language.
        group: of each token.
        by_lingua: whether lingua decided.
        held_out: how often tokens with letters stand in held-out texts of each language, by what becomes of them
            (`OUTCOMES`); all 0 where a language has one record alone.
    """

    languages: tuple[str, ...]
    group: Int64[np.ndarray, " token"]
    by_lingua: Bool[np.ndarray, " token"]
    held_out: Int64[np.ndarray, "lang outcome"]

    @property
    def accuracy(self) -> float:
        """The share of right ones among the held-out tokens that are taken for some language's; NaN without any."""
        return _accuracy(self.held_out.sum(axis=0))

    @property
    def coverage(self) -> float:
        """The share of the held-out tokens with letters that are taken for some language's; NaN without any."""
        return _coverage(self.held_out.sum(axis=0))

    def columns(self) -> dict[str, list[object]]:
        """A row for each language: its tokens in the vocabulary, then the held-out ones, accuracy and coverage."""
        sizes = np.bincount(self.group, minlength=len(self.languages))[: len(self.languages)]
        counted = {f"held_out_{name}": self.held_out[:, at].tolist() for at, name in enumerate(OUTCOMES)}
        return {
            "language": list(self.languages),
            "tokens": sizes.tolist(),
            **counted,
            "accuracy": [_accuracy(row) for row in self.held_out],
            "coverage": [_coverage(row) for row in self.held_out],
        }


OUTCOMES = ("right", "wrong", "right_by_lingua", "wrong_by_lingua", "ambiguous")
"""What becomes of a held-out token: the corpus or lingua takes it for its text's language, for another, or neither."""


def _accuracy(row: Int64[np.ndarray, " outcome"]) -> float:
    right, assigned = int(row[0] + row[2]), int(row[:4].sum())
    return right / assigned if assigned else float("nan")


def _coverage(row: Int64[np.ndarray, " outcome"]) -> float:
    return int(row[:4].sum()) / int(row.sum()) if row.any() else float("nan")


def token_languages(
    texts: Mapping[str, Sequence[Sequence[Tokens]]], tokenizer: Tokenizer, *, vocabulary: int
) -> TokenLanguages:
    """Assign every token of a vocabulary, from the texts of each language, record by record.

    >>> class Words:
    ...     def decode(self, tokens, **_):
    ...         return ["", "Haus", "house", "7"][tokens[0]]
    >>> found = token_languages({"de": [[(1, 3)] * 4] * 2, "en": [[(2, 3)] * 4] * 2}, Words(), vocabulary=4)
    >>> found.group.tolist(), found.accuracy  # 0: German, 1: English, 2: ambiguous, 3: without letters
    ([3, 0, 1, 3], 1.0)
    """
    languages = tuple(texts)
    decoded = [_text_of(tokenizer, token) for token in range(vocabulary)]
    lettered = np.array([_has_letters(text) for text in decoded], dtype=bool)
    guessed = _guesses(decoded, languages)
    parts = [
        np.stack([_counted(records[fold::FOLDS], vocabulary) for records in texts.values()]) for fold in range(FOLDS)
    ]
    whole = np.sum(parts, axis=0)

    def assigned(counts: Int64[np.ndarray, "lang token"]) -> tuple[np.ndarray, np.ndarray]:
        return _assigned(counts, counts.sum(axis=1), guessed, lettered)

    group, by_lingua = assigned(whole)
    held_out = np.zeros((len(languages), len(OUTCOMES)), dtype=np.int64)
    if min(map(len, texts.values())) > 1:
        for part in parts:
            held_out += _outcomes(part, *assigned(whole - part), lettered)
    return TokenLanguages(languages, group, by_lingua, held_out)


def languages_of_tokens(
    tokens: Sequence[int], texts: Mapping[str, Sequence[Tokens]], tokenizer: Tokenizer
) -> list[str | None]:
    """The language of each of these tokens, by the same rule; None for ambiguous ones and those without letters.

    >>> class Words:
    ...     def decode(self, tokens, **_):
    ...         return ["", "Haus", "house", "7"][tokens[0]]
    >>> languages_of_tokens([1, 2, 3], {"de": [(1, 3)] * 8, "en": [(2, 3)] * 8}, Words())
    ['de', 'en', None]
    """
    languages, at = tuple(texts), np.array(tokens, dtype=np.int64)
    highest = max([*tokens, *(token for some in texts.values() for text in some for token in text)], default=0)
    counts = np.stack([_counted([some], highest + 1) for some in texts.values()])
    decoded = [_text_of(tokenizer, token) for token in tokens]
    lettered = np.array([_has_letters(text) for text in decoded], dtype=bool)
    group, _ = _assigned(counts[:, at], counts.sum(axis=1), _guesses(decoded, languages), lettered)
    return [languages[one] if one < len(languages) else None for one in group.tolist()]


def _assigned(
    counts: Int64[np.ndarray, "lang token"],
    sizes: Int64[np.ndarray, " lang"],
    guessed: Int64[np.ndarray, " token"],
    lettered: Bool[np.ndarray, " token"],
) -> tuple[Int64[np.ndarray, " token"], Bool[np.ndarray, " token"]]:
    """The group of each token, and whether lingua decided it."""
    languages = len(counts)
    rates = (counts + EVIDENCE) / np.maximum(sizes, 1)[:, None]
    likeliest = rates.argmax(axis=0)
    # a token that is in no text has its largest rate in the shortest corpus, which says nothing of the token
    told = (_of_row(counts, likeliest) > 0) & (rates.max(axis=0) >= SHARE * rates.sum(axis=0))
    elsewhere = counts.sum(axis=0) - _of_row(counts, np.maximum(guessed, 0))
    by_lingua = lettered & ~told & (guessed >= 0) & (elsewhere == 0)
    group = np.where(told, likeliest, np.where(by_lingua, guessed, languages))
    return np.where(lettered, group, languages + 1), by_lingua


def _of_row(counts: Int64[np.ndarray, "lang token"], row: Int64[np.ndarray, " token"]) -> Int64[np.ndarray, " token"]:
    """Each token's count in the language of its own row."""
    return np.take_along_axis(counts, row[None], axis=0)[0]


def _outcomes(
    counts: Int64[np.ndarray, "lang token"],
    group: Int64[np.ndarray, " token"],
    by_lingua: Bool[np.ndarray, " token"],
    lettered: Bool[np.ndarray, " token"],
) -> Int64[np.ndarray, "lang outcome"]:
    """How often the tokens of held-out texts meet each of `OUTCOMES`."""
    assigned = lettered & (group < len(counts))
    rows = []
    for language, row in enumerate(counts):
        right = group == language
        sets = [assigned & one & some for some in (~by_lingua, by_lingua) for one in (right, ~right)]
        rows.append([row[some].sum() for some in (*sets, lettered & ~assigned)])
    return np.array(rows, dtype=np.int64)


def _counted(records: Sequence[Sequence[Tokens]], vocabulary: int) -> Int64[np.ndarray, " token"]:
    tokens = [token for texts in records for text in texts for token in text]
    return np.bincount(np.array(tokens, dtype=np.int64), minlength=vocabulary)


def _guesses(decoded: Sequence[str], languages: Sequence[str]) -> Int64[np.ndarray, " token"]:
    """The language that lingua finds in each token, as its place among these; −1 for none of them."""
    bases = [base_language(code) for code in languages]
    place = {base: at for at, base in enumerate(bases) if bases.count(base) == 1}  # zh-Hans and zh-Hant: neither
    shared_han = {"zh", "ja"} <= set(bases)  # lingua takes every word of these characters alone for Chinese
    stripped = [text.strip() for text in decoded]
    asked = [
        text if "\ufffd" not in text and weigh_letters(text) >= SHORTEST and not (shared_han and _is_han(text)) else ""
        for text in stripped
    ]
    verdicts = identify_languages(asked, languages, shortest=SHORTEST)
    found = [place.get(one.language, -1) if one is not None and one.confidence >= SURE else -1 for one in verdicts]
    return np.array(found, dtype=np.int64)


def _text_of(tokenizer: Tokenizer, token: int) -> str:
    return str(tokenizer.decode([token], skip_special_tokens=True, clean_up_tokenization_spaces=False))


def _has_letters(text: str) -> bool:
    """Whether a token's text has letters, marks of letters, or is a part of a character's bytes."""
    return any(one == "\ufffd" or unicodedata.category(one)[0] in "LM" for one in text)


def _is_han(text: str) -> bool:
    """Whether all letters of a text are Chinese characters."""
    return all(unicodedata.name(one, "").startswith("CJK UNIFIED") for one in text if one.isalpha())
