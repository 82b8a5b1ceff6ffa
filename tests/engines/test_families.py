"""Neuron sites: known by architecture, checked on the model, refused by name."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM

from language_neurons_alignment.engines.checkpoint import longest_sequence, rope_switch
from language_neurons_alignment.engines.families import (
    BACKEND,
    FAMILIES,
    Family,
    TransformersPlace,
    VLLMPlace,
    family_of,
    find_sites,
    neurons_per_layer,
    rank_sites,
    vllm_place,
)
from language_neurons_alignment.engines.transformers import TransformersEngine
from language_neurons_alignment.engines.vllm.launch import Launch, check_model
from language_neurons_alignment.errors import EngineError, UnknownArchitectureError
from tests.tiny_models import CONFIGS, tiny_config


@pytest.mark.parametrize("kind", CONFIGS)
def test_every_layer_s_site_is_a_module_of_its_own_and_of_the_config_s_width(kind: str) -> None:
    config = tiny_config(kind)
    with torch.device("meta"):
        decoder = AutoModelForCausalLM.from_config(config).get_decoder()
    sites = find_sites(decoder, family_of(config).transformers)
    text = config.get_text_config()
    width = {"opt": "ffn_dim"}.get(kind, "intermediate_size")
    assert [site.layer for site in sites] == list(range(text.num_hidden_layers))
    assert {site.d_mlp for site in sites} == {4 * text.hidden_size if kind == "bloom" else getattr(text, width)}
    assert len({id(site.module) for site in sites}) == len(sites)


def test_an_unknown_architecture_is_refused_by_name_with_what_is_known(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"]}))
    with pytest.raises(UnknownArchitectureError, match=r"GPT2LMHeadModel .*'gpt2'.*bloom, gemma2, .*qwen3"):
        TransformersEngine.load(tmp_path, device="cpu")


def test_an_architecture_that_nobody_knows_is_refused_too(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "martian"}))
    with pytest.raises(UnknownArchitectureError, match="martian"):
        TransformersEngine.load(tmp_path, device="cpu")
    with pytest.raises(UnknownArchitectureError, match="martian"):
        family_of(SimpleNamespace(model_type="martian", architectures=None))


def decoder_of(*layers: nn.Module) -> nn.Module:
    decoder = nn.Module()
    decoder.layers = nn.ModuleList(layers)
    return decoder


def layer_of(width: int = 8, activation: nn.Module | None = None) -> nn.Module:
    layer = nn.Module()
    layer.mlp = nn.Module()
    layer.mlp.gate_proj = nn.Linear(4, width)
    layer.mlp.act_fn = activation or nn.SiLU()
    return layer


def test_layers_that_are_not_built_as_promised_are_refused() -> None:
    llama = FAMILIES["llama"].transformers
    assert len(find_sites(decoder_of(layer_of(), layer_of()), llama)) == 2
    with pytest.raises(UnknownArchitectureError, match=r"layer 1 .* no module 'mlp.act_fn'"):
        find_sites(decoder_of(layer_of(), nn.Linear(2, 2)), llama)
    with pytest.raises(UnknownArchitectureError, match=r"different widths .8, 16 neurons"):
        find_sites(decoder_of(layer_of(8), layer_of(16)), llama)
    with pytest.raises(UnknownArchitectureError, match="no decoder layers"):
        find_sites(decoder_of(), llama)
    with pytest.raises(UnknownArchitectureError, match="no module 'layers'"):
        find_sites(nn.Module(), llama)
    shared = nn.SiLU()
    with pytest.raises(EngineError, match="share one activation module"):
        find_sites(decoder_of(layer_of(activation=shared), layer_of(activation=shared)), llama)


def test_a_projection_of_unknown_width_is_refused() -> None:
    layer = layer_of()
    layer.mlp.gate_proj = nn.Identity()
    with pytest.raises(UnknownArchitectureError, match="gate_proj is a Identity with no out_features"):
        find_sites(decoder_of(layer), FAMILIES["llama"].transformers)


@pytest.mark.parametrize(
    ("config", "tokenizer", "longest"),
    [
        ({"max_position_embeddings": 2048}, 10**30, 2048),
        ({"max_position_embeddings": 2048}, 512, 512),
        ({"seq_length": 1024}, 10**30, 1024),
        ({}, 4096, 4096),
        ({}, 10**30, 1_000_000_000),
    ],
)
def test_the_longest_sequence_is_what_config_and_tokenizer_both_allow(
    config: dict, tokenizer: int, longest: int
) -> None:
    assert longest_sequence(SimpleNamespace(**config), SimpleNamespace(model_max_length=tokenizer)) == longest


def test_only_longrope_switches_by_length() -> None:
    long = {"rope_type": "longrope", "original_max_position_embeddings": 4096}
    assert rope_switch(SimpleNamespace(rope_parameters=long)) == 4096
    assert rope_switch(SimpleNamespace(rope_parameters={"full_attention": long, "sliding_attention": {}})) == 4096
    yarn = {"rope_type": "yarn", "original_max_position_embeddings": 4096}
    assert rope_switch(SimpleNamespace(rope_parameters=yarn)) is None
    assert rope_switch(SimpleNamespace()) is None


@pytest.mark.parametrize(("kind", "family"), FAMILIES.items(), ids=FAMILIES)
def test_every_row_of_the_table_serves_both_engines_or_says_why_not(kind: str, family: Family) -> None:
    config = tiny_config(kind)
    with torch.device("meta"):
        decoder = AutoModelForCausalLM.from_config(config).get_decoder()
    assert find_sites(decoder, family.transformers)[0].d_mlp == neurons_per_layer(config)
    if family.vllm is None:
        assert family.without_vllm
        with pytest.raises(UnknownArchitectureError, match=re.escape(family.without_vllm)):
            vllm_place(config)
    else:
        assert not family.without_vllm
        assert vllm_place(config) is family.vllm
        assert family.vllm.model.endswith("ForCausalLM")


def test_the_table_needs_no_vllm() -> None:
    code = "import sys, language_neurons_alignment.engines.families; assert 'vllm' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_one_entry_makes_a_family_known_to_both_engines(monkeypatch: pytest.MonkeyPatch) -> None:
    """A family of which no engine has any other knowledge: its paths and its width are its own."""
    entry = Family(
        TransformersPlace("floors", "brain.spark", "brain.wires"),
        VLLMPlace("MartianForCausalLM", "inner.floors", "brain.spark"),
        width=lambda config: 2 * config.antennas,
    )
    config = SimpleNamespace(
        model_type="martian",
        architectures=["MartianForCausalLM"],
        antennas=4,
        num_attention_heads=2,
        num_hidden_layers=2,
    )

    def floor() -> nn.Module:
        made = nn.Module()
        made.brain = nn.Module()
        made.brain.wires, made.brain.spark = nn.Linear(3, 8), nn.ReLU()
        return made

    decoder = nn.Module()
    decoder.floors = nn.ModuleList([floor(), floor()])
    served = type("MartianForCausalLM", (nn.Module,), {})()
    served.inner = decoder
    with pytest.raises(UnknownArchitectureError, match="MartianForCausalLM"):
        family_of(config)
    with pytest.raises(UnknownArchitectureError, match="MartianForCausalLM"):
        check_model(config, Launch("x", "float32"))
    with pytest.raises(UnknownArchitectureError, match="MartianForCausalLM"):
        rank_sites(served, model_type="martian")

    monkeypatch.setitem(FAMILIES, "martian", entry)
    assert [(site.layer, site.d_mlp) for site in find_sites(decoder, family_of(config).transformers)] == [
        (0, 8),
        (1, 8),
    ]
    assert neurons_per_layer(config) == 8
    check_model(config, Launch("x", "float32", tensor=2))
    sites = rank_sites(served, model_type="martian")
    assert [site.module for site in sites] == [layer.brain.spark for layer in decoder.floors]
    assert not any(site.merged for site in sites)


def test_vllm_s_own_class_decides_where_a_config_names_another_family_s() -> None:
    """As for the fine-tuned models of one family that are stored under the class of another of the same layout."""
    model = type("LlamaForCausalLM", (nn.Module,), {})()
    model.model = decoder_of(layer_of())
    assert len(rank_sites(model, model_type="qwen2")) == 1
    backend = type(BACKEND, (nn.Module,), {})()
    backend.model = decoder_of(layer_of())
    assert len(rank_sites(backend, model_type="olmo2")) == 1
    with pytest.raises(UnknownArchitectureError, match=r"TransformersForCausalLM .*'llama'.*--engine transformers"):
        rank_sites(backend, model_type="llama")


def test_a_config_that_does_not_tell_its_width_is_refused() -> None:
    with pytest.raises(EngineError, match="does not tell how many neurons a layer has"):
        neurons_per_layer(SimpleNamespace(model_type="llama"))
