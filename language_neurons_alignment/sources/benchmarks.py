"""The public benchmarks that are known by name: where they lie, and what their columns mean."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from decimal import Decimal, InvalidOperation
from pathlib import Path

from ..errors import SettingsError
from ..languages import DEFAULT_LANGUAGES
from . import disk
from .columns import Columns, Gathered, gather
from .hub import hub_configs, hub_rows
from .tables import Row
from .tags import same_language


@dataclass(frozen=True)
class Benchmark:
    """One public benchmark.

    Attributes:
        name: as users write it, and as its ids begin.
        about: one line for people.
        hub: its id on the hub.
        languages: what it has; empty: more than can be listed.
        splits: our name of a split → the hub's, the default first.
        columns: of the rows, from the hub and from disk alike; a row with no "id" gets its number.
        worked: the column with worked answers, by split.
        rows: the rows of a language and split in a folder on disk.
    """

    name: str
    about: str
    hub: str
    languages: tuple[str, ...]
    splits: dict[str, str]
    columns: Columns
    worked: dict[str, str]
    rows: Callable[[Path, str, str], list[Row]]

    def check(self, split: str, languages: tuple[str, ...], answers: str | None) -> None:
        """Raise SettingsError unless it has this split, these languages and this column of answers."""
        if split not in self.splits:
            raise SettingsError(f"{self.name} has no split {split!r}: choose --split from {', '.join(self.splits)}")
        missing = [code for code in languages if self.languages and code not in self.languages]
        if missing:
            raise SettingsError(f"{self.name} has no {', '.join(missing)}: it has {', '.join(self.languages)}")
        if answers not in (None, self.worked.get(split)):
            there = [f"--split {one} --answers {column}" for one, column in self.worked.items()]
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
    """A benchmark's records, from a folder or from the hub; by default in the ten languages.

    Args:
        benchmark: which one.
        languages: those wanted, in order.
        folder: where its files lie; None: the hub.
        split: one of its splits.
        answers: the column of worked answers, where they are wanted.
        revision: on the hub.

    Raises:
        SettingsError: it has no such split, language or answers.
        CorpusError: files are missing or damaged, or the hub does not answer.
    """
    split = split or next(iter(benchmark.splits))
    wanted = languages or DEFAULT_LANGUAGES
    benchmark.check(split, wanted, answers)
    gathered = Gathered(())
    for code in wanted:
        if folder is not None:
            rows = benchmark.rows(folder, code, split)
        else:
            config = _config(benchmark, code, revision)
            rows = hub_rows(benchmark.hub, config, benchmark.splits[split], revision=revision)
        numbered = [({"id": number, **row}, where) for number, (row, where) in enumerate(rows, start=1)]
        columns = replace(benchmark.columns, answers=answers)
        gathered += _named(gather(numbered, columns, language=code), f"{benchmark.name}-{split}-")
    return gathered


def _named(gathered: Gathered, prefix: str) -> Gathered:
    """With ids that say where they come from, and numbers written one way."""
    records = tuple(
        replace(record, id=f"{prefix}{record.id}", target=plain_number(record.target)) for record in gathered.records
    )
    return replace(gathered, records=records)


def plain_number(text: str | None) -> str | None:
    """A benchmark's number in one spelling: "2,125" → "2125", "8.0" → "8"; what is no number stays as it is."""
    if text is None:
        return None
    bare = text.replace(",", "") if re.fullmatch(r"-?\d{1,3}(,\d{3})+(\.\d+)?", text) else text
    try:
        number = Decimal(bare)
    except InvalidOperation:
        return text
    return str(int(number)) if number == number.to_integral_value() else str(number.normalize())


def _config(benchmark: Benchmark, language: str, revision: str | None) -> str:
    """The hub's name for a language: the code itself, or FLORES+'s tag."""
    if benchmark.languages:
        return language
    tags = [tag for tag in hub_configs(benchmark.hub, revision=revision) if same_language(tag, language)]
    if not tags:
        raise SettingsError(f"{benchmark.name} has no {language} on the hub ({benchmark.hub})")
    return tags[0]


BENCHMARKS = {
    one.name: one
    for one in (
        Benchmark(
            "mgsm",
            "grade-school problems: 250 in 11 languages, with numbers; 8 exemplars with worked answers",
            "juletxara/mgsm",
            (*DEFAULT_LANGUAGES, "te"),
            {"test": "test", "exemplars": "train"},
            Columns("question", id="id", target="answer_number"),
            {"exemplars": "answer"},
            disk.mgsm_rows,
        ),
        Benchmark(
            "msvamp",
            "grade-school problems: 1,000 in 10 languages, with numbers",
            "Mathoctopus/MSVAMP",
            DEFAULT_LANGUAGES,
            {"test": "test"},
            Columns("m_query", id="id", target="response"),
            {},
            disk.msvamp_rows,
        ),
        Benchmark(
            "flores",
            "FLORES+: the same sentences in 200 languages; 1,012 (devtest) and 997 (dev)",
            "openlanguagedata/flores_plus",
            (),
            {"devtest": "devtest", "dev": "dev"},
            Columns("text", id="id"),
            {},
            disk.flores_rows,
        ),
    )
}
"""By name."""
