"""λ where -l is not given: the only mask's is taken and said; several, or none, are errors that say what to do."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.conftest import Lna
from tests.workspace import small_records, write_corpus

MODEL = ("--model-path", "tiny-llama", "-s", "words")
DATA = ("-d", "q.json")
RATES = ("-r", 0.1)
LANGS = ("--langs", "en,es")
FEW = ("--max-new-tokens", 2)
COMMANDS = {
    "ppl": ("ppl", *MODEL, *DATA, *RATES, "--controls", 0),
    "evaluate": ("evaluate", *MODEL, *DATA, *RATES, "--controls", 0, *FEW),
    "force": ("force", *MODEL, *DATA, *RATES, "--controls", 0, *FEW, "--do", "zero source + target"),
    "generate": ("generate", *MODEL, *DATA, *RATES, "-o", "out.json", "--overwrite", *FEW, "--do", "zero es"),
    "methods": ("methods", *MODEL, *DATA, *RATES, "--methods", "entropy-lambda"),
    "analyze": ("analyze", *MODEL, *RATES),
    "compare": ("compare", "tiny-llama", "tiny-other", "-s", "words", *RATES),
    "report": ("report", *MODEL, *RATES),
}


@pytest.fixture(scope="module")
def counted(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model and another name for it, and questions with numbers in two languages."""
    folder = tmp_path_factory.mktemp("lambda")
    for name in ("tiny-llama", "tiny-other"):
        (folder / name).symlink_to(tiny / "tiny-llama")
    records = [
        {**one, "id": f"q{n % 2}", "target": "7"} for n, one in enumerate(small_records(("en", "es"), questions=2))
    ]
    write_corpus(folder / "q.json", records)
    return folder


def masks(lna: Lna, *lams: float, model: str = "tiny-llama") -> None:
    """Counts, and a mask at each λ."""
    named = ("--model-path", model, "-s", "words")
    for code in ("en", "es"):
        assert lna("activation", *named, *DATA, "-l", code).code == 0
    for lam in lams:
        assert lna("identify", *named, *RATES, *LANGS, "-b", 0.8, "-l", lam).code == 0


@pytest.fixture
def here(counted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("tiny-llama", "tiny-other", "q.json"):
        (tmp_path / name).symlink_to(counted / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_lambda_of_the_only_mask_is_taken_and_said_by_every_command_alike(
    lna: Lna, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from language_neurons_alignment import _report

    pictures = _report.pictures
    monkeypatch.setattr(_report, "pictures", lambda told: pictures(told)[:1])
    masks(lna, 0.125)
    masks(lna, 0.125, model="tiny-other")
    for name, command in COMMANDS.items():
        call = lna(*command)
        assert call.code == 0, (name, call.err)
        said = [line for line in call.err.splitlines() if line.startswith("λ = ")]
        mask = "activation_masks/words/0.1-0.125/mask.Llama-tiny-{}"
        models = ("llama", "other") if name == "compare" else ("llama",)
        assert said == [f"λ = 0.125, from {mask.format(model)}" for model in models], name
        given = lna(*command, "-l", 0.125)
        assert given.code == 0
        assert "λ = " not in given.err


def test_of_several_masks_one_must_be_chosen(lna: Lna, here: Path) -> None:
    masks(lna, 0.1, 0.2)
    for name, command in COMMANDS.items():
        call = lna(*command)
        assert (call.code, call.out) == (2, ""), name
        assert "has 2 masks of top rate 0.1 on words, at λ 0.1, 0.2: choose one with -l" in call.err
        assert len(call.err.splitlines()) == 1


def test_without_a_mask_the_error_says_how_to_come_by_one(lna: Lna, here: Path) -> None:
    for name in ("ppl", "evaluate", "force", "generate"):
        call = lna(*COMMANDS[name])
        assert (call.code, call.out) == (2, ""), name
        for text in ("needs the λ of a mask", "`lna autosweep`", "`lna identify`"):
            assert text in call.err
        assert len(call.err.splitlines()) == 1


def test_the_masks_of_random_are_told_apart_by_their_seed(lna: Lna, here: Path) -> None:
    masks(lna, 0.1)
    found = ("--method", "random", "--mask-seed", 3)
    identify = ("identify", *MODEL, *RATES, *LANGS, "-b", 0.8, *found)
    assert lna(*identify, "-l", 0.2).code == 0
    call = lna(*COMMANDS["ppl"], *found)
    assert call.code == 0, call.err
    assert "λ = 0.2, from activation_masks/words/random-0.1-0.2-seed3/mask.Llama-tiny-llama" in call.err
    assert lna(*COMMANDS["ppl"], "--method", "random").code == 2
