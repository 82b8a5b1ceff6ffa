"""What a perplexity map shows, and what effects are held against."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import typer

from ...config import DEFAULT_CONTROLS, DEFAULT_DO, DEFAULT_MAP, MASK_CLASSES, MapSettings
from .counting import Overlong

ControlSets = Annotated[
    int,
    typer.Option("--controls", help="Random sets of neurons that each row is held against; 0: draw none.", min=0),
]


@dataclass(frozen=True)
class Controls:
    """What effects are held against."""

    controls: ControlSets = DEFAULT_CONTROLS
    seed: Annotated[int, typer.Option("--seed", help="Of the random sets of neurons.")] = DEFAULT_MAP.seed


@dataclass(frozen=True)
class Map:
    """What a perplexity map shows."""

    classes: Annotated[
        str, typer.Option("--classes", help="Neurons to deactivate: any of specific,related,general.")
    ] = ",".join(MASK_CLASSES)
    text: Annotated[str, typer.Option("--text", help="Text to score: instruction, answer, full.")] = DEFAULT_MAP.text
    scale: Annotated[str, typer.Option("--scale", help="Change shown: percent, or log1p as in the paper.")] = (
        DEFAULT_MAP.scale
    )
    average: Annotated[
        str, typer.Option("--average", help="Perplexity shown: per token, or the mean over texts (text).")
    ] = DEFAULT_MAP.average
    overlong: Overlong = DEFAULT_MAP.overlong

    def settings(self, *, controls: int, seed: int, do: tuple[str, ...] = DEFAULT_DO) -> MapSettings:
        """As the use-cases take it."""
        return MapSettings(
            classes=parse_classes(self.classes),
            text=self.text,
            overlong=self.overlong,
            scale=self.scale,
            average=self.average,
            do=do,
            controls=controls,
            seed=seed,
        )


def parse_classes(names: str) -> tuple[str, ...]:
    """The classes of "specific,related"."""
    return tuple(name.strip() for name in names.split(",") if name.strip())
