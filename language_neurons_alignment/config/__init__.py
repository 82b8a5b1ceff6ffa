"""Settings that several steps share, validated once."""

from __future__ import annotations

from ..languages import DEFAULT_LANGUAGES, LANGUAGE_NAMES, language_code, language_name, parse_languages
from ..method import DEFAULT_METHOD, METHODS, Method
from .checks import (
    AVERAGES,
    CLASSES,
    DEFAULT_BLOCKS,
    DEFAULT_CONTROLS,
    MASK_CLASSES,
    OVERLONG,
    SCALES,
    TEXTS,
    check_block_number,
    check_choice,
    check_controls,
    check_shard,
    check_share,
    in_order,
    parse_shard,
)
from .map import DEFAULT_DO, DEFAULT_MAP, MapSettings
from .pipeline import PipelineSettings
from .selection import DEFAULT_BAR, DEFAULT_RANGE, DEFAULT_TOP_RATE, Selection, SweepRange

__all__ = [
    "AVERAGES",
    "CLASSES",
    "DEFAULT_BAR",
    "DEFAULT_BLOCKS",
    "DEFAULT_CONTROLS",
    "DEFAULT_DO",
    "DEFAULT_LANGUAGES",
    "DEFAULT_MAP",
    "DEFAULT_METHOD",
    "DEFAULT_RANGE",
    "DEFAULT_TOP_RATE",
    "LANGUAGE_NAMES",
    "MASK_CLASSES",
    "METHODS",
    "OVERLONG",
    "SCALES",
    "TEXTS",
    "MapSettings",
    "Method",
    "PipelineSettings",
    "Selection",
    "SweepRange",
    "check_block_number",
    "check_choice",
    "check_controls",
    "check_shard",
    "check_share",
    "in_order",
    "language_code",
    "language_name",
    "parse_languages",
    "parse_shard",
]
