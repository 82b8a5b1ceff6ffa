"""Quantised weights: counted as the weights that they stand for, named in the provenance, or refused in one line."""

from __future__ import annotations

import json
import shutil
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.testing._internal.two_tensor import TwoTensor
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from language_neurons_alignment.engines import EngineSettings, load_engine
from language_neurons_alignment.engines.quantization import check_all_read, describe_quantization, without_outliers
from language_neurons_alignment.engines.transformers import TransformersEngine
from language_neurons_alignment.engines.transformers.guest import weights_hash
from language_neurons_alignment.errors import EngineError, LNAWarning, MissingEngineError, SettingsError
from language_neurons_alignment.store.checkpoint import read_checkpoint
from tests.adapters import save_adapter
from tests.engines.test_adapter import GROUPS, load, measured
from tests.quantized import save_mxfp4, save_quantized, say
from tests.tiny_models import save_quietly, save_tiny_model

TORCHAO = "torchao-Int8WeightOnlyConfig"

needs_compressed = pytest.mark.skipif(
    find_spec("compressed_tensors") is None,
    reason="compressed-tensors is not installed: pip install compressed-tensors",
)
needs_bitsandbytes = pytest.mark.skipif(
    find_spec("bitsandbytes") is None, reason="not installed: pip install bitsandbytes"
)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("quantized") / "model"
    return save_tiny_model("llama", folder, intermediate_size=192)  # FP8's blocks of 128 do not fit in


@pytest.mark.filterwarnings("ignore::language_neurons_alignment.errors.LNAWarning")
class TestTransformers:
    """Formats that need no other library."""

    def test_fp8_in_blocks_of_which_the_last_is_cut_off(self, model: Path, tmp_path: Path) -> None:
        quantized, plain = save_quantized(model, tmp_path / "fp8", "fp8-deepseek")
        engine = load(quantized)
        assert engine.provenance["quantization"] == "fp8 (dequantized)"
        assert_same(engine, load(plain))

    def test_experts_in_mxfp4_in_a_precision_that_is_not_bfloat16(self, tmp_path: Path) -> None:
        sizes: dict[str, Any] = {"hidden_size": 64, "intermediate_size": 32, "num_hidden_layers": 1}
        quantized, plain = save_mxfp4(save_tiny_model("gpt_oss", tmp_path / "oss", **sizes), tmp_path / "mxfp4")
        engine = load(quantized)
        assert engine.provenance["quantization"] == "mxfp4 (dequantized)"
        assert_same(engine, load(plain))


def assert_same(engine: TransformersEngine, plain: TransformersEngine) -> None:
    found, expected = measured(engine), measured(plain)
    assert torch.equal(found[0].full.over_zero, expected[0].full.over_zero)
    assert found[1].nll == pytest.approx(expected[1].nll, abs=1e-3)


@needs_compressed
@pytest.mark.filterwarnings("ignore::language_neurons_alignment.errors.LNAWarning")
class TestCompressedTensors:
    @pytest.mark.parametrize("method", ["fp8-blocks", "int4"])
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

    def test_activations_are_rounded_where_the_checkpoint_says_so(self, model: Path, tmp_path: Path) -> None:
        quantized, plain = save_quantized(model, tmp_path / "fp8", "fp8-dynamic")
        engine = load(quantized)
        said = str(engine.provenance["quantization"])
        assert said == "compressed-tensors-float-quantized (dequantized, activations quantized)"
        oracle = load(plain)
        for module in oracle._network.decoder.modules():
            if isinstance(module, torch.nn.Linear):
                module.register_forward_pre_hook(lambda _module, inputs: (as_float8(inputs[0]),))
        assert_same(engine, oracle)

    def test_an_adapter_is_put_onto_the_weights_that_the_codes_stand_for(self, model: Path, tmp_path: Path) -> None:
        quantized, plain = save_quantized(model, tmp_path / "fp8", "fp8")
        adapter = str(save_adapter(plain, tmp_path / "lora"))
        expected = measured(load(plain, adapter=adapter))
        for live in (False, True):
            found = measured(load(quantized, adapter=adapter, adapter_live=live))
            assert torch.equal(found[0].full.over_zero, expected[0].full.over_zero)


def as_float8(x: torch.Tensor) -> torch.Tensor:
    """Each token's numbers rounded to float8_e4m3fn, in steps of its largest one."""
    scale = x.abs().amax(-1, keepdim=True) / 448
    return (x / scale).to(torch.float8_e4m3fn).float() * scale


@needs_bitsandbytes
class TestBitsAndBytes:
    def test_four_bits_count_as_the_weights_that_they_stand_for(self, model: Path, tmp_path: Path) -> None:
        from bitsandbytes.functional import dequantize_4bit

        engine = load(model, quantization="bitsandbytes-4bit")
        assert engine.provenance["quantization"] == "bitsandbytes-4bit-nf4"
        told = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4")
        four = AutoModelForCausalLM.from_pretrained(model, quantization_config=told)
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

    def test_a_stored_checkpoint_in_eight_bits_counts_as_one_quantized_on_loading(
        self, model: Path, tmp_path: Path
    ) -> None:
        eight = AutoModelForCausalLM.from_pretrained(model, quantization_config=BitsAndBytesConfig(load_in_8bit=True))
        save_quietly(eight, tmp_path / "eight")
        for file in model.glob("tokenizer*"):
            (tmp_path / "eight" / file.name).write_bytes(file.read_bytes())
        with pytest.warns(LNAWarning, match="quantized weights"):
            engine = load(tmp_path / "eight")
        assert_same(engine, load(model, quantization="bitsandbytes-8bit"))

    def test_experts_stay_plain_and_the_results_say_so(self, tmp_path: Path) -> None:
        folder = save_tiny_model("olmoe", tmp_path / "olmoe", num_hidden_layers=1)
        with pytest.warns(LNAWarning, match="linear maps alone: the experts of .* stay in float32"):
            engine = load(folder, quantization="bitsandbytes-4bit")
        assert engine.provenance["quantization"] == "bitsandbytes-4bit-nf4 (experts in float32)"
        engine.close()

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
        [("gptq", "gptqmodel optimum"), ("awq", "gptqmodel"), ("bitsandbytes", "bitsandbytes")],
    )
    def test_without_its_packages_the_command_that_installs_them_is_named(
        self, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, packages: str
    ) -> None:
        folder = save_tiny_model("llama", tmp_path / "model")
        say(folder, quant_method=method, bits=4)
        installed = {"accelerate": SimpleNamespace(origin="there")}
        monkeypatch.setattr("language_neurons_alignment.engines.quantization.find_spec", installed.get)
        with pytest.raises(MissingEngineError, match=rf"quantized weights \({method}\) .*: pip install {packages}$"):
            load(folder)

    def test_a_quantization_flag_without_its_package(self, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("language_neurons_alignment.engines.quantization.find_spec", lambda name: None)
        with pytest.raises(MissingEngineError, match=r": pip install accelerate bitsandbytes$"):
            load(model, quantization="bitsandbytes-4bit")

    def test_a_folder_of_its_name_is_not_the_package(
        self, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "gptqmodel").mkdir()
        monkeypatch.syspath_prepend(tmp_path)
        folder = shutil.copytree(model, tmp_path / "model")
        say(folder, quant_method="awq", bits=4)
        with pytest.raises(MissingEngineError, match=r": pip install .*gptqmodel$"):
            load(folder)

    @pytest.mark.parametrize(
        ("said", "seen"),
        [
            ({"quant_method": "modelopt"}, "quantized by 'modelopt', which transformers"),
            ({"quant_method": "hqq"}, "quantized by 'hqq', which transformers"),
            ({"quant_method": "quanto", "weights": "int8"}, "quantized by 'quanto', which transformers"),
            ({"bits": 4}, r"quantized \(quantization_config\), without a quant_method"),
        ],
    )
    def test_a_method_of_which_no_weights_are_read(
        self, model: Path, tmp_path: Path, said: dict[str, Any], seen: str
    ) -> None:
        folder = shutil.copytree(model, tmp_path / "model")
        say(folder, **said)
        with pytest.raises(EngineError, match=f"{seen}.* give the model before it was quantized"):
            load(folder)

    def test_scales_that_nothing_reads(self, model: Path, tmp_path: Path) -> None:
        quantized, _ = save_quantized(model, tmp_path / "fp8", "fp8-deepseek")
        (quantized / "config.json").write_bytes((model / "config.json").read_bytes())
        with pytest.raises(EngineError, match=r"scales were not read \(.*_inv, …\).*needs the quantization_config"):
            load(quantized)

    @pytest.mark.parametrize("scale", ["weight_scale", "weight_scale_inv", "scale", "SCB", "weight.absmax"])
    def test_scales_of_matrices_that_were_read(self, scale: str) -> None:
        for method in (None, "fp8"):
            with pytest.raises(EngineError, match=rf"1 of their scales were not read \(model\.q_proj\.{scale}, …\)"):
                check_all_read("m", ["model.norm.bias", f"model.q_proj.{scale}"], method=method)
        stacked = ["model.experts.gate_up_proj_scale_inv", "model.experts.0.w1.weight_scale"]
        with pytest.raises(EngineError, match="2 of their scales were not read"):
            check_all_read("m", stacked, method="fp8")

    def test_scales_without_which_the_weights_are_the_same(self) -> None:
        further = "model.layers.61.q_proj"  # of a layer that predicts further tokens, of which the model has nothing
        check_all_read("m", [f"{further}.weight", f"{further}.weight_scale_inv"], method="fp8")
        check_all_read("m", [f"{further}.qweight", f"{further}.qzeros", f"{further}.scales"], method="gptq")
        others = ["self_attn.k_scale", "self_attn.v_scale", "q_proj.input_scale", "logit_scale", "eyes.per_dim_scale"]
        for method in (None, "fp8"):
            check_all_read("m", others, method=method)

    def test_gptq_without_its_config_is_told_so_and_not_to_be_incomplete(self, model: Path, tmp_path: Path) -> None:
        folder = shutil.copytree(model, tmp_path / "model")
        weights = load_file(folder / "model.safetensors")
        name = "model.layers.0.mlp.up_proj"
        weights[f"{name}.qweight"] = weights.pop(f"{name}.weight").to(torch.int32)
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        with pytest.raises(EngineError, match=rf"scales were not read \({name}\.qweight, …\).*quantization_config"):
            load(folder)

    def test_a_config_that_is_no_object(self, model: Path, tmp_path: Path) -> None:
        folder = shutil.copytree(model, tmp_path / "model")
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        (folder / "config.json").write_text(json.dumps({**config, "quantization_config": "awq"}), encoding="utf-8")
        with pytest.raises(EngineError, match=r'has "quantization_config": "awq"; expected an object'):
            load(folder)

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
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "bitsandbytes-4bit-fp4"),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}, "bitsandbytes-4bit-nf4"),
        ({"quant_method": "torchao", "quant_type": {"default": {"_type": "Int8WeightOnlyConfig"}}}, TORCHAO),
        ({"quant_method": "quanto", "weights": "int8"}, "quanto-int8"),
        ({"quant_method": "bitsandbytes", "load_in_8bit": True}, "bitsandbytes-8bit"),
        ({"quant_method": "fp8", "dequantize": True}, "fp8 (dequantized)"),
        ({}, "of unknown method"),
    ],
)
def test_what_results_say(said: dict[str, Any], shown: str) -> None:
    assert describe_quantization(SimpleNamespace(quantization_config=said)) == {"quantization": shown}


def test_the_library_that_reads_them_is_named_with_its_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("language_neurons_alignment.engines.quantization.version", {"gptqmodel": "7.7"}.__getitem__)
    config = SimpleNamespace(quantization_config={"quant_method": "awq", "bits": 4})
    assert describe_quantization(config) == {"quantization": "awq-4bit"}  # vLLM has its own
    described = describe_quantization(config, config)
    assert described == {"quantization": "awq-4bit", "quantization_library": "gptqmodel 7.7"}


def test_eight_bits_are_loaded_without_columns_of_outliers() -> None:
    stored = {"quant_method": "bitsandbytes", "load_in_8bit": True, "llm_int8_threshold": 6.0}
    given = SimpleNamespace(quantization_config=stored)
    assert without_outliers(given).quantization_config["llm_int8_threshold"] == 0.0
    assert given.quantization_config is stored
    assert stored["llm_int8_threshold"] == 6.0


def test_the_digest_of_a_model_in_memory_covers_packed_weights() -> None:
    def digest(packed: int, inner: float) -> str:
        module: Any = torch.nn.Module()
        module.weight = torch.nn.Parameter(TwoTensor(torch.ones(2, 2), torch.full((2, 2), inner)))
        module.register_buffer("qweight", torch.full((2, 2), packed))
        return weights_hash(module)

    assert len({digest(1, 1.0), digest(2, 1.0), digest(1, 2.0)}) == 3


def test_plain_weights_say_nothing(model: Path) -> None:
    engine = TransformersEngine.load(model, device="cpu")
    assert "quantization" not in engine.provenance
    assert engine.count(GROUPS).full.total_tokens
    engine.close()
