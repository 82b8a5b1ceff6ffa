r"""The number that a model's answer to a school problem comes to.

The first of these rules that finds a number decides; where a rule applies in several places, the last one counts.

    1. #### 18        the number that follows directly
    2. \boxed{18}     the number in the box; behind its last "=" if there is one
    3. "The answer is 18", "Antwort: 18", "答えは18です", "উত্তর হল ১৮" and the like: the number that follows
       directly, or the result of an expression there ("5 + 6 = 11"); else the last number of the sentence, or, behind
       a colon, of the paragraph
    4. the last number of the text

Three kinds of text are ignored unless nothing else holds a number: everything from where the model goes on with a
question of its own, remarks ("Note: …"), and brackets that explain a number ("18 dollars (2 for each egg)").

Signs beside a number are not part of it: 50 % is 50, $18 is 18. Dates, times of day, ordinals ("2nd"), the
numbers of lists and steps, and digits in names ("cm2") are no quantities. Numbers in words count by the same rules, but
only where digits give no answer: see `_in_words`.
Of a range ("18–20") the last number counts. `numerals` reads the numbers themselves.

No text raises an error, and the time is proportional to the length of the text.
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from itertools import islice

from ..errors import CorpusError
from .east_asian import KANJI, numeral_at, runs_of_characters
from .numerals import NO_LETTER, VULGAR, FoundNumber, numbers_in
from .spelt import Run, runs_in

_BOX, _UNBOX = "\ue000", "\ue001"
r"""Stand for `\boxed{` and its brace, so that a box can still be seen when the LaTeX is gone."""

_MOST_QUESTIONS = 20
"""Questions of the model's own that are looked at: each costs one reading of the text before it."""
_MAY_BE_A_NUMBER = re.compile(rf"[\d{VULGAR}{KANJI}]")


def final_number(text: str, language: str) -> Fraction | None:
    r"""The number that an answer comes to, exactly; None where it holds none.

    >>> final_number("She sells 9 eggs at $2 each. The answer is 18 dollars a day (2 for each egg).", "en")
    Fraction(18, 1)
    >>> print(final_number(r"So 3 + 2/4 = \boxed{3\frac{1}{2}} cups", "en"), final_number("Antwort: 1.234,50 €", "de"))
    7/2 2469/2
    >>> final_number("I do not know.", "en") is None
    True
    """
    first = _MAY_BE_A_NUMBER.search(text)
    if not first:
        return _in_words(text, language)
    questions = (found for found in _QUESTION.finditer(text) if found.start() > first.start())
    for question in islice(questions, _MOST_QUESTIONS):
        part, numbers = _read(text[: question.start()], language)
        announced = _announced(part, numbers, language)
        if announced:
            return announced[0]
        if numbers and not question["numbered"]:  # a numbered question may be a step of the same problem
            return numbers[-1].value
    part, numbers = _read(text, language)
    announced = _announced(part, numbers, language)
    if announced:
        return announced[0]
    return numbers[-1].value if numbers else _in_words(text, language)


def known_number(target: str) -> Fraction | None:
    """The number of a corpus's known answer, which is given in digits; None where it holds none."""
    return final_number(target, "en") if _MAY_BE_A_NUMBER.search(target) else None


def same_number(text: str, target: str, language: str) -> bool:
    """Whether an answer comes to the known number.

    >>> same_number("Она зарабатывает 1 234,5 рубля.", "1,234.5", "ru")
    True
    """
    wanted = known_number(target)
    if wanted is None:
        raise CorpusError(f"the target {target!r} holds no number: give the known answer in digits, for example '18'")
    return final_number(text, language) == wanted


def _read(text: str, language: str) -> tuple[str, list[FoundNumber]]:
    """The plain text with its numbers: without remarks and explaining brackets, unless all its numbers are in them."""
    whole = plain(text)
    text = _without_asides(whole)
    numbers = numbers_in(text, language)
    return (text, numbers) if numbers else (whole, numbers_in(whole, language))


# The three rules that look for a place where the answer is announced. Each gets the plain text and its numbers.

_HASHES = re.compile(r"#{4,}")
_BOXED = re.compile(f"{_BOX}([^{_UNBOX}]*)")


def _announced(text: str, numbers: list[FoundNumber], language: str) -> list[Fraction | None]:
    """The number that is announced; [None] where words are announced that spell none, [] where nothing is."""
    for rule in (_after_hashes, _in_a_box, _after_a_phrase):
        value = rule(text, numbers, language)
        if value is not None:
            return [value]
    run = _announced_run(text, _runs(text, language), numbers) if numbers and _ANNOUNCES.search(text) else None
    return [_value(run)] if run else []


def _after_hashes(text: str, numbers: list[FoundNumber], language: str) -> Fraction | None:
    for found in reversed(list(_HASHES.finditer(text))):
        number = _directly(text, numbers, found.end())
        if number:
            return _restated(text, numbers, number).value
    return None


def _in_a_box(text: str, numbers: list[FoundNumber], language: str) -> Fraction | None:
    for found in reversed(list(_BOXED.finditer(text))):
        inside = _between(numbers, *found.span(1))
        if inside:
            return (_after_equals(text, inside, found.start(1)) or _restated(text, inside, inside[0])).value
    return None


_NOUN = re.compile(
    rf"\b(?:answer|ans|antwort|lösung|ergebnis|respuesta|resultado|réponse|reponse|ответ|jibu|jawabu|resposta|risposta|"
    rf"antwoord|odpowiedź|cevap|jawaban){NO_LETTER}"
    r"|答案|答え|こたえ|解答|回答|答(?=\s*[:は是为為])|উত্তর|উঃ|คำตอบ|ตอบ(?=\s*[:\d])"
    r"|సమాధానం|उत्तर|जवाब|الجواب|الإجابة|đáp án|정답|답",
    re.IGNORECASE,
)
"""How an answer is announced. One list for all languages: a model that is asked in one may answer in another."""

_COPULA = (
    rf"\b(?:is|equals|ist|lautet|beträgt|wäre|es|sería|est|equivale|é|è|равен|равно|равна|это|составляет|ni|adalah|jest|là)"
    rf"{NO_LETTER}|是|为|為|は|হলো|হল|হচ্ছে|হবে|คือ|เท่ากับ|[—–-](?=\s)"
)
_LINK = re.compile(rf"[^\n.。।!?:=\d]{{0,40}}?(?:(?P<colon>[:=ঃ]|(?=\n))|{_COPULA})", re.IGNORECASE)
"""From the noun to what it announces, across a few words: "The answer to the question is"."""

_AROUND = (
    r"approximately|approx\.?|about|exactly|only|just|equal\s+to|etwa|ungefähr|genau|ca\.|insgesamt|environ|exactement|de|"
    r"aproximadamente|unos|unas|примерно|около|ровно|takriban|kama|jumla\s+ya|"
    r"usd|us|eur|ksh\.?|kes|tsh\.?|sh\.?|rs\.?|tk\.?|bdt|thb|rmb|cny|jpy|rub|dola|dolari|shilingi|elfu|laki|milioni|dollars?|x\s*="
)
_GLUED = r"প্রায়|ประมาณ|大约|一共|总共|[约約共为是]"
_PHRASE_SIGNS = r"""[\s*_`"'“”„«»‘’()\[\],、，~≈$€£¥₹₽\ue000:=—–−-]"""
_LEADING = re.compile(rf"(?:{_GLUED}|{_PHRASE_SIGNS}|(?:{_AROUND}){NO_LETTER})*", re.IGNORECASE)
"""What may stand between an announcement and its number."""

_SENTENCE_END = re.compile(r"[。।!?\n\ue001]|\.(?=\s|$|[^\W\d])")
_PARAGRAPH_END = re.compile(r"\n\s*\n")
_GOES_ON = re.compile(r"\s*(?:[^\W\d]+\s*)?(?:[=+*×·⋅÷/x−–-]|(?<=\s):(?=\s))\s*\(?[$€£¥]?\d")
"""An operator and a further number: the number in front of it is the first of an expression."""


def _after_a_phrase(text: str, numbers: list[FoundNumber], language: str) -> Fraction | None:
    nouns = list(_NOUN.finditer(text))
    if not nouns:
        return None
    sentence_ends = [found.start() for found in _SENTENCE_END.finditer(text)]
    paragraph_ends = [found.start() for found in _PARAGRAPH_END.finditer(text)]
    for noun in reversed(nouns):
        link = _LINK.match(text, noun.end())
        number = _directly(text, numbers, noun.end())
        if number is None and link:
            number = _directly(text, numbers, link.end())
        if number and not _GOES_ON.match(text, number.end):
            return _restated(text, numbers, number).value
        ends = paragraph_ends if link and link["colon"] else sentence_ends
        value = _result_behind(text, numbers, link, ends, language) if link else None
        if value is not None:
            return value
    return None


def _result_behind(
    text: str, numbers: list[FoundNumber], link: re.Match[str], ends: Sequence[int], language: str
) -> Fraction | None:
    """The result of the expression or sentence behind an answer phrase."""
    start = _past_signs(text, link.end())
    if "\n" in text[link.start() : start]:
        return None  # a heading over steps, not an answer
    after = bisect_left(ends, start)
    behind = _between(numbers, start, ends[after] if after < len(ends) else len(text))
    if behind:
        restated = _restated(text, behind, behind[0])
        if restated is not behind[0]:
            return restated.value
        is_expression = behind[0].start <= start and _GOES_ON.match(text, behind[0].end)
        result = _after_equals(text, behind, start) if is_expression else None
        return (result or behind[-1]).value
    numeral = numeral_at(text, start, language)
    if numeral and numeral.value is None:  # the first term of a sum
        end = ends[after] if after < len(ends) else len(text)
        results = list(_EQUALS.finditer(text, numeral.end, end))
        numeral = numeral_at(text, results[-1].end(), language) if results else None
    return _value(numeral) if numeral else None


_EQUALS = re.compile(r"(?:等于|等於|イコール|[=是为為得は])\s*")
"""Between a sum in characters and what it comes to."""


def _directly(text: str, numbers: list[FoundNumber], start: int) -> FoundNumber | None:
    """The number at this place, past blanks, signs and currencies."""
    place = _past_signs(text, start)
    index = bisect_left(numbers, place, key=lambda number: number.digits)
    found = numbers[index] if index < len(numbers) else None
    return found if found and start <= found.start <= place else None


# A part of something and what it comes to: "3/4 of 100, i.e. 75", "80的20%，即16", "20% of 80 (16)".

_PERCENT = (
    r"\s?(?:%|(?:percent|per\s?cent\w*|prozent|por\s?cien\w*|por\s?cento|pour\s?cent|procent\w*|процент\w*)\b"
    r"|শতাংশ|ভাগ|เปอร์เซ็นต์|パーセント|퍼센트|प्रतिशत|శాతం)"
)
_OF = rf"\s*(?:(?:of|von|vom|der|des|de|del|du|di|van|av|af|от|из|dari|của|ya|wa|za|la|cha){NO_LETTER}|d['’]|ของ|จาก)"
_OF_WHICH = r"\s*(?:'s\b|的|の|의|[-–]?\s?এর|র(?=\s)|का|के|की|లో)\s*"
"""Between the whole and its part, in languages that name the whole first."""
_PART_IN_WORDS = (
    rf"(?:(?:half|(?:one\s|a\s)?(?:third|quarter)|three\squarters|two\sthirds|hälfte|drittel|viertel|mitad|tercio|cuarto|moitié|tiers|quart|"
    rf"половин[аыу]|треть|четверть|nusu|theluthi|robo|metade|metà|połowa|yarısı){NO_LETTER}|半分|一半|অর্ধেক|ครึ่ง(?:หนึ่ง)?|आधा|절반)"
)
_COMES_TO = re.compile(
    rf"[^\d\n.!?。]{{0,60}}?(?:[=≈(]|(?<![^\W\d_])(?:i\.?\s?e\.?|that\s+is(?:\s+to\s+say)?|that['’]s|"
    r"which\s+(?:is|are|equals?|makes?|gives?|means?|(?:comes|amounts|works\s+out)\s+to)|namely|meaning|or|(?:so|thus|hence|therefore)(?:\s+[^\W\d_]+){0,3}|"
    r"equals?|makes?|gives?|are|d\.\s?h\.|das\s+hei(?:ß|ss)t|das\s+(?:sind|ist|macht)|also|was|sprich|nämlich|oder|sind|macht|ergibt|somit|"
    r"es\s+decir|o\s+sea|esto\s+es|(?:lo\s+)?que\s+(?:es|son|da|equivale\s+a)|son|o|da|igual\s+a|"
    r"c['’]est[-\s]à[-\s]dire|c\.[-\s]?à[-\s]?d\.|soit|(?:ce\s+)?qui\s+(?:fait|donne|est)|donc|ou|fait|font|"
    r"то\s+есть|т\.\s?е\.|что\s+(?:равно|составляет|есть)|или|значит|yaani|ambayo\s+ni|au|sawa\s+na|hivyo|"
    r"ou\s+seja|isto\s+é|que\s+é|cioè|ossia|ovvero|che\s+è|dat\s+is|oftewel|d\.w\.z\.|czyli|to\s+jest|yani|yaitu|tức\s+là)(?![^\W\d_])"
    r"|即|也就是(?:说)?|等于|就是|つまり|すなわち|即ち|অর্থাৎ|মানে|বা(?=\s)|นั่นคือ|นั่นคือ|ก็คือ|หรือ(?:เท่ากับ)?|ได้|यानी|अर्थात्?|అంటే|أي|يعني|즉"
    rf"|{_COPULA})(?:{_LEADING.pattern})",
    re.IGNORECASE,
)
"""From a number to what it comes to, without another number or the end of the sentence between them."""
_IS_A_SHARE = re.compile(_PERCENT, re.IGNORECASE)
_OF_SOMETHING = re.compile(rf"(?:{_PERCENT})?{_OF}", re.IGNORECASE)
_OF_THAT = re.compile(_OF_WHICH, re.IGNORECASE)
_OF_THAT_IN_WORDS = re.compile(rf"{_OF_WHICH}{_PART_IN_WORDS}", re.IGNORECASE)
_WORDED_PART = re.compile(rf"(?<![^\W\d_]){_PART_IN_WORDS}{_OF}(?:{_LEADING.pattern})$", re.IGNORECASE)
_PART_BEFORE = re.compile(
    rf"(?:/\d+|[{VULGAR}]|\d{_PERCENT}|(?<![^\W\d_]){_PART_IN_WORDS}){_OF}[^\n.!?。=()]*$", re.IGNORECASE
)
_ONE_NUMBER = re.compile(r"\([^\d)]*\d+(?:[.,/]\d+)*[^\d)]*\)")


def _restated(text: str, numbers: list[FoundNumber], found: FoundNumber) -> FoundNumber:
    """What a part of something comes to, where the text goes on to say it; else the number itself."""
    index = bisect_left(numbers, found.digits, key=lambda number: number.digits)
    last = _end_of_part(text, numbers, index)
    if last is None:
        return found
    result = _chain(text, numbers, last)
    said_twice = result.value == found.value * 100 and _IS_A_SHARE.match(text, result.end)  # 3/4 of them, i.e. 75 %
    return found if result is numbers[last] or said_twice else result


def _end_of_part(text: str, numbers: list[FoundNumber], index: int) -> int | None:
    """The last number of a phrase such as "3/4 of 100", "3/4 of them", "100的3/4"; None if there is no such phrase."""
    found, following = numbers[index], numbers[index + 1] if index + 1 < len(numbers) else None
    if _WORDED_PART.search(text[max(found.start - 40, 0) : found.start]):
        return index
    of = _OF_SOMETHING.match(text, found.end) if _is_part(text, found) else None
    if of:
        return index + 1 if following and _directly(text, numbers, of.end()) is following else index
    of = _OF_THAT.match(text, found.end)
    if of and following and _is_part(text, following) and _directly(text, numbers, of.end()) is following:
        return index + 1
    return index if _OF_THAT_IN_WORDS.match(text, found.end) else None


def _is_part(text: str, number: FoundNumber) -> bool:
    return bool(
        re.search(rf"[/分割成할{VULGAR}]", text[number.digits : number.end]) or _IS_A_SHARE.match(text, number.end)
    )


def _chain(text: str, numbers: list[FoundNumber], index: int) -> FoundNumber:
    """The last of the numbers from here on of which each is said to be what the one before it comes to."""
    while index + 1 < len(numbers) and _end_of_part(text, numbers, index + 1) is None:
        gap = text[numbers[index].end : numbers[index + 1].start]
        if len(gap) > _LONGEST_GAP or not _COMES_TO.fullmatch(gap):
            break
        index += 1
    return numbers[index]


_LONGEST_GAP = 120


def _past_signs(text: str, start: int) -> int:
    found = _LEADING.match(text, start)
    return found.end() if found else start


def _after_equals(text: str, numbers: list[FoundNumber], start: int) -> FoundNumber | None:
    """The first number behind the last "=" that has a number behind it."""
    for number, before in zip(reversed(numbers), [*reversed(numbers[:-1]), None], strict=True):
        if "=" in text[before.end if before else start : number.start]:
            return number
    return None


def _between(numbers: list[FoundNumber], start: int, end: int) -> list[FoundNumber]:
    """The numbers whose digits begin in [start, end)."""
    first, last = (bisect_left(numbers, place, key=lambda number: number.digits) for place in (start, end))
    return numbers[first:last]


# Numbers in words, by the same rules where no digits give the answer.

_ANNOUNCES = re.compile(rf"(?P<sign>{_HASHES.pattern}|{_BOX})|{_NOUN.pattern}", re.IGNORECASE)


def _in_words(text: str, language: str) -> Fraction | None:
    """The number in words that an answer without digits comes to: the announced one, else the last one of the text.

    Where the words that decide spell no number exactly, there is none.
    """
    whole = _without_asides(plain(text))
    runs = _runs(whole, language)
    if not runs:
        return None
    for question in islice(_QUESTION.finditer(whole), _MOST_QUESTIONS):
        before = [run for run in runs if run.end <= question.start()]
        announced = _announced_run(whole[: question.start()], before, [])
        if announced or (any(run.certain for run in before) and not question["numbered"]):
            runs, whole = before, whole[: question.start()]
            break
    announced = _announced_run(whole, runs, [])
    if announced:
        return _value(announced)
    last = next((run for run in reversed(runs) if run.certain), None)
    return _value(last) if last else None


def _runs(text: str, language: str) -> list[Run]:
    """The numbers of a text in words, or in Chinese and Japanese characters."""
    return runs_in(text, language) or runs_of_characters(text, language)


def _announced_run(text: str, runs: list[Run], numbers: list[FoundNumber]) -> Run | None:
    """The number words of the last place that announces an answer and has some; beside digits, only right behind it.

    Several numbers there have no value together, unless they are the same.
    """
    sentence_ends = [found.start() for found in _SENTENCE_END.finditer(text)]
    starts, digits = [run.start for run in runs], [number.digits for number in numbers]
    for found in reversed(list(_ANNOUNCES.finditer(text))):
        link = None if found["sign"] else _LINK.match(text, found.end())
        start = _past_signs(text, link.end() if link else found.end())
        after = bisect_left(sentence_ends, start)
        end = sentence_ends[after] if after < len(sentence_ends) else len(text)
        there = runs[bisect_left(starts, found.end()) : bisect_left(starts, end)]
        has_digits = bisect_left(digits, found.end()) < bisect_left(digits, end)
        if not there or has_digits or (numbers and there[0].start > start):
            continue
        return there[0] if len({run.value for run in there}) == 1 else replace(there[0], value=None)
    return None


def _value(run: Run) -> Fraction | None:
    return None if run.value is None else Fraction(-run.value if run.negative else run.value)


# Text that is not the answer: the next question that the model asks itself, remarks, explaining brackets.

_QUESTION = re.compile(
    r"(?im)^[ \t>*#_-]*(?:(?:question|problem|q|exercise|instruction|human|user|frage|aufgabe|pregunta|problema|"
    r"ejercicio|problème|exercice|вопрос|задача|swali|pergunta|domanda|问题|問題|题目|প্রশ্ন|โจทย์|คำถาม|ప్రశ్న|प्रश्न|سؤال)"
    r"(?P<numbered>\s*#?\d+)?[\s*_]*(?:[:：]|$)|\[INST\])"
)
r"""A heading of the model's own next question, as few-shot prompts teach it: "It is 18.\n\nQuestion: Leah …"."""

_REMARK = re.compile(
    r"(?:(?m:^)|(?<=[.。।!?(\n]))[ \t>*#_-]*(?:note|nb|n\.b\.|p\.s\.|hint|check|verification|remark|hinweis|anmerkung|"
    r"probe|überprüfung|nota|observación|comprobación|verificación|remarque|vérification|примечание|замечание|проверка|"
    r"kumbuka|注意?|备注|提示|验算|检验|補足|備考|検算|দ্রষ্টব্য|বি\.?\s?দ্র\.?|নোট|হিসাব যাচাই|หมายเหตุ)"
    r"[\s*_]*:\s*[^\n)]*",
    re.IGNORECASE,
)
_BRACKET = re.compile(rf"(\d[^\n()\[\].。।=:;+×÷/−–-]{{0,30}})\([^()=#{_BOX}]*\)")


def _without_asides(text: str) -> str:
    """The text without remarks ("Note: …") and without brackets that explain a number: "18 dollars (2 for each egg)".

    Remarks that announce an answer stay, and so do brackets with a number alone, "(24)", or an equation.
    """
    text = _REMARK.sub(lambda found: found[0] if _NOUN.search(found[0]) or _BOX in found[0] else "", text)
    text = _BRACKET.sub(lambda found: found[1] if _explains(found) else found[0], text)
    text = _INCLUDED.sub(lambda found: found[1] if _ONLY_LISTS.fullmatch(found[2]) else found[0], text)
    return _without_the_hour(text)


def _explains(found: re.Match[str]) -> bool:
    """Whether a bracket has words, and does not say what a part comes to: "20% of 80 (16 dollars)"."""
    bracket = found[0][len(found[1]) :]
    if not re.search(r"[^\W\d_]", bracket):
        return False
    before = found.string[max(found.end(1) - 60, 0) : found.end(1)]
    return not (_ONE_NUMBER.fullmatch(bracket) and _PART_BEFORE.search(before))


_INCLUDED = re.compile(
    r"(\d[^\n.。।!?=:;,，()]{0,30}[,，]?\s*)(?:(?:(?:which|that)\s+(?:already\s+|also\s+)?(?:includes?|contains?|excludes?)|(?:not\s+)?including|excluding|inclusive\s+of|"
    r"of\s+(?:which|whom)|einschließlich|inklusive|inkl\.|darunter|davon|worin|(?:lo\s+)?(?:que|cual)\s+(?:ya\s+)?incluyen?|incluyendo|incluid[oa]s?|"
    r"de\s+l[oa]s\s+cuales|(?:ce\s+)?qui\s+(?:comprend|inclut)|y\s+compris|incluant|dont|котор\w+\s+включа\w+|что\s+включает|включая|в\s+том\s+числе|"
    r"из\s+(?:них|которых)|ikiwemo|zikiwemo|wakiwemo|ikijumuisha|ambayo\s+inajumuisha|incluindo|compres[oaie]|inclusief)(?![^\W\d_])"
    r"|其中|包括|包含|そのうち|うち|যার\s+মধ্যে|ซึ่งรวม(?:ถึง)?)"
    r"((?:[^\n.。।!?=:;,，()]|[.,](?=\d))*)",
    re.IGNORECASE,
)
"""A number, and behind it a clause that says what is in it: "$54, which includes the 8% tax"."""
_AND = r"(?:\b(?:and|und|y|e|et|и|na|plus|en)\b|[+和与と、]|ও|এবং|และ)"
_ONLY_LISTS = re.compile(rf"[^\d]*(?:\d+(?:[.,]\d+)*[^\d]*?{_AND}[^\d]*)*\d+(?:[.,]\d+)*[^\d]*", re.IGNORECASE)
"""Numbers that are all joined by "and"; in "including 8% tax they cost $54" the second one is the result."""

_LAST_DIGIT = re.compile(r"\d\D*$")
_ENDS_IN_COPULA = re.compile(rf"(?:{_COPULA})\s*$", re.IGNORECASE)
_HOUR = re.compile(
    r"\b(?:by|at|until|till|before|after|around|from|since|bis|um|vor|nach|ab|gegen|a|antes\s+de|hasta|à|avant|jusqu['’]à|après|до|к|в|после|kabla\s+ya|hadi)"
    r"\s+(?:las?\s+|saa\s+)?(\d{1,2})(?!\d)(?:\s?[ap]\.?\s?m\b\.?|\s?o['’]clock\b|\s?uhr\b|\s+de\s+la\s+(?:mañana|tarde|noche)\b"
    r"|\s?h(?:eures)?\s+du\s+(?:matin|soir)\b|\s+(?:час\w*\s+)?(?:утра|вечера)\b|\s+(?:asubuhi|mchana|jioni|usiku)\b)",
    re.IGNORECASE,
)
"""A time of day with its preposition: "by 7 pm"."""
_COUNTED = re.compile(
    rf"\d(?!\s*[-–]?\s*(?:hours?|hrs?|h|min\w*|stunden?|horas?|heures?|час\w*|saa|masaa|dakika|uhr|[ap]\.?m){NO_LETTER})"
    r"(?:(?!\bso\b|\bthus\b|\bthen\b|\balso\b|\bdonc\b|\bentonces\b|\bпоэтому\b)[^\d=:→])*",
    re.IGNORECASE,
)
"""The last number of a sentence, if it counts no hours and nothing is concluded from it."""


def _without_the_hour(text: str) -> str:
    """The text without its one time of day, where that says when and another number how many: "18 eggs by 7 pm".

    Which of two times counts, or of a time behind a duration ("8 hours, so until 5 pm"), only the question could tell.
    """
    hours = list(islice(_HOUR.finditer(text), 2))
    if len(hours) != 1:
        return text
    start, end = hours[0].span()
    sentence = _SENTENCE_END.split(text[:start])[-1]
    counted = _LAST_DIGIT.search(sentence)
    behind = counted[0] if counted else ""
    says_when = _COUNTED.fullmatch(behind) and not _NOUN.search(behind) and not _ENDS_IN_COPULA.search(behind)
    return text[:start] + text[end:] if says_when else text


# Preparing a text: one kind of digit, no LaTeX, and no numbers that are not quantities.

_MARKS_OF_DIRECTION = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
_INVISIBLE = dict.fromkeys(map(ord, f"{_MARKS_OF_DIRECTION}\u200b\u200c\u200d\u2060\ufeff\u00ad{_BOX}{_UNBOX}"))
_FULL_WIDTH = {0xFF01 + n: chr(0x21 + n) for n in range(94) if chr(0x21 + n) != ","}  # "，" is never a decimal mark
_SIGNS = {ord("﹣"): "−", ord("－"): "-", ord("⁄"): "/", ord("∕"): "/", ord("฿"): "$", ord("৳"): "$", ord("￥"): "¥"}

_ARROW = re.compile(
    r"[→⇒⟹⟶⇨➔➜➙➡⮕↦∴]\ufe0f?|(?<![-=<])[-=]{1,3}>|\\(?:long)?(?:rightarrow|Rightarrow|mapsto)\b|\\(?:to|implies|therefore|Longrightarrow)\b"
)
"""An arrow leads to a result, as "=" does."""
_LATEX = [
    (_ARROW, "="),
    (re.compile(r"\{,\}"), ","),
    (re.compile(r"\\([%$&#_])"), r"\1"),
    (re.compile(r"\\!|\\left|\\right|\\displaystyle"), ""),
    (re.compile(r"\\[,;: ]|(?<=\d)~(?=\d)"), "\u2009"),
    (re.compile(r"\\(?:times|cdot|ast)\b"), "×"),
    (re.compile(r"\\div\b"), "÷"),
    (re.compile(r"\\(?:approx|sim)\b"), "≈"),
    (re.compile(r"\\[()\[\]]|\\q?quad"), " "),
    (re.compile(r"(\d)\s*\\[dtc]?frac"), r"\1 \\frac"),
    (re.compile(r"\\[dtc]?frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}"), r"\1/\2"),
    (re.compile(r"\\[dtc]?frac\s*(\d)\s*(\d)"), r"\1/\2"),
    (re.compile(r"(?<=[^\W\d])\s?\^\s*\{?[-−]?\d+\}?"), ""),  # cm^2
    (re.compile(r"_\{?\d+\}?(?!\w)"), ""),  # x_1
    (re.compile(r"\\(?:text|math|operator)[a-z]*\s*|\\(?:rm|bf|it)\b"), ""),
    (re.compile(r"(?<!\^)\{([^{}]*)\}"), r"\1"),
]

_LIST_NUMBERS = [
    re.compile(r"(?m)^[\s>*#•-]*(\(?\d{1,2}(?:[.)]\**|\*\*[.)])[ \t]+(?=\S))?"),  # "1. First", "**2.** Then"
    re.compile(r"(?m)^[\s>*-]*(\(?\d{1,2}[)、]\s?(?=\S))?"),
]
"""The number is optional, so that each run of blanks is passed over once and not once for every line in it."""

_STEP = (
    r"(?:step|schritt|paso|étape|шаг|hatua(?:\s+ya)?|ধাপ|ขั้นตอนที่|ขั้นที่|步骤|ステップ|手順|第|"
    r"question|frage|pregunta|вопрос|swali|问题|問題|প্রশ্ন|คำถามที่|ข้อที่)"
)
_NO_QUANTITIES = [
    re.compile(rf"(?i){_STEP}\s*#?\d+(?!\d)(?![\d.,]*\d)"),
    re.compile(r"(?<![\d.,/])\d{1,2}([./])\d{1,2}\1(?:\d{4}|\d\d)(?![\d/])(?!\.\d)"),  # 12/05/2023, 12.05.23
    re.compile(r"(?<!\d)\d{4}-\d\d?-\d\d?(?!\d)"),  # 2023-05-12
    re.compile(r"(?<!\d)\d{4}\s?年(?:\s?\d\d?\s?月)?(?:\s?\d\d?\s?日)?|\d\d?\s?月\s?\d\d?\s?日"),
    re.compile(r"(?i)(?<![\d.,])\d{1,2}:\d\d(?::\d\d)?(?!\d)|(?<![\d.,])\d\d?\.\d\d(?=\s?uhr\b)"),  # 3:30, 15.30 Uhr
    re.compile(r"(?<![\d.,])\d\d?\s?h\s?\d\d(?!\d)|\d\d?\s?[时時点點]\s?\d\d?\s?分"),  # 15h30, 3时30分
    re.compile(r"(?<![\d.,])\d+(?:st|nd|rd|th|er|ère|e|ème|-?(?:й|я|е|го|му))(?!\w)"),  # 2nd, 3ème, 2-й
]


def plain(text: str) -> str:
    r"""The text with ASCII digits, without LaTeX, dates, times, ordinals, exponents of units and the numbers of lists.

    A box stays, as `_BOX … _UNBOX`; if the answer was cut before its closing brace, it reaches to the end of its line.

    >>> plain(r"1. On 12/05/2023 she paid \$৪৫ for the 2nd \textbf{box}")
    ' On   she paid $45 for the   box'
    """
    text = unicodedata.normalize("NFC", text).translate(_INVISIBLE)
    text = re.sub(r"\d", lambda digit: str(unicodedata.decimal(digit[0])), text)  # ২, ๒, ２ → 2
    text = _boxes(text.translate(_FULL_WIDTH | _SIGNS))
    for pattern, instead in _LATEX:
        text = pattern.sub(instead, text)
    for pattern in _LIST_NUMBERS:
        text = pattern.sub(lambda found: " " if found[1] else found[0], text)
    for pattern in _NO_QUANTITIES:
        text = pattern.sub(" ", text)
    return text


_BRACE_OR_LINE_END = re.compile(r"[{}\n]")
_WORD = re.compile(r"\S*")


def _boxes(text: str) -> str:
    r"""`\boxed{…}`, braces within braces too → _BOX … _UNBOX."""
    parts, position = [], 0
    for found in re.finditer(r"\\f?boxed\s*(\{|(?=[\d$]))", text):
        if found.start() < position:
            continue
        end = _closing(text, found.end()) if found[1] else _end_of_word(text, found.end())
        parts += [text[position : found.start()], _BOX, text[found.end() : end], _UNBOX]
        position = end + bool(found[1] and text[end : end + 1] == "}")
    return "".join([*parts, text[position:]])


def _closing(text: str, start: int) -> int:
    """Where the brace that was opened before `start` closes, or its line's end."""
    depth = 1
    for found in _BRACE_OR_LINE_END.finditer(text, start):
        depth += {"{": 1, "}": -1, "\n": -depth}[found[0]]
        if depth == 0:
            return found.start()
    return len(text)


def _end_of_word(text: str, start: int) -> int:
    found = _WORD.match(text, start)
    return found.end() if found else start
