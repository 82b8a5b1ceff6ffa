"""What a run that was cut off leaves behind, and who may go on from it."""

from __future__ import annotations

from pathlib import Path

import pytest

from language_neurons_alignment.errors import ArtifactError, ConflictError
from language_neurons_alignment.store.answers import Journal, alone
from language_neurons_alignment.store.grid import differences, said
from tests.workspace import full_disk

HEADER = {"model": "Llama-tiny", "sampling": {"temperature": 0.5, "stop": ()}, "answers": 2}
ENTRIES = [{"batch": [3, 1], "answers": ["ë\u2028", "b"]}, {"batch": [2], "answers": ["two\nlines"]}]


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    """One with two entries."""
    journal = Journal(tmp_path / "answers.v1.json")
    assert journal.start(HEADER) == []
    for entry in ENTRIES:
        journal.append(entry)
    return journal


def test_it_lies_beside_the_result_and_vanishes_with_remove(journal: Journal) -> None:
    assert journal.path.name == "answers.v1.json.partial.jsonl"
    assert journal.path.exists()
    journal.remove()
    journal.remove()
    assert not journal.path.exists()
    assert journal.read() == []


def test_the_same_work_goes_on_from_its_entries(journal: Journal, tmp_path: Path) -> None:
    assert Journal(tmp_path / "answers.v1.json").start(HEADER) == ENTRIES
    assert Journal(tmp_path / "answers.v1.json").start(HEADER, replace=True) == ENTRIES


@pytest.mark.parametrize("cut", range(1, 40, 3))
def test_a_torn_last_line_does_not_count_and_nothing_is_glued_to_it(journal: Journal, cut: int) -> None:
    journal.path.write_bytes(journal.path.read_bytes()[:-cut])
    assert journal.start(HEADER) == ENTRIES[:1]
    journal.append(ENTRIES[1])
    assert journal.start(HEADER) == ENTRIES


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({**HEADER, "answers": 3}, r"answers \(2, not 3\)"),
        ({**HEADER, "sampling": {"temperature": 0.7, "stop": ()}}, r"temperature \(0\.5, not 0\.7\)"),
        ({**HEADER, "weights_hash": "x" * 90}, "weights hash;"),
    ],
)
def test_other_work_is_a_conflict_that_says_what_differs(journal: Journal, changed: dict, said: str) -> None:
    before = journal.path.read_bytes()
    with pytest.raises(ConflictError, match=rf"unfinished run with other settings: {said}.*--overwrite"):
        journal.start(changed)
    assert journal.path.read_bytes() == before
    assert journal.start(changed, replace=True) == []
    assert journal.read() == [{**changed, "sampling": {**changed["sampling"], "stop": []}}]


def test_a_damaged_line_that_is_not_the_last_is_an_error_with_its_number(journal: Journal) -> None:
    lines = journal.path.read_bytes().split(b"\n")
    journal.path.write_bytes(b"\n".join([lines[0], lines[1][:-5], *lines[2:]]))
    with pytest.raises(ArtifactError, match=r"partial\.jsonl, line 2 is damaged .*delete the file"):
        journal.start(HEADER)
    journal.path.write_bytes(b"[1]\n")
    with pytest.raises(ArtifactError, match=r"line 1 is damaged \(a list, not an object\)"):
        journal.read()


def test_a_full_disk_is_one_line_and_the_entries_before_stay(journal: Journal) -> None:
    with full_disk("fsync"), pytest.raises(ArtifactError, match="the disk is full"):
        journal.append({"batch": [9]})
    assert journal.start(HEADER)[:2] == ENTRIES


def test_only_one_at_a_time_makes_a_result(tmp_path: Path) -> None:
    result = tmp_path / "new" / "answers.json"
    with alone(result):
        with pytest.raises(ConflictError, match=r"another process is writing .*answers\.json"), alone(result):
            pass
        with alone(tmp_path / "other.json"):
            pass
    with alone(result):
        pass


def test_what_differs_is_told_key_by_key() -> None:
    assert said(differences({"a": 1, "b": {"c": 2, "d": 3}}, {"a": 1, "b": {"c": 4, "d": 3}})) == "c (2, not 4)"
    found = differences({"end_tokens": [1], "x": 1}, {"end_tokens": [2]})
    assert said(found) == "end tokens ([1], not [2]), x (1, not None)"
