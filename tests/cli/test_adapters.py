"""`--adapter` as it is typed: one base and its adapters, from counts to the comparison, and never mixed up."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from language_neurons_alignment.store.counts import load_counts
from language_neurons_alignment.store.layout import Layout
from language_neurons_alignment.store.masks import Mask
from tests.adapters import save_difference
from tests.cli.conftest import Lna
from tests.planted import D_MLP, LAYERS, PlantedModel, planted_records

NAMES = ("en", "es", "fr", "zh")
LANGUAGES = ("English", "Spanish", "French", "Chinese")
RATES = ("-s", "words", "-r", 80 / (LAYERS * D_MLP))
ENGINE = ("--engine", "transformers", "--device", "cpu")


@dataclass(frozen=True)
class Aligned:
    """A base, an aligned version of it in a folder of its own, and the same as an adapter; `moved` changed language."""

    folder: Path
    base: PlantedModel
    aligned: PlantedModel
    moved: tuple[int, int]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Aligned:
    folder = tmp_path_factory.mktemp("adapters")
    base = PlantedModel.save(folder / "base", speaks=False)
    moved = next(place for place, some in base.planted.items() if some == {"English"})
    aligned = PlantedModel.save(folder / "whole", speaks=False, moved={moved: frozenset({"Chinese"})})
    save_difference(base.folder, aligned.folder, folder / "aligned")
    (folder / "words.json").write_text(json.dumps(planted_records(LANGUAGES), ensure_ascii=False), encoding="utf-8")
    return Aligned(folder, base, aligned, moved)


@pytest.fixture
def here(saved: Aligned, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = Path(shutil.copytree(saved.folder, tmp_path / "here"))
    monkeypatch.chdir(folder)
    return folder


def count(lna: Lna, *more: object) -> None:
    for code in NAMES:
        call = lna("activation", "--model-path", "base", "-d", "words.json", "-s", "words", "-l", code, *ENGINE, *more)
        assert call.code == 0, call.err


def mask_of(root: Path, name: str) -> torch.Tensor:
    (path,) = (root / "activation_masks" / "words").glob(f"*/mask.{name}")
    return Mask.load(path, D_MLP, NAMES, remedy="").tensor


def test_base_and_adapter_compared_end_with_a_table_of_exactly_what_the_adapter_changed(
    lna: Lna, here: Path, saved: Aligned
) -> None:
    for more in ((), ("--adapter", "aligned")):
        count(lna, *more)
        found = lna("autosweep", "--model-path", "base", *more, *RATES, "--langs", ",".join(NAMES))
        lam = found.lines[-1].removeprefix("best λ = ")
        named = lna("identify", "--model-path", "base", *more, *RATES, "-l", lam, "--langs", ",".join(NAMES))
        assert named.code == 0, named.err
    call = lna("compare", "base", "aligned", *RATES)
    assert call.code == 0, call.err
    assert "Llama-base → Llama-aligned" in call.out
    assert "kept +gained −lost" in call.out
    before, after = mask_of(here, "Llama-base"), mask_of(here, "Llama-aligned")
    changed = (before != after).nonzero().tolist()
    layer, neuron = saved.moved
    assert sorted(changed) == sorted([[layer, neuron, NAMES.index("en")], [layer, neuron, NAMES.index("zh")]])
    assert bool(before[layer, neuron, NAMES.index("en")])
    assert bool(after[layer, neuron, NAMES.index("zh")])


def test_counts_of_an_adapter_are_those_of_the_aligned_model_and_say_where_they_come_from(
    lna: Lna, here: Path, saved: Aligned
) -> None:
    count(lna, "--adapter", "aligned")
    lna("activation", "--model-path", "whole", "-d", "words.json", "-s", "words", "-l", "zh", *ENGINE)
    counts, meta = load_counts(Layout(here, "words", "Llama-aligned"), "zh")
    whole, plain = load_counts(Layout(here, "words", "Llama-whole"), "zh")
    assert torch.equal(counts.full.over_zero, whole.full.over_zero)
    assert meta["adapter"] == "aligned"
    assert meta["adapter_mode"] == "merged"
    assert len(meta["adapter_sha256"]) == 64
    assert meta["weights_hash"] != plain["weights_hash"]
    assert "adapter" not in plain


def test_counts_of_base_adapter_and_live_adapter_are_never_taken_for_each_other(lna: Lna, here: Path) -> None:
    one = ("activation", "--model-path", "base", "-d", "words.json", "-s", "words", "-l", "en", *ENGINE)
    assert lna(*one, "--adapter", "aligned").code == 0
    live = lna(*one, "--adapter", "aligned", "--adapter-live")
    assert live.code == 1
    assert "adapter_mode 'merged', this run has 'live'" in live.err
    Path("aligned").rename("other")
    changed = json.loads(Path("other/adapter_config.json").read_text(encoding="utf-8"))
    Path("other/adapter_config.json").write_text(json.dumps({**changed, "lora_alpha": 1}), encoding="utf-8")
    Path("other").rename("aligned")
    again = lna(*one, "--adapter", "aligned")
    assert again.code == 1
    assert "weights_hash" in again.err


def test_an_adapter_of_the_model_s_own_name_needs_a_name_for_its_results(lna: Lna, here: Path) -> None:
    shutil.copytree("aligned", "lora/base")
    one = ("activation", "--model-path", "base", "-d", "words.json", "-s", "words", "-l", "en", *ENGINE)
    refused = lna(*one, "--adapter", "lora/base")
    assert refused.code == 2
    assert "the same last part of their paths, 'base'" in refused.err
    assert lna(*one, "--adapter", "lora/base", "--model-name", "Aligned").code == 0
    assert Path("activations/words/activation.en.Aligned-base.pt").is_file()


def test_generate_takes_an_adapter_too(lna: Lna, here: Path) -> None:
    call = lna(
        "generate", "--model-path", "base", "--adapter", "aligned", "-d", "words.json", "-o", "answers.json", *ENGINE,
        "--langs", "en", "--max-new-tokens", 3, "-n", 3, "--temperature", 0.7,
    )  # fmt: skip
    assert call.code == 0, call.err
    made = json.loads(Path("answers.json").read_text(encoding="utf-8"))[0]["generation"]
    assert (made["adapter"], made["adapter_mode"]) == ("aligned", "merged")


def test_quantization_reaches_the_engine_and_its_missing_package_is_named(
    lna: Lna, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("language_neurons_alignment.engines.quantization.find_spec", lambda name: None)
    one = ("activation", "--model-path", "base", "-d", "words.json", "-s", "words", "-l", "en")
    refused = lna(*one, "--quantization", "bitsandbytes-4bit")  # which only the transformers engine has
    assert refused.code == 1
    assert "pip install accelerate bitsandbytes" in refused.err
