"""Numbers in Chinese and Japanese characters: what num2words writes is read, and words that hold numerals are not."""

from __future__ import annotations

import time
from fractions import Fraction

import pytest
from num2words import num2words

from language_neurons_alignment.corpus.east_asian import east_asian, runs_of_characters
from language_neurons_alignment.corpus.numbers import final_number


@pytest.mark.parametrize(
    ("numeral", "value"),
    [
        ("十", 10),
        ("百二", 102),
        ("万", 10**4),
        ("三千万", 3 * 10**7),
        ("1.5億2千万", 170_000_000),
        ("〇", 0),
        ("两", 2),
    ],
)
def test_chinese_and_japanese_numerals_add_and_multiply(numeral: str, value: int) -> None:
    assert east_asian(numeral) == value


def test_a_numeral_without_end_is_none() -> None:
    assert east_asian("一" * 41) is None
    assert east_asian("一" * 40) == int("1" * 40)


@pytest.mark.parametrize("numeral", ["百千", "二百万三十万", "一万一万", "三百五百", "十百"])
def test_units_that_grow_again_are_two_numbers(numeral: str) -> None:
    assert east_asian(numeral) is None


def test_what_num2words_writes_in_japanese_is_read_in_a_text_without_an_answer_phrase() -> None:
    for number in (*range(2, 1200, 7), 2345, 10_000, 10_020, 90_909, 10**6, 35 * 10**7, 123_456_789_012):
        (run,) = runs_of_characters(f"合わせて{num2words(number, lang='ja')}円払う。", "ja")
        assert run.value == number, num2words(number, lang="ja")


@pytest.mark.parametrize(
    ("language", "answer", "number"),
    [
        ("zh", "他吃了百分之七十五。", "75"), ("zh", "百分之三点五", "3.5"), ("zh", "一共有二十三个苹果。", "23"),
        ("zh", "共计一百二十三元", "123"), ("zh", "总数是九百九十九。", "999"), ("zh", "一共有三个苹果", "3"),
        ("zh", "他吃了三分之二", "2/3"), ("zh", "三又二分之一", "7/2"), ("zh", "走了五点二公里", "5.2"),
        ("zh", "七成五", "75"), ("ja", "三割五分", "35"), ("ja", "七十五パーセントです", "75"), ("ja", "八です", "8"),
        ("ja", "二百五円", "205"), ("zh", "**三十五**", "35"), ("zh", "一万零五百元", "10500"),
        ("zh", "零下五度", "-5"),
        ("zh", "三个半小时", "7/2"), ("ja", "二時間半", "5/2"), ("zh-Hant", "壹佰貳拾參個", "123"),
        ("zh", "三十五", "35"),
        ("zh", "三十加五等于三十五", "35"), ("zh", "三十五除以五是七。", "7"), ("ja", "三足す五は八です", "8"),
        ("zh", "答案是三十加五等于三十五", "35"), ("zh", "答案：五乘六等于三十", "30"),
    ],
)  # fmt: skip
def test_characters_that_can_only_be_a_number_are_one(language: str, answer: str, number: str) -> None:
    assert final_number(answer, language) == Fraction(number)


@pytest.mark.parametrize(
    ("language", "answer"),
    [
        ("zh", "万一他来了"), ("zh", "我们一起十分高兴"), ("zh", "三明治"), ("zh", "他五月来，星期三走"),
        ("zh", "八月十五。"),
        ("zh", "第三。"), ("zh", "一半"), ("zh", "四舍五入"), ("zh", "五十步笑百步"), ("zh", "千万不要"),
        ("zh", "一个苹果"),
        ("zh", "二〇二四年"), ("zh", "三点二十分"), ("zh", "三点五分"), ("zh", "三点一刻"), ("zh", "两三个"),
        ("zh", "三四十人"),
        ("zh", "十几个"), ("zh", "几百人"), ("zh", "三百多人"), ("zh", "共三万五。"), ("zh", "二百五"),
        ("zh", "五千克"),
        ("zh", "三成功"), ("zh", "三十加五"), ("zh", "答案是六加七"), ("zh", "共有9个。答案是六加七"),
        ("ja", "五十嵐さん"),
        ("ja", "三十三間堂"), ("ja", "八百屋"), ("ja", "石田三成"), ("ja", "三十分"), ("en", "三十五"),
        ("ko", "三十五個"),
    ],
)  # fmt: skip
def test_characters_of_words_dates_estimates_and_sums_without_result_are_no_number(language: str, answer: str) -> None:
    assert final_number(answer, language) is None


def test_an_estimate_is_not_passed_over_for_an_earlier_number() -> None:
    assert [run.value for run in runs_of_characters("先有三十个，后来有三四十个", "zh")] == [30, None]
    assert final_number("先有三十个，后来有几十个", "zh") is None


@pytest.mark.parametrize("unit", ["两个半", "三十加", "一又", "5点25", "十", "三割五分"])
def test_long_texts_of_characters_take_linear_time(unit: str) -> None:
    began = time.process_time()
    final_number("答案是" + unit * 3000, "zh")
    assert time.process_time() - began < 2
