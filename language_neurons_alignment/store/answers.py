"""Evaluations on disk: JSON that grows row by row with every answer's outcome, and the answers themselves to read."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from ..errors import ArtifactError, ConflictError
from .files import Json, atomic_files, read_json, unwritable, write_text
from .layout import with_ending
from .maps import precision_of

# ── What a long run has done so far, entry by entry on disk, so that one that was killed goes on where it stopped.


class Journal:
    """A file of JSON lines beside a result that is still being made; it vanishes when the result is whole.

        {"model": …, "sampling": …}      what the entries are made from
        {"batch": [7, 3], …}             an entry, on disk as soon as `append` returns
        {"batch": [1,                    the last one may be torn by a kill; it does not count

    Whoever uses it holds `alone(result)`.
    """

    def __init__(self, result: Path, *, anew: str = "--overwrite") -> None:
        """Name the journal of this result, and the flag by which its command begins anew."""
        self.path = with_ending(result, ".partial.jsonl")
        self._anew = anew

    def start(self, header: Json, *, replace: bool = False) -> list[Json]:
        """Go on from the entries that are there, or begin.

        Args:
            header: what entries are made from.
            replace: where they were made from something else, begin anew.

        Raises:
            ConflictError: they were made from something else, and not `replace`.
            ArtifactError: the journal cannot be read or written.
        """
        header = json.loads(json.dumps(header))  # as it is read back: tuples become lists
        lines = self.read()
        if lines and lines[0] == header:
            self._cut_torn_end()
            return lines[1:]
        if lines and not replace:
            raise ConflictError(
                f"{self.path} is an unfinished run with other settings: {differing(lines[0], header)}; "
                f"give the same command again to finish it, or {self._anew} to begin anew"
            )
        write_text(self.path, _line(header))
        return []

    def read(self) -> list[Json]:
        """The header and the entries; nothing where there is no journal.

        Raises:
            ArtifactError: a line that is not the last one is damaged.
        """
        try:
            text = self.path.read_bytes()
        except FileNotFoundError:
            return []
        except OSError as error:
            raise ArtifactError(f"cannot read {self.path} ({error}): delete it and run the command again") from error
        whole = text[: text.rfind(b"\n") + 1].splitlines()
        return [self._parsed(line, number) for number, line in enumerate(whole, start=1)]

    def append(self, entry: Json) -> None:
        """Put an entry on disk.

        Raises:
            ArtifactError: it cannot be written; what was there stays.
        """
        try:
            with self.path.open("ab") as file:
                file.write(_line(entry).encode())
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise unwritable(self.path, error) from error

    def remove(self) -> None:
        """The result is whole."""
        self.path.unlink(missing_ok=True)

    def _parsed(self, line: bytes, number: int) -> Json:
        try:
            found = json.loads(line)
            if not isinstance(found, dict):
                raise ValueError(f"a {type(found).__name__}, not an object")
        except ValueError as error:
            raise ArtifactError(
                f"{self.path}, line {number} is damaged ({error}): delete the file and run the command again"
            ) from error
        return found

    def _cut_torn_end(self) -> None:
        """Leave nothing behind the last whole line that a new entry would be glued to."""
        try:
            with self.path.open("rb+") as file:
                file.truncate(file.read().rfind(b"\n") + 1)
        except OSError as error:
            raise unwritable(self.path, error) from error


@contextmanager
def alone(result: Path) -> Iterator[None]:
    """While the context is open, no other process makes this result.

    Raises:
        ConflictError: another one does.
        ArtifactError: its folder cannot be written.
    """
    lock = FileLock(str(result.with_name(f".{result.name}.lock")))
    try:
        result.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout as busy:
        raise ConflictError(
            f"another process is writing {result}: wait until it has ended, or name another file with -o"
        ) from busy
    except OSError as error:
        raise unwritable(result, error) from error
    try:
        yield
    finally:
        lock.release()


def _line(entry: Json) -> str:
    return json.dumps(entry, ensure_ascii=False) + "\n"


def differing(seen: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    """What differs between two sets of settings, with both values where they are short."""
    keys = [key for key in (*seen, *(key for key in wanted if key not in seen)) if seen.get(key) != wanted.get(key)]
    return ", ".join(_difference(key, seen.get(key), wanted.get(key)) for key in keys)


def _difference(key: str, seen: Any, wanted: Any) -> str:
    if isinstance(seen, dict) and isinstance(wanted, dict):
        return differing(seen, wanted)
    values = f" ({seen!r}, not {wanted!r})" if len(repr((seen, wanted))) < 80 else ""
    return key.replace("_", " ") + values


# ── Answers for reading: JSON lines, one answer a line, in a file for each thing that was done to the model.


def answer_lines(answers: Iterable[Json]) -> str:
    """The text of such a file."""
    return "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in answers)


def read_answer_lines(path: Path) -> list[Json]:
    """The answers in such a file; none where there is no file.

    Raises:
        ArtifactError: it cannot be read.
    """
    try:
        return [json.loads(line) for line in path.read_bytes().splitlines()]  # bytes: texts hold other line ends
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:
        raise ArtifactError(f"cannot read {path} ({error}): delete it and run the command again") from error


# ── What the files of evaluations and of forcings have in common: JSON that grows, beside the answers it tells of.


class AnswersFile:
    """A JSON, and the folder of its answers. Whoever uses it holds `alone(path)`.

    Attributes:
        path: the JSON.
        answers: the folder, a file of JSON lines in it for each thing that was done to the model.
    """

    def __init__(self, path: Path, *, replace: bool = False) -> None:
        """Name the file. `path` is without ending; `replace`: start anew, what is there stays until then."""
        self.path = with_ending(path, ".json")
        self.answers = with_ending(path, ".answers")
        self._replace = replace

    def lines(self, name: str) -> Path:
        """The file of the answers of a row or cell."""
        return self.answers / f"{name}.jsonl"

    def _write(self, name: str, answers: Sequence[Json], content: Json) -> None:
        """Put answers and JSON on disk: both or neither."""
        with atomic_files(self.lines(name), self.path) as (lines, file):
            lines.write(answer_lines(answers).encode("utf-8"))
            file.write((json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode("utf-8"))
        self._replace = False

    def _check(self, seen: Mapping[str, Any], wanted: Mapping[str, Any], *, which: str = "") -> None:
        """Raise ConflictError unless all that is wanted is as it was seen; what is not wanted does not matter."""
        there = {key: seen.get(key) for key in wanted}
        if there != wanted:
            raise ConflictError(
                f"{self.path} holds answers{which} made from something else: {differing(there, wanted)}; "
                "use --force to answer again, or another --root"
            )


Cells = dict[tuple[str, str], str]
"""(row, language of the question) → a letter for each of its answers."""

LETTERS = {
    (True, True): "B",
    (True, False): "N",
    (True, None): "n",
    (False, True): "L",
    (False, False): "-",
    (False, None): "?",
}
"""(number right, in the language of the question or None where that cannot be told) → the letter of an outcome."""

LEGEND = {
    "B": "both right: the number, and the language of the question",
    "N": "the number right, another language",
    "n": "the number right, too little text to tell its language",
    "L": "the language of the question, another number or none",
    "-": "neither",
    "?": "another number or none, too little text to tell its language",
}

_BY_KEY = ("rows", "questions")
"""Parts of the provenance that are kept for each row or language: other ones may be added later."""


class EvaluationFile(AnswersFile):
    """The JSON of one evaluation, and the folder of its answers, a file for each row."""

    def __init__(self, path: Path, provenance: Json, *, replace: bool = False) -> None:
        """Name the file.

        Args:
            path: without ending.
            provenance: what the answers are made from; `rows` and `questions` in it hold one part per row and
                language, `controls` is None where no controls are wanted.
            replace: start anew; what is there stays until the first row is done.
        """
        super().__init__(path, replace=replace)
        self.provenance = json.loads(json.dumps(provenance))  # as it is read back: tuples become lists

    def read(self, *, engine: Mapping[str, Any]) -> Cells:
        """The cells that are done.

        Args:
            engine: engine and dtype that they have to come from; what is not in it does not matter.

        Raises:
            ConflictError: cells made from something else are in the file.
            ArtifactError: the file cannot be read.
        """
        stored = self._content()
        if stored is None:
            return {}
        self._check_provenance(stored, engine)
        return {(cell["row"], cell["language"]): cell["outcomes"] for cell in stored["cells"]}

    def asked(self) -> dict[str, list[str]]:
        """Language → its questions that were asked, by their ids, in the order of their outcomes."""
        stored = self._content()
        return {} if stored is None else stored["asked"]

    def add(self, row: str, answers: Sequence[Json], *, asked: Mapping[str, list[str]], engine: Json) -> None:
        """Put a row's answers on disk, beside those in other languages that are there.

        Args:
            row: its name.
            answers: as lines to read; "lang", "right" and "in_language" of each are its outcome.
            asked: language → ids of its questions, in the order of its answers.
            engine: which made them.

        Raises:
            ConflictError: cells of another engine or dtype are in the file.
            ArtifactError: a file cannot be written; what was there stays.
        """
        letters = dict.fromkeys(asked, "")
        for one in answers:
            letters[one["lang"]] += LETTERS[one["right"], one["in_language"]]
        cells = {**self.read(engine=precision_of(engine)), **{(row, code): made for code, made in letters.items()}}
        stored = self._content() or {"provenance": {}, "asked": {}}
        kept = [] if self._replace else [one for one in read_answer_lines(self.lines(row)) if one["lang"] not in asked]
        content = {
            "provenance": _merged(stored["provenance"], self.provenance),
            "engine": engine,
            "asked": {**stored["asked"], **asked},
            "legend": LEGEND,
            "cells": [_plain(*key, letters) for key, letters in cells.items()],
        }
        replaced = self._replace
        self._write(row, [*kept, *answers], content)
        if replaced:
            self._drop_others(row)

    def _content(self) -> dict[str, Any] | None:
        """All that is in the file; None where there is none, or where it is to be replaced."""
        return None if self._replace else read_json(self.path, _is_whole, command="lna evaluate")

    def _check_provenance(self, stored: Json, engine: Mapping[str, Any]) -> None:
        """Raise ConflictError unless the stored answers are made from the same as ours."""
        seen, wanted = {**stored["provenance"], **stored["engine"]}, {**self.provenance, **engine}
        for key in _BY_KEY:
            shared = [one for one in wanted[key] if one in seen[key]]
            seen[key], wanted[key] = ({one: made_from[key][one] for one in shared} for made_from in (seen, wanted))
        if None in (seen["controls"], wanted["controls"]):
            del wanted["controls"]
        self._check(seen, wanted)

    def _drop_others(self, row: str) -> None:
        """Delete the answers that were replaced; journals of rows that are not whole stay."""
        for path in self.answers.glob("*.jsonl"):
            if path != self.lines(row) and not path.name.endswith(".partial.jsonl"):
                path.unlink()


_PARTS = {"provenance": dict, "engine": dict, "asked": dict, "cells": list}


def _is_whole(content: Json) -> bool:
    return all(isinstance(content[key], kind) for key, kind in _PARTS.items())


def _merged(stored: Json, ours: Json) -> Json:
    """Ours, with what earlier runs did of other rows and languages."""
    by_key = {key: {**stored.get(key, {}), **ours[key]} for key in _BY_KEY}
    return {**ours, **by_key, "controls": ours["controls"] or stored.get("controls")}


def _plain(row: str, language: str, letters: str) -> Json:
    """A cell: its counts for people, its outcomes for whoever computes."""
    return {
        "row": row,
        "language": language,
        "questions": len(letters),
        "accuracy": letters.count("B"),
        "number": sum(letters.count(one) for one in "BNn"),
        "language_right": sum(letters.count(one) for one in "BL"),
        "unclear": sum(letters.count(one) for one in "n?"),
        "outcomes": letters,
    }


# ── Corpus files on disk: a JSON list with a record a line, whole or not at all (SPEC 1).


def write_corpus(path: Path, items: Sequence[Mapping[str, Any]], *, overwrite: bool = False) -> bool:
    """Write a corpus; gives False where the same one is there already.

    Raises:
        ConflictError: another file is there, and not `overwrite`.
        ArtifactError: it cannot be written; whatever stood there is untouched.
    """
    lines = ",\n".join(json.dumps(item, ensure_ascii=False) for item in items)
    text = f"[\n{lines}\n]\n"
    if path.exists() and not overwrite:
        if path.is_file() and path.read_bytes() == text.encode("utf-8"):
            return False
        raise ConflictError(f"{path} is there and holds something else: use --force to replace it, or another -o")
    write_text(path, text)
    return True


# ── Forcings on disk: JSON that grows cell by cell with the language of every answer, and the answers to read.

Seen = list[str | None]
"""The language of each answer; None where it cannot be told."""


class ForcingFile(AnswersFile):
    """The JSON of one forcing table, and the folder of its answers, a file for each cell."""

    def read(self, made_from: Mapping[str, Json], *, engine: Mapping[str, Any]) -> dict[str, Seen]:
        """Those of the cells that are done.

        Args:
            made_from: name of a cell → what it has to be made from.
            engine: engine and dtype that they have to come from; what is not in it does not matter.

        Raises:
            ConflictError: a cell is there and made from something else.
            ArtifactError: the file cannot be read.
        """
        done = {}
        for name, cell in self._cells().items():
            if name not in made_from:
                continue
            wanted = {**json.loads(json.dumps(made_from[name])), **engine}
            self._check({**cell["made_from"], **cell["engine"]}, wanted, which=f" ({name})")
            done[name] = cell["languages"]
        return done

    def add(self, name: str, answers: Sequence[Json], *, made_from: Json, engine: Json) -> None:
        """Put a cell's answers on disk; the "language" of each is what is counted.

        Raises:
            ConflictError: cells of another engine or dtype are in the file.
            ArtifactError: a file cannot be written; what was there stays.
        """
        cells = self._cells()
        others = {other: one["made_from"] for other, one in cells.items() if other != name}
        self.read(others, engine=precision_of(engine))
        languages = [one["language"] for one in answers]
        cells[name] = {"made_from": made_from, "engine": engine, "languages": languages}
        self._write(name, answers, {"cells": cells})

    def _cells(self) -> dict[str, Any]:
        """All cells in the file; none where there is no file, or where it is to be replaced."""
        content = None if self._replace else read_json(self.path, _is_whole_forcing, command="lna force")
        return {} if content is None else content["cells"]


_FORCING_PARTS = {"made_from": dict, "engine": dict, "languages": list}


def _is_whole_forcing(content: Json) -> bool:
    return all(
        isinstance(cell[key], kind) for cell in content["cells"].values() for key, kind in _FORCING_PARTS.items()
    )
