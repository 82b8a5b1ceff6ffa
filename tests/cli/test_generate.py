"""`lna generate`, and `lna run` on questions: flags, tables, notes, errors in one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import processors

from language_neurons_alignment.store.answers import Journal
from tests.cli.conftest import Lna
from tests.cli.test_commands import assert_one_line
from tests.tiny_models import tiny_tokenizer
from tests.workspace import contents, small_records, write_corpus

FEW = ("--max-new-tokens", 4)


@pytest.fixture
def asked(here: Path) -> Path:
    """The tiny model and questions in three languages; the current folder."""
    write_corpus(here / "q.json", [{**one, "answers": []} for one in small_records(("en", "es", "sw"), questions=2)])
    return here


def generated(path: str) -> list[dict[str, Any]]:
    return json.loads(Path(path).read_text(encoding="utf-8"))


def test_answers_are_written_shown_by_language_and_kept_the_next_time(lna: Lna, asked: Path) -> None:
    command = ("generate", "--model-path", "tiny-llama", "-d", "q.json", "-o", "out/a.json", *FEW)
    first = lna(*command)
    assert first.code == 0, first.err
    assert first.lines[0].split() == [
        "language",
        "questions",
        "answers",
        "new",
        "new",
        "tokens",
        "cut",
        "off",
        "by",
        "length",
    ]
    assert [line.split()[:4] for line in first.lines[2:5]] == [
        ["English", "2", "2", "2"], ["Spanish", "2", "2", "2"], ["Swahili", "2", "2", "2"],
    ]  # fmt: skip
    assert first.lines[-1] == "out/a.json"
    before = contents(asked)
    again = lna(*command)
    assert "every question has its answers already: out/a.json (--overwrite answers anew)" in again.err
    assert contents(asked) == before
    anew = lna(*command, "--overwrite", "--json").json
    assert (anew["made"], anew["resumed"], anew["skipped"], anew["path"]) == (6, 0, 0, "out/a.json")
    assert anew["languages"]["en"]["tokens"] <= 8


def test_every_flag_reaches_the_answers(lna: Lna, asked: Path) -> None:
    call = lna(
        "generate", "--model-path", "tiny-llama", "-d", "q.json", "-o", "a.json", "-n", 2, "--temperature", 0.7,
        "--top-p", 0.9, "--seed", 5, "--stop", "\\n\\n", "--stop", "Q:", "--langs", "Spanish", *FEW,
    )  # fmt: skip
    assert call.code == 0, call.err
    written = generated("a.json")
    assert [len(one["answers"]) for one in written] == [0, 0, 2, 2, 0, 0]
    assert written[2]["generation"]["sampling"] == {
        "temperature": 0.7, "top_p": 0.9, "max_new_tokens": 4, "stop": ["\n\n", "Q:"], "seed": 5,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("flags", "code", "named"),
    [
        (("-n", 2), 2, "-n 2 at --temperature 0"),
        (("--top-p", 0.5), 2, "would do nothing at --temperature 0"),
        (("--temperature", "nan"), 2, "--temperature"),
        (("--stop", ""), 2, "--stop"),
        (("--overlong", "drop"), 2, "--overlong"),
        (("--langs", "fr"), 1, "no records in 'fr'"),
        (("--deactivate", "es"), 2, "--do 'zero es' needs the λ"),
        (("--deactivate", "es", "-l", 0.1), 1, "activation_masks"),
        (("--deactivate", "es", "-l", 0.1, "--classes", "typo"), 2, "--classes"),
        (("--deactivate", "es", "--do", "scale:2 es", "-l", 0.1), 2, "short for --do 'zero es'"),
        (("--do", "scale:2 es"), 2, "--do 'scale:2 es' needs the λ"),
        (("--do", "double es", "-l", 0.1), 2, "unknown operation 'double': choose from zero, scale:a"),
        (("--do", "zero @n.json", "--do", "mean:target @n.json"), 2, "target stands for no language here: name one"),
        (("--do", "set:nan @n.json"), 2, "'nan' must be a finite number"),
        (("--do", "zero @n.json"), 1, "n.json is not there"),
        (("--max-new-tokens", 2048), 1, "6 of 6 prompts are too long"),
    ],
)
def test_what_cannot_be_is_one_line(lna: Lna, asked: Path, flags: tuple[object, ...], code: int, named: str) -> None:
    call = lna("generate", "--model-path", "tiny-llama", "-d", "q.json", "-o", "a.json", *flags)
    assert_one_line(call, code, named)
    assert not Path("a.json").exists()


def test_a_run_on_questions_says_what_it_did_and_the_steps_by_hand_find_the_same(lna: Lna, asked: Path) -> None:
    model = ("--model-path", "tiny-llama", "-d", "q.json", "-s", "words")
    flags = ("run", *model, "-r", 0.1, "-b", 0.8, "--hi", 2, "-n", 2, "--temperature", 1, *FEW)
    first = lna(*flags)
    assert first.code == 0, first.err
    own = "answers/words/answers.Llama-tiny-llama.json"
    assert f"the corpus has questions alone; this model's own answers are in {own}" in first.err
    assert f"answers  {own}" in first.lines
    second = lna(*flags, "--json")
    assert second.json["answers"]["made"] == 0
    assert second.json["reused"] == ["en", "es", "sw"]
    lam = second.json["lambda"]
    counted = lna("activation", "-l", "es", *model, "--json")
    assert counted.json["reused"] is True
    assert f"q.json has questions alone; using this model's own answers, {own}" in counted.err
    drawn = lna("ppl", *model, "-r", 0.1, "-l", lam, "--json")
    assert drawn.json["computed"] == 0
    off = lna("generate", *model[:4], "-s", "words", "-o", "off.json", "--deactivate", "Spanish", "-r", 0.1, "-l", lam)
    assert off.code == 0, off.err
    assert {tuple(one["generation"]["intervention"]["do"]) for one in generated("off.json")} == {("zero es",)}


def test_what_is_done_to_neurons_needs_a_mask_only_where_it_names_languages(lna: Lna, asked: Path) -> None:
    Path("n.csv").write_text("layer,neuron\n" + "".join(f"1,{neuron}\n" for neuron in range(60)))
    answer = ("generate", "--model-path", "tiny-llama", "-d", "q.json", *FEW)
    for out, do in {"a.json": ["set:3 @n.csv"], "b.json": ["set:3 @n.csv", "zero @n.csv"], "c.json": []}.items():
        call = lna(*answer, "-o", out, *(flag for step in do for flag in ("--do", step)))
        assert call.code == 0, call.err
    written = [generated(out) for out in ("a.json", "b.json", "c.json")]
    told = [records[0]["generation"]["intervention"] for records in written]
    assert [one and one["do"] for one in told] == [["set:3 @n.csv"], ["set:3 @n.csv", "zero @n.csv"], None]
    assert len({json.dumps([one["answers"] for one in records]) for records in written}) == 3
    assert_one_line(
        lna(*answer, "-o", "a.json", "--do", "set:2 @n.csv"), 1, "do (['set:3 @n.csv'], not ['set:2 @n.csv'])"
    )
    assert_one_line(lna(*answer, "-o", "d.json", "--do", "zero @n.csv - @n.csv"), 2, "take less away")
    without_lambda = lna(*answer, "-o", "e.json", "--method", "lape", "--do", "set:3 @n.csv")
    assert without_lambda.code == 0, without_lambda.err
    assert [one["answers"] for one in generated("e.json")] == [one["answers"] for one in written[0]]
    assert_one_line(lna(*answer, "-o", "f.json", "--method", "lape", "--do", "zero es"), 1, "lape-0.01", "lna identify")


def test_means_are_taken_from_the_moments_of_the_same_model(lna: Lna, here: Path) -> None:
    model = ("--model-path", "tiny-llama", "-d", "datasets/mgsm.json", "-s", "mgsm", "--langs", "en,es")
    assert lna("run", *model, "-r", 0.1, "-b", 0.8, "-l", 0.0).code == 0
    write_corpus(here / "q.json", [{**one, "answers": []} for one in small_records(("en", "es"), questions=1)])
    answer = ("generate", "--model-path", "tiny-llama", "-d", "q.json", "-s", "mgsm", "-r", 0.1, "-l", 0.0, *FEW)
    do = ("--do", "replace:en es", "--do", "diffmean:en es:specific + es:related")
    assert_one_line(lna(*answer, "-o", "a.json", *do), 1, "lna activation --moments")
    for language in ("en", "es"):
        assert lna("activation", "-l", language, *model[:6], "--moments").code == 0
    call = lna(*answer, "-o", "a.json", *do)
    assert call.code == 0, call.err
    told = generated("a.json")[0]["generation"]["intervention"]
    assert told["do"] == ["mean:en es", "diffmean:en es:specific + es:related"]
    assert set(told["means"]) == {"en", "es"}


def test_a_method_without_lambda_needs_no_mask_either_for_neurons_of_a_file(lna: Lna, asked: Path) -> None:
    Path("n.csv").write_text("layer,neuron\n1,0\n1,1\n")
    answer = ("generate", "--model-path", "tiny-llama", "-d", "q.json", *FEW, "--method", "lape")
    call = lna(*answer, "-o", "a.json", "--do", "zero @n.csv")
    assert call.code == 0, call.err
    assert generated("a.json")[0]["generation"]["intervention"]["do"] == ["zero @n.csv"]
    assert_one_line(lna(*answer, "-o", "b.json", "--do", "zero es"), 1, "activation_masks/q/lape-0.01", "lna identify")


@pytest.mark.parametrize("replace", ["--overwrite", "--force"])
def test_answers_are_replaced_by_either_name_of_the_flag(lna: Lna, asked: Path, replace: str) -> None:
    command = ("generate", "--model-path", "tiny-llama", "-d", "q.json", "-o", "a.json", *FEW)
    assert lna(*command).code == 0
    assert lna(*command, replace, "--json").json["made"] == 6


@pytest.mark.parametrize(
    "entry",
    [{}, {"batch": [0]}, {"batch": 3, "answers": []}, {"batch": [0], "answers": 3}, {"batch": [0], "answers": ["a"]},
     {"batch": [[0]], "answers": [{"generated": "a", "tokens": 1, "finish": "stop"}]},
     {"batch": [0], "answers": [{"generated": None, "tokens": 1, "finish": "stop"}]}],
)  # fmt: skip
def test_a_damaged_entry_of_a_journal_is_refused(
    lna: Lna,
    here: Path,
    monkeypatch: pytest.MonkeyPatch,
    entry: dict[str, Any],
) -> None:
    questions = [{"lang": "en", "instruction": f"{n} + 1?", "answers": []} for n in range(3)]
    (here / "q.json").write_text(json.dumps(questions))
    flags = ("generate", "--model-path", "tiny-llama", "-d", "q.json", "-o", "a.json", "--max-new-tokens", "2")
    monkeypatch.setattr(Journal, "remove", lambda _: None)  # as a kill right before it leaves the journal
    assert lna(*flags).code == 0
    journal, result = here / ".a.json.partial.jsonl", here / "a.json"
    journal = journal if journal.exists() else here / "a.json.partial.jsonl"
    header = journal.read_text().splitlines()[0]
    result.unlink()
    journal.write_text(f"{header}\n{json.dumps(entry)}\n")
    done = lna(*flags)
    assert done.code == 1
    assert "partial.jsonl, line 2 is damaged" in done.err
    assert len(done.err.splitlines()) == 1


def put_tokenizer(model: Path, post: str, template: str | None = None) -> None:
    """Give a model a tokenizer that puts these tokens around a text."""
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = template
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=post, special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    tokenizer.save_pretrained(model)


def texts(path: str) -> list[str]:
    return [answer["generated"] for one in generated(path) for answer in one["answers"]]


def test_a_tokenizer_that_appends_eos_changes_no_answer_and_is_named_once(lna: Lna, asked: Path) -> None:
    command = ("generate", "--model-path", "tiny-llama", "-d", "q.json", *FEW, "-o")
    assert lna(*command, "usual.json").code == 0
    put_tokenizer(asked / "tiny-llama", "<s> $A </s>")
    call = lna(*command, "eos.json")
    assert call.code == 0, call.err
    assert call.err.count("note: the tokenizer appends '</s>' (tokens [2]) to every text: it is left out") == 1
    assert texts("eos.json") == texts("usual.json")


def test_a_question_with_the_bos_that_the_tokenizer_adds_is_refused(lna: Lna, asked: Path) -> None:
    write_corpus(asked / "q.json", [{"lang": "en", "id": "7", "instruction": "<s>1 + 1?", "answers": []}])
    call = lna("generate", "--model-path", "tiny-llama", "-d", "q.json", "-o", "a.json", *FEW)
    assert_one_line(call, 1, "the record id 7 in 'en' begins with '<s>', which the tokenizer puts in front by itself")


CHAT = "{{ bos_token }}{% for m in messages %}[{{ m.role }}] {{ m.content }}</s>{% endfor %}[assistant]"
BUILD = (
    "dataset",
    "build",
    "table.json",
    "--lang",
    "en",
    "-o",
    "c.json",
    "--template",
    "chat",
    "--model-path",
    "tiny-llama",
)


def test_prompts_of_another_model_s_chat_template_or_tokenizer_are_named(lna: Lna, asked: Path) -> None:
    model = asked / "tiny-llama"
    put_tokenizer(model, "<s> $A", CHAT)
    write_corpus(asked / "table.json", [{"instruction": "1 + 1?"}])
    build = lna(*BUILD)
    assert build.code == 0, build.err
    command = ("generate", "--model-path", "tiny-llama", "-d", "c.json", *FEW, "-o")
    assert "note:" not in lna(*command, "same.json").err
    put_tokenizer(model, "<s> <s> $A", CHAT)
    said = lna(*command, "twice.json").err
    assert "now gives other tokens: at position 1 the prompt has '<s>' (token 1), the template '[' (token" in said
    put_tokenizer(model, "<s> $A", CHAT.replace("user", "User") + " ")
    assert "and the model that answers has another: build the corpus with its own" in lna(*command, "other.json").err
    put_tokenizer(model, "<s> $A")
    (model / "chat_template.jinja").unlink()
    assert "and the model that answers has none" in lna(*command, "none.json").err


@pytest.mark.parametrize(
    ("template", "said"),
    [("{{ raise_exception('no\nway') }}", "no way (TemplateError"), ("{% for %}", "Expected an expression")],
)
def test_a_chat_template_that_fails_is_one_line(lna: Lna, asked: Path, template: str, said: str) -> None:
    put_tokenizer(asked / "tiny-llama", "<s> $A", template)
    write_corpus(asked / "table.json", [{"instruction": "1 + 1?"}])
    call = lna(*BUILD)
    assert_one_line(call, 2, said)
    assert_one_line(lna("dataset", "templates", "--model-path", "tiny-llama"), 2, said)
