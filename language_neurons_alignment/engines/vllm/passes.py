"""A pass over a token tree on one rank: what was fed is counted, scored, and held against what should have been fed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Int32
from torch import Tensor

from .firing import ActivationSums, FiringSums, RowWeights
from .rank import Rank
from .sites import RankSite
from .tree import Message, unpack

# ── Which node of the token tree each row of a step is, whatever the scheduler chose to run (on one rank).
#
# vLLM feeds requests in pieces, skips what is cached, feeds evicted tokens again, pads. A step's `SchedulerOutput` says
# how many tokens of which request are fed, and from which position on; a request is known by its own prompt tokens.


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


# ── The likelihood of the tokens that actually follow, on the rank that has the logits (SPEC 6).
#
#     nll[child] = logsumexp(logits[parent]) − logits[parent, token of child]        in float32
#
# Every fed node answers for all its wanted children in the tree at once, so a cached prefix needs no second run, and
# logits exist for a bounded number of rows at a time. vLLM's `prompt_logprobs=0` gives the same numbers (a test holds
# them together), but makes the logits of a whole chunk at once and a Python object per token.

_LOGITS = {"cpu": 2**23, "cuda": 2**27}
"""How many logits exist at a time, by device: 32 MiB and 512 MiB in float32."""

Head = Callable[[Tensor], Tensor | None]


class Scores:
    """The likelihood of each wanted node, as far as it is known."""

    def __init__(self, feed: Feed, wanted: Bool[np.ndarray, " node"], *, vocabulary: int) -> None:
        """Find each wanted node's parent.

        Args:
            feed: the tree.
            wanted: nodes whose likelihood is wanted; first tokens have none.
            vocabulary: how many logits a row has, for bounded memory.
        """
        parent = np.full(feed.nodes, -1, dtype=np.int64)
        for path in feed.paths.values():
            parent[path[1:]] = path[:-1]
        children = np.flatnonzero(wanted & (parent >= 0))
        self._children = children[np.argsort(parent[children], kind="stable")]
        count = np.bincount(parent[self._children], minlength=feed.nodes + 1)
        self._first = np.concatenate([[0], np.cumsum(count)])
        self._token = feed.token
        self._vocabulary = vocabulary
        self._nodes = feed.nodes
        self._found: list[tuple[np.ndarray, Tensor]] = []

    def add(self, rows: Int32[np.ndarray, " row"], fresh: Bool[np.ndarray, " row"], hidden: Tensor, head: Head) -> None:
        """Score the children of the rows that are seen for the first time."""
        count = self._first[rows + 1] - self._first[rows] if len(rows) else np.zeros(0, np.int64)
        asked = np.flatnonzero(fresh & (count > 0))
        size = max(1, _LOGITS.get(hidden.device.type, _LOGITS["cuda"]) // self._vocabulary)
        for start in range(0, len(asked), size):
            some = asked[start : start + size]
            self._score(rows[some], count[some], hidden[_index(some, hidden)], head)

    def _score(self, nodes: np.ndarray, count: np.ndarray, hidden: Tensor, head: Head) -> None:
        logits = head(hidden)
        if logits is None:  # only one of the tensor-parallel ranks gets them
            return
        logits = logits.float()
        offsets = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
        children = self._children[np.repeat(self._first[nodes], count) + offsets]
        row = _index(np.repeat(np.arange(len(nodes)), count), logits)
        token = _index(self._token[children], logits)
        self._found.append((children, torch.logsumexp(logits, dim=-1)[row] - logits[row, token]))

    def result(self) -> tuple[bytes, bytes]:
        """float32[node] and uint8[node]: the likelihoods, and which of them were computed."""
        nll, known = np.zeros(self._nodes, dtype=np.float32), np.zeros(self._nodes, dtype=np.uint8)
        for children, losses in self._found:
            nll[children] = losses.cpu().numpy()
            known[children] += 1
        return nll.tobytes(), known.tobytes()


def _index(values: np.ndarray, like: Tensor) -> Tensor:
    return torch.from_numpy(values.astype(np.int64)).to(like.device, non_blocking=True)


class Pass:
    """Counts and scores while vLLM runs the leaves of a tree; an `Observer` of a rank."""

    def __init__(self, rank: Rank, message: Mapping[str, Any]) -> None:
        """Take the tree that the driver sent."""
        self._rank = rank
        self._feed = Feed.of(message)
        self._weights = self._scores = self._sums = self._moments = None
        if message["weights"] is not None:
            weights = unpack(message, "weights", np.int64).reshape(2, -1)
            self._weights = np.concatenate([weights, np.zeros((2, 1), np.int64)], axis=1)
            self._sums = FiringSums(rank.sites, weights, device=rank.device)
            self._moments = ActivationSums(rank.sites, rank.d_mlp, rank.device) if message["moments"] else None
        if message["scored"] is not None and rank.last:
            wanted = unpack(message, "scored", np.uint8).astype(bool)
            self._scores = Scores(self._feed, wanted, vocabulary=rank.runner.model_config.get_vocab_size())
        self._tally = np.zeros(2, dtype=np.int64)
        self._layer_rows = {site.layer: 0 for site in rank.sites}
        self._wrong = torch.zeros((), dtype=torch.int64, device=rank.device)
        self._infinite = torch.zeros((), dtype=torch.int64, device=rank.device)
        self._padded = 0
        self._pieces: dict[str, Piece] | None = None
        self._rows: np.ndarray | None = None
        self._fresh: np.ndarray | None = None
        self._row_weights: RowWeights | None = None
        self._now = 0

    def step(self, scheduled: Any) -> None:
        """A step begins (None: it is over)."""
        self._pieces = None if scheduled is None else self._feed.pieces(scheduled)
        self._rows = self._fresh = self._row_weights = None

    def before(self, inputs: Mapping[str, Any]) -> None:
        """Find the node of each row, check that it holds what the tree says, and weigh it."""
        if self._pieces is None:  # a warm-up or dummy run: nobody's tokens
            return
        order = self._rank.runner.input_batch.req_ids
        self._rows = rows = self._feed.rows([self._pieces[name] for name in order])
        self._check(rows, inputs)
        self._fresh = fresh = self._feed.first_sight(rows)
        if self._weights is None or self._sums is None:
            return
        weights = np.where(fresh, self._weights[:, rows], 0)
        self._tally += weights.sum(axis=1)
        self._row_weights = RowWeights.of(weights, planes=self._sums.planes, device=self._rank.device)
        if self._moments is not None:
            self._moments.weigh(weights)

    def _check(self, rows: np.ndarray, inputs: Mapping[str, Any]) -> None:
        positions, tokens = inputs.get("positions"), inputs.get("input_ids")
        self._now = next(one.shape[-1] for one in (tokens, positions) if one is not None)  # with padding
        self._padded += self._now
        known = torch.from_numpy(rows != self._feed.nodes).to(self._wrong.device)
        for given, expected in ((tokens, self._feed.token), (positions, self._feed.depth)):
            if given is not None and given.dim() == 1:
                there = torch.from_numpy(expected[rows]).to(given.device)
                self._wrong += ((given[: len(rows)] != there) & known).sum()

    def layer(self, site: RankSite, inputs: Tensor, changed: tuple[Tensor, Tensor] | None) -> None:
        """Count a layer's firings, and add up its activations if that was asked for."""
        if self._rows is None:
            return
        if inputs.shape[0] != self._now:
            raise RuntimeError(f"layer {site.layer} saw {inputs.shape[0]} rows, the model was fed {self._now}")
        self._layer_rows[site.layer] += inputs.shape[0]
        if self._row_weights is None or self._sums is None or not any(self._row_weights.largest):
            return
        gate = inputs[:, : self._rank.d_mlp]
        self._sums.add(site.layer, gate, self._row_weights, changed=changed)
        if self._moments is not None:
            self._moments.add(site, gate, changed=changed)

    def after(self, output: object) -> None:
        """Score the final hidden states, where they are."""
        if self._rows is None or self._fresh is None or not self._rank.last or not isinstance(output, Tensor):
            return
        hidden = output.view(-1, output.shape[-1])
        self._infinite += (~torch.isfinite(hidden[: len(self._rows)])).any()
        if self._scores is not None:
            self._scores.add(self._rows, self._fresh, hidden, self._rank.runner.get_model().compute_logits)

    def report(self) -> Message:
        """Everything that the driver needs to put the ranks together, and to believe them."""
        counts = None if self._sums is None else self._sums.total(self._rank.d_mlp).numpy().tobytes()
        moments = None if self._moments is None else self._moments.total().numpy().tobytes()
        nll, known = (None, None) if self._scores is None else self._scores.result()
        return {
            **self._rank.describe(),
            "counts": counts,
            "moments": moments,
            "nll": nll,
            "known": known,
            "tally": self._tally.tolist(),
            "unseen": self._feed.unseen,
            "wrong": int(self._wrong),
            "infinite": int(self._infinite),
            "fed": self._padded,
            "layer_rows": [self._layer_rows[site.layer] for site in self._rank.sites],
            "statistics": asdict(self._feed.statistics),
        }


# ── How vLLM is told to choose tokens, and who looks on while it does.


class Rewindable(torch.Generator):
    """Random numbers on a CPU that vLLM can take back.

    Where a prompt is read in several steps, vLLM draws a token after each and takes the draw back by moving CUDA's
    offset, which generators on CPUs do not have: there the engine would end. Here it goes back to where the step began.
    """

    def __init__(self, like: torch.Generator) -> None:
        """Go on from where another one is."""
        self.set_state(like.get_state())
        self._marked = self.get_state()

    def __new__(cls, like: torch.Generator) -> Rewindable:
        """On the same device."""
        return super().__new__(cls, device=like.device)  # pyright: ignore[reportCallIssue] - torch's stub has no __new__

    def mark(self) -> None:
        """A step begins here."""
        self._marked = self.get_state()

    def get_offset(self) -> int:
        """One draw."""
        return 4

    def set_offset(self, offset: int) -> torch.Generator:
        """Take the step's draw back."""
        return self.set_state(self._marked)


class AnswerWatch:
    """Looks on while the model answers, for NaN and infinity; an `Observer` of a rank."""

    def __init__(self, rank: Rank) -> None:
        """Nothing seen yet."""
        self._rank = rank
        self._rows = 0
        self._infinite = torch.zeros((), dtype=torch.int64, device=rank.device)

    def step(self, scheduled: Any) -> None:
        """A step begins (None: it is over)."""
        self._rows = 0 if scheduled is None else scheduled.total_num_scheduled_tokens

    def before(self, inputs: Mapping[str, Any]) -> None:
        """On a CPU, see to it that the step's draws can be taken back."""
        if self._rank.device.type != "cpu":
            return
        runner = self._rank.runner
        for row, generator in runner.input_batch.generators.items():
            if not isinstance(generator, Rewindable):
                generator = Rewindable(generator)
                runner.input_batch.generators[row] = generator
                runner.requests[runner.input_batch.req_ids[row]].generator = generator
            generator.mark()

    def layer(self, site: RankSite, inputs: Tensor, changed: tuple[Tensor, Tensor] | None) -> None:
        """Nothing to do."""

    def after(self, output: object) -> None:
        """Look at the final hidden states, padding aside, where they are."""
        if self._rank.last and isinstance(output, Tensor):
            hidden = output.view(-1, output.shape[-1])[: self._rows]
            self._infinite += (~torch.isfinite(hidden)).any()

    @property
    def infinite(self) -> int:
        """In how many steps there was any."""
        return int(self._infinite)
