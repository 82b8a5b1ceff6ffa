"""Language forcing on a model whose language neurons are known: the table is exact, and a run may be killed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

import pytest
import torch

from language_neurons_alignment import _force as forcing_work
from language_neurons_alignment._force import Cell, Forced, force_languages
from language_neurons_alignment._grid import Condition
from language_neurons_alignment._session import Session, open_session
from language_neurons_alignment.activation import collect_activations
from language_neurons_alignment.config import ForcingSettings, Sampling, Selection
from language_neurons_alignment.errors import (
    ConflictError,
    CorpusError,
    MissingArtifactError,
    SettingsError,
    SilentHookError,
)
from language_neurons_alignment.identify import identify
from tests.planted import D_MLP, LAYERS, WORDS, PlantedModel, planted_records
from tests.small_run import idle
from tests.workspace import silent_hooks, stored_cells

LANGUAGES = ("en", "es", "de", "ja")
NAMES = ["English", "Spanish", "German", "Japanese"]
TOP_RATE = 41 / (LAYERS * D_MLP)
SETTINGS = ForcingSettings(sampling=Sampling(temperature=0.0, max_new_tokens=14), controls=2)
EYE = torch.eye(len(LANGUAGES), dtype=torch.float64)


@pytest.fixture(scope="module")
def counted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A planted model that speaks four languages, its counts with moments, and its mask."""
    folder = tmp_path_factory.mktemp("forcing")
    PlantedModel.save(folder / "planted")
    (folder / "corpus.json").write_text(json.dumps(planted_records(NAMES, prompts=4)), encoding="utf-8")
    with opened(folder) as session:
        for language in LANGUAGES:
            collect_activations(session, language, moments=True)
        identify(session.layout, LANGUAGES, Selection(TOP_RATE, 0.0))
    return folder


@pytest.fixture
def work(counted: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(counted, tmp_path / "work"))


def opened(folder: Path) -> Session:
    return open_session(str(folder / "planted"), folder / "corpus.json", "words", root=folder / "out", device="cpu")


def forced(folder: Path, settings: ForcingSettings = SETTINGS, **choices: object) -> Forced:
    with opened(folder) as session:
        return force_languages(session, top_rate=TOP_RATE, lam=0.0, settings=settings, **choices)  # type: ignore[arg-type]


@pytest.mark.slow
def test_a_model_steered_to_a_language_answers_in_it_and_random_neurons_steer_nowhere(work: Path) -> None:
    done = forced(work)
    assert done.sources == done.targets == LANGUAGES
    assert torch.equal(done.table.undisturbed, EYE)
    assert torch.equal(done.table.steered, torch.ones_like(EYE))
    assert torch.equal(done.table.change, 100 * (1 - EYE))
    assert done.table.control is not None
    assert done.table.inside is not None
    controls = {cell: seen for cell, seen in done.seen.items() if cell.condition.control}
    assert len(controls) == 16 * 2
    assert all(set(seen) == {cell.asked} for cell, seen in controls.items()), "no answer of any control turned"
    assert done.table.control.high.unique().tolist() == [25.0], "one question of the four"
    assert torch.equal(done.table.inside, EYE.bool())
    assert done.answered == 4 * (4 + 16 * 3)
    lines = [json.loads(line) for line in (done.answers / "es.to.de.jsonl").read_text().splitlines()]
    german = set(WORDS["German"].split())
    assert all(set(one["answer"].split()) <= german for one in lines)
    assert {one["language"] for one in lines} == {"de"}


def test_a_cell_is_answered_once_and_more_targets_are_added_to_those_that_are_there(work: Path) -> None:
    first = forced(work, sources=("es",), targets=("de",))
    assert first.answered == 4 * (1 + 3)
    more = forced(work, sources=("es",), targets=("ja", "de"))
    assert more.answered == 4 * 3
    with opened(work) as session:
        again = force_languages(idle(session), ("es",), ("de",), top_rate=TOP_RATE, lam=0.0, settings=SETTINGS)
    assert again.answered == 0
    assert torch.equal(again.table.change, first.table.change)
    assert again.seen[Cell("es", Condition("de"))] == ["de"] * 4


@pytest.mark.slow
def test_killed_and_resumed_gives_the_same_bytes(work: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(work, tmp_path / "other"))
    forced(work, sources=("es",), targets=("de", "ja"))
    with dying(after=4), pytest.raises(KeyboardInterrupt):
        forced(other, sources=("es",), targets=("de", "ja"))
    resumed = forced(other, sources=("es",), targets=("de", "ja"))
    assert 0 < resumed.answered < 4 * (1 + 2 * 3)
    whole, parts = (written(one / "out/forcings") for one in (work, other))
    assert whole == parts
    assert len(whole) > 3


def test_questions_are_tokenised_once_for_all_cells_and_tables_of_version_0_1_are_gone_on_with(work: Path) -> None:
    few = ForcingSettings(sampling=SETTINGS.sampling, controls=0)
    first = forced(work, few, sources=("es",), targets=("de",))
    cells = first.json.with_name(first.json.name.replace(".json", ".cells.jsonl"))
    cells.unlink()  # its summary is what version 0.1 wrote
    with opened(work) as session:
        tokenizer = session.source().tokenizer
        asked, encode = [], tokenizer.encode
        with patch.object(tokenizer, "encode", lambda text: asked.append(text) or encode(text)):
            more = force_languages(session, ("es",), ("de", "ja"), top_rate=TOP_RATE, lam=0.0, settings=few)
    assert more.answered == 4
    assert len([text for text in asked if len(text) > 1]) == 4  # shorter ones ask what the tokenizer appends
    assert [tuple(one["cell"]) for one in stored_cells(cells)] == [("none", "es"), ("de", "es"), ("ja", "es")]
    assert more.seen[Cell("es", Condition("de"))] == first.seen[Cell("es", Condition("de"))]


@pytest.mark.slow
def test_other_settings_are_refused_unless_forced_and_other_steps_have_files_of_their_own(work: Path) -> None:
    usual = forced(work, sources=("es",), targets=("de",))
    longer = ForcingSettings(sampling=Sampling(temperature=0.0, max_new_tokens=15), controls=2)
    with pytest.raises(ConflictError, match="max new tokens"):
        forced(work, longer, sources=("es",), targets=("de",))
    assert forced(work, longer, sources=("es",), targets=("de",), overwrite=True).answered == 16
    muted = ForcingSettings(do=("zero source", "zero target"), sampling=SETTINGS.sampling, controls=0)
    silent = forced(work, muted, sources=("es",), targets=("de",))
    assert silent.json != usual.json
    assert silent.table.control is None
    assert silent.table.steered.item() == 0.0
    assert silent.seen[Cell("es", Condition("de"))] == [None] * 4, "noise is in no language"


def test_steering_that_never_fired_is_an_error(work: Path) -> None:
    with silent_hooks(), pytest.raises(SilentHookError, match="cannot be trusted"):
        forced(work, sources=("es",), targets=("de",))
    assert not list((work / "out/forcings").rglob("*.csv"))


def test_what_cannot_be_is_refused_before_the_model_is_loaded(work: Path) -> None:
    with pytest.raises(SettingsError, match="steers to no target"):
        ForcingSettings(do=("zero each",))
    with opened(work) as session:
        unloaded = idle(session)
        with pytest.raises(SettingsError, match="has no neurons of fr"):
            force_languages(unloaded, ("en", "fr"), top_rate=TOP_RATE, lam=0.0)
        for path in session.layout.root.rglob("*moments.de*"):
            path.unlink()
        with pytest.raises(MissingArtifactError, match="--moments"):
            force_languages(unloaded, ("en",), ("de",), top_rate=TOP_RATE, lam=0.0)
    (work / "corpus.json").write_text(json.dumps(planted_records(NAMES[:2])), encoding="utf-8")
    with opened(work) as session, pytest.raises(CorpusError, match="no records in 'de'"):
        force_languages(idle(session), ("de",), ("en",), top_rate=TOP_RATE, lam=0.0)


def written(folder: Path) -> dict[str, bytes]:
    """All files under a folder, by their paths in it."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@contextmanager
def dying(*, after: int) -> Iterator[None]:
    """Leave in the middle of the batch after so many cells, as Ctrl-C does."""
    calls, grade = 0, forcing_work.languages_seen

    def seen(*args: object) -> object:
        nonlocal calls
        calls += 1
        if calls > after:
            raise KeyboardInterrupt
        return grade(*args)

    with patch.object(forcing_work, "languages_seen", seen):
        yield
