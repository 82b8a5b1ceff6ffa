"""What may be wrong with a corpus: errors, which later steps would stumble over, and warnings for people to see."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ..languages import language_name
from .encode import Tokenizer, encode_groups, encode_texts
from .language_id import Verdict, identify_languages, known_languages
from .records import Record

Numbered = Sequence[tuple[Record, str]]
"""Records, each with where it stands."""


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong.

    Attributes:
        kind: "schema", "empty", "duplicate", "missing", "language", or "length".
        message: one line: where, and what.
        error: whether it is an error rather than a warning.
    """

    kind: str
    message: str
    error: bool = False


def empty_texts(numbered: Numbered) -> Iterator[Problem]:
    """Questions of nothing but spaces (errors), and answers of nothing at all (warnings: they count no token)."""
    for record, where in numbered:
        if not (record.question or record.instruction).strip():
            yield Problem("empty", f"{where}: the question is nothing but spaces", error=True)
        empty = sum(not answer.strip() for answer in record.answers)
        if empty:
            yield Problem("empty", f"{where}: {empty} of {len(record.answers)} answers are empty")


def duplicates(numbered: Numbered) -> Iterator[Problem]:
    """An id twice in a language (an error), a question twice in a language, one text in several languages."""
    ids: dict[tuple[str, str], str] = {}
    questions: dict[tuple[str, str], str] = {}
    languages: dict[str, str] = {}
    for record, where in numbered:
        text = record.question or record.instruction
        if record.id is not None:
            first = ids.setdefault((record.language, record.id), where)
            if first is not where:
                message = (
                    f"{where}: the id {record.id!r} is there twice in {record.language!r}, first at {_place(first)}"
                )
                yield Problem("duplicate", message, error=True)
        first = questions.setdefault((record.language, text), where)
        if first is not where:
            yield Problem("duplicate", f"{where}: the same question in {record.language!r} as {_place(first)}")
        elif languages.setdefault(text, record.language) != record.language:
            yield Problem("duplicate", f"{where}: the same text in {record.language!r} as in {languages[text]!r}")


def missing_ids(numbered: Numbered) -> Iterator[Problem]:
    """Ids that some languages have and others lack: those questions cannot be matched across languages."""
    languages = tuple(dict.fromkeys(record.language for record, _ in numbered))
    having: dict[str, set[str]] = defaultdict(set)
    for record, _ in numbered:
        if record.id is not None:
            having[record.id].add(record.language)
    for code in languages:
        lacking = [one for one in having if code not in having[one]]
        if lacking:
            shown = ", ".join(lacking[:5]) + (", …" if len(lacking) > 5 else "")
            yield Problem("missing", f"{language_name(code)} lacks {len(lacking)} of {len(having)} ids: {shown}")


def other_languages(numbered: Numbered) -> Iterator[Problem]:
    """Questions and answers that are, with confidence, in another language than the one they claim.

    Where that is more than half of a language's questions, the language is not what it claims to be: an error.
    Answers are judged too, but only warned of: a model may well answer in another language.
    """
    languages = tuple(dict.fromkeys(record.language for record, _ in numbered))
    known = known_languages(languages)
    for code in languages:
        if code not in known:
            yield Problem("language", f"{language_name(code)} is not among the languages that can be told: not judged")
    asked, wrong = Counter[str](), Counter[str]()
    for one, verdict in _judged(numbered, known):
        asked[one.claimed] += one.is_question
        if verdict.contradicts(one.claimed):
            wrong[one.claimed] += one.is_question
            yield Problem("language", f"{one.where}: {_seen(one.claimed, verdict)}: {_short(one.text)}")
    for code, number in wrong.items():
        if number > asked[code] / 2:
            found = f"{number} of {asked[code]} questions that can be judged are in another language"
            yield Problem("language", f"{language_name(code)}: {found}", error=True)


@dataclass(frozen=True)
class _Text:
    """A question or an answer, the language that it claims, and where it stands."""

    claimed: str
    text: str
    where: str
    is_question: bool


def _judged(numbered: Numbered, known: Sequence[str]) -> Iterator[tuple[_Text, Verdict]]:
    """The texts that are long enough to be judged, with what was made out."""
    texts = [
        _Text(record.language, text, where if n == 0 else f"{where}, answer {n}", n == 0)
        for record, where in numbered
        if record.language in known
        for n, text in enumerate([record.question or record.instruction, *record.answers])
    ]
    verdicts = identify_languages([one.text for one in texts], known)
    return ((one, verdict) for one, verdict in zip(texts, verdicts, strict=True) if verdict is not None)


def _seen(claimed: str, verdict: Verdict) -> str:
    return f"looks like {language_name(verdict.language)} ({verdict.confidence:.2f}), not {language_name(claimed)}"


def _place(where: str) -> str:
    """A place without the file's name: "record 3"."""
    return where.rsplit(", ", 1)[-1]


def _short(text: str, length: int = 50) -> str:
    line = " ".join(text.split())
    return line if len(line) <= length else line[: length - 1] + "…"


# ── A corpus in numbers, language by language.

_ANY_LENGTH = 2**62


@dataclass(frozen=True)
class LanguageSummary:
    """One language of a corpus.

    Attributes:
        language: code.
        records: questions.
        answers: of all of them.
        characters: of the instructions, each once, and of the answers.
        tokens: the same texts under a tokenizer; None without one.
        overlong: sequences that are longer than the model allows.
        merges: answers at whose border with the instruction the tokenizer merges (SPEC 2).
    """

    language: str
    records: int
    answers: int
    characters: int
    tokens: int | None = None
    overlong: int | None = None
    merges: int | None = None

    @property
    def tokens_per_character(self) -> float | None:
        """How finely the tokenizer cuts the language."""
        return None if self.tokens is None else self.tokens / max(self.characters, 1)


def summarize(records: Sequence[Record], *, tokenizer: Tokenizer | None = None, max_length: int = 0) -> LanguageSummary:
    """Count one language's records; with a tokenizer, its tokens too.

        tokens = Σ over records ( |tokenize(instruction)| + Σ over answers ( |full| − |prefix| ) )

    Args:
        records: of one language, at least one.
        tokenizer: a model's own.
        max_length: the model's longest sequence, in tokens.
    """
    answers = sum(len(record.answers) for record in records)
    characters = sum(len(record.instruction) + sum(map(len, record.answers)) for record in records)
    plain = LanguageSummary(records[0].language, len(records), answers, characters)
    return plain if tokenizer is None else _tokenized(plain, records, tokenizer, max_length)


def _tokenized(
    plain: LanguageSummary, records: Sequence[Record], tokenizer: Tokenizer, max_length: int
) -> LanguageSummary:
    unanswered = [record for record in records if not record.answers]
    texts = encode_texts(unanswered, tokenizer, text="instruction", max_length=_ANY_LENGTH)
    lengths = [len(text.tokens) for text in texts]
    tokens, merges = sum(lengths), 0
    if plain.answers:
        encoded = encode_groups(records, tokenizer, max_length=_ANY_LENGTH)
        tokens += encoded.full_tokens - encoded.prefix_tokens + sum(len(group.prefix) for group in encoded.groups)
        lengths += [max(len(group.prefix), len(full)) for group in encoded.groups for full in group.full]
        merges = encoded.boundary_cases
    overlong = sum(length > max_length for length in lengths)
    return LanguageSummary(plain.language, plain.records, plain.answers, plain.characters, tokens, overlong, merges)
