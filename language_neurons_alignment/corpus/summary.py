"""A corpus in numbers, language by language."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .encode import encode_groups, encode_texts
from .records import Record
from .sequences import Tokenizer

_ANY_LENGTH = 2**62


@dataclass(frozen=True)
class LanguageSummary:
    """One language of a corpus.

    Attributes:
        language: code.
        records: questions.
        answers: of all of them.
        characters: of the instructions, each once, and of the answers.
        tokens: the same texts under a tokenizer; None without one.
        overlong: sequences that are longer than the model allows.
        merges: answers at whose border with the instruction the tokenizer merges (SPEC 2).
    """

    language: str
    records: int
    answers: int
    characters: int
    tokens: int | None = None
    overlong: int | None = None
    merges: int | None = None

    @property
    def tokens_per_character(self) -> float | None:
        """How finely the tokenizer cuts the language."""
        return None if self.tokens is None else self.tokens / max(self.characters, 1)


def summarize(records: Sequence[Record], *, tokenizer: Tokenizer | None = None, max_length: int = 0) -> LanguageSummary:
    """Count one language's records; with a tokenizer, its tokens too.

        tokens = Σ over records ( |tokenize(instruction)| + Σ over answers ( |full| − |prefix| ) )

    Args:
        records: of one language, at least one.
        tokenizer: a model's own.
        max_length: the model's longest sequence, in tokens.
    """
    answers = sum(len(record.answers) for record in records)
    characters = sum(len(record.instruction) + sum(map(len, record.answers)) for record in records)
    plain = LanguageSummary(records[0].language, len(records), answers, characters)
    return plain if tokenizer is None else _tokenized(plain, records, tokenizer, max_length)


def _tokenized(
    plain: LanguageSummary, records: Sequence[Record], tokenizer: Tokenizer, max_length: int
) -> LanguageSummary:
    unanswered = [record for record in records if not record.answers]
    texts = encode_texts(unanswered, tokenizer, text="instruction", max_length=_ANY_LENGTH)
    lengths = [len(text.tokens) for text in texts]
    tokens, merges = sum(lengths), 0
    if plain.answers:
        encoded = encode_groups(records, tokenizer, max_length=_ANY_LENGTH)
        tokens += encoded.full_tokens - encoded.prefix_tokens + sum(len(group.prefix) for group in encoded.groups)
        lengths += [max(len(group.prefix), len(full)) for group in encoded.groups for full in group.full]
        merges = encoded.boundary_cases
    overlong = sum(length > max_length for length in lengths)
    return LanguageSummary(plain.language, plain.records, plain.answers, plain.characters, tokens, overlong, merges)
