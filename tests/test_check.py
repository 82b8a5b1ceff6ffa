"""`lna check`: every kind of damage is found, results that are whole are not accused, and only leftovers go."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from filelock import FileLock

from language_neurons_alignment._check import DAMAGED, LEFTOVER, ORPHANED, STALE, UNFINISHED, UNVERIFIED, check_root
from language_neurons_alignment.config import MapSettings, Selection
from language_neurons_alignment.errors import SettingsError
from language_neurons_alignment.identify import identify
from language_neurons_alignment.ppl import perplexity_map
from language_neurons_alignment.store.counts import load_counts, save_counts
from language_neurons_alignment.store.files import atomic_file
from language_neurons_alignment.store.layout import Layout
from tests.small_run import LANGUAGES, layout_of, map_file, opened

OLD = Path(__file__).parent / "data" / "results_0_1"
FINISHED = sorted(path.relative_to(OLD / "finished") for path in (OLD / "finished").rglob("*") if path.is_file())
CHECKED = [path for path in FINISHED if path.suffix not in (".png", ".csv") and len(path.parts) > 1]
ONE_OF_EACH = {(path.parts[0], path.suffix, *path.name.split(".")[:2]): path for path in CHECKED}
"""One file of each kind that each command writes."""


def _one_of_each(start: str) -> list[Path]:
    return [path for path in ONE_OF_EACH.values() if path.name.startswith(start)]


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A copy of finished results of every command, as version 0.1 wrote them."""
    return Path(shutil.copytree(OLD / "finished", tmp_path / "old"))


def kinds(root: Path) -> dict[str, list[str]]:
    """Kind of finding → the names of its files; results of version 0.1 hold no digests of their tables."""
    found: dict[str, list[str]] = {}
    for one in check_root(root).findings:
        if one.kind == UNVERIFIED:
            continue
        found.setdefault(one.kind, []).append(one.path.name)
    return found


def test_finished_results_are_in_order(old: Path, work: Path) -> None:
    before = {path: path.read_bytes() for path in old.rglob("*") if path.is_file()}
    found = check_root(old, clean=True)
    assert {one.kind for one in found.findings} == {UNVERIFIED}
    assert (found.sound, found.removed) == (True, ())
    assert {path: path.read_bytes() for path in old.rglob("*") if path.is_file()} == before
    assert set(found.checked) == {
        "counts", "moments", "blocks", "answers", "masks", "maps", "evaluations", "forcings",
        "analysis", "comparisons", "stability", "methods",
    }  # fmt: skip
    assert check_root(work / "out").findings == ()


@pytest.mark.parametrize("damaged", ONE_OF_EACH.values(), ids=str)
def test_a_file_that_is_cut_off_is_damaged(old: Path, damaged: Path) -> None:
    path = old / damaged
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    found = [one for one in check_root(old).findings if one.kind == DAMAGED]
    assert found
    assert any(damaged.name in f"{one.path.name} {one.what}" or one.path.parent in path.parents for one in found)


@pytest.mark.parametrize("ending", [".cells.jsonl", ".json"])
def test_a_map_that_is_cut_off_is_damaged(work: Path, lam: float, ending: str) -> None:
    path = map_file(work, lam, ending)
    path.write_bytes(path.read_bytes()[:200] + b"\n")
    assert DAMAGED in kinds(work / "out")


@pytest.mark.parametrize("missing", _one_of_each("activation."), ids=str)
def test_what_belongs_to_missing_counts_is_orphaned(old: Path, missing: Path) -> None:
    (old / missing).unlink()
    assert ORPHANED in kinds(old)


@pytest.mark.parametrize("missing", _one_of_each("prefix."), ids=str)
def test_counts_without_their_other_half_are_damaged(old: Path, missing: Path) -> None:
    (old / missing).unlink()
    assert DAMAGED in kinds(old)


def test_counts_that_change_make_stale_what_was_made_from_them(old: Path) -> None:
    layout = Layout(old, "words", "Llama-planted-v0.1")
    counts, meta = load_counts(layout, "fr")
    fired = counts.full.over_zero.clone()
    quiet = (fired < counts.full.total_tokens).nonzero()[0].tolist()
    fired[tuple(quiet)] += 1
    for path in (layout.moments("fr"), layout.blocks("fr")):
        path.unlink()
        path.with_name(f"prefix.{path.name}").unlink()
    save_counts(layout, "fr", replace(counts, full=replace(counts.full, over_zero=fired)), meta)
    found = kinds(old)
    assert set(found) == {STALE}
    commands = {name.split(".")[0] for name in found[STALE]}
    assert commands == {"mask", "analysis", "compare", "stability", "methods"}


def test_a_mask_that_changes_makes_its_map_stale(work: Path, lam: float) -> None:
    identify(layout_of(work), LANGUAGES, Selection(0.1, lam, bar=0.5), overwrite=True)
    assert kinds(work / "out") == {STALE: ["ppl.Llama-tiny-llama"]}


def test_counts_of_two_models_under_one_name_are_stale(work: Path) -> None:
    layout = layout_of(work)
    counts, meta = load_counts(layout, "sw")
    save_counts(layout, "sw", counts, {**meta, "weights_hash": "another"})
    assert kinds(work / "out") == {STALE: ["activation.sw.Llama-tiny-llama.pt"]}


def test_a_cell_that_its_texts_do_not_come_to_is_damaged(work: Path, lam: float) -> None:
    path = map_file(work, lam, ".cells.jsonl")
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    cell = next(line for line in lines if "cell" in line)
    first, *rest = cell["text_nll"].split()
    cell["text_nll"] = " ".join([repr(float(first) + 0.5), *rest])
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert kinds(work / "out") == {DAMAGED: ["ppl.Llama-tiny-llama"]}


@pytest.mark.parametrize("change", [{"token": 1.0}, {"texts": 0}, {"text_language": "xx"}])
def test_a_summary_that_is_not_of_its_cells_is_damaged(work: Path, lam: float, change: dict[str, object]) -> None:
    path = map_file(work, lam, ".json")
    content = json.loads(path.read_text())
    content["cells"][3] |= change
    path.write_text(json.dumps(content))
    assert kinds(work / "out") == {DAMAGED: ["ppl.Llama-tiny-llama.json"]}


@pytest.mark.parametrize("ending", [".csv", ".controls.json"])
@pytest.mark.parametrize("change", ["edited", "gone"])
def test_a_table_beside_a_map_that_is_not_of_its_run_is_damaged(
    work: Path, lam: float, ending: str, change: str
) -> None:
    with opened(work) as session:
        perplexity_map(session, top_rate=0.1, lam=lam, settings=MapSettings(controls=2))
    assert kinds(work / "out") == {}
    path = map_file(work, lam, ending)
    if change == "gone":
        path.unlink()
    else:
        path.write_text(path.read_text().replace("1", "2", 1))
    assert kinds(work / "out") == {DAMAGED: [path.name]}
    with opened(work) as session:  # as the finding says
        assert perplexity_map(session, top_rate=0.1, lam=lam, settings=MapSettings(controls=2)).computed == 0
    assert kinds(work / "out") == {}


def test_a_map_without_digests_is_unverified_and_not_damaged(work: Path, lam: float) -> None:
    path = map_file(work, lam, ".json")
    content = json.loads(path.read_text())
    del content["digests"]
    path.write_text(json.dumps(content))
    found = check_root(work / "out")
    assert [(one.kind, one.path) for one in found.findings] == [(UNVERIFIED, path)]
    assert found.sound


def test_a_picture_of_a_map_may_be_drawn_otherwise(work: Path, lam: float) -> None:
    path = map_file(work, lam, ".png")
    path.write_bytes(path.read_bytes()[:8] + b"drawn again" + path.read_bytes()[-8:])
    assert kinds(work / "out") == {}


def test_an_evaluation_that_lost_an_answer_is_damaged(old: Path) -> None:
    path = next(old.glob("evaluations/*/*/*.answers/none.jsonl"))
    path.write_text("".join(path.read_text().splitlines(keepends=True)[1:]))
    assert kinds(old) == {DAMAGED: ["none.jsonl"]}


def test_a_description_without_its_mask_is_orphaned(old: Path) -> None:
    next(old.glob("activation_masks/words/lape-0.35/mask.Llama-planted-v0.1")).unlink()
    found = kinds(old)
    assert "mask.Llama-planted-v0.1.json" in found[ORPHANED]
    assert "ppl.Llama-planted-v0.1" in found[STALE]  # a mask of this dataset is there, but not its own


def test_interrupted_runs_are_unfinished_not_wrong(tmp_path: Path) -> None:
    root = Path(shutil.copytree(OLD / "finished", tmp_path / "half"))
    shutil.copytree(OLD / "half", root, dirs_exist_ok=True)
    found = check_root(root)
    assert {one.kind for one in found.findings} == {UNFINISHED, UNVERIFIED}
    assert found.sound


def test_only_leftovers_are_removed(work: Path, lam: float) -> None:
    out = work / "out"
    part = out / "activations" / "small" / ".activation.en.Llama-tiny-llama.pt.0123abcd.part"
    lock = out / "answers" / "small" / ".answers.gone.json.lock"
    folder = map_file(work, lam, ".answers.new")
    own = out / ".my.part"  # not a name that we give
    lock.parent.mkdir(parents=True, exist_ok=True)
    folder.mkdir()
    for path in (part, lock, own):
        path.write_bytes(b"")
    before = set(out.rglob("*")) - {part, lock, folder}
    found = check_root(out)
    assert found.sound
    assert {one.path for one in found.findings if one.kind == LEFTOVER} == {part, lock, folder}
    with FileLock(str(lock)):  # somebody is at work
        assert lock not in check_root(out, clean=True).removed
    assert check_root(out, clean=True).removed == (lock,)
    with atomic_file(part.with_name("being-written")) as file:  # by a living process
        file.write(b"half")
        assert check_root(out, clean=True).removed == ()
    part.with_name("being-written").unlink()
    assert set(out.rglob("*")) == before


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes with names, as POSIX has them")
def test_a_pipe_in_the_place_of_a_result_is_damaged_and_not_waited_for(work: Path, lam: float) -> None:
    counts = layout_of(work).activation("en")
    for path in (counts, map_file(work, lam, ".json")):
        path.unlink()
        os.mkfifo(path)
    assert {"activation.en.Llama-tiny-llama.pt", "ppl.Llama-tiny-llama.json"} <= set(kinds(work / "out")[DAMAGED])


def test_a_root_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="is not a folder"):
        check_root(tmp_path / "nowhere")


@pytest.mark.parametrize(("ending", "kept"), [(".csv", 0.5), (".csv", 0.99), (".png", 0.5)])
def test_a_table_or_picture_without_a_digest_that_is_cut_off_is_damaged(old: Path, ending: str, kept: float) -> None:
    paths = [path for path in sorted(old.rglob(f"*{ending}")) if path.stat().st_size > 60]
    for path in paths:
        whole = path.read_bytes()
        path.write_bytes(whole[: int(len(whole) * kept)])
    damaged = {one.path for one in check_root(old).findings if one.kind == DAMAGED}
    assert set(paths) <= damaged


def test_a_mask_without_a_digest_of_its_neurons_is_unverified(work: Path, lam: float) -> None:
    path = layout_of(work).mask(0.1, lam)
    described = path.with_name(path.name + ".json")
    content = json.loads(described.read_text())
    described.write_text(json.dumps({k: v for k, v in content.items() if k not in ("mask_hash", "description_hash")}))
    assert path in {one.path for one in check_root(work / "out").findings if one.kind == UNVERIFIED}
