"""Encoding: records → the token sequences that engines count, score and continue.

    to count      `encode_groups`    instruction and instruction + answer, of every answer
    to score      `encode_texts`     instructions, answers after their instructions, or both as one text
    to continue   `fitting_prompts`  instructions that leave room for an answer

All of them tokenize plain concatenations, with the special tokens that the tokenizer puts in front (`Framing`), and
treat sequences that are too long for the model as `--overlong` says: an error, cut off at the end, or left out.
"""

from __future__ import annotations

import warnings
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from ..config import OVERLONG, TEXTS, check_choice
from ..errors import CorpusError, LNAWarning
from .records import Record

Tokens = tuple[int, ...]
"""Token ids."""


class Tokenizer(Protocol):
    """What this package needs of a tokenizer: a Hugging Face one will do."""

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        """Token ids, with or without the special tokens that the tokenizer puts around a text."""
        ...

    def decode(
        self, token_ids: list[int], *, skip_special_tokens: bool, clean_up_tokenization_spaces: bool
    ) -> str | list[str]:
        """Their text; a Hugging Face tokenizer returns a list only for lists of lists, which it never gets here."""
        ...

    def __len__(self) -> int:
        """The size of its vocabulary, with the tokens that were added."""
        ...


@dataclass(frozen=True)
class Framing:
    """The special tokens that a tokenizer puts around every text, and texts as tokens without those at the end.

    A model goes on from the last token of a prompt, so a tokenizer's own EOS at its end would make the model begin a
    new text. It is left out of counted and scored texts too: an answer has the tokens that the model gave, and a text
    begins with the tokens of its instruction.

        tokenizer.encode(text)  bos t t t eos
        Framing.encode          bos t t t

    Attributes:
        tokenizer: the model's own.
        opening: the tokens that it puts in front, such as BOS.
        closing: the tokens that it appends, such as EOS.

    >>> class Letters:
    ...     def encode(self, text, add_special_tokens=True):
    ...         return [1, *map(ord, text), 2] if add_special_tokens else [*map(ord, text)]
    ...     def decode(self, tokens, **_):
    ...         return "".join({1: "<s>", 2: "</s>"}.get(one) or chr(one) for one in tokens)
    >>> framing = Framing.of(Letters())
    >>> framing.opening, framing.closing, framing.encode(Record("en", "ab", ()))
    ((1,), (2,), (1, 97, 98))
    """

    tokenizer: Tokenizer
    opening: Tokens
    closing: Tokens

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> Framing:
        """Find what a tokenizer puts around every text, whatever its settings say.

        The settings (`bos_token`, `add_eos_token`, …) and what a tokenizer does can differ, so three texts that have
        nothing in common are tokenized.
        """
        empty, *others = (tuple(tokenizer.encode(text)) for text in ("", "a", "1"))
        opening = min(common_length(empty, one) for one in others)
        closing = min(common_length(empty[opening:][::-1], one[opening:][::-1]) for one in others)
        return cls(tokenizer, empty[:opening], empty[len(empty) - closing :])

    def encode(self, record: Record, answer: str = "") -> Tokens:
        """Tokenize a record's instruction, followed by an answer.

        Raises:
            CorpusError: the sequence would begin with two BOS tokens: the tokenizer's and the text's, or two of the
                text.
        """
        text = record.instruction + answer
        if not record.add_special_tokens:
            tokens = tuple(self.tokenizer.encode(text, add_special_tokens=False))
        else:
            tokens = tuple(self.tokenizer.encode(text))
            if self.closing and tokens[-len(self.closing) :] == self.closing:
                tokens = tokens[: -len(self.closing)]
        self._check_opening(record, tokens)
        return tokens

    def text(self, tokens: Sequence[int]) -> str:
        """Tokens as text, with the special ones."""
        return str(self.tokenizer.decode(list(tokens), skip_special_tokens=False, clean_up_tokenization_spaces=False))

    def note(self) -> None:
        """Say what is left out, if anything is."""
        if self.closing:
            warnings.warn(
                f"the tokenizer appends {self.text(self.closing)!r} (tokens {list(self.closing)}) to every text: it is "
                "left out of prompts, and of counted and scored texts, because a model does not go on after its end",
                LNAWarning,
                stacklevel=3,
            )

    def second_opening(self, tokens: Tokens) -> int | None:
        """The position of a second BOS, directly after the first or after spaces; None where there is none."""
        front = self._front
        if not front or tokens[: len(front)] != front or front[0] not in tokens[len(front) :]:
            return None
        again = tokens.index(front[0], len(front))
        twice = tokens[again : again + len(front)] == front
        return again if twice and not self.text(tokens[len(front) : again]).strip() else None

    @property
    def _front(self) -> Tokens:
        """What may stand once at the beginning: the tokens that the tokenizer puts in front, or BOS if it puts none."""
        bos = getattr(self.tokenizer, "bos_token_id", None)
        return self.opening or (() if bos is None else (bos,))

    def _check_opening(self, record: Record, tokens: Tokens) -> None:
        if (again := self.second_opening(tokens)) is None:
            return
        seen, what, advice = " twice", "one", ""
        if self.opening and record.add_special_tokens:
            seen, what = ", which the tokenizer puts in front by itself", "it"
            advice = ', or give the record "add_special_tokens": false'
        raise CorpusError(
            f"the instruction of {named(record)} begins with {self.text(self._front)!r}{seen}: positions 0 and {again} "
            f"are both token {self._front[0]}; take {what} out of the text{advice}"
        )


def special_tokens_in(text: str, tokenizer: Any) -> list[str]:
    """The special tokens that a text spells ("</s>"): a model reads each as one token, not as its letters."""
    added = getattr(tokenizer, "added_tokens_decoder", {})
    found = tokenizer.encode(text, add_special_tokens=False)
    return [str(added[token]) for token in found if token in added and added[token].special]


def named(record: Record) -> str:
    """A record, for people: its language, and its id or its first words."""
    words = " ".join((record.question or record.instruction).split())
    shown = f"id {record.id}" if record.id is not None else repr(words if len(words) <= 40 else words[:39] + "…")
    return f"the record {shown} in {record.language!r}"


@dataclass(frozen=True)
class PromptGroup:
    """One instruction and the answers to it, as tokens.

    Attributes:
        prefix: tokenize(instruction), without a closing EOS (`Framing`); it counts once for every answer.
        full: tokenize(instruction + generated) likewise, one for every answer.

    Usually every full sequence begins with the prefix:

        prefix  p p p p p
        full 1  p p p p p a a a
        full 2  p p p p p b b

    Where the tokenizer merges the instruction's end with the answer's beginning it does not (a *boundary case*), and
    the rest of the prefix is tokens of its own, which count for the prefix alone:

        prefix  p p p p q
        full 3  p p p p c c c

    >>> group = PromptGroup(prefix=(1, 2, 3), full=((1, 2, 3, 7), (1, 2, 8, 9)))
    >>> group.borders, group.boundary_cases, group.full_tokens, group.prefix_tokens
    ((3, 2), 1, 8, 6)
    """

    prefix: Tokens
    full: tuple[Tokens, ...]

    @property
    def full_tokens(self) -> int:
        """Tokens of all full sequences together."""
        return sum(len(tokens) for tokens in self.full)

    @property
    def prefix_tokens(self) -> int:
        """Tokens of the prefix, once for every answer."""
        return len(self.prefix) * len(self.full)

    @property
    def borders(self) -> tuple[int, ...]:
        """For each answer, how many tokens it shares with the prefix from the start."""
        return tuple(common_length(self.prefix, tokens) for tokens in self.full)

    @property
    def boundary_cases(self) -> int:
        """Answers whose tokens do not begin with the whole prefix."""
        return sum(border < len(self.prefix) for border in self.borders)

    def unshared_prefix_tokens(self, switch: int | None = None) -> int:
        """Prefix tokens that an engine may compute apart from those of the full sequences: all of them, or none.

        None where every full sequence begins with the prefix. In a boundary case even the tokens that they share may
        run in rows of their own and round differently; so they do where some sequences have more than `switch` tokens
        (`ModelInfo.switch`).
        """
        lengths = [len(self.prefix), *map(len, self.full)]
        apart = switch is not None and min(lengths) <= switch < max(lengths)
        return self.prefix_tokens if apart or self.boundary_cases else 0


@dataclass(frozen=True)
class EncodedCorpus:
    """One language's prompt groups, ready to count.

    Attributes:
        groups: one for each record that has answers.
        positions: for each group, the index of its record among the language's, from 0.
        overlong: sequences longer than the model allows, before they were truncated or skipped.
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
    def answer_tokens(self) -> int:
        """Tokens of the answers: of the full sequences, less those of the prefixes."""
        return self.full_tokens - self.prefix_tokens

    @property
    def boundary_cases(self) -> int:
        """Answers whose tokens do not begin with the whole prefix."""
        return sum(group.boundary_cases for group in self.groups)

    def unshared_prefix_tokens(self, switch: int | None = None) -> int:
        """Prefix tokens that an engine may compute apart from the texts: prefix counts exceed theirs by at most that.

        `switch` is the model's (`ModelInfo.switch`).
        """
        return sum(group.unshared_prefix_tokens(switch) for group in self.groups)

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
    """Tokenize instructions and instructions with answers; records without answers add nothing.

    What the tokenizer appends (EOS) is left out of both, with a warning (`Framing`).

    Args:
        records: one language's.
        tokenizer: the model's own, with its special tokens.
        max_length: the model's longest sequence, in tokens.
        overlong: what to do with longer ones: "error", "truncate" (keep the beginning) or "skip".

    Raises:
        CorpusError: no record has an answer; an instruction begins with a BOS beside the tokenizer's own; or sequences
            are too long and `overlong` is "error".
        SettingsError: `overlong` is none of the three.

    >>> class Letters:
    ...     def encode(self, text):
    ...         return [0, *map(ord, text)]
    >>> encoded = encode_groups([Record("en", "ab", ("c", "cd")), Record("en", "x", ())], Letters(), max_length=9)
    >>> encoded.groups
    (PromptGroup(prefix=(0, 97, 98), full=((0, 97, 98, 99), (0, 97, 98, 99, 100))),)
    >>> encoded.full_tokens, encoded.prefix_tokens
    (9, 6)
    """
    check_choice(overlong, OVERLONG, "--overlong")
    positions, framing = answered_positions(records), Framing.of(tokenizer)
    framing.note()
    groups = [
        PromptGroup(
            framing.encode(record),
            tuple(framing.encode(record, answer) for answer in record.answers),
        )
        for record in (records[position] for position in positions)
    ]
    lengths = [max(len(group.prefix), len(tokens)) for group in groups for tokens in group.full]
    too_long = _check_length(lengths, max_length, overlong)
    if too_long and overlong == "skip":
        groups = [_without_overlong(group, max_length) for group in groups]
    elif too_long:
        groups = [PromptGroup(g.prefix[:max_length], tuple(t[:max_length] for t in g.full)) for g in groups]
    kept = [pair for pair in zip(positions, groups, strict=True) if pair[1].full]
    return EncodedCorpus(tuple(group for _, group in kept), tuple(position for position, _ in kept), too_long)


def answered_positions(records: Sequence[Record]) -> list[int]:
    """The indices of the records that have answers; CorpusError if none has any."""
    if positions := [position for position, record in enumerate(records) if record.answers]:
        return positions
    raise CorpusError(
        f"none of {len(records)} records has an answer: neurons are counted on the model's answers, which "
        "`lna generate` writes; where these are texts and no questions, count the texts: `lna run --count text`"
    )


def check_blocks(positions: Sequence[int], blocks: int) -> None:
    """Raise CorpusError unless each of `blocks` blocks has one of these records, position i in block i mod `blocks`."""
    empty = sorted(set(range(blocks)) - {position % blocks for position in positions})
    if empty:
        raise CorpusError(
            f"{len(positions)} questions with answers leave {len(empty)} of {blocks} blocks empty (the first is block "
            f"{empty[0] + 1}): give a smaller --blocks"
        )


def common_length(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens two sequences share from their start."""
    for position, (a, b) in enumerate(zip(one, other, strict=False)):
        if a != b:
            return position
    return min(len(one), len(other))


def _without_overlong(group: PromptGroup, max_length: int) -> PromptGroup:
    """The answers that fit; none if the prefix alone, which a merge can make the longer one, does not."""
    fits = len(group.prefix) <= max_length
    return replace(group, full=tuple(tokens for tokens in group.full if fits and len(tokens) <= max_length))


def _check_length(lengths: Sequence[int], max_length: int, overlong: str) -> int:
    """How many sequences are too long, if `overlong` allows that."""
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


@dataclass(frozen=True)
class ScoredText:
    """A text whose perplexity is measured.

    Attributes:
        tokens: the whole sequence.
        start: the first position that is scored; everything before it is context. Position 0 is never scored.
    """

    tokens: Tokens
    start: int = 0

    @property
    def scored_tokens(self) -> int:
        """How many tokens are scored."""
        return max(0, len(self.tokens) - max(self.start, 1))


def encode_texts(
    records: Sequence[Record], tokenizer: Tokenizer, *, text: str, max_length: int, overlong: str = "error"
) -> list[ScoredText]:
    """The texts whose perplexity is measured.

    Args:
        records: one language's.
        tokenizer: the model's own.
        text: "instruction", "answer" (scored after its instruction), or "full" (both as one text). A record without
            an instruction is a plain text, its answer, and is scored whole whichever is asked for.
        max_length: the model's longest sequence, in tokens.
        overlong: what to do with longer ones: "error", "truncate" (keep the beginning) or "skip".

    Raises:
        CorpusError: as `encode_groups`.
        SettingsError: `text` or `overlong` is not one of its choices.
    """
    check_choice(text, TEXTS, "--text")
    check_choice(overlong, OVERLONG, "--overlong")
    if text == "instruction":
        framing = Framing.of(tokenizer)
        framing.note()
        texts = [
            ScoredText(framing.encode(record, answer))
            for record in records
            for answer in ([""] if record.instruction else record.answers)
        ]
    else:
        groups = encode_groups(records, tokenizer, max_length=2**62).groups
        texts = [
            ScoredText(tokens, start=common_length(group.prefix, tokens) if text == "answer" else 0)
            for group in groups
            for tokens in group.full
        ]
    if _check_length([len(one.tokens) for one in texts], max_length, overlong):
        if overlong == "skip":
            return [one for one in texts if len(one.tokens) <= max_length]
        return [replace(one, tokens=one.tokens[:max_length]) for one in texts]
    return texts


@dataclass(frozen=True)
class Prompt:
    """One answer that a model is asked for.

    Attributes:
        tokens: tokenize(instruction), the same as the prefix that is counted; no EOS at its end.
        number: which of the answers to this prompt it is, from 0; each number is a sample of its own.
    """

    tokens: Tokens
    number: int = 0


def encode_prompts(
    records: Sequence[Record], places: Sequence[tuple[int, int]], tokenizer: Tokenizer, *, ends: Collection[int]
) -> list[Prompt]:
    """The prompts of these places, (index of the record, number of the answer).

    Args:
        records: those that the places name.
        places: the answers that are wanted.
        tokenizer: the model's own.
        ends: the tokens that end an answer.

    Raises:
        CorpusError: an instruction begins with BOS twice, or ends with a token that ends an answer.
    """
    framing = Framing.of(tokenizer)
    framing.note()
    tokens: dict[int, Tokens] = {}
    for index in sorted({index for index, _ in places}):
        tokens[index] = framing.encode(records[index])
        if tokens[index] and tokens[index][-1] in ends:
            last = tokens[index][-1:]
            raise CorpusError(
                f"the prompt of {named(records[index])} ends with {framing.text(last)!r} (position "
                f"{len(tokens[index]) - 1}, token {last[0]}), which ends an answer, so the model would begin another "
                "text: end the instruction where the answer is to begin"
            )
    return [Prompt(tokens[index], number) for index, number in places]


@dataclass(frozen=True)
class GeneratedAnswer:
    """One answer that a model gave.

    Attributes:
        text: a plain continuation of the instruction: without special tokens, cut before a stop string.
        tokens: what the model generated, including those that spell a stop string, without its end token.
        finish: how it ended: "eos" (by the model itself), "stop" (at a stop string), "length", or "cancelled".
    """

    text: str
    tokens: Tokens
    finish: str


def fitting_prompts(prompts: Sequence[Prompt], *, new: int, max_length: int, overlong: str) -> list[int]:
    """The indices of the prompts that a model can answer.

    Args:
        prompts: all of them.
        new: how many tokens an answer may have.
        max_length: the model's longest sequence, prompt and answer together.
        overlong: what to do where they do not fit: "error", "truncate" (the answer ends at the model's length) or
            "skip" (the prompt stays unanswered).

    Raises:
        CorpusError: some do not fit and `overlong` is "error", none is left, or a prompt leaves no room for an answer.
        SettingsError: `overlong` is none of the three.

    >>> fitting_prompts([Prompt((1, 2)), Prompt((1, 2, 3, 4))], new=3, max_length=5, overlong="skip")
    [0]
    """
    check_choice(overlong, OVERLONG, "--overlong")
    lengths = [len(prompt.tokens) for prompt in prompts]
    fits = [index for index, length in enumerate(lengths) if length + new <= max_length]
    if len(fits) == len(prompts):
        return fits
    seen = f"{len(prompts) - len(fits)} of {len(prompts)} prompts are too long: the longest has {max(lengths)} tokens"
    if overlong == "error":
        raise CorpusError(
            f"{seen}, with an answer of up to {new} that is {max(lengths) + new}, the model allows {max_length}; "
            "choose a smaller --max-new-tokens, --overlong truncate (shorter answers) or --overlong skip"
        )
    if overlong == "truncate" and max(lengths) >= max_length:
        raise CorpusError(f"{seen}, which leaves no room for an answer in {max_length}; choose --overlong skip")
    if overlong == "skip" and not fits:
        raise CorpusError(f"{seen}, and --overlong skip leaves none; choose a smaller --max-new-tokens")
    return fits if overlong == "skip" else list(range(len(prompts)))
