"""Answers on disk: journals of runs that are not finished, evaluations, forcing tables, and corpus files.

An evaluation or a forcing table is a grid (`store.grid`) with the answers themselves beside it, for reading. While a
row of answers is being made, each batch goes to a journal; when the row is finished, its answers are written as
`<path>.answers/<name>.jsonl`, its cells are appended to the grid, and the journal is deleted.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from ..errors import ConflictError
from .files import DIGESTS, Json, atomic_file, digests_with, locked, remove_leftovers, unwritable, write_text
from .grid import (
    Cells,
    Check,
    GridFile,
    Key,
    Lines,
    Older,
    Stored,
    asked_for,
    differences,
    line_of,
    merged,
    older_evaluation,
    older_forcing,
    said,
)
from .layout import with_ending


class Journal(Lines):
    """The batches that an unfinished run has answered, in a file of JSON lines beside its result.

        {"model": …, "sampling": …}      what the entries are made from
        {"batch": [7, 3], …}             an entry, on disk as soon as `append` returns
        {"batch": [1,                    a line that a kill cut off: it does not count

    Use it only while `alone(result)` is open.
    """

    def __init__(self, result: Path, *, anew: str = "--overwrite") -> None:
        """Name the journal of this result, and the flag with which its command begins anew."""
        super().__init__(with_ending(result, ".partial.jsonl"))
        self._anew = anew

    def start(self, header: Json, *, replace: bool = False) -> list[Json]:
        """Return the entries that are there, or begin a new journal."""
        header = json.loads(json.dumps(header))  # as it is read back: tuples become lists
        lines = self.read()
        if lines and lines[0] == {key: header[key] for key in asked_for(lines[0], header)}:
            return lines[1:]
        if lines and not replace:
            raise ConflictError(
                f"{self.path} is an unfinished run with other settings: {said(differences(lines[0], header))}; "
                f"give the same command again to finish it, or {self._anew} to begin anew"
            )
        write_text(self.path, line_of(header))
        return []

    def remove(self) -> None:
        """Delete the journal: the result is finished."""
        self.path.unlink(missing_ok=True)


@contextmanager
def alone(result: Path) -> Iterator[None]:
    """Keep other processes from making this result while the context is open, and delete killed processes' files."""
    busy = f"another process is writing {result}: wait until it has ended, or write to another place"
    with locked(result, busy=busy, patience=0):
        remove_leftovers(result.parent)
        yield


class AnswerGrid(GridFile):
    """A grid of answers, and the folder in which they can be read. Use it only while `alone(grid.json)` is open.

    Attributes:
        json: the summary, written when a run ends.
    """

    def __init__(
        self,
        path: Path,
        wanted: Mapping[Key, Json],
        *,
        older: Older,
        named: Callable[[Key], str],
        check: Check,
        overwrite: bool,
    ) -> None:
        """Name the file; `named` gives the name of the file in which a cell's answers stand."""
        super().__init__(
            path,
            wanted,
            older=older,
            tell=lambda key, found: (
                f"answers ({named(key)}) made from something else: {said(found)}; "
                "use --force to answer again, or another --root"
            ),
            check=check,
            overwrite=overwrite,
        )
        self.json = with_ending(path, ".json")
        self._folder = with_ending(path, ".answers")
        self._new_folder = with_ending(path, ".answers.new")
        self._named = named

    @property
    def answers(self) -> Path:
        """The folder of the answers of this run."""
        return self._new_folder if self.replacing else self._folder

    def journal(self, name: str) -> Journal:
        """Return the journal of the answers of this name, beside them."""
        return Journal(self.answers / f"{name}.jsonl", anew="--force")

    def drop_spent_journals(self, done: Collection[Key]) -> None:
        """Delete journals of finished cells, which a run leaves that is killed after storing their answers."""
        texts: dict[str, set[str]] = {}
        for key in done:
            texts.setdefault(self._named(key), set()).add(key[1])
        for name, finished in texts.items():
            journal = self.journal(name)
            lines = journal.read()
            named = lines[0].get("languages", []) if lines else None
            if isinstance(named, list) and all(one in finished for one in named if isinstance(one, str)):
                journal.remove()

    def store(self, name: str, answers: Sequence[Json], cells: Mapping[Key, Json], *, engine: Json) -> None:
        """Put finished answers on disk, beside those of the same name in other languages, and then their cells."""
        self.begin(engine=engine)
        path = self.answers / f"{name}.jsonl"
        texts = {text for _, text in cells}
        kept = [one for one in Lines(path).read() if one.get("lang") not in texts]
        write_text(path, "".join(map(line_of, [*kept, *answers])))
        self.append(cells, engine=engine)
        self.journal(name).remove()

    def _drop_new(self) -> None:
        """Delete the answers, which are all copied, and last what says that this run overwrites."""
        shutil.rmtree(self._new_folder, ignore_errors=True)
        super()._drop_new()

    def _begin_anew(self) -> None:
        self._new.path.unlink(missing_ok=True)  # first: its cells mean nothing without their answers
        shutil.rmtree(self._new_folder, ignore_errors=True)
        super()._begin_anew()

    def _replace(self) -> None:
        """Copy the new answers, then the new cells: a run that is killed before `end` does this again."""
        names = {f"{self._named(key)}.jsonl" for key in self.cells()}
        for path in sorted(self._new_folder.glob("*.jsonl")):
            if path.name in names:
                with atomic_file(self._folder / path.name) as file:
                    file.write(path.read_bytes())
        try:
            for path in self._folder.glob("*.jsonl"):
                if path.name not in names and not path.name.endswith(".partial.jsonl"):
                    path.unlink()
        except OSError as error:
            raise unwritable(self._folder, error) from error
        super()._replace()


_OUTCOMES = {
    (True, True): ("B", "both right: the number, and the language of the question"),
    (True, False): ("N", "the number right, another language"),
    (True, None): ("n", "the number right, too little text to tell its language"),
    (False, True): ("L", "the language of the question, another number or none"),
    (False, False): ("-", "neither"),
    (False, None): ("?", "another number or none, too little text to tell its language"),
}
LETTERS = {outcome: letter for outcome, (letter, _) in _OUTCOMES.items()}
"""(number right, in the language of the question or None where that cannot be told) → the letter of an outcome."""


def evaluation_grid(path: Path, wanted: Mapping[Key, Json], *, overwrite: bool = False) -> AnswerGrid:
    """Name the file of an evaluation: cell → {"outcomes": a letter for each question, "questions": their ids}."""
    return AnswerGrid(
        path, wanted, older=older_evaluation, named=lambda key: key[0], check=_check_outcomes, overwrite=overwrite
    )


def _check_outcomes(cell: Stored) -> None:
    """Raise where a cell of an evaluation has no outcome for each of its questions."""
    outcomes, questions = cell.content["outcomes"], cell.content["questions"]
    if not isinstance(outcomes, str) or not set(outcomes) <= set(LETTERS.values()):
        raise ValueError(f"its outcomes are {outcomes!r}, expected the letters {' '.join(LETTERS.values())}")
    if not isinstance(questions, list) or not all(isinstance(one, str) for one in questions):
        raise TypeError("its questions are not a list of ids")
    if not len(set(questions)) == len(questions) == len(outcomes):
        raise ValueError(f"it has {len(outcomes)} outcomes of {len(set(questions))} questions")


def save_evaluation(path: Path, cells: Cells, *, table: Path) -> None:
    """Write the summary of an evaluation: each cell with its counts, for people, and its outcomes, for programs.

    It holds the digest of the table that was written before it.
    """
    whole = with_ending(path, ".json")
    outcomes = {key: one.content["outcomes"] for key, one in cells.items()}
    content = {
        "provenance": merged(one.made_from for one in cells.values()),
        "engine": list(cells.values())[-1].engine,
        "asked": {text: one.content["questions"] for (_, text), one in cells.items()},
        "legend": dict(_OUTCOMES.values()),
        DIGESTS: digests_with(whole, [table]),
        "cells": [
            {
                "row": row,
                "language": text,
                "questions": len(letters),
                "accuracy": letters.count("B"),
                "number": sum(letters.count(one) for one in "BNn"),
                "language_right": sum(letters.count(one) for one in "BL"),
                "unclear": sum(letters.count(one) for one in "n?"),
                "outcomes": letters,
            }
            for (row, text), letters in outcomes.items()
        ],
    }
    write_text(whole, json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def forcing_grid(path: Path, wanted: Mapping[Key, Json], *, overwrite: bool = False) -> AnswerGrid:
    """Name the file of a forcing table: cell → {"languages": the language of each answer, None where unclear}."""
    whole = {key: {forcing_name(key): made_from} for key, made_from in wanted.items()}
    return AnswerGrid(path, whole, older=older_forcing, named=forcing_name, check=_check_languages, overwrite=overwrite)


def _check_languages(cell: Stored) -> None:
    """Raise where a cell of a forcing table has no list of languages."""
    languages = cell.content["languages"]
    if not isinstance(languages, list) or not all(one is None or isinstance(one, str) for one in languages):
        raise TypeError("its languages are not a list of codes")


def forcing_name(key: Key) -> str:
    """Name the files of a cell: asked in French, `fr`; steered to German too, `fr.to.de`; its control, `fr.to.de~1`.

    >>> forcing_name(("de~1", "fr")), forcing_name(("none", "fr"))
    ('fr.to.de~1', 'fr')
    """
    condition, text = key
    return text if condition == "none" else f"{text}.to.{condition}"


def save_forcing(path: Path, cells: Cells, *, table: Path) -> None:
    """Write the summary of a forcing table, with the digest of the table as CSV that was written before it."""
    whole, content = with_ending(path, ".json"), {}
    for key, one in cells.items():
        name = forcing_name(key)
        content[name] = {"made_from": one.made_from[name], "engine": one.engine, **one.content}
    listed = {DIGESTS: digests_with(whole, [table]), "cells": content}
    write_text(whole, json.dumps(listed, indent=1, ensure_ascii=False) + "\n")


def write_corpus(path: Path, items: Sequence[Mapping[str, object]], *, overwrite: bool = False) -> bool:
    """Write a corpus, a JSON list with one record a line; return False where the same one is there already."""
    lines = ",\n".join(json.dumps(item, ensure_ascii=False) for item in items)
    text = f"[\n{lines}\n]\n"
    if path.exists() and not overwrite:
        if path.is_file() and path.read_bytes() == text.encode("utf-8"):
            remove_leftovers(path.parent)  # nothing is written, which would remove them too
            return False
        raise ConflictError(
            f"{path} is there and holds something else: use --force to replace it, or name another file with -o"
        )
    write_text(path, text)
    return True
