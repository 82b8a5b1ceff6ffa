"""The likelihood of the tokens that actually follow, on the rank that has the logits (SPEC 6).

    nll[child] = logsumexp(logits[parent]) − logits[parent, token of child]        in float32

Every fed node answers for all its wanted children in the tree at once, so a cached prefix needs no second run, and
logits exist for a bounded number of rows at a time. vLLM's `prompt_logprobs=0` gives the same numbers (a test holds
them together), but makes the logits of a whole chunk at once and a Python object per token.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Bool, Int32
from torch import Tensor

from .feed import Feed

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
