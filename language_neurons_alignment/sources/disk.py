"""The benchmarks' files as their authors publish them → rows with the hub's columns."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from ..corpus.items import read_text
from ..errors import CorpusError
from ..languages import language_name
from .folders import language_files, sentence_lines
from .tables import Row, TableFormat, read_rows


def mgsm_rows(folder: Path, language: str, split: str) -> list[Row]:
    """`mgsm_<code>.tsv`: question and number, no header, quotes are plain characters; or `exemplars.json`."""
    if split == "exemplars":
        return _exemplars(folder / "exemplars.json", language)
    path = folder / f"mgsm_{language}.tsv"
    rows = read_rows(_there(path), TableFormat(header=False, quotes=False))
    if len(rows[0][0]) != 2:
        raise CorpusError(f"{path}, line 1: {len(rows[0][0])} columns, expected a question, a tab and its number")
    return [({"question": row["1"], "answer_number": row["2"]}, where) for row, where in rows]


def msvamp_rows(folder: Path, language: str, split: str) -> list[Row]:
    """`test_<Language>.json`: a JSON object a line."""
    return read_rows(_there(folder / f"test_{language_name(language)}.json"), TableFormat())


def flores_rows(folder: Path, language: str, split: str) -> list[Row]:
    """`<split>/<tag>.<split>`, or `<tag>.<split>`: a sentence a line; the line's number is the id."""
    home = folder / split if (folder / split).is_dir() else folder
    path = language_files(home, (language,))[language]
    lines = enumerate(sentence_lines(path), start=1)
    return [({"text": line, "id": number}, f"{path}, line {number}") for number, line in lines]


def _there(path: Path) -> Path:
    if not path.is_file():
        raise CorpusError(f"there is no {path}: give the folder with the benchmark's files with --from DIR")
    return path


def _exemplars(path: Path, language: str) -> list[Row]:
    """Questions and answers by language and number; the number asked for is read off the English answer."""
    try:
        items: dict[str, dict[str, Any]] = json.loads(read_text(_there(path), advice="save it as UTF-8"))
        english, own = items["en"], items[language]
        return [
            (
                {"question": one["q"], "answer": one["a"], "answer_number": _final(english[n]["a"])},
                f"{path}, {language} {n}",
            )
            for n, one in own.items()
        ]
    except json.JSONDecodeError as error:
        raise CorpusError(f"{path}, line {error.lineno}: not valid JSON ({error.msg}); is the file cut off?") from error
    except (KeyError, TypeError, AttributeError) as error:
        raise CorpusError(
            f'{path}: {error!r} is missing or of another kind; expected {{"<code>": {{"1": {{"q": …, "a": …}}, …}}, …}}'
        ) from error


def _final(answer: str) -> str | None:
    found = re.search(r"The answer is (-?[\d,.]*\d)", answer)
    return found[1] if found else None
