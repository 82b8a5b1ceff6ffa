"""The syntax of `--do`: steps, each an operation and the set of neurons that it applies to.

    step       = operation " " set
    operation  = zero | scale:a | set:v | mean:LANG | replace:LANG | add:LANG:α | diffmean:LANG | ban | boost:x
    set        = term { " + " term | " - " term }                    from left to right
    term       = LANG | LANG:class,… | @neurons.csv | @neurons.json | @mask-file | @mask-file#LANG | expert:LAYER.NUMBER
               | layers:FIRST-LAST
    LANG       = a language, or one of the words each, source, target, which stand for one

An expert of a mixture stands for all its neurons; ban and boost act on the experts themselves, in the router. A range
of layers, both ends included and counted from 0, stands for all their neurons.

Steps apply in the order given. Parsing needs neither torch nor a file; `_interventions` computes what steps do.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from .errors import SettingsError
from .languages import language_code

CLASSES = ("specific", "related", "general")
MASK_CLASSES = ("specific", "related")
"""The classes of neurons that make up a language's mask."""

PLACEHOLDERS = ("each", "source", "target")
"""Words that stand for a language until `Steps.bind` replaces them."""

_NUMBER, _LANGUAGE = "a number", "a language"


class Kind(NamedTuple):
    """A kind of operation: a ← scale · a + shift, on activations or, with `router`, on the logits that choose experts.

    `affine` gives (scale, shift) from the number, from μ (the mean activation in the language), and from the mean of
    the other languages' μ, which only kinds with `others` get.
    """

    usage: str
    arguments: tuple[str, ...]
    affine: Callable[[float, Any, Any], tuple[float, Any]]
    others: bool = False
    router: bool = False


OPERATIONS = {
    "zero": Kind("zero", (), lambda number, own, others: (0.0, 0.0)),
    "scale": Kind("scale:a", (_NUMBER,), lambda number, own, others: (number, 0.0)),
    "set": Kind("set:v", (_NUMBER,), lambda number, own, others: (0.0, number)),
    "mean": Kind("mean:LANG, replace:LANG", (_LANGUAGE,), lambda number, own, others: (0.0, own)),
    "add": Kind("add:LANG:α", (_LANGUAGE, _NUMBER), lambda number, own, others: (1.0, number * own)),
    "diffmean": Kind("diffmean:LANG", (_LANGUAGE,), lambda number, own, others: (1.0, own - others), others=True),
    "ban": Kind("ban", (), lambda number, own, others: (1.0, -math.inf), router=True),
    "boost": Kind("boost:x", (_NUMBER,), lambda number, own, others: (1.0, number), router=True),
}
"""Every operation. Adding one is one entry here: its syntax and its formula."""

_USAGES = ", ".join(kind.usage for kind in OPERATIONS.values())
_SYNONYMS = {"replace": "mean"}  # Language Arithmetics' word for a ← μ
_EXAMPLE = 'for example "zero fr" or "scale:2 fr:specific"'
_LONGEST_SLUG = 40


def in_order(classes: Sequence[str]) -> tuple[str, ...]:
    """Sort classes of neurons into the order of `CLASSES` and drop repetitions.

    >>> in_order(["general", "specific", "general"])
    ('specific', 'general')
    """
    if not classes:
        raise SettingsError(f"--classes names no class: give any of {','.join(CLASSES)}")
    for name in classes:
        if name not in CLASSES:
            raise SettingsError(f"--classes must be one of {', '.join(CLASSES)}; got {name!r}")
    return tuple(name for name in CLASSES if name in classes)


@dataclass(frozen=True)
class Operation:
    """What happens to a neuron's activation; `language` is the language, or placeholder, whose mean is used."""

    name: str
    language: str | None = None
    amount: float | None = None

    def __str__(self) -> str:
        parts = (self.name, self.language, None if self.amount is None else repr(self.amount).removesuffix(".0"))
        return ":".join(part for part in parts if part is not None)


@dataclass(frozen=True)
class Term:
    """Some neurons, by name: of a language or placeholder, in a file, of an expert (layer, number), of layers."""

    language: str | None = None
    classes: tuple[str, ...] | None = None  # None: those chosen by `--classes`
    file: str | None = None  # None: a language of the mask in use
    expert: tuple[int, int] | None = None
    layers: tuple[int, int] | None = None  # the first and the last

    def __str__(self) -> str:
        if self.expert is not None:
            return "expert:{}.{}".format(*self.expert)
        if self.layers is not None:
            return "layers:{}-{}".format(*self.layers)
        if self.file is not None:
            return f"@{self.file}" + ("" if self.language is None else f"#{self.language}")
        return f"{self.language}" + ("" if self.classes is None else f":{','.join(self.classes)}")

    @property
    def of_shape(self) -> bool:
        """Whether the model's shape alone tells which neurons these are; else a mask or a file does."""
        return self.expert is not None or self.layers is not None

    @property
    def is_list(self) -> bool:
        """Whether the file lists neurons; other files are masks."""
        return self.file is not None and Path(self.file).suffix in (".json", ".csv")


Named = TypeVar("Named", Operation, Term)


@dataclass(frozen=True)
class Step:
    """An operation on a set of neurons: terms from left to right, each with whether its neurons are taken away."""

    operation: Operation
    terms: tuple[tuple[bool, Term], ...]

    def __str__(self) -> str:
        first, *others = self.terms
        return f"{self.operation} {first[1]}" + "".join(f" {'-' if minus else '+'} {term}" for minus, term in others)

    def bind(self, languages: dict[str, str]) -> Step:
        """Replace placeholders by languages."""

        def bound(named: Named) -> Named:
            language = languages.get(named.language or "", named.language)
            return replace(named, language=language)

        return Step(bound(self.operation), tuple((minus, bound(term)) for minus, term in self.terms))


@dataclass(frozen=True)
class Steps:
    """Steps that apply one after the other.

    >>> steps = Steps.parse(["zero source", "add:target:1 target"])
    >>> sorted(steps.words)
    ['source', 'target']
    >>> steps.bind(source="fr", target="de").texts
    ('zero fr', 'add:de:1 de')
    """

    steps: tuple[Step, ...]

    @classmethod
    def parse(cls, texts: str | Sequence[str]) -> Steps:
        """Read steps as they are written after `--do`; a single text is a single step.

        >>> Steps.parse("scale:2.0 French + German:specific").texts
        ('scale:2 fr + de:specific',)
        """
        return cls(tuple(parse_step(text) for text in ([texts] if isinstance(texts, str) else texts)))

    @property
    def texts(self) -> tuple[str, ...]:
        """The steps in their canonical spelling: `parse` reads them back as the same steps."""
        return tuple(map(str, self.steps))

    @property
    def terms(self) -> tuple[Term, ...]:
        """The named neurons of all steps."""
        return tuple(term for step in self.steps for _, term in step.terms)

    @property
    def words(self) -> frozenset[str]:
        """The placeholders in the steps: any of each, source, target."""
        named = {*self.means, *(term.language for term in self.terms)}
        return frozenset(word for word in PLACEHOLDERS if word in named)

    @property
    def means(self) -> tuple[str, ...]:
        """The languages or placeholders whose mean the steps name; `diffmean` also needs the mask's other languages."""
        return tuple(dict.fromkeys(step.operation.language for step in self.steps if step.operation.language))

    @property
    def needs_mask(self) -> bool:
        """Whether the steps name neurons by language, or need to know all languages (`diffmean`)."""
        by_language = any(term.file is None and not term.of_shape for term in self.terms)
        return by_language or any(OPERATIONS[step.operation.name].others for step in self.steps)

    def variant(self, usual: Sequence[str]) -> str:
        """The part of a file's name that tells these steps from others: ".word-digest"; "" for the usual steps.

        >>> Steps.parse("zero each").variant(["zero each"])
        ''
        >>> Steps.parse("scale:2 each").variant(["zero each"])
        '.scale-2-each-cdb23cf9'
        """
        if self.texts == Steps.parse(usual).texts:
            return ""
        word = re.sub(r"[^a-z0-9.]+", "-", "-".join(self.texts).lower()).strip("-.")[:_LONGEST_SLUG].rstrip("-.")
        return f".{word}-{hashlib.blake2b(repr(self.texts).encode(), digest_size=4).hexdigest()}"

    def bind(self, *, each: str | None = None, source: str | None = None, target: str | None = None) -> Steps:
        """Replace placeholders by languages; a placeholder without a language stays.

        >>> Steps.parse("mean:target each").bind(each="fr").texts
        ('mean:target fr',)
        """
        given = {"each": each, "source": source, "target": target}
        languages = {word: language for word, language in given.items() if language is not None}
        return Steps(tuple(step.bind(languages) for step in self.steps))

    def check_bound(self) -> None:
        """Raise SettingsError where a placeholder is left."""
        if self.words:
            raise SettingsError(f"{', '.join(sorted(self.words))} stands for no language here: name one")


NOTHING = Steps(())
"""Changes nothing."""


def parse_step(text: str) -> Step:
    """Read a single step."""
    operation, _, neurons = text.strip().partition(" ")
    try:
        if not neurons.strip():
            raise SettingsError(f"it names no neurons after {operation!r}: give an operation and a set, {_EXAMPLE}")
        step = Step(_operation(operation), _terms(neurons))
        named = next((term for _, term in step.terms if term.expert is None), None)
        if named is not None and OPERATIONS[step.operation.name].router:
            raise SettingsError(f"{operation} acts on experts, and {named} is none: name them as expert:LAYER.NUMBER")
        return step
    except SettingsError as error:
        raise SettingsError(f"the step {text!r} cannot be done: {error}") from error


def _operation(text: str) -> Operation:
    name, *given = text.split(":")
    name = _SYNONYMS.get(name, name)
    if name not in OPERATIONS:
        raise SettingsError(f"unknown operation {text!r}: choose from {_USAGES}")
    wanted = OPERATIONS[name].arguments
    if len(given) != len(wanted) or not all(given):
        raise SettingsError(f"{text!r} has other values than {' and '.join(wanted) or 'none'}: write {_USAGES}")
    read = dict(zip(wanted, given, strict=True))
    language, amount = read.get(_LANGUAGE), read.get(_NUMBER)
    return Operation(name, language and _language(language), None if amount is None else _number(amount))


def _terms(text: str) -> tuple[tuple[bool, Term], ...]:
    first, *rest = re.split(r"\s+([+-])\s+", text.strip())
    others = [(sign == "-", _term(term)) for sign, term in zip(rest[::2], rest[1::2], strict=True)]
    return ((False, _term(first)), *others)


def _term(text: str) -> Term:
    if text.startswith("@"):
        path, hash_sign, language = text[1:].rpartition("#")
        return Term(_language(language), file=path) if hash_sign else Term(file=text[1:])
    language, colon, classes = text.partition(":")
    if language == "expert":
        place = re.fullmatch(r"(\d+)\.(\d+)", classes)
        if place is None:
            raise SettingsError(f"{text!r} names no expert: write expert:LAYER.NUMBER, both counted from 0")
        return Term(expert=(int(place[1]), int(place[2])))
    if language == "layers":
        ends = re.fullmatch(r"(\d+)-(\d+)", classes)
        if ends is None or int(ends[1]) > int(ends[2]):
            raise SettingsError(f"{text!r} names no layers: write layers:FIRST-LAST, both counted from 0 and included")
        return Term(layers=(int(ends[1]), int(ends[2])))
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
