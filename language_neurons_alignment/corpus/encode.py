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
        positions: for each group, the place of its record among the language's, from 0.
        overlong: sequences longer than the model allows, before anything was done about them.
    """

    groups: tuple[PromptGroup, ...]
    positions: tuple[int, ...]
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

    def in_blocks(self, blocks: int) -> list[EncodedCorpus]:
        """Disjoint parts that together are this corpus: record i in block i mod `blocks`, as in every other language.

        Raises:
            CorpusError: a block has nothing to count.
        """
        check_blocks(self.positions, blocks)
        pairs = list(zip(self.positions, self.groups, strict=True))
        parts = [[pair for pair in pairs if pair[0] % blocks == block] for block in range(blocks)]
        return [EncodedCorpus(tuple(g for _, g in part), tuple(i for i, _ in part)) for part in parts]


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
    positions = answered_positions(records)
    groups = [
        PromptGroup(
            tuple(tokenizer.encode(record.instruction)),
            tuple(tuple(tokenizer.encode(record.instruction + answer)) for answer in record.answers),
        )
        for record in (records[position] for position in positions)
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
    kept = [pair for pair in zip(positions, groups, strict=True) if pair[1].full]
    return EncodedCorpus(tuple(group for _, group in kept), tuple(position for position, _ in kept), too_long)


def answered_positions(records: Sequence[Record]) -> list[int]:
    """The places of the records that have answers."""
    return [position for position, record in enumerate(records) if record.answers]


def check_blocks(positions: Sequence[int], blocks: int) -> None:
    """Raise CorpusError unless each of `blocks` blocks has one of these records, position i in block i mod `blocks`."""
    empty = sorted(set(range(blocks)) - {position % blocks for position in positions})
    if empty:
        raise CorpusError(
            f"{len(positions)} questions with answers leave {len(empty)} of {blocks} blocks empty (the first is block "
            f"{empty[0] + 1}): give a smaller --blocks"
        )


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
