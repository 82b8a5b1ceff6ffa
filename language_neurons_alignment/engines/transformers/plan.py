"""What is fed to the model: from prompt groups to rows, jobs and batches, each token position once (SPEC 2).

one answer          row     p p p p p a a a          full 1 everywhere, prefix 1 on p
several answers     trunk   p p p p p                full n, prefix n
                    branch            a a a          full 1
                    branch            b b            full 1
a boundary case     trunk   p p p p                  full n, prefix n
                    branch          p a a a          full 1, prefix n on p: it begins with the whole prefix
                    branch          c c c c          full 1
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from ...corpus.sequences import PromptGroup, Tokens, common_length


@dataclass(frozen=True)
class Row:
    """Tokens to feed, and how often each of their positions counts.

    Attributes:
        tokens: what is fed; never empty.
        full: how often every position counts for the full sequences.
        prefix: how often each of the first `prefix_length` positions counts for the prefix sequences.
        prefix_length: see `prefix`.
    """

    tokens: Tokens
    full: int
    prefix: int = 0
    prefix_length: int = 0


@dataclass(frozen=True)
class Job:
    """A row, and the rows that go on from its end: computed with what the trunk left in the KV cache."""

    trunk: Row
    branches: tuple[Row, ...] = ()


def plan(group: PromptGroup, *, switch: int | None = None) -> list[Job]:
    """The jobs that count a group exactly, in the cheaper of two ways.

    Args:
        group: an instruction and its answers.
        switch: sequences of more tokens than this share nothing with shorter ones (`rope_switch`).
    """
    answers = Counter(group.full)
    if not answers:
        return []
    lengths = [len(group.prefix), *map(len, answers)]
    if switch is not None and min(lengths) <= switch < max(lengths):
        return _apart(group.prefix, answers)
    together = _share(group.prefix, answers, repeats=len(group.full))
    if not group.boundary_cases:
        return together
    clean = {tokens: n for tokens, n in answers.items() if tokens[: len(group.prefix)] == group.prefix}
    rest = [Job(Row(tokens, n)) for tokens, n in answers.items() if tokens not in clean and tokens]
    split = [*_share(group.prefix, clean, repeats=len(group.full)), *rest]
    return min(together, split, key=fed_tokens)


def fed_tokens(jobs: Iterable[Job]) -> int:
    """How many token positions are fed for these jobs, padding aside."""
    return sum(len(row.tokens) for job in jobs for row in (job.trunk, *job.branches))


def _share(prefix: Tokens, answers: dict[Tokens, int], *, repeats: int) -> list[Job]:
    """One job: what all sequences begin with, once, and the rest of each.

    Args:
        prefix: tokenize(instruction).
        answers: full sequences, and how often each occurs.
        repeats: how often the prefix counts.
    """
    carrier = next((tokens for tokens in answers if tokens[: len(prefix)] == prefix), prefix)
    sequences = answers if carrier in answers else {carrier: 0, **answers}
    if len(sequences) == 1:
        return [Job(Row(carrier, sequences[carrier], repeats, len(prefix)))] if carrier else []
    border = min(common_length(prefix, tokens) for tokens in sequences)
    tail = len(prefix) - border
    branches = tuple(
        Row(tokens[border:], count, *((repeats, tail) if tail and tokens == carrier else ()))
        for tokens, count in sequences.items()
        if len(tokens) > border
    )
    if not border:
        return [Job(row) for row in branches]
    return [Job(Row(prefix[:border], sum(answers.values()), repeats, border), branches)]


def _apart(prefix: Tokens, answers: dict[Tokens, int]) -> list[Job]:
    """Every sequence by itself."""
    rows = [Row(prefix, 0, sum(answers.values()), len(prefix)), *(Row(tokens, n) for tokens, n in answers.items())]
    return [Job(row) for row in rows if row.tokens]


def trunk_batches(jobs: Iterable[Job], *, budget: int) -> Iterator[list[Job]]:
    """Jobs with branches, in batches whose trunks have one length: no padding, no mask, no positions needed."""
    by_length: dict[int, list[Job]] = {}
    for job in jobs:
        by_length.setdefault(len(job.trunk.tokens), []).append(job)
    for length in sorted(by_length, reverse=True):
        same, size = by_length[length], max(1, budget // length)
        for start in range(0, len(same), size):
            yield same[start : start + size]
