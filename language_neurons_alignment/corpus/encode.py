"""Records → token sequences (SPEC 1, 2, 6)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ..config import OVERLONG, TEXTS, check_choice
from ..errors import CorpusError
from .records import Record
from .sequences import PromptGroup, ScoredText, Tokenizer, Tokens, common_length


@dataclass(frozen=True)
class EncodedCorpus:
    """One language's prompt groups, ready to count.

    Attributes:
        groups: one per record that has answers.
        sequences: full sequences, one per answer.
        overlong: sequences longer than the model allows, before anything was done about them.
    """

    groups: tuple[PromptGroup, ...]
    overlong: int = 0

    @property
    def sequences(self) -> int:
        """Full sequences, one per answer."""
        return sum(len(group.full) for group in self.groups)

    @property
    def full_tokens(self) -> int:
        """Tokens of all full sequences."""
        return sum(group.full_tokens for group in self.groups)

    @property
    def prefix_tokens(self) -> int:
        """Tokens of all prefixes, each once per answer."""
        return sum(group.prefix_tokens for group in self.groups)

    @property
    def boundary_cases(self) -> int:
        """Answers whose tokens do not begin with the whole prefix."""
        return sum(group.boundary_cases for group in self.groups)


def encode_groups(
    records: Sequence[Record], tokenizer: Tokenizer, *, max_length: int, overlong: str = "error"
) -> EncodedCorpus:
    """Tokenize instructions and instructions with answers; records with no answers add nothing.

    Args:
        records: one language's.
        tokenizer: the model's own, with its special tokens.
        max_length: the model's longest sequence, in tokens.
        overlong: what to do with longer ones: "error", "truncate" (keep the beginning) or "skip".

    Raises:
        CorpusError: no record has an answer; or sequences are too long and `overlong` is "error".
        SettingsError: `overlong` is none of the three.
    """
    check_choice(overlong, OVERLONG, "--overlong")
    groups = [
        PromptGroup(
            tuple(tokenizer.encode(record.instruction)),
            tuple(tuple(tokenizer.encode(record.instruction + answer)) for answer in record.answers),
        )
        for record in records
        if record.answers
    ]
    if not groups:
        raise CorpusError(
            f"none of {len(records)} records has an answer: neurons are counted on the model's answers; "
            'fill "answers" with [{"generated": str}, …] first'
        )
    lengths = [max(len(group.prefix), len(tokens)) for group in groups for tokens in group.full]
    too_long = _check_length(lengths, max_length, overlong)
    if too_long and overlong == "skip":
        groups = [_without_overlong(group, max_length) for group in groups]
    elif too_long:
        groups = [PromptGroup(g.prefix[:max_length], tuple(t[:max_length] for t in g.full)) for g in groups]
    return EncodedCorpus(tuple(group for group in groups if group.full), too_long)


def encode_texts(
    records: Sequence[Record], tokenizer: Tokenizer, *, text: str, max_length: int, overlong: str = "error"
) -> list[ScoredText]:
    """The texts whose perplexity is wanted: instructions, or answers after their instructions, or both as one text.

    Raises:
        CorpusError: as `encode_groups`.
        SettingsError: `text` or `overlong` is not one of its choices.
    """
    check_choice(text, TEXTS, "--text")
    check_choice(overlong, OVERLONG, "--overlong")
    if text == "instruction":
        texts = [ScoredText(tuple(tokenizer.encode(record.instruction))) for record in records]
    else:
        groups = encode_groups(records, tokenizer, max_length=2**62).groups
        texts = [_answer_text(g.prefix, t) if text == "answer" else ScoredText(t) for g in groups for t in g.full]
    if _check_length([len(one.tokens) for one in texts], max_length, overlong):
        if overlong == "skip":
            return [one for one in texts if len(one.tokens) <= max_length]
        return [replace(one, tokens=one.tokens[:max_length]) for one in texts]
    return texts


def _answer_text(prefix: Tokens, full: Tokens) -> ScoredText:
    return ScoredText(full, start=common_length(prefix, full))


def _without_overlong(group: PromptGroup, max_length: int) -> PromptGroup:
    """The answers that fit; none where the prefix alone (which a merge can make the longer one) does not."""
    fits = len(group.prefix) <= max_length
    return replace(group, full=tuple(tokens for tokens in group.full if fits and len(tokens) <= max_length))


def _check_length(lengths: Sequence[int], max_length: int, overlong: str) -> int:
    too_long = sum(length > max_length for length in lengths)
    if too_long and overlong == "error":
        raise CorpusError(
            f"{too_long} of {len(lengths)} sequences are longer than the model allows: the longest has {max(lengths)} "
            f"tokens, the limit is {max_length}; choose --overlong truncate or --overlong skip"
        )
    if too_long == len(lengths) and overlong == "skip":
        raise CorpusError(
            f"all {too_long} sequences are longer than the model allows ({max_length} tokens), so --overlong skip "
            "leaves nothing: choose --overlong truncate"
        )
    return too_long
