"""What a rank's observer does: count and score a prefix tree that vLLM runs, or watch it while it writes answers.

vLLM feeds requests in pieces, skips tokens whose state is cached, repeats evicted ones, and pads. A step's
`SchedulerOutput` says how many tokens of which request it feeds, from which position on. `Schedule` finds from that the
node of each row, `Pass` counts and scores a node when it is first computed, and the report says whether all were.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Int32
from torch import Tensor

from ...core.interventions import LayerIntervention
from ..routing import RoutingSums
from .experts import RoutedCall
from .firing import ActivationSums, FiringSums, RowWeights, places
from .messages import Message, PassStatistics, unpack
from .rank import Rank
from .sites import RankSite

_LOGITS = {"cpu": 2**23, "cuda": 2**27}
"""The most logits in memory, by device: 32 MiB and 512 MiB in float32."""

ReadLogits = Callable[[Tensor], Tensor | None]
"""Logits from hidden states; None on ranks that get no logits."""

_NOWHERE = np.zeros(0, dtype=np.int32)


@dataclass
class _Request:
    """A request that runs: its nodes (none for one that the driver did not send), and what was fed of it so far."""

    path: Int32[np.ndarray, " position"]
    fed_to: int = 0
    pieces: int = 0


@dataclass
class Schedule:
    """Which node of the prefix tree each row of a step is, and which nodes were computed so far.

    The number `nodes`, one past the last node, stands for rows that are no node: those of an unknown request, or beyond
    a sequence's end.
    """

    nodes: int
    paths: dict[bytes, Int32[np.ndarray, " position"]]  # each leaf's nodes, by its tokens, which identify a request
    token: Int32[np.ndarray, " node_and_none"]  # each node's token
    depth: Int32[np.ndarray, " node_and_none"]  # each node's position in its sequences
    seen: Bool[np.ndarray, " node_and_none"]  # which nodes were computed
    statistics: PassStatistics = field(default_factory=PassStatistics)
    _requests: dict[str, _Request] = field(default_factory=dict)

    @classmethod
    def of(cls, message: Mapping[str, Any]) -> Schedule:
        """The schedule of the tree in a message, with nothing computed yet."""
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
        """How many nodes were not computed yet."""
        return int((~self.seen).sum())

    def pieces(self, step: Any) -> dict[str, Int32[np.ndarray, " row"]]:
        """The nodes of the positions of each request that a step feeds."""
        for one in step.finished_req_ids:
            self._requests.pop(one, None)
        starts: dict[str, int] = {}
        for new in step.scheduled_new_reqs:
            starts[new.req_id] = new.num_computed_tokens
            if new.req_id not in self._requests:  # else it was evicted and is sent again, to the V2 runner
                tokens = np.array(new.prompt_token_ids or (), dtype=np.int32)
                path = self.paths.get(tokens.tobytes())
                self._requests[new.req_id] = _Request(_NOWHERE if path is None else path)
                self.statistics.requests += 1
                self.statistics.strangers += path is None
        cached = step.scheduled_cached_reqs
        starts.update(zip(cached.req_ids, cached.num_computed_tokens, strict=True))
        return {one: self._piece(one, starts[one], count) for one, count in step.num_scheduled_tokens.items()}

    def _piece(self, name: str, start: int, count: int) -> Int32[np.ndarray, " row"]:
        request = self._requests.setdefault(name, _Request(_NOWHERE))
        known = request.path[start : start + count]
        self.statistics.preemptions += start < request.fed_to
        self.statistics.cached_tokens += start if request.pieces == 0 else 0
        request.pieces += 1
        request.fed_to = start + count
        self.statistics.chunked += request.pieces == 1 and start + count < len(request.path)
        return np.concatenate([known, np.full(count - len(known), self.nodes, dtype=np.int32)])

    def rows(self, pieces: Sequence[Int32[np.ndarray, " row"]]) -> Int32[np.ndarray, " row"]:
        """The node of each row of a step whose requests' pieces follow each other."""
        rows = np.concatenate(pieces)
        self.statistics.steps += 1
        self.statistics.rows += len(rows)
        return rows

    def first_sight(self, rows: Int32[np.ndarray, " row"]) -> Bool[np.ndarray, " row"]:
        """Which rows compute their node for the first time; marks these nodes as seen."""
        fresh = ~self.seen[rows]
        _, first = np.unique(rows, return_index=True)
        once = np.zeros(len(rows), dtype=bool)
        once[first] = True
        self.seen[rows] = True
        return fresh & once


class Scores:
    """The likelihood of each wanted node, computed on the rank that has the logits.

        nll[child] = logsumexp(logits[parent]) − logits[parent, token of child]        in float32

    A computed node serves all its wanted children in the tree at once, so a cached prefix needs no second run, and the
    logits of a bounded number of rows are in memory. vLLM's `prompt_logprobs=0` gives the same numbers (a test compares
    them), but keeps the logits of a whole chunk and makes a Python object per token.
    """

    def __init__(self, schedule: Schedule, wanted: Bool[np.ndarray, " node"], *, vocabulary: int) -> None:
        """Find each wanted node's parent."""
        parent = np.full(schedule.nodes, -1, dtype=np.int64)
        for path in schedule.paths.values():
            parent[path[1:]] = path[:-1]
        children = np.flatnonzero(wanted & (parent >= 0))
        self._children = children[np.argsort(parent[children], kind="stable")]
        count = np.bincount(parent[self._children], minlength=schedule.nodes + 1)
        self._first = np.concatenate([[0], np.cumsum(count)])
        self._token = schedule.token
        self._vocabulary = vocabulary
        self._nodes = schedule.nodes
        self._found: list[tuple[np.ndarray, Tensor]] = []

    def add(
        self, rows: Int32[np.ndarray, " row"], fresh: Bool[np.ndarray, " row"], hidden: Tensor, head: ReadLogits
    ) -> None:
        """Score the children of the nodes that these rows compute for the first time."""
        count = self._first[rows + 1] - self._first[rows] if len(rows) else np.zeros(0, np.int64)
        asked = np.flatnonzero(fresh & (count > 0))
        size = max(1, _LOGITS.get(hidden.device.type, _LOGITS["cuda"]) // self._vocabulary)
        for start in range(0, len(asked), size):
            some = asked[start : start + size]
            self._score(rows[some], count[some], hidden[_index(some, hidden)], head)

    def _score(self, nodes: np.ndarray, count: np.ndarray, hidden: Tensor, head: ReadLogits) -> None:
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
        """float32[node], the likelihoods, and uint8[node], how often each was computed."""
        nll, known = np.zeros(self._nodes, dtype=np.float32), np.zeros(self._nodes, dtype=np.uint8)
        for children, losses in self._found:
            nll[children] = losses.cpu().numpy()
            known[children] += 1
        return nll.tobytes(), known.tobytes()


def _index(values: np.ndarray, like: Tensor) -> Tensor:
    return torch.from_numpy(values.astype(np.int64)).to(like.device, non_blocking=True)


class Pass:
    """Counts and scores while vLLM runs the leaves of a prefix tree; an `RankObserver` of a rank."""

    def __init__(self, rank: Rank, message: Mapping[str, Any]) -> None:
        """Take the tree that the driver sent."""
        self._rank = rank
        self._schedule = Schedule.of(message)
        self._weights = self._scores = self._sums = self._moments = self._routing = None
        if message["weights"] is not None:
            weights = unpack(message, "weights", np.int64).reshape(2, -1)
            self._weights = np.concatenate([weights, np.zeros((2, 1), np.int64)], axis=1)
            self._sums = FiringSums(rank.sites, rank.d_mlp, weights, device=rank.device)
            self._moments = ActivationSums(rank.sites, rank.d_mlp, rank.device) if message["moments"] else None
            experts = next((site.experts for site in rank.sites if site.experts is not None), None)
            if experts is not None:
                self._routing = RoutingSums(len(rank.layers), experts.number, rank.device)
        if message["scored"] is not None and rank.last:
            wanted = unpack(message, "scored", np.uint8).astype(bool)
            self._scores = Scores(self._schedule, wanted, vocabulary=rank.runner.vocabulary)
        self._tally = np.zeros(2, dtype=np.int64)
        self._site_rows = {(site.layer, site.start): 0 for site in rank.sites}
        self._place = places(rank.sites)
        self._times: Tensor | None = None
        self._wrong = torch.zeros((), dtype=torch.int64, device=rank.device)
        self._infinite = torch.zeros((), dtype=torch.int64, device=rank.device)
        self._padded = 0
        self._pieces: dict[str, np.ndarray] | None = None
        self._rows: np.ndarray | None = None
        self._fresh: np.ndarray | None = None
        self._row_weights: RowWeights | None = None
        self._now = 0

    def step(self, scheduled: Any) -> None:
        """A scheduler step begins; None when it is over."""
        self._pieces = None if scheduled is None else self._schedule.pieces(scheduled)
        self._rows = self._fresh = self._row_weights = None

    def before(self, inputs: Mapping[str, Any]) -> None:
        """Find the node of each row, check that the row holds the node's token, and weigh it."""
        if self._pieces is None:  # a warm-up or dummy run, which feeds no request
            return
        self._rows = rows = self._schedule.rows([self._pieces[name] for name in self._rank.runner.requests])
        self._check(rows, inputs)
        self._fresh = fresh = self._schedule.first_sight(rows)
        if self._weights is None or self._sums is None:
            return
        weights = np.where(fresh, self._weights[:, rows], 0)
        self._tally += weights.sum(axis=1)
        self._row_weights = RowWeights.of(weights, planes=self._sums.planes, device=self._rank.device)
        self._times = torch.from_numpy(weights)
        if self._moments is not None:
            self._moments.weigh(weights)

    def _check(self, rows: np.ndarray, inputs: Mapping[str, Any]) -> None:
        positions, tokens = inputs.get("positions"), inputs.get("input_ids")
        self._now = next(one.shape[-1] for one in (tokens, positions) if one is not None)  # with padding
        self._padded += self._now
        known = torch.from_numpy(rows != self._schedule.nodes).to(self._wrong.device)
        for given, expected in ((tokens, self._schedule.token), (positions, self._schedule.depth)):
            if given is not None:  # Qwen-VL's positions have three axes, which are equal in a text
                there = torch.from_numpy(expected[rows]).to(given.device)
                axes = given.reshape(-1, given.shape[-1])[:, : len(rows)]
                self._wrong += ((axes != there).any(0) & known).sum()

    def layer(self, site: RankSite, inputs: Tensor, changed: tuple[Tensor, Tensor] | None) -> None:
        """Count a layer's firings, and add up its activations if the driver wants moments."""
        if self._rows is None:
            return
        self._saw(site, inputs.shape[0])
        if self._row_weights is None or self._sums is None or not any(self._row_weights.largest):
            return
        gate = inputs[:, : site.width]
        self._sums.add(site, gate, self._row_weights, changed=changed)
        if self._moments is not None:
            self._moments.add(site, gate, changed=changed)

    def routed(self, site: RankSite, call: RoutedCall, change: LayerIntervention | None) -> None:
        """Count the firings of a layer's routed experts, each on the tokens sent to it, and what the router chose."""
        if self._rows is None or site.experts is None:
            return
        self._saw(site, call.x.shape[0])
        weights, times = self._row_weights, self._times
        if weights is None or times is None or self._sums is None or not any(weights.largest):
            return
        rows = times.shape[1]  # the others are padding
        if self._routing is not None:
            self._routing.add(
                self._place[site.layer], call.index[:rows], call.weights[:rows] * site.experts.scale, times
            )
        for expert, tokens, activation in site.experts.activations(call, change):
            start = site.start + expert * site.experts.width
            self._sums.add_expert(site, start, activation, tokens, weights)
            if self._moments is not None:
                self._moments.add_expert(site, start, activation, tokens)

    def _saw(self, site: RankSite, rows: int) -> None:
        if rows != self._now:
            raise RuntimeError(f"layer {site.layer} saw {rows} rows, the model was fed {self._now}")
        self._site_rows[site.layer, site.start] += rows

    def after(self, output: object) -> None:
        """Score the final hidden states, on the ranks that have them."""
        if self._rows is None or self._fresh is None or not self._rank.last or not isinstance(output, Tensor):
            return
        hidden = output.view(-1, output.shape[-1])
        self._infinite += (~torch.isfinite(hidden[: len(self._rows)])).any()
        if self._scores is not None:
            self._scores.add(self._rows, self._fresh, hidden, self._rank.runner.model.compute_logits)

    def report(self) -> Message:
        """What the driver needs to gather the ranks' results and to check them."""
        counts = None if self._sums is None else self._sums.total().numpy().tobytes()
        moments = None if self._moments is None else self._moments.total().numpy().tobytes()
        nll, known = (None, None) if self._scores is None else self._scores.result()
        return {
            **self._rank.describe(),
            "counts": counts,
            "moments": moments,
            "nll": nll,
            "known": known,
            "tally": self._tally.tolist(),
            "unseen": self._schedule.unseen,
            "wrong": int(self._wrong),
            "infinite": int(self._infinite),
            "fed": self._padded,
            "layer_rows": [self._layer_rows(layer) for layer in self._rank.layers],
            "routing": None if self._routing is None else self._routing.total().numpy().tobytes(),
            "statistics": asdict(self._schedule.statistics),
        }

    def _layer_rows(self, layer: int) -> int:
        """The rows that each site of a layer saw; of a site that saw others, its own."""
        seen = [rows for (own, _), rows in self._site_rows.items() if own == layer]
        return next((rows for rows in seen if rows != self._padded), self._padded)


class AnswerWatch:
    """Watches for NaN and infinity while vLLM writes answers; an `RankObserver` of a rank."""

    def __init__(self, rank: Rank) -> None:
        self._rank = rank
        self._rows = 0
        self._infinite = torch.zeros((), dtype=torch.int64, device=rank.device)

    def step(self, scheduled: Any) -> None:
        """A scheduler step begins; None when it is over."""
        self._rows = 0 if scheduled is None else scheduled.total_num_scheduled_tokens

    def before(self, inputs: Mapping[str, Any]) -> None:
        """On a CPU, give vLLM generators that can take the step's draws back."""
        if self._rank.device.type != "cpu":
            return
        runner = self._rank.runner
        for request, generator in runner.generators().items():
            if not isinstance(generator, Rewindable):
                generator = Rewindable(generator)
                runner.set_generator(request, generator)
            generator.mark()

    def layer(self, site: RankSite, inputs: Tensor, changed: tuple[Tensor, Tensor] | None) -> None:
        """Nothing to do."""

    def routed(self, site: RankSite, call: RoutedCall, change: LayerIntervention | None) -> None:
        """Nothing to do."""

    def after(self, output: object) -> None:
        """Look at the final hidden states without padding, on the ranks that have them."""
        if self._rank.last and isinstance(output, Tensor):
            hidden = output.view(-1, output.shape[-1])[: self._rows]
            self._infinite += (~torch.isfinite(hidden)).any()

    def report(self) -> Message:
        """In how many steps there was NaN or infinity."""
        return {"infinite": int(self._infinite)}


class Rewindable(torch.Generator):
    """A generator on a CPU whose last draw vLLM can take back.

    Where a prompt is read in several steps, vLLM draws a token after each and takes the draw back by moving CUDA's
    offset. Generators on CPUs have no offset, and vLLM would fail. This one goes back to where the step began.
    """

    def __init__(self, like: torch.Generator) -> None:
        """Continue from another generator's state."""
        self.set_state(like.get_state())
        self._marked = self.get_state()

    def __new__(cls, like: torch.Generator) -> Rewindable:
        """A generator on the same device."""
        return super().__new__(cls, device=like.device)  # pyright: ignore[reportCallIssue] - torch's stub has no __new__

    def mark(self) -> None:
        """A step begins here."""
        self._marked = self.get_state()

    def get_offset(self) -> int:
        """The offset after one draw."""
        return 4

    def set_offset(self, offset: int) -> torch.Generator:
        """Take the step's draw back."""
        return self.set_state(self._marked)
