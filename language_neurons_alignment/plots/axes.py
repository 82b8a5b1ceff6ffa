"""What runs along the sides of a chart: languages, layers, or anything else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..languages import language_name

Key = str | int | float


@dataclass(frozen=True)
class Axis:
    """What runs along one side of a chart.

    Attributes:
        label: what it is, with its unit.
        keys: its places, as tables name them (language codes, layer numbers).
        names: its places, as people read them.
        kind: "language" or "layer" where a reader may want to see only some of them; else empty.
    """

    label: str
    keys: tuple[Key, ...]
    names: tuple[str, ...]
    kind: str = ""


def language_axis(codes: Sequence[str], label: str = "language") -> Axis:
    """An axis of languages, by their English names."""
    return Axis(label, tuple(codes), tuple(map(language_name, codes)), "language")


def layer_axis(layers: int) -> Axis:
    """An axis of decoder layers, counted from 0."""
    return Axis("layer", tuple(range(layers)), tuple(map(str, range(layers))), "layer")


def plain_axis(keys: Sequence[Key], label: str, names: Sequence[str] = ()) -> Axis:
    """An axis of anything else."""
    return Axis(label, tuple(keys), tuple(names) or tuple(map(str, keys)))
