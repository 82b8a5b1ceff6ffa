"""The flags that commands share, each described once, in groups that belong together."""

from __future__ import annotations

from .answers import Answers, Decoding
from .counting import Blocks, Moments, Overlong
from .engine import Engine
from .inputs import Data, Languages, Model
from .map import Controls, ControlSets, Map, parse_classes
from .neurons import Bar, Neurons, Search, TopRate
from .results import AsJson, Debug, Force, Results, Telling

__all__ = [
    "Answers",
    "AsJson",
    "Bar",
    "Blocks",
    "ControlSets",
    "Controls",
    "Data",
    "Debug",
    "Decoding",
    "Engine",
    "Force",
    "Languages",
    "Map",
    "Model",
    "Moments",
    "Neurons",
    "Overlong",
    "Results",
    "Search",
    "Telling",
    "TopRate",
    "parse_classes",
]
