"""The file of a grid: it grows cell by cell, holds cells of one origin only, and is replaced as a whole."""

from __future__ import annotations

import csv
import errno
import json
import math
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from language_neurons_alignment.core.perplexity import (
    UNDISTURBED,
    Perplexity,
    PerplexityMap,
    TextLikelihood,
    perplexity,
)
from language_neurons_alignment.errors import ArtifactError, ConflictError
from language_neurons_alignment.store.grid import Difference, GridFile, Key, asked_for, differences, merged
from language_neurons_alignment.store.maps import (
    cell_from_json,
    cell_to_json,
    load_map,
    map_grid,
    save_csv,
    save_map,
)
from tests.workspace import contents, full_disk, leftovers, stored_cells

ORIGIN = {"mask": "m", "text": "instruction"}
CORPUS = {"en": "1", "es": "2"}
ENGINE = {"engine": "transformers", "dtype": "float32", "device": "cpu"}
CELL = Perplexity(token=12.5, text=13.25, nll=100.125, tokens=40, texts=3)
OTHER = Perplexity(1.0, 1.0, 0.0, 1, 1)
ROWS = (UNDISTURBED, "en", "es")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "0.1-0.0" / "ppl.Llama-v1.5"


class Opened:
    """A file of a map's cells, as a run opens it."""

    def __init__(
        self,
        path: Path,
        *,
        rows: tuple[str, ...] = ROWS,
        corpus: dict[str, str] = CORPUS,
        overwrite: bool = False,
        **changes: Any,
    ) -> None:
        wanted = {
            (row, text): {**ORIGIN, **changes, "corpus": {text: digest}}
            for row in rows
            for text, digest in corpus.items()
        }
        self.grid: GridFile = map_grid(path, wanted, overwrite=overwrite)

    def read(self, **engine: str) -> dict[Key, Perplexity]:
        return {key: cell_from_json(one) for key, one in self.grid.read(engine=engine).items()}

    def add(self, row: str, text: str, cell: Perplexity = CELL, *, engine: dict[str, str] = ENGINE) -> None:
        self.grid.append({(row, text): cell_to_json(cell)}, engine=engine)

    def fill(self, cell: Perplexity = CELL, *, until: int | None = None) -> None:
        """Compute what is missing, up to a number of cells."""
        done = self.read()
        for key in [key for key in self.grid.wanted if key not in done][:until]:
            self.add(*key, cell)


def cells_file(path: Path) -> Path:
    return path.with_name(f"{path.name}.cells.jsonl")


def new_file(path: Path) -> Path:
    return path.with_name(f"{path.name}.cells.new.jsonl")


def older(path: Path, content: dict[str, Any], ending: str = ".json") -> None:
    """A map as version 0.1 wrote it."""
    path.parent.mkdir(exist_ok=True)
    path.with_name(path.name + ending).write_text(json.dumps(content))


def older_cell(row: str, text: str, cell: Perplexity = CELL) -> dict[str, Any]:
    return {"deactivated": row, "text_language": text, **cell_to_json(cell)}


# What comes back


def test_a_file_that_is_not_there_has_no_cells(path: Path) -> None:
    assert Opened(path).read() == {}
    assert not path.parent.exists(), "reading makes nothing"


def test_cells_come_back_as_they_were_one_by_one(path: Path) -> None:
    Opened(path).add(UNDISTURBED, "en")
    assert Opened(path).read() == {(UNDISTURBED, "en"): CELL}
    Opened(path).add("es", "en", OTHER)
    assert Opened(path).read() == {(UNDISTURBED, "en"): CELL, ("es", "en"): OTHER}


def test_each_text_s_numbers_come_back_to_the_last_digit_and_take_one_line(path: Path) -> None:
    texts = tuple(TextLikelihood(nll, tokens) for nll, tokens in ((0.1 + 0.2, 3), (1e-17, 1), (123.456789, 250)))
    cell = perplexity(texts)
    Opened(path).add(UNDISTURBED, "en", cell)
    assert Opened(path).read() == {(UNDISTURBED, "en"): cell}
    (stored,) = stored_cells(cells_file(path))
    assert stored["text_nll"] == "0.30000000000000004 1e-17 123.456789"
    assert stored["text_tokens"] == "3 1 250"


def test_infinite_perplexities_come_back_and_each_line_is_strict_json(path: Path) -> None:
    broken = Perplexity(math.inf, math.inf, 1e9, 3, 1)
    Opened(path).add("en", "en", broken)
    assert Opened(path).read() == {("en", "en"): broken}

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    for line in cells_file(path).read_text().splitlines():
        json.loads(line, parse_constant=refuse)


def test_what_cells_were_made_from_stands_once_before_the_first_of_them(path: Path) -> None:
    Opened(path).fill(until=3)
    Opened(path).fill()
    first, *rest = map(json.loads, cells_file(path).read_text().splitlines())
    assert (first["made_from"], first["engine"]) == ({**ORIGIN, "corpus": CORPUS}, ENGINE)
    assert {one["made_from"] for one in rest} == {first["id"]}
    assert [tuple(one["cell"]) for one in rest] == [(row, text) for row in ROWS for text in CORPUS]


# Where it is refused


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"mask": "another"}, "mask"),
        ({"text": "answer"}, "text"),
        ({"corpus": {"en": "1", "es": "changed"}}, r"corpus \(es\)"),
        ({"weights_hash": "unknown before"}, "weights hash"),
    ],
)
def test_cells_of_another_origin_are_a_conflict_and_stay(path: Path, change: dict[str, Any], named: str) -> None:
    Opened(path).add(UNDISTURBED, "en")
    Opened(path).add(UNDISTURBED, "es")
    before = contents(path.parent)
    acts: tuple[Callable[[Opened], object], ...] = (Opened.read, lambda file: file.add("en", "en"))
    for act in acts:
        with pytest.raises(ConflictError, match=f"another {named}.*--force") as caught:
            act(Opened(path, **change))
        assert "\n" not in str(caught.value)
    assert contents(path.parent) == before


def test_a_corpus_that_changed_before_its_first_cell_is_no_conflict(path: Path) -> None:
    Opened(path).add(UNDISTURBED, "en")
    changed = Opened(path, corpus={"en": "1", "es": "changed"})
    assert set(changed.read()) == {(UNDISTURBED, "en")}
    changed.add(UNDISTURBED, "es")
    with pytest.raises(ConflictError, match=r"corpus \(es\)"):
        Opened(path).read()


def test_cells_of_another_engine_or_precision_are_a_conflict_where_one_is_asked_for(path: Path) -> None:
    Opened(path).add(UNDISTURBED, "en")
    assert Opened(path).read(dtype="float32")
    assert Opened(path).read()
    with pytest.raises(ConflictError, match=r"dtype \(float32\)"):
        Opened(path).read(dtype="bfloat16")
    for other in ({**ENGINE, "dtype": "bfloat16"}, {**ENGINE, "engine": "vllm"}):
        with pytest.raises(ConflictError):
            Opened(path).add("en", "en", engine=other)
        with pytest.raises(ConflictError):
            Opened(path, corpus={"fr": "3"}).add(UNDISTURBED, "fr", engine=other)
    assert len(Opened(path).read()) == 1
    Opened(path).add("en", "en", engine={**ENGINE, "device": "cuda"})


def test_a_run_of_fewer_languages_leaves_the_others_and_their_digests(path: Path) -> None:
    Opened(path).add(UNDISTURBED, "es")
    Opened(path, corpus={"en": "1"}).add(UNDISTURBED, "en")
    assert set(Opened(path).read()) == {(UNDISTURBED, "es"), (UNDISTURBED, "en")}
    with pytest.raises(ConflictError, match=r"corpus \(es\)"):
        Opened(path, corpus={"en": "1", "es": "changed"}).read()


def test_cells_that_a_run_does_not_want_must_not_contradict_it_either(path: Path) -> None:
    Opened(path, corpus={"en": "1"}).fill()
    with pytest.raises(ConflictError, match="another mask"):
        Opened(path, corpus={"es": "2"}, mask="another").read()


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "{}", '{"cells": [], "provenance": {}}', '{"cells": {}, "provenance": {"corpus": {}}}', "\x00" * 9],
)
def test_a_torn_or_foreign_map_of_version_0_1_is_an_error_in_one_line(path: Path, text: str) -> None:
    path.parent.mkdir()
    path.with_name(path.name + ".json").write_text(text)
    with pytest.raises(ArtifactError, match=r"\.json cannot be read .*delete it") as caught:
        Opened(path).read()
    assert "\n" not in str(caught.value)


TORN_CELLS = [
    {},
    {"deactivated": "en"},
    5,
    {"deactivated": "en", "text_language": "en", "token": "x"},
    {"deactivated": "en", "text_language": "en", "token": 1, "text": 1, "nll": 1, "tokens": 1, "texts": 1,
     "text_nll": "1.0 2.0", "text_tokens": "1"},
]  # fmt: skip


@pytest.mark.parametrize("cell", TORN_CELLS)
def test_a_torn_cell_is_an_error_in_one_line(path: Path, cell: object) -> None:
    older(path, {"provenance": {**ORIGIN, "corpus": CORPUS}, "cells": [cell]})
    with pytest.raises(ArtifactError, match="cannot be read"):
        load_map(path)


@pytest.mark.parametrize(
    "line", ["{", "[1]", '{"cell": ["en", "en"], "made_from": "none"}', '{"cell": "en"}', "5", "{}"]
)
def test_a_damaged_line_that_is_not_the_last_is_an_error_with_its_number(path: Path, line: str) -> None:
    Opened(path).fill(until=1)
    with cells_file(path).open("a") as file:
        file.write(f"{line}\n")
    with pytest.raises(ArtifactError, match=r"cells\.jsonl, line 3 is damaged .*delete that line") as caught:
        Opened(path).read()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("cut", range(1, 60, 7))
def test_a_torn_last_line_does_not_count_and_nothing_is_glued_to_it(path: Path, cut: int) -> None:
    Opened(path).fill(until=2)
    whole = cells_file(path).read_bytes()
    cells_file(path).write_bytes(whole[:-cut])
    assert set(Opened(path).read()) == {(UNDISTURBED, "en")}
    Opened(path).add(UNDISTURBED, "es")
    assert cells_file(path).read_bytes() == whole


# What it costs, and what interrupts it


def test_610_cells_are_written_once_each_and_the_bytes_grow_with_their_number(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """61 conditions × 10 languages of 250 texts each, as a map of ten languages with five controls."""
    texts = tuple(TextLikelihood(123.456789012345 + number, 40) for number in range(250))
    cell = perplexity(texts)
    languages = [f"l{number}" for number in range(10)]
    rows = (UNDISTURBED, *languages, *(f"{one}~{number}" for number in range(1, 6) for one in languages))
    file = Opened(path, rows=rows, corpus=dict.fromkeys(languages, "digest"))
    synced: list[int] = []
    fsync = os.fsync

    def counting(descriptor: int) -> None:
        state = os.fstat(descriptor)
        if stat.S_ISREG(state.st_mode):  # folders are synced too
            synced.append(state.st_size)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", counting)
    file.fill(cell)
    assert len(stored_cells(cells_file(path))) == len(file.grid.wanted) == 610
    lengths = [len(line) for line in cells_file(path).read_bytes().splitlines(keepends=True)]
    assert sum(lengths) == cells_file(path).stat().st_size
    assert synced[-1] == sum(lengths), "nothing was written besides these lines"
    grown = [after - before for before, after in pairwise(synced[1:])]
    assert len(grown) == 610 - 1
    assert max(grown) < 1.2 * min(grown), "the last cell costs as much as the first"


def test_a_cell_that_another_process_has_finished_meanwhile_is_not_written_again(path: Path) -> None:
    ours, theirs = Opened(path), Opened(path)
    ours.read(), theirs.read()
    theirs.add(UNDISTURBED, "en")
    before = cells_file(path).read_bytes()
    ours.add(UNDISTURBED, "en")
    assert cells_file(path).read_bytes() == before
    ours.add(UNDISTURBED, "es")
    assert set(theirs.read()) == {(UNDISTURBED, "en"), (UNDISTURBED, "es")}


def test_a_full_disk_keeps_the_cells_that_are_done(path: Path) -> None:
    Opened(path).add(UNDISTURBED, "en")
    before = contents(path.parent)
    with full_disk("fsync"), pytest.raises(ArtifactError, match="the disk is full"):
        Opened(path).add("en", "en")
    assert contents(path.parent) == before
    Opened(path).add("en", "en")  # the lock was given back


def test_a_disk_that_is_full_when_a_replacement_is_finished_keeps_both(path: Path) -> None:
    Opened(path).fill()
    anew = Opened(path, overwrite=True)
    anew.fill(OTHER)
    before = contents(path.parent)
    with full_disk("replace"), pytest.raises(ArtifactError, match="the disk is full"):
        anew.grid.finish()
    assert contents(path.parent) == before
    assert anew.grid.finish()
    assert set(Opened(path).read().values()) == {OTHER}


def test_a_folder_that_cannot_be_made_or_locked_is_an_error_in_one_line(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path.parent.write_text("a file")
    with pytest.raises(ArtifactError, match="cannot write"):
        Opened(path).add("en", "en")
    path.parent.unlink()

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(FileLock, "acquire", refuse)
    with pytest.raises(ArtifactError, match="no permission"):
        Opened(path).add("en", "en")


ADD_CELLS = """
import os, signal, sys
from pathlib import Path
from language_neurons_alignment.core.perplexity import Perplexity
from language_neurons_alignment.store.maps import cell_to_json, map_grid

path, row, kill_at = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
wanted = {(row, f"{row}{n}"): {"mask": "m", "corpus": {f"{row}{n}": "1"}} for n in range(25)}
file = map_grid(path, wanted)
sys.stdin.readline()  # all start together
done = file.read()
for number, key in enumerate(key for key in wanted if key not in done):
    if number == kill_at:
        with file.path.open("ab") as torn:
            torn.write(b'{"cell": ["en", "en')
        os.kill(os.getpid(), signal.SIGKILL)
    file.append({key: cell_to_json(Perplexity(2.0, 2.0, 1.0, 1, 1))}, engine={"engine": "x", "dtype": "y"})
"""


def started(path: Path, row: str, *, kill_at: int = -1) -> subprocess.Popen[str]:
    arguments = [sys.executable, "-c", ADD_CELLS, str(path), row, str(kill_at)]
    return subprocess.Popen(arguments, stdin=subprocess.PIPE, text=True)


def ended(*processes: subprocess.Popen[str]) -> list[int]:
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    codes = [process.wait(timeout=120) for process in processes]
    for process in processes:
        assert process.stdin is not None
        process.stdin.close()
    return codes


def test_two_processes_that_add_cells_at_once_lose_none(path: Path) -> None:
    rows = ("en", "es")
    assert ended(*(started(path, row) for row in rows)) == [0, 0]
    cells = [tuple(one["cell"]) for one in stored_cells(cells_file(path))]
    assert sorted(cells) == sorted((row, f"{row}{number}") for row in rows for number in range(25))


@pytest.mark.skipif(sys.platform == "win32", reason="signals as POSIX has them")
def test_a_process_that_is_killed_in_a_line_loses_that_line_alone_and_goes_on(path: Path) -> None:
    assert ended(started(path, "en", kill_at=7)) == [-signal.SIGKILL]
    assert cells_file(path).read_bytes()[-1:] != b"\n"
    assert ended(started(path, "en")) == [0]
    assert [tuple(one["cell"]) for one in stored_cells(cells_file(path))] == [("en", f"en{n}") for n in range(25)]


def test_killed_between_the_last_cell_and_the_summary_nothing_is_computed_again(path: Path) -> None:
    Opened(path).fill()
    again = Opened(path)
    assert len(again.read()) == len(again.grid.wanted)
    assert again.grid.finish()
    table = path.with_name(f"{path.name}.csv")
    table.write_text("deactivated\n")
    save_map(path, again.grid.cells(), table=table)
    stored = json.loads(path.with_name(f"{path.name}.json").read_text())
    assert [(one["deactivated"], one["text_language"]) for one in stored["cells"]] == list(again.grid.wanted)
    assert stored["provenance"] == {**ORIGIN, "corpus": CORPUS}
    assert stored["engine"] == ENGINE
    assert leftovers(path.parent) == []


# What overwriting does


def test_replacing_keeps_the_old_cells_until_all_new_ones_are_done(path: Path) -> None:
    Opened(path).fill()
    before = cells_file(path).read_bytes()
    anew = Opened(path, mask="another", overwrite=True)
    assert anew.read() == {}
    assert not new_file(path).exists(), "nothing is begun by reading"
    anew.fill(OTHER)
    assert cells_file(path).read_bytes() == before
    assert Opened(path).read() == dict.fromkeys(Opened(path).grid.wanted, CELL)
    assert anew.grid.finish()
    assert Opened(path, mask="another").read() == dict.fromkeys(anew.grid.wanted, OTHER)
    anew.grid.end()
    assert Opened(path, mask="another").read() == dict.fromkeys(anew.grid.wanted, OTHER)
    assert not new_file(path).exists()


@pytest.mark.parametrize("again", [True, False], ids=["with --force again", "without"])
def test_a_replacement_that_was_killed_goes_on_where_it_stopped(path: Path, again: bool) -> None:
    Opened(path).fill()
    Opened(path, overwrite=True).fill(OTHER, until=4)
    file = Opened(path, overwrite=again)
    assert len(file.read()) == 4
    file.fill(OTHER)
    assert file.grid.finish()
    file.grid.end()
    assert Opened(path).read() == dict.fromkeys(file.grid.wanted, OTHER)
    anew = Opened(path, overwrite=True)
    assert anew.read() == {}, "after that, --force begins anew"


def test_a_replacement_that_was_killed_before_it_was_finished_is_finished_by_the_next_run(path: Path) -> None:
    Opened(path).fill()
    Opened(path, overwrite=True).fill(OTHER)
    file = Opened(path)
    assert file.read() == dict.fromkeys(file.grid.wanted, OTHER)
    assert file.grid.finish()
    file.grid.end()
    assert not new_file(path).exists()


def test_an_unfinished_replacement_with_other_settings_is_left_alone_or_begun_anew(path: Path) -> None:
    Opened(path).fill()
    Opened(path, mask="another", overwrite=True).fill(OTHER, until=4)
    assert Opened(path).read() == dict.fromkeys(Opened(path).grid.wanted, CELL), "the old result, as it was asked for"
    file = Opened(path, mask="a third", overwrite=True)
    assert file.read() == {}
    file.fill(OTHER, until=1)
    assert len(stored_cells(new_file(path))) == 1


@pytest.mark.parametrize("again", [True, False], ids=["with --force again", "without"])
def test_a_replacement_that_was_killed_before_its_first_cell_goes_on(path: Path, again: bool) -> None:
    Opened(path).fill()
    Opened(path, overwrite=True).grid.prepare()
    file = Opened(path, overwrite=again)
    assert file.read() == {}, "the old cells are to be replaced"
    assert Opened(path, mask="another").grid.path.exists()
    file.fill(OTHER)
    assert file.grid.finish()
    file.grid.end()
    assert Opened(path).read() == dict.fromkeys(file.grid.wanted, OTHER)


def test_a_replacement_without_any_cell_means_nothing_to_a_run_with_other_settings(path: Path) -> None:
    Opened(path).fill()
    Opened(path, mask="another", overwrite=True).grid.prepare()
    assert Opened(path).read() == dict.fromkeys(Opened(path).grid.wanted, CELL)
    third = Opened(path, mask="a third", overwrite=True)
    third.grid.prepare()
    assert Opened(path, mask="a third").read() == {}


@pytest.mark.parametrize("again", [True, False], ids=["with --force again", "without"])
def test_a_replacement_that_was_killed_before_its_tables_were_written_repeats_no_cell(path: Path, again: bool) -> None:
    Opened(path).fill()
    first = Opened(path, overwrite=True)
    first.fill(OTHER)
    assert first.grid.finish()
    file = Opened(path, overwrite=again)
    assert file.read() == dict.fromkeys(file.grid.wanted, OTHER)
    before = cells_file(path).read_bytes()
    assert file.grid.finish()
    file.grid.end()
    assert cells_file(path).read_bytes() == before
    assert Opened(path, overwrite=True).read() == {}, "finished: --force begins anew"


def test_ending_a_replacement_keeps_the_cells_that_another_process_replaces_besides(path: Path) -> None:
    Opened(path, corpus={**CORPUS, "fr": "3"}).fill()
    ours, theirs = Opened(path, overwrite=True), Opened(path, corpus={**CORPUS, "fr": "3"}, overwrite=True)
    ours.fill(OTHER)
    assert ours.grid.finish()
    theirs.add("en", "fr", OTHER)
    ours.grid.end()
    assert len(theirs.read()) == 7
    theirs.fill(OTHER)
    assert theirs.grid.finish()
    theirs.grid.end()
    assert Opened(path).read() == dict.fromkeys(Opened(path).grid.wanted, OTHER)


def test_two_processes_that_replace_the_same_map_finish_it_together(path: Path) -> None:
    Opened(path).fill()
    ours, theirs = Opened(path, overwrite=True), Opened(path, overwrite=True)
    ours.fill(OTHER, until=2)
    assert len(theirs.read()) == 2
    theirs.fill(OTHER)
    assert theirs.grid.finish()
    theirs.grid.end()
    ours.add("es", "es", OTHER)  # was done by the other meanwhile
    assert ours.grid.finish()
    assert ours.read() == dict.fromkeys(ours.grid.wanted, OTHER)
    assert not new_file(path).exists()
    assert len(stored_cells(cells_file(path))) == 6


# What version 0.1 left


def test_a_map_of_version_0_1_is_read_and_goes_to_the_new_file_with_the_first_new_cell(path: Path) -> None:
    texts = perplexity((TextLikelihood(0.1 + 0.2, 3), TextLikelihood(1e-17, 1)))
    origin = {**ORIGIN, "corpus": CORPUS}
    old = [older_cell(row, text, texts) for row in (UNDISTURBED, "en") for text in CORPUS]
    older(path, {"provenance": origin, "engine": ENGINE, "cells": old})
    drawn = {**origin, "control_seed": 0}
    older(path, {"provenance": drawn, "engine": ENGINE, "cells": [older_cell("en~1", "en", texts)]}, ".controls.json")
    before = contents(path.parent)
    file = Opened(path)
    assert file.read() == {(row, text): texts for row in (UNDISTURBED, "en") for text in CORPUS}
    assert not file.grid.finish()
    assert contents(path.parent) == before, "what is finished stays as it is"
    file.add("es", "en")
    assert contents(path.parent).items() >= before.items()
    stored = [(tuple(one["cell"]), one.get("text_nll")) for one in stored_cells(cells_file(path))]
    kept = [((row, text), "0.30000000000000004 1e-17") for row in (UNDISTURBED, "en") for text in CORPUS]
    assert stored == [*kept, (("en~1", "en"), "0.30000000000000004 1e-17"), (("es", "en"), None)]
    made_from = merged(one.made_from for one in file.grid.cells().values())
    assert made_from == {**origin, "control_seed": 0}


def test_a_map_of_version_0_1_made_from_something_else_is_a_conflict_that_names_its_file(path: Path) -> None:
    older(path, {"provenance": {**ORIGIN, "corpus": CORPUS}, "engine": ENGINE, "cells": [older_cell("en", "en")]})
    with pytest.raises(ConflictError, match=r"ppl\.Llama-v1\.5\.json holds cells made from another mask"):
        Opened(path, mask="another").read()
    anew = Opened(path, mask="another", overwrite=True)
    anew.fill(OTHER)
    assert anew.grid.finish()
    assert Opened(path, mask="another").read() == dict.fromkeys(anew.grid.wanted, OTHER)


# The table


def test_the_table_has_every_cell_with_its_change_against_the_undisturbed_row(path: Path) -> None:
    cells = {
        (row, column): Perplexity(10.0 * (1 + i + 2 * k), 11.0, 5.0, 7, 2)
        for i, row in enumerate((UNDISTURBED, "en", "es"))
        for k, column in enumerate(("en", "es"))
    }
    written = save_csv(path, PerplexityMap(("en", "es"), cells))
    assert written.name == "ppl.Llama-v1.5.csv"
    rows = list(csv.DictReader(written.open()))
    assert [(row["deactivated"], row["text_language"]) for row in rows] == list(cells)
    by_cell = {(row["deactivated"], row["text_language"]): row for row in rows}
    assert float(by_cell["en", "en"]["percent"]) == pytest.approx(100.0)
    assert float(by_cell["es", "es"]["percent"]) == pytest.approx(100 * 2 / 3)
    assert float(by_cell["es", "en"]["log1p"]) == pytest.approx(math.log(31 / 11))
    assert {float(by_cell[UNDISTURBED, column]["percent"]) for column in ("en", "es")} == {0.0}
    assert float(by_cell["es", "es"]["ppl_token"]) == 50.0


def test_a_tokenizer_is_compared_only_where_both_tell() -> None:
    assert differences({"mask": "m"}, {"mask": "m", "tokenizer_hash": "t"}, asked_for) == []
    assert differences({"tokenizer_hash": "s"}, {"tokenizer_hash": "t"}, asked_for) == [
        Difference(("tokenizer_hash",), "s", "t")
    ]
