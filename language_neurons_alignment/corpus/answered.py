"""Records with a model's own answers: what was asked, what was answered, and how (SPEC 1)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from .records import Corpus, Record

GENERATION = "generation"
"""The key of a record that tells how its generated answers were made."""


Place = tuple[int, int]
"""Where an answer belongs: which record, and which of its answers, both from 0."""


def open_places(records: Sequence[Record], languages: Sequence[str], answers: int) -> list[Place]:
    """The places that are still empty where each question of these languages is to have `answers` answers."""
    return [
        (index, number)
        for index, record in enumerate(records)
        if record.language in languages
        for number in range(len(record.answers), answers)
    ]


def same_questions(one: Corpus, other: Corpus) -> bool:
    """Whether two corpora ask the same in the same order."""
    return _questions(one) == _questions(other)


def has_answers(records: Sequence[Record]) -> bool:
    """Whether any of these records has an answer."""
    return any(record.answers for record in records)


def generation_of(record: Record) -> Mapping[str, Any] | None:
    """How a record's generated answers were made; None where none were."""
    found = (record.source or {}).get(GENERATION)
    return found if isinstance(found, dict) else None


def without_answers(record: Record) -> Record:
    """The question alone, with its other keys."""
    item = {key: value for key, value in record.as_item().items() if key != GENERATION}
    return replace(record, answers=(), source={**item, "answers": []})


def with_all_answers(
    records: Sequence[Record], given: Mapping[Place, Mapping[str, Any]], *, generation: Mapping[str, Any]
) -> tuple[Record, ...]:
    """The records with their new answers, each in the order of its numbers (`with_answers`)."""
    new: dict[int, list[Mapping[str, Any]]] = {}
    for place in sorted(given):
        new.setdefault(place[0], []).append(given[place])
    return tuple(
        with_answers(record, new[index], generation=generation) if index in new else record
        for index, record in enumerate(records)
    )


def with_answers(record: Record, answers: Sequence[Mapping[str, Any]], *, generation: Mapping[str, Any]) -> Record:
    """A record with further answers behind those that it has; what else stands in it stays.

    Args:
        record: as it is.
        answers: {"generated": str, …} each.
        generation: how they were made.
    """
    item = record.as_item()
    added = {**item, "answers": [*item["answers"], *map(dict, answers)], GENERATION: dict(generation)}
    return replace(record, answers=(*record.answers, *(one["generated"] for one in answers)), source=added)


def _questions(corpus: Corpus) -> list[tuple[str, str]]:
    return [(record.language, record.instruction) for record in corpus.records]
