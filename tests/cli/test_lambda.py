"""λ where -l is not given: the only mask's is taken and said; several, or none, are errors that say what to do."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from language_neurons_alignment.core.counts import LanguageCounts, SpanCounts
from language_neurons_alignment.store.counts import save_counts
from language_neurons_alignment.store.layout import Layout
from tests.cli.conftest import Lna
from tests.workspace import META, small_records, write_corpus

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


@pytest.fixture
def cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Counts of three languages on which the largest λ with appear[K] = 0 lies beyond 0.2, in the current folder.

    Of a thousand tokens, the neurons fire on so many in each language: the first in one language, the second in all.
    """
    fired = torch.tensor([[900, 0, 0], [950, 940, 930], [100, 0, 0], [0, 90, 0], [0, 0, 80], [300, 200, 100]])
    layout = Layout(tmp_path, "words", "Llama-base")
    for k, code in enumerate(("en", "es", "sw")):
        full, prefix = fired[None, :, k], torch.zeros(1, len(fired), dtype=torch.int64)
        counts = LanguageCounts(SpanCounts(1010, full), SpanCounts(10, prefix))
        save_counts(layout, code, counts, {**META, "language": code})
    monkeypatch.chdir(tmp_path)
    return tmp_path


BASE = ("--model-path", "base", "--model-name", "Llama", "-s", "words", "-r", 0.17, "-b", 0.8)


@pytest.mark.parametrize("exact", [(), ("--exact",)])
def test_an_end_that_cuts_lambda_off_is_said_by_the_command_its_json_the_mask_and_the_report(
    lna: Lna, cut: Path, exact: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    from language_neurons_alignment import _report

    said = "λ = 0.2 is the end of the range that was searched; the largest λ with appear[K] = 0 is {:.6g}"
    call = lna("autosweep", *BASE, "--lo", 0, "--hi", 0.2, *exact)
    assert call.out == "best λ = 0.200000\n"
    asked = lna("autosweep", *BASE, "--lo", 0, "--hi", 0.2, *exact, "--json").json
    largest = asked["largest_lambda"]
    assert said.format(largest) in call.err
    assert largest > 1
    assert (asked["lambda"], asked["hi"], asked["at_end"]) == (0.2, 0.2, True)
    assert asked["notes"][-1].startswith(said.format(largest))
    made = lna("identify", *BASE)  # without -l: the λ of `autosweep`
    assert "λ = 0.2, as `lna autosweep` found it" in made.err
    assert said.format(largest) in made.err
    described = json.loads(Path(made.lines[-1] + ".json").read_text())
    assert (described["lam"], described["searched_to"], described["largest_lam"]) == (0.2, 0.2, largest)
    given = lna("identify", *BASE, "-l", 0.1, "--json")
    assert (given.json["largest_lam"], "largest" in given.err) == (largest, False), "a λ that was chosen"
    Path("activations/words/autosweep.Llama-base.json").rename("autosweep.json")
    unknown = "note: λ = 0.2 is the end of the range in the paper's code; the largest λ with appear[K] = 0 is"
    assert f"{unknown} {largest:.6g}" in lna("identify", *BASE, "-l", 0.2).err
    Path("autosweep.json").rename("activations/words/autosweep.Llama-base.json")
    assert said.format(largest) in lna("identify", *BASE, "-l", 0.2).err
    if exact:
        return
    pictures = _report.pictures
    monkeypatch.setattr(_report, "pictures", lambda told: pictures(told)[:1])
    page = Path(lna("report", *BASE, "-l", 0.2).lines[-1]).read_text(encoding="utf-8")
    assert said.format(largest) in page
    assert "At λ = 0.1, half of this λ, the masks have" in page


def test_no_end_is_the_default_and_finds_the_largest_lambda_which_later_steps_take(lna: Lna, cut: Path) -> None:
    whole = lna("autosweep", *BASE, "--exact", "--json").json
    assert (whole["lambda"], whole["at_end"], whole["notes"]) == (whole["largest_lambda"], False, [])
    assert lna("autosweep", *BASE, "--exact", "--hi", "auto").out == f"best λ = {whole['lambda']!r}\n"
    made = lna("identify", *BASE, "--json").json
    assert (made["lam"], made["largest_lam"], made["languages"]) == (whole["lambda"],) * 2 + (["en", "es", "sw"],)
    assert made["appear"][-1] == 0
    halved = lna("autosweep", *BASE, "--json").json
    assert 0 <= whole["lambda"] - halved["lambda"] <= 1e-3
    assert halved["hi"] > whole["lambda"]
    several = lna("identify", *BASE)
    assert (several.code, several.out) == (2, "")
    lams = f"{halved['lambda']!r}, {whole['lambda']!r}"
    assert f"AutoSweep found 2 λ for Llama-base at top rate 0.17 on words, {lams}: choose one with -l" in several.err
    assert lna("identify", *BASE, "-l", halved["lambda"]).code == 0
    assert lna("analyze", *BASE).code == 2, "of two masks, AutoSweep found both"
    lna("identify", *BASE[:6], "-r", 0.17, "-b", 0.8, "-l", 0.5)
    Path("activations/words/autosweep.Llama-base.json").unlink()
    lna("autosweep", *BASE)
    assert f"λ = {halved['lambda']!r}, from" in lna("analyze", *BASE).err, "of three masks, AutoSweep found one"


def test_a_lambda_found_in_other_counts_is_not_taken(lna: Lna, cut: Path) -> None:
    assert lna("autosweep", *BASE).code == 0
    layout = Layout(cut, "words", "Llama-base")
    fired = torch.tensor([[800, 10, 0, 0, 0, 0]])
    counts = LanguageCounts(SpanCounts(1010, fired), SpanCounts(10, torch.zeros_like(fired)))
    save_counts(layout, "en", counts, {**META, "language": "en"})
    call = lna("identify", *BASE)
    assert (call.code, call.out) == (2, "")
    assert "needs λ: give -l as `lna autosweep` prints it" in call.err


def test_lambda_is_printed_where_it_cannot_be_stored(lna: Lna, cut: Path) -> None:
    Path("activations/words/autosweep.Llama-base.json").mkdir()
    call = lna("autosweep", *BASE)
    assert call.code == 0
    assert call.lines[-1].startswith("best λ = ")
    assert "give λ to later commands with -l" in call.err
    checked = lna("check", ".")
    assert checked.code == 1
    assert "autosweep.Llama-base.json cannot be read" in checked.out
