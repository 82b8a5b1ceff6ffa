"""Numbers in Chinese, Japanese and Korean characters: 七十五, 百分之七十五, 五点二, 三割五分, 1万8千, 3억 2,000만.

`east_asian` reads one numeral, `numeral_at` what an answer phrase announces. `runs_of_characters` finds the numbers of
a text without digits. There, characters count only where nothing else can be meant, since most of them are common in
words (一起, 十分, 三明治): the numeral is written as numbers are, and a counter, a currency or the end of a sentence
stands behind it.

Nothing here raises, whatever the text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from functools import cache

from .conventions import is_grouped, joined, spellings
from .spelt import Run

LONGEST = 40
"""Digits that a number has at most."""
LARGEST = 3000
"""Bits that a numerator or denominator has at most: Python refuses to print integers of more than 4300 digits."""

_DIGITS = {character: value for value, character in enumerate("〇一二三四五六七八九")} | {"零": 0, "两": 2, "兩": 2}
_SMALL = {"十": 10, "百": 100, "千": 1000, "십": 10, "백": 100, "천": 1000}
_BIG = {"万": 10**4, "萬": 10**4, "亿": 10**8, "億": 10**8, "兆": 10**12, "만": 10**4, "억": 10**8, "조": 10**12}
_FORMAL = str.maketrans(
    dict(zip("壹壱贰貳弐叁參参肆伍陆陸柒捌玖拾佰仟", "一一二二二三三三四五六六七八九十百千", strict=True))
    | {"廿": "二十", "卅": "三十"}
)
KANJI = "〇零一二三四五六七八九两兩十百千万萬亿億兆壹壱贰貳弐叁參参肆伍陆陸柒捌玖拾佰仟廿卅"
"""The characters of numerals."""
_ONE_DIGIT = "〇零一二三四五六七八九"

# Digits with characters.

_UNIT = r"(?:(?!千[克米瓦卡]|만큼|조[각개금])[十百千万萬亿億兆십백천만억조])"
"""5千克 is five kilograms, 5만큼 "as much as 5", 5조각 five pieces."""
_KOREAN_BLANK = r"(?<=[십백천만억조])[ ]"
COMPOUND = (
    rf"\d+(?:[.,]\d+)*[ ]?{_UNIT}+"
    rf"(?:(?:{_KOREAN_BLANK}(?=\d+(?:[.,]\d+)*[십백천만억조]))?"
    rf"(?:\d+(?:[.,]\d+)*[ ]?|[一二三四五六七八九两兩]){_UNIT}+)*"
    rf"(?:(?:\d{{1,4}}|{_KOREAN_BLANK}(?:\d{{3,4}}|\d,\d{{3}}))(?![\d.,]))?"
)
"""1万8千, 3千五百, 2.5万, 12万5000, 3억 2,000만."""

SPOKEN = r"(?<![\d.,])\d+[点點]\d+(?![\d.,])(?:[万萬亿億]+|(?=(?P<measured>公[里斤]|千[克米]|[元块塊米克吨噸升倍斤])?))"
"""5点2, which is 5.2; 5点25 may also be a time of day."""

_NO_TENTHS = r"[功为為员員本绩績长長果就交立熟语語分年人品名色套]"
TENTHS = (
    rf"\d+(?:割(?:\s?\d分(?:\s?\d厘)?)?|成(?!{_NO_TENTHS})(?:\d(?![\d.,]))?"
    r"|할(?:\s?\d푼(?:\s?\d리)?)?(?![가-힣])|할(?:\s?\d푼(?:\s?\d리)?)?(?=[이입은을의로에]))"
)
"""3割5分, 七成五, 3할 5푼: tenths, hundredths and thousandths, and so 35, 75 and 35 percent."""


def spoken(digits: str, *, measured: bool, language: str) -> Fraction | None:
    """The decimal of 5点2; None where that is a time of day too, or where 点 may count points, as in Japanese.

    >>> [spoken(digits, measured=False, language="zh") for digits in ("5点2", "5点25", "30点25", "5点2万")]
    [Fraction(26, 5), None, Fraction(121, 4), Fraction(52000, 1)]
    """
    whole, decimals = re.split("[点點]", digits)
    units = decimals.lstrip("0123456789")
    decimals = decimals.removesuffix(units)
    hour = len(decimals) == 2 and int(whole) <= 24 and int(decimals) < 60
    if not is_chinese(language) or (hour and not measured and not units) or len(units) > 4:
        return None
    value = Fraction(f"{whole}.{decimals}")
    for unit in units:
        value *= _BIG[unit]
    return value


def tenths(written: str, language: str) -> Fraction | None:
    """The percentage of 3割5分 in Japanese, 7成5 in Chinese, 3할 5푼 in Korean; None in another language.

    >>> [str(tenths(*form)) for form in (("3割5分2厘", "ja"), ("7成", "zh"), ("3할 5푼", "ko"), ("3割", "zh"))]
    ['176/5', '70', '35', 'None']
    """
    in_it = {"割": _is_japanese, "成": is_chinese, "할": _is_korean}
    if not any(sign in written and is_its(language) for sign, is_its in in_it.items()):
        return None
    first, *others = re.findall(r"\d+", written)
    return Fraction(int(first) * 10) + sum(Fraction(int(one), 10**n) for n, one in enumerate(others))


# Numerals.

_SOME = rf"[{KANJI}]"
_NUMERAL = re.compile(
    rf"(?P<minus>负|負の?|マイナス|零下)?(?!一[样般些起共定直切旦部半])(?P<share>[百千][分]之(?={_SOME}))?(?P<numeral>{_SOME}+)"
    rf"(?:又(?={_SOME}+分))?(?:(?P<below>(?<=又){_SOME}+)?分[之の](?P<above>{_SOME}+)"
    rf"|[点點・.](?P<decimals>[{_ONE_DIGIT}]+)(?![十百千]|分(?!之))(?P<unit>[万萬亿億兆]*)"
    rf"|割(?:(?P<hundredths>[{_ONE_DIGIT}])分)?(?:(?P<thousandths>[{_ONE_DIGIT}])厘)?"
    rf"|成(?!{_NO_TENTHS})(?P<percent>[{_ONE_DIGIT}](?!{_SOME}))?)?"
)
_TERM = re.compile(rf"(\d+(?:[.,]\d+)*|[{''.join(_DIGITS)}])?\s?({_UNIT})?")
HALF = (
    r"\s?[个個]半(?=小[时時]|[钟鐘]|月|[^\w]|$)"
    r"|\s?(?:時間|小[时時]|[个個]月|年|天|日|週間?|周|倍)半(?![分数數径徑额額])"
)
"""A half behind what is counted: "2个半小时", "2時間半"."""
_HALF = re.compile(HALF)


def numeral_at(text: str, start: int, language: str) -> Run | None:
    """The number in Chinese or Japanese characters at this place; None where there is none.

    It is for what stands behind an answer phrase, for most of these characters are common in words. A percentage is
    the number of its percent, as in digits. It has no value where a term of a sum follows, for a sum comes to another.

    >>> texts = "负十二", "百分之五十", "五点二", "四分之三", "一点五万", "三十加五"
    >>> [str(run and run.value) for run in (numeral_at(text, 0, "zh") for text in texts)]
    ['-12', '50', '26/5', '3/4', '15000', 'None']
    """
    found = _NUMERAL.match(text, start)
    value = _value(found, language) if found else None
    if not found or value is None:
        return None
    run = _run(text, found, value)
    return replace(run, value=None) if _TERM_FOLLOWS.match(text, run.end) else run


def _run(text: str, found: re.Match[str], value: Fraction) -> Run:
    """A match of `_NUMERAL` as a number: with its sign, and with a half behind what is counted."""
    half = _HALF.match(text, found.end())
    if half:
        value += Fraction(1, 2)
    return Run(found.start(), half.end() if half else found.end(), -value if found["minus"] else value)


def _value(found: re.Match[str], language: str) -> Fraction | None:
    """The value of a match of `_NUMERAL` without its sign; None where it is no number."""
    value = east_asian(found["numeral"], language)
    parts = [east_asian(found[name]) for name in ("below", "above") if found[name]]
    if value is None or None in parts:
        return None
    last = found[0][len(found["minus"] or "") + len(found["share"] or "") + len(found["numeral"]) :][:1]
    if found["above"]:
        whole, below = (value, parts[0]) if found["below"] else (Fraction(0), value)
        return (whole or 0) + (parts[-1] or 0) / below if below else None
    if found["decimals"]:
        if len(found["decimals"]) > LONGEST:
            return None
        value += Fraction("0." + "".join(str(_DIGITS[digit]) for digit in found["decimals"]))
        for unit in found["unit"][:4]:
            value *= _BIG[unit]
    elif last in ("割", "成"):
        if not (_is_japanese(language) if last == "割" else is_chinese(language)):
            return None
        value *= 10
        value += _DIGITS[found["percent"] or found["hundredths"] or "〇"]
        value += Fraction(_DIGITS[found["thousandths"] or "〇"], 10)
    return value


def east_asian(numeral: str, language: str = "") -> Fraction | None:
    """The value of a numeral with Chinese, Japanese or Korean units or digits.

    In Chinese, a last digit behind a hundred or more counts the next smaller unit, unless a zero stands between them.
    None for more than 40 digits, and for units that grow again behind smaller ones (2百万30万): these are two numbers.

    >>> [int(east_asian(numeral)) for numeral in ("1万8千", "二百三十", "十八", "二〇二四")]
    [18000, 230, 18, 2024]
    >>> [int(east_asian("二百五", language)) for language in ("zh", "ja")]
    [250, 205]
    """
    numeral = numeral.translate(_FORMAL)
    if sum(character.isdigit() or character in _DIGITS for character in numeral) > LONGEST:
        return None
    if not re.search(r"[十百千万萬亿億兆십백천만억조]", numeral) and len(numeral) > 1:
        return Fraction("".join(str(_DIGITS[character]) for character in numeral))  # 二〇二四
    total = section = Fraction(0)
    pending: Fraction | None = None
    smallest = smallest_big = 10**16
    terms = _TERM.findall(numeral)
    for number, unit in terms:
        if number:
            pending = Fraction(_DIGITS[number]) if number in _DIGITS else _amount(number)
        if unit in _SMALL:
            if _SMALL[unit] >= smallest:
                return None
            smallest = _SMALL[unit]
            section += (1 if pending is None else pending) * _SMALL[unit]
        elif unit in _BIG and total and not number and not section:
            total *= _BIG[unit]  # 2万亿
            if total.numerator.bit_length() > LARGEST:
                return None
        elif unit in _BIG:
            if _BIG[unit] >= smallest_big:
                return None
            smallest, smallest_big = 10**16, _BIG[unit]
            total += (section + (pending or 0) or 1) * _BIG[unit]
            section = Fraction(0)
        if unit:
            pending = None
    behind = terms[-3][1] if len(terms) > 2 else ""  # the last term is empty
    if pending and pending < 10 and behind and _unit(behind) > 10 and len(terms[-2][0]) == 1 and is_chinese(language):
        pending *= Fraction(_unit(behind), 10)
    return total + section + (pending or 0)


def _unit(character: str) -> int:
    return _SMALL.get(character) or _BIG[character]


@cache
def is_chinese(language: str) -> bool:
    """Whether a tag is of Chinese, by any of its names."""
    return not {"zh", "yue"}.isdisjoint(spellings(language))


@cache
def _is_japanese(language: str) -> bool:
    return "ja" in spellings(language)


@cache
def _is_korean(language: str) -> bool:
    return "ko" in spellings(language)


def _amount(raw: str) -> Fraction:
    """Digits in front of a unit; commas group them, and of "1.2.3" (a version, a list) only the last decimal counts."""
    raw = raw.replace(",", "")
    if raw.count(".") > 1:
        raw = joined(raw) if is_grouped(raw) else ".".join(raw.split(".")[-2:])
    return Fraction(raw)


# The numbers of a text without digits.

_OPERATION = "加上?|[减減]去?|[乘除]以?|[たひ][すく]|足す|引く|かける|掛ける|わる|割る|プラス|マイナス"
_SIGN = "[+×÷−*/-]"
_TERM_FOLLOWS = re.compile(rf"\s*(?:{_OPERATION}|{_SIGN})\s*[\d{KANJI}]")
_TERM_PRECEDES = re.compile(rf"(?:{_OPERATION}|[\d{KANJI}]\s*{_SIGN})\s*$")
_NO_QUANTITY_BEFORE = re.compile(r"(?:第|星期|[周週初卷月年号號]|[礼禮]拜|[点點時时]|[^\W\d_]・)\s*$")
"""Behind these a numeral is an ordinal, a day, an hour or a name."""
_LEADS_TO_IT = re.compile(r"(?:^|[\n。,，;；:!?=≈(\[「『“\"*$¥€£\s\ue000]|[是为為得共有剩计計于於到は]|イコール)$")
_ABOUT_BEFORE = re.compile(r"[几幾数數上近约約]$")
_ABOUT = re.compile(r"[几幾多余餘来來数數]")
_ENDS = re.compile(r"\s*(?:です|でした|だ|である|[にと]なる|[にと]なります)?\s*(?:[\n。.!,，;；、)\]」』”\"*\ue001]|$)")
_COUNTER = re.compile(
    r"\s?(?:[个個](?!半)|[名人位口只隻头頭匹条條张張块塊颗顆朵棵支枝枚本册冊件份包袋箱盒瓶杯碗盘盤桶罐篮籃页頁句次遍趟倍岁歲歳辆輛艘架座栋棟"
    r"双雙副套种種題题票组組粒羽皿足]|台(?!山)|美元|美金|[欧歐]元|日元|人民[币幣]|元|円|[镑鎊磅]|[分秒][钟鐘]|秒|小[时時]|[时時]間|分間|[天周]|[年日週]間"
    r"|[かヶカ箇]月|公[里斤尺分][^\W\d_]?|[厘毫]米|米|厘米|克|[公英]?斤|[吨噸]|毫?升|度|平方|立方|学生|人|つ"
    r"|ドル|ユーロ|ポンド|セント|キロ|メートル|センチ|グラム|リットル|パーセント|%)"
)
"""What is counted or measured: behind a numeral it shows that a number is meant."""


def runs_of_characters(text: str, language: str) -> list[Run]:
    """The numbers in characters of a Chinese or Japanese text, where they can be nothing else.

    >>> [str(run.value) for run in runs_of_characters("一起吃了百分之七十五，还剩二十三个，不到三四个", "zh")]
    ['75', '23', 'None']
    >>> runs_of_characters("万一他十分高兴，星期三吃三明治", "zh")
    []
    """
    if not (is_chinese(language) or _is_japanese(language)):
        return []
    return list(_runs(text, language))


def _runs(text: str, language: str) -> Iterator[Run]:
    for found in _NUMERAL.finditer(text):
        start, end = found.span()
        before, unsigned = text[max(start - 4, 0) : start], found.start("share" if found["share"] else "numeral")
        if _NO_QUANTITY_BEFORE.search(before):
            continue
        marked = unsigned + len(found["share"] or "") + len(found["numeral"]) < end or found["share"]
        counted = _COUNTER.match(text, end) or _HALF.match(text, end)
        about = _ABOUT.match(text, end) or _ABOUT_BEFORE.search(before)
        term = _TERM_FOLLOWS.match(text, end) or _TERM_PRECEDES.search(before)
        leads = found["minus"] or _LEADS_TO_IT.search(before)
        if not (marked or counted or about or term or (leads and _ENDS.match(text, end))):
            continue
        value = _value(found, language)
        numerals = [found[name] for name in ("numeral", "below", "above") if found[name]]
        plain = not marked and found["numeral"].translate(_FORMAL)
        if (
            plain
            and not term
            and (plain in ("一", "千", "百") or not set(plain) - set("百千万萬亿億兆"))
            and not (_is_japanese(language) and _is_written(plain, language))
        ):
            continue  # a word: 一个 is an article, 千万 means "by all means", 千克 is a unit
        kilo = plain and plain.endswith("千") and text[end : end + 1] in tuple("克米瓦卡")
        time = found["decimals"] and text[end : end + 1] in tuple("刻半钟鐘分")
        if (
            about
            or kilo
            or time
            or term
            or value is None
            or not all(_is_written(numeral, language) for numeral in numerals)
        ):
            yield Run(start, end, None)
            continue
        yield _run(text, found, value)


def _is_written(numeral: str, language: str) -> bool:
    """Whether a numeral is written as its number is; 二百五, 三四十 and 二〇二四 are not."""
    value = east_asian(numeral, language)
    plain = numeral.translate(_FORMAL).translate(str.maketrans("两兩〇萬億", "二二零万亿"))
    if value is None or value.denominator != 1 or value >= 10**16:
        return False
    if value and (plain[0] == "零" or plain[-1] == "零" or "零零" in plain):
        return False
    plain = plain if plain == "零" else plain.replace("零", "")
    return re.sub("(?<![一二三四五六七八九])(?=[十百千])", "一", plain) == _written(int(value))


def _written(number: int) -> str:
    """A number in Chinese characters, with every 一 and no 零 within."""
    if not number:
        return "零"
    parts = ""
    for big, unit in ((10**12, "兆"), (10**8, "亿"), (10**4, "万"), (1, "")):
        section, number = divmod(number, big)
        for small, name in ((1000, "千"), (100, "百"), (10, "十"), (1, "")):
            digit = section // small % 10
            parts += f"{_ONE_DIGIT[digit + 1]}{name}" if digit else ""
        parts += unit if section else ""
    return parts
