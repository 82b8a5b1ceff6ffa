"""Masks of every method, made, used and compared from the command line."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.cli.conftest import Lna

MODEL = ("--model-path", "tiny-llama", "-s", "mgsm")
DATA = ("-d", "datasets/mgsm.json")
LANGS = ("--langs", "en,es,sw")


@pytest.fixture
def counted(here: Path, lna: Lna) -> Path:
    for code in ("en", "es", "sw"):
        assert lna("activation", *MODEL, *DATA, "-l", code, "--moments").code == 0
    return here


def test_each_method_makes_a_mask_that_ppl_uses_and_they_are_compared(counted: Path, lna: Lna) -> None:
    made = lna("identify", *MODEL, *LANGS, "-r", 0.2, "-b", 0.6, "--method", "lape")
    assert made.lines[0].startswith("lape: top rate 0.2, bar 0.6, τ = ")
    assert made.lines[-1].endswith("activation_masks/mgsm/lape-0.2/mask.Llama-tiny-llama")
    stored = torch.load(made.lines[-1], weights_only=True)
    assert (len(stored), len(stored[0])) == (3, len(stored[1]))
    told = lna("identify", *MODEL, *LANGS, "-b", 0.6, "--method", "equal-n", "--neurons", 5, "--json").json
    assert (told["method"], told["parameters"], told["lam"]) == ("equal-n", {"neurons": 5}, None)
    assert set(told["neurons"].values()) == {5}
    drawn = lna("ppl", *MODEL, *DATA, *LANGS, "-r", 0.2, "--method", "lape", "--controls", 0, "--json")
    assert drawn.json["json"] == "ppl_maps/mgsm/lape-0.2/ppl.Llama-tiny-llama.json"
    compared = lna("methods", *MODEL, *DATA, *LANGS, "-r", 0.2, "-b", 0.6, "-l", 0.05, "--neurons", 5)
    assert compared.code == 0, compared.err
    assert "12 cells of the perplexity maps were there already" in compared.err
    names = [line.split()[0] for line in compared.lines if "[" in line and "%" not in line]
    assert names == ["entropy-lambda", "lape", "equal-n", "mean-difference", "random"]
    for path in compared.lines[-3:]:
        assert Path(path).is_file()
    answered = lna(
        "generate", "--model-path", "tiny-llama", *DATA, "-o", "out.json", "--max-new-tokens", 1, "--overwrite",
        "--langs", "en", "--method", "lape", "-r", 0.2, "--do", "zero es",
    )  # fmt: skip
    assert answered.code == 0, answered.err


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--method", "lape", "-l", 0.1), "leave -l 0.1 out"),
        (("--method", "lape", "--neurons", 4), "give -r, not --neurons 4"),
        (("--method", "nearest"), "must be one of entropy-lambda, lape"),
        (("--method", "equal-n", "--mask-seed", 1), "leave --mask-seed 1 out"),
    ],
)
@pytest.mark.parametrize("command", [("identify", *MODEL), ("ppl", *MODEL, *DATA)])
def test_wrong_combinations_are_wrong_usage_in_one_line(
    here: Path, lna: Lna, command: tuple[str, ...], flags: tuple[object, ...], said: str
) -> None:
    refused = lna(*command, *flags)
    assert refused.code == 2
    assert said in refused.err
    assert refused.out == ""
    assert len(refused.err.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (("identify", *MODEL), "the method entropy-lambda needs λ: give -l as `lna autosweep` prints it"),
        (
            ("ppl", *MODEL, *DATA),
            "ppl needs the λ of a mask, and Llama-tiny-llama has no mask of top rate 0.01 on mgsm",
        ),
    ],
)
def test_a_missing_lambda_is_wrong_usage_in_one_line(here: Path, lna: Lna, command: tuple[str, ...], said: str) -> None:
    refused = lna(*command)
    assert (refused.code, refused.out) == (2, "")
    assert said in refused.err
    assert "give -l" in refused.err
    assert len(refused.err.strip().splitlines()) == 1
