"""`lna model`: what it shows of models whose neurons are proved, refused, or not looked for."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from language_neurons_alignment import _model
from tests.cli.conftest import Lna
from tests.tiny_models import D_MLP, LAYERS, save_quietly, save_tiny_model, tiny_tokenizer


def parameters(folder: Path) -> int:
    """Numbers in the weights' file; a tied head is stored once."""
    from safetensors import safe_open

    with safe_open(folder / "model.safetensors", "pt") as file:
        return sum(file.get_tensor(name).numel() for name in file.keys())  # noqa: SIM118 - no dict


@pytest.mark.parametrize("kind", ["llama", "gpt2", "qwen2_vl"])
def test_a_model_that_is_served(kind: str, tmp_path: Path, lna: Lna) -> None:
    folder = save_tiny_model(kind, tmp_path / kind)
    shown = lna("model", folder, "--device", "cpu", "--json").json
    assert (shown["family"], shown["layers"], shown["neurons"]) == (kind, LAYERS, LAYERS * D_MLP)
    assert shown["proof"] == "proved"
    assert shown["parameters"] == parameters(folder)
    assert shown["memory"]["bfloat16"]["weights"] == 2 * shown["parameters"]
    assert shown["memory"]["float32"]["counting"] > shown["memory"]["float32"]["weights"]
    (place,) = shown["places"]
    assert (place["first"], place["last"], place["neurons"]) == (0, LAYERS - 1, D_MLP)
    assert (place["up"] is None) == (kind == "gpt2")

    said = lna("model", folder, "--device", "cpu")
    assert said.code == 0
    assert "transformers  serves it: the places of its neurons are proved" in said.out
    assert f"0 to {LAYERS - 1}" in said.out


def test_a_model_that_is_refused(tmp_path: Path, lna: Lna) -> None:
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "vocab_size": 320}
    save_quietly(AutoModelForCausalLM.from_config(AutoConfig.for_model("mamba", **sizes)), tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    said = lna("model", tmp_path, "--device", "cpu")
    assert said.code == 1
    assert "transformers  refused: the neurons of MambaModel, layer 0" in said.out
    assert said.err.startswith("lna: the neurons of MambaModel, layer 0 (MambaBlock) cannot be proved")


def test_the_config_alone(tmp_path: Path, lna: Lna) -> None:
    folder = save_tiny_model("mistral", tmp_path)
    size = parameters(folder)
    (folder / "model.safetensors").unlink()
    shown = lna("model", folder, "--config-only", "--json").json
    assert (shown["proof"], shown["said"], shown["parameters"]) == ("not tried", "its weights were not loaded", size)
    assert shown["places"] == []


def test_weights_that_do_not_fit_are_not_loaded(tmp_path: Path, lna: Lna, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = save_tiny_model("mistral", tmp_path)
    monkeypatch.setattr(_model, "free_memory", lambda device: 1000)
    said = lna("model", folder, "--device", "cpu")
    assert said.code == 0
    assert "transformers  not tried: its weights take 0.00 GiB in float32, and 0.00 GiB of cpu are free" in said.out


def test_the_free_memory_of_this_machine() -> None:
    assert 2**28 < _model.free_memory(torch.device("cpu")) < 2**44


def test_a_mixture_of_experts(tmp_path: Path, lna: Lna) -> None:
    folder = save_tiny_model("deepseek_v3", tmp_path)
    shown = lna("model", folder, "--device", "cpu", "--json").json
    assert shown["proof"] == "proved"
    assert [one["experts"] > 0 for one in shown["places"]].count(True) == 1
    assert sum((one["last"] - one["first"] + 1) * one["neurons"] for one in shown["places"]) == shown["neurons"]
    assert f"{shown['experts']['number']} of " in lna("model", folder, "--device", "cpu").out
