"""Building and checking a corpus: the use-cases."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from language_neurons_alignment import build_dataset, check_dataset, read_corpus
from language_neurons_alignment.corpus.records import Record, records_hash
from language_neurons_alignment.errors import ConflictError, CorpusError, MissingPackageError, SettingsError
from language_neurons_alignment.languages import DEFAULT_LANGUAGES
from language_neurons_alignment.sources.source import SourceOptions
from language_neurons_alignment.sources.tables import ColumnNames
from language_neurons_alignment.store import answers
from tests.conftest import shared_folder
from tests.tiny_models import MAX_LENGTH, save_tiny_model, tiny_tokenizer
from tests.workspace import contents, full_disk, leftovers, small_records, write_corpus

TEXT = {"te.txt": "ఇల్లు పెద్దది.\nచెట్టు ఎత్తుగా ఉంది.\n", "en.txt": "The house is big.\nThe tree is tall.\n"}
TABLE = "lang\tid\tq\ta\nen\t1\tHow many?\tTwo.\nSW\t1\tNgapi?\tMbili.\n"
COLUMNS = SourceOptions(columns=ColumnNames("q", lang="lang", id="id", answers="a"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    home = tmp_path / "text"
    home.mkdir()
    for name, text in TEXT.items():
        (home / name).write_text(text, encoding="utf-8")
    return home


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    path = tmp_path / "questions.tsv"
    path.write_text(TABLE, encoding="utf-8")
    return path


def items(path: Path) -> list[dict[str, Any]]:
    return json.loads(path.read_text(encoding="utf-8"))


def test_a_folder_becomes_a_corpus_the_default_languages_first(folder: Path, tmp_path: Path) -> None:
    built = build_dataset(folder, tmp_path / "out" / "c.json")
    assert read_corpus(built.path).records == built.records
    assert [(one.language, one.id) for one in built.records] == [("en", "1"), ("en", "2"), ("te", "1"), ("te", "2")]
    assert built.rows() == [("en", 2, 0, 34), ("te", 2, 0, 34)]


def test_a_table_s_gold_answers_follow_the_template_and_everything_is_recorded(questions: Path, tmp_path: Path) -> None:
    built = build_dataset(questions, tmp_path / "c.json", template="instruct", options=COLUMNS, limit=1, seed=3)
    item = items(built.path)[1]
    assert item["question"] == "Ngapi?"
    assert item["instruction"].endswith("### Instruction:\nNgapi?\n\n### Response:")
    assert item["answers"] == [{"generated": " Mbili."}]
    recorded = item["built"]
    assert (recorded["source"], recorded["limit"], recorded["seed"]) == (str(questions), 1, 3)
    assert recorded["columns"] == {"instruction": "q", "lang": "lang", "id": "id", "answers": "a"}
    assert recorded["template"]["name"] == "instruct"
    assert "{question}" in recorded["template"]["text"]
    assert recorded["digest"] == records_hash(
        [Record("en", "How many?", ("Two.",)), Record("sw", "Ngapi?", ("Mbili.",))]
    )


def test_what_the_reader_takes_from_a_record_is_as_before(tmp_path: Path) -> None:
    bare = Record("en", "How many?", (" Two.",))
    more = Record("en", "How many?", (" Two.",), id="1", target="2", question="How many")
    assert records_hash([bare]) == records_hash([more])
    path = write_corpus(tmp_path / "c.json", [{**more.as_item(), "other": [1]}])
    (read,) = read_corpus(path).records
    assert read == more
    assert read.as_item() == {**more.as_item(), "other": [1]}


def test_the_same_corpus_again_is_left_alone_and_another_one_needs_force(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    assert not build_dataset(folder, path).reused
    assert build_dataset(folder, path).reused
    before = contents(tmp_path)
    with pytest.raises(ConflictError, match=r"c\.json is there and holds something else: use --force"):
        build_dataset(folder, path, limit=1)
    assert contents(tmp_path) == before
    assert len(build_dataset(folder, path, limit=1, overwrite=True).records) == 2


def test_a_full_disk_leaves_what_was_there_and_nothing_half_written(folder: Path, tmp_path: Path) -> None:
    path = build_dataset(folder, tmp_path / "c.json").path
    before = path.read_bytes()
    with full_disk("fsync"), pytest.raises(Exception, match="disk is full"):
        build_dataset(folder, path, limit=1, overwrite=True)
    assert path.read_bytes() == before
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"source": "mgsm", "options": SourceOptions(lang="te")}, "the columns of mgsm are known"),
        ({"source": "mgsm", "options": SourceOptions(folder=Path(), revision="x")}, "--revision is the hub's"),
        ({"options": SourceOptions(split="test")}, "--split is for mgsm, msvamp, flores only"),
        ({"options": SourceOptions(lang="te")}, "each file's name says its language"),
        ({"template": "chat"}, "say which with --model-path"),
        ({"template": "nosuch"}, "no template 'nosuch': choose plain, instruct, chat, or give a file"),
        ({"model_path": "m"}, "--model-path is for --template chat only"),
        ({"languages": "xx"}, "unknown language 'xx'"),
    ],
)
def test_what_does_not_go_together_is_wrong_usage(
    folder: Path, tmp_path: Path, given: dict[str, Any], said: str
) -> None:
    with pytest.raises(SettingsError, match=said):
        build_dataset(**{"source": folder, "output": tmp_path / "c.json", **given})
    assert not (tmp_path / "c.json").exists()


def test_flags_that_would_do_nothing_for_a_table_are_wrong_usage(questions: Path, tmp_path: Path) -> None:
    both = SourceOptions(columns=ColumnNames("q", lang="lang"), lang="te")
    for options, said in (
        (both, "both say the language"),
        (SourceOptions(aligned=False), "--unaligned is for a folder"),
    ):
        with pytest.raises(SettingsError, match=said):
            build_dataset(questions, tmp_path / "c.json", options=options)


def test_a_source_that_is_not_there_or_has_no_question_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="no source 'nosuch': give mgsm, msvamp, flores, or the path"):
        build_dataset("nosuch", tmp_path / "c.json")
    (tmp_path / "empty.csv").write_text("lang,q\nen,\n")
    with pytest.raises(CorpusError, match="no question at all"):
        build_dataset(
            tmp_path / "empty.csv", tmp_path / "c.json", options=SourceOptions(columns=ColumnNames("q", lang="lang"))
        )


def test_the_model_s_own_chat_template_is_recorded_by_its_digest(folder: Path, tmp_path: Path) -> None:
    model = tmp_path / "chatty"
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = (
        "{{ bos_token }}{% for m in messages %}[{{ m.role }}] {{ m.content }}{% endfor %}[assistant]"
    )
    tokenizer.save_pretrained(model)
    built = build_dataset(folder, tmp_path / "c.json", template="chat", model_path=str(model))
    assert built.records[0].instruction == "[user] The house is big.[assistant]"
    assert built.records[0].question == "The house is big."
    assert built.special == ()
    assert built.built["template"]["model"] == str(model)
    assert len(built.built["template"]["digest"]) == 32


@pytest.mark.parametrize(("name", "questions"), [("mgsm", 250), ("msvamp", 1000)])
def test_the_real_benchmarks_are_built_and_found_without_an_error(tmp_path: Path, name: str, questions: int) -> None:
    built = build_dataset(name, tmp_path / "c.json", options=SourceOptions(folder=shared_folder(f"data/{name}")))
    checked = check_dataset(built.path, identify=False)
    assert [(one.language, one.records) for one in checked.languages] == [
        (code, questions) for code in DEFAULT_LANGUAGES
    ]
    assert checked.errors == ()
    warned = {problem.message.split("question in ")[1][:4] for problem in checked.problems}
    assert warned == (set() if name == "mgsm" else {"'bn'", "'th'"})  # MSVAMP repeats questions in Bengali and Thai


def test_a_good_corpus_has_no_problem(tmp_path: Path) -> None:
    checked = check_dataset(write_corpus(tmp_path / "c.json", small_records(questions=1)))
    assert checked.problems == ()
    assert len(checked.languages) == 10


def test_a_bad_file_gives_all_its_problems_with_their_lines(tmp_path: Path) -> None:
    good = small_records(("en", "es"), questions=2)
    lines = [json.dumps(one) for one in good]
    lines[1:1] = ['{"lang": "en", "instr', '{"lang": "Klingonish", "instruction": "a", "answers": []}', "[]"]
    lines += ['{"lang": "en", "instruction": "  ", "answers": []}']
    path = tmp_path / "c.jsonl"
    path.write_text("\n".join(lines), encoding="utf-8")
    errors = [problem.message for problem in check_dataset(path, identify=False).errors]
    assert [message.split(", ")[1].split(":")[0] for message in errors] == ["line 2", "line 3", "line 4", "line 8"]
    assert check_dataset(path, identify=False).languages[0].records == 3


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "is empty"),
        ("[", "not valid JSON"),
        ('[\n{"lang": "en"},\n{"la', "line 3: not valid JSON"),
        ("[5]", "got int"),
    ],
)
def test_a_file_with_no_record_at_all_is_an_error_that_says_why(tmp_path: Path, content: str, said: str) -> None:
    path = tmp_path / "c.json"
    path.write_text(content)
    checked = check_dataset(path)
    assert said in checked.errors[0].message
    assert checked.languages == ()


def test_tokens_are_the_model_s_and_overlong_sequences_are_warned_of(tmp_path: Path) -> None:
    model = save_tiny_model("llama", tmp_path / "tiny")
    records = [
        {"lang": "en", "instruction": "x" * MAX_LENGTH, "answers": []},
        {"lang": "en", "instruction": "xa", "answers": [{"generated": "bx"}]},
    ]
    checked = check_dataset(write_corpus(tmp_path / "c.json", records), model_path=str(model), identify=False)
    (one,) = checked.languages
    assert checked.max_length == MAX_LENGTH
    assert (one.overlong, one.merges, one.tokens) == (1, 1, (MAX_LENGTH + 1) + 3 + 1)
    assert [problem.kind for problem in checked.problems] == ["length"]


def test_without_lingua_languages_are_not_told_only_if_one_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_corpus(tmp_path / "c.json")
    monkeypatch.setitem(sys.modules, "lingua", None)
    with pytest.raises(MissingPackageError, match="lingua"):
        check_dataset(path)
    assert check_dataset(path, identify=False).errors == ()


def test_a_corpus_that_is_there_already_leaves_nothing_of_a_killed_process(tmp_path: Path) -> None:
    file, items = tmp_path / "built.json", [{"language": "en", "instruction": "1 + 1?"}]
    assert answers.write_corpus(file, items)
    (tmp_path / ".built.json.e34d0008.part").write_text("half")
    assert not answers.write_corpus(file, items)
    assert [one.name for one in tmp_path.iterdir()] == ["built.json"]
