"""`lna activation`: count one language."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from ..config import OVERLONG, check_block_number, check_choice, language_code, language_name, parse_shard
from . import options
from .output import result
from .progress import Bars, note
from .setup import answered, session_of

if TYPE_CHECKING:
    from ..activation import Collected


def activation(
    model: options.Model,
    lang: Annotated[str, typer.Option("-l", "--lang", help="Language to count, by code or name.", show_default=False)],
    data: options.Data,
    results: options.Results,
    engine: options.Engine,
    shard: Annotated[
        str | None,
        typer.Option("--shard", metavar="K/N", help="Count only the K-th of N parts; `lna merge` adds them."),
    ] = None,
    overlong: options.Overlong = "error",
    blocks: options.Blocks = None,
    moments: options.Moments = False,
    force: options.Force = False,
) -> None:
    """Count, for every neuron, the tokens on which it fires: over whole texts and over the questions alone."""
    language, part = language_code(lang), None if shard is None else parse_shard(shard)
    check_choice(overlong, OVERLONG, "--overlong")
    if blocks is not None:
        check_block_number(blocks)
    from ..activation import collect_activations
    from ..merge import shard_session

    work = answered(session_of(model, data, results, engine))
    if part is not None:
        work = shard_session(work, *part)
    with work, Bars() as bars:
        collected = collect_activations(
            work, language, overlong=overlong, blocks=blocks, moments=moments, force=force, start=bars.start
        )
    report_reuse([collected])
    full, prefix, *summed = collected.paths
    shown = {
        "language": language,
        "full": full,
        "prefix": prefix,
        **dict(zip(("moments", "prefix_moments"), summed, strict=False)),
        "reused": collected.reused,
        "meta": collected.meta,
    }
    result([str(path) for path in collected.paths], shown, as_json=results.as_json)


def report_reuse(collected: list[Collected]) -> None:
    """Say which languages were there already, in whole or in part: neither is ever silent."""
    there = [language_name(one.language) for one in collected if one.reused]
    if there:
        note(f"already counted from the same model and corpus: {', '.join(there)} (--force counts again)")
    again = [language_name(one.language) for one in collected if one.recounted]
    if again:
        note(f"counted before, but without moments: {', '.join(again)}; counted again, and the counts are the same")
