"""How languages and regions write numbers, against CLDR: what it writes is read back as it was."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import pytest
from babel import Locale
from babel.localedata import locale_identifiers
from babel.numbers import format_compact_decimal, format_decimal

from language_neurons_alignment.corpus.conventions import decimal_mark, scale_words
from language_neurons_alignment.corpus.numbers import final_number

PAGE = Path(__file__).parents[2] / "docs/concepts/accuracy.md"
LOCALES = sorted(locale_identifiers())
WRITTEN = ["0", "42", "1000", "1234", "80000", "1234567", "10000000", "0.5", "0.125", "1.234", "1234.5", "1234567.891"]
SIZES = [2000, 25_000, 200_000, 2_000_000, 2_500_000, 40_000_000, 5_000_000_000, 700_000_000_000, 2_000_000_000_000]
NOT_READ = {
    "tok": "groups two digits by blanks: the numbers of a list look the same",
}
SCALES_NOT_READ = {
    "wo": "CLDR's own words are a placeholder, 'Vote 700G'",
    "sw": "Babel writes 2000 as 'elfu 20'; read by hand below",
}


@pytest.mark.parametrize(
    ("language", "answer", "number"),
    [
        ("es-MX", "1,234", "1234"),
        ("es_MX", "1.125", "1.125"),
        ("spa_Latn", "1.234", "1234"),
        ("es-ES", "1.234", "1234"),
        ("es-419", "1,234", "1234"),
        ("es-US", "1,234", "1234"),
        ("es-PR", "1,234", "1234"),
        ("es-GT", "1,234", "1234"),
        ("es-AR", "1.234", "1234"),
        ("es-CO", "1.234", "1234"),
        ("de-CH", "1.125", "1.125"),
        ("de_CH", "1’234", "1234"),
        ("de-CH", "1'234.50", "1234.5"),
        ("de-LI", "1.125", "1.125"),
        ("de-AT", "1.125", "1125"),
        ("de-AT", "1 125,5", "1125.5"),
        ("deu_Latn", "1.125", "1125"),
        ("it-CH", "1.125", "1.125"),
        ("it-IT", "1.125", "1125"),
        ("fr-CH", "1,125", "1.125"),
        ("fr-CA", "1\u00a0125,5", "1125.5"),
        ("en-ZA", "1\u00a0234,125", "1234.125"),
        ("en-ZA", "1,125", "1.125"),
        ("en-DE", "1.125", "1125"),
        ("en-IN", "12,34,567", "1234567"),
        ("hi-IN", "१२,३४,५६७.५", "1234567.5"),
        ("bn", "১২,৩৪,৫৬৭.৫", "1234567.5"),
        ("ben_Beng", "১,২৩৪", "1234"),
        ("pt-BR", "1.125", "1125"),
        ("pt-PT", "1\u00a0125,5", "1125.5"),
        ("sw", "1,125", "1125"),
        ("swh_Latn", "1.125", "1.125"),
        ("sw-CD", "1.125", "1125"),
        ("th", "๑,๒๓๔.๕", "1234.5"),
        ("ar-EG", "١٬٢٣٤٫١٢٥", "1234.125"),
        ("ar-MA", "1.125", "1125"),
        ("arb_Arab", "1.125", "1.125"),
        ("zh_Hans", "1,125", "1125"),
        ("fa", "\u200e−۱٬۲۳۴٫۵", "-1234.5"),
        ("sv", "−1\u00a0234,5", "-1234.5"),
        ("fy", "1.125", "1125"),
        ("en-u-nu-latn", "1.125", "1.125"),
        ("pt-BR-x-mine", "1.125", "1125"),
        ("xx", "1.125", "1.125"),
    ],
)
def test_a_number_is_read_as_its_region_writes_it(language: str, answer: str, number: str) -> None:
    assert final_number(answer, language) == Fraction(number)
    assert final_number(f"#### {answer}", language) == Fraction(number)


@pytest.mark.parametrize(
    "language", ["", "-", "_", "x", "no such language", "\ud800", "\0", "a" * 1000, "zz-ZZ-zz", "1"]
)
def test_a_language_that_nobody_knows_has_a_decimal_point(language: str) -> None:
    assert decimal_mark(language) == "."
    assert scale_words(language) == ({}, {})
    assert final_number("3,5 or 2 million", language) == 2_000_000


def _tags() -> Iterator[tuple[str, str]]:
    """Every locale of CLDR as Babel names it and as a BCP-47 tag, one of the two each."""
    for index, locale in enumerate(LOCALES):
        if Locale.parse(locale).language not in NOT_READ:
            yield locale, locale.replace("_", "-") if index % 2 else locale


def test_every_locale_reads_back_what_cldr_writes_in_it() -> None:
    assert len({Locale.parse(locale).language for locale in LOCALES}) >= 200
    misread = [
        (locale, written, str(read))
        for locale, tag in _tags()
        for number in [*WRITTEN, "-5", "-1234.5"]
        for digits in ("default", "latn")
        for written in [format_decimal(Decimal(number), locale=locale, numbering_system=digits)]
        if (read := final_number(f"x = {written}.", tag)) != Fraction(number)
    ]
    assert not misread


def test_every_locale_reads_back_the_words_for_powers_of_ten_that_cldr_writes_in_it() -> None:
    worded = [locale for locale in LOCALES if Locale.parse(locale).compact_decimal_formats.get("long")]
    read = 0
    for locale in worded:
        if Locale.parse(locale).language in SCALES_NOT_READ:
            continue
        for number in SIZES:
            written = format_compact_decimal(number, locale=locale, format_type="long", fraction_digits=1)
            if re.search(r"\d[KMGBT]?$|^[KMGBT]?\d", written) and not re.search(r"[^\W\d_]{2}", written):
                continue  # a letter, no word: "2 M" may be metres
            read += 1
            assert final_number(f"x = {written}", locale) == number, (locale, written)
    assert len({Locale.parse(locale).language for locale in worded}) >= 100
    assert read > 4000


@pytest.mark.parametrize(
    ("language", "answer", "number"),
    [
        ("de", "2 Milliarden", 2 * 10**9),
        ("de", "2 Billionen", 2 * 10**12),
        ("de", "1 Billion", 10**12),
        ("en", "1 billion", 10**9),
        ("en", "3 trillion", 3 * 10**12),
        ("en", "2 thousand million", 2 * 10**9),
        ("fr", "3 billions", 3 * 10**12),
        ("fr", "2 mille milliards", 2 * 10**12),
        ("es", "2 billones", 2 * 10**12),
        ("es-MX", "1.5 millones", 1_500_000),
        ("pt-BR", "2 bilhões", 2 * 10**9),
        ("pt-PT", "2 mil milhões", 2 * 10**9),
        ("pt-PT", "2 biliões", 2 * 10**12),
        ("it", "2 mila miliardi", 2 * 10**12),
        ("nl", "2 biljoen", 2 * 10**12),
        ("no", "4 millioner", 4_000_000),
        ("pl", "5 tysięcy", 5000),
        ("tr", "2,5 milyar", 2_500_000_000),
        ("id", "5 ribu", 5000),
        ("vi", "3 tỷ", 3 * 10**9),
        ("hi", "५ हजार", 5000),
        ("hi", "2 करोड़", 2 * 10**7),
        ("hi", "3 नीले गुब्बारे", 3),
        ("en-IN", "5 lakh", 500_000),
        ("en-IN", "2 crore", 2 * 10**7),
        ("en-IN", "3 lakh crore", 3 * 10**12),
        ("bn", "৩ লাখ কোটি", 3 * 10**12),
        ("te", "2 లక్షలు", 200_000),
        ("ko", "3억 2,000만 원", 320_000_000),
        ("ko", "1만5천원", 15_000),
        ("ko", "1만 5,000원", 15_000),
        ("ko", "2천5백만", 25_000_000),
        ("ko", "피자 8조각", 8),
        ("ko", "18만큼", 18),
        ("zh", "2万亿", 2 * 10**12),
        ("zh", "1億2万", 100_020_000),
        ("ja", "3億2千万", 320_000_000),
        ("th", "5 แสนล้าน", 5 * 10**11),
        ("ar", "٣ آلاف", 3000),
        ("he", "5 אלף", 5000),
        ("sw", "elfu 5", 5000),
        ("sw", "bilioni 2", 2 * 10**9),
        ("ha", "Dubu 5", 5000),
        ("my", "ကုဋေ 7 သောင်း", 7 * 10**11),
        ("es", "5 billion", 5 * 10**9),
        ("en", "2 million 5 years ago", 5),
    ],
)
def test_a_word_scales_a_number_as_it_does_in_that_language(language: str, answer: str, number: int) -> None:
    assert final_number(answer, language) == number
    assert final_number(f"#### {answer}", language) in (number, 2_000_000)


def test_the_digits_of_every_script_are_digits() -> None:
    zeros = [chr(code) for code in range(0x110000) if unicodedata.decimal(chr(code), None) == 0]
    assert len(zeros) >= 60
    for zero in zeros:
        native = "407".translate({ord(digit): chr(ord(zero) + int(digit)) for digit in "0123456789"})
        assert final_number(f"= {native}", "en") == 407, f"U+{ord(zero):04X}"


def test_the_table_of_the_documentation_is_cldr_s_and_what_is_read() -> None:
    rows = re.findall(r"(?m)^\| `([\w-]+)` \| (\S[^|]*?) \| `([^`|]*)` \| ([\d.]+) \| ([\d.]+) \|", PAGE.read_text())
    assert len(rows) >= 40
    for tag, name, written, comma, point in rows:
        locale = Locale.parse(tag, sep="-")
        assert name == locale.english_name
        assert _visible(format_decimal(Decimal("1234567.5"), locale=locale, numbering_system="default")) == written
        assert final_number(f"= {written}", tag) == Fraction("1234567.5")
        assert final_number("= 1,234", tag) == Fraction(comma)
        assert final_number("= 1.234", tag) == Fraction(point)


def _visible(written: str) -> str:
    return re.sub("[\u00a0\u202f]", " ", written)
