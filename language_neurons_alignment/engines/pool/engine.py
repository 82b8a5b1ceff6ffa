"""The pool as an engine: work cut into units, the units done by replicas, and their results put together."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from contextvars import ContextVar
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import PurePath
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple

from jaxtyping import Float64, Int64
from torch import Tensor

from ...config import Sampling
from ...core.counts import LanguageCounts
from ...core.interventions import Intervention
from ...core.model import SILENT, Progress
from ...core.perplexity import TextLikelihood
from ...corpus.encode import GeneratedAnswer, Prompt, PromptGroup, ScoredText, Tokens
from ...errors import EngineError, LNAWarning, SettingsError
from .. import EngineSettings
from ..base import CLOSED, check_shape, no_lens
from ..checkpoint import check_there
from ..generation import Follow, PartialAnswer, check_prompts
from .cluster import LOCAL, Cluster
from .dispatcher import Dispatcher, Patience, Unit
from .replica import ANSWER, COUNT, LENS, SCORE, Described

UNITS = 4096
"""The most units of one `count`: the counts of each unit are sent to the driver."""

AHEAD = 4
"""Units for each replica that are handed in before the oldest of them is done; it bounds the driver's memory."""


class _InForce(NamedTuple):
    """An intervention, and what units are given for it."""

    intervention: Intervention
    reference: Any


class EnginePool:
    """Several replicas of a model as one engine; `engines.base.Engine` describes what its methods promise.

    Batches are cut here, as one engine cuts them, whatever the number of replicas. So counts are those of one engine
    bit for bit, as are likelihoods and answers where replicas compute alike: on one kind of device, with as many
    threads. Moments are added up in the order of the batches, and may differ from one engine's in the last bits of a
    float64, but not with the number of replicas.

    A unit of work brings the intervention that it is done under, and the replica lifts it when the unit is done. So an
    intervention is in force on every replica or on none, also on those that are started meanwhile.

    Threads may use a pool at the same time (`engines.base.each`); each has interventions of its own.
    """

    def __init__(
        self,
        settings: EngineSettings,
        *,
        replicas: int,
        ray: str | None = None,
        patience: Patience | None = None,
    ) -> None:
        """Start Ray, or join it, and load the replicas; `load` is the usual way."""
        self._closed = False
        self._alike: list[Described] = []
        self._lock = threading.Lock()
        gpus, on_gpu = _gpus(settings), _on_gpu(settings)
        if ray in (None, LOCAL):
            check_there(settings.model_path)
        self._cluster = Cluster(ray)
        self._change: ContextVar[_InForce | None] = ContextVar("change", default=None)
        try:
            share = self._cluster.share(replicas, gpus=gpus, on_gpu=on_gpu)
            inner, what = _inner(settings), PurePath(settings.model_path).name
            self._dispatcher = Dispatcher(
                lambda number, start: self._cluster.start(
                    f"lna {what} replica {number}{f', start {start}' if start > 1 else ''}", inner, share
                ),
                replicas,
                accept=self._accept,
                patience=patience,
            )
            try:
                self._dispatcher.started.result()
            except BaseException:
                self._dispatcher.close()
                raise
        except BaseException:
            self._cluster.close()
            raise
        first = self._alike[0]
        for said in first.warnings:
            warnings.warn(said, LNAWarning, stacklevel=3)
        self.model, self.tokenizer, self.batching = first.model, first.tokenizer, first.batching
        self.provenance = dict(first.provenance)
        self.replicas, self.at_once = replicas, max(2, 2 * replicas)

    @classmethod
    def load(cls, settings: EngineSettings, *, replicas: int, ray: str | None = None) -> EnginePool:
        """Load a model in each of some replicas, with the options of its engine.

        Args:
            settings: of the engine in each replica.
            replicas: how many; each gets a GPU (with vLLM one for each rank), or an equal share of the CPUs.
            ray: the address of a Ray cluster, "auto" for the one that this machine belongs to, "local" or None for
                this machine alone.

        Raises:
            SettingsError: no such number of replicas, or an option that cannot be had in each of them.
            MissingEngineError: Ray is not installed.
            EngineError: Ray has no room for them, or the model cannot be loaded.
        """
        if replicas < 1:
            raise SettingsError(f"--replicas {replicas}: a pool needs at least 1")
        return cls(settings, replicas=replicas, ray=ray)

    @property
    def restarts(self) -> int:
        """How many replicas were started in the place of one that died."""
        return self._dispatcher.restarts

    @property
    def processes(self) -> list[tuple[str, int]]:
        """The machine and the process of each replica that is running."""
        return [(one.node, one.process) for one in self._dispatcher.running()]

    def _accept(self, found: Described) -> None:
        """Take a replica that is like the others; else its numbers would depend on who computed what."""
        first = self._alike[0] if self._alike else found
        for name in ("provenance", "batching", "model"):
            one, other = getattr(first, name), getattr(found, name)
            if one != other:
                apart = (
                    ", ".join(
                        f"{key} {one.get(key)!r} and {other.get(key)!r}" for key in one if one[key] != other.get(key)
                    )
                    if isinstance(one, dict)
                    else f"{one} and {other}"
                )
                raise EngineError(
                    f"replicas on {first.node} and {found.node} are not alike ({apart}), so results would depend on "
                    "which of them computed what: use one kind of device and one version, and give --batch-tokens"
                )
        self._alike = [first]

    def count(
        self, groups: Sequence[PromptGroup], *, progress: Progress = SILENT, moments: bool = False
    ) -> LanguageCounts:
        """Count firings over the full and the prefix sequences of `groups` in one pass, each token exactly once."""
        self.batching.check([tokens for group in groups for tokens in (group.prefix, *group.full) if group.full])
        return self.count_batches(self.batching.count_batches(groups), progress=progress, moments=moments)

    def count_batches(
        self, batches: Iterable[Any], *, progress: Progress = SILENT, moments: bool = False
    ) -> LanguageCounts:
        """Count batches that `batching` cut; neighbouring ones make a unit where there are very many."""
        cut, model = list(batches), self.model
        several = -(-len(cut) // UNITS)
        parts = [cut[start : start + several] for start in range(0, len(cut), max(1, several))]

        def unit(number: int, part: list[Any]) -> Unit:
            sequences = [tokens for batch in part for tokens in self.batching.sequences(batch)]
            return self._unit(COUNT, {"batches": part, "moments": moments}, sequences, f"{number + 1} of {len(parts)}")

        total = LanguageCounts.zero(model.layers, model.d_mlp, moments=moments, experts=model.experts)
        early: dict[int, LanguageCounts] = {}
        following = 0
        for number, counts in self._results((unit(*one) for one in enumerate(parts)), progress):
            early[number] = counts
            while following in early:  # sums of floats are added in the order of the batches
                total += early.pop(following)
                following += 1
        return total

    def log_likelihood(self, texts: Sequence[ScoredText], *, progress: Progress = SILENT) -> list[TextLikelihood]:
        """The negative log-likelihood of each text's tokens from its `start` on; a first token has none."""
        self.batching.check([text.tokens for text in texts])
        done = self._by_position(
            SCORE,
            self.batching.score_batches(texts),
            [text.tokens for text in texts],
            lambda indices: {"texts": [texts[index] for index in indices]},
            progress,
        )
        return [done.get(index, TextLikelihood(0.0, 0)) for index in range(len(texts))]

    def lens(
        self,
        texts: Sequence[ScoredText],
        read: Sequence[Sequence[int]],
        group: Int64[Tensor, " token"],
        *,
        groups: int,
        progress: Progress = SILENT,
    ) -> list[Float64[Tensor, "layer measure"]]:
        """What the logit lens reads behind each layer, summed over some places of each text."""
        if self.provenance["engine"] == "vllm":
            raise no_lens()
        self.batching.check([text.tokens for text in texts])
        done = self._by_position(
            LENS,
            self.batching.score_batches(texts, every=True),
            [text.tokens for text in texts],
            lambda indices: {
                "texts": [texts[index] for index in indices],
                "read": [read[index] for index in indices],
                "group": group,
                "groups": groups,
            },
            progress,
        )
        return [done[index] for index in range(len(texts))]

    def generate(
        self,
        prompts: Sequence[Prompt],
        *,
        sampling: Sampling,
        progress: Progress = SILENT,
        follow: Follow | None = None,
    ) -> list[GeneratedAnswer]:
        """The model's own answers, in the order of the prompts; `follow` sees an answer grow when it is there."""
        check_prompts(prompts, longest=self.model.max_length)
        self.batching.check([prompt.tokens for prompt in prompts])
        answers: dict[int, GeneratedAnswer] = self._by_position(
            ANSWER,
            self.answer_batches(prompts, sampling=sampling),
            [prompt.tokens for prompt in prompts],
            lambda indices: {"prompts": [prompts[index] for index in indices], "sampling": sampling},
            progress,
            written=sampling.max_new_tokens,
        )
        if follow is None:
            return [answers[index] for index in range(len(prompts))]
        begun = PartialAnswer.each(prompts, follow, sampling=sampling, model=self.model, tokenizer=self.tokenizer)
        for index, growing in enumerate(begun):
            ends = self.model.end_tokens[:1] if answers[index].finish == "eos" else ()
            for token in (*answers[index].tokens, *ends):
                if growing.add(token):
                    break
        return [one.answer() for one in begun]

    def answer_batches(self, prompts: Sequence[Prompt], *, sampling: Sampling) -> list[list[int]]:
        """The batches, by position, in which `generate` answers these prompts; each is a unit."""
        return self.batching.answer_batches(prompts, sampling=sampling)

    @contextmanager
    def intervene(self, intervention: Intervention) -> Iterator[None]:
        """While the context is open, units of this thread are done under `intervention`, on top of those in force."""
        self._check_open()
        experts = self.model.experts if self.provenance["engine"] == "transformers" else None
        check_shape(intervention, self.model.layer_widths, experts=experts)
        before = self._change.get()
        now = intervention if before is None else before.intervention.then(intervention)
        set_before = self._change.set(_InForce(now, self._cluster.put(now)))
        try:
            yield
        finally:
            self._change.reset(set_before)

    def reuse(self, interventions: Sequence[Intervention], *, tokens: int) -> AbstractContextManager[None]:
        """Nothing: a replica keeps no states between units, which any of them may do."""
        return nullcontext()

    def close(self) -> None:
        """End the replicas, and Ray if it was started here; the pool cannot be used afterwards."""
        if not self._closed:
            self._closed = True
            self._dispatcher.close()
            self._cluster.close()

    def _check_open(self) -> None:
        if self._closed:
            raise EngineError(CLOSED)

    def _by_position(
        self,
        kind: str,
        batches: Iterable[list[int]],
        sequences: Sequence[Tokens],
        work: Callable[[list[int]], dict[str, Any]],
        progress: Progress,
        *,
        written: int = 0,
    ) -> dict[int, Any]:
        """Have each batch of positions done as a unit; position → its result.

        Args:
            kind: of the units.
            batches: positions in `sequences`.
            sequences: the tokens at each position.
            work: what a replica takes for some positions.
            progress: as `Engine` describes it.
            written: the most tokens that are written behind each sequence.
        """
        cut, results = list(batches), dict[int, Any]()

        def unit(number: int, indices: list[int]) -> Unit:
            some = [sequences[index] for index in indices]
            return self._unit(kind, work(indices), some, f"{number + 1} of {len(cut)}", written=written * len(some))

        for number, found in self._results((unit(*one) for one in enumerate(cut)), progress):
            results.update(zip(cut[number], found, strict=True))
        return results

    def _unit(
        self, kind: str, work: dict[str, Any], sequences: Sequence[Tokens], which: str, *, written: int = 0
    ) -> Unit:
        """A unit under what is in force in this thread."""
        change = self._change.get()
        names = partial(self._named, [tokens[:16] for tokens in sequences[:3]], len(sequences))
        size, label = sum(map(len, sequences)) + written, f"{kind}, unit {which}"
        return Unit(kind, work, None if change is None else change.reference, size, label, names)

    def _named(self, beginnings: Sequence[Tokens], number: int) -> str:
        """Name records by how their texts begin."""
        read = partial(self.tokenizer.decode, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        shown = [repr(f"{str(read(list(tokens)))[:40]}…") for tokens in beginnings]
        more = f" and {number - len(shown)} more" if number > len(shown) else ""
        return f"the texts that begin with {', '.join(shown)}{more}"

    def _tell_of_losses(self) -> None:
        """Warn of replicas that were lost; in a caller's thread, where a warning may be made an error."""
        with suppress(Empty):
            while True:
                warnings.warn(self._dispatcher.losses.get_nowait(), LNAWarning, stacklevel=4)

    def _results(self, units: Iterable[Unit], progress: Progress) -> Iterator[tuple[int, Any]]:
        """Have units done; give their results, with their numbers, as they come."""
        self._check_open()
        done: SimpleQueue[int] = SimpleQueue()
        left, begun = enumerate(units), {}
        finished: set[int] = set()
        oldest = 0

        def begin(some: Iterable[tuple[int, Unit]]) -> None:
            for number, unit in some:
                begun[number] = unit
                # with the unit in it, the callback would be part of a cycle that keeps the result in memory
                unit.future.add_done_callback(lambda _future, number=number: done.put(number))
                self._dispatcher.submit(unit)

        try:
            begin(islice(left, AHEAD * self.replicas))
            while begun:
                number = done.get()
                self._tell_of_losses()
                result, tokens = begun.pop(number).future.result()
                finished.add(number)
                while oldest in finished:
                    finished.remove(oldest)
                    oldest += 1
                    begin(islice(left, 1))
                with self._lock:  # threads that use the pool together may share a progress bar
                    progress(tokens)
                yield number, result
        finally:
            for unit in begun.values():
                unit.future.cancel()  # nobody waits for its result: it is not begun any more


def _inner(settings: EngineSettings) -> EngineSettings:
    """What each replica loads."""
    options = dict(settings.options)
    if _gpus(settings) > 1:
        options.setdefault("distributed_executor_backend", "mp")  # vLLM would see Ray, and take that
    return replace(settings, options=options)


def _gpus(settings: EngineSettings) -> int:
    """The GPUs of a replica, where there are any."""
    options = settings.options
    return int(options.get("tensor_parallel_size") or 1) * int(options.get("pipeline_parallel_size") or 1)


def _on_gpu(settings: EngineSettings) -> bool | None:
    """Whether replicas must use GPUs, or must not; None where Ray's nodes decide."""
    device = str(settings.options.get("device") or "auto")
    if device not in ("auto", "cpu", "cuda"):
        raise SettingsError(
            f"--device {device} with --replicas: Ray gives each replica a GPU of its own, or CPUs: use cuda or cpu"
        )
    if settings.options.get("distributed_executor_backend") == "ray":
        raise SettingsError(
            "--distributed-executor-backend ray with --replicas: a replica runs on one machine: leave one of them out"
        )
    return {"auto": None, "cpu": False, "cuda": True}[device]
