"""`lna demo`: the whole pipeline on a small real model, with nothing to prepare."""

from __future__ import annotations

from typing import Annotated

import typer

from ..config import DEFAULT_CONTROLS, DEFAULT_TOP_RATE, MapSettings, PipelineSettings
from . import options
from .progress import note
from .run import run_and_report


def demo(
    results: options.Results,
    engine: options.Engine,
    model: Annotated[
        str | None, typer.Option("--model", help="Model folder or hub id.", show_default="SmolLM2-135M-Instruct")
    ] = None,
    fast: Annotated[
        bool, typer.Option("--fast", help="A few questions in four languages: a minute, not minutes.")
    ] = False,
    controls: options.ControlSets = 0,
    top_rate: options.TopRate = DEFAULT_TOP_RATE,
    force: options.Force = False,
) -> None:
    """Find the language neurons of a small real model on the questions that come with this package."""
    settings = PipelineSettings(top_rate=top_rate, map=MapSettings(controls=controls), force=force)
    from ..demo.corpus import DEMO_DATASET, FAST_DATASET, demo_corpus
    from ..demo.model import demo_model_path
    from ..session import open_session

    model_path = model or str(demo_model_path())
    choices = engine.choices()
    if model is None and engine.dtype == "auto":
        choices["dtype"] = "float32"  # on most CPUs the faster one, and the precision that the model's file holds
    corpus = demo_corpus(fast=fast)
    counted = f"{len(corpus.records)} questions, {len(corpus.languages)} languages"
    note(f"model   {model_path}\ncorpus  {corpus.path} ({counted})")
    dataset = FAST_DATASET if fast else DEMO_DATASET
    with open_session(model_path, corpus, dataset, root=results.root, **choices) as work:
        run_and_report(work, None, settings, as_json=results.as_json)
    if not controls:
        note(
            f"no controls, to be quick: `lna demo{' --fast' if fast else ''} --controls {DEFAULT_CONTROLS}` holds "
            "every change against random neurons, and computes nothing else again"
        )
