"""Corpus files: what is accepted, and what is refused with the file and the line."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from language_neurons_alignment.corpus.records import Record, read_corpus, records_hash
from language_neurons_alignment.errors import CorpusError

RECORD = {"lang": "en", "instruction": "How many?", "answers": [{"generated": " Two."}, {"generated": ""}]}
EXPECTED = Record("en", "How many?", (" Two.", ""))


def corpus_file(folder: Path, content: str | bytes | list[Any]) -> Path:
    path = folder / "corpus.json"
    if isinstance(content, list):
        content = json.dumps(content)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


@pytest.mark.parametrize(
    "content",
    [
        json.dumps([RECORD]),
        json.dumps([RECORD], indent=2),
        json.dumps(RECORD),
        json.dumps(RECORD) + "\n",
        "\n\n" + json.dumps(RECORD) + "\r\n\r\n",
        b"\xef\xbb\xbf" + json.dumps([RECORD]).encode(),
        b"\xef\xbb\xbf" + json.dumps(RECORD).encode(),
    ],
    ids=["list", "indented", "lines", "newline", "blank lines, CRLF", "list with BOM", "lines with BOM"],
)
def test_a_json_list_and_json_lines_are_read_alike(tmp_path: Path, content: str | bytes) -> None:
    assert read_corpus(corpus_file(tmp_path, content)).records == (EXPECTED,)


TEXTS = [
    "\U0001f600 emoji beyond the basic plane",
    "e\u0301 is not \u00e9",
    "\u05e9\u05dc\u05d5\u05dd \u200fright to left\u200e \u0645\u0631\u062d\u0628\u0627",
    "\u0e1a\u0e49\u0e32\u0e19 \u09ac\u09be\u09a1\u09bc\u09bf",
    "line\u2028separator \u2029 and \x85 next line \x0b \x0c",
    "tab\tnew\nline\r\nreturn\rzero\u200bwidth\u00a0",
    '"quotes" \\ and {braces} [1]',
    "  spaces around  ",
]


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("ascii_only", [True, False])
@pytest.mark.parametrize("lines", [True, False])
def test_any_text_comes_back_character_for_character(tmp_path: Path, text: str, ascii_only: bool, lines: bool) -> None:
    record = {"lang": "ja", "instruction": text, "answers": [{"generated": text}]}
    dumped = json.dumps(record, ensure_ascii=ascii_only)
    path = corpus_file(tmp_path, f"{dumped}\n{dumped}" if lines else f"[{dumped}, {dumped}]")
    assert read_corpus(path).records == (Record("ja", text, (text,)),) * 2


@settings(max_examples=50, deadline=None)
@given(st.text(st.characters(exclude_categories=("Cs",)), min_size=1))
def test_whatever_text_is_stored_is_read(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    records = [{"lang": "en", "instruction": text, "answers": [{"generated": text}]}]
    path = corpus_file(tmp_path_factory.mktemp("corpus"), json.dumps(records, ensure_ascii=False))
    assert read_corpus(path).records == (Record("en", text, (text,)),)


@pytest.mark.parametrize(
    ("name", "code"),
    [("en", "en"), ("EN", "en"), (" English ", "en"), ("ENGLISH", "en"), ("Swahili", "sw"), ("Telugu", "te"),
     ("te", "te"),
     ("Korean", "ko"), ("pt-BR", "pt-BR")],
)  # fmt: skip
def test_languages_are_given_by_code_or_english_name_in_any_case(tmp_path: Path, name: str, code: str) -> None:
    assert read_corpus(corpus_file(tmp_path, [{**RECORD, "lang": name}])).languages == (code,)


def test_languages_are_listed_in_the_order_of_first_occurrence_and_records_kept_in_theirs(tmp_path: Path) -> None:
    records = [
        {**RECORD, "lang": lang, "instruction": str(n)} for n, lang in enumerate(["sw", "en", "Swahili", "fr", "en"])
    ]
    corpus = read_corpus(corpus_file(tmp_path, records))
    assert corpus.languages == ("sw", "en", "fr")
    assert [record.instruction for record in corpus.of_language("sw")] == ["0", "2"]
    with pytest.raises(CorpusError, match=r"no records in 'de': it has sw, en, fr"):
        corpus.of_language("de")


def test_a_record_may_have_no_answers_and_an_id_of_its_own(tmp_path: Path) -> None:
    read = read_corpus(corpus_file(tmp_path, [{**RECORD, "answers": []}, {**RECORD, "id": 7, "more": None}])).records
    assert read[0].answers == ()
    assert read[1].id == "7"


@pytest.mark.parametrize("content", ["", " \n ", "[]", "[\n]", b"\xef\xbb\xbf"])
def test_an_empty_corpus_is_an_error(tmp_path: Path, content: str | bytes) -> None:
    with pytest.raises(CorpusError, match=r"corpus\.json is empty"):
        read_corpus(corpus_file(tmp_path, content))


def test_a_missing_file_a_folder_and_a_file_that_is_no_text_are_errors_in_one_line(tmp_path: Path) -> None:
    for path, named in (
        (tmp_path / "gone.json", "No such file"),
        (tmp_path, "directory"),
        (corpus_file(tmp_path, b"[\xff\xfe"), "not UTF-8 at byte 1"),
    ):
        with pytest.raises(CorpusError, match=named) as caught:
            read_corpus(path)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_list_that_is_cut_off_is_told_with_file_and_line(tmp_path: Path) -> None:
    whole = json.dumps([RECORD] * 3, indent=1)
    for kept in range(2, len(whole) - 1, 7):
        with pytest.raises(CorpusError, match=r"corpus\.json, line \d+: not valid JSON .*cut off"):
            read_corpus(corpus_file(tmp_path, whole[:kept]))


def test_json_lines_that_are_cut_off_are_told_with_file_and_line(tmp_path: Path) -> None:
    lines = f"{json.dumps(RECORD)}\n\n{json.dumps(RECORD)[:-5]}"
    with pytest.raises(CorpusError, match=r"corpus\.json, line 3: not valid JSON"):
        read_corpus(corpus_file(tmp_path, lines))


@pytest.mark.parametrize("key", ["lang", "instruction", "answers"])
def test_a_record_without_a_key_is_told_with_its_number_and_the_key(tmp_path: Path, key: str) -> None:
    torn = {name: value for name, value in RECORD.items() if name != key}
    with pytest.raises(CorpusError, match=rf"corpus\.json, record 2: the record has no '{key}'"):
        read_corpus(corpus_file(tmp_path, [RECORD, torn]))
    with pytest.raises(CorpusError, match=rf"corpus\.json, line 3: the record has no '{key}'"):
        read_corpus(corpus_file(tmp_path, f"{json.dumps(RECORD)}\n\n{json.dumps(torn)}"))


@pytest.mark.parametrize(
    "change",
    [
        {"lang": 5},
        {"lang": None},
        {"instruction": None},
        {"instruction": ["How many?"]},
        {"instruction": ""},
        {"answers": None},
        {"answers": "Two."},
        {"answers": {"generated": "Two."}},
        {"answers": ["Two."]},
        {"answers": [{"text": "Two."}]},
        {"answers": [{"generated": None}]},
        {"lang": "Englisch"},
        {"lang": ""},
        {"instruction": "half a pair \ud83d"},
        {"answers": [{"generated": "\ude00 the other half"}]},
        {"answers": [{"generated": "whole", "note": "\ud83d"}]},
        {"id": "\ud83d"},
        {"target": "\ud83d"},
        {"more": "\ud83d"},
        {"more": [1, {"within": ["\ud83d"]}]},
        {"more": {"\ud83d": 1}},
        {"\ud83d": 1},
    ],
)
def test_a_record_of_other_types_or_unknown_language_is_refused_with_its_number(
    tmp_path: Path, change: dict[str, Any]
) -> None:
    with pytest.raises(CorpusError, match=r"corpus\.json, record 2: ") as caught:
        read_corpus(corpus_file(tmp_path, [RECORD, {**RECORD, **change}]))
    assert "\n" not in str(caught.value)
    str(caught.value).encode()  # can be printed


@pytest.mark.parametrize("item", [5, "text", None, ["en", "How many?"]])
def test_what_is_not_a_record_at_all_is_refused(tmp_path: Path, item: object) -> None:
    with pytest.raises(CorpusError, match=r"record 1: expected a record"):
        read_corpus(corpus_file(tmp_path, [item]))


def test_the_digest_depends_on_what_is_read_and_not_on_how_it_is_written() -> None:
    same = Record("en", "How many?", (" Two.", ""), id="7")
    assert records_hash([EXPECTED]) == records_hash([same])
    others = [
        Record("es", "How many?", (" Two.", "")),
        Record("en", "How many? ", ("Two.", "")),
        Record("en", "How many?", (" Two.",)),
        Record("en", "How many?", ("", " Two.")),
        Record("en", "How many?", ()),
    ]
    assert len({records_hash([one]) for one in (EXPECTED, *others)}) == 6
    assert records_hash([EXPECTED, EXPECTED]) != records_hash([EXPECTED])


@pytest.mark.parametrize("lines", [True, False])
@pytest.mark.parametrize("depth", [1_000, 1_000_000])
def test_brackets_without_end_are_refused_in_one_line(tmp_path: Path, depth: int, lines: bool) -> None:
    deep = json.dumps({**RECORD, "more": "@"}).replace('"@"', "[" * depth + "]" * depth)
    path = corpus_file(tmp_path, f"{json.dumps(RECORD)}\n{deep}" if lines else f"[{json.dumps(RECORD)}, {deep}]")
    with pytest.raises(CorpusError, match=r"corpus\.json, (line|record) \d: brackets are nested") as caught:
        read_corpus(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", ["[" * 1_000_000, '{"a":' * 1_000_000])
def test_a_file_of_opening_brackets_alone_is_refused_in_one_line(tmp_path: Path, content: str) -> None:
    with pytest.raises(CorpusError, match=r"corpus\.json, line 1: ") as caught:
        read_corpus(corpus_file(tmp_path, content))
    assert len(str(caught.value)) < 500


def test_other_keys_are_kept_however_they_are_nested(tmp_path: Path) -> None:
    item = {**RECORD, "more": json.loads("[" * 50 + '"\U0001f600"' + "]" * 50)}
    (record,) = read_corpus(corpus_file(tmp_path, [item])).records
    assert record.as_item() == item


SPELT = [("zho_Hans", "一"), ("cmn", "二"), ("zh-CN", "三"), ("Chinese (Simplified)", "四"), ("zh", "五")]


def test_spellings_of_one_language_in_a_corpus_are_one_language(tmp_path: Path) -> None:
    corpus = read_corpus(corpus_file(tmp_path, [{**RECORD, "lang": lang, "instruction": text} for lang, text in SPELT]))
    assert corpus.languages == ("zh",)
    for spelling, _ in SPELT:
        assert [one.instruction for one in corpus.of_language(spelling)] == [text for _, text in SPELT]


@pytest.mark.parametrize("same", [{"instruction": "一"}, {"id": "7"}, {"instruction": "x", "question": "一"}])
def test_a_record_that_two_spellings_have_is_refused_by_both(tmp_path: Path, same: dict[str, str]) -> None:
    one = {**RECORD, "lang": "zho_Hans", "instruction": "二", **same}
    other = {**one, "lang": "zh", **({} if "instruction" in same else {"instruction": "三"})}
    with pytest.raises(CorpusError, match=r"record 2: 'zh' and 'zho_Hans' \(record 1\) are one language, zh, and both"):
        read_corpus(corpus_file(tmp_path, [one, other]))


def test_a_record_twice_in_one_spelling_is_no_matter_of_spelling(tmp_path: Path) -> None:
    assert len(read_corpus(corpus_file(tmp_path, [{**RECORD, "lang": "zho_Hans"}] * 2)).records) == 2


def test_reading_many_records_with_long_tags_stays_fast(tmp_path: Path) -> None:
    tags = ("zho_Hans", "ben_Beng", "swh_Latn", "arb_Arab", "kor_Hang")
    path = corpus_file(tmp_path, [{**RECORD, "lang": tag, "instruction": f"{n}?"} for n in range(500) for tag in tags])
    read_corpus(path)
    begin = time.perf_counter()
    assert len(read_corpus(path).records) == 2500
    assert time.perf_counter() - begin < 1


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        ('"lang": "fr"', "the key 'lang' is there twice"),
        ('"x": {"a": 1, "a": 2}', "the key 'a' is there twice"),
        ('"target": NaN', "NaN is no number of JSON"),
        ('"x": [-Infinity]', "-Infinity is no number of JSON"),
        ('"x": 1e999', "JSON has no number inf"),
        (f'"id": {"9" * 5000}', "5000 digits"),
    ],
)
@pytest.mark.parametrize("lines", [True, False])
def test_json_that_means_two_things_or_cannot_be_written_again_is_refused(
    tmp_path: Path, extra: str, said: str, lines: bool
) -> None:
    record = f'{{"lang": "en", "instruction": "1 + 1?", "answers": [], {extra}}}'
    with pytest.raises(CorpusError, match=re.escape(said)) as refused:
        read_corpus(corpus_file(tmp_path, record if lines else f"[{record}]"))
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 500


def test_a_nul_in_a_path_is_one_line() -> None:
    with pytest.raises(CorpusError, match="cannot read the corpus"):
        read_corpus(Path("a\0b.json"))
