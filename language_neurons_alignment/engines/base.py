"""What every engine does, whichever library runs the model, and the refusals that all engines share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol, TypeVar

from jaxtyping import Float32, Float64, Int64
from torch import Tensor

from ..config import Sampling
from ..core.counts import LanguageCounts
from ..core.interventions import Intervention
from ..core.model import SILENT, ModelInfo, Progress
from ..core.perplexity import TextLikelihood
from ..core.routing import Experts
from ..core.widths import beyond
from ..corpus.encode import GeneratedAnswer, Prompt, PromptGroup, ScoredText, Tokenizer, Tokens
from ..errors import EngineError, IncompatibleError, SettingsError
from .generation import Follow

CLOSED = "the engine is closed: load the model again"
"""What an engine says that is used after its end."""


class Batching(Protocol):
    """How an engine cuts its work into batches: plain values and no model, so that another process cuts it alike."""

    def check(self, sequences: Iterable[Tokens]) -> None:
        """Refuse sequences that the model cannot read, before anything runs."""
        ...

    def count_batches(self, groups: Sequence[PromptGroup]) -> Iterable[Any]:
        """The batches that count these groups, each for `Engine.count_batches` alone to read."""
        ...

    def sequences(self, batch: Any) -> list[Tokens]:
        """What such a batch computes, each sequence at least to where it continues another one."""
        ...

    def score_batches(self, texts: Sequence[ScoredText], *, every: bool = False) -> Iterable[list[int]]:
        """The batches, by position, in which `log_likelihood` scores texts; each alone gives that batch again.

        `lens` takes `every` text, also those with nothing to score.
        """
        ...

    def answer_batches(self, prompts: Sequence[Prompt], *, sampling: Sampling) -> list[list[int]]:
        """The batches, by position, in which `generate` answers these prompts (`Engine.answer_batches`)."""
        ...


class Engine(Protocol):
    """A loaded model that counts firings, scores texts and writes answers.

    Attributes:
        model: what was loaded.
        tokenizer: the model's own.
        provenance: engine name, versions, device: plain values, stored with every result.
        at_once: how many threads may call the engine at a time (`each`); 1 where one model does all the work.
    """

    model: ModelInfo
    tokenizer: Tokenizer
    provenance: dict[str, str | int | float | bool]
    at_once: int

    @property
    def batching(self) -> Batching:
        """How work is cut into batches."""
        ...

    def count(
        self, groups: Sequence[PromptGroup], *, progress: Progress = SILENT, moments: bool = False
    ) -> LanguageCounts:
        """Count firings over the full and the prefix sequences of `groups` in one pass, each token exactly once.

        A prefix that several answers share is computed once and counted for each of them. The `total_tokens` in the
        result are tallied by the hooks, so they can be checked against the corpus.

        Args:
            groups: instructions and their answers, as tokens.
            progress: adds up to the tokens of the full sequences.
            moments: also add up the activations of these tokens and their squares (`LanguageCounts.moments`).

        Raises:
            SilentHookError: a hook did not fire.
            EngineError: a sequence is too long, memory runs out, or the model computes NaN.
        """
        ...

    def count_batches(
        self, batches: Iterable[Any], *, progress: Progress = SILENT, moments: bool = False
    ) -> LanguageCounts:
        """Count batches that `batching` cut; those of some groups, in any division, add up to `count` of them."""
        ...

    def log_likelihood(self, texts: Sequence[ScoredText], *, progress: Progress = SILENT) -> list[TextLikelihood]:
        """The negative log-likelihood of each text's tokens from its `start` on; a first token has none.

        Raises:
            EngineError: a sequence is too long, memory runs out, or the model computes NaN.
        """
        ...

    def lens(
        self,
        texts: Sequence[ScoredText],
        read: Sequence[Sequence[int]],
        group: Int64[Tensor, " token"],
        *,
        groups: int,
        progress: Progress = SILENT,
    ) -> list[Float64[Tensor, "layer measure"]]:
        """What the logit lens reads behind each layer (`core.lens.read_out`), summed over some places of each text.

        Args:
            texts: as tokens.
            read: for each text, the places of the tokens whose prediction is read, at least 1 of them, none at 0.
            group: of each token; tokens of the model that are not in it belong to the last group.
            groups: how many there are.
            progress: adds up to the tokens of the texts.

        Raises:
            UnknownArchitectureError: the lens cannot be proved on this model.
            EngineError: the engine has none (vLLM), memory runs out, or the model computes NaN.
        """
        ...

    def generate(
        self,
        prompts: Sequence[Prompt],
        *,
        sampling: Sampling,
        progress: Progress = SILENT,
        follow: Follow | None = None,
    ) -> list[GeneratedAnswer]:
        """The model's own answers, in the order of the prompts; only `sampling` decides how tokens are chosen.

        In exact arithmetic an answer depends on its prompt, its number and `sampling` alone, and on neither the batch
        nor the order. `progress` adds up to the tokens of the answers. `follow` sees each answer's text as it grows,
        and can end it.

        Raises:
            EngineError: a prompt leaves no room for an answer, memory runs out, or the model computes NaN.
        """
        ...

    def answer_batches(self, prompts: Sequence[Prompt], *, sampling: Sampling) -> list[list[int]]:
        """The batches, by position, in which `generate` answers these prompts.

        The same prompts always give the same batches. A caller that stores answers as they come calls `generate` batch
        by batch, so that a run which was cut off and resumed computes the same as an uninterrupted one, rounding
        included.
        """
        ...

    def intervene(self, intervention: Intervention) -> AbstractContextManager[None]:
        """While the context is open, the model runs under `intervention`, on top of those already in force.

        After the context, also after an exception, the model is as before.

        Raises:
            IncompatibleError: the intervention is for a model of another shape.
            SilentHookError: when the context closes, if the model ran and the intervention did not act each time.
        """
        ...

    def reuse(self, interventions: Sequence[Intervention], *, tokens: int) -> AbstractContextManager[None]:
        """While the context is open, `log_likelihood` may compute once what these interventions leave as it is.

        The texts must be the same under each of them, `tokens` in all. Nothing changes but the time: likelihoods under
        them, or under any other intervention, are what they are without the context.
        """
        ...

    def close(self) -> None:
        """Give back the memory and the processes that the engine holds; it cannot be used afterwards."""
        ...


Item = TypeVar("Item")
Result = TypeVar("Result")


def each(engine: Engine, do: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[tuple[Item, Result]]:
    """Do a piece of work with each item, and give the items with their results, in their order.

    On one model that is one after the other. On a pool (`engine.at_once` > 1) several threads `do` at a time, each
    under the interventions that it opens itself; and where an item fails, the others are done and given before its
    error is raised.
    """
    if engine.at_once == 1:
        for item in items:
            yield item, do(item)
        return
    from .pool.threads import in_threads

    yield from in_threads(do, items, threads=engine.at_once)


def no_lens() -> EngineError:
    """The error of an engine that does not show what layers give."""
    return EngineError(
        "the logit lens reads what each layer gives, which vLLM does not show: give --engine transformers"
    )


def check_lengths(sequences: Iterable[Tokens], *, longest: int) -> None:
    """Refuse sequences longer than the model allows, before anything runs."""
    too_long = [length for length in map(len, sequences) if length > longest]
    if too_long:
        raise EngineError(
            f"{len(too_long)} sequences are longer than the model allows: up to {max(too_long)} tokens, "
            f"at most {longest} are possible; use --overlong truncate or --overlong skip"
        )


def check_batch_choices(batch_tokens: int | None, batch_invariant: bool) -> None:
    """Refuse a size of batches where each question is computed alone."""
    if batch_invariant and batch_tokens is not None:
        raise SettingsError(
            f"--batch-tokens {batch_tokens} would do nothing with --batch-invariant, which computes each question "
            "alone: leave one of them out"
        )


def not_finite(what: str, device: object = None) -> EngineError:
    """The error for NaN and infinity in what a model computed."""
    where = "" if device is None else f" on {device}"
    return EngineError(
        f"the model's {what} became NaN or infinite{where}, so nothing of this run can be trusted: "
        "try --dtype bfloat16 or --dtype float32 (float16 overflows easily)"
    )


def check_shape(intervention: Intervention, widths: Sequence[int], *, experts: Experts | None = None) -> None:
    """Refuse an intervention made for a model of another shape, with neurons beyond a layer's width, or on no router.

    experts: those whose routers the engine can change.
    """
    shape, layers, d_mlp = tuple(intervention.scale.shape), len(widths), max(widths)
    if shape != (layers, d_mlp):
        raise IncompatibleError(
            f"the intervention is for a model of shape {shape} (layers, d_mlp), this one has {(layers, d_mlp)}: "
            "use the mask made for this model"
        )
    if min(widths) < d_mlp and (fault := beyond(intervention.touched, widths, "the intervention changes one")):
        raise IncompatibleError(f"{fault}: use the mask made for this model")
    if intervention.router is not None:
        _check_routers(intervention.router, layers, experts)


def _check_routers(router: Float32[Tensor, "layer expert"], layers: int, experts: Experts | None) -> None:
    """Refuse what routers cannot do: there are none, or no such experts, or too few would be left."""
    if experts is None:
        raise IncompatibleError(
            "the intervention bans or boosts experts, but there is no router that it could change: give a mixture of "
            "experts, and --engine transformers"
        )
    elsewhere = [layer for layer in router.any(dim=1).nonzero().flatten().tolist() if layer not in experts.layers]
    if tuple(router.shape) != (layers, experts.number) or elsewhere:
        raise IncompatibleError(
            f"the intervention changes routers of {tuple(router.shape)} (layers, experts)"
            f"{f', among them layer {elsewhere[0]}' if elsewhere else ''}; this model has {experts.number} experts in "
            f"{len(experts.layers)} of {layers} layers: name experts that it has"
        )
    left = (~router.isneginf()).sum(dim=1)
    if bool((left < experts.top_k).any()):
        layer = int((left < experts.top_k).nonzero()[0])
        raise SettingsError(
            f"layer {layer} has {int(left[layer])} experts left that are not banned, and its router chooses "
            f"{experts.top_k} for each token: ban fewer"
        )
