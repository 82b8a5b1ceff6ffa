"""What a counting pass feeds the model: prompt groups as rows of tokens, jobs and batches, each token position once.

A *row* is fed as one sequence. A *job* is a first row and the rows that continue it: what several answers share is fed
once, and its KV cache serves them all.

    one answer          first   p p p p p a a a          full 1 everywhere, prefix 1 on p
    several answers     first   p p p p p                full n, prefix n
                        rest              a a a          full 1
                        rest              b b            full 1
    a boundary case     first   p p p p                  full n, prefix n
                        rest            p a a a          full 1, prefix n on p: this row begins with the whole prefix
                        rest            c c c c          full 1

A *batch* holds rows as one padded tensor, with how often each position counts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Int64
from torch import Tensor

from ...config import Sampling
from ...corpus.encode import Prompt, PromptGroup, ScoredText, Tokens, common_length
from ...errors import EngineError
from ..base import check_lengths
from ..generation import answer_batches, batches

CACHED = 2**18
"""Activations that fit a CPU core's cache: a block of rows has about this many."""


@dataclass(frozen=True)
class BatchRow:
    """Tokens to feed, and how often each of their positions counts."""

    tokens: Tokens  # never empty
    full: int  # how often every position counts for the full sequences
    prefix: int = 0  # how often each of the first `prefix_length` positions counts for the prefix sequences
    prefix_length: int = 0


@dataclass(frozen=True)
class Job:
    """A first row, and the rows that continue it; they are computed with the KV cache of the first."""

    first: BatchRow
    rest: tuple[BatchRow, ...] = ()


def plan(group: PromptGroup, *, switch: int | None = None, shares: bool = True) -> list[Job]:
    """The jobs that count a group exactly, in the cheaper of two ways.

    Sequences of more tokens than `switch` share nothing with shorter ones (`rope_switch`); without `shares`, no
    sequence is continued from another one's cache (`Network.shares`).
    """
    answers = Counter(group.full)
    if not answers:
        return []
    lengths = [len(group.prefix), *map(len, answers)]
    if switch is not None and min(lengths) <= switch < max(lengths):
        repeats = len(group.full)
        rows = [
            BatchRow(group.prefix, 0, repeats, len(group.prefix)),
            *(BatchRow(tokens, n) for tokens, n in answers.items()),
        ]
        return [Job(row) for row in rows if row.tokens]
    together = _share(group.prefix, answers, repeats=len(group.full), shares=shares)
    if not group.boundary_cases or not shares:
        return together
    clean = {tokens: n for tokens, n in answers.items() if tokens[: len(group.prefix)] == group.prefix}
    others = [Job(BatchRow(tokens, n)) for tokens, n in answers.items() if tokens not in clean and tokens]
    split = [*_share(group.prefix, clean, repeats=len(group.full)), *others]
    return min(together, split, key=fed_tokens)


def fed_tokens(jobs: Iterable[Job]) -> int:
    """How many token positions these jobs feed, without padding."""
    return sum(len(row.tokens) for job in jobs for row in (job.first, *job.rest))


def _share(prefix: Tokens, answers: dict[Tokens, int], *, repeats: int, shares: bool = True) -> list[Job]:
    """One job: what all sequences begin with, once, and the rest of each; the prefix counts `repeats` times.

    Without `shares`, a job for each sequence.
    """
    carrier = next((tokens for tokens in answers if tokens[: len(prefix)] == prefix), prefix)
    sequences = answers if carrier in answers else {carrier: 0, **answers}
    if len(sequences) == 1:
        return [Job(BatchRow(carrier, sequences[carrier], repeats, len(prefix)))] if carrier else []
    border = min(common_length(prefix, tokens) for tokens in sequences) if shares else 0
    tail = len(prefix) - border
    rest = tuple(
        BatchRow(tokens[border:], count, *((repeats, tail) if tail and tokens == carrier else ()))
        for tokens, count in sequences.items()
        if len(tokens) > border
    )
    if not border:
        return [Job(row) for row in rest]
    return [Job(BatchRow(prefix[:border], sum(answers.values()), repeats, border), rest)]


def job_batches(jobs: Iterable[Job], *, budget: int) -> Iterator[list[Job]]:
    """Jobs in batches whose first rows have one length: their caches need no padding, no mask and no positions."""
    by_length: dict[int, list[Job]] = {}
    for job in jobs:
        by_length.setdefault(len(job.first.tokens), []).append(job)
    for length in sorted(by_length, reverse=True):
        same, size = by_length[length], max(1, budget // length)
        for start in range(0, len(same), size):
            yield same[start : start + size]


@dataclass(frozen=True)
class Cut:
    """How work is cut into batches (`engines.base.Batching`): plain values, the same in every process.

    Attributes:
        budget: padded tokens of a batch that is counted or scored.
        answering: tokens of prompts and answers in the KV cache at a time.
        invariant: each question is computed alone.
        longest: tokens of the longest sequence that the model reads.
        vocabulary: tokens that the model knows.
        switch: sequences on the two sides of this length never share a batch (`rope_switch`).
        shares: sequences may be continued from another one's cache (`Network.shares`).
        padded: the most tokens of prompt and answer together that may be padded, or None (`unpadded_above`).
        mixes: prompts of several lengths may be answered together (`Network.mixes`).
    """

    budget: int
    answering: int
    invariant: bool
    longest: int
    vocabulary: int
    switch: int | None
    shares: bool
    padded: int | None = None
    mixes: bool = True

    @property
    def of_a_batch(self) -> int:
        """Padded tokens of a batch that is scored; 1 where each text stands alone."""
        return 1 if self.invariant else self.budget

    def check(self, sequences: Iterable[Tokens]) -> None:
        """Refuse sequences that the model cannot read, before anything runs."""
        sequences = list(sequences)
        largest = max((max(tokens) for tokens in sequences if tokens), default=0)
        if largest >= self.vocabulary:
            raise EngineError(
                f"the tokenizer gives token {largest}, but the model knows {self.vocabulary} tokens only: "
                "the tokenizer files do not belong to this model"
            )
        check_lengths(sequences, longest=self.longest)

    def count_batches(self, groups: Sequence[PromptGroup]) -> Iterator[list[Job]]:
        """Jobs of one row each, or jobs whose first rows have one length; they depend on these groups alone."""
        for some in [[group] for group in groups] if self.invariant else [groups]:
            jobs = [job for group in some for job in plan(group, switch=self.switch, shares=self.shares)]
            alone, shared = [job for job in jobs if not job.rest], [job for job in jobs if job.rest]
            yield from batches(alone, length=lambda job: len(job.first.tokens), budget=self.budget, switch=self.switch)
            yield from job_batches(shared, budget=self.budget)

    def sequences(self, batch: Sequence[Job]) -> list[Tokens]:
        """The rows that a batch feeds."""
        return [row.tokens for job in batch for row in (job.first, *job.rest)]

    def score_batches(self, texts: Sequence[ScoredText], *, every: bool = False) -> Iterator[list[int]]:
        """The batches, by position, in which texts are scored; without `every`, only those with something to score."""
        return batches(
            (index for index, text in enumerate(texts) if every or text.scored_tokens),
            length=lambda index: len(texts[index].tokens),
            budget=self.of_a_batch,
            switch=self.switch,
        )

    def answer_batches(self, prompts: Sequence[Prompt], *, sampling: Sampling) -> list[list[int]]:
        """The batches, by position, in which prompts are answered."""
        found = answer_batches(
            prompts,
            new=sampling.max_new_tokens,
            longest=min(self.longest, self.padded or self.longest),
            budget=1 if self.invariant else self.answering,
            switch=self.switch,
        )
        if self.mixes:
            return found
        alike: dict[tuple[int, int], list[int]] = {}
        for number, batch in enumerate(found):
            for index in batch:
                alike.setdefault((number, len(prompts[index].tokens)), []).append(index)
        return list(alike.values())


@dataclass(frozen=True)
class Block:
    """Some neighbouring rows of a batch, up to the end of the longest one.

    A row's *border* is the end of its part that counts for the prefix sequences.
    """

    rows: slice
    near: int  # the nearest border: in front of it, every row's positions count for the prefix sequences
    far: int  # the farthest border: from it on, none do
    shortest: int  # the shortest row's end: from it on, some positions are padding
    longest: int  # the longest row's end
    full: Int64[Tensor, "row 1"]  # how often each row counts for the full sequences
    prefix: Int64[Tensor, "row 1"]  # how often each row counts for the prefix sequences, in front of its border
    heads: Int64[Tensor, "row middle 1"]  # 1 where a position from `near` to `far` is in front of its row's border
    ends: Int64[Tensor, "row tail 1"]  # 1 where a position from `shortest` to `longest` is not padding

    @classmethod
    def of(cls, rows: Sequence[BatchRow], start: int, device: torch.device) -> Block:
        """The block of these rows, the first of which is row `start` of the batch."""
        lengths = [len(row.tokens) for row in rows]
        borders = [row.prefix_length if row.prefix else 0 for row in rows]
        return cls(
            slice(start, start + len(rows)),
            min(borders),
            max(borders),
            min(lengths),
            max(lengths),
            send(torch.tensor([[row.full] for row in rows]), device),
            send(torch.tensor([[row.prefix] for row in rows]), device),
            send(_up_to(borders), device),
            send(_up_to(lengths), device),
        )

    @cached_property
    def weights(self) -> Int64[Tensor, "span row*position"]:
        """How often each position counts for the full and for the prefix sequences; 0 where it is padding."""
        weights = torch.zeros(2, len(self.full), self.longest, dtype=torch.int64, device=self.full.device)
        weights[0, :, : self.shortest] = 1
        weights[0, :, self.shortest :] = self.ends[..., 0]
        weights[1, :, : self.near] = 1
        weights[1, :, self.near : self.far] = self.heads[..., 0]
        return (weights * torch.stack([self.full, self.prefix])).flatten(1)


@dataclass(frozen=True)
class Batch:
    """Rows, padded on the right to one length."""

    tokens: Int64[Tensor, "row position"]  # what is fed; causal attention never looks at the padding after a row's end
    blocks: tuple[Block, ...]  # the rows again, with how often they count
    full_tokens: int  # tokens of the full sequences that these rows stand for
    prefix_tokens: int  # tokens of the prefix sequences that these rows stand for

    @cached_property
    def weights(self) -> Int64[Tensor, "span row*position"]:
        """How often each position of the batch counts for the full and for the prefix sequences; 0 for padding."""
        rows, positions = self.tokens.shape
        weights = torch.zeros(2, rows, positions, dtype=torch.int64, device=self.tokens.device)
        for block in self.blocks:
            weights[:, block.rows, : block.longest] = block.weights.unflatten(1, (-1, block.longest))
        return weights.flatten(1)

    @classmethod
    def of(cls, rows: Sequence[BatchRow], device: torch.device, *, d_mlp: int = 1) -> Batch:
        """Pad rows and move them to the device; on a CPU, `d_mlp` decides how many of them make a block."""
        tokens = padded([row.tokens for row in rows])
        size = max(1, CACHED // (tokens.shape[1] * d_mlp)) if device.type == "cpu" else len(rows)
        return cls(
            send(tokens, device),
            tuple(Block.of(rows[start : start + size], start, device) for start in range(0, len(rows), size)),
            sum(row.full * len(row.tokens) for row in rows),
            sum(row.prefix * row.prefix_length for row in rows),
        )


def padded(rows: Sequence[Tokens]) -> Int64[Tensor, "row position"]:
    """Sequences as one tensor, with token 0 behind the shorter ones."""
    longest = max(map(len, rows))
    return torch.tensor([[*row, *[0] * (longest - len(row))] for row in rows])


def send(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor on its way to the device; the host does not wait for a GPU to receive it."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def _up_to(ends: Sequence[int]) -> Int64[Tensor, "row position 1"]:
    """1 in front of each row's end, else 0, for the positions between the nearest end and the farthest."""
    positions = torch.arange(min(ends), max(ends))
    return (positions < torch.tensor(ends)[:, None]).long()[:, :, None]
