"""Where the numbers come from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from .sections import TableSection


def provenance_section(models: Mapping[str, Mapping[str, str]], notes: Sequence[str] = ()) -> TableSection:
    """What each model's results were made from, side by side; what is not known is left blank."""
    what = dict.fromkeys(name for facts in models.values() for name in facts)
    rows = [(name, *(facts.get(name, "") for facts in models.values())) for name in what]
    reading = (
        "Everything that decides a number on this page. Digests are of the counts themselves, of the model's "
        "configuration and weights, and of the mask: two reports with the same digests show the same model."
    )
    return TableSection(
        "provenance",
        "Provenance",
        " ".join([reading, *(f"Note: {note}." for note in notes)]),
        ("", *models),
        tuple(rows),
    )
