"""Numbers with their places: what belongs to a number, and which digits are none."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise

import pytest

from language_neurons_alignment.corpus.numerals import numbers_in


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("it is -5", "-5"),
        ("it is 2^10 m", "1024"),
        ("it is 3.5/7 m", "0.5"),
        ("it is 1.5×10^3 m", "1500"),
        ("it is 3e2 m", "300"),
        ("it is 5k now", "5000"),
        ("elfu 5", "5000"),
        ("2 et demi", "2.5"),
        ("2分の1", "0.5"),
        ("12万5000", "125000"),
    ],
)
def test_everything_beside_a_number_that_changes_its_value_is_part_of_it(text: str, number: str) -> None:
    (found,) = numbers_in(text, "en")
    assert found.value == Fraction(number)
    assert found.start <= found.digits < found.end <= len(text)
    assert text[found.digits].isdigit()


@pytest.mark.parametrize("text", ["cm2", "x2 and A4", "0分の1", "0分の3"])
def test_digits_of_names_and_fractions_over_nothing_are_no_quantity(text: str) -> None:
    assert numbers_in(text, "en") == []


def test_numbers_come_in_their_order_and_do_not_overlap() -> None:
    found = numbers_in("1,2,3 and 4/5, then 2 লাখ 50 হাজার and 2 million 5 years", "en")
    assert [one.value for one in found] == [1, 2, 3, Fraction(4, 5), 250_000, 2_000_000, 5]
    assert all(one.end <= other.start for one, other in pairwise(found))


def test_the_decimal_mark_is_the_text_s_own_or_else_the_language_s() -> None:
    assert [found.value for found in numbers_in("1.234 und 0,5", "en")] == [1234, Fraction(1, 2)]
    assert [found.value for found in numbers_in("1.234", "de")] == [1234]
    assert [found.value for found in numbers_in("1.234", "en")] == [Fraction("1.234")]


@pytest.mark.parametrize(
    ("language", "text", "number"),
    [
        ("en", "2 million and 300 thousand", 2_300_000), ("en", "2.5 million and 300 thousand", 2_800_000),
        ("en", "2 thousand and 5 hundred", 2500), ("en", "2 thousand and 50 dogs", 2050),
        ("en", "2 hundred and 5", 205),
        ("en", "2 million and 300000", 2_300_000), ("en", "1 crore 20 lakh and 30 thousand", 12_030_000),
        ("en", "2 lakh and 50 thousand", 250_000), ("en", "3 thousand 2 hundred and 5", 3205),
        ("de", "2 Millionen und 300 Tausend", 2_300_000), ("fr", "2 millions et 300 mille", 2_300_000),
        ("es", "2 millones y 300 mil", 2_300_000), ("ru", "2 миллиона и 300 тысяч", 2_300_000),
        ("bn", "2 কোটি ও 50 লাখ", 25_000_000), ("bn", "2লাখ50হাজার", 250_000), ("th", "2ล้าน3แสน", 2_300_000),
        ("sw", "milioni 2 na laki 3", 2_300_000), ("hi", "2 लाख और 50 हज़ार", 250_000),
        ("ko", "2억 3천만", 230_000_000),
        ("it", "2 milioni 300mila", 2_300_000), ("it", "2 milioni e 300 mila", 2_300_000),
        ("pt", "2 milhões e 300 mil", 2_300_000), ("nl", "2 miljoen en 300 duizend", 2_300_000),
        ("zh", "2亿3000万", 230_000_000), ("ja", "2億3千5百万", 235_000_000),
    ],
)  # fmt: skip
def test_the_parts_of_a_number_with_several_scales_add_up(language: str, text: str, number: int) -> None:
    assert [found.value for found in numbers_in(text, language)] == [number]


@pytest.mark.parametrize(
    ("language", "text", "numbers"),
    [
        ("en", "between 2 million and 300 thousand", [2_000_000, 300_000]),
        ("en", "2 million and 300 thousand respectively", [2_000_000, 300_000]),
        ("en", "2 million and 5 dogs", [2_000_000, 5]), ("en", "2 million, 300 thousand", [2_000_000, 300_000]),
        ("en", "2 million dogs and 300 thousand cats", [2_000_000, 300_000]),
        ("en", "300 thousand and 2 million", [300_000, 2_000_000]),
        ("pl", "2 miliony na 300 tysięcy", [2_000_000, 300_000]),
        ("fr", "2 millions en 300 mille", [2_000_000, 300_000]),
        ("zh", "200万和30万", [2_000_000, 300_000]), ("zh", "2百万30万", []),
    ],
)  # fmt: skip
def test_two_numbers_stay_two(language: str, text: str, numbers: list[int]) -> None:
    assert [found.value for found in numbers_in(text, language)] == numbers


@pytest.mark.parametrize(
    ("language", "text", "numbers"),
    [
        ("zh", "5点2", ["26/5"]), ("zh", "30点25", ["121/4"]), ("zh", "5点25公里", ["21/4"]),
        ("zh", "5点2万", ["52000"]),
        ("zh", "5点25到家", []), ("ja", "5点2", ["5", "2"]), ("zh", "1.5点2", ["3/2", "2"]),
        ("ja", "3割5分2厘", ["176/5"]), ("ja", "2割引で800円", ["20", "800"]), ("zh", "3割5", ["3", "5"]),
        ("zh", "7成5", ["75"]), ("zh", "7成熟", ["7"]), ("ja", "7成", ["7"]), ("ko", "3할 5푼", ["35"]),
        ("ko", "3할인", ["3"]), ("en", "2 and 1/2 cups", ["5/2"]), ("en", "2 and 1/2 of it", ["2", "1/2"]),
        ("en", "they are 2 and 1/2", ["2", "1/2"]), ("en", "2 and a half million", ["2500000"]),
        ("vi", "2 triệu rưỡi", ["2500000"]), ("tr", "2 buçuk", ["5/2"]), ("pl", "2 i pół", ["5/2"]),
        ("it", "2 e mezzo", ["5/2"]), ("pt", "2 e meia", ["5/2"]), ("sv", "2 och en halv", ["5/2"]),
        ("hi", "साढ़े 3", ["7/2"]), ("ru", "2 с половиной миллиона", ["2500000"]),
    ],
)  # fmt: skip
def test_decimals_tenths_and_halves_are_part_of_a_number_where_they_can_be_nothing_else(
    language: str, text: str, numbers: list[str]
) -> None:
    assert [found.value for found in numbers_in(text, language)] == [Fraction(number) for number in numbers]
