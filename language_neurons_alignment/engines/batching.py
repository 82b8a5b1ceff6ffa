"""Items in batches of bounded size."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

from ..corpus.prompts import Prompt

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
