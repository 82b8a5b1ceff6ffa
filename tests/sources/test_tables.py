"""Tables: what is read character for character, what is refused with the file and the line, and tags of languages."""

from __future__ import annotations

import csv
import json
import sys
import time
from array import array
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from language_neurons_alignment.errors import CorpusError, MissingPackageError, SettingsError
from language_neurons_alignment.sources.tables import ColumnNames, gather, read_rows

COLUMNS = ColumnNames("q", lang="lang", id="id", answers="a", target="n")
HARD = [
    'tab\there, "quotes", and\na line break',
    "مرحبا بكم \u200f\u202bשלום\u202c",
    "e\u0301 is not \u00e9, বাড়ি, บ้าน, 👩\u200d👩\u200d👧",
    "line\u2028separator \x85 next line \x0b\x0c \u00a0nbsp",
    "  spaces around  ",
    "{question} {0} \\n \\",
]


def file_of(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def rows_of(path: Path, *, header: bool = True, quotes: bool = True) -> list[dict[str, object]]:
    return [row for row, _ in read_rows(path, header=header, quotes=quotes)]


def write_table(path: Path, rows: list[dict[str, str]]) -> Path:
    """The same rows in any of the formats."""
    if path.suffix == ".parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows), encoding="utf-8")
    elif path.suffix == ".jsonl":
        path.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows), encoding="utf-8")
    else:
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]), delimiter="\t" if path.suffix == ".tsv" else ",")
            writer.writeheader()
            writer.writerows(rows)
    return path


@pytest.mark.parametrize("ending", [".tsv", ".csv", ".json", ".jsonl", ".parquet"])
@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"], ids=["", "with BOM"])
def test_every_format_gives_hard_texts_back_character_for_character(tmp_path: Path, ending: str, bom: bytes) -> None:
    rows = [{"lang": "en", "q": text} for text in HARD]
    path = write_table(tmp_path / f"table{ending}", rows)
    if ending != ".parquet":
        path.write_bytes(bom + path.read_bytes())
    assert rows_of(path) == rows


@given(st.lists(st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0")), min_size=1, max_size=4))
def test_whatever_text_python_writes_as_csv_is_read(tmp_path_factory: pytest.TempPathFactory, texts: list[str]) -> None:
    rows = [{"n": "1", "q": text} for text in texts]
    assert rows_of(write_table(tmp_path_factory.mktemp("csv") / "t.tsv", rows)) == rows


def test_ten_megabytes_in_one_field_are_one_field_and_the_csv_module_is_left_as_it_was(tmp_path: Path) -> None:
    before, started = csv.field_size_limit(), time.monotonic()
    text = "बहुत লম্বা text " * 400_000
    assert len(text.encode()) > 10_000_000
    assert rows_of(file_of(tmp_path, "big.tsv", f'q\tn\n"{text}"\t1\n'))[0]["q"] == text
    assert csv.field_size_limit() == before
    assert time.monotonic() - started < 10


def test_columns_without_a_header_are_numbered_and_quotes_can_be_plain(tmp_path: Path) -> None:
    path = file_of(tmp_path, "t.tsv", '"Two" she said\t2\r\n\r\nThree\t3\r\n')
    assert rows_of(path, header=False, quotes=False) == [
        {"1": '"Two" she said', "2": "2"},
        {"1": "Three", "2": "3"},
    ]
    with pytest.raises(CorpusError, match=r"t\.tsv, line 1: .*--no-quotes"):
        rows_of(path)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.tsv", "q\tn\none\t1\ntwo\n", r"a\.tsv, line 3: columns found: 1, expected: 2 \(q, n\)"),
        ("a.csv", 'q,n\n"x\ny",1\nb,2,3\n', r"a\.csv, line 4: columns found: 3, expected: 2"),
        ("a.csv", 'q,n\nfine,1\n"never ends,2\nmore,3\n', r"a\.csv, line 3: unexpected end of data"),
        ("a.csv", "q,q\n1,2\n", r"a\.csv, line 1: the column 'q' is there twice"),
        ("a.csv", b"q\nfine\nT\xfcr\n", r"a\.csv: not UTF-8 at byte 8, line 3"),
        ("a.tsv", "q\tn\n", r"a\.tsv has no rows"),
        ("a.tsv", "", r"a\.tsv has no rows"),
        ("a.jsonl", '{"q": "one"}\n{"q": "tw', r"a\.jsonl, line 2: not valid JSON"),
        ("a.json", '[{"q": "one"},\n{"q": "tw', r"a\.json, line 2: not valid JSON .* cut off"),
        ("a.jsonl", '{"q": "one"}\n["q"]', r"a\.jsonl, line 2: expected an object .* got list"),
        ("a.parquet", b"PAR1 no", r"cannot read .*a\.parquet: .*; is it a whole Parquet file"),
        ("a.xlsx", b"", r"a\.xlsx is no table: expected a file ending in \.tsv"),
    ],
)
def test_a_damaged_table_is_refused_in_one_line_with_the_file_and_the_line(
    tmp_path: Path, name: str, content: str | bytes, said: str
) -> None:
    with pytest.raises(CorpusError, match=said) as caught:
        rows_of(file_of(tmp_path, name, content))
    assert "\n" not in str(caught.value)


def test_parquet_with_text_that_is_not_utf_8_is_refused_in_one_line(tmp_path: Path) -> None:
    """pyarrow writes and reads such a column; only making texts of it fails."""
    offsets, data = pyarrow.py_buffer(array("i", [0, 3, 7])), pyarrow.py_buffer(b"oneT\xfcr\n")
    broken = pyarrow.StringArray.from_buffers(2, offsets, data)
    pyarrow.parquet.write_table(pyarrow.table({"q": broken}), tmp_path / "t.parquet")
    with pytest.raises(CorpusError, match=r"cannot read .*t\.parquet: .*utf-8.*; is it a whole Parquet file") as caught:
        rows_of(tmp_path / "t.parquet")
    assert "\n" not in str(caught.value)


def test_an_empty_number_in_parquet_is_no_id_and_no_target(tmp_path: Path) -> None:
    """Other tools leave NaN there; "nan" would be one id for all, and a target that no answer has."""
    nan = float("nan")
    table = {"q": ["one", "two", "three"], "lang": ["en"] * 3, "id": [nan, 2.0, None], "n": [1.5, nan, None]}
    pyarrow.parquet.write_table(pyarrow.table(table), tmp_path / "t.parquet")
    columns = ColumnNames("q", lang="lang", id="id", target="n")
    records = gather(read_rows(tmp_path / "t.parquet"), columns).records
    assert [(one.id, one.target) for one in records] == [(None, "1.5"), ("2.0", None), (None, None)]


def test_flags_for_tsv_and_csv_are_refused_for_other_tables(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"for TSV and CSV, and .*t\.jsonl is neither"):
        rows_of(file_of(tmp_path, "t.jsonl", "{}"), quotes=False)


def test_without_pyarrow_the_error_names_the_command_that_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_table(tmp_path / "t.parquet", [{"q": "one"}])
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingPackageError, match=r"pyarrow.*pip install 'language_neurons_alignment\[data\]'"):
        rows_of(path)


ROW = {"lang": "EN", "id": 7, "q": "How many?", "a": [{"generated": "Two."}, "2"], "n": 2}


def test_columns_become_a_record() -> None:
    gathered = gather([(ROW, "here"), ({**ROW, "q": " "}, "here"), ({**ROW, "q": None}, "here")], COLUMNS)
    (record,) = gathered.records
    assert (record.language, record.instruction, record.answers) == ("en", "How many?", ("Two.", "2"))
    assert (record.id, record.target, record.question) == ("7", "2", None)
    assert gathered.empty == 2


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({**ROW, "lang": "Klingonish"}, "t.csv, line 2: unknown language 'Klingonish'"),
        ({**ROW, "q": 5}, "t.csv, line 2: the column 'q' must hold text, got int; choose with --instruction-column"),
        ({**ROW, "a": 5}, "t.csv, line 2: an answer must be a text"),
        ({**ROW, "q": "half \ud83d"}, "t.csv, line 2: character 6 of a text is half of a surrogate pair"),
        *(
            (
                {key: value for key, value in ROW.items() if key != gone},
                f"line 2: there is no column '{gone}': .*{flag}$",
            )
            for gone, flag in [
                ("q", "--instruction-column"),
                ("lang", "--lang-column"),
                ("id", "--id-column"),
                ("a", "--answers-column"),
                ("n", "--target-column"),
            ]
        ),
    ],
)
def test_a_wrong_cell_and_a_missing_column_are_refused_with_their_line(row: dict[str, object], said: str) -> None:
    with pytest.raises(CorpusError, match=said):
        gather([(row, "t.csv, line 2")], COLUMNS)


def test_a_table_that_does_not_say_its_language_is_wrong_usage() -> None:
    with pytest.raises(SettingsError, match=r"--lang-column, or .*--lang"):
        gather([(ROW, "here")], ColumnNames("q"))
    assert gather([(ROW, "here")], ColumnNames("q"), language="te").records[0].language == "te"


def test_two_spellings_of_a_language_in_a_column_are_one_language() -> None:
    rows = [({"q": text, "lang": tag}, f"t.csv, line {n}") for n, (text, tag) in enumerate(
        [("一", "zho_Hans"), ("二", "cmn"), ("三", "Chinese (Simplified)"), ("四", "zh-CN")], start=2
    )]  # fmt: skip
    records = gather(rows, ColumnNames("q", lang="lang")).records
    assert {record.language for record in records} == {"zh"}


def test_a_question_under_two_spellings_of_a_column_is_refused() -> None:
    rows = [({"q": "一", "lang": tag}, f"t.csv, line {n}") for n, tag in enumerate(("zho_Hans", "zh"), start=2)]
    with pytest.raises(CorpusError, match=r"line 3: 'zh' and 'zho_Hans' \(line 2\) are one language, zh"):
        gather(rows, ColumnNames("q", lang="lang"))


FLORES_ROWS = [
    {"iso_639_3": iso, "iso_15924": script, "glottocode": variety, "id": 1, "text": text}
    for iso, script, variety, text in (
        ("kas", "Arab", "kash1277", "a"),
        ("kas", "Deva", "kash1277", "b"),
        ("cmn", "Hant", "taib1240", "c"),
        ("swh", "Latn", "swah1253", "d"),
    )
]


@pytest.mark.parametrize("column", ["iso_639_3", "glottocode"])
def test_the_columns_of_flores_plus_say_language_and_script(column: str) -> None:
    rows = [(row, f"flores.parquet, row {n}") for n, row in enumerate(FLORES_ROWS, start=1)]
    records = gather(rows, ColumnNames("text", lang=column, id="id")).records
    assert [record.language for record in records] == ["ks", "ks-Deva", "zh-Hant", "sw"]


def test_two_varieties_of_one_language_in_a_table_of_flores_plus_are_refused() -> None:
    rows = [
        ({"iso_639_3": "cat", "iso_15924": "Latn", "glottocode": variety, "id": 1, "text": variety}, f"f, row {n}")
        for n, variety in enumerate(("stan1289", "vale1252"), start=1)
    ]
    with pytest.raises(
        CorpusError, match=r"'cat_Latn_vale1252' and 'cat_Latn_stan1289' \(row 1\) are one language, ca"
    ):
        gather(rows, ColumnNames("text", lang="iso_639_3", id="id"))
