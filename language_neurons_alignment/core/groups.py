"""Means over groups of languages: English and the others, trained and untrained ones (paper tables 2 and 3)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from ..errors import SettingsError
from ..frames import Columns, Framed


@dataclass(frozen=True)
class GroupMeans(Framed):
    """Mean number of neurons per language, for groups of languages.

    Attributes:
        groups: name of a group → its languages, in the order of the first axis; none is empty.
        classes: names of the last axis.
        means: mean over the languages of a group; of changes it may be negative.
    """

    groups: dict[str, tuple[str, ...]]
    classes: tuple[str, ...]
    means: Float64[Tensor, "group class"]

    def columns(self) -> Columns:
        """One row a group: group, languages (joined by +), and a column for each class."""
        return {
            "group": list(self.groups),
            "languages": ["+".join(members) for members in self.groups.values()],
            **{name: self.means[:, column].tolist() for column, name in enumerate(self.classes)},
        }


def group_means(
    counts: Int64[Tensor, "lang class"],
    *,
    languages: Sequence[str],
    classes: Sequence[str],
    groups: Mapping[str, Sequence[str]],
) -> GroupMeans:
    """Average counts (or changes of them) over groups of languages; empty groups are left out."""
    kept = {name: tuple(members) for name, members in groups.items() if members}
    rows = [[languages.index(code) for code in members] for members in kept.values()]
    means = [counts[chosen].to(torch.float64).mean(dim=0) for chosen in rows]
    return GroupMeans(kept, tuple(classes), torch.stack(means))


def trained_groups(languages: Sequence[str], trained: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """The languages that a model was aligned on, and the others.

    Raises:
        SettingsError: a trained language that is not among the languages.
    """
    unknown = [code for code in trained if code not in languages]
    if unknown:
        raise SettingsError(
            f"--trained names {', '.join(unknown)}, which is not compared: choose from {', '.join(languages)}"
        )
    others = tuple(code for code in languages if code not in trained)
    return {"trained": tuple(trained), "untrained": others}


def english_groups(languages: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """English and the others; English is left out where it is not compared."""
    return {
        "English": tuple(code for code in languages if code == "en"),
        "others": tuple(code for code in languages if code != "en"),
    }
