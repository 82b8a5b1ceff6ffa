"""A running vLLM: requests in, calls to its workers, and its end."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import numpy as np

from ...errors import EngineError
from ..base import Progress
from .launch import explained
from .tree import TokenTree
from .wire import Message

_WINDOW = 4096
"""Requests that are with vLLM at a time: enough to fill every step, few enough to drop quickly."""

_GRACE = 10.0
"""Seconds that vLLM's processes have to end by themselves."""


class Process:
    """vLLM's engine with its workers."""

    def __init__(self, engine: Any) -> None:
        """Take over a started engine (`vllm.v1.engine.llm_engine.LLMEngine`)."""
        self._engine: Any = engine
        self._number = 0
        self._open: set[str] = set()

    @property
    def engine(self) -> Any:
        """vLLM's own object.

        Raises:
            EngineError: the engine was closed.
        """
        if self._engine is None:
            raise EngineError("this vLLM engine is closed: load it again")
        return self._engine

    def rpc(self, method: str, *args: Message | str | int | None) -> list[Message]:
        """Call a method of every worker, and return their answers."""
        with explained(f"vLLM's workers failed in {method}"):
            return self.engine.collective_rpc(method, args=args)

    def feed(self, tree: TokenTree, *, weights: np.ndarray, progress: Progress) -> None:
        """Run every leaf of a tree once, neighbours after each other so that they find each other's cache.

        Args:
            tree: what to run.
            weights: how many tokens of the corpus each node stands for, for the progress.
            progress: told when a leaf is done.
        """
        from vllm import SamplingParams
        from vllm.inputs.engine import tokens_input

        sampling = SamplingParams(max_tokens=1, temperature=0.0, detokenize=False)
        waiting = iter(self._work(tree, weights))
        worth: dict[str, int] = {}
        engine = self.engine
        with explained("vLLM failed while it read the corpus"):
            while True:
                while len(self._open) < _WINDOW and (job := next(waiting, None)) is not None:
                    self._number += 1
                    name = f"lna-{self._number}"
                    worth[name] = job[1]
                    self._open.add(name)
                    engine.add_request(name, tokens_input(list(job[0])), sampling)
                if not self._open:
                    return
                for output in engine.step():
                    if output.finished:
                        self._open.discard(output.request_id)
                        progress(worth.pop(output.request_id, 0))

    def _work(self, tree: TokenTree, weights: np.ndarray) -> list[tuple[tuple[int, ...], int]]:
        """Each leaf, and how many tokens of the corpus stand on the nodes that it brings."""
        work, done = [], 0
        for leaf in tree.leaves:
            end = int(tree.paths[leaf][-1]) + 1
            work.append((leaf, int(weights[done:end].sum())))
            done = end
        return work

    def abandon(self) -> None:
        """Drop what is running, and the pass that looked on, after an error or Ctrl-C."""
        with suppress(Exception):
            engine = self.engine
            engine.abort_request(sorted(self._open))
            self._open.clear()
            while engine.has_unfinished_requests():
                engine.step()
            engine.collective_rpc("lna_end")

    def forget_prefixes(self) -> None:
        """Empty the prefix cache: it was filled under another intervention.

        Raises:
            EngineError: vLLM did not.
        """
        with explained("vLLM failed to empty its prefix cache"):
            emptied = self.engine.reset_prefix_cache()
        if not emptied:
            raise EngineError(
                "vLLM did not empty its prefix cache, so cached states of another intervention could be used: "
                "try --engine-arg enable_prefix_caching=false"
            )

    def close(self) -> None:
        """End vLLM's processes; a second call does nothing."""
        if self._engine is None:
            return
        engine, self._engine = self._engine, None
        with suppress(Exception):
            engine.engine_core.shutdown(timeout=_GRACE)
        with suppress(Exception):
            engine.renderer.shutdown()
