"""A folder with one file for each language: a table, or text with a sentence on each line, as FLORES has it.

A file's name begins with its language: `te.txt`, `Telugu.tsv`, `tel_Telu.devtest`.
"""

from __future__ import annotations

from pathlib import Path

from ..corpus.records import Record, read_text
from ..errors import CorpusError, SettingsError
from ..languages import code_or_name, language_code
from .tables import DEFAULT_COLUMNS, ColumnNames, Gathered, gather, is_table, read_rows


def read_folder(
    folder: Path,
    languages: tuple[str, ...] | None,
    *,
    columns: ColumnNames = DEFAULT_COLUMNS,
    header: bool = True,
    quotes: bool = True,
    aligned: bool = True,
) -> Gathered:
    """The records of such a folder.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     _ = (Path(folder) / "en.txt").write_text("One.")
    ...     _ = (Path(folder) / "swh_Latn.txt").write_text("Moja.")
    ...     gathered = read_folder(Path(folder), None)
    >>> [(record.language, record.id, record.instruction) for record in gathered.records]
    [('en', '1', 'One.'), ('sw', '1', 'Moja.')]
    """
    gathered, lengths = Gathered(()), dict[str, int]()
    for code, path in language_files(folder, languages).items():
        if is_table(path):
            gathered += gather(read_rows(path, header=header, quotes=quotes), columns, language=code)
            continue
        if columns != DEFAULT_COLUMNS or not (header and quotes):
            raise SettingsError(
                f"{path} is text, a question on each line, and has no columns: leave out the flags for tables"
            )
        lines = sentence_lines(path)
        lengths[path.name] = len(lines)
        records = tuple(
            Record(code, line, (), id=str(number) if aligned else None)
            for number, line in enumerate(lines, start=1)
            if line.strip()
        )
        gathered += Gathered(records, len(lines) - len(records))
    if aligned and len(set(lengths.values())) > 1:
        listed = ", ".join(f"{name} {lines}" for name, lines in lengths.items())
        raise CorpusError(
            f"the files in {folder} have different numbers of lines ({listed}), so line n is not the same "
            "sentence in all of them: correct them, or use --unaligned if they are different texts"
        )
    return gathered


def language_files(folder: Path, languages: tuple[str, ...] | None) -> dict[str, Path]:
    """The file of each language."""
    if not folder.is_dir():
        raise CorpusError(
            f"there is no folder {folder}: give one with a file for each language, such as te.txt and en.txt"
        )
    found: dict[str, Path] = {}
    for path in sorted(one for one in folder.iterdir() if one.is_file() and not one.name.startswith(".")):
        code = _language(path, languages)
        if code is None:
            continue
        if code in found:
            raise CorpusError(
                f"{folder} has two files in {code!r}: {found[code].name} and {path.name}; keep one of them"
            )
        found[code] = path
    missing = [code for code in languages or () if code not in found]
    if missing or not found:
        raise CorpusError(
            f"{folder} has no file for {', '.join(missing) or 'any language'}: it has "
            f"{', '.join(found) or 'none'}; a file's name begins with its language, such as te.txt or tel_Telu.devtest"
        )
    return {code: found[code] for code in languages or found}


def _language(path: Path, languages: tuple[str, ...] | None) -> str | None:
    """A file's language; None if it is none of those wanted."""
    tag = path.name.split(".")[0]
    if languages is not None:
        return next((code for code in languages if code_or_name(tag) == code), None)
    try:
        return language_code(tag)
    except SettingsError as error:
        raise CorpusError(
            f"{path}: its name does not begin with a language, such as te.txt or tel_Telu.devtest; rename or move it, "
            "or name the languages wanted with --langs"
        ) from error


def sentence_lines(path: Path) -> list[str]:
    """A text file's lines; only line feeds end one, not the rarer separators that `splitlines` knows."""
    lines = read_text(path, advice="save it as UTF-8").replace("\r\n", "\n").split("\n")
    return lines[:-1] if lines[-1] == "" else lines
