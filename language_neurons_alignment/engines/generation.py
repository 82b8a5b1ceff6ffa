"""An answer while it is written: when it ends, and what its text is. The same on every engine."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

from ..config import Sampling
from ..core.model import ModelInfo
from ..corpus.encode import GeneratedAnswer, Prompt, Tokenizer
from ..errors import EngineError

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


# ── Items in batches of bounded size.

Item = TypeVar("Item")


def batches(
    items: Iterable[Item], *, length: Callable[[Item], int], budget: int, before: int = 0, switch: int | None = None
) -> Iterator[list[Item]]:
    """Items in batches of at most `budget` padded tokens (but at least one item), the longest first.

    Args:
        items: in any order.
        length: how many tokens of an item are fed.
        budget: items × (tokens before + longest item) stays within it.
        before: tokens that stand in the cache before each item, and need memory like those that are fed.
        switch: sequences on the two sides of it never share a batch (`rope_switch`).
    """
    batch: list[Item] = []
    width = 0
    for item in sorted(items, key=length, reverse=True):
        whole = before + length(item)
        switched = switch is not None and whole <= switch < width
        if batch and (switched or (len(batch) + 1) * width > budget):
            yield batch
            batch = []
        width = width if batch else whole
        batch.append(item)
    if batch:
        yield batch


def answer_batches(
    prompts: Sequence[Prompt], *, new: int, longest: int, budget: int, switch: int | None = None
) -> list[list[int]]:
    """Which prompts are answered together, by their position.

    The same for the same prompts, so a run that was cut off goes on in the same batches; and a batch planned by
    itself is one batch again.

    Args:
        prompts: all of them, in any order.
        new: how many tokens an answer may have; they need memory like the prompt's.
        longest: the model's longest sequence; who has less room than `new` is answered alone, for the others go on.
        budget: prompts × (longest prompt + new) stays within it.
        switch: a sequence that may grow beyond it is answered alone, for it is then computed anew (`rope_switch`).
    """

    def length(index: int) -> int:
        return len(prompts[index].tokens) + new

    def alone(index: int) -> bool:
        return crosses(prompts[index], new=new, switch=switch) or length(index) > longest

    singles = [[index] for index in range(len(prompts)) if alone(index)]
    rest = [index for index in range(len(prompts)) if not alone(index)]
    return [*singles, *batches(rest, length=length, budget=budget, switch=switch)]


def crosses(prompt: Prompt, *, new: int, switch: int | None) -> bool:
    """Whether an answer of `new` tokens may take a sequence over the length beyond which all of it changes."""
    return switch is not None and len(prompt.tokens) <= switch < len(prompt.tokens) + new
