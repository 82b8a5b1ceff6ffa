"""`lna run`, all four steps at once, and `lna demo`, the same on a model and a corpus that come with the package."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from ..config import MapSettings, PipelineSettings, Selection
from ..languages import in_default_order
from .corpus import answer_data, answer_table, report_answers
from .effects import map_data, map_files, map_tables, report_map_reuse
from .neurons import mask_tables, report_reuse
from .options import EngineFlags, Overwrite, Results, Setup, only, option_of
from .output import Bars, note, notes, result, show_evaluation

if TYPE_CHECKING:
    from .._session import Session

_MODEL = "smollm2"
"""The demo's model where none is named."""


def run(setup: Setup, settings: PipelineSettings) -> None:
    """Count all languages, find λ, identify the neurons and map their effect, with the model loaded once.

    A second run does what is missing. A corpus of questions alone is answered first, by the model itself, as -n,
    --temperature and the like say; the answers are kept under --root. A corpus with answers in some of the languages
    and none in others is refused.

    Example: lna run --model-path ./Mistral-7B-v0.1 -d datasets/mgsm.json -s mgsm
    """
    with setup.open() as work:
        _run(work, settings, as_json=setup.results.as_json)


def demo(
    results: Results,
    engine: EngineFlags,
    selection: Annotated[Selection, only("top_rate")],
    model: Annotated[
        str,
        typer.Option(
            "--model",
            help="smollm2 (135M, Apache-2.0), gemma3-270m (multilingual; Gemma Terms of Use), "
            "or a model folder, a GGUF file or a hub id.",
        ),
    ] = _MODEL,
    fast: Annotated[
        bool, typer.Option("--fast", help="A few questions in four languages: a minute, not minutes.")
    ] = False,
    controls: Annotated[int, option_of(MapSettings, "controls")] = 0,
    overwrite: Overwrite = False,
) -> None:
    """Find the language neurons of a small real model on the questions that come with this package.

    The model (269 MB; Gemma 536 MB) is unpacked into the user's cache at the first call. No random-neuron baselines are
    drawn unless --controls asks for them.

    Example: lna demo --fast
    """
    settings = PipelineSettings(selection=selection, map=MapSettings(controls=controls), overwrite=overwrite)
    from .._demo import DEMO_DATASET, FAST_DATASET, MODELS, demo_corpus, demo_model_path
    from .._session import open_session

    known = MODELS.get(model)
    if known is not None:
        note(f"licence {known.folder}: {known.licence}")
    model_path = str(demo_model_path(model)) if known is not None else model
    choices = engine.choices()
    if known is not None and engine.dtype == "auto":
        choices["dtype"] = "float32"  # on most CPUs the faster one, and the precision that the model's file holds
    corpus = demo_corpus(fast=fast)
    counted = f"{len(corpus.records)} questions, {len(corpus.languages)} languages"
    note(f"model   {model_path}\ncorpus  {corpus.path} ({counted})")
    dataset = FAST_DATASET if fast else DEMO_DATASET
    with open_session(model_path, corpus, dataset, root=results.root, **choices) as work:
        _run(work, settings, as_json=results.as_json)
    if not controls:
        again = "" if model == _MODEL else f" --model {model}"
        note(
            f"no random-neuron baseline was drawn: `lna demo{again}{' --fast' if fast else ''} --controls "
            f"{MapSettings.controls}` adds one, and computes nothing else again"
        )


def _run(work: Session, settings: PipelineSettings, *, as_json: bool) -> None:
    """Run the pipeline; print what it found and where that lies."""
    from ..pipeline import run_pipeline

    languages = settings.selection.languages or in_default_order(work.corpus.languages)
    with Bars() as bars:
        done = run_pipeline(work, languages, settings, start=bars.start, observe=show_evaluation)
    description, answers, files = done.identification.description, None, {"masks": done.identification.path}
    sections = [*mask_tables(description), *map_tables(done.map, settings.map)]
    if done.sweep is not None:
        sections.insert(0, [f"best λ = {done.sweep.shown}"])
    if done.generated is not None:
        note(f"the corpus has questions alone; this model's own answers are in {done.generated.corpus.path}")
        report_answers(done.generated)
        sections.insert(0, answer_table(done.generated))
        answers, files["answers"] = answer_data(done.generated), done.generated.corpus.path
    notes(done.notes)
    report_reuse(done.collected)
    report_map_reuse(done.map)
    files |= {f"{kind} map": path for kind, path in map_files(done.map).items()}
    data = {
        "answers": answers,
        "lambda": description.lam,
        "mask": done.identification.path,
        "activations": {one.language: one.paths for one in done.collected},
        "reused": [one.language for one in done.collected if one.reused],
        "identification": description.plain(),
        "map": map_data(done.map),
        "notes": done.notes,
    }
    result(as_json, data, *sections, [f"{name:<8} {path}" for name, path in files.items()])
