"""A pass over a token tree on one rank: what was fed is counted, scored, and held against what should have been fed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .feed import Feed, Piece
from .firing import FiringSums, RowWeights
from .moments import ActivationSums
from .rank import Rank
from .scoring import Scores
from .sites import RankSite
from .wire import Message, unpack


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
        self._sums.make_room(self._row_weights.largest)
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
        if self._row_weights is None or self._sums is None or not self._row_weights.largest:
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
