"""Evaluations on disk: JSON that grows row by row with every answer's outcome, and the answers themselves to read."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .answer_lines import read_answer_lines
from .answers_file import AnswersFile
from .journal import Plain
from .json_file import read_json
from .ppl_file import precision_of

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

    def __init__(self, path: Path, provenance: Plain, *, replace: bool = False) -> None:
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

    def add(self, row: str, answers: Sequence[Plain], *, asked: Mapping[str, list[str]], engine: Plain) -> None:
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

    def _check_provenance(self, stored: Plain, engine: Mapping[str, Any]) -> None:
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


def _is_whole(content: Plain) -> bool:
    return all(isinstance(content[key], kind) for key, kind in _PARTS.items())


def _merged(stored: Plain, ours: Plain) -> Plain:
    """Ours, with what earlier runs did of other rows and languages."""
    by_key = {key: {**stored.get(key, {}), **ours[key]} for key in _BY_KEY}
    return {**ours, **by_key, "controls": ours["controls"] or stored.get("controls")}


def _plain(row: str, language: str, letters: str) -> Plain:
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
