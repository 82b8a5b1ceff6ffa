"""`lna analyze`, `lna compare`, `lna import-mask` as they are typed: tables, JSON, notes, one-line failures."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from language_neurons_alignment.store.counts import save_counts
from language_neurons_alignment.store.layout import Layout
from tests.cli.conftest import Call, Lna
from tests.workspace import made_up_counts

CODES = ("en", "es", "sw", "zh")
RATES = ("-s", "mgsm", "-r", 0.2)
FRESH = (*RATES, "-b", 0.6, "--langs", ",".join(CODES), "--hi", 3)


@pytest.fixture
def counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Counts of a base model and two checkpoints in the current folder; the models are nowhere."""
    for seed, model in enumerate(("base", "step-200", "step-400")):
        layout = Layout(tmp_path, "mgsm", f"Mistral-{model}")
        for k, code in enumerate(CODES):
            counts = made_up_counts((5, 60), seed=10 * seed + k)
            save_counts(layout, code, counts, {"config_hash": "c", "weights_hash": model, "language": code})
    monkeypatch.chdir(tmp_path)
    return tmp_path


def assert_one_line(call: Call, code: int, *named: str) -> None:
    assert (call.code, call.out) == (code, ""), call
    assert call.err.count("\n") == 1, call.err
    for text in named:
        assert text in call.err


def test_analyze_prints_tables_and_the_files_that_it_wrote(lna: Lna, counted: Path) -> None:
    call = lna("analyze", "--model-path", "/x/base", *FRESH)
    assert call.code == 0, call.err
    assert "λ from AutoSweep" in call.err
    for text in (
        "language  specific  related  mask",
        "layer  stage  specific",
        "lowest BIC",
        "closest masks",
        "Spanish",
    ):
        assert text in call.out
    files = [line for line in call.lines if line.startswith("analysis/mgsm/0.2-")]
    assert len(files) == 9
    assert all(Path(file).is_file() for file in files)
    assert re.search(r"λ from 0 to 3.75: the histogram changes \d+ times", call.out)


def test_analyze_as_json_is_what_the_file_holds(lna: Lna, counted: Path) -> None:
    found = lna("analyze", "--model-path", "/x/base", *FRESH, "--json").json
    assert found["model"] == "Mistral-base"
    assert len(found["tables"]["classes"]["layer"]) == 5
    assert found["files"][0].endswith(".json")


def test_after_identify_neither_lambda_nor_bar_nor_languages_need_to_be_said(lna: Lna, counted: Path) -> None:
    langs = ("--langs", ",".join(CODES))
    assert lna("identify", "--model-path", "/x/base", *RATES, "-b", 0.6, "-l", 0.125, *langs).code == 0
    call = lna("analyze", "--model-path", "/x/base", *RATES)
    assert call.code == 0, call.err
    assert call.err == "λ = 0.125, from activation_masks/mgsm/0.2-0.125/mask.Mistral-base\n"
    assert call.lines[1].startswith("λ = 0.125 (mask), top rate 0.2, bar 0.6")


def test_compare_a_base_and_two_checkpoints(lna: Lna, counted: Path) -> None:
    call = lna("compare", "/x/base", "/x/step-200", "/x/step-400", *FRESH, "--trained", "Chinese,sw")
    assert call.code == 0, call.err
    for text in (
        "Mistral-base → Mistral-step-200",
        "Mistral-base → Mistral-step-400",
        "was, is",
        "trained",
        "untrained",
    ):
        assert text in call.out
    assert re.search(r"Spanish +\d+ \+\d+ −\d+", call.out)
    assert "comparisons/mgsm/0.2-own/compare.Mistral-base..Mistral-step-200..Mistral-step-400.json" in call.lines
    as_json = lna("compare", "/x/base", "/x/step-200", "/x/step-400", *FRESH, "--json").json
    assert [len(as_json[name]) for name in ("models", "pairs", "steps")] == [3, 2, 2]


def test_compare_mask_files_of_other_roots(lna: Lna, counted: Path) -> None:
    masks = []
    for model in ("base", "step-200"):
        done = lna("identify", "--model-path", f"/x/{model}", *RATES, "-b", 0.6, "-l", 0.1, "--langs", ",".join(CODES))
        masks.append(done.lines[-1])
    call = lna("compare", *masks)
    assert call.code == 0, call.err
    assert "Mistral-base → Mistral-step-200" in call.out


def test_a_note_says_what_else_than_training_may_differ(lna: Lna, counted: Path) -> None:
    layout = Layout(counted, "mgsm", "Mistral-step-200")
    save_counts(layout, "sw", made_up_counts((5, 60), tokens=2000), {"config_hash": "c", "weights_hash": "step-200"})
    call = lna("compare", "/x/base", "/x/step-200", *FRESH)
    assert call.code == 0
    assert "note: Mistral-base and Mistral-step-200 saw questions of different length in sw" in call.err


def test_import_a_public_mask_and_analyse_it_alone(lna: Lna, counted: Path) -> None:
    torch.save([[torch.tensor([1, 2]), torch.tensor([])] for _ in range(2)], "llama.neuron.pth")
    model = ("--model-path", "/x/other", "-s", "mgsm")
    layout = Layout(counted, "mgsm", "Mistral-other")
    save_counts(layout, "en", made_up_counts((2, 10)), {})
    call = lna("import-mask", "llama.neuron.pth", *model, "--langs", "en,vi")
    assert call.code == 0, call.err
    assert call.lines[-1] == "activation_masks/mgsm/0.01-0.0/mask.Mistral-other"
    assert "0 specific, 2 related" in call.out
    alone = lna("analyze", *model, "--mask-only")
    assert alone.code == 0, alone.err
    assert "Vietnamese" in alone.out
    assert "general" not in alone.out.split("closest masks")[0].split("lowest BIC")[0]


def test_failures_are_one_line(lna: Lna, counted: Path) -> None:
    assert_one_line(lna("compare", "/x/base", *FRESH), 2, "at least two models")
    assert_one_line(lna("compare", "/x/base", "/x/step-200"), 2, "-s must name the dataset")
    assert_one_line(lna("compare", "/x/base", "/x/gone", *FRESH), 1, "activation.en.Mistral-gone.pt is not there")
    assert_one_line(lna("compare", "/x/base", "/x/step-200", *FRESH, "--trained", "fr"), 2, "--trained names fr")
    assert_one_line(lna("analyze", "--model-path", "/x/base", *RATES, "--mask-only"), 1, "lna import-mask")
    assert_one_line(lna("analyze", "--model-path", "/x/base", *FRESH, "-l", "nan"), 2, "λ (-l)")
    assert_one_line(lna("analyze", "--model-path", "/x/base", *FRESH, "-b", 0), 2, "bar (-b)")
    assert_one_line(
        lna("import-mask", "none.pth", "--model-path", "/x/base", "-s", "mgsm", "--langs", "en"),
        1,
        "none.pth is not there",
    )
    for lam in (0.1, 0.2):
        rates = ("-l", lam, "-b", 0.6, "--langs", ",".join(CODES))
        assert lna("identify", "--model-path", "/x/base", *RATES, *rates).code == 0
    assert_one_line(lna("analyze", "--model-path", "/x/base", *RATES), 2, "at λ 0.1, 0.2: choose one with -l")
