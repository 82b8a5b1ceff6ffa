"""Controls of an intervention: the same done to random neurons of no language, matched by layer and by activity."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jaxtyping import Bool, Float
from torch import Tensor

from ._interventions import NeuronSource, Steps, Swap
from .core.counts import activation_probability
from .core.interventions import Intervention, matched_controls
from .core.perplexity import UNDISTURBED, control_row
from .engines import ModelInfo
from .errors import IncompatibleError, MissingArtifactError, SettingsError
from .store.counts import load_answer_counts
from .store.layout import Layout
from .store.masks import StoredMask


@dataclass(frozen=True)
class Controls:
    """Random sets of neurons, drawn for each row of a map.

    Attributes:
        mask: whose neurons, of whichever language, no control contains.
        classes: of the neurons that are changed; with "general" among them no control has general neurons either.
        seed: the same seed draws the same sets, whatever else is drawn.
        activity: what is matched beside the layer, the mean over the languages of the activation probability; None
            where there are no counts: then only the layer is.
    """

    mask: StoredMask
    classes: tuple[str, ...]
    seed: int
    activity: Float[Tensor, "layer neuron"] | None

    @classmethod
    def open(cls, layout: Layout, mask: StoredMask, *, classes: Sequence[str], seed: int = 0) -> Controls:
        """Read what controls are matched by.

        Raises:
            ArtifactError: the counts cannot be read.
            IncompatibleError: they are of another model than the mask.
        """
        try:
            counts = load_answer_counts(layout, mask.languages)
        except MissingArtifactError:
            return cls(mask, tuple(classes), seed, None)
        made_from = mask.description
        for name in ("config_hash", "weights_hash"):
            ours, theirs = getattr(counts, name), made_from and getattr(made_from, name)
            if ours and theirs and ours != theirs:
                raise IncompatibleError(
                    f"the counts beside {mask.path} are of a model with other {name.split('_')[0]}, so controls cannot "
                    "be matched by them: count this model again (`lna activation --force`), or use --controls 0"
                )
        activity = activation_probability(counts.counts, tokens=counts.tokens).mean(dim=-1)
        return cls(mask, tuple(classes), seed, activity)

    @property
    def matched_by(self) -> str:
        """In words."""
        return "layer" if self.activity is None else "layer and activity"

    def swap(self, model: ModelInfo, row: str, number: int) -> Swap:
        """What puts other neurons in the place of a row's: as many per layer, as active, of no language.

        It is a function of the neurons: steps of one intervention that change the same neurons get the same control.

        Args:
            model: whose neurons they are.
            row: the language, or the row's other name.
            number: which of its sets, from 1.

        Raises:
            IncompatibleError: the mask or the counts are another model's.
            SettingsError: when called: a layer has too few neurons of no language.
        """
        eligible = self._eligible(model)
        if self.activity is not None and self.activity.shape != eligible.shape:
            raise IncompatibleError(
                f"the counts beside {self.mask.path} are of {tuple(self.activity.shape)} neurons (layers, d_mlp), "
                f"{model.path} has {tuple(eligible.shape)}: give the model that was counted"
            )
        seed = _seed(self.seed, row, number)

        def replace(neurons: Bool[Tensor, "layer neuron"]) -> Bool[Tensor, "layer neuron"]:
            return matched_controls(neurons, activity=self.activity, eligible=eligible, seed=seed)

        return replace

    def _eligible(self, model: ModelInfo) -> Bool[Tensor, "layer neuron"]:
        """The neurons of no language."""
        taken = self.mask.matrix(model).any(dim=-1)
        if "general" in self.classes:
            taken |= self.mask.neurons_of(self.mask.languages[0], ("general",), model)
        return ~taken

    def describe(self) -> dict[str, Any]:
        """What decides which neurons are drawn, for provenance."""
        activity = None
        if self.activity is not None:
            activity = hashlib.blake2b(self.activity.contiguous().numpy().tobytes(), digest_size=16).hexdigest()
        return {"control_seed": self.seed, "control_matched_by": self.matched_by, "control_activity": activity}


def control_rows(rows: Sequence[str], sets: int) -> tuple[str, ...]:
    """The names of the control rows, `fr~1`; the first set of every row before the second of any."""
    return tuple(control_row(row, number) for number in range(1, sets + 1) for row in rows)


def of_control(name: str) -> tuple[str, int]:
    """The row that a control row is of, and its number; 0 where the name is a row's own."""
    row, _, number = name.partition("~")
    return row, int(number or 0)


def _seed(seed: int, row: str, number: int) -> int:
    """A seed for each set, so that sets and rows can be added later and change none that are there."""
    return int.from_bytes(hashlib.blake2b(f"{seed} {row} {number}".encode(), digest_size=7).digest(), "big")


# ── The rows of a map: what is done to the model in each, the controls of each among them.

ONE_ROW = "do"
"""The row of steps that name no `each`."""


@dataclass(frozen=True)
class Rows:
    """Rows by name: `none`, then each language or `do`; of controls `fr~1`, `do~1`.

    Attributes:
        doing: the steps.
        source: where their neurons and means come from.
        controls: where those of controls come from.
    """

    doing: Steps
    source: NeuronSource
    controls: Controls

    def __post_init__(self) -> None:
        unknown = sorted(self.doing.words - {"each"})
        if unknown:
            raise SettingsError(
                f"--do names {', '.join(unknown)}, which a map of rows and texts does not have: "
                "give `each`, the language of the row, or a language"
            )

    @classmethod
    def open(cls, layout: Layout, mask: StoredMask, doing: Steps, *, classes: Sequence[str], seed: int) -> Rows:
        """The rows of these steps, their neurons, and those of controls, coming from a mask.

        Raises:
            LNAError: as `Steps.check` and `Controls.open`; what cannot be done is refused here.
        """
        source = NeuronSource.open(layout, mask, classes)
        doing.check(source)
        return cls(doing, source, Controls.open(layout, mask, classes=classes, seed=seed))

    def names(self, languages: Sequence[str]) -> tuple[str, ...]:
        """The rows after the undisturbed one."""
        return tuple(languages) if self.doing.words else (ONE_ROW,)

    def intervention(self, row: str, model: ModelInfo) -> Intervention | None:
        """What is done to the model in a row, or in a control of one; None: nothing.

        A language without neurons changes nothing in its row; steps that stand for no row of their own must.

        Raises:
            LNAError: as `Steps.intervention` and `Controls.swap`.
        """
        if row == UNDISTURBED:
            return None
        name, number = of_control(row)
        swap = self.controls.swap(model, name, number) if number else None
        by_language = bool(self.doing.words)
        steps = self.doing.bind(each=name) if by_language else self.doing
        return steps.intervention(self.source, model, swap=swap, allow_empty=by_language)
