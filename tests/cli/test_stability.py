"""`lna stability` from blocks on disk, and `lna run --blocks` before it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from language_neurons_alignment.core.counts import LanguageBlocks
from language_neurons_alignment.store.counts import save_blocks, save_counts
from language_neurons_alignment.store.layout import Layout
from tests.cli.conftest import Lna
from tests.workspace import META, made_up_counts

CODES = ("en", "es", "sw")
FLAGS = ("--model-path", "/x/base", "-r", 0.2, "-b", 0.6, "--hi", 3, "--langs", ",".join(CODES))
FEW = ("--draws", 20, "--splits", 4)


def kept_in_blocks(root: Path, dataset: str, *, seed: int, blocks: int = 8, **meta: str) -> None:
    """Made-up counts whose blocks add up to them."""
    layout = Layout(root, dataset, "Mistral-base")
    for k, code in enumerate(CODES):
        firm = made_up_counts((3, 60), tokens=800, seed=100 + k)
        parts = [
            firm + made_up_counts((3, 60), tokens=200, seed=1000 * seed + 10 * block + k) for block in range(blocks)
        ]
        save_blocks(layout, code, LanguageBlocks.of(parts), {})
        save_counts(layout, code, sum(parts[1:], parts[0]), {**META, **meta})


@pytest.fixture
def two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Blocks of one model on two corpora in the current folder."""
    kept_in_blocks(tmp_path, "mgsm", seed=1)
    kept_in_blocks(tmp_path, "msvamp", seed=2)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_stability_prints_intervals_and_leaves_tables_pictures_and_tensors(lna: Lna, two: Path) -> None:
    call = lna("stability", *FLAGS, *FEW, "-s", "mgsm")
    assert call.code == 0, call.err
    for text in ("8 blocks", "lambda", "specific", "mask.sw", "Jaccard of halves", "Spanish"):
        assert text in call.out
    path = "stability/mgsm/0.2-found/stability.Mistral-base"
    files = [line for line in call.lines if line.startswith(path)]
    assert len(files) == 9
    assert all(Path(file).stat().st_size for file in files)
    neurons = torch.load(f"{path}.pt", weights_only=True)
    assert neurons["inclusion"].shape == neurons["low"].shape == (3, 60, 3)
    assert (neurons["low"] <= neurons["probability"]).all()
    assert (neurons["probability"] <= neurons["high"]).all()
    again = {file: Path(file).read_bytes() for file in files}
    assert lna("stability", *FLAGS, *FEW, "-s", "mgsm").lines == call.lines
    assert again == {file: Path(file).read_bytes() for file in files}


def test_the_interval_holds_this_and_the_endless_corpus_and_lambda_can_be_held(lna: Lna, two: Path) -> None:
    found = lna("stability", *FLAGS, *FEW, "-s", "mgsm", "-l", 0.125, "--json").json
    numbers = found["tables"]["numbers"]
    assert numbers["number"][:3] == ["lambda", "threshold", "specific"]
    for value, endless, low, high in zip(*(numbers[name] for name in ("value", "endless", "low", "high")), strict=True):
        assert low <= min(value, endless) <= max(value, endless) <= high
    assert found["lambda"] == 0.125
    assert found["files"][0] == "stability/mgsm/0.2-0.125/stability.Mistral-base.json"
    identified = lna("identify", *FLAGS[:6], *FLAGS[8:], "-s", "mgsm", "-l", 0.125, "--json").json
    sizes = dict(zip(numbers["number"], numbers["value"], strict=True))
    assert {name: sizes[name] for name in identified["classes"]} == identified["classes"]
    assert {code: sizes[f"mask.{code}"] for code in CODES} == identified["neurons"]


def test_two_corpora_are_compared_and_the_second_needs_no_blocks(lna: Lna, two: Path) -> None:
    for code in CODES:
        Layout(two, "msvamp", "Mistral-base").blocks(code).unlink()
    call = lna("stability", *FLAGS, *FEW, "-s", "mgsm", "--with", "msvamp")
    assert call.code == 0, call.err
    assert "of first  of smaller  Jaccard" in call.out
    assert "stability/mgsm/0.2-found/stability.Mistral-base..msvamp.overlap.csv" in call.lines
    kept_in_blocks(two, "msvamp", seed=2, weights_hash="w2")
    refused = lna("stability", *FLAGS, *FEW, "-s", "mgsm", "--with", "msvamp")
    assert (refused.code, refused.out) == (1, "")
    assert "different models" in refused.err


def test_failures_are_one_line(lna: Lna, two: Path) -> None:
    for flags, code, said in (
        (("-s", "mgsm", "--draws", 1), 2, "--draws must be at least 2"),
        (("-s", "mgsm", "--splits", 0), 2, "--splits must be at least 1"),
        (("-s", "mgsm", "-l", "nan"), 2, "λ (-l)"),
        (("-s", "gone"), 1, "is not there"),
    ):
        call = lna("stability", *FLAGS, *flags)
        assert (call.code, call.out) == (code, ""), call
        assert said in call.err.splitlines()[-1]
    Layout(two, "mgsm", "Mistral-base").blocks("es").unlink()
    assert "lna activation --blocks 20" in lna("stability", *FLAGS, *FEW, "-s", "mgsm").err
    kept_in_blocks(two, "mgsm", seed=3)
    save_counts(Layout(two, "mgsm", "Mistral-base"), "en", made_up_counts((3, 60)), META)
    assert "do not add up" in lna("stability", *FLAGS, *FEW, "-s", "mgsm").err
    kept_in_blocks(two, "mgsm", seed=3, blocks=2)
    few = lna("stability", *FLAGS, *FEW, "-s", "mgsm")
    assert (few.code, "[nan, nan]" in few.out) == (0, True)
    assert "note: 2 blocks say little" in few.err
    assert "no intervals" in few.err


def test_counting_in_blocks_from_the_command_line(lna: Lna, here: Path) -> None:
    model = ("--model-path", "tiny-llama", "-s", "mgsm", "-d", "datasets/mgsm.json", "--device", "cpu")
    assert lna("activation", *model, "-l", "en", "--blocks", 2).code == 0
    assert Path("activations/mgsm/prefix.blocks.en.Llama-tiny-llama.pt").is_file()
    refused = lna("activation", *model, "-l", "es", "--blocks", 3)
    assert (refused.code, refused.out) == (1, "")
    assert "leave 1 of 3 blocks empty" in refused.err
    done = lna("run", *model, "--langs", "en,es,sw", "--blocks", 2, "--hi", 5, "-r", 0.1, "-b", 0.8)
    assert done.code == 0, done.err
    after = lna("stability", *model[:4], "--langs", "en,es,sw", *FEW, "--hi", 5, "-r", 0.1, "-b", 0.8)
    assert after.code == 0, after.err
