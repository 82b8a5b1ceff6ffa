"""`lna run -c FILE`, and `--count text`: a corpus of texts, counted as a model in memory counts the same texts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import language_neurons_alignment as lna_package
from language_neurons_alignment.store.counts import load_answer_counts
from language_neurons_alignment.store.layout import Layout
from tests.cli.conftest import Lna

TEXTS = {
    "en": ["Two doors, two keys.", "The house is on the hill."],
    "no": ["To dører, to nøkler.", "Huset ligger på bakken."],
}
RUN = """\
model-path: tiny-llama
data: lines.json
dataset: lines
count: text
langs: [en, no]  # no: Norwegian
top-rate: 0.1
bar: 0.8
hi: 1
controls: 2
device: cpu
"""


@pytest.fixture
def described(here: Path) -> Path:
    """A corpus of texts without answers, and a run file."""
    records = [{"lang": code, "instruction": one, "answers": []} for code, texts in TEXTS.items() for one in texts]
    (here / "lines.json").write_text(json.dumps(records), encoding="utf-8")
    (here / "run.yaml").write_text(RUN, encoding="utf-8")
    return here


def test_a_run_is_described_by_a_file_flags_win_and_what_was_run_is_stored(lna: Lna, described: Path) -> None:
    done = lna("run", "-c", "run.yaml", "--controls", 0, "--json", "--quiet")
    assert done.code == 0, done.err
    assert done.err == "", "--quiet: neither progress nor notes"
    assert done.json["map"]["languages"] == ["en", "nb"]
    assert done.json["map"]["control"] is None, "the flag wins"

    # the texts are counted, whole: as by a model in memory, which counts plain texts
    counted = lna_package.load("tiny-llama", device="cpu").count(TEXTS)
    in_file = load_answer_counts(Layout(Path(), "lines", "Llama-tiny-llama"), ("en", "nb"))
    assert in_file.tokens.tolist() == counted.tokens.tolist()
    assert in_file.prefix_tokens.tolist() == counted.prefix_tokens.tolist()
    assert (in_file.counts == counted.counts).all()

    stored = Path(done.json["run_file"])
    assert stored.parent == Path(done.json["map"]["png"]).parent
    again = lna("run", "-c", stored)
    assert again.code == 0, again.err
    assert "already counted" in again.err
    assert again.lines[-1].split() == ["run", "file", str(stored)]
    assert "\nlangs: en,no\n" in stored.read_text()
    assert "\ncontrols: 0\n" in stored.read_text()
    assert lna("check").code == 0


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("contrls: 5", "run.yaml: there is no 'contrls'; did you mean controls?"),
        ("model_path: x", "run.yaml: there is no 'model_path'; did you mean model-path?"),
        ("xyzzy: 1", "run.yaml: there is no 'xyzzy'; its keys are the flags of `lna run` without their dashes"),
        ("config: other.yaml", "run.yaml: there is no 'config'"),
        ("batch-tokens: few", "run.yaml: batch-tokens: "),
        ("exact: maybe", "run.yaml: exact: "),
        ("overwrite: true\nforce: true", "run.yaml: overwrite and force are one flag"),
        ("text: full", "--count text is for texts, which have no answers to score: leave --text full out"),
        ("overlong: drop", "--overlong must be one of error, truncate, skip; got 'drop'"),
    ],
)
def test_what_a_run_file_says_wrongly_is_one_line_before_anything_is_read(
    lna: Lna, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run.yaml").write_text(f"{RUN}{line}\n", encoding="utf-8")
    done = lna("run", "-c", "run.yaml")
    assert (done.code, done.out) == (2, "")
    assert len(done.err.splitlines()) == 1
    assert said in done.err


def test_what_a_run_file_leaves_out_is_missed_as_without_one(lna: Lna, tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text('dataset = "x"\n')
    done = lna("run", "-c", tmp_path / "run.toml")
    assert done.code == 2
    assert "Missing option" in done.err
    assert "--model-path" in done.err


def test_texts_are_refused_where_they_have_answers_and_named_where_answers_are_missing(
    lna: Lna, described: Path
) -> None:
    flags = ("--model-path", "tiny-llama", "-s", "x", "-l", "en")
    done = lna("activation", *flags, "-d", "lines.json")
    assert done.code == 1
    assert "where these are texts and no questions, count the texts: `lna run --count text`" in done.err
    done = lna("activation", *flags, "-d", "datasets/mgsm.json", "--count", "text")
    assert done.code == 1
    assert "datasets/mgsm.json has answers in 20 of 20 records" in done.err
