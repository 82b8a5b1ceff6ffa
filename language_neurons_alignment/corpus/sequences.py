"""From records to token sequences with their spans (SPEC 1, 2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

Tokens = tuple[int, ...]


class Tokenizer(Protocol):
    """What this package needs of a tokenizer: a Hugging Face one will do."""

    def encode(self, text: str) -> list[int]:
        """Token ids, with the tokenizer's own special tokens."""
        ...

    def decode(
        self, token_ids: list[int], *, skip_special_tokens: bool, clean_up_tokenization_spaces: bool
    ) -> str | list[str]:
        """Their text (a Hugging Face tokenizer gives a list for lists of lists, which it is never handed here)."""
        ...


@dataclass(frozen=True)
class PromptGroup:
    """One instruction and the answers that were given to it, as tokens.

    Attributes:
        prefix: tokenize(instruction); it counts once for every answer.
        full: tokenize(instruction + generated), one for every answer.

    Usually every full sequence begins with the prefix:

        prefix  p p p p p
        full 1  p p p p p a a a
        full 2  p p p p p b b

    Where the tokenizer merges across the border it does not (a *boundary case*), and the rest of the prefix is
    tokens of its own, which count for the prefix alone:

        prefix  p p p p q
        full 3  p p p p c c c
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


@dataclass(frozen=True)
class ScoredText:
    """A text whose likelihood is wanted.

    Attributes:
        tokens: the whole sequence.
        start: the first position that is scored; what stands before it is context. Position 0 is never scored.
    """

    tokens: Tokens
    start: int = 0

    @property
    def scored_tokens(self) -> int:
        """How many tokens are scored."""
        return max(0, len(self.tokens) - max(self.start, 1))


def common_length(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens two sequences share from their start."""
    for position, (a, b) in enumerate(zip(one, other, strict=False)):
        if a != b:
            return position
    return min(len(one), len(other))
