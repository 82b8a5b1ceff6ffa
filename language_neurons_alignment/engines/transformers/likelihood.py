"""How likely a model finds the tokens that actually follow (SPEC 6)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float, Float32, Int64
from torch import Tensor

from ...core.perplexity import TextLikelihood
from ...corpus.sequences import ScoredText
from ...errors import EngineError
from .guards import not_finite
from .network import Head

_LOGITS = {"cpu": 2**24, "cuda": 2**27, "mps": 2**25}
"""How many logits (tokens × vocabulary) exist at a time, by device: 64, 512 and 128 MiB in float32."""


def score(
    texts: Sequence[ScoredText], hidden: Float[Tensor, "text position hidden"], head: Head
) -> list[TextLikelihood]:
    """The likelihood of each text of a batch, from what its decoder computed.

        nll = Σ_{t = max(start, 1)}^{length − 1}  −ln softmax(head(hidden[t − 1]))[token t]

    Log-softmax in float32, sums in float64. Logits exist at scored positions only, and not all at a time.

    Raises:
        EngineError: NaN or infinity.
    """
    rows, columns, targets = [], [], []
    for row, text in enumerate(texts):
        first = max(text.start, 1)
        rows += [row] * text.scored_tokens
        columns += range(first - 1, len(text.tokens) - 1)
        targets += text.tokens[first:]
    device = hidden.device
    before = hidden[torch.tensor(rows, device=device), torch.tensor(columns, device=device)]
    losses = token_losses(before, torch.tensor(targets, device=device), head).cpu()
    sums = [math.fsum(some.tolist()) for some in losses.split([text.scored_tokens for text in texts])]
    if not all(math.isfinite(total) for total in sums):
        raise EngineError(not_finite("logits", device))
    return [TextLikelihood(total, text.scored_tokens) for total, text in zip(sums, texts, strict=True)]


def token_losses(
    hidden: Float[Tensor, "token hidden"], targets: Int64[Tensor, " token"], head: Head
) -> Float32[Tensor, " token"]:
    """−ln p of each target, a bounded number of logits at a time."""
    size = max(1, _LOGITS.get(hidden.device.type, 2**25) // head.vocabulary)
    losses = []
    for some, wanted in zip(hidden.split(size), targets.split(size), strict=True):
        logits = head(some)
        losses.append(torch.logsumexp(logits, dim=-1) - logits.gather(-1, wanted[:, None]).squeeze(-1))
    return torch.cat(losses)
