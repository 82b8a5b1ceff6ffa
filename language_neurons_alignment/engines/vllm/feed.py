"""Which node of the token tree each row of a step is, whatever the scheduler chose to run (on one rank).

vLLM feeds requests in pieces, skips what is cached, feeds evicted tokens again, pads. A step's `SchedulerOutput` says
how many tokens of which request are fed, and from which position on; a request is known by its own prompt tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Bool, Int32

from .wire import unpack


@dataclass
class FeedStatistics:
    """What the scheduler did, for the record and for tests that must know."""

    steps: int = 0
    rows: int = 0
    requests: int = 0
    chunked: int = 0
    cached_tokens: int = 0
    preemptions: int = 0
    strangers: int = 0


@dataclass
class _Request:
    path: Int32[np.ndarray, " position"] | None
    fed_to: int = 0
    pieces: int = 0


@dataclass(frozen=True)
class Piece:
    """Consecutive positions of one request that a step feeds."""

    path: Int32[np.ndarray, " position"] | None
    start: int
    count: int


@dataclass
class Feed:
    """The tree on the workers' side, and which of its nodes were seen.

    `nodes` (one past the last) stands for rows that belong to no node: a stranger's, or beyond a sequence's end.
    """

    nodes: int
    paths: dict[bytes, Int32[np.ndarray, " position"]]
    token: Int32[np.ndarray, " node_and_none"]
    depth: Int32[np.ndarray, " node_and_none"]
    seen: Bool[np.ndarray, " node_and_none"]
    statistics: FeedStatistics = field(default_factory=FeedStatistics)
    _requests: dict[str, _Request] = field(default_factory=dict)

    @classmethod
    def of(cls, message: Mapping[str, Any]) -> Feed:
        """The tree that a message carries, with nothing seen yet."""
        nodes = int(message["nodes"])
        lengths = unpack(message, "lengths", np.int32)
        ends = np.cumsum(lengths)[:-1]
        flat_tokens, flat_paths = unpack(message, "tokens", np.int32), unpack(message, "paths", np.int32)
        token, depth = np.full(nodes + 1, -1, np.int32), np.full(nodes + 1, -1, np.int32)
        token[flat_paths] = flat_tokens
        starts = np.repeat(np.cumsum(lengths) - lengths, lengths)
        depth[flat_paths] = np.arange(len(flat_paths), dtype=np.int32) - starts
        paths = {
            tokens.tobytes(): path
            for tokens, path in zip(np.split(flat_tokens, ends), np.split(flat_paths, ends), strict=True)
        }
        seen = np.zeros(nodes + 1, dtype=bool)
        seen[nodes] = True
        return cls(nodes, paths, token, depth, seen)

    @property
    def unseen(self) -> int:
        """How many nodes were not fed yet."""
        return int((~self.seen).sum())

    def pieces(self, step: Any) -> dict[str, Piece]:
        """What a step feeds of each request."""
        for one in step.finished_req_ids:
            self._requests.pop(one, None)
        starts: dict[str, int] = {}
        for new in step.scheduled_new_reqs:
            starts[new.req_id] = new.num_computed_tokens
            self._meet(new)
        cached = step.scheduled_cached_reqs
        starts.update(zip(cached.req_ids, cached.num_computed_tokens, strict=True))
        return {one: self._piece(one, starts[one], count) for one, count in step.num_scheduled_tokens.items()}

    def _meet(self, new: Any) -> None:
        if new.req_id in self._requests:  # comes again after it was evicted (V2 runner's way)
            return
        tokens = np.array(new.prompt_token_ids or (), dtype=np.int32)
        path = self.paths.get(tokens.tobytes())
        self._requests[new.req_id] = _Request(path)
        self.statistics.requests += 1
        self.statistics.strangers += path is None

    def _piece(self, name: str, start: int, count: int) -> Piece:
        request = self._requests.setdefault(name, _Request(None))
        length = 0 if request.path is None else len(request.path)
        self.statistics.preemptions += start < request.fed_to
        self.statistics.cached_tokens += start if request.pieces == 0 else 0
        request.pieces += 1
        request.fed_to = start + count
        self.statistics.chunked += request.pieces == 1 and start + count < length
        return Piece(request.path, start, count)

    def rows(self, pieces: Sequence[Piece]) -> Int32[np.ndarray, " row"]:
        """The node of each row, the requests' pieces one after the other."""
        self.statistics.steps += 1
        rows = np.concatenate([self._nodes(piece) for piece in pieces])
        self.statistics.rows += len(rows)
        return rows

    def _nodes(self, piece: Piece) -> Int32[np.ndarray, " row"]:
        nodes = np.full(piece.count, self.nodes, dtype=np.int32)
        if piece.path is not None:
            known = piece.path[piece.start : piece.start + piece.count]
            nodes[: len(known)] = known
        return nodes

    def first_sight(self, rows: Int32[np.ndarray, " row"]) -> Bool[np.ndarray, " row"]:
        """Which rows are the first of their node, and mark their nodes as seen."""
        fresh = ~self.seen[rows]
        _, first = np.unique(rows, return_index=True)
        once = np.zeros(len(rows), dtype=bool)
        once[first] = True
        self.seen[rows] = True
        return fresh & once
