"""A running vLLM: requests in, calls to its workers, and its end."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Any

import numpy as np

from ...config import Sampling
from ...core.model import Progress
from ...corpus.encode import Prompt, Tokens
from ...errors import EngineError
from ..generation import PartialAnswer
from .launch import explained
from .messages import Message
from .tree import PrefixTree
from .watch import Guard

_WINDOW = 4096
"""Requests inside vLLM at a time: enough to fill every step, few enough to drop quickly."""

_AT_ONCE = 16
"""Tokens that vLLM hands over at a time; with stop strings it is 1, because each token may complete one."""

_GRACE = 10.0
"""Seconds that vLLM's processes have to end by themselves."""

Take = Callable[[Any], bool]
"""Takes the output of one step for a request (a `RequestOutput`); returns whether the request needs no more."""

Request = tuple[Tokens, Any, Take]
"""A prompt, its `vllm.SamplingParams`, and what is called with each output."""


def sampling_parameters(sampling: Sampling, *, limit: int, seed: int, ends: Sequence[int], each: bool = False) -> Any:
    """`vllm.SamplingParams` that set everything, so that the model's generation config decides nothing.

    With `each`, every token is handed over as it comes.
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
        stream_interval=1 if sampling.stop or each else _AT_ONCE,
    )


class Process:
    """vLLM's engine with its workers."""

    def __init__(self, engine: Any, guard: Guard, *, adapter: str | None = None) -> None:
        """Take over a started engine (`vllm.v1.engine.llm_engine.LLMEngine`) and the guard of its processes.

        With the folder of an adapter, every request runs with that adapter live.
        """
        self._engine: Any = engine
        self._adapter = adapter
        self._guard = guard
        self._number = 0
        self._open: set[str] = set()

    @property
    def engine(self) -> Any:
        """vLLM's own object."""
        if self._engine is None:
            raise EngineError("this vLLM engine is closed: load it again")
        return self._engine

    def rpc(self, method: str, *args: Message | str | int | None) -> list[Message]:
        """Call a method of every worker, and return their results."""
        with explained(f"vLLM's workers failed in {method}"):
            return self.engine.collective_rpc(method, args=args)

    def feed(
        self,
        tree: PrefixTree,
        *,
        weights: np.ndarray,
        progress: Progress,
        what: str = "vLLM failed while it read the corpus",
    ) -> None:
        """Run every leaf of a tree once, in their order, so that neighbours find each other's cache.

        `what` begins the message of an error.
        """
        from vllm import SamplingParams

        sampling = SamplingParams(max_tokens=1, temperature=0.0, detokenize=False)

        def read(tokens: int) -> Take:
            def take(output: Any) -> bool:
                progress(tokens if output.finished else 0)
                return output.finished

            return take

        with explained(what):
            self._run((leaf, sampling, read(tokens)) for leaf, tokens in _leaves(tree, weights))

    def answer(
        self,
        asked: Sequence[tuple[Prompt, PartialAnswer]],
        *,
        sampling: Sampling,
        ends: Sequence[int],
        progress: Progress,
        each: bool = False,
    ) -> None:
        """Answer some prompts; `each` as in `sampling_parameters`."""

        def write(partial: PartialAnswer) -> Take:
            def take(output: Any) -> bool:
                before = len(partial.tokens)
                for token in output.outputs[0].token_ids:
                    partial.add(token)
                progress(len(partial.tokens) - before)
                return output.finished or partial.finish is not None

            return take

        def request(prompt: Prompt, partial: PartialAnswer) -> Request:
            seed = sampling.seed_for(prompt.tokens, prompt.number)
            settings = sampling_parameters(sampling, limit=partial.limit, seed=seed, ends=ends, each=each)
            return prompt.tokens, settings, write(partial)

        with explained("vLLM failed while it answered"):
            self._run(request(*one) for one in asked)

    def _run(self, requests: Iterable[Request]) -> None:
        """Run requests, a window of them at a time, and drop each one that needs no more."""
        from vllm.inputs.engine import tokens_input
        from vllm.lora.request import LoRARequest

        lora = None if self._adapter is None else LoRARequest("adapter", 1, self._adapter)
        waiting = iter(requests)
        running: dict[str, Take] = {}
        engine = self.engine
        while True:
            while len(self._open) < _WINDOW and (request := next(waiting, None)) is not None:
                self._number += 1
                name = f"lna-{self._number}"
                tokens, sampling, running[name] = request
                self._open.add(name)
                engine.add_request(name, tokens_input(list(tokens)), sampling, lora_request=lora)
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
        """Drop what runs, after an error or Ctrl-C."""
        with suppress(Exception):
            engine = self.engine
            engine.abort_request(sorted(self._open))
            self._open.clear()
            while engine.has_unfinished_requests():
                engine.step()

    def forget_prefixes(self) -> None:
        """Empty the prefix cache, which an earlier pass filled, perhaps under another intervention."""
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
        self._guard.close()


def _leaves(tree: PrefixTree, weights: np.ndarray) -> Iterator[tuple[Tokens, int]]:
    """Each leaf, and how many tokens of the corpus its nodes stand for that no earlier leaf has."""
    done = 0
    for leaf in tree.leaves:
        end = int(tree.paths[leaf][-1]) + 1
        yield leaf, int(weights[done:end].sum())
        done = end
