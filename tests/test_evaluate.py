"""Evaluation of a model that can say a language only through neurons that are known, and of what is on disk."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from language_neurons_alignment._evaluate import Evaluated, evaluate, question_ids
from language_neurons_alignment.config import EvaluationSettings
from language_neurons_alignment.corpus.records import Record
from language_neurons_alignment.errors import ConflictError, CorpusError, SettingsError, SilentHookError
from language_neurons_alignment.store.answers import AnswerGrid, alone
from tests.planted import ASKED, SHORT, Numbered
from tests.small_run import idle
from tests.workspace import contents, silent_hooks, stored_cells

SETTINGS = EvaluationSettings(sampling=SHORT, controls=2)


@pytest.fixture(scope="session")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Numbered:
    """A model and its mask, nothing evaluated."""
    return Numbered.make(tmp_path_factory.mktemp("numbered"))


@pytest.fixture
def model(bare: Numbered, tmp_path: Path) -> Numbered:
    """A copy of it, to change."""
    return bare.at(Path(shutil.copytree(bare.folder, tmp_path / "copy")))


def run(model: Numbered, languages: tuple[str, ...] = ASKED, /, *, force: bool = False, **changes: Any) -> Evaluated:
    with model.open(batch_tokens=128) as session:
        settings = replace(SETTINGS, **changes)
        return evaluate(session, languages, top_rate=model.top_rate, lam=model.lam, settings=settings, overwrite=force)


@pytest.fixture(scope="session")
def done(bare: Numbered, tmp_path_factory: pytest.TempPathFactory) -> tuple[Numbered, Evaluated]:
    """A whole evaluation."""
    model = bare.at(Path(shutil.copytree(bare.folder, tmp_path_factory.mktemp("evaluated") / "copy")))
    return model, run(model)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


# What comes out


def test_without_its_neurons_exactly_that_language_is_gone_and_controls_do_nothing(
    done: tuple[Numbered, Evaluated],
) -> None:
    _, found = done
    gone = 1 - torch.eye(3, dtype=torch.float64)
    for measure in ("accuracy", "number", "language"):
        shares = found.map.shares(measure)
        assert torch.equal(shares[0], torch.ones(3, dtype=torch.float64))
        assert torch.equal(shares[1:4], gone)
        assert torch.equal(shares[4:], torch.ones(6, 3, dtype=torch.float64)), "the controls"
    assert torch.equal(found.effects.change, -100 * (1 - gone))
    assert found.effects.inside is not None
    assert torch.equal(found.effects.inside, gone.bool())
    assert found.selective is not None
    assert found.selective.f1.tolist() == [1, 1, 1]
    assert found.selective.controls is not None
    assert not found.selective.controls.f1.any()
    assert found.matched_by == "layer and activity"
    # six questions, all lost: 2 · (1/2)⁶
    assert found.effects.p.diagonal().tolist() == pytest.approx([2 / 64] * 3)


def test_every_answer_can_be_read_with_all_that_it_was_judged_by(done: tuple[Numbered, Evaluated]) -> None:
    _, found = done
    assert sorted(path.name for path in found.answers.iterdir()) == sorted(f"{row}.jsonl" for row in found.map.rows)
    said, lost = (
        next(one for one in lines(found.answers / f"{row}.jsonl") if one["lang"] == "fr") for row in ("none", "fr")
    )
    assert {key: said[key] for key in ("id", "question", "number", "target", "right", "language", "in_language")} == {
        "id": "q0", "question": "le maison eau enfants", "number": "12", "target": "12", "right": True,
        "language": "fr", "in_language": True,
    }  # fmt: skip
    assert said["confidence"] > 0.9
    assert (lost["right"], lost["language"], lost["confidence"], lost["in_language"]) == (False, None, None, None)
    assert lost["answer"].split()[:2] == ["~4", "~5"]


def test_cells_hold_an_outcome_for_each_question_and_the_table_is_what_was_found(
    done: tuple[Numbered, Evaluated],
) -> None:
    _, found = done
    stored = json.loads(found.json.read_text(encoding="utf-8"))
    cells = {(one["row"], one["language"]): one for one in stored["cells"]}
    assert len(cells) == 10 * 3
    assert cells["fr", "fr"] == {
        "row": "fr", "language": "fr", "questions": 6, "accuracy": 0, "number": 0, "language_right": 0, "unclear": 6,
        "outcomes": "??????",
    }  # fmt: skip
    assert cells["fr", "es"]["outcomes"] == cells["fr~2", "fr"]["outcomes"] == "BBBBBB"
    assert stored["asked"]["fr"] == [f"q{n}" for n in range(6)]
    with found.csv.open(encoding="utf-8") as file:
        table = {(one["row"], one["language"]): one for one in csv.DictReader(file)}
    assert table.keys() == cells.keys()
    own = table["fr", "fr"]
    assert [float(own[key]) for key in ("share", "change", "low", "high")] == [0, -100, -100, -100]
    assert [float(own[key]) for key in ("control_low", "control_high")] == pytest.approx([-100 / 6, 100 / 6])
    assert (own["inside_control"], table["fr", "es"]["inside_control"], table["fr~1", "fr"]["p"]) == (
        "False",
        "True",
        "",
    )
    assert found.png.read_bytes()[:4] == b"\x89PNG"


def test_steps_that_are_the_same_for_every_language_have_one_row(model: Numbered) -> None:
    found = run(model, do=("zero fr", "zero es"), controls=0)
    assert found.map.rows == ("none", "do")
    assert found.effects.change.tolist() == [[0, -100, -100]]
    assert found.selective is None
    assert found.effects.control is None
    assert found.json.name.startswith("evaluate.Llama-planted.zero-fr-zero-es")


def test_a_step_that_changes_nothing_changes_no_answer(model: Numbered) -> None:
    found = run(model, do=("scale:1 each",), controls=0)
    assert not found.effects.change.any()
    assert lines(found.answers / "fr.jsonl") == lines(found.answers / "none.jsonl")


def test_a_row_under_an_intervention_that_never_fired_is_an_error_and_not_kept(model: Numbered) -> None:
    with silent_hooks(), pytest.raises(SilentHookError, match="cannot be trusted"):
        run(model, do=("zero fr",), controls=0)
    (undisturbed,) = model.folder.rglob("none.jsonl")
    assert not (undisturbed.parent / "do.jsonl").exists()
    (journal,) = undisturbed.parent.glob("do.jsonl.*")
    assert not any("answers" in entry for entry in lines(journal)), "a beginning, and nothing in it"


# What is there already


def test_what_is_there_is_kept_and_languages_and_controls_can_be_added(
    model: Numbered, done: tuple[Numbered, Evaluated]
) -> None:
    first = run(model, ("en", "es"), controls=0)
    assert first.answered == 3 * 2 * 6
    more = run(model, controls=2)
    assert more.answered == (4 * 3 + 6 * 3 - 3 * 2) * 6
    for row in more.map.rows:
        ours, whole = (sorted(map(json.dumps, lines(one.answers / f"{row}.jsonl"))) for one in (more, done[1]))
        assert ours == whole
    before = contents(model.folder)
    with model.open() as session:
        again = evaluate(idle(session), ASKED, top_rate=model.top_rate, lam=model.lam, settings=SETTINGS)
    assert again.answered == 0
    assert contents(model.folder) == before


def test_another_measure_is_drawn_from_what_is_there(model: Numbered) -> None:
    run(model, ("en", "fr"), controls=0)
    found = run(model, ("en", "fr"), controls=0, show="language")
    assert found.answered == 0
    assert (found.png.name, found.csv.name) == (
        "evaluate.Llama-planted.language.png", "evaluate.Llama-planted.language.csv",
    )  # fmt: skip


def test_other_settings_are_a_conflict_until_force(model: Numbered) -> None:
    run(model, ("en", "fr"), controls=0)
    longer = replace(SHORT, max_new_tokens=15)
    with pytest.raises(ConflictError, match=r"max new tokens \(14, not 15\); use --force"):
        run(model, ("en", "fr"), controls=0, sampling=longer)
    again = run(model, ("en",), controls=0, sampling=longer, force=True)
    assert again.answered == 2 * 6
    assert sorted(path.name for path in again.answers.iterdir()) == ["en.jsonl", "none.jsonl"]
    corpus = json.loads((model.folder / "corpus.json").read_text(encoding="utf-8"))
    corpus[0]["target"] = "13"
    (model.folder / "corpus.json").write_text(json.dumps(corpus), encoding="utf-8")
    with pytest.raises(ConflictError, match="something else: en"):
        run(model, ("en",), controls=0, sampling=longer)


@pytest.mark.parametrize("force", [True, False], ids=["with --force again", "without"])
def test_the_old_answers_stay_until_all_new_ones_are_there_and_a_killed_run_goes_on(
    model: Numbered, monkeypatch: pytest.MonkeyPatch, force: bool
) -> None:
    old = run(model, ("en", "fr"), controls=0)
    before = contents(model.folder)
    longer = replace(SHORT, max_new_tokens=15)
    store, stored = AnswerGrid.store, []

    def cut_off(self: AnswerGrid, *arguments: Any, **named: Any) -> None:
        store(self, *arguments, **named)
        stored.append(arguments[0])
        if len(stored) == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(AnswerGrid, "store", cut_off)
        with pytest.raises(KeyboardInterrupt):
            run(model, ("en", "fr"), controls=0, sampling=longer, force=True)
    assert stored == ["none", "en"]
    assert before.items() <= contents(model.folder).items(), "nothing of the old result is touched"
    settings = replace(SETTINGS, controls=0)
    with model.open() as session:
        again = evaluate(idle(session), ("en", "fr"), top_rate=model.top_rate, lam=model.lam, settings=settings)
    assert torch.equal(again.map.number, old.map.number)
    new = run(model, ("en", "fr"), controls=0, sampling=longer, force=force)
    assert new.answered == 2 * 6, "one row of three"
    assert sorted(path.name for path in new.answers.iterdir()) == ["en.jsonl", "fr.jsonl", "none.jsonl"]
    assert len(lines(new.answers / "none.jsonl")[0]["answer"].split()) == 15
    assert not new.answers.with_name(f"{new.answers.name}.new").exists()
    assert json.loads(new.json.read_text(encoding="utf-8"))["provenance"]["sampling"]["max_new_tokens"] == 15


def test_an_evaluation_of_version_0_1_is_read_and_goes_to_the_new_file_with_the_first_new_row(model: Numbered) -> None:
    done = run(model, ("en", "es"), controls=0)
    cells = done.json.with_name(done.json.name.replace(".json", ".cells.jsonl"))
    cells.unlink()  # its summary is what version 0.1 wrote
    before = contents(done.json.parent)
    settings = replace(SETTINGS, controls=0)
    with model.open() as session:
        again = evaluate(idle(session), ("en", "es"), top_rate=model.top_rate, lam=model.lam, settings=settings)
    assert again.answered == 0
    assert contents(done.json.parent) == before
    more = run(model, ("en", "es", "fr"), controls=0)
    assert more.answered == (4 * 3 - 3 * 2) * 6
    assert len(stored_cells(cells)) == 4 * 3
    assert torch.equal(more.map.number[:3, :2], done.map.number)


def test_what_cannot_be_is_refused_before_the_model_is_loaded(model: Numbered) -> None:
    path = model.folder / "corpus.json"
    corpus = json.loads(path.read_text(encoding="utf-8"))
    with model.open() as session:
        work = idle(session)
        for changes, named in (({"do": ("zero source",)}, "source"), ({"do": ("zoro fr",)}, "zoro")):
            with pytest.raises(SettingsError, match=named):
                evaluate(work, ASKED, top_rate=model.top_rate, lam=model.lam, settings=replace(SETTINGS, **changes))
        file = model.folder / f"evaluations/words/{model.top_rate}-{model.lam}/evaluate.Llama-planted.json"
        with alone(file), pytest.raises(ConflictError, match="another process"):
            evaluate(work, ASKED, top_rate=model.top_rate, lam=model.lam, settings=SETTINGS)
    for target, named in ((None, "no target"), ("twelve", "'twelve', which is no number")):
        path.write_text(json.dumps([{**corpus[0], "target": target}, *corpus[1:]]), encoding="utf-8")
        with model.open() as session, pytest.raises(CorpusError, match=named):
            evaluate(idle(session), ASKED, top_rate=model.top_rate, lam=model.lam, settings=SETTINGS)
    with pytest.raises(SettingsError, match="--controls"):
        replace(SETTINGS, controls=1)
    with pytest.raises(SettingsError, match="--show"):
        replace(SETTINGS, show="both")


def test_questions_without_ids_and_ids_given_twice_are_questions_of_their_own() -> None:
    records = [Record("fr", "x", (), id=one) for one in ("a", None, "a", None)]
    assert question_ids(records) == ["a", "fr 2", "a (2)", "fr 4"]


# A run that is cut off

KILLED = """
    import os, signal, sys
    from pathlib import Path
    from tests.planted import Numbered
    from tests.test_evaluate import run
    from language_neurons_alignment.store.answers import Journal

    append, entries = Journal.append, []

    def kill(self, entry):
        entries.append(self.path.name)
        if len(entries) == int(sys.argv[1]):
            with self.path.open("ab") as file:  # half of its line is on disk
                file.write(b'{"batch": [1, 2], "answ')
                file.flush()
            os.kill(os.getpid(), signal.SIGKILL)
        append(self, entry)

    Journal.append = kill
    run(Numbered(Path("."), float(sys.argv[2]), float(sys.argv[3])))
"""


def killed(model: Numbered, entry: int) -> Numbered:
    """The model's folder, after a run was killed at an entry of its journals."""
    root = Path(__file__).parents[1]
    ended = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(KILLED), str(entry), str(model.top_rate), str(model.lam)],
        cwd=model.folder, capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    return model


@pytest.mark.slow
@pytest.mark.parametrize("entry", [2, 10])
def test_a_run_that_was_killed_goes_on_and_ends_with_the_same_bytes(
    model: Numbered, entry: int, done: tuple[Numbered, Evaluated]
) -> None:
    killed(model, entry)
    partial = list(model.folder.rglob("*.partial.jsonl"))
    assert [path.name for path in partial] == [f"{'none' if entry == 2 else 'es'}.jsonl.partial.jsonl"]
    with pytest.raises(ConflictError, match=r"unfinished run with other settings: languages.*--force"):
        run(model, ("en", "es"))
    found = run(model)
    assert 0 < found.answered <= 10 * 3 * 6
    assert contents(found.json.parent) == contents(done[1].json.parent)


def test_a_journal_of_answers_that_are_stored_is_dropped(model: Numbered, done: tuple[Numbered, Evaluated]) -> None:
    found = run(model)
    journal = found.answers / "fr.jsonl.partial.jsonl"
    journal.write_text('{"languages": ["en", "es", "fr"]}\n', encoding="utf-8")
    run(model)
    assert contents(found.json.parent) == contents(done[1].json.parent)
