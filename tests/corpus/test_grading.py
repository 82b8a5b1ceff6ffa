"""Answers graded with the real lingua: right or wrong number, right, wrong or unknown language."""

from __future__ import annotations

import json
import re
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from language_neurons_alignment.corpus.grading import answer_line, check_answerable, grade, languages_seen, shown_number
from language_neurons_alignment.corpus.language_id import letters
from language_neurons_alignment.corpus.records import Record
from language_neurons_alignment.errors import CorpusError, SettingsError
from language_neurons_alignment.sources.benchmarks import BENCHMARKS, read_benchmark
from tests.conftest import shared_folder

RIGHT = {
    "en": "She sells 9 eggs at $2 each, so she makes 18 dollars every day.",
    "ru": "Она продаёт 9 яиц по 2 доллара, поэтому зарабатывает 18 долларов в день.",
    "es": "Vende 9 huevos a 2 dólares cada uno, así que gana 18 dólares al día.",
    "fr": "Elle vend 9 œufs à 2 dollars chacun, elle gagne donc 18 dollars par jour.",
    "de": "Sie verkauft 9 Eier für je 2 Dollar, also verdient sie 18 Dollar am Tag.",
    "zh": "她每天以每个2美元的价格卖出9个鸡蛋,所以她每天赚18美元。",
    "ja": "彼女は卵を9個、1個2ドルで売るので、毎日18ドルを稼ぎます。",
    "bn": "তিনি প্রতিটি ২ ডলারে ৯টি ডিম বিক্রি করেন, তাই তিনি প্রতিদিন ১৮ ডলার আয় করেন।",
    "th": "เธอขายไข่ 9 ฟองในราคาฟองละ 2 ดอลลาร์ ดังนั้นเธอได้เงินวันละ 18 ดอลลาร์",
    "sw": "Anauza mayai 9 kwa dola 2 kila moja, kwa hivyo anapata dola 18 kila siku.",
}


def question(language: str, target: str = "18") -> Record:
    return Record(language, "…", (), target=target)


def test_sentences_in_ten_languages_are_in_their_own_language_and_in_no_other() -> None:
    asked = list(RIGHT)
    for answered, text in RIGHT.items():
        graded = grade([question(language) for language in asked], [text] * len(asked), candidates=asked)
        assert [one.in_language for one in graded] == [language == answered for language in asked], answered
        assert grade([question(answered)], [text], candidates=asked)[0].right


@pytest.mark.parametrize(
    "text", ["#### 18", "18", r"\boxed{18}", r"$\frac{36}{2} = \text{} \boxed{18}$", "= 9 × 2 = 18"]
)
def test_a_number_alone_is_in_no_language(text: str) -> None:
    (graded,) = grade([question("fr")], [text], candidates=["fr"])
    assert graded.right
    assert graded.seen is None
    assert graded.in_language is None


@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("en", "The answer is 18."),
        ("ru", "Ответ: 18 долларов."),
        ("es", "La respuesta es 18."),
        ("fr", "La réponse est 18."),
        ("de", "Die Antwort ist 18."),
        ("zh", "所以她每天赚18美元。"),
        ("zh", "答案是18美元。"),
        ("ja", "答えは18です。"),
        ("bn", "উত্তর হল ১৮।"),
        ("th", "คำตอบคือ 18"),
        ("sw", "Jibu ni 18 kwa siku."),
    ],
)
def test_short_sentences_are_in_their_language(language: str, text: str) -> None:
    (graded,) = grade([question(language)], [text], candidates=RIGHT)
    assert (graded.right, graded.in_language) == (True, True)


@pytest.mark.parametrize(("language", "text"), [("fr", "Randy a 37 blocs."), ("de", "Dan hat 2 Dollar.")])
def test_a_short_answer_whose_name_is_of_another_language_is_unclear(language: str, text: str) -> None:
    (graded,) = grade([question(language)], [text], candidates=RIGHT)
    assert graded.in_language is None


@pytest.mark.slow
@pytest.mark.parametrize(("low", "high", "most"), [(10, 14, 0.0), (15, 19, 0.05), (20, 29, 0.03), (30, 49, 0.01)])
def test_short_sentences_of_real_questions_are_seldom_taken_for_another_language(
    low: int, high: int, most: float
) -> None:
    records = [
        record
        for name in ("mgsm", "msvamp")
        for record in read_benchmark(BENCHMARKS[name], tuple(RIGHT), folder=shared_folder(f"data/{name}")).records
    ]
    for language in RIGHT:
        of_it = (one.question or one.instruction for one in records if one.language == language)
        sentences = sorted({part.strip() for text in of_it for part in re.split(r"(?<=[.?!。？！।])\s*(?!\d)", text)})
        sentences = [sentence for sentence in sentences if low <= letters(sentence) <= high]
        seen = [verdict.language for verdict in languages_seen(sentences, RIGHT) if verdict]
        assert sum(one != language for one in seen) <= most * len(seen), language


def test_a_language_that_nobody_asks_in_is_seen_too() -> None:
    (graded,) = grade([question("fr")], [RIGHT["en"]], candidates=["fr"])
    assert graded.seen is not None
    assert (graded.seen.language, graded.in_language) == ("en", False)


def test_what_cannot_be_graded_is_refused() -> None:
    check_answerable([question("fr"), question("te", "1,234")])
    with pytest.raises(CorpusError, match=r"1 of 2 questions .* has no target: .*lna dataset build mgsm"):
        check_answerable([question("fr"), Record("fr", "x", ())])
    with pytest.raises(SettingsError, match="answers in hak cannot be identified"):
        check_answerable([question("hak")])


def test_a_line_says_what_it_was_graded_by() -> None:
    record = Record("fr", "Q: combien ?\nA:", (), id="q1", target="2.5", question="combien ?")
    (graded,) = grade([record], ["La réponse est 5/2 litres de lait."], candidates=["fr"])
    line = answer_line(record, {"generated": "…", "tokens": 9, "finish": "eos"}, graded)
    assert (line["id"], line["question"], line["number"], line["right"]) == ("q1", "combien ?", "2.5", True)
    assert (line["language"], line["in_language"], line["finish"]) == ("fr", True, "eos")


@pytest.mark.parametrize(
    ("number", "shown"),
    [
        (Fraction(18), "18"),
        (Fraction(5, 2), "2.5"),
        (Fraction(1, 3), "1/3"),
        (Fraction(-1, 8), "-0.125"),
        (Fraction(10**30), "1" + "0" * 30),
    ],
)
def test_numbers_are_shown_exactly(number: Fraction, shown: str) -> None:
    assert shown_number(number) == shown
    assert Fraction(shown) == number


@settings(max_examples=25, deadline=None)
@given(st.text(max_size=300), st.sampled_from(sorted(RIGHT)))
def test_whatever_a_model_writes_is_graded(text: str, language: str) -> None:
    record = question(language)
    for answer in (text, f"{RIGHT[language]}\n{text}", f"{text}1.2.3万元^99"):
        (graded,) = grade([record], [answer], candidates=[language])
        json.dumps(answer_line(record, {"generated": answer, "tokens": 1, "finish": "eos"}, graded))
