"""Numbers in words: what num2words writes is read back; what spells no number exactly is not read; linear time."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from num2words import CONVERTER_CLASSES, num2words

from language_neurons_alignment.corpus.numbers import final_number
from language_neurons_alignment.corpus.spelt import runs_in

NOT_USED = {"am", "cy", "tet", "ja", "ko", "th"}
LANGUAGES = sorted(set(CONVERTER_CLASSES) - NOT_USED)
LARGE = (
    1000,
    1001,
    1200,
    2300,
    9999,
    10_000,
    71_000,
    75_320,
    100_000,
    123_456,
    999_999,
    2_000_000,
    2_300_015,
    5 * 10**9,
)
NOT_READ = {
    ("az", 10_000): "num2words writes 11,000 alike",
    ("az", 100_000): "num2words writes 101,000 alike",
    ("az", 2_300_015): "num2words writes 2,301,015 alike",
    ("az", 71_000): "num2words writes 70,000 alike",
    ("he", 9999): "the factor of the thousands is inflected",
    ("sr", 5 * 10**9): "num2words writes 'biliona', which is 10¹²",
}  # fmt: skip
UNITS = ["", "moja", "mbili", "tatu", "nne", "tano", "sita", "saba", "nane", "tisa"]
TENS = ["", "kumi", "ishirini", "thelathini", "arobaini", "hamsini", "sitini", "sabini", "themanini", "tisini"]


def values(text: str, language: str) -> list[int | None]:
    return [run.value for run in runs_in(text, language)]


def written(language: str, number: int) -> str | None:
    try:
        return str(CONVERTER_CLASSES[language].to_cardinal(number))
    except TypeError:
        return None


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_number_below_1000_is_read_as_num2words_writes_it(language: str) -> None:
    tag = language.replace("_", "-")
    wrong = [n for n in range(1000) if n != 1 and values(f"… {written(language, n)}.", tag) != [n]]
    assert not wrong


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_large_number_is_read_as_written_or_not_at_all(language: str) -> None:
    for number in LARGE:
        words = written(language, number)
        if words is None:
            continue
        read = values(f"… {words}.", language.replace("_", "-"))
        assert read[-1:] == [None if (language, number) in NOT_READ else number], (number, words)


@settings(max_examples=300, deadline=None)
@given(
    number=st.integers(1000, 10**9),
    language=st.sampled_from(["en", "de", "fr", "es", "it", "nl", "pl", "ru", "tr", "id"]),
)
def test_a_number_of_any_size_is_never_read_as_another(number: int, language: str) -> None:
    if language == "tr" and "bin" in str(num2words(number, lang=language)):  # num2words drops digits of some thousands
        assert final_number(f"= {num2words(number, lang=language)}", language) in (number, None)
    else:
        assert final_number(f"= {num2words(number, lang=language)}", language) == number


def in_swahili(number: int) -> list[str]:
    """The ways to write a number below 10,000, by the grammar."""
    thousands, hundreds, tens, units = (number // 1000, number // 100 % 10, number // 10 % 10, number % 10)
    small = f"{TENS[tens]} na {UNITS[units]}" if tens and units else TENS[tens] or UNITS[units]
    parts = [f"elfu {UNITS[thousands]}" * bool(thousands), f"mia {UNITS[hundreds]}" * bool(hundreds), small]
    parts = [part for part in parts if part]
    return [" ".join(parts), " na ".join(parts)]


def test_every_swahili_number_below_10_000_is_read() -> None:
    assert final_number("Jibu ni sifuri.", "sw") == 0
    wrong = [n for n in range(2, 10_000) for words in in_swahili(n) if values(f"Ana {words} sasa", "sw") != [n]]
    assert not wrong


@pytest.mark.parametrize(
    ("language", "answer", "number"),
    [
        ("en", "The answer is seventy-five.", 75),
        ("en", "She has Seventy Five dollars left.", 75),
        ("en", "one hundred five", 105),
        ("en", "a hundred and five eggs", 105),
        ("en", "There are two million people", 2_000_000),
        ("en", "one thousand, two hundred and thirty-four", 1234),
        ("en", "She has ten, twelve, twenty", 20),
        ("en", "The answer is minus three.", -3),
        ("en", "The answer is zero.", 0),
        ("en", "The answer is one.", 1),
        ("en", "#### seventy-five", 75),
        ("en", r"So \boxed{\text{seventy-five}} of them", 75),
        ("en", "seventy\u00adfive", 75),
        ("en", "seven\u00adty-five", 75),
        ("en", "It is ten.\n\nQuestion: Amy has five eggs.", 10),
        ("en", "9 eggs at 2 dollars are sold. The answer is eighteen.", 18),
        ("en", "The answer is two times 9 = 18", 18),
        ("en", "They ate two of the 9 eggs.", 9),
        ("en-IN", "two lakh", 200_000),
        ("de", "Die Antwort ist fünfundsiebzig.", 75),
        ("de", "Es sind hundertfünf Eier.", 105),
        ("de", "zwei Millionen dreihunderttausend", 2_300_000),
        ("de-CH", "dreissig Franken", 30),
        ("es", "La respuesta es setenta y cinco", 75),
        ("es", "Quedan dos mil trescientos huevos", 2300),
        ("es-MX", "un millón", 10**6),
        ("fr", "La réponse est soixante-quinze.", 75),
        ("fr", "soixante-et-onze", 71),
        ("fr", "Il reste mille deux cents œufs", 1200),
        ("fr", "septante-cinq", 75),
        ("fr-BE", "septante-cinq", 75),
        ("fr-CH", "nonante-neuf francs", 99),
        ("ru", "Ответ: семьдесят пять", 75),
        ("ru", "Осталось семьдесят две коробки", 72),
        ("ru", "около семидесяти пяти рублей", 75),
        ("uk", "Відповідь: сімдесят п’ять", 75),
        ("it", "La risposta è settantacinque", 75),
        ("nl", "Het antwoord is zevenentwintig.", 27),
        ("pl", "Odpowiedź to siedemdziesiąt pięć.", 75),
        ("pl", "Zostało pięćset.", 500),
        ("tr", "Cevap: doksan üç", 93),
        ("id", "Jawabannya adalah tujuh puluh lima", 75),
        ("vi", "Đáp án là bảy mươi lăm", 75),
        ("pt", "dezesseis ovos", 16),
        ("pt", "dezasseis ovos", 16),
        ("pt-PT", "dezasseis ovos", 16),
        ("sv", "sju hundra", 700),
        ("bn", "হাতে থাকে পঁচাত্তর টাকা।", 75),
        ("ar", "المجموع خمسة وسبعون", 75),
        ("he", "הסך הכל שבעים וחמש", 75),
        ("fa", "هفتاد و پنج تومان", 75),
        ("spa_Latn", "setenta y cinco", 75),
        ("kk", "жетпіс бес", 75),
        ("nb", "syttifem", 75),
        ("sw", "Jibu ni sabini na tano.", 75),
        ("es", "al menos tres", 3), ("en", "minus twelve", -12), ("de", "Die Antwort ist -zwölf", -12),
        ("en", "five minus seven is minus two", -2), ("en", "twenty minus twelve", None),
        ("es", "quinientas veinte", 520), ("es", "veintidos", 22), ("de", "fuenfundzwanzig", 25), ("de", "zwoelf", 12),
        ("pt", "cento e quatorze", 114), ("fr", "cent septante-deux", 172), ("fr", "octante", 80),
        ("fr", "nonante", 90),
        ("vi", "hai mươi tư", 24), ("vi", "một trăm linh năm", 105), ("vi", "hai ngàn", 2000),
        ("bn", "পচাত্তর", 75), ("bn", "একশো পাঁচটি", 105), ("bn", "কুড়ি", 20), ("sw", "mayai ishirini na mawili", 22),
        ("en", "five lakh", 500_000), ("en", "fourty five", None), ("es", "cuatrocientoz veinte", None),
        ("swh_Latn", "Anapata elfu mbili mia tatu.", 2300),
    ],
)  # fmt: skip
def test_words_are_read(language: str, answer: str, number: int | None) -> None:
    assert final_number(answer, language) == number


@pytest.mark.parametrize(
    ("language", "answer"),
    [
        ("en", "one of the eggs"),
        ("en", "The answer is one of them"),
        ("en", "for one, a couple"),
        ("en", "a dozen"),
        ("en", "two dozen eggs"),
        ("en", "five eggs, so half a dozen"),
        ("en", "two-thirds"),
        ("en", "two thirds of it"),
        ("en", "three quarters"),
        ("en", "seven eighths"),
        ("en", "three and a half"),
        ("en", "half a million"),
        ("en", "two point five"),
        ("en", "the seventy-fifth"),
        ("en", "the seventy fifth"),
        ("en", "the twenty first"),
        ("en", "five and six"),
        ("en", "between five and hundred"),
        ("en", "two thousand and three hundred"),
        ("en", "twenty-three four"),
        ("en", "The answer is five or six."),
        ("en", "The answer is five times six."),
        ("en", "twelve hundred"),
        ("en", "The answer is hundreds"),
        ("en", "siebzig"),
        ("es", "uno de ellos"),
        ("es", "La respuesta es al menos menos"),
        ("fr", "un livre neuf"),
        ("fr", "trois quarts"),
        ("fr", "le vingt-et-unième"),
        ("de", "ein Ei und eine Kiste"),
        ("de", "drei Viertel"),
        ("de", "der fünfundsiebzigste"),
        ("de", "eine halbe Million"),
        ("ru", "один из них"),
        ("ru", "две трети"),
        ("it", "sei qui"),
        ("tr", "elmaları yedi"),
        ("vi", "mỗi năm"),
        ("pl", "siedemdziesiat piec"),
        ("sw", "elfu kumi na mbili"),
        ("sw", "elfu mia mbili thelathini"),
        ("am", "ሃያ አምስት"),
        ("th", "สามารถ"),
        ("xx", "seventy"),
        ("", "seventy"),
    ],
)  # fmt: skip
def test_what_spells_no_number_exactly_is_not_read(language: str, answer: str) -> None:
    assert final_number(answer, language) is None


@pytest.mark.parametrize("answer", ["five or six", "five times six", "two-thirds"])
def test_announced_words_that_are_not_read_are_not_replaced_by_digits_elsewhere(answer: str) -> None:
    assert final_number(f"They have 9 eggs. The answer is {answer}.", "en") is None


def test_a_word_with_another_meaning_counts_where_the_answer_is_announced() -> None:
    assert final_number("La risposta è sei.", "it") == 6
    assert final_number("La réponse est neuf.", "fr") == 9
    assert final_number("Cevap: yedi", "tr") == 7


@pytest.mark.parametrize(
    ("language", "part"),
    [
        ("en", "two "), ("en", "two, "), ("en", "one. "),
        ("en", "one thousand, two hundred, "), ("en", "a hundred and "),
        ("en", "the quick brown fox "), ("en", "The answer is five times six. "), ("en", "#### "), ("en", "a'"),
        ("en", "e\u0301\u0302"), ("de", "tausend"), ("de", "zweitausend "), ("sw", "milioni elfu mia na "),
    ],
)  # fmt: skip
def test_long_texts_take_linear_time(language: str, part: str) -> None:
    final_number("ten", language)
    began = time.process_time()
    final_number(part * 10_000 + "ten", language)
    assert time.process_time() - began < 5


WORDS = sorted(
    {word for n in (*range(30), 75, 100, 2300, 10**6) for word in str(num2words(n)).split()} | {"a", "half", ","}
)


@settings(max_examples=300, deadline=None)
@given(words=st.lists(st.sampled_from(WORDS), max_size=40), gap=st.sampled_from([" ", "-", ", ", "\n", " and "]))
def test_no_row_of_number_words_raises(words: list[str], gap: str) -> None:
    value = final_number(gap.join(words), "en")
    assert value is None or isinstance(value, Fraction)


@settings(max_examples=200, deadline=None)
@given(text=st.text(max_size=60), language=st.one_of(st.sampled_from(LANGUAGES), st.text(max_size=8)))
def test_no_text_raises(text: str, language: str) -> None:
    runs_in(text, language)


def test_the_words_need_num2words_only_when_an_answer_is_graded() -> None:
    loaded = (
        "import sys, json, language_neurons_alignment.corpus.grading; print(json.dumps('num2words' in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", loaded], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) is False
