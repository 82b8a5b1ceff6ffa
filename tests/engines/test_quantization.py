"""Quantised weights: counted as the weights that they stand for, named in the provenance, or refused in one line."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from language_neurons_alignment.engines import EngineSettings, load_engine
from language_neurons_alignment.engines.quantization import describe_quantization
from language_neurons_alignment.engines.transformers import TransformersEngine
from language_neurons_alignment.errors import EngineError, MissingEngineError, SettingsError
from language_neurons_alignment.store.checkpoint import read_checkpoint
from tests.adapters import save_adapter
from tests.engines.test_adapter import GROUPS, load, measured
from tests.quantized import METHODS, save_quantized, say
from tests.tiny_models import save_quietly, save_tiny_model

needs_compressed = pytest.mark.skipif(
    find_spec("compressed_tensors") is None,
    reason="compressed-tensors is not installed: pip install compressed-tensors",
)
needs_bitsandbytes = pytest.mark.skipif(
    find_spec("bitsandbytes") is None, reason="not installed: pip install bitsandbytes"
)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model("llama", tmp_path_factory.mktemp("quantized") / "model", intermediate_size=128)


@needs_compressed
@pytest.mark.filterwarnings("ignore::language_neurons_alignment.errors.LNAWarning")
class TestCompressedTensors:
    @pytest.mark.parametrize("method", METHODS)
    def test_counts_are_those_of_the_weights_that_the_codes_stand_for(
        self, model: Path, tmp_path: Path, method: str
    ) -> None:
        quantized, plain = save_quantized(model, tmp_path / method, method)
        engine = load(quantized)
        assert str(engine.provenance["quantization"]).startswith("compressed-tensors-")
        found, expected, original = measured(engine), measured(load(plain)), measured(load(model))
        assert torch.equal(found[0].full.over_zero, expected[0].full.over_zero)
        assert found[1].nll == pytest.approx(expected[1].nll, abs=1e-3)
        assert (found[0].full.over_zero != original[0].full.over_zero).any()

    def test_an_adapter_is_put_onto_the_weights_that_the_codes_stand_for(self, model: Path, tmp_path: Path) -> None:
        quantized, plain = save_quantized(model, tmp_path / "fp8", "fp8")
        adapter = str(save_adapter(plain, tmp_path / "lora"))
        expected = measured(load(plain, adapter=adapter))
        for live in (False, True):
            found = measured(load(quantized, adapter=adapter, adapter_live=live))
            assert torch.equal(found[0].full.over_zero, expected[0].full.over_zero)


@needs_bitsandbytes
class TestBitsAndBytes:
    def test_four_bits_count_as_the_weights_that_they_stand_for(self, model: Path, tmp_path: Path) -> None:
        from bitsandbytes.functional import dequantize_4bit

        engine = load(model, quantization="bitsandbytes-4bit")
        assert engine.provenance["quantization"] == "bitsandbytes-4bit"
        four = AutoModelForCausalLM.from_pretrained(model, quantization_config=BitsAndBytesConfig(load_in_4bit=True))
        plain = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
        with torch.no_grad():
            for name, weight in plain.named_parameters():
                packed: Any = four.get_parameter(name)
                if hasattr(packed, "quant_state"):
                    weight.copy_(dequantize_4bit(packed.data, packed.quant_state))
        save_quietly(plain, tmp_path / "plain")
        for file in model.glob("tokenizer*"):
            (tmp_path / "plain" / file.name).write_bytes(file.read_bytes())
        found, expected = measured(engine), measured(load(tmp_path / "plain"))
        activations = found[0].full.total_tokens * found[0].full.over_zero.numel()
        apart = (found[0].full.over_zero - expected[0].full.over_zero).abs().sum()
        assert int(apart) <= 1e-2 * activations  # on a CPU its kernel computes in bfloat16
        assert found[1].nll == pytest.approx(expected[1].nll, rel=1e-2)

    def test_eight_bits_are_causal_and_close_to_the_model(self, model: Path) -> None:
        engine = load(model, quantization="bitsandbytes-8bit")
        assert engine.provenance["quantization"] == "bitsandbytes-8bit"
        found, original = measured(engine), measured(load(model))
        assert found[1].nll == pytest.approx(original[1].nll, rel=1e-2)
        assert (found[0].full.over_zero != original[0].full.over_zero).any()

    def test_a_live_adapter_lies_beside_them_and_a_merged_one_is_refused(self, model: Path, tmp_path: Path) -> None:
        options = {"adapter": str(save_adapter(model, tmp_path / "lora")), "quantization": "bitsandbytes-8bit"}
        with pytest.raises(EngineError, match=r"cannot be merged into quantized weights \(bitsandbytes-8bit\).*-live"):
            load(model, **options)
        engine = load(model, adapter_live=True, **options)
        assert engine.provenance["quantization"] == "bitsandbytes-8bit"
        assert engine.provenance["adapter_mode"] == "live"
        found, expected = measured(engine), measured(load(model, adapter=options["adapter"]))
        assert found[1].nll == pytest.approx(expected[1].nll, rel=1e-2)


class TestRefused:
    @pytest.mark.parametrize(
        ("method", "packages"),
        [("gptq", "gptqmodel optimum"), ("awq", "gptqmodel"), ("bitsandbytes", "bitsandbytes"), ("hqq", "hqq")],
    )
    def test_without_its_packages_the_command_that_installs_them_is_named(
        self, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, packages: str
    ) -> None:
        folder = save_tiny_model("llama", tmp_path / "model")
        say(folder, quant_method=method, bits=4)
        installed = {"accelerate": object()}
        monkeypatch.setattr("language_neurons_alignment.engines.quantization.find_spec", installed.get)
        with pytest.raises(MissingEngineError, match=rf"quantized weights \({method}\) .*: pip install {packages}$"):
            load(folder)

    def test_a_quantization_flag_without_its_package(self, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("language_neurons_alignment.engines.quantization.find_spec", lambda name: None)
        with pytest.raises(MissingEngineError, match=r": pip install accelerate bitsandbytes$"):
            load(model, quantization="bitsandbytes-4bit")

    def test_an_unknown_quantization(self, model: Path) -> None:
        with pytest.raises(SettingsError, match="must be one of bitsandbytes-8bit, bitsandbytes-4bit; got 'q4'"):
            load(model, quantization="q4")

    def test_quantizing_twice(self, model: Path, tmp_path: Path) -> None:
        quantized, _ = save_quantized(model, tmp_path / "fp8", "fp8")
        with pytest.raises(EngineError, match=r"are quantized already \(compressed-tensors\): leave --quantization"):
            load(quantized, quantization="bitsandbytes-4bit")

    def test_vllm_has_no_such_flag(self, model: Path) -> None:
        with pytest.raises(SettingsError, match="the vllm engine has no option quantization"):
            load_engine(EngineSettings(str(model), "vllm", options={"quantization": "bitsandbytes-4bit"}))


def test_weights_quantized_when_they_are_loaded_are_other_weights(model: Path) -> None:
    plain = read_checkpoint(str(model))
    eight, four = (read_checkpoint(str(model), quantization=f"bitsandbytes-{bits}bit") for bits in (8, 4))
    assert len({plain.weights_hash, eight.weights_hash, four.weights_hash}) == 3
    assert plain.config_hash == eight.config_hash


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ({"quant_method": "awq", "bits": 4}, "awq-4bit"),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "bitsandbytes-4bit"),
        ({"quant_method": "bitsandbytes", "load_in_8bit": True}, "bitsandbytes-8bit"),
        ({"quant_method": "fp8", "dequantize": True}, "fp8 (dequantized)"),
        ({}, "of unknown method"),
    ],
)
def test_what_results_say(said: dict[str, Any], shown: str) -> None:
    assert describe_quantization(SimpleNamespace(quantization_config=said)) == {"quantization": shown}


def test_plain_weights_say_nothing(model: Path) -> None:
    engine = TransformersEngine.load(model, device="cpu")
    assert "quantization" not in engine.provenance
    assert engine.count(GROUPS).full.total_tokens
    engine.close()
