"""Answers on every engine: when an answer ends, what its text is, and which prompts are answered together."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any, TypeVar

from ..config import Sampling
from ..core.model import ModelInfo
from ..corpus.encode import GeneratedAnswer, Prompt, Tokenizer
from ..errors import EngineError

_MARGIN = 8
"""Tokens decoded in front of those that may hold a stop string, because some tokens read differently at the start."""

_TORN = "\N{REPLACEMENT CHARACTER}"
"""How the bytes of an incomplete character are decoded."""


Follow = Callable[[int, str], bool]
"""Follows answers while they grow: called after each token with the prompt's position and the text so far.

Where it returns False, that answer ends here, with the finish "cancelled".
"""


class PartialAnswer:
    """The answer to one prompt while it grows token by token.

    Stop strings are searched in the text, not among the tokens: a stop string like "。" can be spelt by several tokens
    none of which is a character, or by parts of tokens.
    """

    def __init__(
        self,
        prompt: Prompt,
        *,
        sampling: Sampling,
        model: ModelInfo,
        tokenizer: Tokenizer,
        follow: Callable[[str], bool] | None = None,
    ) -> None:
        """Begin an answer; besides `sampling`, the model's longest sequence limits it, and `follow` may cancel it."""
        self.limit = min(sampling.max_new_tokens, model.max_length - len(prompt.tokens))
        self.tokens: list[int] = []
        self.finish: str | None = None
        self._prompt = prompt.tokens
        self._stop = sampling.stop
        self._ends = frozenset(model.end_tokens)
        self._tokenizer = tokenizer
        self._follow = follow
        self._window = _MARGIN + max((len(stop.encode(errors="surrogatepass")) for stop in sampling.stop), default=0)

    def add(self, token: int) -> bool:
        """Add the next token, and return whether the answer has ended; tokens after its end are ignored."""
        if self.finish is None:
            if token in self._ends:
                self.finish = "eos"
                return True
            self.tokens.append(token)
            if self._stopped():
                self.finish = "stop"
            elif len(self.tokens) >= self.limit:
                self.finish = "length"
            if self._follow is not None and not self._follow(self._text()) and self.finish is None:
                self.finish = "cancelled"
        return self.finish is not None

    @classmethod
    def each(
        cls,
        prompts: Sequence[Prompt],
        follow: Follow | None,
        *,
        sampling: Sampling,
        model: ModelInfo,
        tokenizer: Tokenizer,
    ) -> list[PartialAnswer]:
        """Begin the answers to all prompts."""
        common: dict[str, Any] = {"sampling": sampling, "model": model, "tokenizer": tokenizer}
        return [
            cls(prompt, **common, follow=None if follow is None else partial(follow, position))
            for position, prompt in enumerate(prompts)
        ]

    def answer(self) -> GeneratedAnswer:
        """The whole answer; an error if it has not ended."""
        if self.finish is None:
            raise EngineError(f"an answer was cut off after {len(self.tokens)} of up to {self.limit} tokens")
        return GeneratedAnswer(self._text(), tuple(self.tokens), self.finish)

    def _text(self) -> str:
        """The text so far: in front of a stop string, and without a character whose last bytes have not come."""
        text = _continuation(self._tokenizer, self._prompt, self.tokens)
        if self.finish == "stop":
            return text[: _first(text, self._stop)]
        return text if self.finish == "eos" else text.rstrip(_TORN)

    def _stopped(self) -> bool:
        """Whether a stop string is complete: the last tokens show it quickly, and the whole text confirms it."""
        if not self._stop:
            return False
        before = max(0, len(self.tokens) - self._window)
        context = (*self._prompt[-_MARGIN:], *self.tokens[:before])[-_MARGIN:]
        near = _continuation(self._tokenizer, context, self.tokens[before:])
        if not any(stop in near for stop in self._stop):
            return False
        return _first(_continuation(self._tokenizer, self._prompt, self.tokens), self._stop) is not None


def check_prompts(prompts: Sequence[Prompt], *, longest: int) -> None:
    """Refuse prompts that cannot be answered, before anything runs."""
    lengths = [len(prompt.tokens) for prompt in prompts]
    if 0 in lengths:
        raise EngineError("a prompt has no tokens, so the model cannot continue it: leave out empty instructions")
    full = [length for length in lengths if length >= longest]
    if full:
        raise EngineError(
            f"{len(full)} prompts leave no room for an answer: up to {max(full)} tokens, where the model allows "
            f"{longest} for prompt and answer together; use --overlong skip"
        )


def _continuation(tokenizer: Tokenizer, before: Sequence[int], tokens: Sequence[int]) -> str:
    """The text that `tokens` add to the tokens before them.

    They are decoded together, because some tokenizers drop the space in front of the first token.
    """
    start, whole = _decode(tokenizer, before), _decode(tokenizer, [*before, *tokens])
    return whole[len(start) :] if whole.startswith(start) else _decode(tokenizer, tokens)


def _decode(tokenizer: Tokenizer, tokens: Sequence[int]) -> str:
    return str(tokenizer.decode(list(tokens), skip_special_tokens=True, clean_up_tokenization_spaces=False))


def _first(text: str, stops: Sequence[str]) -> int | None:
    """The position of the first stop string in a text, or None."""
    return min((at for stop in stops if (at := text.find(stop)) >= 0), default=None)


Item = TypeVar("Item")


def batches(
    items: Iterable[Item], *, length: Callable[[Item], int], budget: int, before: int = 0, switch: int | None = None
) -> Iterator[list[Item]]:
    """Items in batches of at most `budget` padded tokens (but at least one item), the longest first.

    A batch has items × (tokens `before` in the cache + longest item) padded tokens. Sequences on the two sides of the
    length `switch` never share a batch (`rope_switch`).
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
    """The batches in which prompts are answered, by position.

    A batch takes prompts × (longest prompt + `new`) tokens of memory. The same prompts always give the same batches,
    and the prompts of one batch alone give that batch again, so a run that was cut off resumes in the same batches. A
    prompt is alone in its batch, without padding, if prompt and answer may be longer than `longest` or may cross
    `switch` (`rope_switch`).
    """

    def length(index: int) -> int:
        return len(prompts[index].tokens) + new

    def alone(index: int) -> bool:
        return crosses(prompts[index], new=new, switch=switch) or length(index) > longest

    singles = [[index] for index in range(len(prompts)) if alone(index)]
    rest = [index for index in range(len(prompts)) if not alone(index)]
    return [*singles, *batches(rest, length=length, budget=budget, switch=switch)]


def crosses(prompt: Prompt, *, new: int, switch: int | None) -> bool:
    """Whether `new` tokens may take a prompt over the length at which every position is rotated differently."""
    return switch is not None and len(prompt.tokens) <= switch < len(prompt.tokens) + new
