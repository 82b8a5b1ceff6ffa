"""The sections in which a model is compared with another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ..core.flow import ClassFlow, LanguageFlow
from ..core.groups import GroupMeans
from ..core.languages_above import LanguagesAbove
from .figures.flow import change_section, flow_section
from .figures.language_flow import alike_section, gained_lost_section, groups_section
from .figures.sharing import shared_change_section
from .sections import MissingSection, Part, Section


@dataclass(frozen=True)
class PairResults:
    """What there is of two models.

    Attributes:
        names: of the first and of the second.
        classes: neurons by their class in both.
        languages: what each language lost, gained and kept.
        groups: mean changes of groups of languages.
        trained: whether the groups are trained and untrained languages; else English and the others.
        above: of both, neurons by the number of languages above τ; empty of masks alone.
    """

    names: tuple[str, str]
    classes: ClassFlow
    languages: LanguageFlow
    groups: GroupMeans
    trained: bool
    above: tuple[LanguagesAbove, ...]


def pair_parts(pairs: Sequence[PairResults]) -> list[Part]:
    """A part for each pair of models; with several, their sections' names are numbered."""
    parts = []
    for number, pair in enumerate(pairs, start=1):
        mark = f"pair-{number}-" if len(pairs) > 1 else ""
        sections = tuple(replace(one, name=mark + one.name) for one in _sections(pair))
        parts.append(Part(f"{mark}comparison", " → ".join(pair.names), sections))
    return parts


def _sections(pair: PairResults) -> list[Section]:
    before, after = pair.names
    sections: list[Section] = [
        flow_section(pair.classes),
        change_section(pair.classes, before=before, after=after),
        gained_lost_section(pair.languages),
        alike_section(pair.languages),
        _groups(pair),
    ]
    if len(pair.above) == len(pair.names):
        sections.append(shared_change_section(*pair.above, names=pair.names))
    else:
        reason = "One of the models is known by its mask alone, which does not hold the neurons outside it."
        sections.append(MissingSection("shared-change", "How many languages share a neuron, in both models", reason))
    return sections


def _groups(pair: PairResults) -> Section:
    """Trained and untrained languages; where none are named as trained, English and the others."""
    if pair.trained:
        title = "Trained languages and the others"
        reading = (
            "The mean change of neurons per language, for the languages that the training was on and for the rest. If "
            "the others change in the same direction, alignment reached languages that it never saw: the paper's "
            "spontaneous multilingual alignment (its table 2: −37 specific and +232 related for trained languages, "
            "−36 and +205 for the others)."
        )
    else:
        title = "English and the others"
        reading = (
            "The mean change of neurons per language. Name the languages that the training was on (--trained zh,de) "
            "and this figure sets them against the rest, which is how the paper shows that alignment reaches "
            "languages it never saw."
        )
    return groups_section("groups", title, reading, pair.groups, label="mean change of neurons")
