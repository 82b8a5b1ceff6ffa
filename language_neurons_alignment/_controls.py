"""Controls: the same change, made to random neurons of no language.

Any change of so many neurons has some effect, so an effect alone means little. A control of a condition
(`_grid.Condition`) changes as many random neurons in each layer, as active as those that it stands for.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

from jaxtyping import Bool, Float
from torch import Tensor

from ._interventions import NeuronSource, Swap
from ._operations import Steps
from ._session import Session
from .core.interventions import matched_controls
from .core.model import ModelInfo
from .core.widths import is_neuron
from .errors import IncompatibleError, MissingArtifactError
from .store.checkpoint import Checkpoint
from .store.counts import AnswerCounts, load_answer_counts
from .store.files import Json, digest_of_bytes
from .store.masks import Mask


@dataclass(frozen=True)
class Controls:
    """Random sets of neurons, drawn for each row."""

    mask: Mask
    general: Bool[Tensor, "layer neuron"] | None = None  # in no control either, where rows change general neurons
    activity: Float[Tensor, "layer neuron"] | None = None  # mean probability over languages, matched besides the layer
    seed: int = 0

    @classmethod
    def of(
        cls, mask: Mask, counts: AnswerCounts | None, *, general: Bool[Tensor, "layer neuron"] | None, seed: int
    ) -> Controls:
        """Controls that match the activity in the counts beside the mask, where there are any."""
        if counts is None:
            return cls(mask, general, seed=seed)
        if mask.description is not None:
            Checkpoint.of(mask.description).check_same(
                counts,
                what=f"the counts beside {mask.name} come from a model",
                remedy="controls cannot match their activity; count this model again (`lna activation --force`), or "
                "use --controls 0",
            )
        return cls(mask, general, counts.probability.mean(dim=-1), seed)

    @property
    def matched_by(self) -> str:
        """What controls have in common with what they stand for, in words."""
        return "layer" if self.activity is None else "layer and activity"

    def swap(self, model: ModelInfo, row: str, number: int) -> Swap:
        """Return the function that draws a control for the neurons of a step, the same for the same neurons."""
        taken = self.mask.over(model).tensor.any(dim=-1)
        if self.general is not None:
            taken = taken | self.general
        if model.widths is not None:
            taken = taken | ~is_neuron(model.widths, model.d_mlp)
        if self.activity is not None and self.activity.shape != taken.shape:
            raise IncompatibleError(
                f"the counts beside {self.mask.name} are of {tuple(self.activity.shape)} neurons (layers, d_mlp), "
                f"{model.path} has {tuple(taken.shape)}: give the model that was counted"
            )
        # a seed for each set, so that adding sets and rows changes none that are there
        digest = hashlib.blake2b(f"{self.seed} {row} {number}".encode(), digest_size=7).digest()
        seed = int.from_bytes(digest, "big")
        drawn = partial(matched_controls, activity=self.activity, eligible=~taken, seed=seed)
        return partial(drawn, experts=model.experts)

    def describe(self) -> Json:
        """Return the provenance: what decides which neurons are drawn."""
        activity = None if self.activity is None else digest_of_bytes(self.activity.contiguous().numpy().tobytes())
        return {"control_seed": self.seed, "control_matched_by": self.matched_by, "control_activity": activity}


def open_source_and_controls(
    session: Session, mask: Mask, steps: Steps | Iterable[Steps], *, classes: Sequence[str], sets: int, seed: int
) -> tuple[NeuronSource, Controls | None]:
    """Read what steps name and what their controls match, the counts beside the mask once; no controls without sets."""
    counts = None
    if sets:
        with suppress(MissingArtifactError):  # an imported mask has none: controls then match the layer alone
            counts = load_answer_counts(session.layout, mask.languages)
    named = {"mask": mask, "classes": classes, "checkpoint": session.checkpoint, "counts": counts}
    source = NeuronSource.open(session.layout, steps, **named)
    return source, controls_for(source, mask, counts, sets=sets, seed=seed)


def controls_for(
    source: NeuronSource, mask: Mask, counts: AnswerCounts | None, *, sets: int, seed: int
) -> Controls | None:
    """The controls of what the source's neurons do, matched by the activity in these counts; none without sets."""
    general = source.general if "general" in source.classes else None
    return Controls.of(mask, counts, general=general, seed=seed) if sets else None
