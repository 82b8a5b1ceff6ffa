"""The mean activation of each neuron on a language's answers, which some interventions need."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float64
from torch import Tensor

from .errors import ArtifactError, MissingArtifactError
from .store.counts_file import load_counts
from .store.layout import Layout
from .store.moments_file import COLLECT, has_moments, moments_hash


@dataclass(frozen=True)
class AnswerMoments:
    """How active a model's neurons are on one language's answers.

    Attributes:
        tokens: of the answers.
        mean: activation per neuron, over these tokens.
        variance: of the activation over these tokens.
        digest: of what this was made from, so that results can say which means they were made with.
        config_hash: of the model that was looked at.
        weights_hash: of the same model.
    """

    tokens: int
    mean: Float64[Tensor, "layer neuron"]
    variance: Float64[Tensor, "layer neuron"]
    digest: str
    config_hash: str
    weights_hash: str


def answer_moments(layout: Layout, language: str) -> AnswerMoments:
    """The moments of a language's answers, full − prefix as of counts (SPEC 3), from its files.

    Raises:
        MissingArtifactError: the language was counted without moments, or not at all.
        ArtifactError: a file is torn, or there are no answer tokens to take a mean over.
        IncompatibleError: the moments were not collected with the counts that are there.
    """
    if not has_moments(layout, language):
        raise MissingArtifactError(f"{layout.moments(language)} is not there: {COLLECT} -l {language}")
    counts, meta = load_counts(layout, language, moments=True)
    assert counts.moments is not None  # asked for
    answer = counts.moments.answer
    if answer.total_tokens < 1:
        raise ArtifactError(
            f"{layout.moments(language)} holds no answer tokens, so there is no mean activation: "
            "count a corpus whose answers are not empty"
        )
    return AnswerMoments(
        answer.total_tokens,
        answer.mean,
        answer.variance,
        moments_hash(counts.moments),
        str(meta.get("config_hash", "")),
        str(meta.get("weights_hash", "")),
    )
