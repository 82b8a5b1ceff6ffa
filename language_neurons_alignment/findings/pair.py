"""One model against another of its shape: neuron by neuron, language by language (paper figure 4, tables 2 and 4)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..core.flow import ClassFlow, LanguageFlow, class_flow, language_flow
from ..core.groups import GroupMeans, group_means
from .model_neurons import ModelNeurons


@dataclass(frozen=True)
class PairComparison:
    """One model against another.

    Attributes:
        before: name of the first.
        after: name of the second.
        classes: neurons by their class in both, per layer.
        languages: what each language's neurons lost, gained and kept, per layer.
        groups: mean change per language of specific and related neurons and of masks, for trained and other languages,
            or where none are named for English and the others.
    """

    before: str
    after: str
    classes: ClassFlow
    languages: LanguageFlow
    groups: GroupMeans

    def plain(self) -> dict[str, Any]:
        """As plain values, over all layers: flow, languages, groups."""
        languages, sets = self.languages.languages, self.languages.sets
        numbers = {
            name: getattr(self.languages, name).sum(dim=0) for name in ("before", "after", "kept", "gained", "lost")
        }
        numbers |= {"jaccard": self.languages.jaccard, "retained": self.languages.retained}
        return {
            "from": self.before,
            "to": self.after,
            "flow": {
                state: dict(zip(self.classes.states, row, strict=True))
                for state, row in zip(self.classes.states, self.classes.total.tolist(), strict=True)
            },
            "languages": {
                code: {
                    name: {set_name: values[k, s].item() for s, set_name in enumerate(sets)}
                    for name, values in numbers.items()
                }
                for k, code in enumerate(languages)
            },
            "groups": self.groups.columns(),
        }


def compare_pair(
    one: tuple[str, ModelNeurons], other: tuple[str, ModelNeurons], groups: dict[str, tuple[str, ...]]
) -> PairComparison:
    """What happened to each neuron's class and to each language's neurons between two models.

    Args:
        one: name and neurons of the first.
        other: of the second.
        groups: of languages, whose changes are averaged.
    """
    (before, base), (after, later) = one, other
    flow = language_flow(base.mask, later.mask, languages=base.languages)
    change = (flow.after - flow.before).sum(dim=0)
    means = group_means(change, languages=base.languages, classes=flow.sets, groups=groups)
    return PairComparison(before, after, class_flow(base.members, later.members), flow, means)
