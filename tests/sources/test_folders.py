"""Folders with a file for each language."""

from __future__ import annotations

from pathlib import Path

import pytest

from language_neurons_alignment.errors import CorpusError, SettingsError
from language_neurons_alignment.sources.folders import read_folder
from language_neurons_alignment.sources.tables import DEFAULT_COLUMNS, ColumnNames, Gathered

TEXT = {"eng_Latn.dev": "One.\nTwo.\n", "te.txt": "ఒకటి.\r\nరెండు.\r\n", "Swahili.txt": "Moja.\nMbili."}


def folder_of(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).write_bytes(text.encode())
    return folder


def read(folder: Path, *languages: str, columns: ColumnNames = DEFAULT_COLUMNS, aligned: bool = True) -> Gathered:
    return read_folder(folder, languages or None, columns=columns, aligned=aligned)


def test_each_line_of_each_file_is_a_record_with_the_line_s_number_as_its_id(tmp_path: Path) -> None:
    (tmp_path / ".hidden").write_text("x")
    (tmp_path / "notes").mkdir()
    gathered = read(folder_of(tmp_path, TEXT))
    assert {(r.language, r.id): r.instruction for r in gathered.records} == {
        ("en", "1"): "One.", ("en", "2"): "Two.", ("te", "1"): "ఒకటి.", ("te", "2"): "రెండు.",
        ("sw", "1"): "Moja.", ("sw", "2"): "Mbili.",
    }  # fmt: skip


def test_an_empty_line_is_left_out_and_the_others_keep_their_numbers(tmp_path: Path) -> None:
    gathered = read(folder_of(tmp_path, {"en.txt": "One.\n\nThree.\n", "te.txt": "ఒకటి.\nరెండు.\nమూడు.\n"}))
    assert [record.id for record in gathered.records] == ["1", "3", "1", "2", "3"]
    assert gathered.empty == 1


def test_only_line_breaks_end_a_line(tmp_path: Path) -> None:
    line = "one\u2028still \x85 one \x0b\x0c\x1c and\rone"
    assert [r.instruction for r in read(folder_of(tmp_path, {"en.txt": line})).records] == [line]


def test_the_languages_wanted_come_in_their_order_and_other_files_do_not_matter(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, {**TEXT, "README.md": "about"})
    assert [r.language for r in read(folder, "te", "en").records] == ["te", "te", "en", "en"]
    with pytest.raises(CorpusError, match=r"README\.md: its name does not begin with a language"):
        read(folder)


def test_files_of_unequal_length_are_not_the_same_sentences_unless_one_says_so(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, {"en.txt": "One.\nTwo.\n", "te.txt": "ఒకటి.\n"})
    with pytest.raises(CorpusError, match=r"different numbers of lines \(en\.txt 2, te\.txt 1\)"):
        read(folder)
    assert {record.id for record in read(folder, aligned=False).records} == {None}


def test_a_table_for_each_language_is_read_by_its_columns(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, {"en.tsv": "q\tn\nOne?\t1\n", "te.tsv": "q\tn\nఒకటి?\t1\n"})
    gathered = read(folder, columns=ColumnNames("q", target="n"))
    assert [(r.language, r.instruction, r.target) for r in gathered.records] == [
        ("en", "One?", "1"),
        ("te", "ఒకటి?", "1"),
    ]


def test_text_files_have_no_columns_to_name(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"en\.txt is text, .* has no columns"):
        read(folder_of(tmp_path, {"en.txt": "One.\n"}), columns=ColumnNames(answers="a"))


@pytest.mark.parametrize(
    ("files", "languages", "said"),
    [
        ({"en.txt": "x", "eng_Latn.txt": "x"}, (), r"two files in 'en': en\.txt and eng_Latn\.txt"),
        ({"en.txt": "x"}, ("en", "te", "ko"), "has no file for te, ko: it has en"),
        ({}, (), "has no file for any language: it has none"),
    ],
)
def test_a_folder_with_too_many_or_too_few_files_is_refused(
    tmp_path: Path, files: dict[str, str], languages: tuple[str, ...], said: str
) -> None:
    with pytest.raises(CorpusError, match=said):
        read(folder_of(tmp_path, files), *languages)


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="there is no folder"):
        read(tmp_path / "gone")
