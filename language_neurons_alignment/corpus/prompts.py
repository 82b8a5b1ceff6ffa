"""What a model is asked, and what it answered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..config import OVERLONG, check_choice
from ..errors import CorpusError
from .sequences import Tokens

ENDS = ("eos", "stop", "length")
"""How an answer can end: by the model itself, at a stop string, or because it was long enough."""


@dataclass(frozen=True)
class Prompt:
    """One answer that is wanted.

    Attributes:
        tokens: tokenize(instruction), as it is counted (SPEC 1).
        number: which of the answers to this prompt it is, from 0; samples of other numbers are other samples.
    """

    tokens: Tokens
    number: int = 0


@dataclass(frozen=True)
class GeneratedAnswer:
    """One answer that was given.

    Attributes:
        text: a plain continuation of the instruction: without special tokens, cut in front of a stop string.
        tokens: what the model generated, those that spell a stop string included, its end token not.
        finish: one of `ENDS`.
    """

    text: str
    tokens: Tokens
    finish: str


def fitting_prompts(prompts: Sequence[Prompt], *, new: int, max_length: int, overlong: str) -> list[int]:
    """Which of these prompts a model can answer.

    Args:
        prompts: all of them.
        new: how many tokens an answer may have.
        max_length: the model's longest sequence, prompt and answer together.
        overlong: what to do where they do not fit: "error", "truncate" (the answer ends where the model's length
            does) or "skip" (the prompt stays unanswered).

    Raises:
        CorpusError: some do not fit and `overlong` is "error", none is left, or a prompt leaves no room for an answer.
        SettingsError: `overlong` is none of the three.
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
