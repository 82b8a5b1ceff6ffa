"""A model whose layers differ in width, through every command from counts to report."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from language_neurons_alignment.core.widths import is_neuron
from language_neurons_alignment.store.counts import load_answer_counts, widths_in
from language_neurons_alignment.store.layout import Layout
from language_neurons_alignment.store.masks import Mask
from tests.cli.conftest import Lna
from tests.tiny_models import RAGGED_WIDTHS, save_tiny_model
from tests.workspace import small_records, write_corpus

KIND = "gemma3n_text"
WIDTHS = RAGGED_WIDTHS[KIND]
CODES = ("en", "fr", "zh")
REAL = is_neuron(WIDTHS, max(WIDTHS))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ragged")
    save_tiny_model(KIND, folder / "model")
    write_corpus(folder / "corpus.json", small_records(CODES, questions=4))
    return folder


def test_from_counts_to_maps_only_real_neurons_are_there(
    lna: Lna, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    where = ("--model-path", "model", "-s", "toy")
    corpus, few = ("-d", "corpus.json"), ("--langs", ",".join(CODES))

    for code in CODES:
        counted = lna("activation", *where, *corpus, "-l", code, "--moments", "--blocks", 4)
        assert counted.code == 0, counted.err
    name = json.loads((folder / "model" / "config.json").read_text())["architectures"][0]
    (file,) = (folder / "activations" / "toy").glob("activation.en.*.pt")
    layout = Layout(folder, "toy", file.name.removeprefix("activation.en.").removesuffix(".pt"))
    for kind in ("activation", "prefix.activation", "moments", "blocks"):
        stored = torch.load(folder / "activations" / "toy" / f"{kind}.fr.{layout.model}.pt", weights_only=True)
        assert stored["meta"]["widths"] == list(WIDTHS) == list(widths_in(stored["meta"]) or ())
        for table in stored.values():
            if isinstance(table, torch.Tensor) and table.ndim > 1:
                assert not table[..., ~REAL].any()
                assert table[..., REAL].any()

    counts = load_answer_counts(layout, CODES)
    assert counts.widths == WIDTHS
    bar = 0.6
    swept = lna("autosweep", *where, *few, "-r", 0.1, "-b", bar, "--hi", 5, "--json")
    assert swept.code == 0, swept.err
    found = lna("identify", *where, *few, "-r", 0.1, "-l", 0.2, "-b", bar, "--json")
    assert found.code == 0, found.err
    listed = counts.probability[REAL].flatten().sort().values
    assert found.json["threshold"] == float(listed[round(bar * len(listed)) - 1])
    assert sum(found.json["appear"]) == round(0.1 * sum(WIDTHS))
    assert found.json["widths"] == list(WIDTHS)
    mask = Mask.load(Path(found.json["mask"]))
    assert mask.description is not None
    assert mask.description.widths == WIDTHS
    assert mask.tensor.any()
    assert not mask.tensor[~REAL].any()
    shown = lna("identify", *where, *few, "-r", 0.1, "-l", 0.2, "-b", bar)
    assert f"of all 4 × 51 to 96 ({sum(WIDTHS)} in all)" in shown.out

    mapped = lna("ppl", *where, *corpus, *few, "-r", 0.1, "-l", 0.2, "--controls", 2, "--json")
    assert mapped.code == 0, mapped.err
    random = ("--method", "random", "--neurons", 250)
    drawn = lna("identify", *where, *few, *random, "--json")
    assert drawn.code == 0, drawn.err
    assert drawn.json["neurons"] == dict.fromkeys(CODES, 250)
    assert not Mask.load(Path(drawn.json["mask"])).tensor[~REAL].any()
    means = lna("identify", *where, *few, "--method", "mean-difference", "--json")
    assert means.code == 0, means.err
    for command in (
        ("analyze", *where, *few, "-r", 0.1, "-l", 0.2, "-b", bar),
        ("stability", *where, *few, "-r", 0.1, "-l", 0.2, "-b", bar, "--draws", 4, "--splits", 2),
        ("report", *where, *few, "-r", 0.1, "-l", 0.2, "-b", bar),
        ("check", "."),
    ):
        call = lna(*command)
        assert call.code == 0, call.err
    analysed = lna("analyze", *where, *few, "-r", 0.1, "-l", 0.2, "-b", bar)
    specific = found.json["classes"]["specific"]
    row = next(line for line in analysed.lines if line.split()[:1] == ["specific"])
    assert row.split() == ["specific", str(specific), f"{100 * specific / sum(WIDTHS):.3f}", "%"]
    assert name.startswith("Gemma3n")

    bare = folder / "bare.pth"
    torch.save(torch.load(mask.path, weights_only=True), bare)  # as others publish it, without a description
    imported = lna("import-mask", bare, "--model-path", "model", "-s", "public", *few, "-r", 0.1, "-l", 0.2, "--json")
    assert imported.code == 0, imported.err
    assert imported.json["widths"] == list(WIDTHS)
    wrong = [[torch.tensor([60]) if layer == 1 else torch.tensor([0]) for layer in range(4)]] * 3
    torch.save(wrong, bare)
    refused = lna("import-mask", bare, "--model-path", "model", "-s", "wrong", *few, "-r", 0.1, "-l", 0.2)
    assert refused.code == 1
    assert "layer 1 has 51 neurons (0..50), but a neuron of the mask at place 60" in refused.err
    (folder / "listed.csv").write_text("layer,neuron\n2,63\n1,51\n")
    refused = lna("ppl", *where, *corpus, *few, "-r", 0.1, "-l", 0.2, "--controls", 0, "--do", "zero @listed.csv")
    assert refused.code == 1
    assert "@listed.csv names neuron 51 of layer 1" in refused.err
    assert "neurons 0..50" in refused.err
