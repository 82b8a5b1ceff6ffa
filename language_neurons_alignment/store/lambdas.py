"""The λ that AutoSweep found in stored counts, in a file beside them: later steps need no λ where there is one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

from ..config import Selection, SweepRange
from ..errors import SettingsError
from .counts import stored_hash
from .files import Json, digest_of, locked, read_json, write_text
from .layout import Layout, with_ending

_NUMBERS = ("lambda", "top_rate", "bar", "lo", "eps")


def store_lambda(layout: Layout, lam: float, selection: Selection, languages: Sequence[str]) -> None:
    """Note the λ that AutoSweep found; one found before with the same choices is replaced.

    Raises:
        ArtifactError: it cannot be written, or the file that is there cannot be read.
        ConflictError: another process keeps the file.
    """
    path = with_ending(layout.sweeps(), ".json")
    chosen = {
        "top_rate": float(selection.top_rate),
        "bar": float(selection.known_bar),
        "languages": list(languages),
        **asdict(selection.search),
    }
    found = {**chosen, "lambda": lam, "counts": {one: stored_hash(layout, one) for one in languages}}
    with locked(layout.sweeps(), busy=f"another process writes {path}: wait until it ends, and run this again"):
        every = {**found_lambdas(layout), digest_of(chosen): found}
        write_text(path, json.dumps({"found": every}, indent=1) + "\n")


def with_found_lambda(layout: Layout, selection: Selection, languages: Sequence[str]) -> Selection:
    """Return the selection with the λ that AutoSweep found for its top rate, bar and languages, and the range of it.

    A selection that has a λ gets that range alone, where AutoSweep found this λ. Without a λ that fits, the selection
    comes back as it is.

    Raises:
        SettingsError: several λ fit.
        ArtifactError: the file cannot be read.
    """
    found = [
        one
        for one in found_lambdas(layout).values()
        if (one["top_rate"], one["bar"]) == (selection.top_rate, selection.known_bar)
        and one["languages"] == list(languages)
        and one["lambda"] == (one["lambda"] if selection.lam is None else selection.lam)
        and one["counts"] == {language: stored_hash(layout, language) for language in languages}
    ]
    lams = sorted({one["lambda"] for one in found})
    if not found:
        return selection
    if len(lams) > 1:
        raise SettingsError(
            f"AutoSweep found {len(lams)} λ for {layout.model} at top rate {selection.top_rate!r} on {layout.dataset}, "
            f"{', '.join(map(repr, lams))}: choose one with -l"
        )
    search = SweepRange(**{name: found[-1][name] for name in ("lo", "hi", "eps", "exact")})
    return replace(selection, lam=lams[0], search=search)


def one_lambda(layout: Layout, selection: Selection) -> float | None:
    """Return the λ of the only mask of this top rate and of the layout's method; None without a mask.

    Of several masks, the one is taken whose λ AutoSweep found, where it found one of these alone.

    Raises:
        SettingsError: several masks, and AutoSweep found the λ of none or of several.
        ArtifactError: the file of AutoSweep cannot be read.
    """
    masks = layout.lambdas(selection.top_rate)
    if len(masks) <= 1:
        return masks[0] if masks else None
    swept = {
        one["lambda"]
        for one in found_lambdas(layout).values()
        if one["top_rate"] == selection.top_rate and selection.bar in (None, one["bar"])
    }
    found = [lam for lam in masks if lam in swept]
    if len(found) != 1:
        raise SettingsError(
            f"{layout.model} has {len(masks)} masks of top rate {selection.top_rate!r} on {layout.dataset}, at λ "
            f"{', '.join(map(repr, masks))}: choose one with -l"
        )
    return found[0]


def found_lambdas(layout: Layout) -> dict[str, Json]:
    """Read what AutoSweep found in the counts, by a digest of its choices; ArtifactError where it cannot be read."""
    stored = read_json(with_ending(layout.sweeps(), ".json"), _is_whole, command="lna autosweep")
    return {} if stored is None else stored["found"]


def _is_whole(content: Any) -> bool:
    return all(
        all(type(one[name]) in (int, float) for name in _NUMBERS)
        and isinstance(one["languages"], list)
        and isinstance(one["counts"], dict)
        and type(one["hi"]) in (int, float, type(None))
        and isinstance(one["exact"], bool)
        for one in content["found"].values()
    )
