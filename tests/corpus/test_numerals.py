"""Numbers with their places: what belongs to a number, and which digits are none."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise

import pytest

from language_neurons_alignment.corpus.numerals import east_asian, numbers_in


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
