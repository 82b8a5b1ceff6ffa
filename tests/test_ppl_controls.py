"""Maps with controls and intervals, and of other interventions, on a tiny model."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from language_neurons_alignment.config import MapSettings
from language_neurons_alignment.engines.transformers import TransformersEngine, engine
from language_neurons_alignment.engines.transformers.reuse import LayerReuse
from language_neurons_alignment.errors import ConflictError, SettingsError
from language_neurons_alignment.ppl import MapResult, perplexity_map
from language_neurons_alignment.store.maps import load_map
from tests.small_run import LANGUAGES, idle, layout_of, map_file, opened
from tests.workspace import change_cells, contents, leftovers, stored_cells


def mapped(work: Path, lam: float, *, force: bool = False, **choice: object) -> MapResult:
    with opened(work) as session:
        return perplexity_map(session, top_rate=0.1, lam=lam, settings=MapSettings(**choice), overwrite=force)  # type: ignore[arg-type]


def of_controls(part: str, **changes: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Changes what control cells were made from, or by which engine."""

    def changed(line: dict[str, Any]) -> dict[str, Any]:
        controls = "id" in line and "control_seed" in line["made_from"]
        return {**line, part: {**line[part], **changes}} if controls else line

    return changed


def test_killed_between_control_cells_and_resumed_the_files_are_the_same(
    work: Path, lam: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = contents(work / "out")
    for ending in (".cells.jsonl", ".json", ".png", ".csv", ".controls.json"):
        map_file(work, lam, ending).unlink()
    calls, score = [], TransformersEngine.log_likelihood

    def killed(self: TransformersEngine, texts: object, **named: object) -> object:
        calls.append(texts)
        if len(calls) == 12 + 8:
            raise KeyboardInterrupt
        return score(self, texts, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(TransformersEngine, "log_likelihood", killed)
    with pytest.raises(KeyboardInterrupt):
        mapped(work, lam)
    assert len(stored_cells(map_file(work, lam, ".cells.jsonl"))) == 12 + 7
    done = mapped(work, lam)
    assert (done.computed, done.controls_computed) == (0, 45 - 7)
    assert contents(work / "out") == whole
    assert leftovers(work) == []


@pytest.mark.parametrize("share", [0.25, 0.0])
def test_files_are_the_same_to_the_byte_with_kept_states_and_without(
    work: Path, lam: float, monkeypatch: pytest.MonkeyPatch, share: float
) -> None:
    whole, made = contents(work / "out"), []

    class Watched(LayerReuse):
        def __init__(self, *args: Any, **more: Any) -> None:
            super().__init__(*args, **more)
            made.append(self)

    monkeypatch.setattr(engine, "LayerReuse", Watched)
    monkeypatch.setattr(engine, "KEPT", share)
    mapped(work, lam, force=True)
    assert contents(work / "out") == whole
    (reuse,) = made
    assert reuse.starts == [1], "Swahili's neurons begin there, and its controls"
    assert any(reuse._kept.values()) == (share > 0)


def test_a_map_without_controls_is_whole_and_they_can_be_added_and_grow(work: Path, lam: float) -> None:
    with_five = map_file(work, lam, ".controls.json").read_bytes()
    for ending in (".json", ".controls.json", ".cells.jsonl"):
        map_file(work, lam, ending).unlink()
    bare = mapped(work, lam, controls=0)
    assert (bare.computed, bare.controls, bare.map.controls) == (12, None, ())
    assert not map_file(work, lam, ".controls.json").exists()
    two = mapped(work, lam, controls=2)
    assert (two.computed, two.controls_computed, len(two.map.controls)) == (0, 2 * 9, 2)
    five = mapped(work, lam)
    assert (five.computed, five.controls_computed) == (0, 3 * 9)
    assert map_file(work, lam, ".controls.json").read_bytes() == with_five
    with opened(work) as session:
        again = [
            perplexity_map(idle(session), top_rate=0.1, lam=lam, settings=MapSettings(controls=some)) for some in (2, 0)
        ]
    assert [len(one.map.controls) for one in again] == [5, 5]


@pytest.mark.parametrize("choice", [{"controls": 0}, {"controls": 2, "seed": 1}])
def test_sets_that_are_there_stay_in_the_picture_and_in_the_table_whatever_is_asked_for(
    work: Path, lam: float, choice: dict[str, int]
) -> None:
    mapped(work, lam, force=True, controls=2, seed=1)
    drawn = contents(work / "out")
    done = mapped(work, lam, **choice)
    assert (done.computed, done.controls_computed, len(done.map.controls)) == (0, 0, 2)
    assert (done.controls, done.matched_by) == (map_file(work, lam, ".controls.json"), "layer and activity")
    assert contents(work / "out") == drawn


def test_controls_of_another_map_are_left_out_where_none_are_asked_for(work: Path, lam: float) -> None:
    change_cells(map_file(work, lam, ".cells.jsonl"), of_controls("made_from", mask="another"))
    done = mapped(work, lam, controls=0)
    assert (done.controls, done.map.controls, done.matched_by) == (None, (), "")


def test_other_sets_are_other_results_and_a_conflict(work: Path, lam: float) -> None:
    before = contents(work / "out")
    with pytest.raises(ConflictError, match=r"cells\.jsonl holds cells made from another control seed"):
        mapped(work, lam, seed=1)
    assert contents(work / "out") == before
    assert mapped(work, lam, seed=1, force=True).controls_computed == 45


def test_controls_of_another_engine_or_precision_never_stand_beside_a_map(work: Path, lam: float) -> None:
    change_cells(map_file(work, lam, ".cells.jsonl"), of_controls("engine", dtype="bfloat16"))
    with pytest.raises(ConflictError, match=r"dtype \(bfloat16\)"):
        mapped(work, lam)


def test_the_table_ends_with_interval_and_control(work: Path, lam: float) -> None:
    done = mapped(work, lam)
    rows = list(csv.DictReader(done.csv.open()))
    assert list(rows[0])[-5:] == ["low", "high", "control_low", "control_high", "inside_control"]
    assert {row["low"] for row in rows if row["deactivated"] == "none"} == {""}
    for row in rows[len(LANGUAGES) :]:
        percent, low, high = (float(row[name]) for name in ("percent", "low", "high"))
        assert low <= percent <= high
        inside = float(row["control_low"]) <= percent <= float(row["control_high"])
        assert row["inside_control"] == str(inside).lower()


def test_an_old_map_without_texts_still_loads_and_has_no_intervals(work: Path, lam: float) -> None:
    map_file(work, lam, ".cells.jsonl").unlink()
    old = json.loads(map_file(work, lam, ".json").read_text())["cells"][0]
    assert "text_nll" not in old, "a summary is like the oldest maps"
    with opened(work) as session:
        done = perplexity_map(idle(session), top_rate=0.1, lam=lam)
    assert done.effects().interval.low.isnan().all()
    assert done.effects().control is not None
    assert {row["low"] for row in csv.DictReader(done.csv.open())} == {""}


def test_a_report_reads_the_controls_that_are_whole_and_of_the_same_map(work: Path, lam: float) -> None:
    layout = layout_of(work)
    assert len(load_map(layout.perplexity(0.1, lam))[0].controls) == 5
    path = map_file(work, lam, ".cells.jsonl")
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[: 2 + 12 + 3 * 9 + 1]))
    assert len(load_map(layout.perplexity(0.1, lam))[0].controls) == 3
    change_cells(path, of_controls("made_from", mask="another"))
    assert load_map(layout.perplexity(0.1, lam))[0].controls == ()


def test_other_interventions_have_files_of_their_own_and_scale_0_is_zero(work: Path, lam: float) -> None:
    before = contents(work / "out")
    zero = mapped(work, lam).map
    scaled = mapped(work, lam, do=("scale:0 each",), controls=2)
    assert scaled.json.name.startswith("ppl.Llama-tiny-llama.scale-0-each")
    assert scaled.map.cells == zero.cells
    assert len(scaled.map.controls) == 2
    assert before.items() <= contents(work / "out").items()
    same = mapped(work, lam, do=("scale:1 each",), controls=0)
    assert same.map.change().abs().max() == 0


def test_steps_that_name_no_each_make_one_row(work: Path, lam: float) -> None:
    zero = mapped(work, lam).map
    done = mapped(work, lam, do=("zero es",), controls=2)
    assert done.map.rows == ("none", "do")
    assert done.computed == 6
    assert all(done.map.cells["do", text] == zero.cells["es", text] for text in LANGUAGES)
    assert done.selectivity() is None


def test_words_that_a_map_does_not_have_are_refused_before_anything_runs(work: Path, lam: float) -> None:
    with pytest.raises(SettingsError, match="target"):
        perplexity_map(idle(opened(work)), top_rate=0.1, lam=lam, settings=MapSettings(do=("zero target",)))
