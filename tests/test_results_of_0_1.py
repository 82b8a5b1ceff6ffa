"""Results that version 0.1.0 wrote before it was built anew: read, told again, and gone on with.

`tests/data/results_0_1` is a folder as that version left it (its make.py says how), with each command as it was typed
and what it said (`told.json`). Commands are the only way in here, for what lies behind them may change: a finished
command says the same numbers again and no model runs; what a kill left half done is finished, with the same numbers.
"""

from __future__ import annotations

import csv
import json
import math
import platform
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import matplotlib.figure
import pytest
import torch
import transformers

import language_neurons_alignment as lna
from language_neurons_alignment import cli

DATA = Path(__file__).resolve().parent / "data" / "results_0_1"
TOLD: dict[str, Any] = json.loads((DATA / "told.json").read_text(encoding="utf-8"))
FINISHED, NAMED, HALF = TOLD["finished"], TOLD["named"], TOLD["half"]
LANGS = ("en", "es", "fr", "de")

EXACT, AGAIN = 1e-9, 1e-5
"""Relative errors: of what is read or computed from counts, of what a model computes again, perhaps elsewhere."""
NEW_WORK = ("computed", "controls_computed", "answered", "made", "resumed")
"""How much a run had to do itself."""
OF_NEW_WORK = ("tokens", "cut_off")
"""What is told, beside `made`, of new answers alone."""
_DIGEST = re.compile(r"[0-9a-f]{32}")

MADE_FROM_COUNTS = tuple(
    name
    for name in FINISHED
    if name.split()[0] in ("autosweep", "identify", "analyze", "compare", "stability") and "imported" not in name
)

Call = Callable[..., Any]


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """Call the program: words → what its --json says. Pictures are empty files: nobody looks at them here."""

    def picture(_figure: object, file: Any, **_choices: object) -> None:
        file.write(b"no picture") if hasattr(file, "write") else Path(file).write_bytes(b"no picture")

    monkeypatch.setattr(matplotlib.figure.Figure, "savefig", picture)

    def called(words: list[str], *, root: str | None = None) -> Any:
        words = list(words)
        if root is not None:
            words[words.index("--root") + 1] = root
        monkeypatch.setattr(sys, "argv", ["lna", *words])
        capsys.readouterr()
        try:
            cli.main()
            code: object = 0
        except SystemExit as ended:
            code = ended.code or 0
        said = capsys.readouterr()
        assert code == 0, said.err
        return json.loads(said.out)

    return called


@pytest.fixture
def no_model_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that looks up the first token of anything fails the test."""

    def refuse(*_arguments: object, **_named: object) -> None:
        raise AssertionError("a model runs, although all is there")

    monkeypatch.setattr(torch.nn.Embedding, "forward", refuse)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the folder, for tests that change no number in it."""
    return Path(shutil.copytree(DATA, tmp_path_factory.mktemp("results") / "copy"))


@pytest.fixture
def copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of its own, which is the current folder; counts and masks of half/ are those of finished/."""
    folder = Path(shutil.copytree(DATA, tmp_path / "copy"))
    for part in ("activations", "activation_masks"):
        shutil.copytree(folder / "finished" / part / "words", folder / "half" / part / "words")
    as_if_made_here(folder)
    monkeypatch.chdir(folder)
    return folder


def as_if_made_here(folder: Path) -> None:
    """Give unfinished answers the versions of here: with other ones nobody goes on with them, and that is meant so."""
    ours = {
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "device": f"cpu ({platform.machine()})",
        "version": lna.__version__,
    }
    for path in folder.rglob("*.partial.jsonl"):
        first, *rest = path.read_bytes().split(b"\n")
        header = json.loads(first)
        header |= {key: value for key, value in ours.items() if key in header}
        path.write_bytes(b"\n".join([json.dumps(header).encode(), *rest]))


def differences(old: Any, new: Any, *, error: float, skip: tuple[str, ...] = (), at: str = "") -> Iterator[str]:
    """Where `new` does not say what `old` says; what it says beside that, paths, digests and versions do not matter."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key, value in old.items():
            if key in (*skip, "version", "meta", "files"):
                continue
            if key in new:
                yield from differences(value, new[key], error=error, skip=skip, at=f"{at}.{key}")
            else:
                yield f"{at}.{key} is gone"
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for place, (one, other) in enumerate(zip(old, new, strict=True)):
            yield from differences(one, other, error=error, skip=skip, at=f"{at}[{place}]")
    elif isinstance(old, float) and not math.isfinite(old) and new is None:
        return  # JSON has neither NaN nor infinity: 0.1 printed them all the same
    elif isinstance(old, float) and isinstance(new, (int, float)):
        if not (math.isclose(old, new, rel_tol=error, abs_tol=error) or (math.isnan(old) and math.isnan(new))):
            yield f"{at}: {old!r}, now {new!r}"
    elif isinstance(old, str) and isinstance(new, str) and ("/" in old or _DIGEST.fullmatch(old)):
        return
    elif old != new:
        yield f"{at}: {old!r}, now {new!r}"


def assert_same(old: Any, new: Any, *, error: float = EXACT, skip: tuple[str, ...] = ()) -> None:
    assert list(differences(old, new, error=error, skip=skip)) == []


def work_of(told: Any) -> dict[str, int]:
    """How much a run did itself, wherever it says so; the outermost word on it counts."""
    found: dict[str, int] = {}
    if isinstance(told, dict):
        for value in told.values():
            found |= work_of(value)
        found |= {key: told[key] for key in NEW_WORK if key in told}
    return found


def tables(root: Path) -> dict[Path, Any]:
    """Every JSON, JSON lines and CSV file under a root, read."""
    read: dict[Path, Any] = {}
    for path in sorted(root.rglob("*")):
        if path.suffix == ".json":
            read[path] = json.loads(path.read_text(encoding="utf-8"))
        elif path.suffix == ".jsonl":
            read[path] = [json.loads(line) for line in path.read_bytes().splitlines()]
        elif path.suffix == ".csv":
            with path.open(encoding="utf-8", newline="") as file:
                read[path] = [{key: _number(value) for key, value in row.items()} for row in csv.DictReader(file)]
    return read


def _number(text: str) -> Any:
    try:
        return float(text)
    except ValueError:
        return text


def answers_of(told: dict[str, Any]) -> dict[str, list[list[str]]]:
    """The answers that a command wrote for reading, or to a corpus: file → question, its language and what was said."""
    if "path" in told:
        items = json.loads(Path(told["path"]).read_text(encoding="utf-8"))
        return {"": [[one["id"], one["lang"], *(answer["generated"] for answer in one["answers"])] for one in items]}
    if not isinstance(told.get("answers"), str):
        return {}
    return {
        path.name: [[one["id"], one["lang"], one["answer"]] for one in map(json.loads, path.read_bytes().splitlines())]
        for path in sorted(Path(told["answers"]).glob("*.jsonl"))
    }


@pytest.mark.parametrize(
    ("root", "name"), [*(("finished", name) for name in FINISHED), *(("named", name) for name in NAMED)]
)
@pytest.mark.usefixtures("no_model_runs")
def test_a_finished_command_says_the_same_again_and_no_model_runs(
    whole: Path, call: Call, monkeypatch: pytest.MonkeyPatch, root: str, name: str
) -> None:
    monkeypatch.chdir(whole)
    done, before = TOLD[root][name], tables(whole / root)
    told = call(done["argv"])
    new = ("reused", *NEW_WORK, *(OF_NEW_WORK if name.split()[0] in ("generate", "run") else ()))
    assert_same(done["told"], told, skip=new)
    assert {key: value for key, value in work_of(told).items() if value} == {}
    if "reused" in done["told"]:
        assert told["reused"] in (True, list(LANGS))
    assert_same(_named(before), _named(tables(whole / root)))


def _named(read: dict[Path, Any]) -> dict[str, Any]:
    return {str(path): content for path, content in read.items()}


def test_counts_and_moments_give_the_same_neurons_again(copy: Path, call: Call) -> None:
    """λ, masks of all methods, analysis, comparison and stability, made anew from the counts alone."""
    masks = {name: done["told"]["mask"] for name, done in FINISHED.items() if name.startswith("identify")}
    old = {name: torch.load(path, weights_only=True) for name, path in masks.items()}
    for path in (copy / "finished").iterdir():
        if path.name != "activations":
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    for name in MADE_FROM_COUNTS:
        told = call(FINISHED[name]["argv"])
        assert_same(FINISHED[name]["told"], told)
        if name in old:
            assert_same_mask(old[name], torch.load(told["mask"], weights_only=True))


def assert_same_mask(old: list[list[torch.Tensor]], new: list[list[torch.Tensor]]) -> None:
    assert [[one.tolist() for one in layers] for layers in new] == [[one.tolist() for one in layers] for layers in old]


def test_python_reads_them_as_the_commands_do(copy: Path) -> None:
    """By the functions that the first version had: λ from counts, and what is made of counts and masks."""
    told = FINISHED["identify"]["told"]
    lam = lna.quick_autosweep(
        model_name="Llama", model_path="models/planted-v0.1", dataset="words", toprate=0.35, bar=0.8, hi=1.0,
        langs=LANGS, root="finished",
    )  # fmt: skip
    assert lam == told["lam"]
    found = lna.Neuron_Prob.load("Llama", "models/planted-v0.1", "words", langs=LANGS, root="finished")
    assert found.probability.shape == (told["layers"], told["d_mlp"], len(LANGS))
    counts, answers = torch.zeros(found.probability.shape), torch.zeros(len(LANGS))
    for k, code in enumerate(LANGS):
        both = (
            torch.load(copy / f"finished/activations/words/{span}activation.{code}.Llama-planted-v0.1.pt")
            for span in ("", "prefix.")
        )
        full, prefix = both
        counts[..., k] = full["over_zero"] - prefix["over_zero"]
        answers[k] = full["total_tokens"] - prefix["total_tokens"]
    torch.testing.assert_close(found.probability, counts / answers)
    mask = lna.Neuron_Mask.load(told["mask"], d_mlp=told["d_mlp"], langs=LANGS).mask
    assert dict(zip(LANGS, mask.sum(dim=(0, 1)).tolist(), strict=True)) == told["neurons"]


def test_shards_that_nobody_has_merged_add_up_to_the_whole(copy: Path, call: Call) -> None:
    merged = call(["merge", "--model-path", "models/planted-v0.1", "-s", "words", "--root", "sharded", "--json"])
    assert {code: one["shards"] for code, one in merged.items()} == dict.fromkeys(LANGS, 2)
    for name in ("autosweep", "identify", "identify mean-difference", "analyze"):
        assert_same(FINISHED[name]["told"], call(FINISHED[name]["argv"], root="sharded"))


def test_counting_goes_on_with_the_language_in_which_it_was_killed(copy: Path, call: Call) -> None:
    reused = {name: call(one["argv"])["reused"] for name, one in TOLD["counting"].items()}
    assert list(reused.values()) == [True, True, False, False]
    for name in ("autosweep", "identify", "identify mean-difference", "analyze", "stability"):
        assert_same(FINISHED[name]["told"], call(FINISHED[name]["argv"], root="counting"), error=AGAIN)


@pytest.mark.parametrize("name", HALF)
def test_what_a_kill_left_is_finished_and_ends_with_the_same_numbers(copy: Path, call: Call, name: str) -> None:
    done, argv = FINISHED[name]["told"], HALF[name]["argv"]
    assert_left_half_done(copy, name)
    told = call(argv)
    assert_same(done, told, error=AGAIN, skip=("reused", "answered", "resumed", "computed", "controls_computed"))
    assert_only_the_rest_was_done(name, work_of(done), work_of(told))
    answers = answers_of(told)
    assert answers == answers_of(done)
    assert bool(answers) == (name.split()[0] in ("evaluate", "force", "generate"))
    again = call(argv)
    assert {key: value for key, value in work_of(again).items() if value} == {}
    assert unfinished(copy, name) == []


def assert_left_half_done(copy: Path, name: str) -> None:
    """The fixture is what it says: a journal, or a map with some of its cells."""
    if not name.startswith("ppl"):
        assert len(unfinished(copy, name)) == 1
        return
    place = Path(FINISHED[name]["told"]["json"].replace("finished", "half", 1))
    stored = [place, place.with_name(place.name.removesuffix(".json") + ".controls.json")]
    cells = [len(json.loads(path.read_text(encoding="utf-8"))["cells"]) for path in stored if path.exists()]
    assert sum(cells) == HALF[name]["killed"][1]


def assert_only_the_rest_was_done(name: str, done: dict[str, int], told: dict[str, int]) -> None:
    number = HALF[name]["killed"][1]
    if name.startswith("ppl"):
        rest = done["computed"] + done["controls_computed"] - number
        assert told["computed"] + told["controls_computed"] == rest
    elif name.startswith(("evaluate", "force")):
        assert 0 < told["answered"] < done["answered"]
    else:
        assert 0 < told["resumed"] < done["made"]


def unfinished(copy: Path, name: str) -> list[Path]:
    """The journals of a command under half/."""
    done = FINISHED[name]["told"]
    answers = done["answers"]["path"] if name == "run" else done.get("path") or done.get("answers")
    place = str(copy / str(answers).replace("finished", "half", 1))
    return [
        path for path in (copy / "half").rglob("*.partial.jsonl") if str(path).startswith((f"{place}.", f"{place}/"))
    ]


@pytest.mark.parametrize("name", ["evaluate", "force", "generate"])
def test_answers_in_a_journal_are_kept_and_not_asked_for_again(copy: Path, call: Call, name: str) -> None:
    (journal,) = unfinished(copy, name)
    header, first, *rest = journal.read_bytes().split(b"\n")
    entry = json.loads(first)
    entry["answers"][0]["generated"] = " das Haus Wasser, von Hand geschrieben"
    journal.write_bytes(b"\n".join([header, json.dumps(entry).encode(), *rest]))
    answers = answers_of(call(HALF[name]["argv"]))
    assert sum(entry["answers"][0]["generated"] in row for rows in answers.values() for row in rows) == 1
