"""Exported models: plain transformers scores texts with them as the masked model does; the rest is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from language_neurons_alignment._export import export_model
from language_neurons_alignment._interventions import NeuronSource, intervene
from language_neurons_alignment._loaded import load
from language_neurons_alignment._operations import Steps
from language_neurons_alignment.errors import ConflictError, EngineError, LNAError, SettingsError
from language_neurons_alignment.store.checkpoint import read_checkpoint
from tests.cli.conftest import Lna, lna  # noqa: F401 - the fixture
from tests.tiny_models import D_MLP, HIDDEN, LAYERS, save_tiny_model

TEXT = "La maison a deux portes."


def source_of(folder: Path, do: str | list[str], places: list[list[int]] | None = None) -> tuple[Steps, NeuronSource]:
    """Steps on the neurons of a list, `@`: a third of all of them."""
    listed = folder.parent / "neurons.json"
    places = places or [[layer, neuron] for layer in range(LAYERS) for neuron in range(layer, D_MLP, 3)]
    listed.write_text(json.dumps(places))
    steps = Steps.parse([one.replace("@", f"@{listed}") for one in ([do] if isinstance(do, str) else do)])
    return steps, NeuronSource.open(None, steps, checkpoint=read_checkpoint(str(folder)))


def plain_nll(folder: Path) -> float:
    """The text's negative log-likelihood as transformers alone computes it."""
    model = AutoModelForCausalLM.from_pretrained(folder)
    tokens = torch.tensor([AutoTokenizer.from_pretrained(folder)(TEXT).input_ids])
    with torch.no_grad():
        logits = model(tokens).logits[0, :-1].float()
    return float(torch.nn.functional.cross_entropy(logits, tokens[0, 1:], reduction="sum"))


@pytest.mark.parametrize(
    ("kind", "do", "dtype", "close"),
    [
        ("llama", ["zero @"], torch.float32, 1e-6),
        ("llama", ["scale:-1.7 @"], torch.float32, 1e-6),
        ("gpt2", ["scale:0.3 @"], torch.float32, 1e-6),  # Conv1D: transposed
        ("opt", ["zero @"], torch.float32, 1e-6),
        ("opt", ["scale:0.3 @", "set:0.5 @"], torch.float32, 1e-6),  # the shift goes into the bias
        ("llama", ["zero @"], torch.bfloat16, 1e-6),
        ("llama", ["scale:1.7 @"], torch.bfloat16, 2e-3),  # rounded weights in place of rounded activations
    ],
)
def test_an_exported_model_is_the_model_under_the_intervention(
    kind: str, do: list[str], dtype: torch.dtype, close: float, tmp_path: Path
) -> None:
    folder = save_tiny_model(kind, tmp_path / kind, dtype=dtype)
    steps, source = source_of(folder, do)
    done = export_model(str(folder), steps, source, tmp_path / "out")
    assert done.neurons == dict.fromkeys(range(LAYERS), D_MLP // 3)
    model = load(str(folder), device="cpu")
    before = float(model.perplexity(TEXT).nll)
    with intervene(model.engine, steps, source):
        masked = float(model.perplexity(TEXT).nll)
    assert masked != pytest.approx(before, rel=1e-4)
    assert plain_nll(done.folder) == pytest.approx(masked, rel=close)


def test_only_the_named_columns_change_and_the_files_are_the_source_s(tmp_path: Path) -> None:
    folder = save_tiny_model("llama", tmp_path / "llama")
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    late = {name: one for name, one in weights.items() if "layers.2." in name}
    parts = {"a.safetensors": {name: one for name, one in weights.items() if name not in late}, "b.safetensors": late}
    for name, some in parts.items():
        save_file(some, folder / name, metadata={"format": "pt"})
    index = {"metadata": {}, "weight_map": {name: file for file, some in parts.items() for name in some}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    (folder / "README.md").write_text("about another model")
    steps, source = source_of(folder, "scale:2 @", [[2, 5], [2, 7]])
    out = tmp_path / "out"
    done = export_model(str(folder), steps, source, out)
    name = "model.layers.2.mlp.down_proj.weight"
    assert done.tensors == (name,)
    assert (out / "a.safetensors").read_bytes() == (folder / "a.safetensors").read_bytes()
    after = load_file(out / "b.safetensors")
    assert all(torch.equal(after[other], one) for other, one in late.items() if other != name)
    expected = late[name].clone()
    expected[:, [5, 7]] *= 2
    assert torch.equal(after[name], expected)
    copied = {path.name for path in folder.iterdir()} - {"README.md"}
    assert {path.name for path in out.iterdir()} == {*copied, "lna_export.json"}
    note = json.loads((out / "lna_export.json").read_text())
    assert (note["model"], note["folded_neurons"], note["changed_tensors"]) == ("llama", {"2": 2}, [name])
    assert str(tmp_path) not in json.dumps({**note, "do": [], "neurons": {}})
    with pytest.raises(ConflictError, match="is there already"):
        export_model(str(folder), steps, source, out)


@pytest.mark.parametrize(
    ("kind", "do", "said"),
    [
        ("llama", "set:1 @", r"shifts activations in layer 0.*mlp\.up_proj multiplies the activation"),
        ("mixtral", "zero @", r"layer 0 has 32 of the neurons in routed experts \(mlp\.experts\)"),
        ("mixtral", "ban expert:0.1", "act on a router's logits"),
        ("llama", "scale:1e38 @", r"beyond the range of torch\.float32"),
    ],
)
def test_what_cannot_be_folded_is_refused_and_leaves_nothing(kind: str, do: str, said: str, tmp_path: Path) -> None:
    folder = save_tiny_model(kind, tmp_path / kind, spread=20.0 if "1e38" in do else 0.2)
    steps, source = source_of(folder, do)
    with pytest.raises(EngineError, match=said):
        export_model(str(folder), steps, source, tmp_path / "out")
    assert {path.name for path in tmp_path.iterdir()} == {kind, "neurons.json"}


def test_models_that_are_not_whole_plain_folders_are_refused(tmp_path: Path) -> None:
    folder = save_tiny_model("llama", tmp_path / "llama")
    steps, source = source_of(folder, "zero @")
    out = tmp_path / "out"
    with pytest.raises(SettingsError, match="nothing to fold"):
        export_model(str(folder), Steps(()), source, out)
    weights = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(LNAError, match=r"no model\.safetensors: only safetensors"):
        export_model(str(folder), steps, source, out)
    (folder / "model.safetensors").write_bytes(weights[:-1])
    with pytest.raises(LNAError, match="is no safetensors file"):
        export_model(str(folder), steps, source, out)
    config = json.loads((folder / "config.json").read_text())
    quantized = {**config, "quantization_config": {"quant_method": "fp8"}}
    (folder / "config.json").write_text(json.dumps(quantized))
    with pytest.raises(EngineError, match=r"quantized \(fp8\)"):
        export_model(str(folder), steps, source, out)
    assert not out.exists()


def test_shared_weights_are_refused(tmp_path: Path) -> None:
    from language_neurons_alignment.core.interventions import Intervention
    from language_neurons_alignment.engines.transformers import TransformersEngine
    from language_neurons_alignment.engines.transformers.folding import foldable

    engine = TransformersEngine.load(save_tiny_model("llama", tmp_path), device="cpu")
    layers = engine._network.decoder.layers
    layers[2].mlp.down_proj.weight = layers[0].mlp.down_proj.weight
    off = torch.zeros(LAYERS, D_MLP, dtype=torch.bool)
    off[1, 0] = True
    assert [site.layer for site, *_ in foldable(engine._network, Intervention.zero(off))] == [1]
    off[0, 0] = True
    with pytest.raises(EngineError, match=r"layer 0 is shared \(.*layers\.0.*layers\.2"):
        foldable(engine._network, Intervention.zero(off))
    assert engine.model.d_mlp != HIDDEN


def test_the_command(tmp_path: Path, lna: Lna) -> None:  # noqa: F811
    folder = save_tiny_model("llama", tmp_path / "llama")
    (tmp_path / "neurons.json").write_text("[[1, 4]]")
    call = (
        "export-model",
        "--model-path",
        folder,
        "--do",
        f"zero @{tmp_path / 'neurons.json'}",
        "-o",
        tmp_path / "out",
    )
    done = lna(*call, "--json")
    assert (done.code, done.json["neurons"]) == (0, {"1": 1}), done.err
    again = lna(*call)
    assert (again.code, again.err.count("\n")) == (1, 1)
    named = lna(*call[:3], "--do", "zero fr", "-o", tmp_path / "other")
    assert (named.code, "-s" in named.err) == (2, True), named.err
