"""All steps in a row on a tiny model, and the settings they refuse."""

from __future__ import annotations

import json
import math
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from language_neurons_alignment.activation import collect_activations
from language_neurons_alignment.autosweep import autosweep
from language_neurons_alignment.config import MapSettings, PipelineSettings, Selection, SweepRange
from language_neurons_alignment.corpus.records import records_hash
from language_neurons_alignment.engines import EngineSource
from language_neurons_alignment.errors import ArtifactError, SettingsError
from language_neurons_alignment.identify import identify
from language_neurons_alignment.pipeline import run_pipeline
from language_neurons_alignment.ppl import perplexity_map
from language_neurons_alignment.store import files
from language_neurons_alignment.store.counts import load_counts, save_counts
from language_neurons_alignment.store.layout import with_ending
from language_neurons_alignment.store.masks import Mask
from tests.small_run import LANGUAGES, SETTINGS, idle, opened, run
from tests.workspace import (
    contents,
    leftovers,
    write_corpus,
)


def test_a_whole_run_leaves_every_file_where_it_was_promised_and_nothing_else(made: Path) -> None:
    lam = run(made).identification.description.lam
    rates = f"0.1-{lam!r}"
    assert set(contents(made / "out")) == {
        *(
            f"activations/small/{prefix}activation.{language}.Llama-tiny-llama.pt"
            for language in LANGUAGES
            for prefix in ("", "prefix.")
        ),
        *(f"activation_masks/small/{rates}/mask.Llama-tiny-llama{ending}" for ending in ("", ".json")),
        *(
            f"ppl_maps/small/{rates}/ppl.Llama-tiny-llama.{ending}"
            for ending in ("png", "json", "csv", "controls.json", "cells.jsonl")
        ),
    }
    assert leftovers(made) == []


def test_the_steps_one_by_one_make_the_same_files_as_the_whole_run(work: Path, fresh: Path, made: Path) -> None:
    with opened(fresh) as session:
        for language in LANGUAGES:
            collect_activations(session, language)
        found = autosweep(session.layout, LANGUAGES, top_rate=0.1, bar=0.8, search=SETTINGS.selection.search)
        identify(session.layout, LANGUAGES, Selection(0.1, found.lam, 0.8))
        perplexity_map(session, top_rate=0.1, lam=found.lam)
    assert contents(fresh / "out") == contents(made / "out")


def test_a_second_run_computes_nothing_and_changes_no_file(work: Path) -> None:
    before = contents(work / "out")
    from language_neurons_alignment.pipeline import run_pipeline

    again = run_pipeline(idle(opened(work)), LANGUAGES, SETTINGS)
    assert all(one.reused for one in again.collected)
    assert again.map.computed == again.map.controls_computed == 0
    assert contents(work / "out") == before


def test_where_another_lambda_is_found_the_masks_that_are_there_stay_and_are_named(work: Path, lam: float) -> None:
    before = contents(work / "out")
    auto = PipelineSettings(selection=Selection(0.1, bar=0.8), map=MapSettings(controls=0))
    same = run_pipeline(idle(opened(work)), LANGUAGES, auto)
    assert same.sweep is not None
    assert (same.sweep.lam, same.others) == (lam, ()), "a wider range finds the same λ, so nothing is made anew"
    cut = replace(auto, selection=replace(auto.selection, search=SweepRange(hi=0.05)))
    other = run(work, cut)
    assert other.others == (lam,)
    assert f"masks are there at λ {lam!r} too" in other.notes[-1]
    description = other.identification.description
    assert (description.lam, description.searched_to) == (0.05, 0.05)
    assert any(note.startswith("λ = 0.05 is the end of the range that was searched; ") for note in other.notes)
    assert {name: content for name, content in contents(work / "out").items() if name in before} == before


def test_forcing_computes_everything_again_and_finds_the_same(work: Path) -> None:
    before = contents(work / "out")
    again = run(work, replace(SETTINGS, overwrite=True))
    assert not any(one.reused for one in again.collected)
    assert (again.map.computed, again.map.controls_computed) == (3 * 4, 3 * 3 * 5)
    assert contents(work / "out") == before


def test_a_lambda_that_is_given_is_used_and_not_searched(work: Path) -> None:
    done = run(work, replace(SETTINGS, selection=replace(SETTINGS.selection, lam=0.5)))
    assert done.sweep is None
    assert done.identification.path.parent.name == "0.1-0.5"


@pytest.mark.parametrize(
    "wrong",
    [{"top_rate": math.nan}, {"top_rate": 0.0}, {"top_rate": 1.01}, {"top_rate": -1}, {"bar": math.nan}, {"bar": 0},
     {"bar": 1.5}, {"lam": math.nan}, {"lam": -0.1}, {"lam": math.inf}],
)  # fmt: skip
def test_rates_that_are_no_rates_are_refused_before_anything_runs(wrong: dict[str, float]) -> None:
    with pytest.raises(SettingsError, match="got"):
        PipelineSettings(selection=Selection(**wrong))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "wrong", [{"lo": -0.1}, {"lo": 0.3, "hi": 0.2}, {"hi": math.nan}, {"hi": math.inf}, {"eps": 0}, {"eps": math.nan}]
)
def test_ranges_that_are_no_ranges_are_refused_before_anything_runs(wrong: dict[str, float]) -> None:
    with pytest.raises(SettingsError):
        SweepRange(**wrong)


@pytest.mark.parametrize(
    "wrong", [{"classes": ()}, {"classes": ("specific", "typo")}, {"text": "question"}, {"overlong": "drop"},
              {"scale": "log"}, {"average": "mean"}, {"controls": 1}, {"controls": -1}],
)  # fmt: skip
def test_choices_that_there_are_not_are_refused_before_anything_runs(wrong: dict[str, object]) -> None:
    with pytest.raises(SettingsError):
        MapSettings(**wrong)  # type: ignore[arg-type]


def test_counting_and_mapping_each_have_their_own_choice_for_long_sequences(fresh: Path) -> None:
    done = run(fresh, replace(SETTINGS, overlong="skip", map=MapSettings(overlong="truncate", controls=0)))
    assert {one.meta["overlong_policy"] for one in done.collected} == {"skip"}
    assert json.loads(done.map.json.read_text())["provenance"]["overlong_policy"] == "truncate"
    with pytest.raises(SettingsError, match="--overlong must be one of"):
        replace(SETTINGS, overlong="cut")


def test_languages_in_other_spellings_leave_the_same_files_byte_by_byte(fresh: Path, made: Path) -> None:
    spelt = {"en": ["eng_Latn", "English"], "es": ["spa_Latn", "es-ES", "español"], "sw": ["swh_Latn", "swh"]}
    records = json.loads((fresh / "corpus.json").read_text(encoding="utf-8"))
    for number, record in enumerate(records):
        names = spelt[record["lang"]]
        record["lang"] = names[number % len(names)]
    write_corpus(fresh / "corpus.json", records)
    with opened(fresh) as session:
        run_pipeline(session, ("en-US", "Spanish", "swh"), SETTINGS)
        for spelling in ("sw-TZ", "Swahili"):
            assert collect_activations(session, spelling).reused
    assert contents(fresh / "out") == contents(made / "out")


def test_results_under_an_earlier_spelling_are_found_and_continued(fresh: Path) -> None:
    """As earlier commits leave them: named, described and hashed with the language as it was written."""
    records = json.loads((fresh / "corpus.json").read_text(encoding="utf-8"))
    write_corpus(
        fresh / "corpus.json", [{**one, "lang": {"sw": "swh"}.get(one["lang"], one["lang"])} for one in records]
    )
    with opened(fresh) as session:
        for language in LANGUAGES:
            collect_activations(session, language)
        layout = session.layout
        (full, prefix), meta = collect_activations(session, "sw").paths, load_counts(layout, "sw")[1]
        counts = load_counts(layout, "sw")[0]
        old = records_hash([replace(record, language="swh") for record in session.corpus.of_language("sw")])
        for path in (full, prefix):
            path.rename(path.with_name(path.name.replace(".sw.", ".swh.")))
        save_counts(layout, "sw", counts, {**meta, "corpus_hash": old, "language": "swh"})
        assert collect_activations(session, "sw").reused
        found = identify(layout, LANGUAGES, Selection(0.1, 0.1, 0.8))
        described = with_ending(found.path, ".json")
        content = json.loads(described.read_text(encoding="utf-8").replace('"sw"', '"swh"'))
        del content["description_hash"]  # which those versions did not write
        described.write_text(json.dumps(content), encoding="utf-8")
        assert Mask.load(found.path).languages == LANGUAGES
        assert identify(layout, ("en", "es", "swh"), Selection(0.1, 0.1, 0.8)).path == found.path
        assert perplexity_map(session, ["swh"], top_rate=0.1, lam=0.1).map.languages == ("sw",)
    assert {path.name for path in full.parent.iterdir() if "sw" in path.name} == {
        "activation.swh.Llama-tiny-llama.pt",
        "prefix.activation.swh.Llama-tiny-llama.pt",
    }


# Before the model is loaded


def never_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(_: EngineSource) -> None:
        pytest.fail("the model was loaded although its results cannot be stored")

    monkeypatch.setattr(EngineSource, "__call__", load)


@pytest.mark.parametrize(
    ("step", "folder"),
    [("activation", "activations"), ("ppl", "ppl_maps"), ("run", "activations"), ("run", "activation_masks"),
     ("run", "ppl_maps")],
)  # fmt: skip
@pytest.mark.parametrize("force", [True, False])
def test_a_folder_that_cannot_be_written_is_noticed_before_the_model_is_loaded(
    work: Path, lam: float, monkeypatch: pytest.MonkeyPatch, step: str, folder: str, force: bool
) -> None:
    never_loaded(monkeypatch)
    if step == "run":
        shutil.rmtree(work / "out" / "activations")
    shutil.rmtree(work / "out" / folder, ignore_errors=True)
    (work / "out" / folder).symlink_to(work / "nowhere")
    steps = {
        "activation": lambda session: collect_activations(session, "en", overwrite=force),
        "ppl": lambda session: perplexity_map(session, top_rate=0.1, lam=lam, overwrite=force),
        "run": lambda session: run_pipeline(session, LANGUAGES, replace(SETTINGS, overwrite=force)),
    }
    with opened(work) as session, pytest.raises(ArtifactError, match="a broken link is where a folder belongs"):
        steps[step](session)


def test_a_disk_without_room_for_the_counts_of_all_languages_is_noticed_before_the_first_is_counted(
    fresh: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(fresh) as session:
        one = sum(path.stat().st_size for path in collect_activations(session, "en").paths)
    free = int(1.5 * one)  # of three languages one is there, and another would fit
    usage = files.shutil.disk_usage(fresh)._replace(free=free)
    monkeypatch.setattr(files.shutil, "disk_usage", lambda _: usage)
    never_loaded(monkeypatch)
    before = contents(fresh / "out")
    with opened(fresh) as session, pytest.raises(ArtifactError, match=r"needs .* for the results.*free some space"):
        run_pipeline(session, LANGUAGES, replace(SETTINGS, moments=True, blocks=3))
    assert contents(fresh / "out") == before


def test_a_file_system_without_locks_is_noticed_before_the_model_is_loaded(
    fresh: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(37, "No locks available")

    never_loaded(monkeypatch)
    monkeypatch.setattr(files, "flock", refuse)
    with (
        opened(fresh) as session,
        pytest.raises(ArtifactError, match=r"no file locks.*choose a place on another disk"),
    ):
        run_pipeline(session, LANGUAGES, SETTINGS)


# Replacing


def test_a_forced_run_in_a_folder_that_was_copied_without_its_times_begins_anew(work: Path) -> None:
    counted: list[str] = []
    count = collect_activations

    def killed(session: object, language: str, **choices: object) -> object:
        if language == LANGUAGES[-1]:
            raise KeyboardInterrupt
        counted.append(language)
        return count(session, language, **choices)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("language_neurons_alignment.pipeline.collect_activations", killed)
        with pytest.raises(KeyboardInterrupt):
            run(work, replace(SETTINGS, overwrite=True))
    assert counted == list(LANGUAGES[:-1])
    copy = work / "copy"
    shutil.copytree(work / "out", copy, copy_function=shutil.copyfile)
    for path in copy.rglob("*"):
        os.utime(path, (2e9, 2e9))
    again = run(work, replace(SETTINGS, overwrite=True), root=copy)
    assert [one.reused for one in again.collected] == [False, False, False]
    here = run(work, replace(SETTINGS, overwrite=True))
    assert [one.reused for one in here.collected] == [True, True, False]
    anew = run(work, replace(SETTINGS, overwrite=True))
    assert [one.reused for one in anew.collected] == [False, False, False]


def test_a_forced_run_that_was_killed_means_nothing_to_a_run_with_other_settings(work: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("language_neurons_alignment.pipeline.identify", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run(work, replace(SETTINGS, overwrite=True))
    marker = work / "out" / "activations" / "small" / "run.Llama-tiny-llama.replacing.json"
    assert marker.exists()
    other = replace(SETTINGS, map=MapSettings(controls=0))
    with opened(work) as session:
        assert all(one.reused for one in run_pipeline(idle(session), LANGUAGES, other).collected)
    assert marker.exists()
    assert not any(one.reused for one in run(work, replace(other, overwrite=True)).collected)
    assert not marker.exists()
