"""Files of two runs side by side, as a kill between renames leaves them: refused, and healed by the same command.

The kills are real: the process dies where it would rename the file.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest
import torch

from language_neurons_alignment.errors import IncompatibleError
from language_neurons_alignment.store.files import differing_files
from language_neurons_alignment.store.masks import Mask
from tests.cli.conftest import Lna
from tests.workspace import contents, killed_at, small_records, write_corpus

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="processes as POSIX has them")

MODEL = ("--model-path", "tiny-llama", "-s", "toy")
LANGS = ("--langs", "en,fr,sw")
CORPUS = ("-d", "datasets/mgsm.json")
IDENTIFY = ("identify", *MODEL, "-r", "0.1", "-l", "0.05", *LANGS)
MASK = Path("activation_masks/toy/0.1-0.05/mask.Llama-tiny-llama")
DIED = -9


@pytest.fixture(scope="module")
def identified(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Counts of three languages, and a mask."""
    from language_neurons_alignment import collect_activations, open_session
    from language_neurons_alignment.config import Selection
    from language_neurons_alignment.identify import identify

    folder = Path(shutil.copytree(tiny, tmp_path_factory.mktemp("identified") / "here"))
    codes = ("en", "fr", "sw")
    with open_session(str(folder / "tiny-llama"), folder / "datasets/mgsm.json", "toy", root=folder) as session:
        for code in codes:
            collect_activations(session, code, blocks=2)
    identify(session.layout, codes, Selection(0.1, 0.05, 0.8))
    return folder


@pytest.fixture
def place(identified: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = Path(shutil.copytree(identified, tmp_path / "here"))
    monkeypatch.chdir(folder)
    return folder


RATES = ("-r", "0.1", "-l", "0.05")
READERS = {
    "ppl": ("ppl", *MODEL, *CORPUS, *RATES, "--controls", 0),
    "generate": ("generate", *MODEL, *CORPUS, *RATES, "-o", "x.json", "--deactivate", "en"),
    "generate by file": ("generate", "--model-path", "tiny-llama", *CORPUS, "-o", "x.json", "--do", f"zero @{MASK}#en"),
    "force": ("force", *MODEL, *CORPUS, *RATES, "--controls", 0, "--do", "zero source + target"),
    "analyze": ("analyze", *MODEL, *RATES),
    "analyze the mask": ("analyze", *MODEL, *RATES, "--mask-only"),
    "report": ("report", *MODEL, *RATES),
    "report on the mask": ("report", *MODEL, *RATES, "--mask-only"),
    "compare": ("compare", MASK, MASK, "--mask-only"),
}  # fmt: skip


def test_a_kill_between_mask_and_description_is_refused_until_the_same_command_heals_it(lna: Lna, place: Path) -> None:
    again = (*IDENTIFY, "-b", "0.6", "--force")
    before = {one: one.read_bytes() for one in (MASK, MASK.with_name(MASK.name + ".json"))}
    assert killed_at(MASK.name, *again) == DIED
    assert [one.read_bytes() == content for one, content in before.items()] == [True, False]
    there = contents(place)
    for reader in READERS.values():
        call = lna(*reader)
        assert call.code == 1, (reader, call.out)
        assert len(call.err.strip().splitlines()) == 1
        assert "come from two runs" in call.err
        assert "lna identify --force" in call.err
    assert {name for name, content in contents(place).items() if there.get(name) != content} == set()
    with pytest.raises(IncompatibleError, match="come from two runs"):
        Mask.load(MASK)
    assert lna(*again).code == 0
    for reader in (READERS["ppl"], READERS["generate"], READERS["analyze"]):
        assert lna(*reader).code == 0


def test_without_force_the_command_that_was_killed_heals_too(lna: Lna, place: Path) -> None:
    assert killed_at(MASK.name, *IDENTIFY, "-b", "0.6", "--force") == DIED
    assert lna(*IDENTIFY, "-b", "0.6").code == 0
    assert lna(*READERS["analyze the mask"]).code == 0


def test_a_kill_of_import_mask_is_refused_and_names_that_command(lna: Lna, place: Path) -> None:
    torch.save([[torch.tensor([1, 2])] * 4] * 3, "public.pth")
    shape = json.loads(MASK.with_name(MASK.name + ".json").read_text())["layers"]
    torch.save([[torch.tensor([1, 2])] * shape] * 3, "public.pth")
    imported = ("import-mask", "public.pth", *MODEL, *RATES, *LANGS, "--force")
    assert killed_at(MASK.name, *imported) == DIED
    call = lna(*READERS["analyze the mask"])
    assert (call.code, "lna import-mask --force" in call.err) == (1, True), call.err
    assert lna(*imported).code == 0
    assert lna(*READERS["analyze the mask"]).code == 0


def test_any_other_mask_beside_a_description_is_refused(lna: Lna, place: Path) -> None:
    """Of other neurons, languages or layers; the same neurons in another type are the same mask."""
    listed = torch.load(MASK, weights_only=True)
    torch.save([[one.to(torch.int32) for one in per_layer] for per_layer in listed], MASK)
    assert lna(*READERS["analyze the mask"]).code == 0
    for other in (listed[::-1], listed[:2], [one[:1] for one in listed], [[one[:1] for one in per] for per in listed]):
        torch.save(other, MASK)
        call = lna(*READERS["analyze the mask"])
        assert (call.code, "come from two runs" in call.err) == (1, True), call.err


def test_a_mask_whose_counts_have_changed_since_is_used_with_a_note(lna: Lna, place: Path) -> None:
    records = [{**one, "target": "2"} for one in small_records(("en", "fr", "sw"), questions=3)]
    corpus = ("-d", write_corpus(place / "other.json", records))
    effects = {
        "ppl": ("ppl", *MODEL, *corpus, *RATES, "--controls", 0),
        "evaluate": ("evaluate", *MODEL, *corpus, *RATES, "--controls", 0, "--max-new-tokens", 1),
        "force": (
            "force",
            *MODEL,
            *corpus,
            *RATES,
            "--controls",
            0,
            "--max-new-tokens",
            1,
            "--do",
            "zero source + target",
        ),
        "generate": ("generate", *MODEL, *corpus, *RATES, "-o", "x.json", "--answers", 1, "--deactivate", "en"),
    }
    said = f"the counts beside {MASK} have changed since it was made: fr; `lna identify --force` makes it of those"
    for command in effects.values():
        call = lna(*command, "--json")
        assert call.code == 0, call.err
        assert "have changed since" not in call.err
    assert lna("activation", *MODEL, *corpus, "-l", "fr", "--force").code == 0
    for command in effects.values():
        call = lna(*command, "--json")
        assert call.code == 0, call.err
        assert f"note: {said}" in call.err
        assert [said in one for one in call.json["notes"]].count(True) == 1
    aside = place / "activations" / "toy"
    for damage in (lambda one: one.write_bytes(b"torn"), lambda one: one.unlink()):
        for one in aside.glob("*activation.fr.*"):
            damage(one)
        assert lna(*effects["ppl"], "--json").err.count(said) == 0
    assert (
        lna("generate", "--model-path", "tiny-llama", *corpus, "-o", "y.json", "--max-new-tokens", 1).err.count(
            "the counts beside"
        )
        == 0
    )


def test_a_description_of_an_earlier_version_has_no_digest_and_is_read(lna: Lna, place: Path) -> None:
    path = MASK.with_name(MASK.name + ".json")
    described = json.loads(path.read_text())
    for name in ("mask_hash", "description_hash", "left_out"):
        del described[name]
    path.write_text(json.dumps(described))
    for reader in ("analyze", "analyze the mask", "ppl"):
        assert lna(*READERS[reader]).code == 0


def test_a_description_without_its_mask_is_not_taken_for_one(lna: Lna, place: Path) -> None:
    """A first `identify` that was killed leaves it; its bar must not become that of the next command."""
    shutil.rmtree(MASK.parent)
    assert killed_at(MASK.name, *IDENTIFY, "-b", "0.6") == DIED
    assert [one.name for one in MASK.parent.iterdir() if one.suffix != ".part"] == [f"{MASK.name}.json"]
    assert lna("analyze", *MODEL, *RATES, *LANGS, "--json").json["made_from"]["bar"] == 0.95
    assert lna(*READERS["ppl"]).code == 1


WRITTEN = {
    "analyze": (("analyze", *MODEL, *RATES, *LANGS), "analysis/toy/0.1-0.05/analysis.Llama-tiny-llama.json"),
    "stability": (
        ("stability", *MODEL, "-r", "0.1", "-l", "0.05", *LANGS, "--draws", "4", "--splits", "2"),
        "stability/toy/0.1-0.05/stability.Llama-tiny-llama.json",
    ),
    "methods": (
        ("methods", *MODEL, *CORPUS, *RATES, *LANGS, "--methods", "lape"),
        "methods/toy/0.1-0.05/methods.Llama-tiny-llama.json",
    ),
}


@pytest.mark.parametrize(("command", "written"), WRITTEN.values(), ids=WRITTEN)
def test_the_json_of_a_result_comes_last_and_tells_whether_the_others_are_of_its_run(
    lna: Lna, place: Path, command: tuple[object, ...], written: str
) -> None:
    path = Path(written)
    shutil.rmtree(MASK.parent)
    assert killed_at(path.name, *command, "-b", "0.8") == DIED
    assert not path.exists()
    beside = {one.name for one in path.parent.iterdir() if one.suffix != ".part"}
    assert lna(*command, "-b", "0.8", *_force(command)).code == 0
    assert {one.name for one in path.parent.iterdir() if one.suffix != ".part"} == {*beside, path.name}
    assert differing_files(path) == []
    assert killed_at(path.name, *command, "-b", "0.6", *_force(command)) == DIED
    assert differing_files(path)
    assert "not of the run that wrote" in lna("check", ".").out
    assert lna(*command, "-b", "0.6", *_force(command)).code == 0
    assert differing_files(path) == []


def _force(command: tuple[object, ...]) -> tuple[str, ...]:
    return ("--force",) if command[0] == "methods" else ()


@pytest.mark.parametrize("command", ["ppl", "force"])
def test_the_summary_of_a_grid_comes_after_its_table_and_picture(lna: Lna, place: Path, command: str) -> None:
    folder, stem = {"ppl": ("ppl_maps", "ppl"), "force": ("forcings", "force")}[command]
    few = ("--max-new-tokens", 2) if command == "force" else ()
    done = lna(*READERS[command], *few, "--json")
    assert done.code == 0, done.err
    summary = Path(done.json["json"])
    name = summary.name
    shutil.rmtree(folder)
    assert killed_at(name, *READERS[command], *few) == DIED
    assert not summary.exists()
    endings = {one.suffix for one in summary.parent.iterdir() if one.name.startswith(stem)}
    assert {".png", ".csv", ".jsonl"} <= endings
    again = lna(*READERS[command], *few)
    assert again.code == 0, again.err
    assert summary.exists()
