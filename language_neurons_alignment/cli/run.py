"""`lna run`, all four steps at once, and `lna demo`, the same on a model and a corpus that come with the package."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..config import MapSettings, PipelineSettings, Selection
from ..errors import SettingsError
from ..languages import in_default_order
from .corpus import answer_data, answer_table, report_answers
from .effects import map_data, map_files, map_tables, report_map_reuse
from .neurons import mask_tables, report_reuse
from .options import EngineFlags, Overwrite, Results, Setup, given_to, only, option_of, read_config
from .output import Bars, note, notes, result, show_evaluation

if TYPE_CHECKING:
    from .._session import Session

_MODEL = "smollm2"
"""The demo's model where none is named: free to use, so that nobody accepts terms without knowing (decision 0061)."""
_MULTILINGUAL = "gemma3-270m"
_LONG = 20.0
"""Seconds after which a run is long enough to say how it went."""
_BUSY = 0.6
"""The share of a run's time for which its threads have a processor where nothing else wants one, with room to spare."""


def run(
    context: typer.Context,
    setup: Setup,
    settings: PipelineSettings,
    config: Annotated[
        Path | None,
        typer.Option(
            "-c",
            "--config",
            help="YAML or TOML file with values for these flags (controls: 5); flags replace them.",
            callback=read_config,
            is_eager=True,
            show_default=False,
        ),
    ] = None,
) -> None:
    """Count all languages, find λ, identify the neurons and map their effect, with the model loaded once.

    A second run does what is missing. A corpus of questions alone is answered first, by the model itself, as -n,
    --temperature and the like say; the answers are kept under --root. A corpus with answers in some of the languages
    and none in others is refused. Texts that are no questions are counted as they are with --count text. What -c gave
    is stored beside the map, with the flags.

    Example: lna run --model-path ./Mistral-7B-v0.1 -d datasets/mgsm.json -s mgsm
    """
    with setup.open() as work:
        _run(work, settings, as_json=setup.results.as_json, described=given_to(context) if config else None)


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
    full: Annotated[
        bool, typer.Option("--full", help="All twenty questions of each language, in twice the time.")
    ] = False,
    controls: Annotated[int, option_of(MapSettings, "controls")] = 0,
    title: Annotated[str | None, option_of(MapSettings, "title")] = None,
    overwrite: Overwrite = False,
) -> None:
    """Find the language neurons of a small real model on the questions that come with this package.

    The model (269 MB; Gemma 536 MB) is unpacked into the user's cache at the first call. Half of the questions are
    enough for a first map. No random-neuron baselines are drawn unless --controls asks for them: five sets take five
    times as long as the map, and fewer give too wide a range.

    Example: lna demo --fast
    """
    if fast and full:
        raise SettingsError("--fast takes a few questions and --full all of them: give one of the two")
    settings = PipelineSettings(
        selection=selection, map=MapSettings(controls=controls, title=title), overwrite=overwrite
    )
    from .._demo import FAST, FULL, HALF, MODELS, demo_corpus, demo_dtype, demo_model_path
    from .._session import open_session

    known = MODELS.get(model)
    if known is not None:
        note(f"licence {known.folder}: {known.licence}")
    model_path = str(demo_model_path(model)) if known is not None else model
    choices = engine.choices()
    dataset = FAST if fast else FULL if full else HALF
    corpus = demo_corpus(dataset)
    note(f"model   {model_path}")
    note(f"corpus  {corpus.path} ({len(corpus.records)} questions, {len(corpus.languages)} languages)")
    if known is not None and engine.dtype == "auto":
        choices["dtype"], why = demo_dtype(engine.device)
        note(f"dtype   {choices['dtype']} ({why})")
    with open_session(model_path, corpus, dataset, root=results.root, **choices) as work:
        _run(work, settings, as_json=results.as_json)
    again = "lna demo" if model == _MODEL else f"lna demo --model {model}"
    if dataset == HALF:
        note(f"a first map, of half of the questions: `{again} --full` takes them all, in twice the time")
    if not controls:
        size = {FAST: " --fast", FULL: " --full"}.get(dataset, "")
        sets = MapSettings.controls
        note(
            f"no random-neuron baseline was drawn: `{again}{size} --controls {sets}` adds one, in {sets} times the "
            "time of the map, and computes nothing else again"
        )
    if model == _MODEL:
        other = MODELS[_MULTILINGUAL]
        note(
            "this model was trained on English; one that was trained on many languages draws a clearer map: "
            f"`lna demo --model {_MULTILINGUAL}` ({other.size}; {other.licence})"
        )


def _run(work: Session, settings: PipelineSettings, *, as_json: bool, described: dict[str, Any] | None = None) -> None:
    """Run the pipeline; print what it found and where that lies; store what described the run, where a file did."""
    from ..pipeline import run_pipeline

    languages = settings.selection.languages or in_default_order(work.corpus.languages)
    with Bars() as bars:
        done = run_pipeline(work, languages, settings, start=bars.start, observe=show_evaluation)
    description, answers, files = done.identification.description, None, {"masks": done.identification.path}
    sections = [*mask_tables(description), *map_tables(done.map, settings.map)]
    if done.sweep is not None:
        sections.insert(0, [f"best λ = {done.sweep.shown}"])
    if done.generated is not None:
        note(
            f"the corpus has questions alone; this model's own answers are in {done.generated.corpus.path} (texts that "
            "are no questions are counted as they are with --count text)"
        )
        report_answers(done.generated)
        sections.insert(0, answer_table(done.generated))
        answers, files["answers"] = answer_data(done.generated), done.generated.corpus.path
    notes(done.notes)
    notes(starved(*bars.spent, threads=work.source.threads))
    report_reuse(done.collected)
    report_map_reuse(done.map)
    files |= {f"{kind} map": path for kind, path in map_files(done.map).items()}
    if described is not None and done.map.json is not None:
        from ..store.run_file import save_run_file

        files["run file"] = done.map.json.with_name(f"{done.map.json.name.removesuffix('.json')}.run.yaml")
        save_run_file(files["run file"], described)
    data = {
        "answers": answers,
        "lambda": description.lam,
        "mask": done.identification.path,
        "activations": {one.language: one.paths for one in done.collected},
        "reused": [one.language for one in done.collected if one.reused],
        "identification": description.plain(),
        "map": map_data(done.map),
        "run_file": files.get("run file"),
        "notes": done.notes,
    }
    result(as_json, data, *sections, [f"{name:<8} {path}" for name, path in files.items()])


def starved(wall: float, processor: float, *, threads: int) -> list[str]:
    """A sentence where the threads of a run had no processor for most of its time, in seconds; else none.

    >>> starved(100.0, 190.0, threads=2)
    []
    >>> print(starved(100.0, 60.0, threads=2)[0])
    the 2 threads had a processor for 30 % of the time, so this took longer than it need: ...
    """
    if not threads or wall < _LONG or processor >= _BUSY * threads * wall:
        return []
    fewer = ", where OMP_NUM_THREADS=1 can be as fast" if threads > 1 else ""
    having = "thread had" if threads == 1 else f"{threads} threads had"
    return [
        f"the {having} a processor for {100 * processor / (threads * wall):.0f} % of the time, so this took longer "
        f"than it need: other programs are busy here, or a container may use fewer processors than it sees{fewer}"
    ]
