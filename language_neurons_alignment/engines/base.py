"""What every engine does, and nothing of how (SPEC 2 and 6)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from ..config import Sampling
from ..core.counts import LanguageCounts
from ..core.interventions import Intervention
from ..core.model import ModelInfo
from ..core.perplexity import TextLikelihood
from ..corpus.encode import GeneratedAnswer, Prompt, PromptGroup, ScoredText, Tokenizer

Progress = Callable[[int], None]
"""Called with the number of tokens just done."""


class Engine(Protocol):
    """A loaded model that counts, scores and answers.

    Attributes:
        model: what was loaded.
        tokenizer: the model's own.
        provenance: engine name, versions, device: plain values, stored with every result.
    """

    model: ModelInfo
    tokenizer: Tokenizer
    provenance: dict[str, str | int | float | bool]

    def count(self, groups: Sequence[PromptGroup], *, progress: Progress, moments: bool = False) -> LanguageCounts:
        """Count firings over the full and the prefix sequences of `groups`, each token exactly once, in one pass.

        A prefix shared by several answers is computed once and counted for each. `total_tokens` of what is returned
        is the engine's own tally of the tokens that its hooks saw, not what it was asked for. With `moments`, the
        activations of the same tokens, and their squares, are added up in the same pass (`LanguageCounts.moments`).

        Raises:
            SilentHookError: a hook did not fire.
        """
        ...

    def log_likelihood(self, texts: Sequence[ScoredText], *, progress: Progress) -> list[TextLikelihood]:
        """The negative log-likelihood of each text's actual tokens, from its `start` on, never of its first token."""
        ...

    def generate(self, prompts: Sequence[Prompt], *, sampling: Sampling, progress: Progress) -> list[GeneratedAnswer]:
        """The model's own answers, in the order of the prompts, by `sampling` and nothing else.

        An answer depends on its prompt, its number and `sampling`; in exact arithmetic on nothing else, neither on
        the batch that it stands in nor on the order. `progress` adds up to the tokens of the answers.

        Raises:
            EngineError: a prompt that leaves no room for an answer, or a model that computes NaN.
        """
        ...

    def answer_batches(self, prompts: Sequence[Prompt], *, sampling: Sampling) -> list[list[int]]:
        """The batches, by position, in which `generate` answers these prompts: always the same for the same ones.

        Who stores answers as they come calls `generate` batch by batch: then a run that was cut off and goes on
        computes exactly what one that was not does, rounding included.
        """
        ...

    def intervene(self, intervention: Intervention) -> AbstractContextManager[None]:
        """While the context is open, the model runs under `intervention`; after it, also by exception, as before.

        Raises:
            SilentHookError: when the context closes, if the model ran and the intervention never took hold.
        """
        ...

    def close(self) -> None:
        """Give back the memory and the processes that the engine holds."""
        ...
