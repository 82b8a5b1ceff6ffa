"""A running vLLM: requests in, calls to its workers, and its end."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...config import Sampling
from ...corpus.encode import Prompt, Tokens
from ...errors import EngineError
from ..base import Progress
from ..generation import Draft
from .launch import explained
from .tree import Message, TokenTree

# ── How vLLM is told to choose tokens, and who looks on while it does.

_AT_ONCE = 16
"""Tokens that vLLM hands over at a time, where no stop string has to be looked for after each."""


def sampling_parameters(sampling: Sampling, *, limit: int, seed: int, ends: Sequence[int]) -> Any:
    """`vllm.SamplingParams` that say everything themselves: nothing is left to the model's generation config.

    Args:
        sampling: how tokens are chosen.
        limit: the most tokens of this answer.
        seed: of this answer.
        ends: the model's end tokens, the same on both engines, in place of those that vLLM would look for.
    """
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    return SamplingParams(
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        max_tokens=limit,
        seed=None if sampling.greedy else seed,
        stop_token_ids=list(ends),
        ignore_eos=True,
        detokenize=False,
        output_kind=RequestOutputKind.DELTA,
        stream_interval=1 if sampling.stop else _AT_ONCE,
    )


_WINDOW = 4096
"""Requests that are with vLLM at a time: enough to fill every step, few enough to drop quickly."""

_GRACE = 10.0
"""Seconds that vLLM's processes have to end by themselves."""


Take = Callable[[Any], bool]
"""Takes what a step gave for a request (a `RequestOutput`); whether that was all that is wanted of it."""


@dataclass(frozen=True)
class Request:
    """What vLLM is asked to run.

    Attributes:
        tokens: what is read.
        sampling: `vllm.SamplingParams`.
        take: what is done with what comes.
    """

    tokens: Tokens
    sampling: Any
    take: Take


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

        sampling = SamplingParams(max_tokens=1, temperature=0.0, detokenize=False)

        def read(worth: int) -> Take:
            def take(output: Any) -> bool:
                progress(worth if output.finished else 0)
                return output.finished

            return take

        with explained("vLLM failed while it read the corpus"):
            self._run(Request(leaf, sampling, read(worth)) for leaf, worth in _leaves(tree, weights))

    def answer(
        self, drafts: Sequence[tuple[Prompt, Draft]], *, sampling: Sampling, ends: Sequence[int], progress: Progress
    ) -> None:
        """Write the answers to some prompts.

        Args:
            drafts: what is answered, and where the answers grow.
            sampling: how tokens are chosen.
            ends: the model's end tokens.
            progress: told of each token that is part of an answer.
        """

        def write(draft: Draft) -> Take:
            def take(output: Any) -> bool:
                before = len(draft.tokens)
                for token in output.outputs[0].token_ids:
                    draft.add(token)
                progress(len(draft.tokens) - before)
                return output.finished or draft.finish is not None

            return take

        def request(prompt: Prompt, draft: Draft) -> Request:
            seed = sampling.seed_for(prompt.tokens, prompt.number)
            return Request(
                prompt.tokens, sampling_parameters(sampling, limit=draft.limit, seed=seed, ends=ends), write(draft)
            )

        with explained("vLLM failed while it answered"):
            self._run(request(*one) for one in drafts)

    def _run(self, requests: Iterable[Request]) -> None:
        """Run requests, a window of them at a time; one that has given all that is wanted of it is dropped."""
        from vllm.inputs.engine import tokens_input

        waiting = iter(requests)
        running: dict[str, Take] = {}
        engine = self.engine
        while True:
            while len(self._open) < _WINDOW and (request := next(waiting, None)) is not None:
                self._number += 1
                name = f"lna-{self._number}"
                running[name] = request.take
                self._open.add(name)
                engine.add_request(name, tokens_input(list(request.tokens)), request.sampling)
            if not self._open:
                return
            for output in engine.step():
                name = output.request_id
                if running[name](output) if name in running else output.finished:
                    running.pop(name, None)
                    self._open.discard(name)
                    if not output.finished:
                        engine.abort_request([name])

    def abandon(self) -> None:
        """Drop what is running after an error or Ctrl-C."""
        with suppress(Exception):
            engine = self.engine
            engine.abort_request(sorted(self._open))
            self._open.clear()
            while engine.has_unfinished_requests():
                engine.step()

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


def _leaves(tree: TokenTree, weights: np.ndarray) -> Iterator[tuple[Tokens, int]]:
    """Each leaf, and how many tokens of the corpus stand on the nodes that it brings."""
    done = 0
    for leaf in tree.leaves:
        end = int(tree.paths[leaf][-1]) + 1
        yield leaf, int(weights[done:end].sum())
        done = end
