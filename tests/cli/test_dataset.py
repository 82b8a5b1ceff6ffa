"""`lna dataset`: build, check, templates, as users type them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Lna
from tests.conftest import shared_folder
from tests.tiny_models import save_tiny_model, tiny_tokenizer
from tests.workspace import small_records, write_corpus


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a table, which is the current one."""
    monkeypatch.chdir(tmp_path)
    rows = 'lang,id,question,number\nEN,1,"How many, in all?",2\nTelugu,1,మొత్తం ఎన్ని?,2\nte,2,ఎన్ని?,3\n'
    (tmp_path / "q.csv").write_text(rows, encoding="utf-8-sig")
    return tmp_path


TABLE = ("--instruction-column", "question", "--lang-column", "lang", "--id-column", "id", "--target-column", "number")


def test_build_prints_a_table_and_the_file_and_records_every_key(lna: Lna, here: Path) -> None:
    call = lna("dataset", "build", "q.csv", "-o", "datasets/q.json", *TABLE)
    assert (call.code, call.err) == (0, "")
    assert call.lines[0].split() == ["language", "records", "answers", "characters"]
    assert call.lines[2].split() == ["English", "1", "0", "17"]
    assert call.lines[-1] == str(Path("datasets/q.json"))
    first = json.loads((here / "datasets" / "q.json").read_text(encoding="utf-8"))[0]
    assert list(first) == ["lang", "id", "target", "instruction", "answers", "built"]
    assert (first["lang"], first["id"], first["target"], first["instruction"]) == ("en", "1", "2", "How many, in all?")


def test_build_in_json_says_what_was_made_and_how(lna: Lna, here: Path) -> None:
    shown = lna("dataset", "build", "q.csv", "-o", "q.json", *TABLE, "--langs", "te,en", "--limit", 1, "--json").json
    assert shown["languages"][0] == {"language": "te", "records": 1, "answers": 0, "characters": 13}
    assert [one["language"] for one in shown["languages"]] == ["te", "en"]
    assert shown["built"]["limit"] == 1
    assert not shown["reused"]


def test_what_build_left_out_or_did_not_do_is_said_on_stderr(lna: Lna, here: Path) -> None:
    (here / "q.csv").write_text("lang,question\nen,Why?\nen,\n", encoding="utf-8")
    command = ("dataset", "build", "q.csv", "-o", "q.json", *TABLE[:4], "--limit", 9)
    call = lna(*command)
    assert "left out: 1 places in the source with no question" in call.err
    assert "--limit 9: only 1 questions are there in every language" in call.err
    assert "there already, the same in every byte" in lna(*command).err


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (
            ("q.csv", *TABLE[2:]),
            1,
            "q.csv, line 2: there is no column 'instruction': it has lang, id, question, number",
        ),
        (("q.csv", *TABLE[:2]), 2, "name the column that holds it with --lang-column"),
        (("q.csv", *TABLE, "--langs", "en,ko"), 1, "nothing in ko"),
        (("nosuch", *TABLE), 1, "no source 'nosuch'"),
        (("mgsm", "--from", "nowhere"), 1, "mgsm_en.tsv"),
        (("mgsm", "--split", "dev"), 2, "choose --split from test, exemplars"),
        (("q.csv", *TABLE, "--template", "mine.txt"), 2, "no template 'mine.txt'"),
    ],
)
def test_build_explains_what_it_cannot_do_in_one_line(
    lna: Lna, here: Path, arguments: tuple[str, ...], code: int, said: str
) -> None:
    call = lna("dataset", "build", *arguments, "-o", "q.json")
    assert (call.code, call.out) == (code, "")
    assert said in call.err
    assert call.err.count("\n") == 1
    assert not (here / "q.json").exists()


def test_check_prints_the_table_and_no_problem(lna: Lna, here: Path) -> None:
    write_corpus(here / "c.json", small_records(("en", "sw")))
    call = lna("dataset", "check", "c.json")
    assert (call.code, call.err) == (0, "")
    assert [line.split()[0] for line in call.lines[2:4]] == ["English", "Swahili"]
    assert call.lines[-1] == "0 errors, 0 warnings"


def test_check_with_a_model_counts_its_tokens(lna: Lna, here: Path) -> None:
    save_tiny_model("llama", here / "tiny")
    write_corpus(here / "c.json", small_records(("en",), questions=1))
    call = lna("dataset", "check", "c.json", "--model-path", "tiny")
    assert call.lines[0].split()[4:] == ["tokens", "tokens/character", "overlong", "merges"]
    shown = lna("dataset", "check", "c.json", "--model-path", "tiny", "--json").json
    assert shown["languages"][0]["tokens"] == int(call.lines[2].split()[4])
    assert shown["max_length"] == 2048


def test_check_lists_errors_before_warnings_and_exits_with_1(lna: Lna, here: Path) -> None:
    records = [{**one, "id": "1"} for one in small_records(("en", "es"), questions=2)]
    write_corpus(here / "c.json", [*records, *[{"lang": "en"}] * 12])
    call = lna("dataset", "check", "c.json", "--no-language-id")
    assert call.code == 1
    assert call.err == "lna: c.json: 14 errors, 0 warnings; fix the errors that are listed, then check it again\n"
    assert "error (schema): c.json, record 5: the record has no 'instruction' and no 'answers'" in call.out
    assert "  … and 2 more of this kind: see --json" in call.out
    shown = lna("dataset", "check", "c.json", "--no-language-id", "--json")
    assert shown.code == 1
    assert len(shown.json["problems"]) == shown.json["errors"] == 14


def test_templates_shows_each_of_them(lna: Lna) -> None:
    call = lna("dataset", "templates")
    assert [line for line in call.lines if line and not line.startswith(" ")] == ["plain", "instruct", "chat", "FILE"]
    assert "  | ### Response:" in call.lines
    assert lna("dataset", "templates", "--json").json["plain"]["text"] == "{question}"


def test_templates_shows_a_model_s_own_or_says_that_it_has_none(lna: Lna, here: Path) -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.save_pretrained(here / "plain")
    tokenizer.chat_template = (
        "{{ bos_token }}{% for m in messages %}<{{ m.role }}>\n{{ m.content }}{% endfor %}{{ '\\n' }}<bot>"
    )
    tokenizer.save_pretrained(here / "chatty")
    call = lna("dataset", "templates", "--model-path", "chatty")
    assert call.lines[call.lines.index("chat") + 2 :][:3] == ["  | <user>", "  | {question}", "  | <bot>"]
    call = lna("dataset", "templates", "--model-path", "plain")
    assert (call.code, call.out) == (2, "")
    assert "the model at plain has no chat template" in call.err


def test_mgsm_in_eleven_languages_is_built_and_checked(lna: Lna, here: Path) -> None:
    langs = "en,ru,es,fr,de,zh,ja,bn,th,sw,te"
    mgsm = shared_folder("data/mgsm")
    assert lna("dataset", "build", "mgsm", "--from", mgsm, "--langs", langs, "-o", "mgsm.json").code == 0
    call = lna("dataset", "check", "mgsm.json", "--json")
    assert call.code == 0
    assert [(one["language"], one["records"]) for one in call.json["languages"]] == [(c, 250) for c in langs.split(",")]
    assert call.json["problems"] == []
