"""The words of `--do`: one step is an operation and the set of neurons that it is done to.

step       = operation " " set
operation  = zero | scale:a | set:v | mean:LANG | replace:LANG | add:LANG:α | diffmean:LANG
set        = term { " + " term | " - " term }                    from left to right
term       = LANG | LANG:class,… | @neurons.csv | @neurons.json | @mask-file | @mask-file#LANG
LANG       = a language, or one of the words each, source, target, which stand for one
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace

from .config import in_order
from .errors import SettingsError
from .languages import language_code

PLACEHOLDERS = ("each", "source", "target")
"""Words that stand for a language until they are bound to one."""

_ARGUMENTS = {
    "zero": (),
    "scale": ("a number",),
    "set": ("a number",),
    "mean": ("a language",),
    "add": ("a language", "a number"),
    "diffmean": ("a language",),
}
_OPERATIONS = "zero, scale:a, set:v, mean:LANG, replace:LANG, add:LANG:α, diffmean:LANG"
_SAME = {"replace": "mean"}  # Language Arithmetics' word for a ← μ
_EXAMPLE = 'for example "zero fr" or "scale:2 fr:specific"'


@dataclass(frozen=True)
class Operation:
    """What is done to a neuron's activation.

    Attributes:
        name: "zero", "scale", "set", "mean", "add" or "diffmean".
        language: whose mean, or a placeholder; None where the operation has none.
        amount: the number; None likewise.
    """

    name: str
    language: str | None = None
    amount: float | None = None

    def __str__(self) -> str:
        parts = (self.name, self.language, None if self.amount is None else repr(self.amount).removesuffix(".0"))
        return ":".join(part for part in parts if part is not None)


@dataclass(frozen=True)
class Term:
    """Some neurons, by name.

    Attributes:
        language: a code or a placeholder; of a mask file, the language in it; None where none is named.
        classes: of a language; None for those chosen otherwise (`--classes`).
        file: the path of a file; None for a language of the mask at hand.
    """

    language: str | None = None
    classes: tuple[str, ...] | None = None
    file: str | None = None

    def __str__(self) -> str:
        if self.file is not None:
            return f"@{self.file}" + ("" if self.language is None else f"#{self.language}")
        return f"{self.language}" + ("" if self.classes is None else f":{','.join(self.classes)}")


@dataclass(frozen=True)
class Step:
    """An operation on a set of neurons.

    Attributes:
        operation: what is done.
        terms: (whether it is taken away, some neurons), from left to right.
    """

    operation: Operation
    terms: tuple[tuple[bool, Term], ...]

    def __str__(self) -> str:
        first, *others = self.terms
        return f"{self.operation} {first[1]}" + "".join(f" {'-' if minus else '+'} {term}" for minus, term in others)

    @property
    def words(self) -> frozenset[str]:
        """The placeholders in it."""
        named = {self.operation.language, *(term.language for _, term in self.terms)}
        return frozenset(word for word in PLACEHOLDERS if word in named)

    def bind(self, languages: dict[str, str]) -> Step:
        """The same with placeholders replaced by languages."""

        def bound(language: str | None) -> str | None:
            return None if language is None else languages.get(language, language)

        return Step(
            replace(self.operation, language=bound(self.operation.language)),
            tuple((minus, replace(term, language=bound(term.language))) for minus, term in self.terms),
        )


def parse_step(text: str) -> Step:
    """Read a step.

    Raises:
        SettingsError: an unknown operation, language or class, a number that is not finite, or no set.
    """
    operation, _, neurons = text.strip().partition(" ")
    try:
        if not neurons.strip():
            raise SettingsError(f"it names no neurons after {operation!r}: give an operation and a set, {_EXAMPLE}")
        return Step(_operation(operation), _terms(neurons))
    except SettingsError as error:
        raise SettingsError(f"the step {text!r} cannot be done: {error}") from error


def _operation(text: str) -> Operation:
    name, *given = text.split(":")
    name = _SAME.get(name, name)
    wanted = _ARGUMENTS.get(name)
    if wanted is None:
        raise SettingsError(f"unknown operation {text!r}: choose from {_OPERATIONS}")
    if len(given) != len(wanted) or not all(given):
        raise SettingsError(f"{text!r} has other values than {' and '.join(wanted) or 'none'}: write {_OPERATIONS}")
    read = dict(zip(wanted, given, strict=True))
    language, amount = read.get("a language"), read.get("a number")
    return Operation(
        name, None if language is None else _language(language), None if amount is None else _number(amount)
    )


def _terms(text: str) -> tuple[tuple[bool, Term], ...]:
    first, *rest = re.split(r"\s+([+-])\s+", text.strip())
    return (
        (False, _term(first)),
        *((sign == "-", _term(term)) for sign, term in zip(rest[::2], rest[1::2], strict=True)),
    )


def _term(text: str) -> Term:
    if text.startswith("@"):
        path, hash_sign, language = text[1:].rpartition("#")
        return Term(_language(language), file=path) if hash_sign else Term(file=text[1:])
    language, colon, classes = text.partition(":")
    return Term(_language(language), in_order([name.strip() for name in classes.split(",")]) if colon else None)


def _language(text: str) -> str:
    return text if text in PLACEHOLDERS else language_code(text)


def _number(text: str) -> float:
    try:
        number = float(text) + 0.0  # −0 is 0
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise SettingsError(f"{text!r} must be a finite number")
    return number
