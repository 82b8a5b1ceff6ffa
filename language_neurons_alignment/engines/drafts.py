"""An answer while it is written: when it ends, and what its text is. The same on every engine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..corpus.prompts import GeneratedAnswer, Prompt
from ..corpus.sequences import Tokenizer
from ..errors import EngineError
from ..sampling import Sampling
from .base import ModelInfo

_MARGIN = 8
"""Tokens that are read in front of those that a stop string can have, so that its first one is read in context."""

_TORN = "\N{REPLACEMENT CHARACTER}"
"""What the bytes of a character that is not whole are read as."""


class Draft:
    """The answer to one prompt, growing token by token.

    Stop strings are looked for in the text, not among the tokens: a stop string like "。" can be spelt by several
    tokens that are no characters of their own, and by parts of tokens.
    """

    def __init__(self, prompt: Prompt, *, sampling: Sampling, model: ModelInfo, tokenizer: Tokenizer) -> None:
        """Begin.

        Args:
            prompt: what is answered.
            sampling: when an answer ends.
            model: its end tokens, and its longest sequence, where an answer ends at the latest.
            tokenizer: the model's own.
        """
        self.limit = min(sampling.max_new_tokens, model.max_length - len(prompt.tokens))
        self.tokens: list[int] = []
        self.finish: str | None = None
        self._prompt = prompt.tokens
        self._stop = sampling.stop
        self._ends = frozenset(model.end_tokens)
        self._tokenizer = tokenizer
        self._window = _MARGIN + max((len(stop.encode()) for stop in sampling.stop), default=0)

    def add(self, token: int) -> bool:
        """Take the next token; whether the answer has ended, after which nothing is added any more."""
        if self.finish is None:
            if token in self._ends:
                self.finish = "eos"
                return True
            self.tokens.append(token)
            if self._stopped():
                self.finish = "stop"
            elif len(self.tokens) >= self.limit:
                self.finish = "length"
        return self.finish is not None

    def answer(self) -> GeneratedAnswer:
        """What was written.

        Raises:
            EngineError: it has not ended.
        """
        if self.finish is None:
            raise EngineError(f"an answer was cut off after {len(self.tokens)} of up to {self.limit} tokens")
        text = _continuation(self._tokenizer, self._prompt, self.tokens)
        if self.finish == "stop":
            text = text[: _first(text, self._stop)]
        if self.finish == "length":
            text = text.rstrip(_TORN)
        return GeneratedAnswer(text, tuple(self.tokens), self.finish)

    def _stopped(self) -> bool:
        """Whether a stop string has just become whole: a few last tokens tell, and the whole text confirms it."""
        if not self._stop:
            return False
        before = max(0, len(self.tokens) - self._window)
        context = (*self._prompt[-_MARGIN:], *self.tokens[:before])[-_MARGIN:]
        near = _continuation(self._tokenizer, context, self.tokens[before:])
        if not any(stop in near for stop in self._stop):
            return False
        return _first(_continuation(self._tokenizer, self._prompt, self.tokens), self._stop) is not None


def start_drafts(
    prompts: Sequence[Prompt], *, sampling: Sampling, model: ModelInfo, tokenizer: Tokenizer
) -> list[Draft]:
    """A draft for each prompt."""
    return [Draft(prompt, sampling=sampling, model=model, tokenizer=tokenizer) for prompt in prompts]


def check_prompts(prompts: Sequence[Prompt], *, longest: int) -> None:
    """Refuse prompts that cannot be answered, before anything runs.

    Raises:
        EngineError: a prompt without a token, or one that leaves no room for an answer.
    """
    lengths = [len(prompt.tokens) for prompt in prompts]
    if 0 in lengths:
        raise EngineError("a prompt has no tokens, so there is nothing to go on from: leave empty instructions out")
    full = [length for length in lengths if length >= longest]
    if full:
        raise EngineError(
            f"{len(full)} prompts leave no room for an answer: up to {max(full)} tokens, where the model allows "
            f"{longest} for prompt and answer together; use --overlong skip"
        )


def end_tokens(config: Any, generation: Any, tokenizer: Any) -> tuple[int, ...]:
    """The tokens by which a model ends an answer, from its config, its generation config and its tokenizer."""
    named = [getattr(one, "eos_token_id", None) for one in (config, generation, tokenizer)]
    listed = [one if isinstance(one, (list, tuple)) else [one] for one in named]
    return tuple(sorted({token for some in listed for token in some if isinstance(token, int)}))


def _continuation(tokenizer: Tokenizer, before: Sequence[int], tokens: Sequence[int]) -> str:
    """What `tokens` add to the text of the tokens before them.

    Read together with these, because some tokenizers drop the space in front of the first token that they read.
    """
    start, whole = _read(tokenizer, before), _read(tokenizer, [*before, *tokens])
    return whole[len(start) :] if whole.startswith(start) else _read(tokenizer, tokens)


def _read(tokenizer: Tokenizer, tokens: Sequence[int]) -> str:
    return str(tokenizer.decode(list(tokens), skip_special_tokens=True, clean_up_tokenization_spaces=False))


def _first(text: str, stops: Sequence[str]) -> int | None:
    """Where the first stop string begins."""
    return min((at for stop in stops if (at := text.find(stop)) >= 0), default=None)
