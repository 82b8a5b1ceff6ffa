"""Numbers that are spelt out in words: "seventy-five", "fünfundsiebzig", "семьдесят пять", "sabini na tano".

num2words writes numbers in words, and this module reads them by writing: words count as a number if num2words, asked to
write that number, gives the same words. So nothing is guessed. Swahili, which num2words lacks, is written here.
Case, hyphens and blanks make no difference; accents do.

A run is a row of number words that no other word interrupts. It has no value, and is not read, where it spells no
number ("five and six"), or where a fraction, an ordinal, decimals or a dozen are beside it ("two-thirds", "two dozen").
The word for 1 is no run, for it is an article or a pronoun in most languages; only "one", "eins" and "moja" are read,
where a sentence that announces the answer ends in them.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from difflib import SequenceMatcher
from fractions import Fraction
from functools import cache, cached_property, lru_cache

from .conventions import scale_words, spellings
from .number_words import (
    ALSO_OTHER_WORDS,
    CLASSIFIERS,
    DOZEN,
    IRREGULAR,
    NOT_READ,
    OTHER_NAMES,
    OTHER_REGIONS,
    PARTS,
    swahili,
    writer,
)
from .signs import minus_before, subtracts

_MARKS = "".join(chr(n) for n in range(0x300, 0x1D00) if unicodedata.category(chr(n)).startswith("M"))
_WORD = re.compile(rf"[^\W\d_][^\W\d_{_MARKS}]*(?:[{_MARKS}][^\W\d_]*)*(?:['’ʼ][^\W\d_]+)*")
_GAP = re.compile(r"[^\S\n]+|[-‐‑]")
_GAP_OR_COMMA = re.compile(r"[^\S\n]+|[-‐‑]|,[^\S\n]+")
_GLUED_AFTER = re.compile(r"[-‐‑/][^\W_]")
_GLUED_BEFORE = re.compile(r"[^\W_][-‐‑/]$")
_SENTENCE_ENDS = re.compile(r"[*_]{0,3}(?:[.!\n\ue001]|$)")
_LONGEST = 30
"""Words of a run at most."""
_SCALES = (10**2, 10**3, 10**5, 10**6, 10**7, 10**9, 10**12)

_ONES_THAT_ARE_NUMBERS = {"one", "eins", "moja"}


@dataclass(frozen=True)
class Run:
    """Number words and their place in a text.

    Attributes:
        value: exact; None where they are not read.
        negative: a minus stands before them.
        certain: whether these words are always a number. Others count only where an answer is announced.
        joined: whether a word such as "and" joins them to digits beside them.
    """

    start: int
    end: int
    value: int | Fraction | None
    negative: bool = False
    certain: bool = True
    joined: bool = False


def runs_in(text: str, language: str) -> list[Run]:
    """The runs of number words in a text.

    >>> [run.value for run in runs_in("So seventy-five; two-thirds of a hundred and five.", "en")]
    [75, None, 105]
    """
    speller = _speller(language)
    return list(_runs(text, speller)) if speller else []


_WINDOW = 160
"""Characters beside a number in which words that belong to it are looked for."""
_BETWEEN = re.compile(r"[^\S\n]+(?:[^\W\d_]{1,3}[^\S\n]+)?")


def run_at(text: str, start: int, language: str) -> Run | None:
    """The number words right behind a place, past blanks and a word such as "and"; None where there are none."""
    speller = _speller(language)
    word = _WORD.match(text, start + 1)
    if not speller or not word or not speller.may_join(word[0]):
        return None
    run = next(_runs(text[start : start + _WINDOW], speller), None)
    if not run or run.end == _WINDOW:
        return None
    joined = _joins(text[start : start + run.start], speller)
    return None if joined is None else replace(run, start=start + run.start, end=start + run.end, joined=joined)


def run_before(text: str, end: int, language: str) -> Run | None:
    """The number words right in front of a place, as `run_at` finds them behind it."""
    speller = _speller(language)
    word = _LAST_WORD.search(text[max(end - 30, 0) : end]) if speller else None
    if not speller or not word or not speller.may_join(word[1]):
        return None
    window = max(end - _WINDOW, 0)
    run = next(reversed(list(_runs(text[window:end], speller))), None)
    if not run or (window and run.start < 30):  # its first words may be cut off
        return None
    joined = _joins(text[window + run.end : end], speller)
    return None if joined is None else replace(run, start=window + run.start, end=window + run.end, joined=joined)


_LAST_WORD = re.compile(r"([^\W\d_]+)[^\S\n]+$")


def _joins(between: str, speller: _Speller) -> bool | None:
    """Whether there is a joining word in a text between number words and digits; None if it does not join them."""
    words = _split(between)
    return bool(words) if _BETWEEN.fullmatch(between) and all(word in speller.joining for word in words) else None


def _runs(text: str, speller: _Speller) -> Iterator[Run]:
    words = list(_WORD.finditer(text))
    plain = [speller.without_classifier(_plain(word[0])) for word in words]
    gap = _GAP_OR_COMMA if speller.has_commas else _GAP
    first = 0
    while first < len(words):
        last = first
        while last < len(words) and _is_number_word(plain, last, speller):
            if last > first and not gap.fullmatch(text, words[last - 1].end(), words[last].start()):
                break
            last += 1
        if last == first:
            if DOZEN.fullmatch(plain[first]):
                yield Run(*words[first].span(), None)
            first += 1
            continue
        yield from _pieces(text, words, plain, first, last, speller)
        first = last


def _pieces(
    text: str, words: list[re.Match[str]], plain: list[str], first: int, last: int, speller: _Speller
) -> Iterator[Run]:
    """The run of the words [first, last), divided by its commas where they are not a number's: "one thousand, two"."""
    if speller.value(plain[first:last]) is None:
        for comma in range(first + 1, last):
            if "," not in text[words[comma - 1].end() : words[comma].start()]:
                continue
            ahead = next(
                (n for n in range(comma + 1, last) if "," in text[words[n - 1].end() : words[n].start()]), last
            )
            if speller.value(plain[first:ahead]) is None:
                yield from _one_run(text, words, plain, first, comma, speller)
                first = comma
    yield from _one_run(text, words, plain, first, last, speller)


def _one_run(
    text: str, words: list[re.Match[str]], plain: list[str], first: int, last: int, speller: _Speller
) -> Iterator[Run]:
    while first < last and plain[first] in speller.joining:
        first += 1
    while first < last and plain[last - 1] in speller.joining:
        last -= 1
    if first == last:
        return
    value = speller.value(plain[first:last])
    start, end = words[first].start(), words[last - 1].end()
    before, after = plain[first - 1] if first else "", plain[last] if last < len(words) else ""
    near = last < len(words) and bool(_GAP.fullmatch(text, end, words[last].start()))
    glued = _GLUED_AFTER.match(text, end) or _GLUED_BEFORE.search(text, max(start - 2, 0), start)
    changed = (near and speller.changes(after, value)) or PARTS.fullmatch(before) or speller.is_point(before)
    misread = _is_beside_an_unknown_number(text, words, plain, first, last, speller)
    if glued or changed or misread or _is_half(plain, last, speller):
        value = None
    sign = minus_before(text, start, speller.language)
    negative, start = sign != start, sign
    if negative and _subtracts(text, words, plain, sign, first, speller):
        value = None
    if value == 1:
        if last - first == 1 and plain[first] in _ONES_THAT_ARE_NUMBERS:
            yield Run(start, end, 1 if _SENTENCE_ENDS.match(text, end) else None, negative, certain=False)
        return
    alone = last - first == 1 and plain[first] in speller.also_other_words
    yield Run(start, end, value, negative, certain=not alone)


def _subtracts(
    text: str, words: list[re.Match[str]], plain: list[str], sign: int, first: int, speller: _Speller
) -> bool:
    """Whether the minus at `sign` takes the number at `first` from another one in words: "twenty minus twelve"."""
    for place in range(first - 1, max(first - 6, -1), -1):
        if words[place].end() <= sign and _is_number_word(plain, place, speller):
            return subtracts(text[words[place].end() : sign])
    return False


def _is_beside_an_unknown_number(
    text: str, words: list[re.Match[str]], plain: list[str], first: int, last: int, speller: _Speller
) -> bool:
    """Whether a word beside the words [first, last) looks like a number word: then they are only a part of a number."""
    for place, step in ((first - 1, -1), (last, 1)):
        if 0 <= place < len(words) and plain[place] in speller.joining:
            place += step
        if not 0 <= place < len(words):
            continue
        between = (
            text[words[place].end() : words[first].start()]
            if step < 0
            else text[words[last - 1].end() : words[place].start()]
        )
        if len(between) < 12 and not re.search(r"[^\w\s‐‑-]|\n", between) and speller.resembles(plain[place]):
            return True
    return False


_AND = {"and", "und", "et", "y", "e", "с", "na", "en", "i", "och", "og", "a", "și", "és", "ve"}


def _is_number_word(plain: list[str], place: int, speller: _Speller) -> bool:
    word = plain[place]
    if word == "a" and speller.scale_after_a:
        return place + 1 < len(plain) and plain[place + 1] in speller.scale_after_a
    return word in speller.words or speller.is_one_word(word)


def _is_half(plain: list[str], last: int, speller: _Speller) -> bool:
    """Whether "and a half" or its like follows."""
    following = plain[last : last + 3]
    return bool(following) and following[0] in _AND and any(PARTS.fullmatch(word) for word in following[1:])


def _beginnings(compact: str, table: Mapping[str, set[int]]) -> Iterator[tuple[int, int]]:
    """The numbers of a table with which these words begin, and their lengths."""
    for length in range(1, len(compact) + 1):
        for number in table.get(compact[:length], ()):
            yield number, length


def _plain(word: str) -> str:
    word = unicodedata.normalize("NFC", word.casefold().replace("i\u0307", "i"))
    return re.sub("[’ʼ]", "'", word)


def _without_accents(word: str) -> str:
    return re.sub("[\u0300-\u036f]", "", unicodedata.normalize("NFD", word))


def _shortened(word: str) -> set[str]:
    return {word[:place] + word[place + 1 :] for place in range(len(word))}


def _split(written: str) -> list[str]:
    return [_plain(word) for word in _WORD.findall(written)]


class _Speller:
    """A language's number words, and how they are read.

    Args:
        language: its tag.
        writers: each writes a number in one way, or several.
        points: the words for a decimal mark.
        ordinal: writes an ordinal.
        irregular: whether hundreds change the words behind them (centotto), so that 0 to 999 are written one by one.
    """

    def __init__(
        self,
        language: str,
        writers: list[Callable[[int], Iterable[str]]],
        *,
        points: Iterable[str] = (),
        ordinal: Callable[[int], str] | None = None,
        irregular: bool = False,
    ) -> None:
        self.language = language
        self._irregular = irregular
        self._writers, self._points, self._ordinal = writers, {_plain(point) for point in points}, ordinal
        self._scale_words = {
            **scale_words(f"{language}-Latn")[0],
            **scale_words(language)[0],
        }  # Serbian has two scripts
        self._classifier = next((CLASSIFIERS[name] for name in spellings(language) if name in CLASSIFIERS), None)
        name = next((name for name in spellings(language) if name in ALSO_OTHER_WORDS), "")
        self.also_other_words = ALSO_OTHER_WORDS.get(name, frozenset())
        self.has_commas = any("," in form for number in (2345, 2_534_163_000) for form in self._forms(number))
        self.scale_after_a = self._big_words & {"hundred", "thousand", "million", "billion", "trillion"}

    def write(self, number: int) -> set[str]:
        """The ways in which a number is written, in lower case and without blanks and hyphens."""
        return {"".join(_split(form)) for form in self._forms(number)}

    def _forms(self, number: int) -> Iterator[str]:
        for write in self._writers:
            try:
                yield from write(number)
            except Exception:  # num2words has many ways to say that it cannot
                continue

    @cached_property
    def _small(self) -> dict[str, set[int]]:
        """The numbers below 1000 by their words, composed: a reading is checked by writing it."""
        table: dict[str, set[int]] = {}
        if self._irregular:
            for number in range(1000):
                for form in self.write(number):
                    table.setdefault(form, set()).add(number)
            return table
        tens = [self.write(number) for number in range(100)]
        for number, forms in enumerate(tens):
            for form in forms:
                table.setdefault(form, set()).add(number)
        for hundred in range(100, 1000, 100):
            for form in self.write(hundred):
                table.setdefault(form, set()).add(hundred)
            fronts = {
                whole[: -len(rest)]
                for small in (1, 2, 5, 12, 20, 21, 75)
                for whole in self.write(hundred + small)
                for rest in tens[small]
                if whole.endswith(rest)
            }
            for front in fronts:
                for small, forms in enumerate(tens[1:], 1):
                    for form in forms:
                        table.setdefault(front + form, set()).add(hundred + small)
        return table

    @cached_property
    def _tokens(self) -> tuple[set[str], set[str], set[str]]:
        """The words of numbers, those that begin or end one, and those of large numbers."""
        samples = (
            range(1000)
            if self._irregular
            else [*range(100), *(h * 100 + rest for h in range(1, 10) for rest in (0, 1, 5, 12, 21))]
        )
        factors = (1, 2, 3, 5, 10, 11, 21, 22, 100)
        large = [k * scale + rest for scale in _SCALES[1:] for k in factors for rest in (0, 1)]
        everything, edges, big = set[str](), set[str](), set[str]()
        for number in [*samples, *large]:
            for form in self._forms(number):
                tokens = _split(form)
                everything.update(tokens)
                edges.update(tokens[:1], tokens[-1:])
                big.update(tokens if number >= 100 else ())
        return everything, edges, big

    @cached_property
    def words(self) -> set[str]:
        """Every word of a number."""
        return self._tokens[0]

    @cached_property
    def joining(self) -> set[str]:
        """Words within numbers that neither begin nor end one: "and". Longer ones are "and" with a number glued on."""
        return {word for word in self._tokens[0] - self._tokens[1] if len(word) <= 3}

    @property
    def _big_words(self) -> set[str]:
        return self._tokens[2]

    @cached_property
    def _stems(self) -> dict[int, set[str]]:
        """What the words for a scale have in common: without it, a number has not that scale."""
        return {scale: set(filter(None, self._stems_of(scale))) for scale in _SCALES}

    def _stems_of(self, scale: int) -> Iterator[str]:
        for one, other in ((1, 2), (2, 5), (2, 3), (3, 5)):
            for form, further in zip(sorted(self.write(one * scale)), sorted(self.write(other * scale)), strict=False):
                match = SequenceMatcher(None, form, further, autojunk=False).find_longest_match()
                yield form[match.a : match.a + match.size] if match.size > 1 else ""

    def may_join(self, word: str) -> bool:
        """Whether a word beside digits may be a number or join one to them."""
        word = self.without_classifier(_plain(word))
        return word in self.words or word in self.joining or (word == "a" and bool(self.scale_after_a))

    def without_classifier(self, word: str) -> str:
        """A number word without the word for what is counted that is glued to it, as in Bengali; others as they are."""
        bare = self._classifier.sub("", word) if self._classifier else word
        return bare if bare in self.words else word

    @lru_cache(maxsize=4096)  # noqa: B019
    def resembles(self, word: str) -> bool:
        """Whether a word is nearly a number word, such as "fourty", or is one with other accents."""
        if len(word) < 4 or word in self.words:
            return False
        return _without_accents(word) in self._near or (
            len(word) > 4 and not self._near.isdisjoint(_shortened(_without_accents(word)))
        )

    @cached_property
    def _near(self) -> set[str]:
        """The number words without their accents, and those of five letters or more with one letter less."""
        plain = {_without_accents(word) for word in self.words if len(word) > 3}
        return plain | {shorter for word in plain if len(word) > 4 for shorter in _shortened(word)}

    def is_one_word(self, word: str) -> bool:
        """Whether a word is a number, "zweitausenddreihundert", or begins like one, so that no part of one is read."""
        if word in self._small or (word[0] in "\u05d5\u0648" and word[1:] in self.words):  # "and" in Hebrew and Arabic
            return True
        stems = [stem for stems in self._stems.values() for stem in stems if stem in word] if len(word) < 120 else []
        begins = any(
            (len(stem) > 2 and word[: word.find(stem)] in self._small) or (len(stem) > 5 and word.startswith(stem))
            for stem in stems
        )
        return bool(stems) and (begins or self._value_of(word) is not None)

    @lru_cache(maxsize=4096)  # noqa: B019  the spellers themselves are kept
    def _value_of(self, compact: str) -> int | None:
        found = {number for number in self._candidates(compact) if compact in self.write(number)}
        return found.pop() if len(found) == 1 else None

    def value(self, words: list[str]) -> int | None:
        """The one number that these words spell; None if there is none, or more than one."""
        if len(words) > _LONGEST:
            return None
        if words[0] == "a" and self.scale_after_a:
            words = ["one", *words[1:]]
        return self._value_of("".join(words))

    @lru_cache(maxsize=4096)  # noqa: B019
    def _candidates(self, compact: str) -> set[int]:
        """The numbers that these words may spell: their parts are those of words, and writing them decides."""
        found = set(self._small.get(compact, ()))
        for scale in _SCALES[:0:-1]:
            if any(stem in compact for stem in self._stems[scale]):
                for head, length in self._heads(compact, scale):
                    found |= {head + rest for rest in self._rests(compact[length:], scale)}
        return found

    def _heads(self, compact: str, scale: int) -> Iterator[tuple[int, int]]:
        """The multiples of a scale with which these words may begin, and their lengths."""
        table = self._multiples(scale)
        yield from _beginnings(compact, table)
        for stem in self._stems[scale]:
            place = compact.find(stem)
            ends = range(place, max(place - 4, 0), -1)  # "o sută de mii": a word may stand between factor and scale
            hundreds = {factor * scale for end in ends for factor in self._small.get(compact[:end], ()) if factor > 99}
            for hundred, length in _beginnings(compact, self._hundreds):  # "cent quatre-vingt mille": without its "s"
                behind = (_beginnings(compact[length + skipped :], table) for skipped in range(4))
                hundreds.update(hundred * scale + number for numbers in behind for number, _ in numbers)
            for number in hundreds:
                yield from ((number, len(form)) for form in self.write(number) if compact.startswith(form))

    @cached_property
    def _hundreds(self) -> dict[str, set[int]]:
        return {
            form: numbers
            for form, numbers in self._small.items()
            if all(number in range(100, 1000, 100) for number in numbers)
        }

    def _rests(self, rest: str, scale: int) -> set[int]:
        """The smaller numbers that the words behind a multiple of a scale may add, past a word such as "and"."""
        if not rest:
            return {0}
        found = (self._candidates(rest[skipped:]) for skipped in range(min(4, len(rest))))
        return {number for numbers in found for number in numbers if number < scale}

    @cache  # noqa: B019
    def _multiples(self, scale: int) -> dict[str, set[int]]:
        table: dict[str, set[int]] = {}
        for factor in range(1, 100):
            for form in self._forms(factor * scale):
                tokens = _split(form)
                if self._scale_words.get(tokens[-1], 0) > scale:  # num2words writes the Serbian 10⁹ as "bilion", 10¹²
                    continue
                table.setdefault("".join(tokens), set()).add(factor * scale)
        return table

    @cached_property
    def _ordinals(self) -> tuple[str, ...]:
        """How the ordinals from the third on begin."""
        found: list[str] = []
        for number in (*range(3, 21), *range(30, 101, 10)) if self._ordinal else ():
            try:
                word = _split(self._ordinal(number))[-1] if self._ordinal else ""
            except Exception:  # not every language has ordinals
                return ()
            found.append(word[:-2] if len(word) > 5 else word)
        return tuple(word for word in found if len(word) > 2)

    def is_point(self, word: str) -> bool:
        """Whether this is the word for a decimal mark."""
        return word in self._points

    def changes(self, word: str, value: int | None) -> bool:
        """Whether this word behind a number makes another number of it: a fraction, ordinal, decimal or scale."""
        if PARTS.fullmatch(word) or DOZEN.fullmatch(word) or word in self._points or word in self._scale_words:
            return True
        if value and value % 10 == 0 and word in ("first", "second"):  # "seconds" are a unit
            return True
        return any(word.startswith(stem) and len(word) <= len(stem) + 4 for stem in self._ordinals)


@lru_cache(maxsize=64)
def _speller(language: str) -> _Speller | None:
    """What reads a language's number words; None for a language without any here."""
    names = list(spellings(language))
    if "sw" in names:
        return _Speller(language, [swahili], points=["nukta"])
    from num2words import CONVERTER_CLASSES  # here, not above: only grading needs it

    known = [OTHER_NAMES.get(name, name) for name in names]
    known = list(dict.fromkeys(name for name in known if name in CONVERTER_CLASSES and name not in NOT_READ))
    if not known:
        return None
    main = CONVERTER_CLASSES[known[0]]
    known += [name for name in OTHER_REGIONS.get(known[0][:2], ()) if name not in known]
    points = getattr(main, "pointword", None) or ()
    return _Speller(
        language,
        [writer(name, CONVERTER_CLASSES[name].to_cardinal) for name in known],
        points=[points.strip()] if isinstance(points, str) else points,
        ordinal=main.to_ordinal,
        irregular=bool(IRREGULAR.intersection(known)),
    )
