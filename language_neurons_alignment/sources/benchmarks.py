"""The public benchmarks that are known by name, MGSM, MSVAMP and FLORES+: from the Hugging Face hub or from disk.

A `Benchmark` says what it has and how its rows are read; `read_benchmark` makes its records. Rows come from a folder
with the files that the authors publish, or from the hub by the library `datasets`, and have the hub's columns.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

from ..corpus.records import parse_json, read_text
from ..errors import CorpusError, MissingPackageError, SettingsError
from ..languages import DEFAULT_LANGUAGES, code_or_name, language_name
from .folders import language_files, sentence_lines
from .tables import ColumnNames, Gathered, SourceRow, gather, read_rows


@dataclass(frozen=True)
class Benchmark:
    """One public benchmark.

    Attributes:
        name: as users write it, and as its ids begin.
        about: one line for people.
        hub: its id on the hub.
        languages: those that it has; empty: too many to list.
        splits: our name of a split → the hub's, the default first.
        columns: of the rows, from the hub and from disk alike; a row without an "id" gets its number.
        worked: the column with worked answers, by split.
        rows: (folder on disk, language, split) → rows.
    """

    name: str
    about: str
    hub: str
    languages: tuple[str, ...]
    splits: dict[str, str]
    columns: ColumnNames
    worked: dict[str, str]
    rows: Callable[[Path, str, str], list[SourceRow]]

    def check(self, split: str, languages: tuple[str, ...], answers: str | None) -> None:
        """Raise SettingsError unless it has this split, these languages and this column of answers."""
        if split not in self.splits:
            raise SettingsError(f"{self.name} has no split {split!r}: choose --split from {', '.join(self.splits)}")
        missing = [code for code in languages if self.languages and code not in self.languages]
        if missing:
            raise SettingsError(f"{self.name} has no {', '.join(missing)}: it has {', '.join(self.languages)}")
        if answers not in (None, self.worked.get(split)):
            there = [f"--split {one} --answers-column {column}" for one, column in self.worked.items()]
            raise SettingsError(
                f"{self.name} ({split}) has no worked answers in a column {answers!r}; "
                f"{'use ' + ' or '.join(there) if there else 'it has final numbers only, kept as the target'}"
            )


def read_benchmark(
    benchmark: Benchmark,
    languages: tuple[str, ...] | None,
    *,
    folder: Path | None = None,
    split: str | None = None,
    answers: str | None = None,
    revision: str | None = None,
) -> Gathered:
    r"""A benchmark's records, from a folder or from the hub.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     _ = (Path(folder) / "mgsm_en.tsv").write_text("How many?\t1,018")
    ...     (record,) = read_benchmark(BENCHMARKS["mgsm"], ("en",), folder=Path(folder)).records
    >>> record.id, record.instruction, record.target
    ('mgsm-test-1', 'How many?', '1018')
    """
    split = split or next(iter(benchmark.splits))
    wanted = languages or DEFAULT_LANGUAGES
    benchmark.check(split, wanted, answers)
    columns = replace(benchmark.columns, answers=answers)
    gathered = Gathered(())
    for code in wanted:
        if folder is not None:
            rows = benchmark.rows(folder, code, split)
        else:
            config = _config(benchmark, code, revision)
            rows = hub_rows(benchmark.hub, config, benchmark.splits[split], revision=revision)
        numbered = [({"id": number, **row}, where) for number, (row, where) in enumerate(rows, start=1)]
        gathered += gather(numbered, columns, language=code)
    records = tuple(
        replace(record, id=f"{benchmark.name}-{split}-{record.id}", target=plain_number(record.target))
        for record in gathered.records
    )
    return replace(gathered, records=records)


def plain_number(text: str | None) -> str | None:
    """A benchmark's number in one spelling; text that is no number stays as it is.

    >>> [plain_number(text) for text in ("2,125", "8.0", "14.50", "many")]
    ['2125', '8', '14.5', 'many']
    """
    if text is None:
        return None
    bare = text.replace(",", "") if re.fullmatch(r"-?\d{1,3}(,\d{3})+(\.\d+)?", text) else text
    try:
        number = Decimal(bare)
    except InvalidOperation:
        return text
    if not number.is_finite() or number.adjusted() > 40:
        return text
    return str(int(number)) if number == number.to_integral_value() else str(number.normalize())


# Rows from disk, as the authors publish the files.


def mgsm_rows(folder: Path, language: str, split: str) -> list[SourceRow]:
    """`mgsm_<code>.tsv`: question and number, no header, quotes are plain characters; or `exemplars.json`."""
    if split == "exemplars":
        return _exemplars(folder / "exemplars.json", language)
    path = folder / f"mgsm_{language}.tsv"
    rows = read_rows(_existing(path), header=False, quotes=False)
    if len(rows[0][0]) != 2:
        raise CorpusError(f"{path}, line 1: {len(rows[0][0])} columns, expected a question, a tab and its number")
    return [({"question": row["1"], "answer_number": row["2"]}, where) for row, where in rows]


def _exemplars(path: Path, language: str) -> list[SourceRow]:
    """Worked questions by language and number; the final number is read from the English answer."""
    items: Any = parse_json(read_text(_existing(path), advice="save it as UTF-8"), path)
    try:
        english, own = items["en"], items[language]
        return [
            (
                {"question": one["q"], "answer": one["a"], "answer_number": _final(english[n]["a"])},
                f"{path}, {language} {n}",
            )
            for n, one in own.items()
        ]
    except (KeyError, TypeError, AttributeError) as error:
        raise CorpusError(
            f'{path}: {error!r} is missing or of another kind; expected {{"<code>": {{"1": {{"q": …, "a": …}}, …}}, …}}'
        ) from error


def _final(answer: str) -> str | None:
    found = re.search(r"The answer is (-?[\d,.]*\d)", answer)
    return found[1] if found else None


def msvamp_rows(folder: Path, language: str, split: str) -> list[SourceRow]:
    """`test_<Language>.json`: a JSON object a line."""
    return read_rows(_existing(folder / f"test_{language_name(language)}.json"))


def flores_rows(folder: Path, language: str, split: str) -> list[SourceRow]:
    """`<split>/<tag>.<split>`, or `<tag>.<split>`: a sentence a line; the line's number is the id."""
    home = folder / split if (folder / split).is_dir() else folder
    path = language_files(home, (language,))[language]
    lines = enumerate(sentence_lines(path), start=1)
    return [({"text": line, "id": number}, f"{path}, line {number}") for number, line in lines]


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise CorpusError(f"there is no {path}: give the folder with the benchmark's files with --from DIR")
    return path


# Rows from the hub.


def hub_rows(name: str, config: str, split: str, *, revision: str | None = None) -> list[SourceRow]:
    """All rows of one configuration and split."""
    library = _library(name)
    try:
        loaded = library.load_dataset(name, config, split=split, revision=revision)
    except (OSError, ValueError, RuntimeError) as error:
        raise CorpusError(
            f"cannot fetch {name} ({config}, {split}) from the hub: {_reason(error)}; check the network, accept the "
            "data set's terms and `hf auth login` where it asks for that, or give its files with --from DIR"
        ) from error
    return [(dict(row), f"{name} ({config}, {split}), row {number}") for number, row in enumerate(loaded, start=1)]


def _config(benchmark: Benchmark, language: str, revision: str | None) -> str:
    """The hub's name for a language: the code itself, or FLORES+'s tag."""
    if benchmark.languages:
        return language
    library = _library(benchmark.hub)
    try:
        tags = library.get_dataset_config_names(benchmark.hub, revision=revision)
    except (OSError, ValueError, RuntimeError) as error:
        raise CorpusError(
            f"cannot ask the hub for {benchmark.hub}: {_reason(error)}; check the network, or give its files with "
            "--from DIR"
        ) from error
    found = [tag for tag in tags if code_or_name(tag) == language]
    if not found:
        raise SettingsError(f"{benchmark.name} has no {language} on the hub ({benchmark.hub})")
    found = [tag for tag in found if tag.count("_") < 2] or found  # cat_Latn, and cat_Latn_vale1252 beside it
    if len(found) > 1:
        raise SettingsError(
            f"{benchmark.name} has several varieties of {language} on the hub ({', '.join(found)}): fetch the one that "
            f"you want, and read it as a table with --lang {language} --instruction-column text --id-column id"
        )
    return found[0]


def _library(name: str) -> Any:
    try:
        import datasets
    except ImportError:
        datasets = None
    if not hasattr(datasets, "load_dataset"):  # a folder datasets/ of the user's imports as an empty package
        raise MissingPackageError.of("datasets", purpose=f"fetching {name} from the hub", extra="data")
    return datasets


def _reason(error: Exception) -> str:
    """The first line; the lines after it give advice for other cases."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]


_MGSM = Benchmark(
    "mgsm",
    "grade-school problems: 250 in 11 languages, with numbers; 8 exemplars with worked answers",
    "juletxara/mgsm",
    (*DEFAULT_LANGUAGES, "te"),
    {"test": "test", "exemplars": "train"},
    ColumnNames("question", id="id", target="answer_number"),
    {"exemplars": "answer"},
    mgsm_rows,
)
_MSVAMP = Benchmark(
    "msvamp",
    "grade-school problems: 1,000 in 10 languages, with numbers",
    "Mathoctopus/MSVAMP",
    DEFAULT_LANGUAGES,
    {"test": "test"},
    ColumnNames("m_query", id="id", target="response"),
    {},
    msvamp_rows,
)
_FLORES = Benchmark(
    "flores",
    "FLORES+: the same sentences in 200 languages; 1,012 (devtest) and 997 (dev)",
    "openlanguagedata/flores_plus",
    (),
    {"devtest": "devtest", "dev": "dev"},
    ColumnNames("text", id="id"),
    {},
    flores_rows,
)
BENCHMARKS = {one.name: one for one in (_MGSM, _MSVAMP, _FLORES)}
"""By name."""
